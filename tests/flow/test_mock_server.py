"""The mock server on real sockets: what its replies are on the wire, byte for byte, and what it noticed."""

import asyncio
import gzip
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
import zlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
import uvloop

from tiergate.capacity import EngineModel
from tiergate.core import CannotStart, SettingsError
from tiergate.testing import (
    Behaviour,
    Ended,
    MockProcess,
    MockServer,
    Rule,
    Script,
    ToolCall,
    When,
    run_mock,
)

REPLY = Behaviour(reply="one two three four five")
LIMIT_S = 10.0


# Raw sockets: what a client would see that mends nothing.


@dataclass
class Wire:
    """What came until the connection ended or nothing more came, and how that was."""

    data: bytes
    ending: str
    """eof, reset or silent."""

    @property
    def head(self) -> bytes:
        return self.data.partition(b"\r\n\r\n")[0]

    @property
    def body(self) -> bytes:
        return self.data.partition(b"\r\n\r\n")[2]

    @property
    def status(self) -> int:
        return int(self.head.split(b" ", 2)[1])

    @property
    def chunks(self) -> list[bytes]:
        """The chunks that are whole; the last one is empty if the body came to its end."""
        found, rest = [], self.body
        while b"\r\n" in rest:
            size, rest = rest.split(b"\r\n", 1)
            length = int(size, 16)
            if len(rest) < length + 2:
                break
            assert rest[length : length + 2] == b"\r\n"
            found.append(rest[:length])
            rest = rest[length + 2 :]
        return found

    def header(self, name: str) -> list[str]:
        lines = self.head.decode().split("\r\n")[1:]
        return [value.strip() for key, _, value in (line.partition(":") for line in lines) if key == name]


def request_bytes(
    *, content: str = "hello", path: str = "/v1/chat/completions", headers: str = "", **body: Any
) -> bytes:
    data = json.dumps({"model": "m", "messages": [{"role": "user", "content": content}], **body}).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: mock\r\ncontent-length: {len(data)}\r\n{headers}\r\n"
    return head.encode() + data


async def talk(server: MockServer, sent: bytes, *, patience_s: float = 0.1) -> Wire:
    """Send, and read until the connection ends or nothing comes for a while."""
    reader, writer = await connect(server)
    writer.write(sent)
    try:
        return await listen(reader, patience_s)
    finally:
        writer.transport.abort()


async def connect(server: MockServer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    return await asyncio.open_connection(host, int(port))


async def listen(reader: asyncio.StreamReader, patience_s: float) -> Wire:
    data = b""
    while True:
        try:
            async with asyncio.timeout(patience_s):
                piece = await reader.read(1 << 16)
        except TimeoutError:
            return Wire(data, "silent")
        except ConnectionResetError:
            return Wire(data, "reset")
        if not piece:
            return Wire(data, "eof")
        data += piece


def runner(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> "Run":
    async def limited(main: Callable[[], Awaitable[Any]]) -> Any:
        async with asyncio.timeout(LIMIT_S):
            return await main()

    def go(main: Callable[[], Awaitable[Any]]) -> Any:
        with asyncio.Runner(loop_factory=new_loop) as own:
            return own.run(limited(main))

    return go


@pytest.fixture
def run() -> "Run":
    """Run a test's coroutine on the loop that the mock process uses, within a limit of time."""
    return runner(uvloop.new_event_loop)


@pytest.fixture(params=["asyncio", "uvloop"])
def run_on_each(request: pytest.FixtureRequest) -> "Run":
    """Run it on either loop, where the two differ in what they do to sockets."""
    return runner(asyncio.new_event_loop if request.param == "asyncio" else uvloop.new_event_loop)


Run = Callable[[Callable[[], Awaitable[Any]]], Any]


def wire_of(run: Run, behaviour: Behaviour, **body: Any) -> tuple[Wire, Ended]:
    """What one request gets from one behaviour, and how the log says that it ended."""

    async def main() -> tuple[Wire, Ended]:
        async with MockServer(behaviour) as server:
            wire = await talk(server, request_bytes(**body))
            await asyncio.sleep(0.01)
            return wire, server.log[0].ended

    result: tuple[Wire, Ended] = run(main)
    return result


def test_a_good_reply_has_a_length_and_the_connection_stays(run: Run) -> None:
    """JSON of exactly its Content-Length, a date and an id; nothing ends."""
    wire, ended = wire_of(run, REPLY)

    assert wire.status == 200
    assert wire.header("content-length") == [str(len(wire.body))]
    assert json.loads(wire.body)["choices"][0]["message"]["content"] == REPLY.reply
    assert wire.header("date") and wire.header("x-request-id")
    assert (wire.ending, ended) == ("silent", Ended.COMPLETED)


def test_a_good_stream_is_chunked_and_ends_with_done(run_on_each: Run) -> None:
    """Each event is one chunk: role, five words, finish reason, [DONE], end."""
    wire, ended = wire_of(run_on_each, REPLY, stream=True)

    assert wire.header("content-type") == ["text/event-stream; charset=utf-8"]
    assert len(wire.chunks) == 1 + 5 + 1 + 1 + 1
    assert all(chunk.startswith(b"data: {") and chunk.endswith(b"}\n\n") for chunk in wire.chunks[:-2])
    assert wire.chunks[-2:] == [b"data: [DONE]\n\n", b""]
    assert (wire.ending, ended) == ("silent", Ended.COMPLETED)


def test_events_leave_when_their_token_does(run_on_each: Run) -> None:
    """At 50 ms and then each 40 ms; no event waits for the next one."""

    async def main() -> list[float]:
        behaviour = Behaviour(reply="a b c d", ttft_ms=50, tokens_per_s=25)
        async with MockServer(behaviour) as server:
            reader, writer = await connect(server)
            started = time.monotonic()
            writer.write(request_bytes(stream=True))
            times = []
            while b"[DONE]" not in await reader.read(1 << 16):
                times.append(time.monotonic() - started)
            writer.close()
            return times

    times = run_on_each(main)
    assert len(times) == 3
    assert all(abs(seen - due) < 0.03 for seen, due in zip(times, (0.05, 0.09, 0.13), strict=True))


# Faults, each as its name says.


def test_refuse_resets_without_a_byte(run_on_each: Run) -> None:
    """As one behaviour among others: the request was read, and the answer is a reset."""

    async def main() -> tuple[Wire, Wire]:
        async with MockServer(Script(rules=(Rule(when=When(nth=2), then=Behaviour(refuse=True)),))) as server:
            return await talk(server, request_bytes()), await talk(server, request_bytes())

    good, refused = run_on_each(main)
    assert good.status == 200
    assert (refused.data, refused.ending) == (b"", "reset")


def test_refuse_by_default_closes_the_port(run_on_each: Run) -> None:
    """Connecting is refused; with another script the same port answers again, and the other way round."""

    async def main() -> None:
        async with MockServer(Behaviour(refuse=True)) as server:
            url = server.url
            with pytest.raises(ConnectionRefusedError):
                await connect(server)
            await server.play(REPLY)
            assert (await talk(server, request_bytes())).status == 200
            await server.close_door()
            with pytest.raises(ConnectionRefusedError):
                await connect(server)
            await server.open_door()
            assert (await talk(server, request_bytes())).status == 200
            assert server.url == url

    run_on_each(main)


def test_hang_reads_and_never_answers(run: Run) -> None:
    """No byte and no end."""
    wire, _ = wire_of(run, Behaviour(hang=True))

    assert (wire.data, wire.ending) == (b"", "silent")


@pytest.mark.parametrize("events", [0, 1, 3])
def test_stall_after_n_events_leaves_the_socket_open(run: Run, events: int) -> None:
    """Exactly N whole events, then silence."""
    wire, _ = wire_of(run, Behaviour(reply=REPLY.reply, stall_after=events), stream=True)

    assert len(wire.chunks) == events
    assert wire.body.count(b"data: ") == events
    assert wire.ending == "silent"


def test_reset_after_n_events_cuts_inside_a_chunk(run_on_each: Run) -> None:
    """Two whole events, half of the third in a chunk that claims all of it, and a reset."""
    wire, ended = wire_of(run_on_each, Behaviour(reply=REPLY.reply, reset_after=2), stream=True)

    assert len(wire.chunks) == 2
    rest = wire.body.split(b"\n\n\r\n")[2]
    size, _, torn = rest.partition(b"\r\n")
    assert 0 < len(torn) < int(size, 16)
    assert torn.startswith(b'data: {"id"')
    assert (wire.ending, ended) == ("reset", Ended.BROKEN)


@pytest.mark.parametrize(("streamed", "count"), [(True, 0), (True, 100), (False, 0), (False, 100)])
def test_reset_after_n_bytes_counts_the_bytes_of_the_body(run: Run, streamed: bool, count: int) -> None:
    """Chunk sizes are not counted."""
    wire, _ = wire_of(run, Behaviour(reset_after_bytes=count), stream=streamed)

    body = wire.body.partition(b"\r\n")[2] if streamed else wire.body
    assert len(body) == count
    assert wire.ending == "reset"


def test_a_clean_cut_looks_like_an_end(run: Run) -> None:
    """Three events and the final chunk; no finish reason, no [DONE]; the connection goes on."""
    wire, ended = wire_of(run, Behaviour(reply=REPLY.reply, clean_cut_after=3), stream=True)

    assert len(wire.chunks) == 4 and wire.chunks[-1] == b""
    assert b'finish_reason":"' not in wire.body and b"[DONE]" not in wire.body
    assert (wire.ending, ended) == ("silent", Ended.BROKEN)


@pytest.mark.parametrize("name", ["stall_after", "reset_after", "clean_cut_after", "error_in_stream"])
def test_a_break_always_strikes_before_the_finish_reason(run: Run, name: str) -> None:
    """A thousand events are more than there are; the answer still breaks."""
    wire, _ = wire_of(run, Behaviour(reply=REPLY.reply, **{name: 1_000}), stream=True)

    assert wire.body.count(b'"content":" five"') == 1
    assert b'finish_reason":"' not in wire.body


@pytest.mark.parametrize(
    ("behaviour", "ending"),
    [
        (Behaviour(stall_after=0), "silent"),
        (Behaviour(reset_after=0), "reset"),
        (Behaviour(clean_cut_after=0), "eof"),
    ],
)
def test_breaks_of_a_whole_reply_strike_in_its_middle(
    run_on_each: Run, behaviour: Behaviour, ending: str
) -> None:
    """Half of the length that was promised."""
    wire, _ = wire_of(run_on_each, behaviour)

    assert len(wire.body) == int(wire.header("content-length")[0]) // 2
    assert wire.ending == ending


def test_no_done_and_usage_on_finish(run: Run) -> None:
    """The finish reason is there, usage rides on it, the marker is missing, the end is clean."""
    wire, ended = wire_of(run, Behaviour(no_done=True, usage_on_finish=True), stream=True)

    assert b"[DONE]" not in wire.body
    last = json.loads(wire.chunks[-2].removeprefix(b"data: "))
    assert last["choices"][0]["finish_reason"] == "stop" and last["usage"]["completion_tokens"] == 16
    assert ended is Ended.COMPLETED


def test_truncated_json(run: Run) -> None:
    """Whole: half the JSON under a true length. Streamed: an event breaks off and the body ends cleanly."""
    whole, _ = wire_of(run, Behaviour(truncate_json=True))
    stream, _ = wire_of(run, Behaviour(reply=REPLY.reply, truncate_json=True), stream=True)

    assert len(whole.body) == int(whole.header("content-length")[0])
    with pytest.raises(json.JSONDecodeError):
        json.loads(whole.body)
    assert stream.chunks[-1] == b""
    assert not stream.chunks[-2].endswith(b"\n") and stream.chunks[-2].startswith(b'data: {"id"')


@pytest.mark.parametrize("streamed", [True, False])
def test_html_and_empty_and_body(run: Run, streamed: bool) -> None:
    """Three answers with status 200 that are none."""
    html, _ = wire_of(run, Behaviour(html=True), stream=streamed)
    empty, _ = wire_of(run, Behaviour(empty=True), stream=streamed)
    null, _ = wire_of(run, Behaviour(body="null"), stream=streamed)

    assert html.header("content-type") == ["text/html; charset=utf-8"] and b"<html>" in html.body
    assert (empty.status, empty.body, empty.header("content-length")) == (200, b"", ["0"])
    assert (null.status, null.body) == (200, b"null")


def test_a_wrong_length_is_off_by_as_much_as_said(run: Run) -> None:
    """Too long: the connection ends before. Too short: surplus bytes lie on a connection that goes on."""
    longer, _ = wire_of(run, Behaviour(wrong_length=7))
    shorter, _ = wire_of(run, Behaviour(wrong_length=-7))
    stream, _ = wire_of(run, Behaviour(reply="a", wrong_length=-2), stream=True)

    assert int(longer.header("content-length")[0]) == len(longer.body) + 7 and longer.ending == "eof"
    assert int(shorter.header("content-length")[0]) == len(shorter.body) - 7 and shorter.ending == "silent"
    first_size, _, rest = stream.body.partition(b"\r\n")
    assert int(first_size, 16) == rest.index(b"\r\n") - 2


def test_two_lengths_and_a_length_beside_chunks(run: Run) -> None:
    """A list sends a header several times; beside chunks it stands as given."""
    twice, _ = wire_of(run, Behaviour(headers={"Content-Length": [5, 6]}))
    beside, _ = wire_of(run, Behaviour(headers={"content-length": 5}), stream=True)

    assert twice.header("content-length") == ["5", "6"]
    assert beside.header("content-length") == ["5"] and beside.header("transfer-encoding") == ["chunked"]


def test_an_error_inside_a_stream(run: Run) -> None:
    """After two events an error object, and nothing after it but the end."""
    behaviour = Behaviour(error_in_stream=2, error={"code": "overloaded", "message": "too much"})
    wire, _ = wire_of(run, behaviour, stream=True)
    whole, _ = wire_of(run, behaviour)

    assert len(wire.chunks) == 4 and wire.chunks[-1] == b""
    assert json.loads(wire.chunks[2].removeprefix(b"data: "))["error"]["code"] == "overloaded"
    assert whole.status == 200 and json.loads(whole.body)["error"]["message"] == "too much"


def test_one_byte_chunks_crlf_and_comments(run: Run) -> None:
    """Every chunk is one byte; lines end with CR LF; a comment stands before each event."""
    behaviour = Behaviour(reply="a b", one_byte_chunks=True, crlf=True, comments=True)
    wire, _ = wire_of(run, behaviour, stream=True)
    whole, _ = wire_of(run, behaviour)

    assert {len(chunk) for chunk in wire.chunks[:-1]} == {1}
    lines = b"".join(wire.chunks).split(b"\r\n")
    assert lines[0] == b": mock" and lines[1] == b"" and lines[2].startswith(b"data: {")
    assert not any(b"\n" in line for line in lines)
    assert {len(chunk) for chunk in whole.chunks[:-1]} == {1} and json.loads(b"".join(whole.chunks))


def test_a_redirect_names_another_place(run: Run) -> None:
    """307 unless the status says otherwise."""
    wire, _ = wire_of(run, Behaviour(redirect="http://elsewhere.test/v1"))
    other, _ = wire_of(run, Behaviour(redirect="/x", status=301))

    assert (wire.status, wire.header("location")) == (307, ["http://elsewhere.test/v1"])
    assert other.status == 301


def test_errors_have_the_openai_shape_and_the_headers_of_the_script(run: Run) -> None:
    """Status, error object, retry-after, and a date that the script may set."""
    headers = {"retry-after": "1.5", "date": "Thu, 01 Jan 2026 00:00:00 GMT"}
    wire, _ = wire_of(run, Behaviour(status=429, headers=headers, error={"code": "insufficient_quota"}))
    page, _ = wire_of(run, Behaviour(status=502, html=True))

    error = json.loads(wire.body)["error"]
    assert wire.status == 429
    assert (error["type"], error["code"]) == ("rate_limit_error", "insufficient_quota")
    assert (wire.header("retry-after"), wire.header("date")) == (["1.5"], [headers["date"]])
    assert page.status == 502 and page.body.startswith(b"<!DOCTYPE html>")


def test_headers_may_come_slowly_or_early(run: Run) -> None:
    """The status line at once and the rest later; or all headers long before the first token."""
    slow, _ = wire_of(run, Behaviour(slow_headers_ms=5_000))
    early, _ = wire_of(run, Behaviour(early_headers=True, ttft_ms=5_000), stream=True)
    late, _ = wire_of(run, Behaviour(ttft_ms=5_000), stream=True)
    waiting, _ = wire_of(run, Behaviour(wait_ms=5_000, status=503))

    assert slow.data == b"HTTP/1.1 200 OK\r\n"
    assert early.status == 200 and early.data.endswith(b"\r\n\r\n")
    assert late.data == waiting.data == b""


def test_hang_up_closes_unannounced(run: Run) -> None:
    """A whole answer, no `connection: close`, and then the end."""
    wire, _ = wire_of(run, Behaviour(hang_up=True))

    assert json.loads(wire.body) and wire.header("connection") == []
    assert wire.ending == "eof"


# More than a client should take.


def deltas(body: bytes) -> list[Any]:
    """What the events say, without what depends on the time of day."""
    return [json.loads(event)["choices"] for event in events_in(body) if event != b"[DONE]"]


def events_in(body: bytes) -> list[bytes]:
    """Read events as a client must: all three line ends, a byte order mark, fields that nobody knows."""
    found: list[bytes] = []
    data: list[bytes] = []
    for line in re.split(rb"\r\n|\n|\r", body.removeprefix(b"\xef\xbb\xbf")):
        if line.startswith(b"data: "):
            data.append(line.removeprefix(b"data: "))
        elif not line and data:
            found.append(b"\n".join(data))
            data.clear()
    return found


def decoded(wire: Wire, *layers: int) -> bytes:
    """Undo the chunks and the encodings, the outermost first; each must have its end."""
    data = b"".join(wire.chunks)
    for bits in layers:
        data, rest = b"", data
        while rest:
            reader = zlib.decompressobj(bits)
            data += reader.decompress(rest)
            assert reader.eof
            rest = reader.unused_data
    return data


def test_padding_stands_before_the_json_of_a_whole_answer(run: Run) -> None:
    """200 kB of spaces, under a length that is true, and JSON behind them; pages have it, too."""
    wire, ended = wire_of(run, Behaviour(padding_bytes=200_000))
    page, _ = wire_of(run, Behaviour(padding_bytes=200_000, status=503))

    for each in (wire, page):
        assert each.body[:200_001] == b" " * 200_000 + b"{" and json.loads(each.body)
        assert each.header("content-length") == [str(len(each.body))]
    assert (wire.ending, ended) == ("silent", Ended.COMPLETED)


def test_padding_stands_on_the_line_of_one_event(run: Run) -> None:
    """The third event has a line of 200 kB; all others are as ever."""
    padded, _ = wire_of(run, Behaviour(reply="a b", padding_bytes=200_000, bulk_event=2), stream=True)
    plain, _ = wire_of(run, Behaviour(reply="a b"), stream=True)

    events = events_in(b"".join(padded.chunks))
    assert deltas(b"".join(padded.chunks)) == deltas(b"".join(plain.chunks))
    assert [len(event) - len(event.lstrip()) for event in events] == [0, 0, 200_000, 0, 0]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("more", [{}, {"encode": "gzip"}], ids=["plain", "encoded"])
def test_what_has_no_end_is_made_while_it_leaves(run: Run, more: dict[str, Any], *, streamed: bool) -> None:
    """A terabyte begins at once, takes no memory, lets others be served, and ends when its client leaves."""

    async def main() -> None:
        giant = Behaviour(padding_bytes=10**12, **more)
        script = Script(rules=(Rule(when=When(model="giant"), then=giant),))
        async with MockServer(script) as server:
            before = memory_bytes()
            reader, writer = await connect(server)
            writer.write(request_bytes(stream=streamed, model="giant"))
            taken = 0
            while taken < (40_000 if more else 40_000_000):
                taken += len(await reader.readexactly(1 << 12))
            assert (await talk(server, request_bytes())).status == 200
            assert server.log[0].ended is Ended.IN_FLIGHT
            assert memory_bytes() - before < 16_000_000
            writer.transport.abort()
            while server.log[0].ended is Ended.IN_FLIGHT:
                await asyncio.sleep(0.01)
            assert server.log[0].ended is Ended.ABORTED

    run(main)


def memory_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS:")).split()[1]) * 1024


def test_a_flood_has_everything_that_a_reader_must_pass_over(run: Run) -> None:
    """LF, CR and CR LF, NUL and byte order marks; with `one_byte_chunks` each byte in its chunk."""
    wire, _ = wire_of(run, Behaviour(reply="a", flood_bytes=5_000, one_byte_chunks=True), stream=True)

    body = b"".join(wire.chunks)
    flood = body[:5_000]
    assert body[5_000:].startswith(b"data: {")
    assert all(part in flood for part in (b"\0", b"\xef\xbb\xbf", b"\r\r", b"\n\n", b"\r\n\r\n"))
    assert {len(chunk) for chunk in wire.chunks[:-1]} == {1}


@pytest.mark.parametrize(
    ("encode", "layers"),
    [("gzip", (31,)), ("deflate", (15,)), (("gzip", "gzip"), (31, 31)), (("deflate", "gzip"), (31, 15))],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_an_encoded_body_is_what_it_says(
    run: Run, encode: Any, layers: tuple[int, ...], *, streamed: bool
) -> None:
    """Compressed and named in the order in which it was; undone, it is the answer as ever."""
    wire, _ = wire_of(run, Behaviour(reply="a b", encode=encode), stream=streamed)

    body = decoded(wire, *layers)
    assert wire.header("content-encoding") == [encode if isinstance(encode, str) else ", ".join(encode)]
    assert wire.header("content-length") == [] and wire.ending == "silent"
    assert events_in(body)[-1] == b"[DONE]" if streamed else json.loads(body)


def test_a_bomb_is_small_on_the_wire(run: Run) -> None:
    """20 MB in less than a five-hundredth; an error's body can be one."""
    wire, _ = wire_of(run, Behaviour(encode="gzip", padding_bytes=20_000_000, status=500))

    assert len(wire.body) < 40_000
    assert len(decoded(wire, 31).lstrip()) + 20_000_000 == len(decoded(wire, 31))
    assert "error" in json.loads(decoded(wire, 31))


def test_encoded_events_leave_when_their_token_does(run: Run) -> None:
    """What arrived so far can be read so far: half of a stream is half of its events."""
    wire, _ = wire_of(run, Behaviour(reply="a b c", encode="gzip", stall_after=2), stream=True)

    assert len(events_in(zlib.decompressobj(31).decompress(b"".join(wire.chunks)))) == 2


def test_breaks_strike_in_an_encoded_body(run: Run) -> None:
    """A clean cut ends the encoding, too; a reset leaves it torn, inside a chunk."""
    cut, _ = wire_of(run, Behaviour(reply="a b c", encode="gzip", clean_cut_after=2), stream=True)
    reset, _ = wire_of(run, Behaviour(reply="a b c", encode="gzip", reset_after=2), stream=True)

    assert len(events_in(decoded(cut, 31))) == 2
    reader = zlib.decompressobj(31)
    assert len(events_in(reader.decompress(b"".join(reset.chunks)))) == 2 and not reader.eof
    assert reset.ending == "reset" and not reset.body.endswith(b"\r\n")


def test_empty_members_come_before_the_one_with_the_body(run: Run) -> None:
    """Ten thousand members of gzip that hold nothing, and one that holds the answer."""
    wire, _ = wire_of(run, Behaviour(encode="gzip", empty_members=10_000))

    empty = gzip.compress(b"", mtime=0)
    assert b"".join(wire.chunks).startswith(empty * 10_000)
    assert json.loads(gzip.decompress(b"".join(wire.chunks)))


def test_an_encoded_reply_has_an_id_of_its_own_each_time(run: Run) -> None:
    """Kept replies are made anew by writing a number over: not where it cannot be seen."""

    async def main() -> set[str]:
        async with MockServer(Behaviour(encode="gzip")) as server:
            wires = [await talk(server, request_bytes(), patience_s=0.05) for _ in range(3)]
            return {json.loads(decoded(wire, 31))["id"] for wire in wires}

    assert len(run(main)) == 3


def test_large_and_many_headers(run: Run) -> None:
    """A header of 300 kB and a thousand more, beside those that there are always."""
    wire, _ = wire_of(run, Behaviour(header_bytes=300_000, header_count=1_000))

    assert wire.header("x-large") == ["a" * 300_000]
    assert wire.head.count(b"\r\nx-many-") == 1_000
    assert wire.header("content-length") == [str(len(wire.body))] and json.loads(wire.body)


def test_raw_bytes_and_garbage_are_no_response(run_on_each: Run) -> None:
    """Exactly the bytes of the script, or so many that are no HTTP; then the end."""
    raw, ended = wire_of(run_on_each, Behaviour(raw="SSH-2.0-x\r\n\xff\0"))
    noise, _ = wire_of(run_on_each, Behaviour(garbage=200_000), stream=True)

    assert (raw.data, raw.ending, ended) == (b"SSH-2.0-x\r\n\xff\0", "eof", Ended.BROKEN)
    assert len(noise.data) == 200_000 and noise.ending == "eof"
    assert b"HTTP/" not in noise.data and len(set(noise.data)) == 256


@pytest.mark.parametrize("streamed", [False, True])
def test_a_cut_inside_a_character(run: Run, *, streamed: bool) -> None:
    """The last two bytes begin a character of four; the framing ends well."""
    wire, ended = wire_of(run, Behaviour(reply="a b c", cut_character=True), stream=streamed)

    data = wire.chunks[-2] if streamed else wire.body
    with pytest.raises(UnicodeDecodeError, match="unexpected end of data"):
        data.decode()
    assert data[:-2].decode().endswith('"content":"')
    if streamed:
        assert wire.chunks[-1] == b"" and len(events_in(b"".join(wire.chunks[:-2]))) == 2
    else:
        assert wire.header("content-length") == [str(len(wire.body))]
    assert ended is Ended.BROKEN


def test_a_trickle_sends_byte_by_byte(run: Run) -> None:
    """A pause after each byte: what has come after some of them is a beginning, each byte for itself."""
    quick, _ = wire_of(run, Behaviour(trickle_ms=1, body='{"a": 1}'))
    slow, _ = wire_of(run, Behaviour(words=0, trickle_ms=1), stream=True)
    never, _ = wire_of(run, Behaviour(trickle_ms=60_000), stream=True)

    assert json.loads(quick.body) == {"a": 1}
    assert b"".join(slow.chunks).startswith(b"data: {")
    assert {len(chunk) for chunk in slow.chunks[:-1]} == {1}
    assert never.chunks == [b"d"]


def test_line_ends_by_turns_and_a_byte_order_mark(run: Run) -> None:
    """All three line ends in one stream, which a reader that knows them reads as ever."""
    odd = Behaviour(reply="a b c d e", mixed_line_ends=True, comments=True, bom=True)
    wire, _ = wire_of(run, odd, stream=True)
    plain, _ = wire_of(run, Behaviour(reply="a b c d e"), stream=True)
    whole, _ = wire_of(run, Behaviour(bom=True))

    body = b"".join(wire.chunks)
    assert body.startswith(b"\xef\xbb\xbf: mock")
    assert deltas(body) == deltas(b"".join(plain.chunks))
    assert events_in(body)[-1] == b"[DONE]"
    assert all(end in body for end in (b"}\n\n", b"}\r\r", b"}\r\n\r\n", b"}\n\r", b"}\r\r\n"))
    assert whole.body.startswith(b"\xef\xbb\xbf{")
    assert whole.header("content-length") == [str(len(whole.body))]


# TLS.

CERTIFICATES = Path(__file__).parents[1] / "contract" / "certificates"


async def shake_hands(server: MockServer, *, trusted: str = "issuer") -> Wire:
    """Ask over TLS, as a client that verifies."""
    context = ssl.create_default_context(cafile=str(CERTIFICATES / f"{trusted}.pem"))
    port = int(server.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    writer.write(request_bytes())
    try:
        return await listen(reader, 0.15)
    finally:
        writer.transport.abort()


def test_a_good_certificate_holds(run_on_each: Run) -> None:
    """Over TLS the answer is as ever, and the URL says https."""

    async def main() -> Wire:
        async with MockServer(Script(default=REPLY, tls=str(CERTIFICATES / "good.pem"))) as server:
            assert server.base_url.startswith("https://127.0.0.1:")
            return await shake_hands(server)

    assert json.loads(run_on_each(main).body)["choices"]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("expired", "certificate has expired"),
        ("wrong_name", "IP address mismatch"),
        ("unknown_issuer", "unable to get local issuer certificate"),
    ],
)
def test_a_certificate_that_does_not_hold_is_served_all_the_same(
    run_on_each: Run, name: str, why: str
) -> None:
    """The client finds out, and its request never arrives."""

    async def main() -> int:
        async with MockServer(Script(tls=str(CERTIFICATES / f"{name}.pem"))) as server:
            with pytest.raises(ssl.SSLCertVerificationError, match=why):
                await shake_hands(server)
            return len(server.log)

    assert run_on_each(main) == 0


def test_another_script_may_bring_another_certificate_or_none(run_on_each: Run) -> None:
    """On the same port; a file that cannot be used is told and changes nothing."""

    async def main() -> None:
        async with MockServer(Script(tls=str(CERTIFICATES / "expired.pem"))) as server:
            with pytest.raises(CannotStart, match=r"no-such\.pem cannot be used: No such file"):
                await server.play(Script(tls="no-such.pem"))
            with pytest.raises(CannotStart, match="it holds no key"):
                await server.play(Script(tls=str(CERTIFICATES / "issuer.pem")))
            with pytest.raises(ssl.SSLCertVerificationError):
                await shake_hands(server)
            await server.play(Script(tls=str(CERTIFICATES / "good.pem")))
            assert (await shake_hands(server)).status == 200
            await server.play(REPLY)
            assert (await talk(server, request_bytes())).status == 200

    run_on_each(main)


def test_a_reset_over_tls_is_a_reset(run_on_each: Run) -> None:
    """Breaks of the connection break it below TLS, too: no orderly goodbye."""

    async def main() -> tuple[bytes, Ended]:
        script = Script(default=Behaviour(reset_after=0), tls=str(CERTIFICATES / "good.pem"))
        async with MockServer(script) as server:
            wire = await shake_hands(server)
            return wire.data, server.log[0].ended

    data, ended = run_on_each(main)
    assert data.startswith(b"HTTP/1.1 200 OK") and ended is Ended.BROKEN


# The connection.


def test_requests_in_one_piece_are_answered_in_their_order(run_on_each: Run) -> None:
    """Pipelining, also past the number of requests that may wait, also behind a slow one."""

    async def main() -> bytes:
        async with MockServer(Behaviour(echo=True)) as server:
            slow = request_bytes(content="[[mock: ttft_ms=50]] <0>", max_tokens=9)
            others = b"".join(request_bytes(content=f"<{number}>") for number in range(1, 200))
            return (await talk(server, slow + others, patience_s=0.4)).data

    data = run_on_each(main)
    places = [data.index(f'"<{number}>"'.encode()) for number in range(200)]
    assert places == sorted(places)
    assert data.count(b"HTTP/1.1 200 OK") == 200


def test_a_request_that_comes_byte_by_byte_is_a_request(run: Run) -> None:
    """However its bytes are cut."""

    async def main() -> Wire:
        async with MockServer(REPLY) as server:
            reader, writer = await connect(server)
            for byte in request_bytes():
                writer.write(bytes([byte]))
                await asyncio.sleep(0)
            wire = await listen(reader, 0.15)
            writer.close()
            return wire

    assert run(main).status == 200


def test_the_same_request_again_gets_a_reply_of_its_own(run: Run) -> None:
    """Kept replies have fresh ids, are logged and counted like any other, on whatever connection."""

    async def main() -> tuple[list[Wire], MockServer]:
        async with MockServer(REPLY) as server:
            wires = [await talk(server, request_bytes(), patience_s=0.05) for _ in range(5)]
            return wires, server

    wires, server = run(main)
    replies = [json.loads(wire.body) for wire in wires]
    assert len({reply["id"] for reply in replies}) == 5
    assert len({wire.header("x-request-id")[0] for wire in wires}) == 5
    assert len({json.dumps(reply["choices"]) for reply in replies}) == 1
    assert [entry.number for entry in server.log] == [1, 2, 3, 4, 5]
    assert len({entry.connection for entry in server.log}) == 5
    assert server.statistics().completed == 5
    assert server.statistics().output_tokens == 25


def test_an_old_client_gets_no_chunks(run: Run) -> None:
    """HTTP/1.0: the body ends with the connection."""

    async def main() -> Wire:
        async with MockServer(REPLY) as server:
            return await talk(server, request_bytes(stream=True).replace(b"HTTP/1.1", b"HTTP/1.0"))

    wire = run(main)
    assert wire.header("transfer-encoding") == [] and wire.body.startswith(b"data: {")
    assert wire.body.endswith(b"data: [DONE]\n\n") and wire.ending == "eof"


def test_connection_close_is_obeyed_and_said(run: Run) -> None:
    """The reply says so too."""

    async def main() -> Wire:
        async with MockServer(REPLY) as server:
            return await talk(server, request_bytes(headers="connection: close\r\n"))

    wire = run(main)
    assert (wire.header("connection"), wire.ending) == (["close"], "eof")


def test_a_client_that_waits_for_permission_gets_it(run: Run) -> None:
    """`expect: 100-continue`."""

    async def main() -> Wire:
        async with MockServer(REPLY) as server:
            reader, writer = await connect(server)
            head, _, body = request_bytes(headers="expect: 100-continue\r\n").partition(b"\r\n\r\n")
            writer.write(head + b"\r\n\r\n")
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(body)
            wire = await listen(reader, 0.15)
            writer.close()
            return wire

    assert run(main).status == 200


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"not http at all\r\n\r\n", 400),
        (b"GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\n", 404),
        (b"GET /v1/chat/completions HTTP/1.1\r\nhost: x\r\n\r\n", 404),
        (b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n{", 400),
        (b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n", 200),
        (b"HEAD /health HTTP/1.1\r\nhost: x\r\n\r\n", 200),
    ],
)
def test_other_requests(run: Run, sent: bytes, status: int) -> None:
    """What is no request, what is nowhere, what is no chat completion."""

    async def main() -> Wire:
        async with MockServer(REPLY) as server:
            return await talk(server, sent)

    assert run(main).status == status


def test_a_client_that_does_not_read_is_not_written_to_without_end(run_on_each: Run) -> None:
    """100 MB of answer for a client with a small window: most of it is never made."""

    async def main() -> int:
        async with MockServer(Behaviour(words=1_000_000)) as server:
            with socket.socket() as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
                client.setblocking(False)
                port = int(server.url.rpartition(":")[2])
                await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port))
                await asyncio.get_running_loop().sock_sendall(client, request_bytes(stream=True))
                await asyncio.sleep(0.3)
                (connection,) = server._connections
                assert connection._transport is not None
                return connection._transport.get_write_buffer_size()

    assert run_on_each(main) < 1_000_000


def test_small_pieces_are_not_held_back(run_on_each: Run) -> None:
    """TCP_NODELAY is set on each accepted connection, whatever the event loop's own habit."""

    async def main() -> int:
        async with MockServer() as server:
            await talk(server, request_bytes(), patience_s=0.02)
            _, writer = await connect(server)
            await asyncio.sleep(0.02)
            (connection,) = server._connections
            assert connection._transport is not None
            accepted = connection._transport.get_extra_info("socket")
            option: int = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            writer.close()
            return option

    assert run_on_each(main) != 0


# What the mock noticed.


@pytest.mark.parametrize("leaving", ["close", "reset", "half-close"])
@pytest.mark.parametrize("streamed", [True, False])
def test_a_client_that_leaves_is_noticed_within_a_second(
    run_on_each: Run, leaving: str, streamed: bool
) -> None:
    """However it leaves, streamed or not; the log has the tokens that were generated by then."""

    async def main() -> tuple[Ended, int, float]:
        async with MockServer(Behaviour(words=1_000, tokens_per_s=100)) as server:
            reader, writer = await connect(server)
            writer.write(request_bytes(stream=streamed))
            await asyncio.sleep(0.2)
            if leaving == "half-close":
                writer.write_eof()
            elif leaving == "close":
                writer.close()
            else:
                writer.transport.abort()
            left = time.monotonic()
            while server.log[0].ended is Ended.IN_FLIGHT:
                await asyncio.sleep(0.005)
            writer.close()
            del reader
            return server.log[0].ended, server.log[0].tokens, time.monotonic() - left

    ended, tokens, took_s = run_on_each(main)
    assert ended is Ended.ABORTED
    assert took_s < 1
    assert 10 <= tokens <= 60


def test_the_log_and_the_statistics_can_be_read_over_http(run: Run) -> None:
    """Entries with times, masked credentials, sizes, endings and connections; counts beside them."""

    async def main() -> tuple[dict[str, Any], dict[str, Any]]:
        async with MockServer(REPLY) as server:
            secrets = "Authorization: Bearer sk-very-secret-1234\r\nX-Api-Key: short\r\nx-plain: seen\r\n"
            await talk(server, request_bytes(headers=secrets), patience_s=0.05)
            await talk(server, request_bytes(content="[[mock: status=500]]"), patience_s=0.05)
            return await view(server, "/mock/log"), await view(server, "/mock/statistics")

    log, statistics = run(main)
    first, second = log["data"]
    assert first["headers"]["authorization"] == "Bearer ***1234"
    assert first["headers"]["x-api-key"] == "***" and first["headers"]["x-plain"] == "seen"
    assert (first["model"], first["streamed"], first["status"], first["ended"]) == (
        "m",
        False,
        200,
        "completed",
    )
    assert first["tokens"] == 5 and first["body_bytes"] > 50 and first["elapsed_ms"] >= 0
    assert abs(first["at_s"] - time.time()) < 10
    assert (second["status"], second["connection"] - first["connection"]) == (500, 1)
    assert (statistics["requests"], statistics["completed"], statistics["errors"]) == (2, 2, 1)
    assert statistics["connections_total"] >= 3 and statistics["engine"] is None


def test_models_can_be_listed_and_others_are_unknown(run: Run) -> None:
    """With a list of models any other is a 404; a rule may break the list itself."""

    async def main() -> tuple[dict[str, Any], Wire, Wire]:
        script = Script(models=("a", "b"))
        broken = Script(rules=(Rule(when=When(path="/v1/models"), then=Behaviour(status=500)),))
        async with MockServer(script) as server, MockServer(broken) as other:
            get = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n"
            return (
                await view(server, "/v1/models"),
                await talk(server, request_bytes()),
                await talk(other, get),
            )

    models, unknown, broken = run(main)
    assert [model["id"] for model in models["data"]] == ["a", "b"]
    assert unknown.status == 404 and b"model_not_found" in unknown.body
    assert broken.status == 500


def test_a_header_selects_a_behaviour(run: Run) -> None:
    """`x-mock-behaviour`, and a wrong one is told."""

    async def main() -> tuple[Wire, Wire]:
        async with MockServer() as server:
            good = await talk(server, request_bytes(headers='x-mock-behaviour: {"status": 418}\r\n'))
            return good, await talk(server, request_bytes(headers="x-mock-behaviour: stauts=418\r\n"))

    good, wrong = run(main)
    assert good.status == 418
    assert wrong.status == 400 and b"did you mean 'status'" in wrong.body


async def view(server: MockServer, path: str) -> dict[str, Any]:
    wire = await talk(server, f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode(), patience_s=0.05)
    assert wire.status == 200
    seen: dict[str, Any] = json.loads(wire.body)
    return seen


# The engine.


def test_an_engine_that_is_full_makes_the_next_wait(run_on_each: Run) -> None:
    """Four slots, 20 tokens at 10 ms: four first tokens at once, four more after the first four are done."""
    model = EngineModel(slots=4, base_ms=10, per_sequence_ms=0, prefill_tokens_per_s=1e6)

    async def main() -> tuple[list[float], str]:
        async with MockServer(Script(default=Behaviour(words=20), engine=model)) as server:

            async def first_token_s() -> float:
                reader, writer = await connect(server)
                started = time.monotonic()
                writer.write(request_bytes(stream=True))
                await reader.readuntil(b"data: ")
                waited = time.monotonic() - started
                while b"[DONE]" not in await reader.read(1 << 16):
                    pass
                writer.close()
                return waited

            asked = [asyncio.create_task(first_token_s()) for _ in range(8)]
            await asyncio.sleep(0.1)
            metrics = (await talk(server, b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n", patience_s=0.03)).body
            return sorted(await asyncio.gather(*asked)), metrics.decode()

    times, metrics = run_on_each(main)
    assert max(times[:4]) < 0.15
    assert min(times[4:]) > 0.19
    assert 'vllm:num_requests_running{model_name="mock"} 4.0' in metrics
    assert 'vllm:num_requests_waiting{model_name="mock"} 4.0' in metrics


def test_clients_that_leave_free_the_engine(run: Run) -> None:
    """One slot, held by an endless answer: when its client leaves, the next one is served."""
    model = EngineModel(slots=1, base_ms=5, per_sequence_ms=0)

    async def main() -> Wire:
        script = Script(
            default=Behaviour(words=3),
            engine=model,
            rules=(Rule(when=When(nth=1), then=Behaviour(words=100_000)),),
        )
        async with MockServer(script) as server:
            _, writer = await connect(server)
            writer.write(request_bytes(stream=True))
            await asyncio.sleep(0.1)
            waiting = asyncio.create_task(talk(server, request_bytes(), patience_s=0.5))
            await asyncio.sleep(0.1)
            assert server.engine_statistics().waiting == 1
            writer.close()
            return await waiting

    assert run(main).status == 200


# The official client.


@contextmanager
def official(script: Script | Behaviour) -> Iterator[openai.OpenAI]:
    """The synchronous client, and a mock server in a thread."""
    started, url = threading.Event(), []

    async def serve() -> None:
        async with MockServer(script) as server:
            url.append(server.base_url)
            started.set()
            while not stop.is_set():
                await asyncio.sleep(0.01)

    stop = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert started.wait(5)
        with openai.OpenAI(base_url=url[0], api_key="sk-test", max_retries=0, timeout=5) as client:
            yield client
    finally:
        stop.set()
        thread.join(5)


HELLO: Any = [{"role": "user", "content": "hello"}]


def test_the_official_client_is_content_with_every_kind_of_answer() -> None:
    """Whole, streamed, n = 2, tools, JSON mode, log probabilities, images, models."""
    tool: Any = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    image: Any = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]
    with official(REPLY) as client:
        chat = client.chat.completions
        assert chat.create(model="m", messages=HELLO).choices[0].message.content == REPLY.reply
        options: Any = {"include_usage": True}
        chunks = list(chat.create(model="m", messages=HELLO, stream=True, stream_options=options))
        assert "".join(each.choices[0].delta.content or "" for each in chunks[:-1]) == REPLY.reply
        assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens == 5
        assert len(chat.create(model="m", messages=HELLO, n=2).choices) == 2
        called = chat.create(model="m", messages=HELLO, tools=[tool], tool_choice="required")
        assert called.choices[0].message.tool_calls is not None
        assert called.choices[0].message.tool_calls[0].function.name == "look"
        scored = chat.create(model="m", messages=HELLO, logprobs=True, top_logprobs=2)
        assert scored.choices[0].logprobs is not None
        assert len(scored.choices[0].logprobs.content or []) == 5
        assert chat.create(model="m", messages=image).usage.prompt_tokens == 85
        assert [model.id for model in client.models.list()] == ["mock"]
    with official(Behaviour()) as client:
        asked: Any = {"type": "json_object"}
        said = client.chat.completions.create(model="m", messages=HELLO, response_format=asked)
        assert json.loads(said.choices[0].message.content or "")


def test_the_official_client_streams_a_tool_call() -> None:
    """Name first, arguments in pieces."""
    with official(Behaviour(tool_call=ToolCall(name="look", arguments={"at": "the sea"}))) as client:
        chunks = client.chat.completions.create(model="m", messages=HELLO, stream=True)
        calls = [call for each in chunks for call in each.choices[0].delta.tool_calls or []]
    assert calls[0].function is not None and calls[0].function.name == "look"
    assert json.loads("".join(call.function.arguments or "" for call in calls if call.function)) == {
        "at": "the sea"
    }


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        (Behaviour(status=401), openai.AuthenticationError),
        (Behaviour(status=429), openai.RateLimitError),
        (Behaviour(status=503), openai.InternalServerError),
        (Behaviour(refuse=True), openai.APIConnectionError),
        (Behaviour(reset_after=0), openai.APIConnectionError),
    ],
)
def test_the_official_client_raises_what_a_real_provider_makes_it_raise(
    behaviour: Behaviour, kind: type[Exception]
) -> None:
    """Statuses and broken connections."""
    with official(behaviour) as client, pytest.raises(kind):
        client.chat.completions.create(model="m", messages=HELLO)


def test_the_official_client_raises_on_an_error_inside_a_stream() -> None:
    """And gives what came before."""
    with official(Behaviour(error_in_stream=3)) as client:
        stream = client.chat.completions.create(model="m", messages=HELLO, stream=True)
        assert len([next(stream) for _ in range(3)]) == 3
        with pytest.raises(openai.APIError):
            next(stream)


# Processes.


def fetch(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=5) as reply:
        seen: dict[str, Any] = json.loads(reply.read() or b"{}")
    return seen


def test_a_mock_process_serves_its_script_and_ends_with_its_block() -> None:
    """Its URL works inside the block; after it the process is gone."""
    with MockProcess("models: [one, two]") as mock:
        pid = mock.pid
        assert [model["id"] for model in fetch(mock.base_url + "/models")["data"]] == ["one", "two"]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_mock_process_ends_when_its_parent_is_killed() -> None:
    """A parent that gets no chance to clean up leaves no server behind."""
    code = (
        "import os, signal; from tiergate.testing import MockProcess; m = MockProcess(); m.start();"
        "print(m.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    parent = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=15, check=False)

    assert parent.returncode == -signal.SIGKILL
    until = time.monotonic() + 5
    while _alive(int(parent.stdout)):
        assert time.monotonic() < until, "the mock outlived its parent"
        time.sleep(0.02)


def _alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def test_a_mock_process_says_what_is_wrong_before_it_starts() -> None:
    """A bad script is a bad script here, not a dead process; a taken port is told, too."""
    with pytest.raises(SettingsError, match="did you mean 'words'"):
        MockProcess("default: {wrods: 3}").start()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(CannotStart, match="did not begin to listen"):
            MockProcess(port=taken.getsockname()[1]).start()


def test_a_taken_port_is_told(run_on_each: Run) -> None:
    """With its number."""

    async def main() -> None:
        async with MockServer() as server:
            port = int(server.url.rpartition(":")[2])
            with pytest.raises(CannotStart, match=str(port)):
                await MockServer(port=port).start()

    run_on_each(main)


def test_run_mock_serves_until_a_signal(run_on_each: Run) -> None:
    """SIGTERM ends it in an orderly way, and the signal's former meaning is back afterwards."""
    urls: list[str] = []

    def ready(server: MockServer) -> None:
        urls.append(server.url)
        asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGTERM)

    async def main() -> None:
        await run_mock(Script(), ready=ready)

    run_on_each(main)
    assert len(urls) == 1
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_the_module_runs_a_script_from_a_file(tmp_path: Path) -> None:
    """`python -m tiergate.testing --script F` prints its URL, serves, and obeys SIGTERM."""
    script = tmp_path / "script.yaml"
    script.write_text("models: [from-file]")
    command = [sys.executable, "-m", "tiergate.testing", "--script", str(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as mock:
        try:
            assert mock.stdout is not None
            url = mock.stdout.readline().strip()
            assert fetch(url + "/models")["data"][0]["id"] == "from-file"
            mock.terminate()
            assert mock.wait(5) == 0
        finally:
            mock.kill()
