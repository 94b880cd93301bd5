"""The ledger's journal: `ledger.Journal` over one writing thread, whatever the books are kept in."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

from tiergate.admission import VirtualKey
from tiergate.core import Clock, Emit, StorageUnavailable, new_id
from tiergate.ledger import (
    Ask,
    Balance,
    CallClosed,
    Claim,
    Counted,
    Entry,
    EntryQuery,
    Held,
    JournalStatistics,
    LapsedLine,
    LapsedSlice,
    Owner,
    Receipt,
    ReceiptEntry,
    Settled,
    Slice,
    SpentBy,
)
from tiergate.store.books import Books
from tiergate.store.folder import make_folder
from tiergate.store.past import lapsed_lines, spent_by, spent_of_jobs
from tiergate.store.reader import (
    find_entries,
    read_counted,
    read_entries,
    read_entry,
    read_keys,
    read_receipt,
    read_salts,
)
from tiergate.store.rollups import sum_slot
from tiergate.store.rows import call_row, close_row, freed_row, hold_row, kept_row, receipt_row, settle_row
from tiergate.store.scribe import lapsed_notice
from tiergate.store.session import Lapsed, Look
from tiergate.store.sqlite import look_at, open_books
from tiergate.store.writer import Writer, WriterLimits

LEDGER_FILE: Final = "ledger.db"

_READ_WAIT_S: Final = 5.0
_PAGE_MAX: Final = 1_000

Done = TypeVar("Done")


def open_journal(
    data_dir: Path,
    *,
    clock: Clock,
    randomness: Callable[[int], bytes],
    emit: Emit,
    limits: WriterLimits | None = None,
    boot: str | None = None,
) -> "LedgerJournal":
    """Give the journal of a data folder, to be entered with `async with`.

    The caller holds the folder's `OwnerLock`: entering declares every owner before this one dead.

    Args:
        data_dir: made with mode 0700 where it does not exist.
        clock: stamps records; nothing is decided by it, so it may jump.
        randomness: gives so many random bytes, such as `os.urandom`.
        emit: hears of lapsed holds and of trouble, in the event loop.
        limits: bounds of the writer, for tests.
        boot: which run of the machine this is, for tests; None: as it says itself.
    """
    path = data_dir / LEDGER_FILE

    def opened(owner_id: str, now_ns: int) -> Books:
        make_folder(data_dir)
        return open_books(path, owner_id=owner_id, now_ns=now_ns, boot=boot)

    return LedgerJournal(
        opened, look_at(path), clock=clock, randomness=randomness, emit=emit, limits=limits or WriterLimits()
    )


class LedgerJournal:
    """A `ledger.Journal` in books. Its methods belong to the event loop that entered it.

    Args:
        open_books: opens them for an owner with this id, at this time; called in the thread that writes.
        look: opens a look at them, in any thread.
        clock: stamps records.
        randomness: gives so many random bytes.
        emit: hears of lapsed holds and of trouble.
        limits: bounds of the writer.
    """

    def __init__(
        self,
        open_books: Callable[[str, int], Books],
        look: Look,
        *,
        clock: Clock,
        randomness: Callable[[int], bytes],
        emit: Emit,
        limits: WriterLimits,
    ) -> None:
        self._open_books = open_books
        self._look = look
        self._clock = clock
        self._randomness = randomness
        self._emit = emit
        self._owner: Owner | None = None
        self._epoch = 0
        self._writer = Writer(self._opened, clock=clock, emit=emit, limits=limits)

    async def __aenter__(self) -> Self:
        """Open the ledger under a new epoch; what owners before left held lapses, and a notice says so.

        Raises:
            CannotStart: with what to do about it.
        """
        books = await self._writer.start()
        self._owner = books.owner
        self._epoch = books.owner.epoch
        if books.lapsed != Lapsed():
            self._emit(lapsed_notice(books.lapsed))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what waits, sign the owner off and close the file."""
        await self._writer.stop()

    @property
    def owner(self) -> Owner:
        """The owner that writes here."""
        assert self._owner is not None, "the journal is entered first"
        return self._owner

    async def hold(self, held: Held, claims: Sequence[Claim] = ()) -> None:
        """Write a hold; see `ledger.Journal`."""
        opened = held.opened
        receipt = None if opened.receipt is None else receipt_row(opened, opened.receipt, self._epoch)
        ask = Ask(held.bound_nanos, held.target, tuple(claims)) if claims else None
        await self._writer.hold(call_row(opened, self._epoch), hold_row(held, self._epoch), receipt, ask)

    def settle(self, settled: Settled) -> None:
        """Replace a hold by the truth; see `ledger.Journal`."""
        self._writer.settle(settle_row(settled, self._epoch), kept_row(settled, self._epoch))

    def close(self, closed: CallClosed) -> None:
        """Write a call's end; see `ledger.Journal`."""
        row, freed = close_row(closed, self._epoch), freed_row(closed, self._epoch)
        self._writer.end(row, freed, costless=closed.attempts == 0)

    async def flush(self) -> None:
        """Return when everything handed in before is committed; see `ledger.Journal`."""
        await self._writer.flush()

    async def entry(self, call_id: str) -> Entry | None:
        """Read one call with its attempts; see `ledger.Journal`."""
        await self.until_written()
        return await asyncio.to_thread(read_entry, self._look, call_id)

    async def entries(self, *, after: str | None = None, limit: int = 100) -> list[Entry]:
        """Read calls in the order of their ids, at most 1,000 at once; see `ledger.Journal`."""
        await self.until_written()
        page = min(max(limit, 0), _PAGE_MAX)
        return await asyncio.to_thread(read_entries, self._look, after=after, limit=page)

    async def find(self, query: EntryQuery) -> list[Entry]:
        """Read calls that answer a question; see `ledger.Journal`."""
        await self.until_written()
        page = replace(query, limit=min(max(query.limit, 0), _PAGE_MAX))
        return await asyncio.to_thread(find_entries, self._look, page)

    async def resolve(self, call_id: str, n: int, cash_nanos: int) -> bool:
        """Settle a lapsed attempt; see `ledger.Journal`."""
        return await self._work(lambda books: books.resolve(call_id, n, cash_nanos))

    async def adjust(self, call_id: str, n: int, delta_nanos: int, reason: str) -> bool:
        """Put an adjustment beside a settled attempt; see `ledger.Journal`."""
        now_ns = self._clock.wall_ns()
        return await self._work(
            lambda books: books.adjust(call_id, n, delta_nanos, reason=reason, now_ns=now_ns)
        )

    async def spent(self, start_ns: int, end_ns: int | None) -> list[SpentBy]:
        """Add up what calls have cost; see `ledger.Journal`."""
        # The moment is fixed where the records are in order; the adding takes its time beside it.
        reading = await self._work(lambda books: books.snapshot())
        return await asyncio.to_thread(spent_by, reading, start_ns, end_ns)

    async def spent_of_jobs(self, jobs: Sequence[str]) -> list[SpentBy]:
        """Add up what jobs have cost; see `ledger.Journal`."""
        reading = await self._work(lambda books: books.snapshot())
        return await asyncio.to_thread(spent_of_jobs, reading, jobs)

    async def lapsed_lines(self, job: str) -> list[LapsedLine]:
        """Give what of a job's lines a dead owner left; see `ledger.Journal`."""
        await self.until_written()
        return await asyncio.to_thread(self._lapsed_lines, job)

    def _lapsed_lines(self, job: str) -> list[LapsedLine]:
        with self._look() as reading:
            return lapsed_lines(reading, job)

    async def receipt(self, receipt: Receipt) -> ReceiptEntry | None:
        """Look a receipt up; see `ledger.Journal`."""
        await self.until_written()
        return await asyncio.to_thread(read_receipt, self._look, receipt)

    async def counted(self, *, limit: int) -> list[Counted]:
        """Read what estimates learn from; see `ledger.Journal`."""
        return await asyncio.to_thread(read_counted, self._look, limit=limit)

    async def balances(self, claims: Sequence[Claim]) -> list[Balance]:
        """Read the balances of claims; see `ledger.SharedJournal`."""
        return await self._work(lambda books: books.balances(claims))

    async def tell(self, claim: Claim, share: float) -> bool:
        """Note that somebody is told of a spent share; see `ledger.SharedJournal`."""
        return await self._work(lambda books: books.tell(claim, share))

    async def draw(self, slices: Sequence[Slice]) -> None:
        """Write down how far spending may go; see `ledger.SoleJournal`."""
        now_ns = self._clock.wall_ns()
        await self._work(lambda books: books.draw(slices, now_ns))

    async def dead_slices(self) -> list[Slice]:
        """Give what owners had drawn that died with the machine; see `ledger.SoleJournal`."""
        return await self._work(lambda books: books.dead_slices())

    async def lapse_slice(self, found: Slice, lapsed_nanos: int) -> None:
        """Let a dead owner's slice lapse; see `ledger.SoleJournal`."""
        await self._work(lambda books: books.lapse_slice(found, lapsed_nanos))

    async def lapsed_slices(self) -> list[LapsedSlice]:
        """Give what counts as spent beside the records; see `ledger.SoleJournal`."""
        return await self._work(lambda books: books.lapsed_slices())

    async def add_up(self, *, closed_before_ns: int) -> bool:
        """Add up one quarter of an hour that ended before a moment; False: there is none to add up now.

        Raises:
            StorageUnavailable: not now.
        """
        slot_ns = await self._work(lambda books: books.begin_slot(closed_before_ns))
        if slot_ns is None:
            return False
        rows = await asyncio.to_thread(sum_slot, self._look, slot_ns)
        # Where a record came in between, the slot stays stale, and the next turn finds it.
        return await self._work(lambda books: books.end_slot(slot_ns, rows))

    async def forget(self, *, calls_before_ns: int, rollups_before_ns: int) -> bool:
        """Delete some calls that are old and added up, and old sums; False: none is left.

        Raises:
            StorageUnavailable: not now.
        """
        return await self._work(lambda books: books.forget(calls_before_ns, rollups_before_ns)) > 0

    async def forget_receipts(self, before_ns: int) -> bool:
        """Delete some receipts that are older than a moment, and their answers; False: none is left.

        Raises:
            StorageUnavailable: not now.
        """
        return await self._work(lambda books: books.forget_receipts(before_ns)) > 0

    async def _work(self, work: Callable[[Books], Done]) -> Done:
        done: list[Done] = []
        await self._writer.work(lambda books: done.append(work(books)))
        return done[0]

    async def salts(self, wanted: Mapping[str, bytes]) -> dict[str, bytes]:
        """Give the salts of all tenants, when those that are wanted and have none have these.

        Raises:
            StorageUnavailable: not now.
        """
        if not wanted:
            return await asyncio.to_thread(read_salts, self._look)
        now_ns = self._clock.wall_ns()
        return await self._work(lambda books: books.salts(wanted, now_ns))

    async def erase(self, tenant: str) -> int:
        """Delete a tenant's salt and the receipts that hold its answers; give how many these were.

        Raises:
            StorageUnavailable: not now.
        """
        return await self._work(lambda books: books.erase(tenant))

    async def keys(self) -> list[VirtualKey]:
        """Give all virtual keys; see `admission.KeyStore`."""
        return await asyncio.to_thread(read_keys, self._look)

    async def add(self, key: VirtualKey) -> list[VirtualKey] | None:
        """Keep a new virtual key; see `admission.KeyStore`."""
        return await self._work(lambda books: books.add_key(key))

    async def revoke(self, name: str, now_ns: int) -> list[VirtualKey] | None:
        """Revoke a virtual key; see `admission.KeyStore`."""
        return await self._work(lambda books: books.change_key("revoke", {"name": name, "now_ns": now_ns}))

    async def rotate(
        self, name: str, *, digest: bytes, hint: str, made_under: bytes, old_until_ns: int
    ) -> list[VirtualKey] | None:
        """Give a virtual key another digest; see `admission.KeyStore`."""
        facts = {
            "name": name,
            "digest": digest,
            "hint": hint,
            "made_under": made_under,
            "until_ns": old_until_ns,
        }
        return await self._work(lambda books: books.change_key("rotate", facts))

    def statistics(self) -> JournalStatistics:
        """What waits and what was written."""
        return self._writer.statistics()

    def _opened(self) -> Books:
        now_ns = self._clock.wall_ns()
        return self._open_books(new_id(now_ns, self._randomness(10)), now_ns)

    async def until_written(self) -> None:
        """Wait until all that was handed in can be read.

        Raises:
            StorageUnavailable: it took too long.
        """
        try:
            async with asyncio.timeout(_READ_WAIT_S):
                await self._writer.flush()
        except TimeoutError as error:
            raise StorageUnavailable(
                "The ledger has records that it cannot write now. Try again shortly."
            ) from error
