"""What the ledger needs of a database: `Books` writes through a session, readers look through a reading.

Statements are named by the file of SQL that they stand in and their own name; each database has its dialect.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from tiergate.core import TiergateError
from tiergate.ledger import Ask, Balance, Claim, Owner
from tiergate.store.rows import Row
from tiergate.store.trouble import Unwritten

Place = tuple[str, int]
"""A call's id and the number of an attempt of it."""
Facts = Mapping[str, Any] | Sequence[Any]
"""A statement's values, by name or by place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lapsed:
    """What owners that died left behind."""

    holds: int = 0
    calls: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sayings:
    """What to tell people when this database is in trouble; `broken` has a place for its word."""

    locked: str
    full: str
    broken: str


class Reading(Protocol):
    """A look at the ledger as it is at one moment. It may change threads; whoever has it closes it."""

    def rows(self, file: str, name: str, facts: Facts = ()) -> list[Row]:
        """Give all rows of a question.

        Raises:
            StorageUnavailable: it cannot be read.
        """
        ...

    def each(self, file: str, name: str, facts: Facts = ()) -> Iterator[Row]:
        """Give the rows of a question that may have very many, one by one; raises as `rows` does."""
        ...

    def close(self) -> None:
        """Look no longer."""
        ...


Look = Callable[[], AbstractContextManager[Reading]]
"""Opens a look at the ledger, in any thread; raises StorageUnavailable where it cannot be read."""


class Checkpoints(Protocol):
    """Tidies up what writing leaves behind, beside it."""

    failure: Unwritten | None
    """An error after which the database cannot be trusted."""

    def start(self) -> None:
        """Begin, unless one is running."""
        ...

    def wait(self) -> None:
        """Wait for the one that is running."""
        ...


class Session(Protocol):
    """A database, open for writing under one owner's epoch. It belongs to one thread.

    Whatever goes wrong in it is raised as `Unwritten`, and then nothing of the transaction is written.
    """

    owner: Owner
    lapsed: Lapsed
    """What was found lapsed when it was opened."""
    sayings: Sayings
    checkpoints: Checkpoints
    boot: str
    """Which run of the machine this is."""

    def transaction(self) -> AbstractContextManager[None]:
        """Write what is said inside, all or nothing.

        Raises:
            StoreOwned: this owner was declared dead.
            Unwritten: nothing was written, unless it is `doubtful`.
        """
        ...

    def alone(self) -> AbstractContextManager[None]:
        """Write as in a transaction, while nobody else is in the middle of one."""
        ...

    def lasting(self) -> AbstractContextManager[None]:
        """Write as in a transaction, so that a loss of the machine's power cannot take it away.

        Raises:
            As a transaction does.
        """
        ...

    def run(self, file: str, name: str, facts: Facts = ()) -> int:
        """Run a statement; give how many rows it touched."""
        ...

    def many(self, file: str, name: str, rows: Iterable[Row]) -> None:
        """Run a statement for each row."""
        ...

    def rows(self, file: str, name: str, facts: Facts = ()) -> list[Row]:
        """Give all rows of a question."""
        ...

    def snapshot(self) -> Reading:
        """Give a look at what is written now, and nothing that comes.

        Raises:
            StorageUnavailable: not now.
        """
        ...

    def heartbeat(self, now_ns: int, sums: "Sums") -> Lapsed:
        """Write that the owner is alive, in a transaction; give what lapsed of others that are dead."""
        ...

    def leave(self, now_ns: int) -> None:
        """Write that the owner left with its books closed, and tidy up."""
        ...

    def close(self) -> None:
        """Close it, with nothing more written."""
        ...


class Purse(Protocol):
    """The balances of ceilings, in a store that several owners share. Used inside of transactions."""

    def admit(self, asks: Mapping[Place, Ask]) -> dict[Place, TiergateError]:
        """Say which holds do not fit, in the order in which they ask; the others are written at once."""
        ...

    def read(self, claims: Sequence[Claim]) -> list[Balance] | None:
        """Read balances; None: one of them has not been made."""
        ...

    def make(self, claims: Sequence[Claim]) -> None:
        """Make balances that are not there yet from the records, while nobody else writes any."""
        ...

    def tell(self, claim: Claim, share: float) -> bool:
        """Note that somebody is told of a spent share; False: it was told before."""
        ...


class Sums(Protocol):
    """How far a ledger has been added up. Its methods run inside of a transaction of the caller."""

    def take_note(self, calls: Sequence[str], settled: Iterable[str]) -> None:
        """Mark the slots stale that were added up already.

        Args:
            calls: ids of calls that are written.
            settled: ids of calls an attempt of which is settled.

        Raises:
            TooOld: a call is of a time whose calls are forgotten. A clock that is set back so far is wrong.
        """
        ...

    def has_forgotten(self, call_id: str) -> bool:
        """Tell whether a call is kept only in the sums: a change of its record would count nowhere."""
        ...

    def begin(self, closed_before_ns: int) -> int | None:
        """Choose a slot that ended before a moment and in which no call is open; None: there is none now."""
        ...

    def end(self, slot_ns: int, rows: list[Row]) -> bool:
        """Put a slot's sums in place; False: a record came in between, and they are not."""
        ...

    def forget(self, calls_before_ns: int, rollups_before_ns: int) -> int:
        """Delete some calls that are old and added up, and old sums; give how many rows are gone."""
        ...

    def committed(self) -> None:
        """What the transaction did is on the disk."""
        ...

    def rolled_back(self) -> None:
        """What the transaction did is not."""
        ...
