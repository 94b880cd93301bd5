"""Upstreams that send more than anybody should take, and callers that take nothing: bounded, and said.

Names carry the row of the fault matrix. Every fault has a provider of its own for each way of asking, so that
what the gateway learns of one says nothing of another. The mock is the product's own fault server.
"""

import contextlib
import json
import socket
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flow.plain_http import Answer, ask, read_answer, request
from house import GatewayProcess, calls_of, until
from tiergate.core import EndState
from tiergate.testing import MockProcess

QUESTION: Any = [{"role": "user", "content": "What is a lease?"}]
CANARY = "canary-upstream-text"
REPLY = "one two three four five six seven"
LONG_WORDS = 40_000
"""An answer of 7 MB as a stream: more than sockets on the way keep."""
ENDLESS = 10**12
MIB = 1 << 20

EVENT_BYTES_MAX = 1 * MIB
BODY_BYTES_MAX = 32 * MIB
SLACK_BYTES = 8 * MIB
"""What a process grows by when it does something for the first time."""


@dataclass(frozen=True)
class Hostile:
    """One upstream, and what a caller with no other target is told."""

    then: dict[str, Any]
    why: str
    """Stands in the sentence that the caller reads."""
    code: str = "upstream_protocol_error"
    only: bool | None = None
    """Only streamed (True), or only whole (False) answers can fail like this."""
    grows_by: int = 2 * EVENT_BYTES_MAX
    """The most that memory may grow by: twice the cap that holds."""


NOT_ASKED_FOR = "a content encoding that was not asked for"
TOO_LARGE_HEAD = "its headers, or what surrounds its chunks, are too large"
BIG_EVENT = "an event of more than 1048576 bytes"

BEFORE = {
    # F19
    "gzip": Hostile({"encode": "gzip"}, NOT_ASKED_FOR),
    "bomb": Hostile({"encode": "gzip", "padding_bytes": 10**9}, NOT_ASKED_FOR),
    "deflate-bomb": Hostile({"encode": "deflate", "padding_bytes": 10**9}, NOT_ASKED_FOR),
    "nested": Hostile({"encode": ["gzip", "gzip"], "padding_bytes": 10**9}, NOT_ASKED_FOR),
    "members": Hostile({"encode": "gzip", "empty_members": 100_000}, NOT_ASKED_FOR),
    "br": Hostile({"headers": {"content-encoding": "br"}}, NOT_ASKED_FOR),
    "zstd": Hostile({"headers": {"content-encoding": "zstd"}}, NOT_ASKED_FOR),
    "error-bomb": Hostile(
        {"status": 500, "encode": "gzip", "padding_bytes": 10**9}, "500", code="upstream_fault"
    ),
    # F20
    "whole-without-end": Hostile(
        {"padding_bytes": ENDLESS}, "more than 33554432 bytes", only=False, grows_by=2 * BODY_BYTES_MAX
    ),
    "line-without-end": Hostile({"padding_bytes": ENDLESS}, BIG_EVENT, only=True),
    "line-in-bytes": Hostile({"padding_bytes": ENDLESS, "one_byte_chunks": True}, BIG_EVENT, only=True),
    "error-without-end": Hostile(
        {"status": 500, "padding_bytes": ENDLESS, "error": CANARY}, "500", code="upstream_fault"
    ),
    "header-without-end": Hostile({"header_bytes": ENDLESS}, TOO_LARGE_HEAD),
    "many-headers": Hostile({"header_count": 10_000_000}, TOO_LARGE_HEAD),
    "garbage": Hostile({"garbage": ENDLESS}, "it is not HTTP/1.1"),
    "another-protocol": Hostile({"raw": f"SSH-2.0-{CANARY}\r\n"}, "it is not HTTP/1.1"),
    "cut-character": Hostile({"cut_character": True}, "", only=False),
}

AFTER = {
    "late-line-without-end": {"padding_bytes": ENDLESS, "bulk_event": 4},
    "late-line-in-bytes": {"padding_bytes": ENDLESS, "bulk_event": 4, "one_byte_chunks": True},
    "late-cut-character": {"cut_character": True},
}

GOOD = {
    "million-chunks": {"flood_bytes": 1_000_000, "one_byte_chunks": True, "bulk_event": 3},
    "million-chunks-first": {"flood_bytes": 1_000_000, "one_byte_chunks": True},
    "mixed-line-ends": {"mixed_line_ends": True, "bom": True},
    "mixed-in-bytes": {"mixed_line_ends": True, "comments": True, "one_byte_chunks": True},
    "long-line": {"padding_bytes": 1_000_000, "bulk_event": 2, "one_byte_chunks": True},
}

SLOW = {
    "flood-without-end": {"flood_bytes": ENDLESS},
    "trickle": {"trickle_ms": 30},
}
LATE_SLOW = {"late-flood-without-end": {"flood_bytes": ENDLESS, "bulk_event": 4}}

KINDS = [
    pytest.param(name, streamed, id=f"{name}-{'stream' if streamed else 'whole'}")
    for name, hostile in BEFORE.items()
    for streamed in (False, True)
    if hostile.only in (None, streamed)
]


@pytest.fixture(scope="module")
def mock() -> Iterator[MockProcess]:
    rules = [{"when": {"model": name}, "then": hostile.then} for name, hostile in BEFORE.items()]
    others = {**AFTER, **GOOD, **SLOW, **LATE_SLOW, "good": {}}
    others |= {"long": {"reply": None, "words": LONG_WORDS}, "shorter": {"reply": None, "words": 6_000}}
    rules += [{"when": {"model": name}, "then": {"reply": REPLY, **then}} for name, then in others.items()]
    with MockProcess(json.dumps({"default": {"reply": CANARY}, "rules": rules})) as process:
        yield process


def settings_for(mock: MockProcess, names: list[str]) -> dict[str, Any]:
    """Give each fault two providers: what is learned of one way of asking says nothing of the other."""
    providers = {"spare": {"base_url": mock.base_url}}
    models = {}
    for name in names:
        for kind in ("whole", "stream"):
            providers[f"{name}-{kind}"] = {"base_url": mock.base_url}
            models[f"pair-{name}-{kind}"] = {"targets": [f"{name}-{kind}/{name}", "spare/good"]}
    return {"providers": providers, "models": models}


@pytest.fixture(scope="module")
def gateway(mock: MockProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    settings = settings_for(mock, [*BEFORE, *AFTER, *GOOD, "shorter"])
    with GatewayProcess(tmp_path_factory.mktemp("hostile"), settings) as process:
        chat(process, "spare/good")
        chat(process, "spare/good", streamed=True)
        yield process
        process.check_books()
        assert CANARY not in process.stderr + process.stdout


@pytest.fixture(scope="module")
def impatient(mock: MockProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    settings = settings_for(mock, [*SLOW, *LATE_SLOW])
    settings["resilience"] = {"first_event_s": 0.6, "idle_s": 0.6, "total_s": 3, "stream_total_s": 30}
    with GatewayProcess(tmp_path_factory.mktemp("impatient"), settings) as process:
        yield process
        process.check_books()


def chat(gateway: GatewayProcess, model: str, *, streamed: bool = False) -> Answer:
    body = {"model": model, "messages": QUESTION, **({"stream": True} if streamed else {})}
    return ask(gateway.port, "/v1/chat/completions", body, timeout_s=60)


def kind_of(*, streamed: bool) -> str:
    return "stream" if streamed else "whole"


def text_of(answer: Answer, *, streamed: bool) -> str:
    """Give the text of a complete answer; checks that it is one."""
    assert answer.status == 200, answer.body
    assert answer.whole
    if not streamed:
        return str(answer.json["choices"][0]["message"]["content"])
    *chunks, done = answer.events
    assert done == "[DONE]"
    return "".join(
        choice["delta"].get("content") or "" for data in chunks for choice in json.loads(data)["choices"]
    )


def broken_stream(answer: Answer) -> tuple[str, dict[str, Any]]:
    """See that a stream broke off as it must; give the text that came, and the error after it."""
    assert answer.status == 200
    assert not answer.whole, "a reader of bytes would take it for the whole"
    assert "[DONE]" not in answer.events
    *chunks, last = [json.loads(data) for data in answer.events]
    choices = [choice for data in chunks for choice in data["choices"]]
    assert all(choice.get("finish_reason") is None for choice in choices)
    assert set(last) == {"error"}
    return "".join(choice["delta"].get("content") or "" for choice in choices), dict(last["error"])


def memory_bytes(gateway: GatewayProcess, what: str = "VmRSS") -> int:
    """Give what the process holds now, or (`VmHWM`) the most that it held since `forget_peak`."""
    lines = Path(f"/proc/{gateway.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(what)).split()[1]) * 1024


def forget_peak(gateway: GatewayProcess) -> int:
    """Begin a new peak, and give what the process holds now."""
    Path(f"/proc/{gateway.pid}/clear_refs").write_text("5")
    return memory_bytes(gateway)


def all_left(mock: MockProcess, model: str) -> bool:
    """Tell whether no call of this model goes on at the mock."""
    calls = calls_of(mock, model)
    return bool(calls) and all(call["ended"] != "in_flight" for call in calls)


# Before the first content.


@pytest.mark.parametrize(("name", "streamed"), KINDS)
def test_f19_f20_hostile_before_content_moves_on(
    gateway: GatewayProcess, name: str, *, streamed: bool
) -> None:
    """F19 F20: the next target answers as if nothing had been."""
    answer = chat(gateway, f"pair-{name}-{kind_of(streamed=streamed)}", streamed=streamed)
    assert text_of(answer, streamed=streamed) == REPLY
    assert answer.header("x-tiergate-target") == "spare/good"
    assert answer.header("x-tiergate-attempts") == "2"


@pytest.mark.parametrize(("name", "streamed"), KINDS)
def test_f19_f20_hostile_alone_is_a_clear_error(
    gateway: GatewayProcess, mock: MockProcess, name: str, *, streamed: bool
) -> None:
    """F19 F20 I7: a failure that is said in our words, in bounded memory, and the upstream is left."""
    hostile, provider = BEFORE[name], f"{name}-{kind_of(streamed=streamed)}"
    before = forget_peak(gateway)
    answer = chat(gateway, f"{provider}/{name}", streamed=streamed)
    grown = memory_bytes(gateway, "VmHWM") - before
    assert (answer.status, answer.error["code"]) == (502, hostile.code), answer.body
    assert provider in answer.error["message"] and hostile.why in answer.error["message"]
    assert CANARY.encode() not in answer.raw
    line = gateway.log_of(answer.call_id)
    assert (line["end"], line["error"]) == ("failed", hostile.code)
    assert grown < hostile.grows_by + SLACK_BYTES
    until(lambda: all_left(mock, name), what="the upstream's end")


# After it.


@pytest.mark.parametrize("name", AFTER)
def test_f20_hostile_after_content_breaks_the_stream(
    gateway: GatewayProcess, mock: MockProcess, name: str
) -> None:
    """F09 F20: what came whole stands, an error event follows, no other target goes on with the answer."""
    others = len(calls_of(mock, "good"))
    before = forget_peak(gateway)
    answer = chat(gateway, f"pair-{name}-stream", streamed=True)
    grown = memory_bytes(gateway, "VmHWM") - before
    text, error = broken_stream(answer)
    assert text and REPLY.startswith(text) and text != REPLY
    assert error["code"] == "upstream_protocol_error"
    assert f"{name}-stream" in error["message"]
    line = gateway.log_of(answer.call_id)
    assert (line["end"], line["error"]) == ("interrupted", error["code"])
    assert len(calls_of(mock, "good")) == others
    assert grown < 2 * EVENT_BYTES_MAX + SLACK_BYTES
    until(lambda: all_left(mock, name), what="the upstream's end")


# What is odd and within the rules.


@pytest.mark.parametrize("name", GOOD)
def test_f20_odd_streams_are_read(gateway: GatewayProcess, name: str) -> None:
    """F20: a million chunks of one byte, every line end, NUL, BOM: all within the rules, and in our form."""
    before = forget_peak(gateway)
    answer = chat(gateway, f"{name}-stream/{name}", streamed=True)
    grown = memory_bytes(gateway, "VmHWM") - before
    assert text_of(answer, streamed=True) == REPLY
    assert json.loads(answer.events[0])["choices"][0]["delta"]["role"] == "assistant", "the first is not lost"
    assert not set(b"\r\0") & set(answer.body)
    assert gateway.log_of(answer.call_id)["end"] == "success"
    assert grown < 2 * EVENT_BYTES_MAX + SLACK_BYTES


# Busy, and silent all the same.


@pytest.mark.parametrize("name", SLOW)
def test_f20_bytes_without_events_are_silence(
    impatient: GatewayProcess, mock: MockProcess, name: str
) -> None:
    """F02 F20: comments without end, or bytes that trickle: no event in time is the next target's turn."""
    answer = chat(impatient, f"pair-{name}-stream", streamed=True)
    assert text_of(answer, streamed=True) == REPLY
    assert answer.header("x-tiergate-target") == "spare/good"
    alone = chat(impatient, f"{name}-stream/{name}", streamed=True)
    assert (alone.status, alone.error["code"]) == (504, "upstream_timeout")
    until(lambda: all_left(mock, name), what="the upstream's end")


def test_f02_whole_answer_that_trickles(impatient: GatewayProcess, mock: MockProcess) -> None:
    """F02 I8: bytes that keep coming do not move the deadline of an answer that is not streamed."""
    answer = chat(impatient, "trickle-whole/trickle")
    assert (answer.status, answer.error["code"]) == (504, "upstream_timeout")
    until(lambda: all_left(mock, "trickle"), what="the upstream's end")


def test_f05_comments_after_content_are_silence(impatient: GatewayProcess, mock: MockProcess) -> None:
    """F05 F20: a stream that goes on with nothing but comments is broken off."""
    text, error = broken_stream(chat(impatient, "pair-late-flood-without-end-stream", streamed=True))
    assert text == "one two three"
    assert error["code"] == "upstream_timeout"
    assert "stopped in the middle of its answer" in error["message"], "and not at the end of all time"
    until(lambda: all_left(mock, "late-flood-without-end"), what="the upstream's end")


# F21: callers that do not read.

STALLED = 100


@contextlib.contextmanager
def stalled_streams(
    gateway: GatewayProcess, count: int, model: str = "long"
) -> Iterator[list[socket.socket]]:
    """Ask for long answers and read the first bytes of each."""
    body = {"model": f"{model}-stream/{model}", "messages": QUESTION, "stream": True}
    with contextlib.ExitStack() as stack:
        streams = []
        for _ in range(count):
            stream = stack.enter_context(socket.socket())
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            stream.settimeout(30)
            stream.connect(("127.0.0.1", gateway.port))
            stream.sendall(request("/v1/chat/completions", body, headers=[("Connection", "close")]))
            streams.append(stream)
        for stream in streams:
            assert stream.recv(12) == b"HTTP/1.1 200"
        yield streams


def wait_until_idle(gateway: GatewayProcess) -> None:
    """Wait until the process has done next to nothing for half a second."""
    seen: deque[tuple[float, int]] = deque()

    def idle() -> bool:
        seen.append((time.monotonic(), cpu_ticks(gateway)))
        while seen[-1][0] - seen[0][0] > 0.6:
            seen.popleft()
        return seen[-1][0] - seen[0][0] > 0.5 and seen[-1][1] - seen[0][1] <= 2

    until(idle, timeout_s=60, what="rest")


def cpu_ticks(gateway: GatewayProcess) -> int:
    fields = Path(f"/proc/{gateway.pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_f21_callers_that_do_not_read(mock: MockProcess, tmp_path: Path) -> None:
    """F21 I7: a stalled stream costs less than 256 KiB, holds its upstream back, and others are served."""
    with GatewayProcess(tmp_path, settings_for(mock, ["long"])) as fresh:
        chat(fresh, "spare/good", streamed=True)
        before = memory_bytes(fresh)
        with stalled_streams(fresh, STALLED):
            wait_until_idle(fresh)
            assert (memory_bytes(fresh) - before) / STALLED < 256 * 1024
            assert [call["ended"] for call in calls_of(mock, "long")] == ["in_flight"] * STALLED
            assert text_of(chat(fresh, "spare/good", streamed=True), streamed=True) == REPLY
        until(lambda: all_left(mock, "long"), what="the upstreams' end")
        entries = fresh.check_books()
    assert [entry.end for entry in entries].count(EndState.CLIENT_CLOSED) == STALLED


def test_f21_a_caller_that_reads_on_gets_the_rest(gateway: GatewayProcess) -> None:
    """F21: nothing is lost and nothing is there twice when the stalled caller comes back."""
    with stalled_streams(gateway, 1, "shorter") as (stream,):
        wait_until_idle(gateway)
        raw = b"HTTP/1.1 200"
        while piece := stream.recv(1 << 16):
            raw += piece
    answer = read_answer(raw)
    assert len(text_of(answer, streamed=True).split()) == 6_000
