"""What every journal promises: the one on disk and the one in memory run the same suite."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from contract.ledger_records import BEGAN_NS, HOSTED, PRIVATE, closed, held, opened, released, settled
from places import Places
from tiergate.core import Blame, Cause, EndState, JobLine, Outcome, StorageUnavailable, Usage, UsageSource
from tiergate.ledger import AttemptEntry, Entry, EntryQuery, HoldState, Journal, OfJob
from tiergate.testing import FakeClock
from tiergate.testing.journal import MemoryJournal

OpenJournal = Callable[[], AbstractAsyncContextManager[Journal]]


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def places(request: pytest.FixtureRequest) -> Any:
    """Places where a ledger can be kept; None: it is kept in memory."""
    return None if request.param == "memory" else request.getfixturevalue(f"{request.param}_places")


@pytest.fixture
def journal(places: Places | None) -> OpenJournal:
    """The journal under test; opened anew it is another, empty one."""

    @asynccontextmanager
    async def in_memory() -> AsyncIterator[Journal]:
        yield MemoryJournal()

    @asynccontextmanager
    async def kept() -> AsyncIterator[Journal]:
        assert places is not None
        found = places.new().journal(clock=FakeClock(), randomness=bytes, emit=lambda _: None)
        async with found:
            yield found

    return in_memory if places is None else kept


def run(test: Callable[[Journal], Coroutine[Any, Any, None]], journal: OpenJournal) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(10), journal() as found:
            await test(found)

    asyncio.run(bounded())


async def read(journal: Journal, number: int) -> Entry:
    entry = await journal.entry(opened(number).call.id)
    assert entry is not None
    return entry


def test_the_whole_life_of_a_call_is_read_back(journal: OpenJournal) -> None:
    """Everything that was handed in comes back as it was."""

    async def test(books: Journal) -> None:
        await books.hold(held(1))
        books.settle(settled(1))
        books.close(closed(1))

        assert await read(books, 1) == Entry(
            call_id=opened(1).call.id,
            cause="client",
            key="alice",
            team="blue",
            tenant="blue",
            tag="nightly",
            endpoint="/v1/chat/completions",
            asked_model="deepseek-v3.2",
            call_class="interactive",
            data_class="any",
            streamed=True,
            generation=3,
            received_ns=BEGAN_NS + 1_000_000,
            first_event_ns=BEGAN_NS + 6,
            last_event_ns=BEGAN_NS + 7,
            prompt_bytes=1_234,
            route='[["deepseek/deepseek-chat","first in order"]]',
            finish_reasons=("stop",),
            error_code=None,
            end=EndState.SUCCESS,
            attempts=(
                AttemptEntry(
                    n=1,
                    target="deepseek/deepseek-chat",
                    tier="hosted",
                    replica="api.deepseek.com:443",
                    state=HoldState.SETTLED,
                    outcome=Outcome.SUCCESS,
                    blame=None,
                    error_code=None,
                    bound_nanos=5_000_000,
                    usage=Usage(input=1_000, cache_read=200, output=300, reasoning=40),
                    usage_source=UsageSource.REPORTED,
                    price_id="deepseek/deepseek-chat@2025-12-01",
                    cash_nanos=1_234_567,
                    sent_ns=BEGAN_NS + 3,
                    first_ns=BEGAN_NS + 4,
                    last_ns=BEGAN_NS + 5,
                ),
            ),
        )

    run(test, journal)


def test_a_hold_stands_before_it_is_settled(journal: OpenJournal) -> None:
    """After `hold` returns, the call is there without an end and its attempt is held at its bound."""

    async def test(books: Journal) -> None:
        await books.hold(held(1))

        entry = await read(books, 1)
        assert entry.end is None
        (attempt,) = entry.attempts
        assert attempt.state is HoldState.HELD
        assert attempt.bound_nanos == 5_000_000
        assert attempt.cash_nanos is None
        assert attempt.usage_source is UsageSource.NONE

    run(test, journal)


def test_a_release_gives_the_hold_back(journal: OpenJournal) -> None:
    """A released attempt says why, and costs nothing."""

    async def test(books: Journal) -> None:
        await books.hold(held(1))
        books.settle(released(1))

        (attempt,) = (await read(books, 1)).attempts
        assert (attempt.state, attempt.outcome, attempt.blame, attempt.error_code, attempt.cash_nanos) == (
            HoldState.RELEASED,
            Outcome.DROPPED,
            Blame.PROVIDER,
            "upstream_unreachable",
            0,
        )

    run(test, journal)


@pytest.mark.parametrize("first", [settled(1), released(1)], ids=["settled", "released"])
def test_a_hold_is_settled_once(journal: OpenJournal, first: Any) -> None:
    """Whatever is said after the first settlement changes nothing, in the same commit or a later one."""

    async def test(books: Journal) -> None:
        await books.hold(held(1))
        books.settle(first)
        books.settle(settled(1, cash_nanos=999))
        before = await read(books, 1)
        books.settle(settled(1, cash_nanos=888))
        books.settle(released(1))

        assert await read(books, 1) == before
        assert before.attempts[0].state is first.state
        assert before.attempts[0].cash_nanos == first.cash_nanos

    run(test, journal)


def test_a_settlement_of_no_hold_changes_nothing(journal: OpenJournal) -> None:
    """It neither makes an attempt nor touches another one."""

    async def test(books: Journal) -> None:
        await books.hold(held(1))
        books.settle(settled(1, n=2))
        books.settle(settled(7))

        assert [attempt.state for attempt in (await read(books, 1)).attempts] == [HoldState.HELD]
        assert await books.entry(opened(7).call.id) is None

    run(test, journal)


def test_the_first_end_of_a_call_stands(journal: OpenJournal) -> None:
    """Closing twice leaves the first end, in the same commit or a later one."""

    async def test(books: Journal) -> None:
        await books.hold(held(1))
        books.settle(settled(1))
        books.close(closed(1, end=EndState.INTERRUPTED, error_code="upstream_timeout"))
        books.close(closed(1))
        before = await read(books, 1)
        books.close(closed(1, attempts=0))

        assert await read(books, 1) == before
        assert (before.end, before.error_code) == (EndState.INTERRUPTED, "upstream_timeout")

    run(test, journal)


def test_a_call_that_never_held_is_written_by_its_end(journal: OpenJournal) -> None:
    """No target could be tried: the call is there, whole, without attempts."""

    async def test(books: Journal) -> None:
        end = closed(
            1,
            end=EndState.FAILED,
            error_code="no_target_available",
            first_event_ns=None,
            finish_reasons=(),
            attempts=0,
        )
        books.close(end)

        entry = await read(books, 1)
        assert (entry.end, entry.error_code) == (EndState.FAILED, "no_target_available")
        assert (entry.key, entry.route, entry.first_event_ns) == ("alice", end.opened.route, None)
        assert entry.attempts == ()
        assert entry.finish_reasons == ()

    run(test, journal)


def test_what_jobs_have_cost_is_added_up_by_job(journal: OpenJournal) -> None:
    """Of all attempts for their lines, corrections included; what belongs to no job is in none."""

    async def test(books: Journal) -> None:
        for number, job, line in ((1, "one", 1), (2, "one", 2), (3, "two", 1), (4, None, 0), (5, "one", 3)):
            about = None if job is None else JobLine(job=job, n=line)
            begun = opened(number, cause=Cause.BATCH, line=about)
            await books.hold(held(number, opened=begun))
            if number != 5:
                books.settle(settled(number, cash_nanos=number * 100))
                books.close(closed(number, opened=begun))
        assert await books.adjust(opened(2).call.id, 1, -50, "refund")
        found = await books.spent_of_jobs(["two", "one", "none"])
        assert [(one.about, one.spent_nanos, one.lapsed_nanos) for one in found] == [
            (OfJob("two"), 300, 0),
            (OfJob("one"), 250, 0),
            (OfJob("none"), 0, 0),
        ]
        entry = await read(books, 2)
        assert (entry.job, entry.line) == ("one", 2)
        assert [one.line for one in await books.find(EntryQuery(job="one"))] == [3, 2, 1]
        assert await books.lapsed_lines("one") == []

    run(test, journal)


def test_shapes_are_read_back_with_what_was_reported(journal: OpenJournal) -> None:
    """Oldest first, the last ones; an attempt without report or shape teaches nothing."""

    async def test(books: Journal) -> None:
        for number, shape in enumerate([(1, 2, 3), None, (4, 5, 6), (7, 8, 9), (10, 0, 0)], start=1):
            await books.hold(held(number, shape=shape))
        usage = Usage(input=10, cache_read=5, output=7)
        for number in (1, 2, 3):
            books.settle(settled(number, usage=usage, usage_source=UsageSource.REPORTED))
        books.settle(settled(4, usage=usage, usage_source=UsageSource.BOUNDED))
        await books.flush()

        read = [(one.target, one.shape, one.input_tokens) for one in await books.counted(limit=10)]
        assert read == [(HOSTED.name, (1, 2, 3), 15), (HOSTED.name, (4, 5, 6), 15)]
        assert [one.shape for one in await books.counted(limit=1)] == [(4, 5, 6)]

    run(test, journal)


def test_attempts_are_read_in_their_order(journal: OpenJournal) -> None:
    """A call that failed over keeps every attempt with its own target, state and cost."""

    async def test(books: Journal) -> None:
        await books.hold(held(1, 1))
        books.settle(settled(1, 1, outcome=Outcome.DROPPED, error_code="upstream_fault", status=503))
        await books.hold(held(1, 2, target=PRIVATE, bound_nanos=0, price_id=None))
        books.settle(released(1, 2))
        await books.hold(held(1, 3))
        books.settle(settled(1, 3, cash_nanos=77))
        books.close(closed(1, attempts=3))

        attempts = (await read(books, 1)).attempts
        assert [attempt.n for attempt in attempts] == [1, 2, 3]
        assert [attempt.target for attempt in attempts] == [HOSTED.name, PRIVATE.name, HOSTED.name]
        assert [attempt.cash_nanos for attempt in attempts] == [1_234_567, 0, 77]
        assert [attempt.state for attempt in attempts] == [
            HoldState.SETTLED,
            HoldState.RELEASED,
            HoldState.SETTLED,
        ]

    run(test, journal)


def test_an_attempt_is_held_once(journal: OpenJournal) -> None:
    """The second hold of an attempt is refused; the first stands."""

    async def test(books: Journal) -> None:
        await books.hold(held(1))
        with pytest.raises(StorageUnavailable):
            await books.hold(held(1, bound_nanos=1))

        (attempt,) = (await read(books, 1)).attempts
        assert attempt.bound_nanos == 5_000_000
        assert books.statistics().refused == 1

    run(test, journal)


def test_a_hold_may_come_while_another_is_settled(journal: OpenJournal) -> None:
    """Two hundred calls at once: every hold is there when it returns, every call ends once."""

    async def one(books: Journal, number: int) -> None:
        await books.hold(held(number))
        await asyncio.sleep(0)
        books.settle(settled(number, cash_nanos=number))
        books.close(closed(number))

    async def test(books: Journal) -> None:
        await asyncio.gather(*(one(books, number) for number in range(1, 201)))

        entries = await books.entries(limit=500)
        assert [entry.attempts[0].cash_nanos for entry in entries] == list(range(1, 201))
        assert {entry.end for entry in entries} == {EndState.SUCCESS}

    run(test, journal)


def test_entries_come_in_the_order_of_ids_and_in_pages(journal: OpenJournal) -> None:
    """Pages follow one another without gap or repetition, whatever the order of writing."""

    async def test(books: Journal) -> None:
        for number in (5, 2, 4, 1, 3):
            await books.hold(held(number))
        await books.hold(held(4, 2))

        ids = [opened(number).call.id for number in range(1, 6)]
        first = await books.entries(limit=2)
        second = await books.entries(after=first[-1].call_id, limit=2)
        third = await books.entries(after=second[-1].call_id, limit=2)
        assert [entry.call_id for entry in [*first, *second, *third]] == ids
        assert [len(entry.attempts) for entry in second] == [1, 2]
        assert await books.entries(after=ids[-1]) == []
        assert await books.entries(limit=0) == []

    run(test, journal)


def test_a_call_that_nobody_made_is_not_found(journal: OpenJournal) -> None:
    """Asking for an unknown id gives None and no error."""

    async def test(books: Journal) -> None:
        assert await books.entry("00000000000000000000000000") is None
        assert await books.entry("' OR 1=1 --") is None

    run(test, journal)


def test_flush_returns_when_all_is_written(journal: OpenJournal) -> None:
    """After a flush nothing waits, and the statistics have counted every record."""

    async def test(books: Journal) -> None:
        await books.hold(held(1))
        books.settle(settled(1))
        books.close(closed(1))
        await books.flush()

        statistics = books.statistics()
        assert (statistics.waiting, statistics.records) == (0, 3)
        assert 1 <= statistics.commits <= 3
        assert (statistics.refused, statistics.lost, statistics.uncounted) == (0, 0, 0)

    run(test, journal)


def test_a_cancelled_hold_is_released_by_whoever_asked(journal: OpenJournal) -> None:
    """Cancelled while it waits, a hold may stand or not; releasing and closing leaves nothing held."""

    async def test(books: Journal) -> None:
        task = asyncio.create_task(books.hold(held(1)))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        books.settle(released(1))
        books.close(closed(1, end=EndState.CLIENT_CLOSED, first_event_ns=None, finish_reasons=()))

        entry = await read(books, 1)
        assert entry.end is EndState.CLIENT_CLOSED
        assert {attempt.state for attempt in entry.attempts} <= {HoldState.RELEASED}

    run(test, journal)


def test_an_unknown_price_stays_unknown(journal: OpenJournal) -> None:
    """No bound, no price and no cost are None when read back, never zero."""

    async def test(books: Journal) -> None:
        await books.hold(held(1, bound_nanos=None, price_id=None))
        books.settle(settled(1, cash_nanos=None, upstream_cost_nanos=None))

        (attempt,) = (await read(books, 1)).attempts
        assert (attempt.bound_nanos, attempt.price_id, attempt.cash_nanos) == (None, None, None)

    run(test, journal)


def test_huge_numbers_are_kept_exactly(journal: OpenJournal) -> None:
    """The largest number of 64 bits is read back to the last digit."""
    most = 2**63 - 1
    usage = Usage(
        input=most,
        cache_read=most,
        cache_write_5m=most,
        cache_write_1h=most,
        output=most,
        reasoning=most,
        audio_in=most,
        audio_out=most,
        images=most,
    )

    async def test(books: Journal) -> None:
        await books.hold(held(1, bound_nanos=most))
        books.settle(settled(1, usage=usage, cash_nanos=most - 1))

        (attempt,) = (await read(books, 1)).attempts
        assert attempt.usage == usage
        assert (attempt.bound_nanos, attempt.cash_nanos) == (most, most - 1)

    run(test, journal)


def test_the_owner_is_named(journal: OpenJournal) -> None:
    """Every journal writes under an owner with an epoch."""

    async def test(books: Journal) -> None:
        assert books.owner.epoch >= 1
        assert books.owner.id

    run(test, journal)


def test_the_journal_in_memory_shows_what_was_done_to_it() -> None:
    """Tests read what was held, settled and closed, what changed nothing, and what is still held."""

    async def test() -> None:
        journal = MemoryJournal()
        await journal.hold(held(1))
        await journal.hold(held(2))
        journal.settle(settled(1))
        journal.settle(released(1))
        journal.close(closed(1))
        journal.close(closed(1, end=EndState.FAILED))

        assert journal.held == [held(1), held(2)]
        assert journal.open_holds == [held(2)]
        assert journal.settled == [settled(1)]
        assert journal.closed == [closed(1)]
        assert journal.ignored == [released(1), closed(1, end=EndState.FAILED)]

    asyncio.run(test())


def test_the_journal_in_memory_can_be_told_to_fail() -> None:
    """Told to, it refuses every hold as a full disk would, and takes settlements all the same."""

    async def test() -> None:
        journal = MemoryJournal()
        await journal.hold(held(1))
        journal.fail_holds = True
        with pytest.raises(StorageUnavailable):
            await journal.hold(held(2))
        journal.settle(settled(1))
        assert journal.open_holds == []
        journal.fail_holds = False
        await journal.hold(held(2))
        assert journal.open_holds == [held(2)]

    asyncio.run(test())
