"""The places where a ledger can be kept, for suites that all stores pass."""

import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from postgres import Server, run
from tiergate.core import Clock, Emit
from tiergate.store import LEDGER_FILE, LedgerJournal, LedgerPast, WriterLimits, back_up, look_at, place_of
from tiergate.store.postgres.connection import Address
from tiergate.store.postgres.reading import Readings
from tiergate.testing import FakeClock

_CALLS = ("call", "attempt", "adjustment")
_SUMS = ("rollup", "stale_slot")


class Kept:
    """A place where a ledger is kept, and a back door to what is in it.

    Args:
        kind: of the store, `sqlite` or `postgres`.
        folder: the data folder.
        store: the address of the database; None: it is a file in the folder.
        copies: gives an empty database for a copy.
        stack: closes what is opened here.
    """

    def __init__(
        self,
        kind: str,
        folder: Path,
        store: str | None,
        copies: Callable[[], AbstractContextManager[str]],
        stack: ExitStack,
    ) -> None:
        self._stack = stack
        self.kind = kind
        self.folder = folder
        self.store = store
        self._place = place_of(folder, store)
        self._copies = copies

    def journal(
        self,
        *,
        clock: Clock | None = None,
        randomness: Callable[[int], bytes] = bytes,
        emit: Emit = lambda _: None,
        limits: WriterLimits | None = None,
    ) -> LedgerJournal:
        """Give a journal, of an owner of its own."""
        clock = clock or FakeClock()
        return self._place.journal(clock=clock, randomness=randomness, emit=emit, limits=limits)

    def replica(self, store: str | None = None) -> "Kept":
        """Give the same ledger as another replica has it, which may reach it in another way."""
        number = len(list(self.folder.parent.glob("replica-*")))
        folder = self.folder.parent / f"replica-{number}"
        folder.mkdir(parents=True)
        return Kept(self.kind, folder, store or self.store, self._copies, self._stack)

    def through(self, socket_folder: Path) -> "Kept":
        """Give the same ledger as a replica has it that reaches the server through another socket."""
        assert self.store is not None
        before, _, rest = self.store.partition("host=")
        return self.replica(f"{before}host={socket_folder}&{rest.partition('&')[2]}")

    def past(self) -> LedgerPast:
        """Give what reports read."""
        return self._place.past() if self.store is None else past_of(self.store, self._stack)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Run a statement behind the ledger's back."""
        if self.store is not None:
            return run(self.store, sql)
        with closing(sqlite3.connect(self.folder / LEDGER_FILE, isolation_level=None)) as connection:
            return connection.execute(sql).fetchall()

    def count(self, table: str) -> int:
        """Count a table's rows."""
        found: int = self.rows(f"SELECT count(*) FROM {table}")[0][0]
        return found

    @contextmanager
    def uncounted(self) -> Iterator[LedgerPast]:
        """Give the past of a copy that has nothing added up."""
        if self.store is None:
            number = len(list(self.folder.glob("copy-*")))
            (copy,) = back_up(self.folder, self.folder / f"copy-{number}", progress=lambda *_: None)
            with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
                connection.execute("UPDATE rolled SET before_ns = 0, calls_from_ns = 0")
                connection.execute("DELETE FROM stale_slot")
                connection.execute("DELETE FROM rollup")
            yield LedgerPast(look_at(copy))
            return
        source = self.store.rpartition("search_path%3D")[2]
        with self._copies() as store:
            views = "; ".join(f"CREATE VIEW {name} AS SELECT * FROM {source}.{name}" for name in _CALLS)
            sums = "; ".join(f"CREATE VIEW {name} AS SELECT * FROM {source}.{name} LIMIT 0" for name in _SUMS)
            rolled = "CREATE VIEW rolled AS SELECT 0::bigint AS before_ns, 0::bigint AS calls_from_ns"
            run(store, f"{views}; {sums}; {rolled}")
            with ExitStack() as stack:
                yield past_of(store, stack)


def past_of(store: str, stack: ExitStack) -> LedgerPast:
    """Give the past in a database, through connections that are kept until the stack is closed."""
    readings = Readings(Address(store))
    stack.callback(readings.close)
    return LedgerPast(readings.look)


class Places:
    """Gives places where a ledger can be kept, all in one kind of store."""

    def __init__(self, kind: str, folder: Path, server: Server | None, stack: ExitStack) -> None:
        self.kind = kind
        self._folder = folder
        self._server = server
        self._stack = stack
        self._numbers = count()

    def new(self) -> Kept:
        """Give a place with nothing in it."""
        store = None if self._server is None else self._stack.enter_context(self._server.schema())
        return Kept(self.kind, self._folder / f"data-{next(self._numbers)}", store, self._copies, self._stack)

    @contextmanager
    def once(self) -> Iterator[Kept]:
        """Give a place that is gone when the context is over, for searches that need very many."""
        with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
            yield Places(self.kind, Path(folder), self._server, stack).new()

    def _copies(self) -> AbstractContextManager[str]:
        assert self._server is not None
        return self._server.schema()
