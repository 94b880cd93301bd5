"""Sums that outlive their calls: whatever is added up, forgotten or comes late, reports say the same."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.ledger_records import BEGAN_NS, HOSTED, PRIVATE, closed, held, opened, released, settled
from places import Kept, Places
from tiergate.core import Caller, ReceiptUse, StorageUnavailable, Usage, UsageSource
from tiergate.ledger import Shared
from tiergate.reports import Span, Spend, latency, spend
from tiergate.reports.ports import SLOT_NS
from tiergate.store import LedgerJournal

SLOT = SLOT_NS // 1_000_000
"""Numbers of calls are milliseconds (`ledger_records`)."""
FOREVER_NS = BEGAN_NS + 100 * SLOT_NS
ALL = Span(start_ns=BEGAN_NS - SLOT_NS, end_ns=FOREVER_NS)


def with_journal(kept: Kept, test: Callable[[LedgerJournal], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30), kept.journal(randomness=os.urandom) as books:
            await test(books)

    asyncio.run(bounded())


async def make(books: LedgerJournal, number: int, call: dict[str, Any]) -> None:
    """Write a call with its attempts; one that is open has its last attempt held."""
    begun = opened(number, caller=Caller(key=call["key"]))
    for n, how in enumerate(call["attempts"], start=1):
        await books.hold(held(number, n, opened=begun, target=call["target"]))
        if how == "released":
            books.settle(released(number, n))
        elif how != "held":
            source = UsageSource.BOUNDED if how == "bounded" else UsageSource.REPORTED
            cash = None if how == "unpriced" else number % 1000 + n
            usage = Usage(input=number % 77, cache_read=3, output=5, reasoning=n)
            books.settle(settled(number, n, usage=usage, usage_source=source, cash_nanos=cash))
    if "held" not in call["attempts"]:
        books.close(closed(number, opened=begun, attempts=len(call["attempts"])))


async def add_up(books: LedgerJournal, closed_before_ns: int = FOREVER_NS) -> int:
    count = 0
    while await books.add_up(closed_before_ns=closed_before_ns):
        count += 1
    return count


def seen(kept: Kept, span: Span, by: tuple[str, ...]) -> list[Spend]:
    return spend(kept.past(), span, by)


CALL = st.fixed_dictionaries(
    {
        "slot": st.integers(0, 4),
        "key": st.sampled_from(["alice", "bob"]),
        "target": st.sampled_from([HOSTED, PRIVATE]),
        "attempts": st.lists(
            st.sampled_from(["reported", "bounded", "unpriced", "released"]), max_size=3
        ).flatmap(lambda done: st.just(done) | st.just([*done, "held"])),
        "added_up_first": st.booleans(),
    }
)
EDGE = st.integers(-SLOT, 6 * SLOT)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=st.lists(CALL, min_size=1, max_size=10), edges=st.tuples(EDGE, EDGE), crash=st.booleans())
def test_reports_say_the_same_whatever_is_added_up(
    places: Places, calls: list[dict[str, Any]], edges: tuple[int, int], *, crash: bool
) -> None:
    """Calls come in any order, also into added up slots; some stay open, and lapse after a crash."""
    start, end = sorted(edges)
    spans = [ALL, Span(start_ns=BEGAN_NS + start * 10**6, end_ns=BEGAN_NS + end * 10**6 + 1)]
    with places.once() as kept:
        check_reports(kept, calls, spans, crash=crash)


def check_reports(kept: Kept, calls: list[dict[str, Any]], spans: list[Span], *, crash: bool) -> None:
    def check() -> None:
        past = kept.past()
        with kept.uncounted() as from_calls:
            for span in spans:
                for by in ((), ("key", "tier"), ("day", "target"), ("class", "model", "team", "tag")):
                    assert spend(past, span, by) == spend(from_calls, span, by)

    async def test(books: LedgerJournal) -> None:
        for place, call in enumerate(calls):
            if call["added_up_first"]:
                await add_up(books)
            await make(books, call["slot"] * SLOT + place, call)
        await books.flush()
        check()
        await add_up(books)
        check()

    with_journal(kept, test)
    if crash:

        async def after(books: LedgerJournal) -> None:
            check()
            await add_up(books)
            check()

        with_journal(kept, after)


GOOD = {"key": "alice", "target": HOSTED, "attempts": ["reported"]}


def test_a_slot_waits_for_its_open_calls_and_for_its_end(places: Places) -> None:
    """Nothing is added up that is not over; slots without calls cost nothing."""
    kept = places.new()

    async def test(books: LedgerJournal) -> None:
        await make(books, 1, GOOD)
        assert await add_up(books, BEGAN_NS + SLOT_NS - 1) == 0
        await make(books, 50 * SLOT, {**GOOD, "attempts": ["held"]})
        await make(books, 50 * SLOT + 1, GOOD)
        await books.flush()
        assert await add_up(books) == 1
        books.settle(settled(50 * SLOT))
        books.close(closed(50 * SLOT))
        await books.flush()
        assert await add_up(books) == 1
        assert (kept.count("rollup"), kept.count("stale_slot")) == (2, 0)

    with_journal(kept, test)


def test_a_record_that_comes_while_a_slot_is_added_up_is_not_lost(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sums that miss it are not put in place."""
    from tiergate.store import journal, rollups

    kept = places.new()

    async def test(books: LedgerJournal) -> None:
        await make(books, 1, GOOD)
        await books.flush()
        loop = asyncio.get_running_loop()

        def slowly(ledger: Any, slot_ns: int) -> Any:
            rows = rollups.sum_slot(ledger, slot_ns)
            asyncio.run_coroutine_threadsafe(make(books, 2, GOOD), loop).result(5)
            asyncio.run_coroutine_threadsafe(books.flush(), loop).result(5)
            return rows

        with monkeypatch.context() as patched:
            patched.setattr(journal, "sum_slot", slowly)
            assert not await books.add_up(closed_before_ns=FOREVER_NS)
        assert (kept.count("rollup"), kept.count("stale_slot")) == (0, 1)
        assert [row.calls for row in seen(kept, ALL, ())] == [2]
        assert await add_up(books) == 1
        assert [row.calls for row in seen(kept, ALL, ())] == [2]
        assert (kept.count("rollup"), kept.count("stale_slot")) == (1, 0)

    with_journal(kept, test)


_FORBID = {
    "sqlite": (
        "CREATE TRIGGER no BEFORE INSERT ON stale_slot BEGIN SELECT RAISE(ABORT, 'no'); END",
        "DROP TRIGGER no",
    ),
    "postgres": (
        "ALTER TABLE stale_slot ADD CONSTRAINT no CHECK (slot_ns < 0)",
        "ALTER TABLE stale_slot DROP CONSTRAINT no",
    ),
}


def test_a_step_that_fails_moves_nothing(places: Places) -> None:
    """The slot is found again, and what is remembered is what the disk holds."""
    kept = places.new()

    async def test(books: LedgerJournal) -> None:
        await make(books, 1, GOOD)
        await make(books, 3 * SLOT, GOOD)
        await books.flush()
        forbid, allow = _FORBID[kept.kind]
        kept.rows(forbid)
        with pytest.raises(StorageUnavailable, match="cannot be changed now"):
            await books.add_up(closed_before_ns=FOREVER_NS)
        kept.rows(allow)
        assert await add_up(books) == 2
        assert [row.calls for row in seen(kept, ALL, ())] == [2]

    with_journal(kept, test)


async def forget(books: LedgerJournal, before_ns: int, rollups_before_ns: int = 0) -> None:
    while await books.forget(calls_before_ns=before_ns, rollups_before_ns=rollups_before_ns):
        pass


def test_calls_are_forgotten_and_their_sums_are_not(places: Places) -> None:
    """Also what lapsed stays charged. Only what is added up goes, and what is younger stays."""
    kept = places.new()

    async def test(books: LedgerJournal) -> None:
        for number in (1, SLOT, 5 * SLOT):
            await make(books, number, {**GOOD, "attempts": ["reported", "released", "bounded"]})
        await make(books, 2, {**GOOD, "attempts": ["held"]})
        await books.flush()
        await forget(books, FOREVER_NS)
        assert kept.count("call") == 4

    async def after(books: LedgerJournal) -> None:
        await add_up(books)
        before = seen(kept, ALL, ("day", "key", "target"))
        assert before[0].lapsed_nanos == 5_000_000
        await forget(books, BEGAN_NS + 2 * SLOT_NS + 5)
        assert (kept.count("call"), kept.count("attempt")) == (1, 3)
        assert seen(kept, ALL, ("day", "key", "target")) == before
        past = kept.past()
        assert past.calls_from_ns() == BEGAN_NS + 2 * SLOT_NS
        assert [row.calls for row in latency(past, ALL, ())] == [1]
        # Whole slots only, those that begin in the span: adjacent spans take each call once.
        middle_ns = BEGAN_NS + SLOT_NS // 2
        halves = [
            Span(start_ns=ALL.start_ns, end_ns=middle_ns),
            Span(start_ns=middle_ns, end_ns=BEGAN_NS + SLOT_NS),
            Span(start_ns=BEGAN_NS + SLOT_NS, end_ns=ALL.end_ns),
        ]
        assert sum(row.calls for half in halves for row in seen(kept, half, ())) == 4
        await forget(books, 0, rollups_before_ns=BEGAN_NS + SLOT_NS)
        assert [row.calls for row in seen(kept, ALL, ())] == [2]

    with_journal(kept, test)
    with_journal(kept, after)


def test_what_was_avoided_outlives_its_calls(places: Places) -> None:
    """An answer that was given again has no attempt, and its call is forgotten like any other."""
    kept = places.new()

    async def test(books: LedgerJournal) -> None:
        for number in (1, 2, 3):
            begun = opened(number, caller=Caller(key="alice"))
            saved = Shared(
                use=ReceiptUse.REPLAYED, of="01other", usage=Usage(input=10, output=2), cash_nanos=7
            )
            books.close(closed(number, opened=begun, attempts=0, shared=saved if number < 3 else None))
        await make(books, 4, GOOD)
        await books.flush()
        before = seen(kept, ALL, ("day", "key", "target"))
        avoided = [(row.avoided_input, row.avoided_output, row.avoided_nanos) for row in before]
        assert avoided == [(0, 0, 0), (20, 4, 14)]
        await add_up(books)
        assert seen(kept, ALL, ("day", "key", "target")) == before
        await forget(books, FOREVER_NS)
        assert kept.count("call") == 0
        assert seen(kept, ALL, ("day", "key", "target")) == before

    with_journal(kept, test)


def test_a_settlement_that_a_crash_lost_lapses_in_the_sums_too(places: Places) -> None:
    """The call had ended, so that its quarter of an hour was added up."""
    kept = places.new()

    async def test(books: LedgerJournal) -> None:
        begun = opened(1, caller=Caller(key="alice"))
        await books.hold(held(1, opened=begun, target=HOSTED))
        books.close(closed(1, opened=begun))
        await books.flush()
        assert await add_up(books) > 0

    async def after(books: LedgerJournal) -> None:
        (row,) = seen(kept, ALL, ("key",))
        assert row.lapsed_nanos == 5_000_000
        await add_up(books)
        assert seen(kept, ALL, ("key",)) == [row]

    with_journal(kept, test)
    with_journal(kept, after)


def test_what_is_forgotten_cannot_be_corrected(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while its record has not been deleted: the sums would not know of it."""
    monkeypatch.setattr("tiergate.store.rollups.FORGOTTEN_AT_ONCE", 1)
    kept = places.new()

    async def test(books: LedgerJournal) -> None:
        for number in (1, 2):
            await make(books, number, {**GOOD, "attempts": ["reported"]})
        await books.flush()
        await add_up(books)
        newest = opened(2).call.id
        assert await books.adjust(newest, 1, 5, "seen on the invoice")
        await add_up(books)
        await books.forget(calls_before_ns=BEGAN_NS + SLOT_NS, rollups_before_ns=0)
        assert kept.count("attempt") == 1
        assert not await books.adjust(newest, 1, 5, "seen on the invoice")
        assert not await books.resolve(newest, 1, 5)

    with_journal(kept, test)


def test_forgetting_goes_in_small_steps(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls wait for each of them."""
    monkeypatch.setattr("tiergate.store.rollups.FORGOTTEN_AT_ONCE", 2)
    kept = places.new()

    async def test(books: LedgerJournal) -> None:
        for number in range(1, 6):
            await make(books, number, GOOD)
        await books.flush()
        await add_up(books)
        left = []
        while await books.forget(calls_before_ns=FOREVER_NS, rollups_before_ns=0):
            left.append((kept.count("attempt"), kept.count("call")))
            assert [row.calls for row in seen(kept, ALL, ())] == [5]
        assert left == [(3, 5), (1, 5), (0, 5), (0, 3), (0, 1), (0, 0)]

    with_journal(kept, test)
