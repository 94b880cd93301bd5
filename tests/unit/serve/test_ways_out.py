"""The life of a call, and every way out of it: each door that was opened is closed, and closed once."""

import asyncio
import gc
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiergate.catalog import ModelFacts
from tiergate.core import (
    Blame,
    BudgetExceeded,
    Chunk,
    DataClass,
    DeadlineExceeded,
    Delivery,
    EndState,
    ModelNotFound,
    Outcome,
    Reply,
    StorageUnavailable,
    TargetFull,
    TiergateError,
    UpstreamAuthFailed,
    UpstreamError,
    UpstreamFault,
    UpstreamInterrupted,
    UpstreamProtocolError,
    UpstreamRejected,
    UpstreamThrottled,
    UpstreamTimeout,
    UpstreamUnreachable,
    UsageDoubt,
    UsageDoubted,
    UsageSource,
)
from tiergate.ledger import Ceiling, HoldState, Scope, SoleBook
from tiergate.resilience import ProviderLimits
from tiergate.serve import (
    STOPPING,
    Question,
    Stopping,
    StreamReply,
    StreamState,
    handle,
)
from tiergate.serve.attempt import HELD_BACK_BYTES_MAX, HELD_BACK_EVENTS_MAX, OpenHold
from tiergate.serve.egress import egress
from tiergate.testing import Behaviour, ScriptedUpstream
from unit.serve.stage import (
    ONE,
    RACK,
    REPLY,
    ROLE,
    SAID,
    STOP,
    STREAM,
    TWO,
    UNFINISHED,
    USAGE,
    WHOLE,
    A,
    Answer,
    B,
    House,
    PlayedExchange,
    broken,
    interrupted,
    played,
    run,
    unreachable,
)

# Good ways.


def test_a_stream_is_given_out_as_it_arrived_and_accounted() -> None:
    """Start-up events with the first content; times, tokens and money in the books and in the event."""
    house = House({"a": STREAM})
    reply = played(house)
    assert isinstance(reply, StreamReply)
    assert house.complete and house.seen == [ROLE, ONE, TWO, STOP, USAGE]
    assert (reply.origin.target, reply.origin.attempts, reply.state) == (A, 1, StreamState.ENDED)
    assert reply.cash_nanos == 7 * 1000 + 5 * 2000
    (settled,) = house.settled
    assert (settled.state, settled.outcome, settled.blame) == (HoldState.SETTLED, Outcome.SUCCESS, None)
    assert (settled.usage, settled.usage_source, settled.cash_nanos) == (SAID, UsageSource.REPORTED, 17_000)
    assert (settled.replica, settled.upstream_request_id) == ("127.0.0.1:1", "req-1")
    ended = house.ended
    assert (ended.end, ended.attempts, ended.target, ended.cash_nanos) == (EndState.SUCCESS, 1, A, 17_000)
    assert (ended.ttft_ms, ended.total_ms) == (0, 1500)
    assert house.closed.finish_reasons == ("stop",)
    assert house.closed.last_event_ns - house.closed.opened.call.received_ns == 1_500_000_000


def test_a_whole_reply_is_given_out_and_accounted() -> None:
    """As the upstream wrote it, with where it came from and what it cost."""
    house = House({"a": REPLY})
    reply = played(house, streamed=False)
    assert isinstance(reply, Reply)
    assert (reply.data, reply.text, reply.finish) == (WHOLE.data, "whole", ("stop",))
    assert (reply.target, reply.tier, reply.cash_nanos, reply.usage) == ("a/m", "hosted", 17_000, SAID)
    assert house.ended.end is EndState.SUCCESS


def test_the_hold_is_the_worst_case_at_the_price_in_force() -> None:
    """Written before anything is sent, with the price's row and what is in flight."""
    house = House({"a": REPLY})
    played(house, streamed=False)
    (held,) = house.journal.held
    assert held.bound_nanos == (80 + 16 + 64) * 1000 + 100 * 2000
    assert (held.price_id, held.in_flight, held.n) == ("a/m@2026-01-01", 1, 1)


def test_without_a_limit_of_its_own_a_question_is_bounded_by_the_models() -> None:
    """The longest answer that the model gives; where nobody says one, there is no bound."""
    body = {"model": "model", "messages": [{"role": "user", "content": "hi"}]}
    for limit, bound_nanos in ((None, None), (7, (80 + 16 + 64) * 1000 + 7 * 2000)):
        house = House({"a": REPLY})
        facts = ModelFacts(output_tokens=limit)
        house.rooms.rules = replace(house.rooms.rules, facts=lambda target, facts=facts: facts)
        played(house, streamed=False, body=body)
        assert [held.bound_nanos for held in house.journal.held] == [bound_nanos]


def test_a_doubt_about_an_account_is_told_with_what_is_charged() -> None:
    """An event of its own, for each attempt that is odd."""
    house = House({"a": Answer(([ONE], [STOP]))})
    played(house)
    (doubt,) = [event for event in house.events if isinstance(event, UsageDoubted)]
    (settled,) = house.settled
    assert (doubt.doubt, doubt.target, doubt.n) == (UsageDoubt.UNREPORTED, A, 1)
    assert doubt.cash_nanos == settled.cash_nanos == doubt.bound_nanos
    assert house.ended.usage_source is UsageSource.BOUNDED


def test_the_object_that_policy_saw_is_the_object_that_is_sent() -> None:
    """The very same one, on every attempt."""
    house = House({"a": Answer(refusal=unreachable()), "b": STREAM})
    body = {"model": "model", "messages": [{}], "stream": True}
    played(house, body=body)
    assert [question.body is body for question in house.upstream.asked] == [True, True]
    first = house.upstream.asked[0]
    assert (first.target, first.streamed) == (A, True)
    assert (first.deadline, first.first_event_s, first.idle_s) == (40, 60, 60)


# Failures before the first content: another target may answer.


@pytest.mark.parametrize(
    "first",
    [
        Answer(refusal=unreachable()),
        Answer(refusal=UpstreamTimeout("slow", phase="first_event", target="a/m")),
        Answer(refusal=UpstreamThrottled("429", target="a/m")),
        Answer(refusal=UpstreamAuthFailed("401", target="a/m", status=401, delivery=Delivery.CONFIRMED)),
        Answer(refusal=UpstreamFault("500", target="a/m", status=500, delivery=Delivery.CONFIRMED)),
        Answer(([ROLE], broken())),
        Answer(([ROLE], [USAGE], broken())),
        Answer(([ROLE],)),
        Answer(()),
        Answer(([ROLE],) * (HELD_BACK_EVENTS_MAX + 1) + ([ONE, STOP],)),
        Answer(([ROLE] * (HELD_BACK_EVENTS_MAX + 1), [ONE, STOP])),
        Answer(([Chunk(b"x" * (HELD_BACK_BYTES_MAX + 1))], [ONE, STOP])),
    ],
)
def test_before_the_first_content_the_target_may_change_and_nothing_of_it_shows(first: Answer) -> None:
    """Refusals; start-up events and a break, or an end, or too many or too large of them."""
    house = House({"a": first, "b": STREAM})
    played(house)
    assert house.seen == [ROLE, ONE, TWO, STOP, USAGE]
    assert [settled.outcome for settled in house.settled] == [Outcome.DROPPED, Outcome.SUCCESS]
    assert (house.ended.end, house.ended.attempts, house.ended.target) == (EndState.SUCCESS, 2, B)


def test_as_many_start_up_events_as_allowed_are_held_back() -> None:
    """And given out with the first content, in one piece."""
    house = House({"a": Answer(([ROLE],) * HELD_BACK_EVENTS_MAX + ([ONE, STOP],))}, targets=[A])
    played(house)
    assert house.seen == [ROLE] * HELD_BACK_EVENTS_MAX + [ONE, STOP]


def test_a_whole_reply_that_breaks_at_its_end_is_asked_for_elsewhere() -> None:
    """Nothing of it has left: it was complete only at its end."""
    house = House({"a": Answer(([WHOLE], broken())), "b": REPLY})
    played(house, streamed=False)
    assert (house.ended.target, house.ended.attempts) == (B, 2)
    alone = House({"a": Answer(([WHOLE], broken()))}, targets=[A])
    with pytest.raises(UpstreamInterrupted):
        played(alone, streamed=False)
    assert alone.ended.end is EndState.FAILED


@pytest.mark.parametrize(
    ("refusal", "state", "source", "cash", "outcome", "blame"),
    [
        (unreachable(), HoldState.RELEASED, UsageSource.NONE, 0, Outcome.DROPPED, Blame.PROVIDER),
        (
            UpstreamTimeout("slow", phase="connect", target="a/m", delivery=Delivery.NONE),
            *(HoldState.RELEASED, UsageSource.NONE, 0, Outcome.DROPPED, Blame.PROVIDER),
        ),
        (
            UpstreamTimeout("slow", phase="first_event", target="a/m"),
            *(HoldState.SETTLED, UsageSource.BOUNDED, 360_000, Outcome.DROPPED, Blame.PROVIDER),
        ),
        (
            UpstreamThrottled("429", target="a/m"),
            *(HoldState.SETTLED, UsageSource.NONE, 0, Outcome.DROPPED, Blame.US),
        ),
        (
            UpstreamAuthFailed("401", target="a/m", status=401, delivery=Delivery.CONFIRMED),
            *(HoldState.SETTLED, UsageSource.NONE, 0, Outcome.DROPPED, Blame.US),
        ),
        (
            UpstreamFault("500", target="a/m", status=500, delivery=Delivery.CONFIRMED),
            *(HoldState.SETTLED, UsageSource.NONE, 0, Outcome.DROPPED, Blame.PROVIDER),
        ),
        (
            UpstreamProtocolError("garbage", target="a/m", delivery=Delivery.CONFIRMED, status=200),
            *(HoldState.SETTLED, UsageSource.BOUNDED, 360_000, Outcome.DROPPED, Blame.PROVIDER),
        ),
        (
            UpstreamRejected("400", target="a/m", status=400),
            *(HoldState.SETTLED, UsageSource.NONE, 0, Outcome.IGNORE, Blame.CALLER),
        ),
    ],
)
def test_what_a_failed_attempt_costs(
    refusal: UpstreamError, state: HoldState, source: UsageSource, cash: int, outcome: Outcome, blame: Blame
) -> None:
    """Nothing where nothing arrived or a status refused it; the bound where it may be running."""
    house = House({"a": Answer(refusal=refusal)}, targets=[A], attempts=1)
    with pytest.raises(type(refusal)):
        played(house)
    (settled,) = house.settled
    assert (settled.state, settled.usage_source, settled.cash_nanos) == (state, source, cash)
    assert (settled.outcome, settled.blame, settled.status) == (outcome, blame, refusal.status)
    assert (house.ended.end, house.ended.error_code) == (EndState.FAILED, refusal.code)


def test_a_rejected_request_is_not_sent_elsewhere() -> None:
    """The caller must mend it."""
    house = House({"a": Answer(refusal=UpstreamRejected("400", target="a/m", status=400)), "b": STREAM})
    with pytest.raises(UpstreamRejected):
        played(house)
    assert [question.target for question in house.upstream.asked] == [A]


def test_when_all_fail_the_last_failure_is_told_with_the_others() -> None:
    """And every attempt is in the books."""
    house = House({"a": Answer(refusal=unreachable()), "b": Answer(refusal=broken("b/m"))})
    with pytest.raises(UpstreamInterrupted) as failure:
        played(house)
    assert failure.value.tried == (("a/m", "refused"),)
    assert [settled.n for settled in house.settled] == [1, 2]


# Failures after it.


@pytest.mark.parametrize(
    "failure",
    [
        broken(),
        UpstreamTimeout("idle", phase="idle", target="a/m"),
        UpstreamThrottled("throttled inside its stream", target="a/m"),
        UpstreamFault("a status inside its stream", target="a/m", status=503),
        UpstreamUnreachable("nonsense", target="a/m", delivery=Delivery.NONE),
    ],
)
def test_after_the_first_content_the_target_stays_and_a_break_is_told(failure: UpstreamError) -> None:
    """The client gets what came, then the failure; nothing from another target; the bound is charged,
    whatever the failure claims about status and delivery: an answer had begun.
    """
    house = House({"a": Answer(([ROLE], [ONE], [TWO], failure)), "b": STREAM})
    with pytest.raises(type(failure)):
        played(house)
    assert house.seen == [ROLE, ONE, TWO] and not house.complete
    assert [question.target for question in house.upstream.asked] == [A]
    assert (house.ended.end, house.ended.error_code) == (EndState.INTERRUPTED, failure.code)
    (settled,) = house.settled
    assert (settled.state, settled.usage_source) == (HoldState.SETTLED, UsageSource.BOUNDED)
    blame = Blame.US if isinstance(failure, UpstreamThrottled) else Blame.PROVIDER
    assert (settled.outcome, settled.blame) == (Outcome.DROPPED, blame)


def test_a_break_after_the_last_report_is_charged_as_reported() -> None:
    """Finish reason and usage were there: the provider's last word."""
    house = House({"a": Answer(([ONE], [STOP], [USAGE], broken()))}, targets=[A])
    with pytest.raises(UpstreamInterrupted):
        played(house)
    assert house.settled[0].usage_source is UsageSource.REPORTED
    assert house.ended.end is EndState.INTERRUPTED


# The caller leaves.


@pytest.mark.parametrize(
    ("leave_after", "seen"), [(0, 0), (1, 2), (2, 4), (3, 5)], ids=["first", "middle", "usage", "last"]
)
def test_a_caller_may_leave_at_any_piece(leave_after: int, seen: int) -> None:
    """Before the first, after any, and after the last when its end was not seen: the books say it."""
    house = House({"a": STREAM, "b": STREAM})
    reply = played(house, leave_after=leave_after)
    assert len(house.seen) == seen and not house.complete
    assert (house.ended.end, house.ended.error_code) == (EndState.CLIENT_CLOSED, None)
    (settled,) = house.settled
    assert (settled.outcome, settled.blame) == (Outcome.IGNORE, Blame.CALLER)
    assert settled.usage_source is (UsageSource.REPORTED if leave_after == 3 else UsageSource.BOUNDED)
    assert isinstance(reply, StreamReply) and reply.state is StreamState.ENDED


def test_a_stream_that_ended_stays_ended() -> None:
    """Iterating again ends at once, and leaving again changes nothing."""
    house = House({"a": STREAM})

    async def main() -> None:
        reply = await handle(house.rooms, house.call())
        assert isinstance(reply, StreamReply)
        with reply:
            assert [len(chunks) async for chunks in reply] == [2, 2, 1]
            assert [chunks async for chunks in reply] == []
        with reply:
            pass
        assert house.upstream.exchanges[0].closed == 1

    run(house, main())
    house.check()


# Calls that never leave.


def test_a_model_that_we_do_not_have_is_no_call() -> None:
    """Refused at the door: no record, nothing inside, nothing sent."""
    house = House({})
    with pytest.raises(ModelNotFound):
        run(house, house.answer(house.call(asked_model="gpt-9")))
    assert (house.journal.order, house.events, house.upstream.asked) == ([], [], [])
    assert not house.rooms.admission.statistics().inside


def test_a_call_whose_time_is_over_is_closed_without_an_attempt() -> None:
    """Nothing was held for it."""
    house = House({"a": STREAM})
    with pytest.raises(DeadlineExceeded):
        played(house, time_limit_s=0.0)
    assert (house.ended.end, house.ended.attempts, house.journal.held) == (EndState.FAILED, 0, [])


def test_without_a_hold_nothing_is_sent() -> None:
    """The ledger cannot write: the call ends there, and no other target is tried."""
    house = House({"a": STREAM, "b": STREAM}, fail_holds=True)
    with pytest.raises(StorageUnavailable):
        played(house)
    assert house.upstream.asked == []
    assert (house.ended.end, house.ended.error_code) == (EndState.FAILED, "storage_unavailable")


def test_an_attempt_that_no_ceiling_allows_is_none() -> None:
    """It could not cost anything: nothing is held or sent, and the call has made no attempt."""
    house = House({"a": STREAM}, targets=[A])
    house.rooms.book = SoleBook(house.journal, ceilings=[Ceiling(scope=Scope.ALL, amount_nanos=0)])
    with pytest.raises(BudgetExceeded):
        played(house)
    assert (house.journal.held, house.upstream.asked) == ([], [])
    assert (house.ended.end, house.ended.attempts) == (EndState.FAILED, 0)


def test_a_full_target_is_no_attempt() -> None:
    """After a bounded wait the next one is asked, as number one; nothing was held for the full one."""
    house = House({"a": STREAM, "b": STREAM}, limits={"a": ProviderLimits(concurrency=1)})

    async def main() -> None:
        with await house.rooms.permits.take(A, wait_s=0):
            await house.answer(house.call())

    run(house, main())
    house.check()
    assert [(held.target, held.n) for held in house.journal.held] == [(B, 1)]
    assert house.ended.ttft_ms == 1000


def test_the_last_target_is_waited_for_a_quarter_of_the_time_that_is_left() -> None:
    """Half a second is left and there is nowhere else to go."""
    house = House({"a": STREAM}, targets=[A], limits={"a": ProviderLimits(concurrency=1)})

    async def main() -> None:
        with await house.rooms.permits.take(A, wait_s=0):
            await house.answer(house.call(time_limit_s=0.5))

    with pytest.raises(TargetFull):
        run(house, main())
    assert house.clock.monotonic() == 0.125
    assert (house.ended.attempts, house.ended.end) == (0, EndState.FAILED)


def test_after_a_wait_that_took_all_the_time_nothing_is_sent() -> None:
    """F35: a place was given in time, and then the process stood still."""
    house = House({"a": STREAM}, targets=[A], limits={"a": ProviderLimits(concurrency=1)})

    async def main() -> None:
        with await house.rooms.permits.take(A, wait_s=0):
            asking = asyncio.create_task(house.answer(house.call()))
            await asyncio.sleep(1)
        house.clock.advance(100)
        await asking

    with pytest.raises(DeadlineExceeded):
        run(house, main())
    house.check()
    assert house.upstream.asked == [] and house.journal.held == []


def test_who_is_left_alone_is_passed_over_before_any_wait() -> None:
    """It became so after the way of the call was chosen, and its places are all taken."""
    one = ProviderLimits(concurrency=1)
    house = House({"a": STREAM, "b": STREAM}, limits={"a": one, "b": one})

    async def main() -> None:
        with await house.rooms.permits.take(A, wait_s=0), await house.rooms.permits.take(B, wait_s=0):
            asking = asyncio.create_task(house.answer(house.call()))
            await asyncio.sleep(0.5)
            house.rooms.health.isolate("b")
            await asking

    with pytest.raises(TargetFull) as failure:
        run(house, main())
    assert house.clock.monotonic() == 1, "only the first one was waited for"
    assert [target for target, _ in failure.value.tried] == ["b/m"]


@pytest.mark.parametrize(("first_event_limit_s", "opens"), [(1.0, False), (60.0, True), (None, True)])
def test_a_callers_own_short_time_says_nothing_of_the_target(
    first_event_limit_s: float | None, *, opens: bool
) -> None:
    """Only our own time for the first event, when it is over, is a failure."""
    slow = UpstreamTimeout("slow", phase="first_event", target="a/m")

    async def main(house: House) -> None:
        for number in range(5):
            slow.phase = "first_event"
            with pytest.raises(UpstreamTimeout):
                await house.answer(house.call(id=f"call-{number}", first_event_limit_s=first_event_limit_s))

    house = House({"a": Answer(refusal=slow)}, targets=[A], attempts=1)
    run(house, main(house))
    assert (house.rooms.health.why_not(A) is not None) is opens


# What a call costs.


@pytest.mark.parametrize(
    ("status", "billed"), [(500, False), (400, False), (408, True), (504, True), (524, True)]
)
def test_a_time_out_that_the_provider_tells_is_billed(status: int, *, billed: bool) -> None:
    """A refusal costs nothing; behind a gateway time-out the request may have run to its end."""
    refusal = UpstreamFault("no", target="a/m", delivery=Delivery.CONFIRMED, status=status)
    house = House({"a": Answer(refusal=refusal)}, targets=[A], attempts=1)

    async def main() -> None:
        await house.answer(house.call())

    with pytest.raises(UpstreamFault):
        run(house, main())
    (settled,) = house.journal.settled
    assert bool(settled.cash_nanos) is billed


def test_a_bug_of_ours_is_not_booked_as_the_callers_leaving() -> None:
    """Whoever reads a stream and fails on its own account interrupts it."""
    house = House({"a": STREAM}, targets=[A])

    async def main() -> None:
        reply = await handle(house.rooms, house.call())
        assert isinstance(reply, StreamReply)
        with reply:
            await anext(reply)
            raise TypeError("a bug")

    with pytest.raises(TypeError):
        run(house, main())
    assert (house.ended.end, house.journal.settled[0].blame) == (EndState.INTERRUPTED, Blame.US)


@pytest.mark.parametrize("streamed", [True, False])
def test_a_calls_cost_holds_its_failed_attempts_too(*, streamed: bool) -> None:
    """An attempt that broke off is billed at its bound, and the caller is told the sum of both."""
    good = STREAM if streamed else REPLY
    house = House({"a": Answer(([ROLE], broken())), "b": good})
    replies: list[Reply | StreamReply] = []

    async def main() -> None:
        replies.append(await house.answer(house.call(streamed=streamed)))

    run(house, main())
    house.check()
    billed = [settled.cash_nanos for settled in house.journal.settled]
    assert len(billed) == 2 and all(billed)
    assert house.ended.cash_nanos == sum(filter(None, billed))
    if not streamed:
        assert replies[0].cash_nanos == house.ended.cash_nanos


# Private stays private.


@pytest.mark.parametrize("streamed", [True, False])
def test_a_private_only_call_never_leaves_for_a_hosted_tier(streamed: bool) -> None:
    """Whatever fails, and wherever the private target stands in the list."""
    answers = {"a": STREAM, "rack": Answer(refusal=unreachable("rack/m")), "b": STREAM}
    house = House(answers, targets=[A, RACK, B])
    with pytest.raises(UpstreamUnreachable):
        played(house, data_class=DataClass.PRIVATE_ONLY, streamed=streamed)
    assert {question.target for question in house.upstream.asked} == {RACK}


def test_egress_itself_refuses_what_routing_should_have_left_out() -> None:
    """The last door, for every mistake above."""
    house = House({"a": STREAM})
    question = Question(
        call_id="c",
        target=A,
        body={},
        streamed=True,
        deadline=1,
        first_event_s=1,
        idle_s=1,
        mark_sent=lambda: None,
    )
    with pytest.raises(AssertionError, match="private-only"):
        run(house, egress(house.upstream, question, DataClass.PRIVATE_ONLY))
    assert house.upstream.asked == []


# Cancelled at every await.


@dataclass(frozen=True)
class Scene:
    """A call and what it meets."""

    answers: Mapping[str, Answer] = field(default_factory=lambda: {"a": STREAM, "b": STREAM})
    streamed: bool = True
    place_taken: bool = False
    """The first target's only place is taken by somebody who leaves a little later."""
    breaker: UpstreamError | None = None
    """The first target's breaker lets one try at a time; it has opened for this."""
    is_paced: bool = False
    """The first target has rates, and both are used up for less than a second."""
    fail_holds: bool = False
    leave_after: int | None = None
    cancel_at: int = 0
    as_it_wakes: bool = False
    why: str | None = None

    def play(self) -> tuple[House, type[BaseException] | None]:
        """Play it, cancelling the client's task at its nth suspension; gives how the client's task ended."""
        limits = ProviderLimits(
            concurrency=1 if self.place_taken else None,
            rpm=60 if self.is_paced else None,
            tpm=6_000 if self.is_paced else None,
        )
        house = House(self.answers, fail_holds=self.fail_holds, limits={"a": limits})
        if self.breaker is not None:
            house.open_breaker(self.breaker)
        if self.is_paced:
            house.use_rates(tokens=100, ago_s=1.5)
        client = house.answer(house.call(streamed=self.streamed), leave_after=self.leave_after)
        return house, run(house, self._main(house, client))

    async def _main(self, house: House, client: Coroutine[Any, Any, object]) -> type[BaseException] | None:
        if self.place_taken:
            permit = await house.rooms.permits.take(A, wait_s=1)
            asyncio.get_running_loop().call_later(0.25, permit.__exit__)

        async def task() -> None:
            await interrupted(client, at=self.cancel_at, as_it_wakes=self.as_it_wakes, why=self.why)

        began = house.clock.monotonic()
        (ended,) = await asyncio.gather(asyncio.create_task(task()), return_exceptions=True)
        if self.is_paced and not self.place_taken and house.clock.monotonic() - began < 3:
            house.check_rates()
        await asyncio.sleep(5)
        return None if ended is None else type(ended)


def silent() -> UpstreamTimeout:
    return UpstreamTimeout("silent", phase="first_event", target="a/m", delivery=Delivery.POSSIBLE)


SCENES = {
    "a stream": Scene(),
    "a whole reply": Scene({"a": REPLY}, streamed=False),
    "failover": Scene({"a": Answer(refusal=unreachable()), "b": STREAM}),
    "failover from a begun stream": Scene({"a": Answer(([ROLE], broken())), "b": STREAM}),
    "a break after content": Scene({"a": Answer(([ONE], [TWO], broken()))}),
    "everybody fails": Scene(
        {"a": Answer(refusal=broken()), "b": Answer(refusal=broken("b/m"))}, streamed=False
    ),
    "a wait for a place": Scene(place_taken=True),
    "a wait for a rate": Scene(is_paced=True),
    "a wait for a rate, and a break": Scene({"a": Answer(([ROLE], broken())), "b": STREAM}, is_paced=True),
    "a wait for a rate, and no money": Scene(is_paced=True, fail_holds=True),
    "a wait for a rate and a place": Scene({"a": REPLY}, streamed=False, place_taken=True, is_paced=True),
    "a trial of a model": Scene(breaker=silent()),
    "a trial of a model that fails": Scene({"a": Answer(refusal=silent()), "b": STREAM}, breaker=silent()),
    "a trial that breaks off": Scene({"a": Answer(([ONE], [TWO], broken()))}, breaker=silent()),
    "a trial of servers": Scene({"a": REPLY}, streamed=False, breaker=unreachable()),
    "a trial of servers that waits": Scene(place_taken=True, is_paced=True, breaker=unreachable()),
    "a caller who leaves": Scene(leave_after=1),
    "a full disk": Scene(fail_holds=True),
}


@pytest.mark.parametrize("why", [None, STOPPING], ids=["the caller left", "the gateway stops"])
@pytest.mark.parametrize("as_it_wakes", [False, True], ids=["while it waits", "as it wakes"])
@pytest.mark.parametrize("name", SCENES)
def test_cancelled_at_any_await_everything_is_closed_once(
    name: str, as_it_wakes: bool, why: str | None
) -> None:
    """At the first suspension, the second, … until one comes too late: each time the books are in order.

    They tell a caller who left from a gateway that stops, and neither is held against the target.
    """
    scene = SCENES[name]
    for cancel_at in range(1, 100):
        house, ended = replace(scene, cancel_at=cancel_at, as_it_wakes=as_it_wakes, why=why).play()
        house.check()
        if ended is not asyncio.CancelledError:
            break
        if why is None:
            assert (house.ended.end, house.ended.error_code) == (EndState.CLIENT_CLOSED, None)
        else:
            assert house.ended.end is (
                EndState.FAILED if house.ended.ttft_ms is None else EndState.INTERRUPTED
            )
            assert house.ended.error_code == Stopping.code
        cut = [settled for settled in house.settled if settled.error_code in UNFINISHED]
        assert [settled.outcome for settled in cut] in ([], [Outcome.IGNORE])
        blame = Blame.CALLER if why is None else Blame.US
        assert all(settled.blame is blame for settled in cut if settled.state is HoldState.SETTLED)
    else:
        raise AssertionError("it never came to its end")
    assert cancel_at > 1


ERRORS = st.sampled_from([broken, unreachable]).map(lambda make: make())
STEPS = st.lists(
    st.sampled_from([[ROLE], [ONE], [TWO], [STOP], [USAGE], [ONE, STOP], [ROLE, USAGE], [WHOLE], 0.5, 30.0])
    | ERRORS,
    max_size=5,
)
ANSWERS = (
    st.builds(Answer, steps=STEPS) | st.builds(Answer, refusal=ERRORS) | st.sampled_from([STREAM, REPLY])
)


@settings(max_examples=200)
@given(
    st.builds(
        Scene,
        answers=st.fixed_dictionaries({"a": ANSWERS, "b": ANSWERS}),
        place_taken=st.booleans(),
        breaker=st.none() | st.sampled_from([silent(), unreachable()]),
        is_paced=st.booleans(),
        leave_after=st.none() | st.integers(0, 4),
        cancel_at=st.integers(0, 25),
        as_it_wakes=st.booleans(),
    )
)
def test_any_call_with_any_answers_leaves_everything_in_order(scene: Scene) -> None:
    """Any mix of refusals, chunks, waits, breaks, leaving and cancellation; and never a change of target
    after the first content."""
    house, ended = scene.play()
    house.check()
    assert ended is None or issubclass(ended, TiergateError | asyncio.CancelledError)
    if ended is None and scene.leave_after is None:
        assert house.complete
    if ended is not None and issubclass(ended, TiergateError):
        assert house.ended.end is (EndState.INTERRUPTED if house.seen else EndState.FAILED)
    first_content = [any(chunk.content for chunk in made.given) for made in house.upstream.exchanges]
    assert not any(first_content[:-1])


# The same with the toolbox's upstream.


@pytest.mark.parametrize("as_it_wakes", [False, True], ids=["while it waits", "as it wakes"])
@pytest.mark.parametrize("streamed", [True, False])
def test_the_scripted_upstream_is_left_in_order_too(streamed: bool, as_it_wakes: bool) -> None:
    """Cancelled at any await: no answer goes on without a reader, nothing stays held."""
    for cancel_at in range(1, 200):
        house = House({})
        house.rooms.upstream = scripted = ScriptedUpstream(
            Behaviour(reply="a few words of text"), clock=house.clock
        )

        async def main(house: House = house, at: int = cancel_at, scripted: Any = scripted) -> int:
            client = house.answer(house.call(streamed=streamed))

            async def task() -> None:
                await interrupted(client, at=at, as_it_wakes=as_it_wakes)

            await asyncio.gather(asyncio.create_task(task()), return_exceptions=True)
            return int(scripted.statistics().in_flight)

        assert run(house, main()) == 0
        assert house.journal.open_holds == []
        assert len(house.journal.closed) == 1
        if house.ended.end is EndState.SUCCESS:
            break
        assert house.ended.end is EndState.CLIENT_CLOSED
    else:
        raise AssertionError("it never came to its end")


# What a call leaves behind.


@pytest.mark.parametrize("streamed", [True, False])
def test_a_call_leaves_no_garbage(*, streamed: bool) -> None:
    """Nothing of it waits for the garbage collector, whose search stops every other call for its time."""
    house = House({"a": STREAM if streamed else REPLY}, targets=[A])

    async def main() -> None:
        await house.answer(house.call(streamed=streamed))

    gc.collect()
    gc.disable()
    before = _call_objects()
    try:
        run(house, main())
        # What this house remembers for its tests.
        house.upstream.asked.clear()
        house.upstream.exchanges.clear()
        assert _call_objects() == before
    finally:
        gc.enable()


def _call_objects() -> int:
    return sum(isinstance(one, OpenHold | PlayedExchange) for one in gc.get_objects())
