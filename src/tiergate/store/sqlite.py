"""The ledger's database as an SQLite file: a session to write it, readings to look at it, and its errors.

A session belongs to one thread; the file to the one process that holds the data folder's `OwnerLock`.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Final

from tiergate.core import CannotStart, StorageUnavailable, StoreOwned
from tiergate.ledger import Owner
from tiergate.store.books import Books
from tiergate.store.boot import boot_id
from tiergate.store.checkpoint import Checkpointer
from tiergate.store.folder import make_private_file
from tiergate.store.migrate import migrate
from tiergate.store.rollups import Rollups
from tiergate.store.rows import Row
from tiergate.store.session import Checkpoints, Facts, Lapsed, Look, Reading, Sayings, Sums
from tiergate.store.sqlite_errors import UNWRITABLE, trouble_of, word_of
from tiergate.store.statements import of_rows, statements
from tiergate.store.trouble import Trouble, Unwritten

_OPENING_WAIT_MS: Final = 5_000
_WRITING_WAIT_MS: Final = 100
"""How long one attempt to begin writing waits for another writer; in between, overdue holds are refused."""
_ROWS_AT_ONCE: Final = (32, 8, 4, 2, 1)
"""So many rows are written by one statement; each number is a statement that is prepared once."""
_PRAGMAS: Final = (
    "journal_mode = WAL",
    "synchronous = NORMAL",
    "wal_autocheckpoint = 0",
    "journal_size_limit = 134217728",
    "cache_size = -16384",
    "temp_store = MEMORY",
    "analysis_limit = 400",
    "trusted_schema = OFF",
    # Answers of receipts are text: what is deleted is overwritten.
    "secure_delete = ON",
)
_SAYINGS: Final = Sayings(
    locked="The ledger's database has been locked by another program for too long. Try again shortly.",
    full="The disk that holds the ledger is full. Calls are taken again when there is space.",
    broken="The ledger's file cannot be written ({}). Check the disk, then restart Tiergate.",
)


def open_books(path: Path, *, owner_id: str, now_ns: int, boot: str | None = None) -> Books:
    """Open the file, bring its schema up to date and begin a new epoch.

    What owners before left held lapses: it stays charged. The caller holds the data folder's `OwnerLock`.
    `boot`: which run of the machine this is; None: as it says itself.

    Raises:
        CannotStart: with what to do about it.
    """
    make_private_file(path)
    connection = sqlite3.connect(path, timeout=_OPENING_WAIT_MS / 1000, isolation_level=None)
    try:
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        migrate(connection, "ledger")
        session = SqliteSession(path, connection, Owner(id=owner_id, epoch=0), boot or boot_id())
        sums = Rollups(session)
        session.begin_epoch(sums, now_ns)
        connection.execute(f"PRAGMA busy_timeout = {_WRITING_WAIT_MS}")
    except (sqlite3.Error, Unwritten) as error:
        connection.close()
        raise CannotStart(_why_not_open(path, error)) from error
    except BaseException:
        connection.close()
        raise
    return Books(session, sums)


class SqliteSession:
    """A `Session` on an SQLite file."""

    sayings = _SAYINGS

    def __init__(self, path: Path, connection: sqlite3.Connection, owner: Owner, boot: str) -> None:
        self._path = path
        self.boot = boot
        self.connection = connection
        self.owner = owner
        self.lapsed = Lapsed()
        self.checkpoints: Checkpoints = Checkpointer(path, untrusted)

    def begin_epoch(self, sums: Sums, now_ns: int) -> None:
        """Become the owner: every one before is dead, and what it left open lapses."""
        with self._writing():
            ((epoch,),) = self.rows("ledger", "next_epoch")
            facts = {"epoch": epoch, "id": self.owner.id, "pid": os.getpid(), "now_ns": now_ns}
            self.run("ledger", "bury_owners", {"epoch": epoch, "now_ns": now_ns})
            self.run("ledger", "add_owner", facts)
            # A call can have ended, and be added up, whose settlement was lost.
            before = {"epoch": epoch}
            sums.take_note((), [call_id for (call_id,) in self.rows("ledger", "lapsing", before)])
            self.run("receipts", "lapse", before)
            self.run("slices", "return_dead", {**before, "boot": self.boot})
            self.run("slices", "forget_returned")
            self.lapsed = Lapsed(
                holds=self.run("ledger", "lapse_holds", before),
                calls=self.run("ledger", "lapse_calls", before),
            )
        sums.committed()
        self.owner = Owner(id=self.owner.id, epoch=epoch)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write what is said inside, all or nothing; see `Session`."""
        with self._writing():
            if not self.rows("ledger", "owner_alive", (self.owner.epoch,)):
                raise StoreOwned(
                    "Another Tiergate has taken over this data folder and declared this one dead. Restart it."
                )
            yield

    def alone(self) -> AbstractContextManager[None]:
        """Write as in a transaction: nobody else writes here."""
        return self.transaction()

    @contextmanager
    def lasting(self) -> Iterator[None]:
        """Write what is said inside so that a loss of power cannot take it away, nor what came before it."""
        with _translated():
            self.connection.execute("PRAGMA synchronous = FULL")
        try:
            with self.transaction():
                yield
        finally:
            self.connection.execute("PRAGMA synchronous = NORMAL")

    def run(self, file: str, name: str, facts: Facts = ()) -> int:
        """Run a statement; see `Session`."""
        with _translated():
            return self.connection.execute(statements(file)[name], facts).rowcount

    def many(self, file: str, name: str, rows: Iterable[Row]) -> None:
        """Run a statement for each row; see `Session`.

        Those that have VALUES are run for some rows at one time. Each run lets other threads of the process
        go on and waits for its turn after it, which costs as much as writing the row.
        """
        statement = statements(file)[name]
        rows = list(rows)
        with _translated():
            while rows:
                count = next(count for count in _ROWS_AT_ONCE if count <= len(rows))
                some, rows = rows[:count], rows[count:]
                several = of_rows(statement, count)
                if several is None:
                    self.connection.executemany(statement, [*some, *rows])
                    return
                self.connection.execute(several, list(chain.from_iterable(some)))

    def rows(self, file: str, name: str, facts: Facts = ()) -> list[Row]:
        """Give all rows of a question; see `Session`."""
        with _translated():
            return self.connection.execute(statements(file)[name], facts).fetchall()

    def snapshot(self) -> Reading:
        """Give a look at what is written now; see `Session`."""
        return frozen(self._path)

    def heartbeat(self, now_ns: int, sums: Sums) -> Lapsed:
        """Write that the owner is alive. No other one can be: the folder is locked."""
        with self.transaction():
            self.run("ledger", "heartbeat", {"now_ns": now_ns, "epoch": self.owner.epoch})
        return Lapsed()

    def leave(self, now_ns: int) -> None:
        """Write that the owner left with its books closed, and tidy up."""
        with self.transaction():
            self.run("ledger", "leave", {"now_ns": now_ns, "epoch": self.owner.epoch})
            self.run("slices", "return_own", {"epoch": self.owner.epoch})
        with _translated():
            self.connection.execute("PRAGMA optimize").fetchall()
            self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        """Close the file, with nothing more written."""
        self.connection.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        connection = self.connection
        with _translated():
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                connection.execute("COMMIT")
            finally:
                # SQLite has rolled back by itself after some errors, not after others.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")


class SqliteReading:
    """A `Reading` of an SQLite file."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self.connection = connection

    def rows(self, file: str, name: str, facts: Facts = ()) -> list[Row]:
        """Give all rows of a question; see `Reading`."""
        return list(self.each(file, name, facts))

    def each(self, file: str, name: str, facts: Facts = ()) -> Iterator[Row]:
        """Give the rows of a question, one by one; see `Reading`."""
        try:
            yield from self.connection.execute(statements(file)[name], facts)
        except sqlite3.Error as error:
            raise _unreadable(self._path, error) from error

    def close(self) -> None:
        """Look no longer."""
        self.connection.close()


def frozen(path: Path) -> SqliteReading:
    """Open a database for reading, as it is at this moment; it can write nothing.

    Raises:
        StorageUnavailable: it cannot be read.
    """
    address = f"{path.resolve().as_uri()}?mode=ro"
    try:
        connection = sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("BEGIN")
            # A transaction sees the file as it is at its first look.
            connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone()
        except sqlite3.Error:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise _unreadable(path, error) from error
    return SqliteReading(path, connection)


@contextmanager
def snapshot(path: Path) -> Iterator[SqliteReading]:
    """Open a database for reading, at one moment in time for all that is read.

    Raises:
        StorageUnavailable: it cannot be read.
    """
    with closing(frozen(path)) as found:
        yield found


def look_at(path: Path) -> Look:
    """Give what opens a look at a database."""
    return partial(snapshot, path)


def untrusted(error: sqlite3.Error) -> Unwritten | None:
    """Give what an error says of the file, if it cannot be trusted after it."""
    trouble = trouble_of(error)
    return Unwritten(trouble, word_of(error)) if trouble is Trouble.BROKEN else None


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except UNWRITABLE as error:
        raise Unwritten(trouble_of(error), word_of(error)) from error


def _unreadable(path: Path, error: sqlite3.Error) -> StorageUnavailable:
    return StorageUnavailable(
        f"The ledger {path} cannot be read ({word_of(error)}); `tiergate doctor` looks at it."
    )


def _why_not_open(path: Path, error: sqlite3.Error | Unwritten) -> str:
    trouble = error.trouble if isinstance(error, Unwritten) else trouble_of(error)
    word = error.word if isinstance(error, Unwritten) else word_of(error)
    match trouble:
        case Trouble.LOCKED:
            return f"The ledger {path} is locked by another program. End that program and start again."
        case Trouble.FULL:
            return f"The disk of the ledger {path} is full. Free some space and start again."
        case _:
            return (
                f"The ledger {path} cannot be opened ({word}). If it is damaged, put a backup in its place."
            )
