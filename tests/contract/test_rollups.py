"""Sums that outlive their calls: whatever is added up, forgotten or comes late, reports say the same."""

import asyncio
import os
import sqlite3
from collections.abc import Callable, Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.ledger_records import BEGAN_NS, HOSTED, PRIVATE, closed, held, opened, released, settled
from tiergate.core import Caller, StorageUnavailable, Usage, UsageSource
from tiergate.reports import Span, Spend, latency, spend
from tiergate.reports.ports import SLOT_NS
from tiergate.store import LEDGER_FILE, LedgerJournal, LedgerPast, back_up, look_at, open_journal
from tiergate.testing import FakeClock

SLOT = SLOT_NS // 1_000_000
"""Numbers of calls are milliseconds (`ledger_records`)."""
FOREVER_NS = BEGAN_NS + 100 * SLOT_NS
ALL = Span(start_ns=BEGAN_NS - SLOT_NS, end_ns=FOREVER_NS)


def with_journal(folder: Path, test: Callable[[LedgerJournal], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            opening = open_journal(folder, clock=FakeClock(), randomness=os.urandom, emit=lambda _: None)
            async with opening as books:
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


def seen(folder: Path, span: Span, by: tuple[str, ...]) -> list[Spend]:
    return spend(LedgerPast(look_at(folder / LEDGER_FILE)), span, by)


def from_calls(folder: Path, copies: Path, span: Span, by: tuple[str, ...]) -> list[Spend]:
    """The same report, of a copy that has nothing added up."""
    (copy,) = back_up(folder, copies / os.urandom(8).hex(), progress=lambda *_: None)
    with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
        connection.execute("UPDATE rolled SET before_ns = 0, calls_from_ns = 0")
        connection.execute("DELETE FROM stale_slot")
        connection.execute("DELETE FROM rollup")
    return spend(LedgerPast(look_at(copy)), span, by)


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


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=st.lists(CALL, min_size=1, max_size=10), edges=st.tuples(EDGE, EDGE), crash=st.booleans())
def test_reports_say_the_same_whatever_is_added_up(
    tmp_path_factory: Any, calls: list[dict[str, Any]], edges: tuple[int, int], *, crash: bool
) -> None:
    """Calls come in any order, also into added up slots; some stay open, and lapse after a crash."""
    folder, copies = tmp_path_factory.mktemp("rolled"), tmp_path_factory.mktemp("copies")
    start, end = sorted(edges)
    spans = [ALL, Span(start_ns=BEGAN_NS + start * 10**6, end_ns=BEGAN_NS + end * 10**6 + 1)]

    def check() -> None:
        for span in spans:
            for by in ((), ("key", "tier"), ("day", "target"), ("class", "model", "team", "tag")):
                assert seen(folder, span, by) == from_calls(folder, copies, span, by)

    async def test(books: LedgerJournal) -> None:
        for place, call in enumerate(calls):
            if call["added_up_first"]:
                await add_up(books)
            await make(books, call["slot"] * SLOT + place, call)
        await books.flush()
        check()
        await add_up(books)
        check()

    with_journal(folder, test)
    if crash:

        async def after(books: LedgerJournal) -> None:
            check()
            await add_up(books)
            check()

        with_journal(folder, after)


GOOD = {"key": "alice", "target": HOSTED, "attempts": ["reported"]}


def count(folder: Path, table: str) -> int:
    with closing(sqlite3.connect(folder / LEDGER_FILE)) as connection:
        found: int = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        return found


def test_a_slot_waits_for_its_open_calls_and_for_its_end(tmp_path: Path) -> None:
    """Nothing is added up that is not over; slots without calls cost nothing."""

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
        assert (count(tmp_path, "rollup"), count(tmp_path, "stale_slot")) == (2, 0)

    with_journal(tmp_path, test)


def test_a_record_that_comes_while_a_slot_is_added_up_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sums that miss it are not put in place."""
    from tiergate.store import journal, rollups

    async def test(books: LedgerJournal) -> None:
        await make(books, 1, GOOD)
        await books.flush()
        loop = asyncio.get_running_loop()

        def slowly(ledger: Path, slot_ns: int) -> Any:
            rows = rollups.sum_slot(ledger, slot_ns)
            asyncio.run_coroutine_threadsafe(make(books, 2, GOOD), loop).result(5)
            asyncio.run_coroutine_threadsafe(books.flush(), loop).result(5)
            return rows

        with monkeypatch.context() as patched:
            patched.setattr(journal, "sum_slot", slowly)
            assert not await books.add_up(closed_before_ns=FOREVER_NS)
        assert (count(tmp_path, "rollup"), count(tmp_path, "stale_slot")) == (0, 1)
        assert [row.calls for row in seen(tmp_path, ALL, ())] == [2]
        assert await add_up(books) == 1
        assert [row.calls for row in seen(tmp_path, ALL, ())] == [2]
        assert (count(tmp_path, "rollup"), count(tmp_path, "stale_slot")) == (1, 0)

    with_journal(tmp_path, test)


def test_a_step_that_fails_moves_nothing(tmp_path: Path) -> None:
    """The slot is found again, and what is remembered is what the disk holds."""

    async def test(books: LedgerJournal) -> None:
        await make(books, 1, GOOD)
        await make(books, 3 * SLOT, GOOD)
        await books.flush()
        with closing(sqlite3.connect(tmp_path / LEDGER_FILE, isolation_level=None)) as other:
            other.execute(
                "CREATE TRIGGER no BEFORE INSERT ON stale_slot BEGIN SELECT RAISE(ABORT, 'no'); END"
            )
            with pytest.raises(StorageUnavailable, match="cannot be changed now"):
                await books.add_up(closed_before_ns=FOREVER_NS)
            other.execute("DROP TRIGGER no")
        assert await add_up(books) == 2
        assert [row.calls for row in seen(tmp_path, ALL, ())] == [2]

    with_journal(tmp_path, test)


async def forget(books: LedgerJournal, before_ns: int, rollups_before_ns: int = 0) -> None:
    while await books.forget(calls_before_ns=before_ns, rollups_before_ns=rollups_before_ns):
        pass


def test_calls_are_forgotten_and_their_sums_are_not(tmp_path: Path) -> None:
    """Also what lapsed stays charged. Only what is added up goes, and what is younger stays."""

    async def test(books: LedgerJournal) -> None:
        for number in (1, SLOT, 5 * SLOT):
            await make(books, number, {**GOOD, "attempts": ["reported", "released", "bounded"]})
        await make(books, 2, {**GOOD, "attempts": ["held"]})
        await books.flush()
        await forget(books, FOREVER_NS)
        assert count(tmp_path, "call") == 4

    async def after(books: LedgerJournal) -> None:
        await add_up(books)
        before = seen(tmp_path, ALL, ("day", "key", "target"))
        assert before[0].lapsed_nanos == 5_000_000
        await forget(books, BEGAN_NS + 2 * SLOT_NS + 5)
        assert (count(tmp_path, "call"), count(tmp_path, "attempt")) == (1, 3)
        assert seen(tmp_path, ALL, ("day", "key", "target")) == before
        past = LedgerPast(look_at(tmp_path / LEDGER_FILE))
        assert past.calls_from_ns() == BEGAN_NS + 2 * SLOT_NS
        assert [row.calls for row in latency(past, ALL, ())] == [1]
        # Whole slots only, those that begin in the span: adjacent spans take each call once.
        middle_ns = BEGAN_NS + SLOT_NS // 2
        halves = [
            Span(start_ns=ALL.start_ns, end_ns=middle_ns),
            Span(start_ns=middle_ns, end_ns=BEGAN_NS + SLOT_NS),
            Span(start_ns=BEGAN_NS + SLOT_NS, end_ns=ALL.end_ns),
        ]
        assert sum(row.calls for half in halves for row in seen(tmp_path, half, ())) == 4
        await forget(books, 0, rollups_before_ns=BEGAN_NS + SLOT_NS)
        assert [row.calls for row in seen(tmp_path, ALL, ())] == [2]

    with_journal(tmp_path, test)
    with_journal(tmp_path, after)


def test_what_was_avoided_outlives_its_calls(tmp_path: Path) -> None:
    """An answer that was given again has no attempt, and its call is forgotten like any other."""

    async def test(books: LedgerJournal) -> None:
        for number in (1, 2, 3):
            begun = opened(number, caller=Caller(key="alice"))
            books.close(closed(number, opened=begun, attempts=0))
        await make(books, 4, GOOD)
        await books.flush()
        with closing(sqlite3.connect(tmp_path / LEDGER_FILE, isolation_level=None)) as other:
            other.execute(
                "UPDATE call SET avoided_input = 10, avoided_output = 2, avoided_nanos = 7 WHERE id <= ?",
                (opened(2).call.id,),
            )
        before = seen(tmp_path, ALL, ("day", "key", "target"))
        avoided = [(row.avoided_input, row.avoided_output, row.avoided_nanos) for row in before]
        assert avoided == [(0, 0, 0), (20, 4, 14)]
        await add_up(books)
        assert seen(tmp_path, ALL, ("day", "key", "target")) == before
        await forget(books, FOREVER_NS)
        assert count(tmp_path, "call") == 0
        assert seen(tmp_path, ALL, ("day", "key", "target")) == before

    with_journal(tmp_path, test)


def test_a_settlement_that_a_crash_lost_lapses_in_the_sums_too(tmp_path: Path) -> None:
    """The call had ended, so that its quarter of an hour was added up."""

    async def test(books: LedgerJournal) -> None:
        begun = opened(1, caller=Caller(key="alice"))
        await books.hold(held(1, opened=begun, target=HOSTED))
        books.close(closed(1, opened=begun))
        await books.flush()
        assert await add_up(books) > 0

    async def after(books: LedgerJournal) -> None:
        (row,) = seen(tmp_path, ALL, ("key",))
        assert row.lapsed_nanos == 5_000_000
        await add_up(books)
        assert seen(tmp_path, ALL, ("key",)) == [row]

    with_journal(tmp_path, test)
    with_journal(tmp_path, after)


def test_what_is_forgotten_cannot_be_corrected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while its record has not been deleted: the sums would not know of it."""
    monkeypatch.setattr("tiergate.store.rollups.FORGOTTEN_AT_ONCE", 1)

    async def test(books: LedgerJournal) -> None:
        for number in (1, 2):
            await make(books, number, {**GOOD, "attempts": ["reported"]})
        await books.flush()
        await add_up(books)
        newest = opened(2).call.id
        assert await books.adjust(newest, 1, 5, "seen on the invoice")
        await add_up(books)
        await books.forget(calls_before_ns=BEGAN_NS + SLOT_NS, rollups_before_ns=0)
        assert count(tmp_path, "attempt") == 1
        assert not await books.adjust(newest, 1, 5, "seen on the invoice")
        assert not await books.resolve(newest, 1, 5)

    with_journal(tmp_path, test)


def test_forgetting_goes_in_small_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls wait for each of them."""
    monkeypatch.setattr("tiergate.store.rollups.FORGOTTEN_AT_ONCE", 2)

    async def test(books: LedgerJournal) -> None:
        for number in range(1, 6):
            await make(books, number, GOOD)
        await books.flush()
        await add_up(books)
        left = []
        while await books.forget(calls_before_ns=FOREVER_NS, rollups_before_ns=0):
            left.append((count(tmp_path, "attempt"), count(tmp_path, "call")))
            assert [row.calls for row in seen(tmp_path, ALL, ())] == [5]
        assert left == [(3, 5), (1, 5), (0, 5), (0, 3), (0, 1), (0, 0)]

    with_journal(tmp_path, test)
