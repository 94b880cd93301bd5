"""Where a ledger is kept: in a file of the data folder, or on a PostgreSQL server that replicas share."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final, Protocol

from tiergate.batch import JobStore
from tiergate.core import CannotStart, Clock, Emit
from tiergate.store.jobs import SqliteJobs
from tiergate.store.journal import LEDGER_FILE, LedgerJournal, open_journal
from tiergate.store.past import LedgerPast
from tiergate.store.sqlite import look_at
from tiergate.store.writer import WriterLimits

_MISSING: Final = (
    "The setting `store` names a PostgreSQL database, and its driver is not installed: "
    "pip install 'tiergate[postgres]'"
)


class Place(Protocol):
    """A place where a ledger is kept."""

    is_shared: bool
    """Whether several owners write it: what budgets have left is then said by the store."""

    def journal(
        self,
        *,
        clock: Clock,
        randomness: Callable[[int], bytes],
        emit: Emit,
        limits: WriterLimits | None = None,
    ) -> LedgerJournal:
        """Give its journal, as `open_journal` does: whoever enters it holds the data folder's `OwnerLock`."""
        ...

    def jobs(self, *, epoch: int) -> AbstractAsyncContextManager[JobStore]:
        """Give the jobs that are kept with the ledger, for its owner of this epoch.

        Entering it raises CannotStart where they cannot be used.
        """
        ...

    def past(self) -> LedgerPast:
        """Give what reports read, whether somebody serves the ledger or not.

        Raises:
            CannotStart: there is no ledger yet.
            StorageUnavailable: it cannot be read.
        """
        ...


def place_of(data_dir: Path, store: str | None) -> Place:
    """Tell where the ledger is.

    Args:
        data_dir: the data folder.
        store: the address of a PostgreSQL database; None: the ledger is a file in the folder.

    Raises:
        CannotStart: the address is none, or the driver is missing.
    """
    if store is None:
        return _FilePlace(data_dir)
    try:
        # The driver is no part of an installation without extras.
        from tiergate.store.postgres import ServerPlace
    except ImportError as error:
        # Without a name it is psycopg itself that says that it finds no library of PostgreSQL's.
        if (error.name or "psycopg").partition(".")[0] != "psycopg":
            raise
        raise CannotStart(_MISSING) from None
    return ServerPlace(data_dir, store)


class _FilePlace:
    is_shared = False

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir

    def journal(
        self,
        *,
        clock: Clock,
        randomness: Callable[[int], bytes],
        emit: Emit,
        limits: WriterLimits | None = None,
    ) -> LedgerJournal:
        return open_journal(self._data_dir, clock=clock, randomness=randomness, emit=emit, limits=limits)

    def jobs(self, *, epoch: int) -> AbstractAsyncContextManager[JobStore]:
        return SqliteJobs(self._data_dir, epoch=epoch)

    def past(self) -> LedgerPast:
        path = self._data_dir / LEDGER_FILE
        if not path.exists():
            raise CannotStart(f"There is no ledger in {self._data_dir} yet: no call was made from here.")
        return LedgerPast(look_at(path))
