"""The ledger's database as one connection: every write to it is a method here, each one transaction.

It belongs to one thread and knows nothing of threads, waiting or retrying; `writer` does.
"""

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tiergate.admission import VirtualKey
from tiergate.core import CannotStart, StoreOwned
from tiergate.ledger import Owner
from tiergate.store.folder import make_private_file
from tiergate.store.keys import add_key, read_keys
from tiergate.store.migrate import migrate
from tiergate.store.reader import frozen
from tiergate.store.rollups import Rollups
from tiergate.store.rows import Row, settled_call_id
from tiergate.store.statements import statements
from tiergate.store.trouble import Trouble, trouble_of, word_of

_OPENING_WAIT_MS: Final = 5_000
_WRITING_WAIT_MS: Final = 100
"""How long one attempt to begin writing waits for another writer; in between, overdue holds are refused."""
_PRAGMAS: Final = (
    "journal_mode = WAL",
    "synchronous = NORMAL",
    "wal_autocheckpoint = 0",
    "journal_size_limit = 134217728",
    "cache_size = -16384",
    "temp_store = MEMORY",
    "analysis_limit = 400",
    "trusted_schema = OFF",
)


@dataclass(slots=True)
class Batch:
    """Rows that one transaction writes.

    Holds come first, then settlements, then ends. That order changes nothing: records of different calls do
    not touch each other's rows, and within a call it is the order in which they are handed in.
    """

    calls: list[Row] = field(default_factory=list)
    holds: list[Row] = field(default_factory=list)
    settlements: list[Row] = field(default_factory=list)
    ends: list[Row] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.holds) + len(self.settlements) + len(self.ends)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lapsed:
    """What an owner that died left behind."""

    holds: int
    calls: int


class Books:
    """An open ledger, written under one owner's epoch."""

    def __init__(self, path: Path, connection: sqlite3.Connection, owner: Owner, lapsed: Lapsed) -> None:
        self.path = path
        self._connection = connection
        self._sql = statements("ledger")
        self.owner = owner
        self.lapsed = lapsed
        self._rollups = Rollups(connection)

    @classmethod
    def open(cls, path: Path, *, owner_id: str, now_ns: int) -> "Books":
        """Open the file, bring its schema up to date and begin a new epoch.

        What owners before left held lapses: it stays charged. The caller holds the data folder's `OwnerLock`.

        Raises:
            CannotStart: with what to do about it.
        """
        make_private_file(path)
        connection = sqlite3.connect(path, timeout=_OPENING_WAIT_MS / 1000, isolation_level=None)
        try:
            for pragma in _PRAGMAS:
                connection.execute(f"PRAGMA {pragma}")
            migrate(connection, "ledger")
            owner, lapsed = _begin_epoch(connection, owner_id, now_ns)
            connection.execute(f"PRAGMA busy_timeout = {_WRITING_WAIT_MS}")
        except sqlite3.Error as error:
            connection.close()
            raise CannotStart(_why_not_open(path, error)) from error
        except BaseException:
            connection.close()
            raise
        return cls(path, connection, owner, lapsed)

    def write(self, batch: Batch) -> None:
        """Write all of it or nothing.

        Raises:
            sqlite3.Error, OverflowError, UnicodeEncodeError: nothing was written; `trouble_of` says why.
            StoreOwned: a later owner has declared this one dead; nothing was written.
        """
        many = self._connection.executemany
        with self._transaction():
            if batch.holds:
                many(self._sql["open_call"], batch.calls)
                many(self._sql["hold"], batch.holds)
            if batch.settlements:
                many(self._sql["settle"], batch.settlements)
            if batch.ends:
                many(self._sql["close_call"], batch.ends)
            self._rollups.take_note(
                [row[0] for row in (*batch.calls, *batch.ends)], map(settled_call_id, batch.settlements)
            )

    def snapshot(self) -> sqlite3.Connection:
        """Give a connection that reads what is written now, and nothing that comes; any thread may use it.

        Whoever takes it closes it.
        """
        return frozen(self.path)

    def resolve(self, call_id: str, n: int, cash_nanos: int) -> bool:
        """Settle a lapsed attempt; see `ledger.Journal`; raises as `write` does."""
        facts = {"call_id": call_id, "n": n, "cash_nanos": cash_nanos}
        if self._rollups.has_forgotten(call_id):
            return False
        with self._transaction():
            found = self._connection.execute(self._sql["resolve"], facts).rowcount > 0
            self._rollups.take_note((), [call_id] if found else [])
            return found

    def adjust(self, call_id: str, n: int, delta_nanos: int, *, reason: str, now_ns: int) -> bool:
        """Put an adjustment beside a settled attempt; see `ledger.Journal`; raises as `write` does."""
        facts = {"call_id": call_id, "n": n, "delta_nanos": delta_nanos, "reason": reason}
        if self._rollups.has_forgotten(call_id):
            return False
        with self._transaction():
            row = self._connection.execute(self._sql["settled_cash"], facts).fetchone()
            if row is None or (row[0] or 0) + delta_nanos + self._adjusted(call_id, n) < 0:
                return False
            self._connection.execute(
                self._sql["adjust"], {**facts, "owner_epoch": self.owner.epoch, "now_ns": now_ns}
            )
            self._rollups.take_note((), [call_id])
            return True

    def _adjusted(self, call_id: str, n: int) -> int:
        rows = self._connection.execute(self._sql["find_adjustments"], (call_id,)).fetchall()
        return sum(delta for place, delta, *_ in rows if place == n)

    def keys(self) -> list[VirtualKey]:
        """Give all virtual keys."""
        return read_keys(self._connection)

    def add_key(self, key: VirtualKey) -> list[VirtualKey] | None:
        """Keep a virtual key, and give all; None: its name is taken; raises as `write` does."""
        with self._transaction():
            return self.keys() if add_key(self._connection, key) else None

    def change_key(self, how: str, facts: Mapping[str, object]) -> list[VirtualKey] | None:
        """Revoke or rotate a virtual key, and give all; None: there is none; raises as `write` does."""
        with self._transaction():
            done = self._connection.execute(statements("keys")[how], facts).rowcount > 0
            return self.keys() if done else None

    def begin_slot(self, closed_before_ns: int) -> int | None:
        """Choose a slot to add up (`Rollups.begin`); raises as `write` does."""
        with self._transaction():
            return self._rollups.begin(closed_before_ns)

    def end_slot(self, slot_ns: int, rows: list[Row]) -> bool:
        """Put the sums of a slot in place (`Rollups.end`); raises as `write` does."""
        with self._transaction():
            return self._rollups.end(slot_ns, rows)

    def forget(self, calls_before_ns: int, rollups_before_ns: int) -> int:
        """Delete some old records (`Rollups.forget`); raises as `write` does."""
        with self._transaction():
            return self._rollups.forget(calls_before_ns, rollups_before_ns)

    def heartbeat(self, now_ns: int) -> None:
        """Write that the owner is alive; raises as `write` does."""
        with self._transaction():
            self._connection.execute(self._sql["heartbeat"], {"now_ns": now_ns, "epoch": self.owner.epoch})

    def leave(self, now_ns: int) -> None:
        """Write that the owner left with its books closed, and tidy up; raises as `write` does."""
        with self._transaction():
            self._connection.execute(self._sql["leave"], {"now_ns": now_ns, "epoch": self.owner.epoch})
        self._connection.execute("PRAGMA optimize").fetchall()
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        """Close the file, with nothing more written."""
        self._connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            if connection.execute(self._sql["owner_alive"], (self.owner.epoch,)).fetchone() is None:
                raise StoreOwned(
                    "Another Tiergate has taken over this data folder and declared this one dead. Restart it."
                )
            yield
            connection.execute("COMMIT")
            self._rollups.committed()
        finally:
            self._rollups.rolled_back()
            # SQLite has rolled back by itself after some errors, not after others.
            if connection.in_transaction:
                connection.execute("ROLLBACK")


def _begin_epoch(connection: sqlite3.Connection, owner_id: str, now_ns: int) -> tuple[Owner, Lapsed]:
    sql = statements("ledger")
    connection.execute("BEGIN IMMEDIATE")
    try:
        epoch: int = connection.execute(sql["next_epoch"]).fetchone()[0]
        facts = {"epoch": epoch, "id": owner_id, "pid": os.getpid(), "now_ns": now_ns}
        connection.execute(sql["bury_owners"], facts)
        connection.execute(sql["add_owner"], facts)
        # A call can have ended, and be added up, whose settlement was lost.
        lapsing = [call_id for (call_id,) in connection.execute(sql["lapsing"], facts)]
        Rollups(connection).take_note((), lapsing)
        lapsed = Lapsed(
            holds=connection.execute(sql["lapse_holds"], facts).rowcount,
            calls=connection.execute(sql["lapse_calls"], facts).rowcount,
        )
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    return Owner(id=owner_id, epoch=epoch), lapsed


def _why_not_open(path: Path, error: sqlite3.Error) -> str:
    match trouble_of(error):
        case Trouble.LOCKED:
            return f"The ledger {path} is locked by another program. End that program and start again."
        case Trouble.FULL:
            return f"The disk of the ledger {path} is full. Free some space and start again."
        case _:
            return (
                f"The ledger {path} cannot be opened ({word_of(error)}). If it is damaged, put a backup in "
                f"its place."
            )
