"""The ledger's file: epochs, what lapses, who may write, and room for what is written later."""

import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from contract.ledger_records import closed, held, settled
from tiergate.core import Blame, CannotStart, EndState, Outcome, StoreOwned, Usage, UsageSource
from tiergate.ledger import CallClosed, Entry, Held, HoldState, Settled
from tiergate.store.books import Batch, Books
from tiergate.store.reader import read_entries, read_entry
from tiergate.store.rows import call_row, close_row, hold_row, settle_row
from tiergate.store.sqlite import look_at, open_books
from tiergate.store.trouble import Unwritten


def write(books: Books, *records: Held | Settled | CallClosed) -> None:
    """Write records in one transaction."""
    epoch = books.owner.epoch
    batch = Batch()
    for record in records:
        match record:
            case Held():
                batch.calls.append(call_row(record.opened, epoch))
                batch.holds.append(hold_row(record, epoch))
            case Settled():
                batch.settlements.append(settle_row(record, epoch))
            case CallClosed():
                batch.ends.append(close_row(record, epoch))
    books.write(lambda: batch)


def states(path: Path) -> list[tuple[EndState | None, list[HoldState]]]:
    return [
        (entry.end, [attempt.state for attempt in entry.attempts])
        for entry in read_entries(look_at(path), after=None, limit=1_000)
    ]


def owners(path: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT epoch, state FROM owner ORDER BY epoch").fetchall()


def test_each_owner_has_a_larger_epoch(tmp_path: Path) -> None:
    """Epochs grow by one, whether the owner before left or died, and whatever the clock says."""
    path = tmp_path / "ledger.db"
    for number, now_ns in enumerate((900, 5, 700), start=1):
        books = open_books(path, owner_id=f"owner-{number}", now_ns=now_ns)
        assert books.owner.epoch == number
        if number == 1:
            books.leave(now_ns)
        books.close()

    assert owners(path) == [(1, "left"), (2, "dead"), (3, "alive")]


def test_what_a_dead_owner_held_lapses(tmp_path: Path) -> None:
    """Held attempts lapse, open calls end as lapsed, and nothing that had ended is touched."""
    path = tmp_path / "ledger.db"
    first = open_books(path, owner_id="first", now_ns=1)
    write(first, held(1), held(2), held(3), held(4), settled(1), settled(2), closed(1))
    write(first, held(2, 2))
    write(first, closed(4, end=EndState.CLIENT_CLOSED))
    first.close()

    second = open_books(path, owner_id="second", now_ns=1)
    assert (second.lapsed.holds, second.lapsed.calls) == (3, 2)
    assert states(path) == [
        (EndState.SUCCESS, [HoldState.SETTLED]),
        (EndState.LAPSED, [HoldState.SETTLED, HoldState.LAPSED]),
        (EndState.LAPSED, [HoldState.LAPSED]),
        (EndState.CLIENT_CLOSED, [HoldState.LAPSED]),
    ]
    second.close()

    third = open_books(path, owner_id="third", now_ns=1)
    assert (third.lapsed.holds, third.lapsed.calls) == (0, 0)
    third.close()


def test_a_lapsed_hold_keeps_its_bound(tmp_path: Path) -> None:
    """Nobody knows what it cost: no cost is made up, and the worst case stays to be charged."""
    path = tmp_path / "ledger.db"
    first = open_books(path, owner_id="first", now_ns=1)
    write(first, held(1, bound_nanos=777))
    first.close()
    open_books(path, owner_id="second", now_ns=1).close()

    entry = read_entry(look_at(path), held(1).call_id)
    assert entry is not None
    (attempt,) = entry.attempts
    assert (attempt.state, attempt.bound_nanos, attempt.cash_nanos) == (HoldState.LAPSED, 777, None)


def test_an_owner_that_was_declared_dead_writes_nothing(tmp_path: Path) -> None:
    """A stale epoch is refused: holds, settlements, ends, heartbeats and the farewell."""
    path = tmp_path / "ledger.db"
    stale = open_books(path, owner_id="stale", now_ns=1)
    write(stale, held(1))
    fresh = open_books(path, owner_id="fresh", now_ns=1)
    before = states(path)

    acts: list[Callable[[], None]] = [
        lambda: write(stale, held(2)),
        lambda: write(stale, settled(1)),
        lambda: write(stale, closed(1)),
        lambda: stale.heartbeat(2),
        lambda: stale.leave(2),
    ]
    for act in acts:
        with pytest.raises(StoreOwned, match="taken over"):
            act()
    assert states(path) == before
    assert owners(path) == [(1, "dead"), (2, "alive")]
    stale.close()
    fresh.close()


def test_a_batch_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """One bad record leaves nothing of its batch, and the next batch is not disturbed."""
    path = tmp_path / "ledger.db"
    books = open_books(path, owner_id="owner", now_ns=1)
    with pytest.raises(Unwritten, match="OverflowError"):
        write(books, held(1), held(2, bound_nanos=2**80))
    assert states(path) == []

    write(books, held(1))
    assert states(path) == [(None, [HoldState.HELD])]
    books.close()


LARGEST = Usage(
    input=2**63 - 1,
    cache_read=2**63 - 1,
    cache_write_5m=2**63 - 1,
    cache_write_1h=2**63 - 1,
    output=2**63 - 1,
    reasoning=2**63 - 1,
    audio_in=2**63 - 1,
    audio_out=2**63 - 1,
    images=2**63 - 1,
)


def largest_settlement(number: int) -> Settled:
    return settled(
        number,
        state=HoldState.RELEASED,
        outcome=Outcome.SUCCESS,
        blame=Blame.PROVIDER,
        error_code="e" * 100,
        status=2**63 - 1,
        sent_ns=2**63 - 1,
        first_ns=2**63 - 1,
        last_ns=2**63 - 1,
        usage=LARGEST,
        usage_source=UsageSource.ESTIMATED,
        cash_nanos=2**63 - 1,
        upstream_cost_nanos=2**63 - 1,
        replica="r" * 200,
        upstream_request_id="i" * 200,
        service_tier="s" * 200,
        gpu_ms=2**63 - 1,
    )


def longest_end(number: int) -> CallClosed:
    return closed(
        number,
        end=EndState.CLIENT_CLOSED,
        error_code="e" * 100,
        finish_reasons=("f" * 100,),
        first_event_ns=2**63 - 1,
        last_event_ns=2**63 - 1,
    )


def written_size(connection: sqlite3.Connection, table: str) -> int:
    """Give the bytes of a table's only row in the file, as SQLite's format of records has it."""
    values = connection.execute(f"SELECT * FROM {table}").fetchone()
    head = body = 0
    for value in values:
        match value:
            case None | 0 | 1:
                code, length = 0, 0
            case int():
                length = next(
                    n for n in (1, 2, 3, 4, 6, 8) if -(2 ** (8 * n - 1)) <= value < 2 ** (8 * n - 1)
                )
                code = 1
            case str():
                length = len(value.encode())
                code = 13 + 2 * length
            case _:
                length = len(value)
                code = 12 + 2 * length
        head += 1 if code < 128 else 2
        body += length
    return head + body


def test_no_row_outgrows_the_size_that_it_was_born_with(tmp_path: Path) -> None:
    """Neither lapsing, nor the largest settlement, nor the longest end needs a byte more."""
    path = tmp_path / "ledger.db"
    first = open_books(path, owner_id="first", now_ns=1)
    write(first, held(1))
    call, attempt = (written_size(first.session.connection, table) for table in ("call", "attempt"))
    first.close()

    second = open_books(path, owner_id="second", now_ns=1)
    assert written_size(second.session.connection, "attempt") <= attempt
    assert written_size(second.session.connection, "call") <= call
    second.session.connection.execute("UPDATE attempt SET hold_state = 'held', owner_epoch = 2")
    second.session.connection.execute("UPDATE call SET end_state = NULL, owner_epoch = 2")
    write(second, largest_settlement(1), longest_end(1))
    assert written_size(second.session.connection, "attempt") <= attempt
    assert written_size(second.session.connection, "call") <= call
    assert states(path) == [(EndState.CLIENT_CLOSED, [HoldState.RELEASED])]
    second.close()


def fill(books: Books) -> int:
    """Let the file grow no more and place holds until there is no space; tell how many there are."""
    connection = books.session.connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages + 60}")
    for number in range(1, 2_000):
        try:
            write(books, held(number))
        except Unwritten:
            return number - 1
    raise AssertionError("the file was never full")


def test_everything_held_can_be_settled_on_a_full_disk(tmp_path: Path) -> None:
    """With no page left, every hold takes its largest settlement and every call its longest end."""
    path = tmp_path / "ledger.db"
    books = open_books(path, owner_id="owner", now_ns=1)
    count = fill(books)
    assert count > 100
    with pytest.raises(Unwritten, match="SQLITE_FULL"):
        write(books, held(count + 1))

    for number in range(count, 0, -1):
        write(books, largest_settlement(number))
        write(books, longest_end(number))

    entries = read_entries(look_at(path), after=None, limit=1_000)
    assert len(entries) == count
    assert {attempt.usage for entry in entries for attempt in entry.attempts} == {LARGEST}
    assert {entry.end for entry in entries} == {EndState.CLIENT_CLOSED}
    books.close()


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    """The sentence names the file and what to do; the file is left as it is."""
    path = tmp_path / "ledger.db"
    path.write_bytes(b"this is a letter to my aunt" * 1_000)

    with pytest.raises(CannotStart, match=r"ledger\.db cannot be opened \(SQLITE_NOTADB\).*backup"):
        open_books(path, owner_id="owner", now_ns=1)
    assert path.read_bytes().startswith(b"this is a letter")


def test_the_files_are_their_owners_alone(tmp_path: Path) -> None:
    """The database and its side files have mode 0600, also where a looser file was there before."""
    path = tmp_path / "ledger.db"
    path.touch(mode=0o644)
    books = open_books(path, owner_id="owner", now_ns=1)
    write(books, held(1))

    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert modes == {"ledger.db": 0o600, "ledger.db-wal": 0o600, "ledger.db-shm": 0o600}
    books.close()


def test_reading_sees_one_moment(tmp_path: Path) -> None:
    """Readers never see half of a transaction, and a reader writes nothing."""
    path = tmp_path / "ledger.db"
    books = open_books(path, owner_id="owner", now_ns=1)
    write(books, held(1), settled(1), closed(1))

    entries: list[Entry] = read_entries(look_at(path), after=None, limit=10)
    assert [len(entry.attempts) for entry in entries] == [1]
    assert read_entry(look_at(path), held(2).call_id) is None
    books.close()


def test_what_must_last_is_synced_and_nothing_else(tmp_path: Path) -> None:
    """SQLite syncs its log with a commit only where it is told to: 2 is FULL, 1 is NORMAL."""
    books = open_books(tmp_path / "ledger.db", owner_id="owner", now_ns=1)
    connection = books.session.connection  # type: ignore[attr-defined]  # of the SQLite session

    def level() -> int:
        found: int = connection.execute("PRAGMA synchronous").fetchone()[0]
        return found

    with books.session.transaction():
        assert level() == 1
    with books.session.lasting():
        assert level() == 2
    with pytest.raises(ZeroDivisionError), books.session.lasting():
        raise ZeroDivisionError
    assert level() == 1
    books.close()
