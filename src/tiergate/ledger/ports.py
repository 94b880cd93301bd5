"""What the ledger needs from outside: a journal that keeps its records."""

from dataclasses import dataclass
from typing import Protocol

from tiergate.ledger.records import CallClosed, Entry, Held, Owner, Settled


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalStatistics:
    """A journal's own state: records waiting to be written, and what was written since it was opened."""

    waiting: int
    commits: int
    records: int


class Journal(Protocol):
    """Keeps the ledger's records; one writer, in order.

    `settle` and `close` go into room that `hold` reserved: they return at once, cannot fail and cannot be
    cancelled. Writing the same settlement or the same end twice changes nothing.
    """

    @property
    def owner(self) -> Owner:
        """The owner that writes here."""
        ...

    async def hold(self, held: Held) -> None:
        """Write a hold (and its call, with the first one) and return when it is committed.

        Raises:
            StorageUnavailable: nothing was written, nothing may be sent.
        """
        ...

    def settle(self, settled: Settled) -> None:
        """Replace a hold by the truth: `held → settled | released`."""
        ...

    def close(self, closed: CallClosed) -> None:
        """Write a call's end; writes the whole call where it never held anything."""
        ...

    async def flush(self) -> None:
        """Return when everything handed in before is committed."""
        ...

    async def entry(self, call_id: str) -> Entry | None:
        """Read one call with its attempts; sees everything handed in before."""
        ...

    async def entries(self, *, after: str | None = None, limit: int = 100) -> list[Entry]:
        """Read calls in the order of their ids, those after `after`, at most `limit`."""
        ...

    def statistics(self) -> JournalStatistics:
        """What waits and what was written."""
        ...
