"""`HttpUpstream` fills the port `serve.Upstream`: OpenAI's dialect over real sockets, on both transports."""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pytest
import uvloop

import tiergate
from contract.raw_server import Peer, RawServer, answers, chunk, chunked, refused_port, reply, silent
from tiergate.core import (
    Allowance,
    Allowances,
    Chunk,
    Delivery,
    Target,
    Tier,
    UpstreamAuthFailed,
    UpstreamError,
    UpstreamFault,
    UpstreamInterrupted,
    UpstreamProtocolError,
    UpstreamRejected,
    UpstreamThrottled,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from tiergate.serve import Exchange, Question, Upstream
from tiergate.upstream import Credential, HttpUpstream, Provider, open_transport

ACME = Target(provider="acme", model="big/model-1", tier=Tier.HOSTED)
SECRET = "sk-acme-0123456789abcdef"
BODY: Mapping[str, Any] = {"model": "asked", "messages": [{"role": "user", "content": "hello"}]}

WHOLE = json.dumps(
    {
        "id": "c1",
        "object": "chat.completion",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "Hi there"}, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    }
).encode()


def event(**fields: Any) -> bytes:
    return b"data: " + json.dumps({"object": "chat.completion.chunk", **fields}).encode() + b"\n\n"


def says(text: str, finish: str | None = None) -> bytes:
    return event(choices=[{"index": 0, "delta": {"content": text}, "finish_reason": finish}])


USAGE = event(choices=[], usage={"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5})
DONE = b"data: [DONE]\n\n"
SSE = ("Content-Type: text/event-stream",)


@dataclass(frozen=True)
class Runner:
    """Runs a test's body with an upstream of these providers, which is closed at the end."""

    transport: Literal["http1", "aiohttp"]

    def __call__(self, body: Callable[[HttpUpstream], Awaitable[None]], *providers: Provider) -> None:
        async def main() -> None:
            async with asyncio.timeout(10):
                upstream = HttpUpstream(
                    {provider.name: provider for provider in providers},
                    transport=open_transport(self.transport),
                )
                try:
                    await body(upstream)
                    in_flight = [replica.in_flight for replica in upstream.statistics().replicas]
                    assert not any(in_flight), "every exchange gives its place back"
                finally:
                    await upstream.aclose()

        uvloop.run(main()) if self.transport == "http1" else asyncio.run(main())


@pytest.fixture(params=["http1", "aiohttp"])
def run(request: pytest.FixtureRequest) -> Runner:
    return Runner(request.param)


def provider(*ports: int, name: str = "acme", secret: str | None = SECRET, **more: Any) -> Provider:
    return Provider(
        name=name,
        tier=Tier.HOSTED,
        base_urls=tuple(f"http://127.0.0.1:{port}/v1" for port in ports),
        credentials=(Credential(id="first", secret=secret),) if secret is not None else (),
        **more,
    )


def question(
    *, streamed: bool = False, target: Target = ACME, body: Mapping[str, Any] = BODY, **more: Any
) -> Question:
    return Question(
        **{
            "call_id": "call-1",
            "target": target,
            "mark_sent": lambda: None,
            "body": {**body, "stream": True} if streamed else body,
            "streamed": streamed,
            "deadline": time.monotonic() + 5,
            "first_event_s": 4.0,
            "idle_s": 4.0,
            **more,
        }
    )


async def read(exchange: Exchange) -> list[Chunk]:
    return [chunk async for step in exchange for chunk in step]


async def failure(awaitable: Awaitable[object], kind: type[UpstreamError]) -> Any:
    with pytest.raises(kind) as caught:
        await awaitable
    assert type(caught.value) is kind
    assert caught.value.target == ACME.name
    assert SECRET not in str(caught.value)
    return caught.value


async def ask(upstream: HttpUpstream, **more: Any) -> list[Chunk]:
    return await read(await upstream.send(question(**more)))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(2):
        while not condition():
            await asyncio.sleep(0.005)


# The question


def test_the_port_is_filled() -> None:
    """What `serve` needs is what is here; the types say so to the type checker, this to the reader."""
    upstream: Upstream = HttpUpstream({}, transport=open_transport())
    assert callable(upstream.send)


def test_a_question_is_sent_as_it_was_asked_with_the_targets_model(run: Runner) -> None:
    """The body is the caller's own with the model's name exchanged; the path is the dialect's."""
    asked = {**BODY, "unknown_field": [1, None, {"a": 1e-7}], "temperature": 0}
    with RawServer(answers(reply(WHOLE))) as server:

        async def body(upstream: HttpUpstream) -> None:
            await ask(upstream, body=asked)
            (received,) = server.requests
            assert received.line == "POST /v1/chat/completions HTTP/1.1"
            assert json.loads(received.body) == {**asked, "model": "big/model-1"}

        run(body, provider(server.port))


def test_a_stream_asks_for_usage_and_nothing_else(run: Runner) -> None:
    """The one thing that is added."""
    with RawServer(answers(chunked(says("x", "stop"), DONE, headers=SSE))) as server:

        async def body(upstream: HttpUpstream) -> None:
            await ask(upstream, streamed=True)
            (received,) = server.requests
            assert json.loads(received.body) == {
                **BODY,
                "model": "big/model-1",
                "stream": True,
                "stream_options": {"include_usage": True},
            }

        run(body, provider(server.port))


@pytest.mark.parametrize("streamed", [False, True])
def test_no_header_is_sent_but_ours(run: Runner, streamed: bool) -> None:
    """S14, S15: an exact list; a question has no way to carry a header of the client's."""
    answer = chunked(says("x", "stop"), DONE, headers=SSE) if streamed else reply(WHOLE)
    with RawServer(answers(answer)) as server:

        async def body(upstream: HttpUpstream) -> None:
            sly = {**BODY, "extra_headers": {"x-evil": "1"}, "headers": {"authorization": "Bearer evil"}}
            await ask(upstream, streamed=streamed, body=sly)
            (received,) = server.requests
            assert sorted(received.headers) == [
                ("accept", "text/event-stream" if streamed else "application/json"),
                ("accept-encoding", "identity"),
                ("authorization", f"Bearer {SECRET}"),
                ("content-length", str(len(received.body))),
                ("content-type", "application/json"),
                ("host", f"127.0.0.1:{server.port}"),
                ("user-agent", f"tiergate/{tiergate.__version__}"),
            ]

        run(body, provider(server.port))


def test_a_credential_goes_only_to_its_own_origin(run: Runner) -> None:
    """I6: two providers with keys and one without, interleaved; each server sees its own key or none."""
    three_times = answers(*[reply(WHOLE)] * 3)
    with RawServer(three_times) as one, RawServer(three_times) as two, RawServer(three_times) as bare:

        async def body(upstream: HttpUpstream) -> None:
            for _ in range(3):
                for name in ("acme", "other", "bare"):
                    await ask(upstream, target=Target(provider=name, model="m", tier=Tier.HOSTED))
            assert [request.header("authorization") for request in one.requests] == [f"Bearer {SECRET}"] * 3
            assert [request.header("authorization") for request in two.requests] == ["Bearer sk-other"] * 3
            assert [request.header("authorization") for request in bare.requests] == [None] * 3

        run(
            body,
            provider(one.port),
            provider(two.port, name="other", secret="sk-other"),
            provider(bare.port, name="bare", secret=None),
        )


@pytest.mark.parametrize("field", ["base_url", "api_base", "url", "proxy", "organization"])
def test_no_field_of_the_body_chooses_the_server(run: Runner, field: str) -> None:
    """S11: the origin comes from the settings; the decoy that a field names sees nothing."""
    with RawServer(silent) as decoy, RawServer(answers(reply(WHOLE))) as server:

        async def body(upstream: HttpUpstream) -> None:
            await ask(upstream, body={**BODY, field: f"http://127.0.0.1:{decoy.port}/v1"})
            url_as_model = Target(provider="acme", model=f"http://127.0.0.1:{decoy.port}/", tier=Tier.HOSTED)
            assert len(server.requests) == 1
            with pytest.raises(UpstreamError):
                await upstream.send(question(target=url_as_model, deadline=time.monotonic() + 0.2))

        run(body, provider(server.port))
        assert decoy.peers == []


# The answer


def test_a_whole_reply_is_one_chunk(run: Runner) -> None:
    """Its bytes as the provider sent them, with what was read of them."""
    with RawServer(answers(reply(WHOLE, "X-Request-Id: req-42"))) as server:

        async def body(upstream: HttpUpstream) -> None:
            exchange = await upstream.send(question())
            assert exchange.replica == f"127.0.0.1:{server.port}"
            assert exchange.upstream_request_id == "req-42"
            (got,) = await read(exchange)
            assert got.data == WHOLE
            assert (got.text, got.finish) == ("Hi there", ("stop",))
            assert got.usage is not None
            assert got.usage.input_tokens == 3
            with pytest.raises(StopAsyncIteration):
                await exchange.__anext__()

        run(body, provider(server.port))


def test_a_stream_arrives_as_it_is_sent(run: Runner) -> None:
    """Each event when it comes and not when a buffer is full; usage after the finish is not lost."""
    pause_s = 0.08
    events = [says("", None), says("one "), says("two"), says("", "stop"), USAGE]

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(chunked(headers=SSE, end=False))
        for data in events:
            peer.send(chunk(data))
            time.sleep(pause_s)
        peer.send(chunk(DONE) + b"0\r\n\r\n")
        peer.wait_until_gone()

    with RawServer(script) as server:

        async def body(upstream: HttpUpstream) -> None:
            arrived = []
            got: list[Chunk] = []
            async for step in await upstream.send(question(streamed=True)):
                arrived.append(time.monotonic())
                got += step
            assert len(arrived) == len(events)
            assert arrived[-1] - arrived[0] > pause_s * (len(events) - 2)
            assert "".join(chunk.text for chunk in got) == "one two"
            assert got[-1].usage is not None
            assert got[-1].usage.output_tokens == 2

        run(body, provider(server.port))


@pytest.mark.parametrize("slice_bytes", [1, 7, None])
def test_a_stream_is_the_same_however_it_is_cut(run: Runner, slice_bytes: int | None) -> None:
    """F09, F20: cuts inside events, characters and chunk sizes change nothing."""
    data = chunked(b": comment\n\n", says("Grüße "), says("🌍", "stop"), USAGE + DONE, headers=SSE)

    def script(peer: Peer) -> None:
        peer.request()
        # A reader may leave with the marker, before the body's last bytes.
        with contextlib.suppress(ConnectionError):
            peer.send(data, slice_bytes=slice_bytes)
        peer.wait_until_gone()

    with RawServer(script) as server:

        async def body(upstream: HttpUpstream) -> None:
            got = await ask(upstream, streamed=True)
            assert "".join(chunk.text for chunk in got) == "Grüße 🌍"
            assert [chunk.finish for chunk in got] == [(), ("stop",), ()]
            assert got[-1].usage is not None

        run(body, provider(server.port))


@pytest.mark.parametrize(
    "said", [b"a" * 500, b"id with spaces", b"caf\xe9", b"\x7fdel", b""], ids=lambda said: repr(said[:9])
)
def test_an_upstream_request_id_is_sound_or_absent(run: Runner, said: bytes) -> None:
    """Bounded, printable ASCII: it goes into logs."""
    answer = reply(WHOLE).replace(b"\r\n\r\n", b"\r\nX-Request-Id: " + said + b"\r\n\r\n", 1)
    with RawServer(answers(answer)) as server:

        async def body(upstream: HttpUpstream) -> None:
            try:
                exchange = await upstream.send(question())
            except UpstreamProtocolError:
                assert b"\x7f" in said
                return
            got = exchange.upstream_request_id
            assert got == {b"a" * 500: "a" * 128, b"id with spaces": "id with spaces"}.get(said)
            await read(exchange)

        run(body, provider(server.port))


LIMITS = (
    "X-RateLimit-Limit-Requests: 60",
    "X-RateLimit-Remaining-Requests: 0",
    "X-RateLimit-Reset-Requests: 1m0s",
)
USED_UP = Allowances(requests=Allowance(60, 0, 60))


def with_headers(answer: bytes, *headers: str) -> bytes:
    return answer.replace(b"\r\n\r\n", b"\r\n" + "\r\n".join(headers).encode() + b"\r\n\r\n", 1)


@pytest.mark.parametrize("streamed", [False, True])
def test_what_a_provider_says_of_its_limits_is_told(run: Runner, streamed: bool) -> None:
    """By the exchange as soon as it has begun, and by the failure where it was refused."""
    good = chunked(says("x", "stop"), USAGE + DONE, headers=SSE) if streamed else reply(WHOLE)
    refused = reply(b"{}", status="429 Too Many Requests")
    with RawServer(answers(with_headers(good, *LIMITS), with_headers(refused, *LIMITS), good)) as server:

        async def body(upstream: HttpUpstream) -> None:
            exchange = await upstream.send(question(streamed=streamed))
            assert exchange.allowances == USED_UP
            await read(exchange)
            refusal = await failure(ask(upstream, streamed=streamed), UpstreamThrottled)
            assert refusal.allowances == USED_UP
            exchange = await upstream.send(question(streamed=streamed))
            assert exchange.allowances is None
            await read(exchange)

        run(body, provider(server.port))


# Connections after streams


def test_after_done_the_reader_is_free_and_the_connection_is_kept(run: Runner) -> None:
    """The marker ends the exchange; the body's end in the same read saves the connection."""
    answer = chunked(says("x", "stop"), USAGE + DONE, headers=SSE)
    with RawServer(answers(answer, answer)) as server:

        async def body(upstream: HttpUpstream) -> None:
            for _ in range(2):
                exchange = await upstream.send(question(streamed=True))
                assert len(await read(exchange)) == 2
                exchange.close()
                await asyncio.sleep(0.02)

        run(body, provider(server.port))
        assert len(server.peers) == 1


def test_after_done_the_connection_is_kept_if_the_body_ends_soon(run: Runner) -> None:
    """The reader is gone by then. aiohttp does not read on without one and drops it."""
    done = threading.Event()

    def script(peer: Peer) -> None:
        for _ in range(2):
            try:
                peer.request()
            except (EOFError, ConnectionError):
                return
            peer.send(chunked(says("x", "stop"), DONE, headers=SSE, end=False))
            assert done.wait(5)
            peer.send(b"0\r\n\r\n")
        peer.wait_until_gone()

    with RawServer(script) as server:

        async def body(upstream: HttpUpstream) -> None:
            for _ in range(2):
                done.clear()
                exchange = await upstream.send(question(streamed=True))
                assert len(await read(exchange)) == 1
                exchange.close()
                done.set()
                await asyncio.sleep(0.03)
            assert len(server.peers) == (1 if run.transport == "http1" else 2)

        run(body, provider(server.port))


def test_after_done_a_body_that_does_not_end_holds_nobody(run: Runner) -> None:
    """The reader ends at once; the server sees the connection dropped soon after."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(chunked(says("x", "stop"), DONE, headers=SSE, end=False))
        peer.wait_until_gone()

    with RawServer(script) as server:

        async def body(upstream: HttpUpstream) -> None:
            exchange = await upstream.send(question(streamed=True))
            begun = time.monotonic()
            assert len(await read(exchange)) == 1
            assert time.monotonic() - begun < 0.1
            exchange.close()
            await until(lambda: server.peers[0].gone_at is not None)
            assert server.peers[0].gone_at is not None
            assert server.peers[0].gone_at - begun < 1.0

        run(body, provider(server.port))


# Answers that break off or are none


@pytest.mark.parametrize(
    "pieces",
    [(says("x"),), (says("x"), b'data: {"choices": [{"del'), (says("x"), "data: ü".encode()[:-1])],
    ids=["clean", "in-an-event", "in-a-character"],
)
def test_a_stream_that_ends_without_being_complete_is_interrupted(
    run: Runner, pieces: tuple[bytes, ...]
) -> None:
    """F07, F09, I4: a clean end of the body is no end of the answer; the fragment is dropped."""
    with RawServer(answers(chunked(*pieces, headers=SSE))) as server:

        async def body(upstream: HttpUpstream) -> None:
            exchange = await upstream.send(question(streamed=True))
            (got,) = await exchange.__anext__()
            assert got.text == "x"
            error = await failure(read(exchange), UpstreamInterrupted)
            assert (error.delivery, error.status) == (Delivery.CONFIRMED, 200)

        run(body, provider(server.port))


def test_a_stream_without_done_is_complete_if_it_finished(run: Runner) -> None:
    """F08: accepted, with a warning."""
    with RawServer(answers(chunked(says("x", "stop"), headers=SSE))) as server:

        async def body(upstream: HttpUpstream) -> None:
            exchange: Any = await upstream.send(question(streamed=True))
            assert len(await read(exchange)) == 1
            assert exchange.warnings == ("no_done_marker",)

        run(body, provider(server.port))


def test_each_choice_must_finish(run: Runner) -> None:
    """I4: two were asked for, one ended."""
    with RawServer(answers(chunked(says("x", "stop"), headers=SSE))) as server:

        async def body(upstream: HttpUpstream) -> None:
            await failure(ask(upstream, streamed=True, body={**BODY, "n": 2}), UpstreamInterrupted)

        run(body, provider(server.port))


def test_what_came_before_a_failure_is_given_out_first(run: Runner) -> None:
    """F12: chunks and then the error, although they came in one read."""
    bad = b'data: {"error": {"message": "secret upstream words", "code": 500}}\n\n'
    with RawServer(answers(chunked(says("x") + bad, headers=SSE))) as server:

        async def body(upstream: HttpUpstream) -> None:
            exchange = await upstream.send(question(streamed=True))
            (got,) = await exchange.__anext__()
            assert got.text == "x"
            error = await failure(exchange.__anext__(), UpstreamFault)
            assert "secret upstream words" not in str(error)
            with pytest.raises(StopAsyncIteration):
                await exchange.__anext__()

        run(body, provider(server.port))


@pytest.mark.parametrize(
    "answer",
    [b"<html>secret words</html>", b"", b"null", b"[]", WHOLE[:50], b'{"object": "list", "data": []}'],
    ids=["html", "empty", "null", "list", "truncated", "another-object"],
)
def test_a_success_that_is_no_answer_is_a_protocol_error(run: Runner, answer: bytes) -> None:
    """F10: and nothing of it is repeated."""
    with RawServer(answers(reply(answer))) as server:

        async def body(upstream: HttpUpstream) -> None:
            error = await failure(ask(upstream), UpstreamProtocolError)
            assert (error.delivery, error.status) == (Delivery.CONFIRMED, 200)
            assert "secret words" not in str(error)

        run(body, provider(server.port))


@pytest.mark.parametrize("content_type", ["text/html; charset=utf-8", "application/json"])
def test_a_page_in_place_of_a_stream_is_a_protocol_error(run: Runner, content_type: str) -> None:
    """F10: known by its label, before anything is read."""
    with RawServer(answers(reply(WHOLE, f"Content-Type: {content_type}"))) as server:

        async def body(upstream: HttpUpstream) -> None:
            await failure(upstream.send(question(streamed=True)), UpstreamProtocolError)

        run(body, provider(server.port))


@pytest.mark.parametrize("streamed", [False, True])
def test_an_encoding_that_was_not_asked_for_is_a_protocol_error(run: Runner, streamed: bool) -> None:
    """F19: no bomb is unpacked, because nothing is."""
    bomb = reply(b"\x1f\x8b" + b"\0" * 1000, "Content-Encoding: gzip", *SSE)

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(bomb)
        peer.wait_until_gone()

    with RawServer(script) as server:

        async def body(upstream: HttpUpstream) -> None:
            await failure(upstream.send(question(streamed=streamed)), UpstreamProtocolError)

        run(body, provider(server.port))


def test_a_reply_larger_than_its_cap_is_a_protocol_error(run: Runner) -> None:
    """I7: it is dropped when it passes the cap; the server sees it."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n" + b"x" * 30_000)
        peer.wait_until_gone()

    with RawServer(script) as server:

        async def body(upstream: HttpUpstream) -> None:
            error = await failure(ask(upstream), UpstreamProtocolError)
            assert "20000 bytes" in str(error)
            await until(lambda: server.peers[0].gone_at is not None)

        run(body, provider(server.port, body_bytes_max=20_000))


def test_an_event_larger_than_its_cap_is_a_protocol_error(run: Runner) -> None:
    """F20, I7: a line without end is dropped when it passes the cap."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(chunked(b"data: " + b"x" * 30_000, headers=SSE, end=False))
        peer.wait_until_gone()

    with RawServer(script) as server:

        async def body(upstream: HttpUpstream) -> None:
            await failure(ask(upstream, streamed=True), UpstreamProtocolError)
            await until(lambda: server.peers[0].gone_at is not None)

        run(body, provider(server.port, event_bytes_max=20_000))


def test_an_error_object_with_status_200_is_its_true_status(run: Runner) -> None:
    """F12: OpenRouter and others answer 200 and put the status into the object."""
    words = b'{"error": {"message": "slow down", "code": 429}}'
    with RawServer(
        answers(reply(words, "Retry-After: 7"), reply(b'{"error": {"message": "oops"}}'))
    ) as server:

        async def body(upstream: HttpUpstream) -> None:
            assert (await failure(ask(upstream), UpstreamThrottled)).retry_after_s == 7
            await failure(ask(upstream), UpstreamFault)

        run(body, provider(server.port))


# Refusals


def refused(status: int, *headers: str, message: str = "upstream words", **fields: Any) -> bytes:
    return reply(
        json.dumps({"error": {"message": message, **fields}}).encode(), *headers, status=f"{status} No"
    )


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (refused(400, param="temperature", code="bad_value"), UpstreamRejected),
        (refused(401, code="invalid_api_key"), UpstreamAuthFailed),
        (refused(404, code="model_not_found"), UpstreamFault),
        (refused(429, "Retry-After: 3"), UpstreamThrottled),
        (refused(503), UpstreamFault),
        (reply(b"<html>words</html>", status="502 Bad Gateway"), UpstreamFault),
        (reply(b"", "Location: http://127.0.0.1:1/", status="302 Found"), UpstreamProtocolError),
    ],
    ids=["400", "401", "404", "429", "503", "502-page", "302"],
)
def test_a_refusal_becomes_its_leaf_and_keeps_the_connection(
    run: Runner, answer: bytes, kind: type[UpstreamError], streamed: bool
) -> None:
    """The status decides; delivery is CONFIRMED; the refusal was read, so the connection serves on."""
    with RawServer(answers(answer, answer)) as server:

        async def body(upstream: HttpUpstream) -> None:
            for _ in range(2):
                error = await failure(upstream.send(question(streamed=streamed)), kind)
                assert error.delivery is Delivery.CONFIRMED
                assert error.status == int(answer[9:12])
                assert ("upstream words" in str(error)) is (kind is UpstreamRejected)

        run(body, provider(server.port))
        assert len(server.peers) == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 503 No\r\nContent-Length: 1000\r\n\r\n{",
        b"HTTP/1.1 503 No\r\nContent-Length: 900000\r\n\r\n" + b"x" * 900_000,
        b"HTTP/1.1 503 No\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08",
    ],
    ids=["never-ends", "giant", "encoded"],
)
def test_a_refusals_words_are_not_worth_a_wait(run: Runner, answer: bytes) -> None:
    """Its status stands without them; the connection is dropped."""

    def script(peer: Peer) -> None:
        peer.request()
        try:
            peer.send(answer)
        except ConnectionError:
            peer.gone_at = time.monotonic()
            return
        peer.wait_until_gone()

    with RawServer(script) as server:

        async def body(upstream: HttpUpstream) -> None:
            begun = time.monotonic()
            assert (await failure(upstream.send(question()), UpstreamFault)).status == 503
            assert time.monotonic() - begun < 2.5
            if b"gzip" not in answer:
                await until(lambda: server.peers[0].gone_at is not None)

        run(body, provider(server.port))


# Time and leaving


def test_comments_alone_are_no_beginning(run: Runner) -> None:
    """F02: a server that only says that it is alive has the time of a first event, not more."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(chunked(headers=SSE, end=False))
        try:
            while True:
                peer.send(chunk(b": processing\n\n"), pause_s=0.05)
        except ConnectionError:
            peer.gone_at = time.monotonic()

    with RawServer(script) as server:

        async def body(upstream: HttpUpstream) -> None:
            begun = time.monotonic()
            error = await failure(ask(upstream, streamed=True, first_event_s=0.3), UpstreamTimeout)
            assert error.phase == "first_event"
            assert 0.3 <= time.monotonic() - begun < 1.0
            await until(lambda: server.peers[0].gone_at is not None)

        run(body, provider(server.port))


@pytest.mark.parametrize("comments", [False, True])
def test_a_stall_after_the_beginning_is_an_idle_timeout(run: Runner, comments: bool) -> None:
    """F05: with or without signs of life."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(chunked(says("x"), headers=SSE, end=False))
        try:
            while comments:
                peer.send(chunk(b": alive\n\n"), pause_s=0.05)
        except ConnectionError:
            return
        peer.wait_until_gone()

    with RawServer(script) as server:

        async def body(upstream: HttpUpstream) -> None:
            exchange = await upstream.send(question(streamed=True, idle_s=0.2))
            await exchange.__anext__()
            error = await failure(exchange.__anext__(), UpstreamTimeout)
            assert (error.phase, error.delivery) == ("idle", Delivery.CONFIRMED)

        run(body, provider(server.port))


def test_cancelling_before_the_answer_frees_the_server(run: Runner) -> None:
    """F22: before the headers."""
    with RawServer(silent) as server:

        async def body(upstream: HttpUpstream) -> None:
            task = asyncio.create_task(upstream.send(question(streamed=True)))
            await until(lambda: len(server.requests) == 1)
            assert upstream.statistics().replicas[0].in_flight == 1
            task.cancel()
            await asyncio.wait([task])
            left_at = time.monotonic()
            await until(lambda: server.peers[0].gone_at is not None)
            assert time.monotonic() - left_at < 1.0

        run(body, provider(server.port))


@pytest.mark.parametrize("how", ["close", "cancel"])
def test_leaving_in_the_middle_frees_the_server(run: Runner, how: str) -> None:
    """F22: by close or by cancelling a step; close may be repeated."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(chunked(says("x"), headers=SSE, end=False))
        peer.wait_until_gone()

    with RawServer(script) as server:

        async def body(upstream: HttpUpstream) -> None:
            exchange = await upstream.send(question(streamed=True))
            await exchange.__anext__()
            left_at = time.monotonic()
            if how == "cancel":
                task = asyncio.ensure_future(exchange.__anext__())
                await asyncio.sleep(0.01)
                task.cancel()
                await asyncio.wait([task])
                assert upstream.statistics().replicas[0].in_flight == 0
            exchange.close()
            exchange.close()
            with pytest.raises(StopAsyncIteration):
                await exchange.__anext__()
            await until(lambda: server.peers[0].gone_at is not None)
            assert time.monotonic() - left_at < 1.0

        run(body, provider(server.port))


# Servers and reloads


def test_questions_spread_over_the_servers_of_a_provider(run: Runner) -> None:
    """Fewest in flight first, equal ones in turn."""
    with RawServer(silent) as one, RawServer(silent) as two, RawServer(silent) as three:

        async def body(upstream: HttpUpstream) -> None:
            tasks = []
            servers = (one, two, three)
            for n in range(6):
                tasks.append(asyncio.create_task(upstream.send(question())))
                await until(lambda n=n: sum(len(server.requests) for server in servers) == n + 1)
            assert [len(server.requests) for server in servers] == [2, 2, 2]
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

        run(body, provider(one.port, two.port, three.port))


def test_a_server_that_is_down_is_passed_over(run: Runner) -> None:
    """F01: nothing was delivered, so the provider's next server is asked within the same attempt."""
    down = refused_port()
    with RawServer(answers(*[reply(WHOLE)] * 4)) as server:

        async def body(upstream: HttpUpstream) -> None:
            for _ in range(4):
                exchange = await upstream.send(question())
                assert exchange.replica == f"127.0.0.1:{server.port}"
                await read(exchange)
            resting = {r.replica: r.resting for r in upstream.statistics().replicas}
            assert resting == {f"127.0.0.1:{down}": True, f"127.0.0.1:{server.port}": False}

        run(body, provider(down, server.port))


def test_all_servers_down_is_unreachable_and_nothing_was_delivered(run: Runner) -> None:
    """F01: the error is the last one's."""

    async def body(upstream: HttpUpstream) -> None:
        error = await failure(upstream.send(question()), UpstreamUnreachable)
        assert error.delivery is Delivery.NONE

    run(body, provider(refused_port(), refused_port()))


def test_a_question_that_may_have_arrived_is_not_given_to_the_next_server(run: Runner) -> None:
    """Money: only proven non-delivery moves on here; all else is for `resilience` to decide."""

    def broken(peer: Peer) -> None:
        peer.request()

    with RawServer(broken) as one, RawServer(broken) as two:

        async def body(upstream: HttpUpstream) -> None:
            error = await failure(upstream.send(question()), UpstreamInterrupted)
            assert error.delivery is Delivery.POSSIBLE
            assert len(one.requests) + len(two.requests) == 1

        run(body, provider(one.port, two.port))


def test_a_reload_leaves_what_runs_alone(run: Runner) -> None:
    """F39, F40: an exchange finishes on the old provider, the next question goes to the new one."""
    go_on = threading.Event()

    def slow(peer: Peer) -> None:
        peer.request()
        peer.send(chunked(says("old "), headers=SSE, end=False))
        assert go_on.wait(5)
        peer.send(chunk(says("server", "stop") + DONE) + b"0\r\n\r\n")
        peer.wait_until_gone()

    with RawServer(slow) as old, RawServer(answers(reply(WHOLE))) as new:

        async def body(upstream: HttpUpstream) -> None:
            exchange = await upstream.send(question(streamed=True))
            (first,) = await exchange.__anext__()
            upstream.use({"acme": provider(new.port, secret="sk-new")})
            (whole,) = await ask(upstream)
            assert whole.text == "Hi there"
            go_on.set()
            assert first.text + "".join(chunk.text for chunk in await read(exchange)) == "old server"
            assert new.requests[0].header("authorization") == "Bearer sk-new"
            assert old.requests[0].header("authorization") == f"Bearer {SECRET}"

        run(body, provider(old.port))


def test_a_reload_keeps_the_counts_of_what_did_not_change(run: Runner) -> None:
    """Load stays known across reloads."""
    with RawServer(silent) as server:

        async def body(upstream: HttpUpstream) -> None:
            task = asyncio.create_task(upstream.send(question()))
            await until(lambda: len(server.requests) == 1)
            upstream.use({"acme": provider(server.port)})
            assert upstream.statistics().replicas[0].in_flight == 1
            task.cancel()
            await asyncio.wait([task])

        run(body, provider(server.port))


def test_a_provider_that_a_reload_took_away_is_unreachable(run: Runner) -> None:
    """A route that was made before the reload finds nobody, or another tier; nothing was delivered."""

    async def body(upstream: HttpUpstream) -> None:
        # A private-only call that waited for its place must not go where a hosted server stands now.
        private = Target(provider="acme", model=ACME.model, tier=Tier.PRIVATE)
        for there in ({}, {"acme": provider(refused_port())}):
            upstream.use(there)
            error = await failure(upstream.send(question(target=private)), UpstreamUnreachable)
            assert error.delivery is Delivery.NONE
            assert "no longer configured" in str(error)

    run(body, provider(refused_port()))
