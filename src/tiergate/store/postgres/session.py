"""The ledger's database on a PostgreSQL server: a session to write it, which outlives its connection."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Final

from tiergate.core import StoreOwned
from tiergate.ledger import Owner
from tiergate.store.postgres.arrays import array
from tiergate.store.postgres.connection import Address, Connection
from tiergate.store.postgres.reach import Reach
from tiergate.store.postgres.reading import Readings
from tiergate.store.postgres.statements import statements
from tiergate.store.rows import Row
from tiergate.store.session import Checkpoints, Facts, Lapsed, Reading, Sayings, Sums
from tiergate.store.trouble import Unwritten

_GAP_NS: Final = 15_000_000_000
"""A heart that has not beaten for so long does not count as steady: three beats are missing."""
DEAD: Final = (
    "This replica was silent for too long: another Tiergate on the same database has taken over and declared "
    "it dead. Restart it."
)
_SAYINGS: Final = Sayings(
    locked="The ledger's database has been out of reach for too long. Try again shortly.",
    full="The disk of the ledger's database is full. Calls are taken again when there is space.",
    broken="The ledger's database takes no records ({}). Look into its server's log, then restart Tiergate.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lives:
    """Who this owner is among others, and how long one may be silent."""

    seat: str
    """Of the data folder whose lock it holds: whoever wrote from there before is dead."""
    pid: int
    dead_after_s: float = 30.0


class PostgresSession:
    """A `Session` on a PostgreSQL server."""

    sayings = _SAYINGS
    boot = ""
    """Nothing is drawn here, as nothing that is committed can be lost."""

    def __init__(
        self, address: Address, connection: Connection, readings: Readings, *, owner_id: str, lives: Lives
    ) -> None:
        self._reach = Reach(address, connection)
        self._lives = lives
        self._is_alive = False
        self._readings = readings
        self.owner = Owner(id=owner_id, epoch=0)
        self.lapsed = Lapsed()
        self.rolled = (0, 0)
        """How far the sums had come when the transaction began, and from when on calls are kept."""
        self.checkpoints: Checkpoints = _NothingToTidy()

    def begin_epoch(self, sums: Sums) -> None:
        """Become an owner, beside others. Those that are dead are buried, and what they left open lapses."""
        who = {"id": self.owner.id, "pid": self._lives.pid, "seat": self._lives.seat}
        with self._writing():
            ((epoch,),) = self.rows("ledger", "add_owner", who)
            self.owner = Owner(id=self.owner.id, epoch=epoch)
        with self.transaction():
            self.run("ledger", "bury_seat", {"seat": self._lives.seat, "epoch": epoch})
            self.run("ledger", "bury_at_start", self._dead())
            self.lapsed = self._lapse(sums)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write what is said inside, all or nothing; see `Session`."""
        with self._writing():
            self._check_alive()
            yield

    def _check_alive(self) -> None:
        if not self._is_alive:
            raise StoreOwned(DEAD)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Write as in a transaction, while nobody else is in the middle of one; see `Session`."""
        with self._writing(is_alone=True):
            self._check_alive()
            yield

    def lasting(self) -> AbstractContextManager[None]:
        """Write as in a transaction: what is committed here is synced."""
        return self.transaction()

    def run(self, file: str, name: str, facts: Facts = ()) -> int:
        """Run a statement; see `Session`."""
        return self._reach.connection.execute(statements(file)[name], facts).rowcount

    def many(self, file: str, name: str, rows: Iterable[Row]) -> None:
        """Run a statement for each row, in one round trip; see `Session`.

        One that unnests arrays is run once, for all rows, each column as an array.
        """
        statement = statements(file)[name]
        with self._reach.connection.cursor() as cursor:
            if b"unnest(" in statement:
                cursor.execute(statement, [array(column) for column in zip(*rows, strict=True)])
            else:
                cursor.executemany(statement, rows)

    def rows(self, file: str, name: str, facts: Facts = ()) -> list[Row]:
        """Give all rows of a question; see `Session`."""
        return self._reach.connection.execute(statements(file)[name], facts).fetchall()

    def snapshot(self) -> Reading:
        """Give a look at what is written now; see `Session`."""
        return self._readings.open()

    def heartbeat(self, now_ns: int, sums: Sums) -> Lapsed:
        """Write that the owner is alive, and bury those that are not; time is the server's."""
        with self.transaction():
            self.run("ledger", "heartbeat", {"epoch": self.owner.epoch, "gap_ns": _GAP_NS})
            buried = self.run("ledger", "bury_others", self._dead())
            return self._lapse(sums) if buried else Lapsed()

    def leave(self, now_ns: int) -> None:
        """Write that the owner left with its books closed."""
        with self.transaction():
            self.run("ledger", "leave", {"epoch": self.owner.epoch})

    def close(self) -> None:
        """Close the connections, with nothing more written."""
        self._readings.close()
        self._reach.close()

    def _lapse(self, sums: Sums) -> Lapsed:
        # A call can have ended, and be added up, whose settlement was lost.
        sums.take_note((), [call_id for (call_id,) in self.rows("ledger", "lapsing")])
        self.run("receipts", "lapse")
        return Lapsed(holds=self.run("ledger", "lapse_holds"), calls=self.run("ledger", "lapse_calls"))

    def _dead(self) -> dict[str, int]:
        return {"epoch": self.owner.epoch, "dead_ns": int(self._lives.dead_after_s * 1e9)}

    @contextmanager
    def _writing(self, *, is_alone: bool = False) -> Iterator[None]:
        """Begin, look who is alive and how far the sums are, all in one round trip; commit."""
        money, ledger = statements("balances"), statements("ledger")
        with self._reach.writing(
            (money["alone_with_money" if is_alone else "with_money"], ()),
            (ledger["alone" if is_alone else "beside_others"], ()),
            (ledger["owner_alive"], (self.owner.epoch,)),
        ) as found:
            self._is_alive = found is not None
            if found is not None:
                self.rolled = (found[0], found[1])
            yield


class _NothingToTidy:
    """A server tidies up by itself."""

    failure: Unwritten | None = None

    def start(self) -> None:
        """Nothing to do."""

    def wait(self) -> None:
        """Nothing to wait for."""
