"""The past in the store: what its SQL adds up is what the entries say, one by one."""

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
from msgspec import structs

from contract.ledger_records import BEGAN_NS, HOSTED, PRIVATE, closed, held, opened, released, settled
from places import Kept, Places
from tiergate.core import Caller, CannotStart, EndState, StoreOwned, Usage, UsageSource
from tiergate.ledger import Entry, HoldState, Journal, Looked
from tiergate.reports import Span, latency, spend
from tiergate.store import LEDGER_FILE, LedgerPast, back_up, damage, look_at, restore
from tiergate.store.owner import OwnerLock

ALL = Span(start_ns=BEGAN_NS - 10**9, end_ns=BEGAN_NS + 10**15)


def with_journal(kept: Kept, test: Callable[[Journal], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20), kept.journal(randomness=os.urandom) as books:
            await test(books)

    asyncio.run(bounded())


ATTEMPT = st.fixed_dictionaries(
    {
        "target": st.sampled_from([HOSTED, PRIVATE]),
        "how": st.sampled_from(["settled", "released", "open"]),
        "cash": st.none() | st.integers(0, 10**9),
        "tokens": st.integers(0, 10**6),
        "source": st.sampled_from([UsageSource.REPORTED, UsageSource.BOUNDED]),
    }
)
CALL = st.fixed_dictionaries(
    {
        "key": st.sampled_from(["alice", "bob"]),
        "team": st.none() | st.just("blue"),
        "tag": st.none() | st.just("nightly"),
        "end": st.sampled_from([EndState.SUCCESS, EndState.FAILED, None]),
        "attempts": st.lists(ATTEMPT, max_size=3),
    }
)


async def play(books: Journal, calls: list[dict[str, Any]]) -> None:
    for number, call in enumerate(calls, start=1):
        caller = Caller(key=call["key"], team=call["team"])
        begun = opened(number, caller=caller, tag=call["tag"])
        for n, attempt in enumerate(call["attempts"], start=1):
            await books.hold(held(number, n, opened=begun, target=attempt["target"]))
            if attempt["how"] == "settled":
                usage = Usage(input=attempt["tokens"], cache_read=7, output=3)
                books.settle(
                    settled(
                        number, n, usage=usage, usage_source=attempt["source"], cash_nanos=attempt["cash"]
                    )
                )
            elif attempt["how"] == "released":
                books.settle(released(number, n))
        if call["end"] is not None:
            end = {
                "first_event_ns": BEGAN_NS + number * 10**6 + 10**6,
                "last_event_ns": BEGAN_NS + number * 10**6 + 10**7,
            }
            books.close(closed(number, opened=begun, end=call["end"], attempts=len(call["attempts"]), **end))
    await books.flush()


def cost(entry: Entry) -> int:
    return sum(
        (attempt.bound_nanos or 0) if attempt.state is HoldState.LAPSED else (attempt.cash_nanos or 0)
        for attempt in entry.attempts
    )


def bounded(entry: Entry) -> int:
    return sum(
        attempt.cash_nanos or 0
        for attempt in entry.attempts
        if attempt.state is HoldState.SETTLED and attempt.usage_source is UsageSource.BOUNDED
    )


def test_marked_calls_come_as_they_came(places: Places) -> None:
    """With the hash of their question; whether their answer would be kept is told by its end."""
    reasons = ["dry-run", "dry-run-always", "dry-run", None]

    async def test(books: Journal) -> None:
        for number, reason in enumerate(reasons, start=1):
            looked = Looked(outcome="bypass", reason=reason, request_hash=bytes([number]) * 16)
            begun = structs.replace(opened(number), looked=looked)
            await books.hold(held(number, opened=begun))
            books.settle(settled(number))
            finish = ("stop", "stop") if number == 1 else ("length",)
            times = {"first_event_ns": BEGAN_NS + 10**9, "last_event_ns": BEGAN_NS + 2 * 10**9}
            books.close(closed(number, opened=begun, finish_reasons=finish, **times))
        await books.flush()

    kept = places.new()
    with_journal(kept, test)
    found = list(kept.past().marked(ALL))
    assert [one.reason for one in found] == ["dry-run", "dry-run-always", "dry-run"]
    assert [one.is_kept for one in found] == [True, False, False]
    assert [one.request_hash for one in found] == [bytes([number]) * 16 for number in (1, 2, 3)]
    usage = settled(1).usage
    assert (found[0].input_tokens, found[0].output_tokens) == (usage.input_tokens, usage.output_tokens)
    assert (found[0].cash_nanos, found[0].ended_ns) == (settled(1).cash_nanos, BEGAN_NS + 2 * 10**9)
    assert found[0].about["target"] == HOSTED.name


def test_beginnings_come_as_they_came(places: Places) -> None:
    """Of calls that have them, with what their last attempt used."""
    hashes = [b"abcdef\x00\x01" * 8, None, b"ghijkl\x00\x02"]

    async def test(books: Journal) -> None:
        for number, found in enumerate(hashes, start=1):
            begun = structs.replace(opened(number), looked=Looked(outcome="bypass", prefixes=found))
            await books.hold(held(number, opened=begun))
            books.settle(settled(number))
            books.close(closed(number, opened=begun))
        await books.flush()

    kept = places.new()
    with_journal(kept, test)
    first, second = kept.past().prefixed(ALL)
    assert [(one.hash, one.bytes) for one in first.prefixes] == [(b"abcdef", 64)] * 8
    assert [(one.hash, one.bytes) for one in second.prefixes] == [(b"ghijkl", 128)]
    usage = settled(1).usage
    assert (first.input_tokens, first.read_tokens) == (usage.input_tokens, usage.cache_read)
    assert first.received_ns < second.received_ns


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=st.lists(CALL, min_size=1, max_size=8), crashed=st.booleans())
def test_sums_of_the_store_are_the_sums_of_the_entries(
    places: Places, calls: list[dict[str, Any]], *, crashed: bool
) -> None:
    """By key and in all: calls, tokens, money; lapsed holds at their worst case, after a crash too."""
    with places.once() as kept:
        check_sums(kept, calls, crashed=crashed)


def check_sums(kept: Kept, calls: list[dict[str, Any]], *, crashed: bool) -> None:
    entries: list[Entry] = []

    async def test(books: Journal) -> None:
        if not entries:
            await play(books, calls)
        entries[:] = await books.entries(limit=1000)

    with_journal(kept, test)
    if crashed:
        with_journal(kept, test)  # the next owner finds what was left open, and lapses it
    past = kept.past()
    for by in ((), ("key",), ("key", "team", "tag", "tier", "day")):
        rows = spend(past, ALL, by)
        assert sum(row.calls for row in rows) == len(entries)
        assert sum(row.succeeded for row in rows) == sum(entry.end is EndState.SUCCESS for entry in entries)
        assert sum(row.attempts for row in rows) == sum(len(entry.attempts) for entry in entries)
        assert sum(row.cash_nanos for row in rows) == sum(map(cost, entries))
        assert sum(row.bounded_nanos for row in rows) == sum(map(bounded, entries))
        tokens = sum(attempt.usage.input_tokens for entry in entries for attempt in entry.attempts)
        assert sum(row.input_tokens for row in rows) == tokens
        unpriced = [
            attempt
            for entry in entries
            for attempt in entry.attempts
            if attempt.cash_nanos is None and attempt.state is HoldState.SETTLED
        ]
        assert sum(row.unpriced for row in rows) == len(unpriced)
    keys = {row.group["key"]: row for row in spend(past, ALL, ("key",))}
    for key, row in keys.items():
        assert row.cash_nanos == sum(cost(entry) for entry in entries if entry.key == key)
        assert row.calls == sum(entry.key == key for entry in entries)


def test_a_call_counts_at_its_last_target_and_each_attempt_at_its_own(places: Places) -> None:
    """A failed attempt that is billed is the failing target's money."""
    kept = places.new()

    async def test(books: Journal) -> None:
        await books.hold(held(1, 1, target=HOSTED))
        books.settle(settled(1, 1, cash_nanos=5, usage_source=UsageSource.BOUNDED))
        await books.hold(held(1, 2, target=PRIVATE))
        books.settle(settled(1, 2, cash_nanos=0))
        books.close(closed(1, attempts=2))
        await books.flush()
        rows = {row.group["target"]: row for row in spend(kept.past(), ALL, ("target",))}
        assert (rows[HOSTED.name].calls, rows[HOSTED.name].attempts, rows[HOSTED.name].cash_nanos) == (
            0,
            1,
            5,
        )
        assert (rows[PRIVATE.name].calls, rows[PRIVATE.name].attempts, rows[PRIVATE.name].cash_nanos) == (
            1,
            1,
            0,
        )

    with_journal(kept, test)


def test_attempts_that_tell_of_savings(places: Places) -> None:
    """Settled ones of hosted targets; of private targets those that answered, none that failed."""
    kept = places.new()

    async def test(books: Journal) -> None:
        await books.hold(held(1, 1, target=PRIVATE))
        books.settle(settled(1, 1, cash_nanos=0, usage=Usage(output=999)))
        await books.hold(held(1, 2, target=HOSTED))
        books.settle(settled(1, 2, usage=Usage(input=1, cache_read=2, cache_write_5m=3, output=4)))
        books.close(closed(1, attempts=2))
        await books.hold(held(2, 1, target=HOSTED))
        books.settle(released(2, 1))
        await books.hold(held(2, 2, target=PRIVATE))
        books.settle(settled(2, 2, cash_nanos=0, usage=Usage(input=5, reasoning=6), service_tier=None))
        books.close(closed(2, attempts=2))
        await books.hold(held(3, 1, target=PRIVATE))
        books.settle(settled(3, 1, cash_nanos=0, usage=Usage(output=999)))
        books.close(closed(3, end=EndState.CLIENT_CLOSED))
        await books.hold(held(4, 1, target=HOSTED))
        await books.flush()
        hosted, private = kept.past().used(ALL)
        assert (hosted.target, hosted.service_tier, hosted.sent_ns) == (HOSTED, "default", BEGAN_NS + 3)
        assert hosted.usage == Usage(input=1, cache_read=2, cache_write_5m=3, output=4)
        assert (private.target, private.service_tier) == (PRIVATE, None)
        assert (private.usage, private.source) == (Usage(input=5, reasoning=6), UsageSource.REPORTED)

    with_journal(kept, test)


def test_a_span_takes_the_calls_that_were_received_in_it(places: Places) -> None:
    """From its beginning on, its end not included; also while the ledger is written."""
    kept = places.new()

    async def test(books: Journal) -> None:
        for number in range(1, 6):
            await books.hold(held(number))
            books.settle(settled(number))
            end_ns = BEGAN_NS + number * 10**6 + 5 * 10**6
            books.close(closed(number, first_event_ns=end_ns - 10**6, last_event_ns=end_ns))
        await books.flush()
        past = kept.past()
        span = Span(start_ns=BEGAN_NS + 2 * 10**6, end_ns=BEGAN_NS + 4 * 10**6)
        assert [row.calls for row in spend(past, span, ())] == [2]
        (row,) = latency(past, span, ("model",))
        assert (row.calls, row.streamed) == (2, 2)
        assert abs(row.total[50] - 5) < 0.05 and abs(row.first_event[50] - 4) < 0.04

    with_journal(kept, test)


def test_a_backup_is_done_while_somebody_writes(tmp_path: Path) -> None:
    """Every commit of the writer would begin it anew, if it did not look at one moment."""
    source = tmp_path / "data"
    source.mkdir()
    with closing(sqlite3.connect(source / LEDGER_FILE, isolation_level=None)) as writing:
        writing.execute("PRAGMA journal_mode=WAL")
        writing.execute("CREATE TABLE owner (filler BLOB) STRICT")
        writing.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)"
            " INSERT INTO owner SELECT randomblob(4000) FROM n"
        )
        steps = []

        def write(name: str, done: int, total: int) -> None:
            steps.append(done)
            assert len(steps) < 20, "the copy began anew"
            writing.execute("INSERT INTO owner VALUES (randomblob(10))")

        (copy,) = back_up(source, tmp_path / "copy", progress=write)
    assert len(steps) > 1
    with closing(sqlite3.connect(copy)) as copied:
        assert copied.execute("SELECT count(*) FROM owner").fetchone() == (3000,)


def test_a_restored_backup_is_not_mixed_with_what_was_there(tmp_path: Path, sqlite_places: Places) -> None:
    """A log that a dead owner left beside its ledger moves away with it."""

    async def calls(books: Journal) -> None:
        await play(books, [{"key": "a", "team": None, "tag": None, "end": EndState.SUCCESS, "attempts": []}])

    kept = sqlite_places.new()
    with_journal(kept, calls)
    kept.folder.rename(tmp_path / "data")
    back_up(tmp_path / "data", tmp_path / "copy", progress=lambda *_: None)
    left = tmp_path / "data" / f"{LEDGER_FILE}-wal"
    left.write_bytes(b"of another life")
    kept = restore(tmp_path / "copy", tmp_path / "data")
    assert kept is not None and (kept / left.name).read_bytes() == b"of another life"
    assert not left.exists() and damage(tmp_path / "data") is None
    assert sum(row.calls for row in spend(LedgerPast(look_at(tmp_path / "data" / LEDGER_FILE)), ALL, ())) == 1
    (tmp_path / "data" / LEDGER_FILE).write_bytes(b"noise" * 5000)
    assert "cannot be read" in str(damage(tmp_path / "data"))
    with OwnerLock.acquire(tmp_path / "data"), pytest.raises(StoreOwned):
        restore(tmp_path / "copy", tmp_path / "data")
    with pytest.raises(CannotStart, match="no ledger"):
        restore(tmp_path / "nothing", tmp_path / "data")
