"""Flights: a question that is asked twice is paid for once, and readers never disturb the books."""

import asyncio
import gc
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiergate.core import (
    AnswerNotKept,
    CallEnded,
    Caller,
    Chunk,
    DataClass,
    DeadlineExceeded,
    EndState,
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    Outcome,
    ReceiptUse,
    Reply,
    TiergateError,
    UpstreamInterrupted,
    UpstreamUnreachable,
    UsageSource,
)
from tiergate.ledger import CallClosed, Held, HoldState, Receipt, ReceiptEntry, ReceiptState
from tiergate.resilience import ProviderLimits
from tiergate.serve import STOPPING, SharedStream, Stopping, handle
from tiergate.serve.flight import Flight
from tiergate.serve.kept import KEPT_BYTES_MAX, KeptAnswer, write_kept
from tiergate.serve.reader import Reader
from unit.serve.stage import (
    ONE,
    RACK,
    REPLY,
    ROLE,
    SAID,
    STOP,
    STREAM,
    TWO,
    USAGE,
    WHOLE,
    A,
    Answer,
    B,
    House,
    SlowJournal,
    broken,
    interrupted,
    run,
    turn,
    unreachable,
)

SLOW_REPLY = Answer((2.0, [WHOLE]))
GIVEN = [ROLE, ONE, TWO, STOP, USAGE]


async def ask(house: House, number: int = 1, *, leave_after: int | None = None, **changes: Any) -> Any:
    """Be the client of one call with the key "k"; give the whole reply, or the stream and its chunks."""
    fields = {"id": f"0{number}call", "idempotency_key": "k", **changes}
    reply = await handle(house.rooms, house.call(**fields))
    if isinstance(reply, Reply):
        return reply
    assert isinstance(reply, SharedStream)
    seen: list[Chunk] = []
    with reply:
        pieces = 0
        async for chunks in reply:
            seen.extend(chunks)
            pieces += 1
            if pieces == leave_after:
                break
    return reply, seen


async def leave_in(seconds: float, house: House, **changes: Any) -> None:
    """Be a client that has enough after so long."""
    task = asyncio.create_task(ask(house, 1, **changes))
    await asyncio.sleep(seconds)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def later(seconds: float, coroutine: Any) -> Any:
    await asyncio.sleep(seconds)
    return await coroutine


def ends(house: House) -> dict[str, CallClosed]:
    """The end of each call; there is exactly one, and one event that says the same."""
    found = {closed.opened.call.id: closed for closed in house.journal.closed}
    assert not any(isinstance(record, CallClosed) for record in house.journal.ignored)
    told = {event.call_id: event for event in house.events if isinstance(event, CallEnded)}
    assert {name: (end.end, end.error_code) for name, end in found.items()} == {
        name: (event.end, event.error_code) for name, event in told.items()
    }
    return found


def check(house: House) -> None:
    """Nothing is left open, and nobody is inside."""
    assert house.journal.open_holds == []
    assert all(exchange.closed for exchange in house.upstream.exchanges)
    assert all(not gate.in_flight and not gate.waiting for gate in house.rooms.permits.statistics().values())
    assert not house.rooms.admission.statistics().inside
    flights = house.rooms.flights
    assert (flights._all, flights._by_scope) == (set(), {})


# Joining.


def test_two_who_ask_the_same_at_one_time_are_answered_by_one_question() -> None:
    """The first pays; the second is given the same bytes for nothing, and its entry says whose they are."""
    house = House({"a": SLOW_REPLY})

    async def both() -> Sequence[Reply]:
        return await asyncio.gather(ask(house, 1, streamed=False), later(1, ask(house, 2, streamed=False)))

    first, second = run(house, both())
    assert first.data == second.data == WHOLE.data
    assert (first.cash_nanos, second.cash_nanos) == (17_000, 0)
    assert (first.origin.receipt, second.origin.receipt) == (ReceiptUse.NEW, ReceiptUse.JOINED)
    assert (first.origin.attempts, second.origin.attempts) == (1, 0)
    assert len(house.upstream.sent) == len(house.settled) == 1
    end = ends(house)["02call"]
    assert (end.end, end.attempts) == (EndState.SUCCESS, 0)
    assert end.shared is not None
    assert (end.shared.use, end.shared.of) == (ReceiptUse.JOINED, "01call")
    assert (end.shared.usage, end.shared.cash_nanos) == (SAID, 17_000)
    check(house)


def test_who_joins_a_stream_late_reads_it_from_its_beginning() -> None:
    """And to its end, piece by piece; both are told of a good end, one of them of a cost."""
    house = House({"a": STREAM})

    async def both() -> Any:
        return await asyncio.gather(ask(house, 1), later(1.0, ask(house, 2)))

    (first, seen), (second, seen_late) = run(house, both())
    assert seen == seen_late == GIVEN
    assert (first.end().cash_nanos, second.end().cash_nanos) == (17_000, 0)
    assert first.end().usage == second.end().usage == SAID
    assert (first.cash_nanos, second.cash_nanos) == (17_000, 0)
    assert len(house.upstream.sent) == 1
    assert {end.end for end in ends(house).values()} == {EndState.SUCCESS}
    check(house)


def test_the_question_goes_on_when_who_asked_first_leaves() -> None:
    """A reader's leaving disturbs nothing: the other gets all of it, the first one's books say success."""
    house = House({"a": STREAM})

    async def both() -> Any:
        return await asyncio.gather(ask(house, 1, leave_after=1), ask(house, 2))

    _, (_, seen) = run(house, both())
    assert seen == GIVEN
    assert house.settled[0].outcome is Outcome.SUCCESS
    assert ends(house)["01call"].end is EndState.SUCCESS
    check(house)


def test_the_upstream_is_stopped_when_the_last_one_leaves() -> None:
    """The books say so, and the key is free: who sends it again asks anew."""
    house = House({"a": STREAM})

    async def client() -> Any:
        await asyncio.gather(ask(house, 1, leave_after=1), ask(house, 2, leave_after=1))
        await turn()
        assert [exchange.ended_well for exchange in house.upstream.exchanges] == [False]
        return await ask(house, 3)

    reply, seen = run(house, client())
    assert seen == GIVEN
    assert reply.origin.receipt is ReceiptUse.NEW
    assert len(house.upstream.sent) == 2
    assert [end.end for end in ends(house).values()].count(EndState.CLIENT_CLOSED) == 2
    assert house.settled[0].usage_source is UsageSource.BOUNDED
    check(house)


def test_a_failure_is_everybodys_and_frees_the_key() -> None:
    """Both are told why; neither is given half of an answer for a whole one."""
    house = House({"a": Answer(([ROLE], [ONE], broken()))})

    async def client() -> Any:
        told = await asyncio.gather(ask(house, 1), ask(house, 2), return_exceptions=True)
        house.upstream._answers["a"] = STREAM  # type: ignore[index]  # the scripted target gets well
        return told, await ask(house, 3)

    told, (third, seen) = run(house, client())
    assert [type(error) for error in told] == [UpstreamInterrupted, UpstreamInterrupted]
    found = ends(house)
    assert [found[f"0{n}call"].end for n in (1, 2)] == [EndState.INTERRUPTED, EndState.INTERRUPTED]
    assert found["02call"].shared is None
    assert seen == GIVEN
    assert third.origin.receipt is ReceiptUse.NEW
    check(house)


def test_nobody_answers_nobody_is_answered() -> None:
    """A question that no target took is not remembered either."""
    house = House({"a": Answer(refusal=unreachable()), "b": Answer(refusal=unreachable("b/m"))})

    async def client() -> Any:
        for number in (1, 2):
            with pytest.raises(UpstreamUnreachable):
                await ask(house, number, streamed=False)

    run(house, client())
    assert len(house.upstream.sent) == 4
    check(house)


def test_a_reader_keeps_its_own_time() -> None:
    """One that has less of it gives up alone; the flight goes on."""
    house = House({"a": Answer((5.0, [WHOLE]))})

    async def both() -> Any:
        return await asyncio.gather(
            ask(house, 1, streamed=False),
            ask(house, 2, streamed=False, time_limit_s=2.0),
            return_exceptions=True,
        )

    first, second = run(house, both())
    assert isinstance(first, Reply)
    assert isinstance(second, DeadlineExceeded)
    assert ends(house)["02call"].end is EndState.FAILED
    check(house)


def test_when_the_gateway_stops_everybody_is_told() -> None:
    """And the books of the one who pays say that we stopped, not that the caller left."""
    house = House({"a": Answer((50.0, [WHOLE]))})

    async def client() -> Any:
        tasks = [asyncio.create_task(ask(house, number)) for number in (1, 2)]
        await asyncio.sleep(1)
        await house.rooms.flights.aclose()
        return await asyncio.gather(*tasks, return_exceptions=True)

    assert [type(error) for error in run(house, client())] == [Stopping, Stopping]
    assert {end.error_code for end in ends(house).values()} == {Stopping.code}
    check(house)


def test_a_reader_that_is_stopped_last_stops_the_flight_as_stopped() -> None:
    """The listener ends its tasks by itself; what they leave behind says the same."""
    house = House({"a": Answer((50.0, [WHOLE]))})

    async def client() -> None:
        task = asyncio.create_task(ask(house, 1))
        await asyncio.sleep(1)
        task.cancel(STOPPING)
        await asyncio.gather(task, return_exceptions=True)
        await house.rooms.flights.aclose()

    run(house, client())
    assert ends(house)["01call"].error_code == Stopping.code
    check(house)


# Replaying.


@pytest.mark.parametrize("streamed", [True, False])
def test_who_asks_the_same_again_is_given_the_same_answer(streamed: bool) -> None:
    """In the same form, at once, for nothing; the entry says what was not spent a second time."""
    house = House({"a": STREAM if streamed else REPLY})

    async def twice() -> Any:
        first = await ask(house, 1, streamed=streamed)
        await asyncio.sleep(30)
        return first, await ask(house, 2, streamed=streamed)

    first, second = run(house, twice())
    reply = second[0] if streamed else second
    if streamed:
        assert first[1] == second[1] == GIVEN
        assert second[0].end().usage == SAID
    else:
        assert (first.data, first.text, first.finish) == (second.data, second.text, second.finish)
        assert second.usage == SAID
    assert (reply.origin.receipt, reply.origin.tier, reply.cash_nanos) == (ReceiptUse.REPLAYED, "cache", 0)
    assert reply.origin.target == A
    assert reply.origin.age_s == (31 if streamed else 30)
    assert len(house.upstream.sent) == 1
    closed = ends(house)["02call"]
    assert (closed.opened.call.cause, closed.attempts, closed.end) == ("replay", 0, EndState.SUCCESS)
    assert closed.shared is not None
    assert (closed.shared.of, closed.shared.usage, closed.shared.cash_nanos) == ("01call", SAID, 17_000)
    check(house)


def test_an_answer_is_good_for_so_long() -> None:
    """After that the key is new again."""
    house = House({"a": REPLY})
    house.rooms.flights.receipts_kept_s = 60

    async def twice() -> Any:
        await ask(house, 1, streamed=False)
        await asyncio.sleep(61)
        return await ask(house, 2, streamed=False)

    assert run(house, twice()).origin.receipt is ReceiptUse.NEW
    assert len(house.upstream.sent) == 2


@pytest.mark.parametrize(
    "other",
    [
        {"body": {"model": "model", "messages": [], "max_tokens": 100}},
        {"data_class": DataClass.PRIVATE_ONLY},
        {"call_class": "batch"},
    ],
)
@pytest.mark.parametrize("wait_s", [1, 10])
def test_another_question_with_the_same_key_is_refused(other: dict[str, Any], wait_s: float) -> None:
    """While the first is in flight and when it is over; nothing is asked, nothing is written of it."""
    house = House({"rack": SLOW_REPLY}, targets=[RACK])
    if "call_class" in other:
        other = {"call_class": house.call().call_class.__class__("batch")}

    async def both() -> Any:
        first = asyncio.create_task(ask(house, 1, streamed=False))
        await asyncio.sleep(wait_s)
        with pytest.raises(IdempotencyKeyReused):
            await ask(house, 2, **{"streamed": False, **other})
        await first

    run(house, both())
    assert len(house.upstream.sent) == 1
    assert set(ends(house)) == {"01call"}
    check(house)


def test_the_order_of_a_bodys_keys_makes_no_other_question() -> None:
    """Clients of one library write them in any order."""
    house = House({"a": REPLY})

    async def twice() -> Any:
        body = house.call().body
        await ask(house, 1, streamed=False)
        return await ask(house, 2, streamed=False, body=dict(reversed(body.items())))

    assert run(house, twice()).origin.receipt is ReceiptUse.REPLAYED


@pytest.mark.parametrize(
    "other",
    [
        {"caller": Caller(key="other")},
        {"caller": Caller(key="web", team="another")},
        {"endpoint": "chat/stream"},
        {"idempotency_key": "K"},
    ],
)
def test_keys_endpoints_and_idempotency_keys_have_nothing_in_common(other: dict[str, Any]) -> None:
    """Somebody else's answer is nobody's business."""
    house = House({"a": REPLY})

    async def twice() -> Any:
        await ask(house, 1, streamed=False)
        return await ask(house, 2, **{"streamed": False, **other})

    assert run(house, twice()).origin.receipt is ReceiptUse.NEW
    assert len(house.upstream.sent) == 2


def running_elsewhere(house: House) -> Callable[[ReceiptState], None]:
    """Another process is asking; give what lets its receipt come to something."""
    journal = house.journal
    receipt = house.rooms.flights._make(house.call(idempotency_key="k"))

    def become(state: ReceiptState) -> None:
        answer = KeptAnswer(
            target=A, usage=SAID, source=UsageSource.REPORTED, cash_nanos=17_000, chunks=(WHOLE,)
        )
        journal._receipts[receipt.scope] = ReceiptEntry(
            state=state,
            fingerprint=receipt.fingerprint,
            call_id="01other",
            created_ns=house.clock.wall_ns(),
            reply=write_kept(answer) if state is ReceiptState.DONE else None,
        )

    become(ReceiptState.RUNNING)
    return become


@pytest.mark.parametrize(
    ("state", "use"),
    [
        (ReceiptState.DONE, ReceiptUse.REPLAYED),
        (ReceiptState.FREED, ReceiptUse.NEW),
        (ReceiptState.UNKNOWN, ReceiptUse.RESENT),
    ],
)
def test_what_another_process_asks_is_waited_for(state: ReceiptState, use: ReceiptUse) -> None:
    """Its answer is given, or the question is asked when it has failed or died."""
    house = House({"a": REPLY})
    become = running_elsewhere(house)

    async def client() -> Any:
        asking = asyncio.create_task(ask(house, 1, streamed=False))
        await asyncio.sleep(10)
        assert not asking.done()
        become(state)
        return await asking

    assert run(house, client()).origin.receipt is use
    assert len(house.upstream.sent) == (use is not ReceiptUse.REPLAYED)
    check(house)


def test_another_process_is_waited_for_only_as_long_as_the_call_has_time() -> None:
    """Then the client is asked to come back, and nothing is written of it."""
    house = House({"a": REPLY})
    running_elsewhere(house)

    async def client() -> Any:
        with pytest.raises(IdempotencyKeyInUse):
            await ask(house, 1, streamed=False)

    run(house, client())
    assert 18 < house.clock.monotonic() <= 20
    assert house.upstream.sent == []
    check(house)


# Long answers.

PIECE = Chunk(b"x" * 100_000, content=True, text="x")
LONG = Answer((*([PIECE] for _ in range(30)), [STOP], [USAGE]))


def test_an_answer_that_is_too_long_is_not_kept() -> None:
    """Who asks again is told that it was answered, and charged, and how to ask anew."""
    house = House({"a": LONG})

    async def twice() -> Any:
        await ask(house, 1)
        with pytest.raises(AnswerNotKept, match="01call"):
            await ask(house, 2)

    run(house, twice())
    assert house.settled[0].kept is not None
    assert house.settled[0].kept.reply is None
    check(house)


def test_a_long_answer_waits_for_its_reader_and_cannot_be_joined() -> None:
    """What is read ahead of a reader is bounded, so memory is."""
    house = House({"a": LONG})

    async def client() -> None:
        stream = await handle(house.rooms, house.call(idempotency_key="k"))
        assert isinstance(stream, SharedStream)
        with stream:
            await asyncio.sleep(10)
            given = sum(len(chunk.data) for chunk in house.upstream.exchanges[0].given)
            assert KEPT_BYTES_MAX < given < KEPT_BYTES_MAX + 500_000
            with pytest.raises(IdempotencyKeyInUse):
                await ask(house, 2)
            seen = [chunk async for chunks in stream for chunk in chunks]
        assert len(seen) == 32

    run(house, client())
    check(house)


# Draining.


def drained(house: House, seconds: float = 20.0) -> House:
    """Let the answers of the provider `a` be drained."""
    rules = house.rooms.rules
    house.rooms.rules = rules.__class__(
        **{name: getattr(rules, name) for name in rules.__slots__ if name != "drained"},
        drained={"a": seconds},
    )
    return house


@pytest.mark.parametrize("leave_s", [0.5, 2.5])
def test_a_drained_answer_is_read_for_its_usage_when_the_caller_has_left(leave_s: float) -> None:
    """Before the first content and after it: the usage is what was reported, the end says who left."""
    answer = Answer((1.0, [ROLE], [ONE], 3.0, [TWO, STOP], [USAGE]))
    house = drained(House({"a": answer}))

    async def client() -> None:
        await leave_in(leave_s, house, idempotency_key=None)
        assert house.settled == []
        await asyncio.sleep(10)

    run(house, client())
    (settled,) = house.settled
    assert (settled.usage, settled.usage_source, settled.outcome) == (
        SAID,
        UsageSource.REPORTED,
        Outcome.SUCCESS,
    )
    assert ends(house)["01call"].end is EndState.CLIENT_CLOSED
    check(house)


def test_draining_takes_so_long_and_no_longer() -> None:
    """After that it is as if nothing had been drained."""
    house = drained(House({"a": Answer(([ONE], 100.0, [STOP]))}), 5.0)

    async def client() -> None:
        await ask(house, 1, leave_after=1)
        await asyncio.sleep(4.9)
        assert house.settled == []
        await asyncio.sleep(0.2)

    run(house, client())
    assert house.clock.monotonic() < 6
    (settled,) = house.settled
    assert (settled.usage_source, settled.error_code) == (UsageSource.BOUNDED, None)
    assert ends(house)["01call"].end is EndState.CLIENT_CLOSED
    check(house)


def test_nobody_is_asked_on_behalf_of_nobody() -> None:
    """A drained attempt that fails is not followed by another."""
    house = drained(House({"a": Answer((1.0, broken())), "b": STREAM}))

    async def client() -> None:
        await leave_in(0.5, house, idempotency_key=None)
        await asyncio.sleep(10)

    run(house, client())
    assert house.upstream.sent == [A]
    assert ends(house)["01call"].end is EndState.CLIENT_CLOSED
    assert [held.target for held in house.journal.held] == [A], "money is not held for it either"
    check(house)


class WaitingJournal(SlowJournal):
    """One in which a hold has to wait for the database."""

    async def hold(self, held: Held) -> None:
        await asyncio.sleep(1)
        await super().hold(held)


@pytest.mark.parametrize("key", ["k", None])
def test_nothing_is_sent_for_somebody_who_left_before(key: str | None) -> None:
    """What is drained is what may be billed already, and a question that was not sent is not."""
    house = drained(House({"a": STREAM}))
    house.journal.__class__ = WaitingJournal

    async def client() -> None:
        await leave_in(0.5, house, idempotency_key=key)
        await asyncio.sleep(30)

    run(house, client())
    assert house.upstream.sent == []
    assert ends(house)["01call"].end is EndState.CLIENT_CLOSED


def test_a_second_target_is_not_asked_for_somebody_who_left_while_it_was_waited_for() -> None:
    """Nobody was asked and not answered at that moment."""
    house = drained(
        House({"a": Answer((), unreachable()), "b": STREAM}, limits={"b": ProviderLimits(concurrency=1)})
    )

    async def client() -> None:
        with await house.rooms.permits.take(B, wait_s=0):
            await leave_in(0.5, house)
            await asyncio.sleep(0.5)
        await asyncio.sleep(30)

    run(house, client())
    assert house.upstream.sent == [A]
    assert ends(house)["01call"].end is EndState.CLIENT_CLOSED
    check(house)


def test_who_comes_back_in_time_is_given_the_drained_answer() -> None:
    """The connection broke, the client sends the same again: the books are as if it had stayed."""
    house = drained(House({"a": Answer(([ONE], 3.0, [STOP], [USAGE]))}))

    async def client() -> Any:
        await ask(house, 1, leave_after=1)
        await asyncio.sleep(1)
        return await ask(house, 2)

    reply, seen = run(house, client())
    assert seen == [ONE, STOP, USAGE]
    assert reply.origin.receipt is ReceiptUse.JOINED
    assert {end.end for end in ends(house).values()} == {EndState.SUCCESS}
    check(house)


def test_a_stop_does_not_wait_for_draining() -> None:
    """The gateway goes down in its own time."""
    house = drained(House({"a": Answer(([ONE], 100.0, [STOP]))}), 50.0)

    async def client() -> None:
        await ask(house, 1, leave_after=1)
        await house.rooms.flights.aclose()

    run(house, client())
    assert house.clock.monotonic() < 1
    assert ends(house)["01call"].end is EndState.CLIENT_CLOSED
    check(house)


def test_a_flight_without_a_receipt_keeps_no_log() -> None:
    """One reader, nobody can join: what it has read is gone."""
    house = drained(House({"a": LONG}))

    async def client() -> None:
        stream = await handle(house.rooms, house.call())
        assert isinstance(stream, SharedStream)
        with stream:
            (flight,) = house.rooms.flights._all
            read = 0
            async for _ in stream:
                read += 1
                assert len(flight._log) <= 4
        assert read == 32

    run(house, client())
    check(house)


# Interruptions.


@settings(max_examples=150, deadline=None)
@given(
    at=st.integers(1, 14),
    as_it_wakes=st.booleans(),
    whom=st.sampled_from([1, 2]),
    why=st.sampled_from([None, STOPPING]),
    streamed=st.booleans(),
)
def test_an_interrupted_reader_takes_nothing_from_the_other(
    at: int, as_it_wakes: bool, whom: int, why: str | None, streamed: bool
) -> None:
    """At whatever wait one of two is cut off: the other is answered, one settlement, one end for each."""
    house = House({"a": STREAM if streamed else SLOW_REPLY})

    async def both() -> Any:
        clients = [
            interrupted(ask(house, n, streamed=streamed), at=at, as_it_wakes=as_it_wakes, why=why)
            if n == whom
            else ask(house, n, streamed=streamed)
            for n in (1, 2)
        ]
        tasks = [asyncio.create_task(_wrapped(client)) for client in clients]
        told = await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(1)
        return told

    told = run(house, both())
    other = told[2 - whom]
    assert not isinstance(other, BaseException), other
    assert len(house.settled) == len(house.upstream.sent) == 1
    assert house.settled[0].state is HoldState.SETTLED
    cut = told[whom - 1]
    assert isinstance(cut, asyncio.CancelledError | Stopping | Reply | tuple)
    assert set(ends(house)) <= {"01call", "02call"}
    check(house)


async def _wrapped(client: Any) -> Any:
    return await client


@settings(max_examples=100, deadline=None)
@given(at=st.integers(1, 14), as_it_wakes=st.booleans(), streamed=st.booleans())
def test_an_interrupted_call_frees_its_key(at: int, as_it_wakes: bool, streamed: bool) -> None:
    """At whatever wait it is cut off, the next one with the same key is answered, and nothing is left."""
    house = House({"a": STREAM if streamed else REPLY})

    async def client() -> Any:
        cut = interrupted(ask(house, 1, streamed=streamed), at=at, as_it_wakes=as_it_wakes)
        await asyncio.gather(asyncio.create_task(_wrapped(cut)), return_exceptions=True)
        return await ask(house, 2, streamed=streamed)

    reply = run(house, client())
    seen = reply[1] if streamed else [Chunk(reply.data)]
    assert [chunk.data for chunk in seen] == [chunk.data for chunk in (GIVEN if streamed else [WHOLE])]
    ends(house)
    check(house)


def test_errors_of_receipts_are_the_callers() -> None:
    """They are refusals: counted, and no call."""
    kinds: list[type[TiergateError]] = [IdempotencyKeyReused, IdempotencyKeyInUse, AnswerNotKept]
    assert {kind.blame.value for kind in kinds} == {"caller"}


class SilentJournal(SlowJournal):
    """One whose receipts take long to look up, as a server that does not answer."""

    async def receipt(self, receipt: Receipt) -> ReceiptEntry | None:
        await asyncio.sleep(15)
        return await super().receipt(receipt)


def test_a_call_ends_in_its_time_while_its_receipt_is_looked_up() -> None:
    """Whoever opens the flight, too."""
    house = House({"a": REPLY})
    house.journal.__class__ = SilentJournal

    async def client() -> float:
        with pytest.raises(DeadlineExceeded):
            await ask(house, 1, streamed=False, time_limit_s=2.0)
        return house.clock.monotonic()

    assert run(house, client()) <= 2.5


def test_a_flight_that_is_over_is_freed_at_once() -> None:
    """A flight holds the question and the answer, and the collector of cycles comes seldom."""
    house = House({"a": REPLY})
    seen: list[weakref.ref[Flight]] = []
    board = house.rooms.flights.board

    async def watched(*args: Any, **more: Any) -> Reader:
        reader = await board(*args, **more)
        seen.append(weakref.ref(reader._flight))
        return reader

    house.rooms.flights.board = watched  # type: ignore[method-assign]  # looks at what is boarded

    async def client() -> None:
        await ask(house, 1, streamed=False)
        house.journal.order.clear()
        house.events.clear()
        for _ in range(5):
            await turn()

    gc.collect()
    gc.disable()
    try:
        run(house, client())
        assert [ref() is None for ref in seen] == [True]
    finally:
        gc.enable()


def test_an_error_that_many_are_told_does_not_grow() -> None:
    """Each raises it anew; the frames of the others must not hang on it."""
    house = House({"a": Answer((5.0, unreachable())), "b": Answer((), unreachable("b/m"))})

    async def clients() -> list[Any]:
        tasks = [asyncio.create_task(ask(house, number)) for number in range(1, 101)]
        return await asyncio.gather(*tasks, return_exceptions=True)

    errors = run(house, clients())
    assert all(isinstance(error, TiergateError) for error in errors)
    trace, frames = errors[0].__traceback__, 0
    while trace is not None:
        trace, frames = trace.tb_next, frames + 1
    assert frames < 60
