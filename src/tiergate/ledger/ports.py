"""What the ledger needs from outside: a journal that keeps its records."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from tiergate.ledger.ceilings import Balance, Ceiling, Claim, SpentBy
from tiergate.ledger.receipts import Receipt, ReceiptEntry
from tiergate.ledger.records import (
    CallClosed,
    Counted,
    Entry,
    EntryQuery,
    Held,
    LapsedLine,
    Owner,
    Settled,
)
from tiergate.ledger.slices import LapsedSlice, Slice


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalStatistics:
    """A journal's own state: what waits to be written, and what became of the rest since it was opened."""

    waiting: int
    commits: int
    records: int
    """Holds, settlements and ends that were written; one that found nothing to change counts too."""
    refused: int = 0
    """Holds that were refused."""
    uncounted: int = 0
    """Ends of calls that cost nothing and were not written because too much was waiting."""
    lost: int = 0
    """Settlements and ends that a broken store did not take; what they would settle lapses, still charged."""


class Journal(Protocol):
    """Keeps the ledger's records; one writer, in order.

    `settle` and `close` go into room that `hold` reserved: they return at once, cannot fail and cannot be
    cancelled. Writing the same settlement or the same end twice changes nothing.
    """

    @property
    def owner(self) -> Owner:
        """The owner that writes here."""
        ...

    async def hold(self, held: Held, claims: Sequence[Claim] = ()) -> None:
        """Write a hold (and its call, with the first one) and return when it is committed.

        `claims`: what it counts against, where several owners share the store, which then decides.

        When it is cancelled while it waits, the hold may stand or not: whoever asked for it releases it in
        either case. Releasing a hold that is not there changes nothing.

        Raises:
            StorageUnavailable: nothing was written, nothing may be sent.
            Unaffordable: nor was it, since one of the claims does not allow it.
        """
        ...

    def settle(self, settled: Settled) -> None:
        """Replace a hold by the truth: `held → settled | released`."""
        ...

    def close(self, closed: CallClosed) -> None:
        """Write a call's end; writes the whole call where it never held anything. The first end stands."""
        ...

    async def flush(self) -> None:
        """Return when everything handed in before is committed.

        Raises:
            StorageUnavailable: some of it never will be.
        """
        ...

    async def entry(self, call_id: str) -> Entry | None:
        """Read one call with its attempts; sees everything handed in before.

        Raises:
            StorageUnavailable: it cannot be read now.
        """
        ...

    async def entries(self, *, after: str | None = None, limit: int = 100) -> list[Entry]:
        """Read calls in the order of their ids, those after `after`, at most `limit`."""
        ...

    async def find(self, query: EntryQuery) -> list[Entry]:
        """Read calls that answer a question, newest first, with their adjustments, at most 1,000."""
        ...

    async def resolve(self, call_id: str, n: int, cash_nanos: int) -> bool:
        """Settle a lapsed attempt with what it is now known to have cost: `lapsed → settled`.

        Gives False where there is no such lapsed attempt.

        Raises:
            StorageUnavailable: nothing was written.
        """
        ...

    async def adjust(self, call_id: str, n: int, delta_nanos: int, reason: str) -> bool:
        """Put an adjustment beside a settled attempt; its cost may not become less than nothing.

        Gives False where there is no such settled attempt, or not so much of it.

        Raises:
            StorageUnavailable: nothing was written.
        """
        ...

    async def spent(self, start_ns: int, end_ns: int | None) -> list[SpentBy]:
        """Add up what calls received in a span of time have cost, by what ceilings ask about.

        It sees everything that was handed in before, and nothing that comes after: lapsed holds at their
        worst case, holds of this owner not at all. `end_ns` is not included; None: no end.

        Raises:
            StorageUnavailable: it cannot be read now.
        """
        ...

    async def spent_of_jobs(self, jobs: Sequence[str]) -> list[SpentBy]:
        """Add up what jobs have cost, each by itself; sees what `spent` sees.

        Raises:
            StorageUnavailable: it cannot be read now.
        """
        ...

    async def lapsed_lines(self, job: str) -> list[LapsedLine]:
        """Give the attempts for a job's lines that a dead owner left and nobody has settled.

        Raises:
            StorageUnavailable: it cannot be read now.
        """
        ...

    async def receipt(self, receipt: Receipt) -> ReceiptEntry | None:
        """Look a receipt up; sees everything handed in before. None: there is none so young.

        A receipt is written with the first hold of its call (`running`), done with the settlement that brings
        the answer (`Settled.kept`), freed with the end of a call that brought none, in one transaction each.

        Raises:
            StorageUnavailable: it cannot be read now.
        """
        ...

    async def counted(self, *, limit: int) -> list[Counted]:
        """Read the last attempts whose shape was taken and whose input was reported, oldest first."""
        ...

    def statistics(self) -> JournalStatistics:
        """What waits and what was written."""
        ...


class SoleJournal(Journal, Protocol):
    """A journal whose store has one owner, and may lose its last records with the machine's power."""

    async def draw(self, slices: Sequence[Slice]) -> None:
        """Write down how far spending may go; returns when a loss of power cannot take it away.

        Raises:
            StorageUnavailable: it is not written.
        """
        ...

    async def dead_slices(self) -> list[Slice]:
        """Give what owners had drawn that died with the machine."""
        ...

    async def lapse_slice(self, found: Slice, lapsed_nanos: int) -> None:
        """Let a dead owner's slice lapse, with what of it counts as spent: `drawn → lapsed`."""
        ...

    async def lapsed_slices(self) -> list[LapsedSlice]:
        """Give what counts as spent beside the records."""
        ...


class SharedJournal(Journal, Protocol):
    """A journal whose store several owners share. It keeps the balances, too, in step with the records."""

    async def balances(self, claims: Sequence[Claim]) -> list[Balance]:
        """Read the balances of claims; those that nobody has asked for before are made from the records.

        Raises:
            StorageUnavailable: they cannot be read now.
        """
        ...

    async def tell(self, claim: Claim, share: float) -> bool:
        """Note that somebody is told of a spent share; False: they were told of it, or of more, before."""
        ...


class Book(Protocol):
    """Money's only door: places holds before money can be spent, and settles each exactly once."""

    def use(self, ceilings: Iterable[Ceiling], *, alerts_at: Sequence[float]) -> None:
        """Take new ceilings; what is spent and held stays."""
        ...

    async def hold(self, held: Held, *, wait_s: float = 0) -> None:
        """Place a hold; when this returns it is committed, and the attempt may send its first byte.

        `wait_s`: how long it may wait where it fits only once others have settled.

        Raises:
            Unaffordable: a ceiling does not allow it; nothing was held.
            StorageUnavailable: nothing was held, nothing may be sent.
        """
        ...

    def settle(self, settled: Settled) -> None:
        """Replace a hold by the truth. Returns at once, cannot fail."""
        ...

    def close(self, closed: CallClosed) -> None:
        """Write the end of a call. Returns at once, cannot fail."""
        ...

    async def resolve(self, call_id: str, n: int, cash_nanos: int) -> bool:
        """Settle a lapsed attempt with what it is now known to have cost; False: there is none.

        Raises:
            StorageUnavailable: nothing was changed.
        """
        ...

    async def adjust(self, call_id: str, n: int, delta_nanos: int, reason: str) -> bool:
        """Correct what a settled attempt cost, by an adjustment beside it; False: there is none.

        Raises:
            StorageUnavailable: nothing was changed.
        """
        ...

    async def balances(self, at_ns: int) -> list[Balance]:
        """Give the balance of every ceiling in the window that a moment lies in.

        Raises:
            StorageUnavailable: the ledger cannot be read now.
        """
        ...
