"""The upstream in memory, in virtual time: what its caller gets, when, and as which error."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from tiergate.capacity import EngineModel
from tiergate.core import (
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
from tiergate.testing import (
    Behaviour,
    Ended,
    FakeClock,
    Rule,
    Script,
    ScriptedUpstream,
    ToolCall,
    When,
    run_virtual,
)

FIVE = Behaviour(reply="one two three four five")


def question(
    *, streamed: bool = True, content: str = "hello", deadline: float = 600.0, **body: Any
) -> Question:
    return Question(
        call_id="c",
        target=Target(provider="mock", model="m", tier=Tier.HOSTED),
        mark_sent=lambda: None,
        body={"model": "asked", "messages": [{"role": "user", "content": content}], **body},
        streamed=streamed,
        deadline=deadline,
        first_event_s=60.0,
        idle_s=30.0,
    )


async def drain(exchange: Exchange) -> list[Chunk]:
    return [chunk async for chunks in exchange for chunk in chunks]


async def ask(upstream: Upstream, **more: Any) -> list[Chunk]:
    return await drain(await upstream.send(question(**more)))


async def collect(upstream: Upstream, asked: Question, into: list[Chunk]) -> None:
    async for chunks in await upstream.send(asked):
        into.extend(chunks)


def text(chunks: list[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


def failure(
    behaviour: Behaviour, *, streamed: bool = True
) -> tuple[UpstreamError, list[Chunk], float, Ended]:
    """The error that a behaviour ends in, what came before it, when it came, and what the log says."""
    clock = FakeClock()

    async def main() -> tuple[UpstreamError, list[Chunk], float, Ended]:
        upstream = ScriptedUpstream(behaviour, clock=clock)
        before: list[Chunk] = []
        with pytest.raises(UpstreamError) as caught:
            await collect(upstream, question(streamed=streamed), before)
        assert caught.value.target == "mock/m"
        return caught.value, before, clock.monotonic(), upstream.log[0].ended

    return run_virtual(main(), clock=clock)


def test_a_good_answer_streamed_and_whole() -> None:
    """The same text, finish reason and usage both ways; the log has both as completed."""

    async def main() -> None:
        upstream: Upstream = ScriptedUpstream(FIVE)
        chunks = await ask(upstream)
        (reply,) = await ask(upstream, streamed=False)

        assert text(chunks) == reply.text == "one two three four five"
        assert chunks[-2].finish == reply.finish == ("stop",)
        assert chunks[-1].bare_usage
        assert chunks[-1].usage == reply.usage
        assert reply.usage is not None and reply.usage.output_tokens == 5
        assert isinstance(upstream, ScriptedUpstream)
        assert [(entry.ended, entry.model, entry.tokens) for entry in upstream.log] == [
            (Ended.COMPLETED, "m", 5),
            (Ended.COMPLETED, "m", 5),
        ]
        assert [each.streamed for each in upstream.asked] == [True, False]

    run_virtual(main())


def test_tokens_leave_at_their_times() -> None:
    """The first after 500 ms, then one each 100 ms, each given out when it is there and not before."""
    clock = FakeClock()

    async def main() -> list[tuple[float, str]]:
        upstream = ScriptedUpstream(Behaviour(reply="a b c", ttft_ms=500, tokens_per_s=10), clock=clock)
        exchange = await upstream.send(question())
        return [(round(clock.monotonic(), 3), text(list(chunks))) async for chunks in exchange]

    # The finish reason and usage leave with the last word.
    assert run_virtual(main(), clock=clock) == [(0.5, "a"), (0.6, " b"), (0.7, " c")]


def test_a_whole_reply_takes_the_time_of_all_its_tokens() -> None:
    """500 ms and four more tokens at 10 a second."""
    clock = FakeClock()
    behaviour = Behaviour(reply="one two three four five", ttft_ms=500, tokens_per_s=10)
    run_virtual(ask(ScriptedUpstream(behaviour, clock=clock), streamed=False), clock=clock)

    assert clock.monotonic() == pytest.approx(0.9)


def test_chunks_of_every_kind_are_read() -> None:
    """Reasoning, tools, several choices, log probabilities and JSON come through as content."""

    async def main() -> None:
        upstream = ScriptedUpstream(
            Behaviour(reasoning="well now", tool_call=ToolCall(name="f"), logprobs=True)
        )
        chunks = await ask(upstream, n=2)

        assert [finish for chunk in chunks for finish in chunk.finish] == ["tool_calls", "tool_calls"]
        assert sum(chunk.content for chunk in chunks) == 2 * (2 + 2 + 1)

    run_virtual(main())


@pytest.mark.parametrize(
    ("behaviour", "kind", "delivery"),
    [
        (Behaviour(refuse=True), UpstreamUnreachable, Delivery.NONE),
        (Behaviour(status=401), UpstreamAuthFailed, Delivery.CONFIRMED),
        (Behaviour(status=403), UpstreamAuthFailed, Delivery.CONFIRMED),
        (Behaviour(status=429), UpstreamThrottled, Delivery.CONFIRMED),
        (Behaviour(status=400), UpstreamRejected, Delivery.CONFIRMED),
        (Behaviour(status=404), UpstreamRejected, Delivery.CONFIRMED),
        (Behaviour(status=500), UpstreamFault, Delivery.CONFIRMED),
        (Behaviour(status=529), UpstreamFault, Delivery.CONFIRMED),
        (Behaviour(redirect="http://elsewhere.test/"), UpstreamProtocolError, Delivery.CONFIRMED),
        (Behaviour(html=True), UpstreamProtocolError, Delivery.CONFIRMED),
        (Behaviour(body="null"), UpstreamProtocolError, Delivery.CONFIRMED),
        (Behaviour(headers={"content-length": [5, 6]}), UpstreamProtocolError, Delivery.CONFIRMED),
    ],
)
@pytest.mark.parametrize("streamed", [True, False])
def test_no_answer_becomes_the_error_that_it_is(
    behaviour: Behaviour, kind: type[UpstreamError], delivery: Delivery, streamed: bool
) -> None:
    """With what is known about delivery, and without a single chunk."""
    error, before, _, _ = failure(behaviour, streamed=streamed)

    assert type(error) is kind
    assert error.delivery is delivery
    assert before == []


def test_facts_of_an_error_are_carried() -> None:
    """The wait and the quota of a 429, the parameter and code of a 400, the status of a 5xx."""
    throttled, *_ = failure(Behaviour(status=429, headers={"retry-after": 7}))
    quota, *_ = failure(Behaviour(status=429, error={"code": "insufficient_quota"}))
    rejected, *_ = failure(Behaviour(status=400, error={"param": "top_k", "code": "unsupported"}))
    fault, *_ = failure(Behaviour(status=503))

    assert isinstance(throttled, UpstreamThrottled) and isinstance(quota, UpstreamThrottled)
    assert (throttled.retry_after_s, throttled.quota) == (7.0, False)
    assert (quota.retry_after_s, quota.quota) == (None, True)
    assert isinstance(rejected, UpstreamRejected)
    assert (rejected.status, rejected.param, rejected.upstream_code) == (400, "top_k", "unsupported")
    assert fault.status == 503


@pytest.mark.parametrize(
    ("behaviour", "kind", "words"),
    [
        (Behaviour(reset_after=3), UpstreamInterrupted, "one two"),
        (Behaviour(reset_after_bytes=600), UpstreamInterrupted, None),
        (Behaviour(clean_cut_after=4), UpstreamInterrupted, "one two three"),
        (Behaviour(clean_cut_after=99), UpstreamInterrupted, "one two three four five"),
        (Behaviour(error_in_stream=2), UpstreamFault, "one"),
        (
            Behaviour(error_in_stream=2, error={"code": "rate_limit_exceeded"}),
            UpstreamThrottled,
            "one",
        ),
        (Behaviour(truncate_json=True), UpstreamInterrupted, "one two"),
        (Behaviour(wrong_length=5), UpstreamProtocolError, None),
        (Behaviour(empty=True), UpstreamInterrupted, ""),
    ],
)
def test_a_stream_that_breaks_gives_what_came_and_then_the_error(
    behaviour: Behaviour, kind: type[UpstreamError], words: str | None
) -> None:
    """Every event that arrived whole is given out; the failure follows, as one that was delivered."""
    error, before, _, ended = failure(replace(behaviour, reply=FIVE.reply))

    assert type(error) is kind
    assert error.delivery is Delivery.CONFIRMED
    assert ended in (Ended.BROKEN, Ended.COMPLETED)
    if words is not None:
        assert text(before) == words


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        (Behaviour(reset_after=0), UpstreamInterrupted),
        (Behaviour(clean_cut_after=0), UpstreamInterrupted),
        (Behaviour(truncate_json=True), UpstreamProtocolError),
        (Behaviour(cut_character=True), UpstreamProtocolError),
        (Behaviour(encode="gzip"), UpstreamProtocolError),
        (Behaviour(raw="SSH-2.0-x"), UpstreamProtocolError),
        (Behaviour(garbage=100), UpstreamProtocolError),
        (Behaviour(wrong_length=3), UpstreamInterrupted),
        (Behaviour(wrong_length=-3), UpstreamProtocolError),
        (Behaviour(error_in_stream=0), UpstreamFault),
        (Behaviour(empty=True), UpstreamProtocolError),
        (Behaviour(body='{"choices": []}'), UpstreamProtocolError),
    ],
)
def test_a_whole_reply_that_breaks_is_no_reply(behaviour: Behaviour, kind: type[UpstreamError]) -> None:
    """Nothing is given out, whatever part of it arrived."""
    error, before, _, _ = failure(behaviour, streamed=False)

    assert type(error) is kind
    assert before == []


@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour(reply="a b", no_done=True),
        Behaviour(reply="a b", usage_on_finish=True),
        Behaviour(reply="a b", crlf=True, comments=True, one_byte_chunks=True),
        Behaviour(reply="a b", hang_up=True),
        Behaviour(reply="a b", early_headers=True, slow_headers_ms=50, wait_ms=20),
    ],
)
def test_oddities_are_no_failures(behaviour: Behaviour) -> None:
    """What real servers do differently still is a complete answer."""
    assert text(run_virtual(ask(ScriptedUpstream(behaviour)))) == "a b"


@pytest.mark.parametrize(
    ("behaviour", "streamed", "phase", "at"),
    [
        (Behaviour(hang=True), True, "first_event", 60.0),
        (Behaviour(hang=True), False, "total", 600.0),
        (Behaviour(ttft_ms=61_000), True, "first_event", 60.0),
        (Behaviour(ttft_ms=61_000, early_headers=True), True, "first_event", 60.0),
        (Behaviour(wait_ms=601_000), False, "total", 600.0),
        (Behaviour(stall_after=2), True, "idle", 30.0),
        (Behaviour(stall_after=0), False, "total", 600.0),
        (Behaviour(words=100, tokens_per_s=0.1), True, "total", 600.0),
    ],
)
def test_too_slow_is_a_time_out_of_its_phase(
    behaviour: Behaviour, streamed: bool, phase: str, at: float
) -> None:
    """At exactly the time that the question allows; the log says that the client left."""
    error, _, when, ended = failure(behaviour, streamed=streamed)

    assert isinstance(error, UpstreamTimeout)
    assert (error.phase, when) == (phase, pytest.approx(at))
    assert ended is Ended.ABORTED


def test_nothing_before_the_status_line_leaves_delivery_open() -> None:
    """A request that was never answered may have been delivered."""
    assert failure(Behaviour(hang=True))[0].delivery is Delivery.POSSIBLE
    assert failure(Behaviour(stall_after=1))[0].delivery is Delivery.CONFIRMED


def test_leaving_early_is_logged_with_the_tokens_generated() -> None:
    """Closing after 2.05 s of a stream of 10 tokens a second: 21 tokens; closing again changes nothing."""
    clock = FakeClock()

    async def main() -> tuple[Ended, int]:
        upstream = ScriptedUpstream(Behaviour(words=1_000, tokens_per_s=10), clock=clock)
        exchange = await upstream.send(question())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout_at(2.05):
                await drain(exchange)
        exchange.close()
        exchange.close()
        return upstream.log[0].ended, upstream.log[0].tokens

    assert run_virtual(main(), clock=clock) == (Ended.ABORTED, 21)


def test_cancelling_before_the_headers_frees_the_slot() -> None:
    """The engine has one slot; a question that is cancelled gives it to the next."""
    clock = FakeClock()
    script = Script(default=Behaviour(words=10), engine=EngineModel(slots=1, base_ms=100, per_sequence_ms=0))

    async def main() -> float:
        upstream = ScriptedUpstream(script, clock=clock)
        first = asyncio.create_task(upstream.send(question(streamed=False)))
        await asyncio.sleep(0.25)
        first.cancel()
        await asyncio.wait([first])
        await ask(upstream, streamed=False)
        return clock.monotonic()

    # The step that is going on ends at 0.3 s; then ten steps of 0.1 s.
    assert run_virtual(main(), clock=clock) == pytest.approx(1.3, abs=0.005)


def test_an_engine_makes_the_third_wait_for_a_slot() -> None:
    """Two slots: two first tokens come with the first step, the third when a slot is free."""
    clock = FakeClock()
    script = Script(default=Behaviour(words=5), engine=EngineModel(slots=2, base_ms=10, per_sequence_ms=0))

    async def main() -> list[float]:
        upstream = ScriptedUpstream(script, clock=clock)

        async def first_token() -> float:
            exchange = await upstream.send(question())
            at = clock.monotonic()
            await drain(exchange)
            return round(at, 4)

        return sorted(await asyncio.gather(*(first_token() for _ in range(3))))

    times = run_virtual(main(), clock=clock)
    assert times[:2] == pytest.approx([0.01, 0.02], abs=0.001)
    assert times[2] == pytest.approx(0.06, abs=0.001)


@pytest.mark.parametrize(
    ("model", "kind", "code"),
    [
        (EngineModel(slots=1, queue_limit=0), UpstreamFault, None),
        (EngineModel(kv_capacity_tokens=10), UpstreamRejected, "context_length_exceeded"),
    ],
)
def test_what_an_engine_cannot_take_is_an_error(
    model: EngineModel, kind: type[UpstreamError], code: str | None
) -> None:
    """A full queue is a 503, a sequence over the cache a 400."""

    async def main() -> UpstreamError:
        upstream = ScriptedUpstream(Script(default=Behaviour(words=50), engine=model))
        with pytest.raises(kind) as caught:
            await asyncio.gather(*(ask(upstream) for _ in range(2)))
        return caught.value

    assert getattr(run_virtual(main()), "upstream_code", None) == code


def test_a_rate_limit_opens_again_after_its_minute() -> None:
    """Two in any 60 s: the third is throttled with the wait, and after that wait it is let in."""
    clock = FakeClock()

    async def main() -> float:
        upstream = ScriptedUpstream(Script(rpm=2), clock=clock)
        await ask(upstream)
        await asyncio.sleep(10)
        await ask(upstream)
        with pytest.raises(UpstreamThrottled) as caught:
            await ask(upstream)
        assert caught.value.retry_after_s is not None
        await asyncio.sleep(caught.value.retry_after_s)
        await ask(upstream)
        return clock.monotonic()

    assert run_virtual(main(), clock=clock) == pytest.approx(60.0)


def test_rules_and_markers_work_as_on_the_server() -> None:
    """The second request fails by rule; one that wishes to be cut is cut; a wrong wish is a 400."""
    script = Script(default=FIVE, rules=(Rule(when=When(nth=2), then=Behaviour(status=500)),))

    async def main() -> None:
        upstream = ScriptedUpstream(script)
        await ask(upstream)
        with pytest.raises(UpstreamFault):
            await ask(upstream)
        with pytest.raises(UpstreamInterrupted):
            await ask(upstream, content="[[mock: clean_cut_after=2]] hello")
        with pytest.raises(UpstreamRejected):
            await ask(upstream, content="[[mock: clean_cut=2]] hello")
        upstream.play(Behaviour(echo=True))
        assert text(await ask(upstream, content="now you")) == "now you"
        assert len(upstream.log) == 1

    run_virtual(main())
