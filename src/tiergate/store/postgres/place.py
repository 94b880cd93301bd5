"""A ledger on a PostgreSQL server, as the rest of the house asks for it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tiergate.core import Clock, Emit, new_id
from tiergate.store.books import Books
from tiergate.store.folder import kept_secret, make_folder
from tiergate.store.journal import LedgerJournal
from tiergate.store.past import LedgerPast
from tiergate.store.postgres.connection import Address
from tiergate.store.postgres.jobs import PostgresJobs
from tiergate.store.postgres.opening import open_books
from tiergate.store.postgres.reading import Readings
from tiergate.store.postgres.session import Lives
from tiergate.store.writer import WriterLimits

_SEAT_FILE: Final = "seat"
"""The file that names the data folder's seat among the replicas."""


class ServerPlace:
    """A `store.Place` on a server.

    Args:
        data_dir: of this replica.
        store: the address of the database.

    Raises:
        CannotStart: the address is none.
    """

    is_shared = True

    def __init__(self, data_dir: Path, store: str) -> None:
        self._data_dir = data_dir
        self._address = Address(store)

    def journal(
        self,
        *,
        clock: Clock,
        randomness: Callable[[int], bytes],
        emit: Emit,
        limits: WriterLimits | None = None,
    ) -> LedgerJournal:
        """Give the journal of one replica; see `store.Place`."""
        readings = Readings(self._address)

        def opened(owner_id: str, now_ns: int) -> Books:
            make_folder(self._data_dir)
            seat = kept_secret(self._data_dir / _SEAT_FILE, lambda: new_id(now_ns, randomness(10)))
            lives = Lives(seat=seat, pid=os.getpid())
            return open_books(self._address, readings, owner_id=owner_id, lives=lives)

        return LedgerJournal(
            opened,
            readings.look,
            clock=clock,
            randomness=randomness,
            emit=emit,
            limits=limits or WriterLimits(),
        )

    def jobs(self, *, epoch: int) -> PostgresJobs:
        """Give the jobs that are kept with the ledger; see `store.Place`."""
        return PostgresJobs(self._address, epoch=epoch)

    def past(self) -> LedgerPast:
        """Give what reports read; see `store.Place`."""
        past = LedgerPast(Readings(self._address, idle_max=0).look)
        past.calls_from_ns()  # is it there?
        return past
