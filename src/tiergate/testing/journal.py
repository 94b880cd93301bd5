"""A journal in memory: the same rules as the real one, everything readable, nothing on disk."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from msgspec import structs

from tiergate.core import NOTHING, EndState, StorageUnavailable, UsageSource
from tiergate.ledger import (
    HOLD,
    RECEIPT,
    Adjustment,
    AttemptEntry,
    CallClosed,
    CallOpened,
    Claim,
    Counted,
    Entry,
    EntryQuery,
    Held,
    HoldState,
    JournalStatistics,
    LapsedLine,
    LapsedSlice,
    OfJob,
    Owner,
    Receipt,
    ReceiptEntry,
    ReceiptState,
    Settled,
    Shared,
    Slice,
    SpentBy,
    Window,
    about,
    may_move,
)


@dataclass(slots=True)
class _Attempt:
    held: Held
    state: HoldState = HoldState.HELD
    settled: Settled | None = None


class MemoryJournal:
    """A `ledger.Journal` that forgets everything with the process.

    Attributes:
        fail_holds: while it is True every hold is refused, as on a full disk; the rest goes on.
        drawn: how far the spending of each ceiling may go in a window.
        held: the holds that were placed, in order.
        settled: the settlements that changed a hold, in order.
        closed: the ends that were the first of their call, in order.
        ignored: settlements and ends that changed nothing: of no hold, or the second of their kind.
    """

    def __init__(self, *, owner: Owner | None = None, fail_holds: bool = False) -> None:
        self._owner = owner or Owner(id="memory", epoch=1)
        self._opened: dict[str, CallOpened] = {}
        self._ends: dict[str, CallClosed] = {}
        self._attempts: dict[tuple[str, int], _Attempt] = {}
        self._adjustments: dict[str, list[Adjustment]] = {}
        self._refused = 0
        self._records = 0
        self._receipts: dict[tuple[str, str, bytes], ReceiptEntry] = {}
        self.fail_holds = fail_holds
        self.drawn: dict[tuple[str, Window], int] = {}
        self.held: list[Held] = []
        self.settled: list[Settled] = []
        self.closed: list[CallClosed] = []
        self.ignored: list[Settled | CallClosed] = []

    @property
    def owner(self) -> Owner:
        """The owner that writes here."""
        return self._owner

    @property
    def open_holds(self) -> list[Held]:
        """Holds that are neither settled nor released; none should be left when all calls have ended."""
        return [attempt.held for attempt in self._attempts.values() if attempt.state is HoldState.HELD]

    async def hold(self, held: Held, claims: Sequence[Claim] = ()) -> None:
        """Place a hold; see `ledger.Journal`. An attempt that is held already is refused."""
        attempt = (held.call_id, held.n)
        if self.fail_holds or attempt in self._attempts:
            self._refused += 1
            why = "was told to refuse holds" if self.fail_holds else "has a hold of this attempt already"
            raise StorageUnavailable(f"The journal {why}.")
        self._records += 1
        self._opened.setdefault(held.call_id, held.opened)
        self._attempts[attempt] = _Attempt(held)
        self._open_receipt(held.opened)
        self.held.append(held)

    def settle(self, settled: Settled) -> None:
        """Replace a hold by the truth; see `ledger.Journal`."""
        self._records += 1
        attempt = self._attempts.get((settled.call_id, settled.n))
        if attempt is None or not may_move(HOLD, attempt.state, settled.state):
            self.ignored.append(settled)
            return
        attempt.state, attempt.settled = settled.state, settled
        if settled.kept is not None:
            self._end_receipt(attempt.held.opened, ReceiptState.DONE, settled.kept.reply)
        self.settled.append(settled)

    def close(self, closed: CallClosed) -> None:
        """Write a call's end; see `ledger.Journal`."""
        self._records += 1
        call_id = closed.opened.call.id
        if call_id in self._ends:
            self.ignored.append(closed)
            return
        self._opened.setdefault(call_id, closed.opened)
        self._ends[call_id] = closed
        if closed.end is not EndState.SUCCESS or closed.shared is not None:
            self._end_receipt(closed.opened, ReceiptState.FREED, None)
        self.closed.append(closed)

    async def flush(self) -> None:
        """Return at once: nothing ever waits."""

    async def entry(self, call_id: str) -> Entry | None:
        """Read one call with its attempts."""
        opened = self._opened.get(call_id)
        return None if opened is None else self._entry(opened)

    async def entries(self, *, after: str | None = None, limit: int = 100) -> list[Entry]:
        """Read calls in the order of their ids, those after `after`, at most `limit`."""
        ids = sorted(call_id for call_id in self._opened if call_id > (after or ""))
        return [self._entry(self._opened[call_id]) for call_id in ids[: max(limit, 0)]]

    async def find(self, query: EntryQuery) -> list[Entry]:
        """Read calls that answer a question, newest first."""
        found = []
        for call_id in sorted(self._opened, reverse=True):
            entry = self._entry(self._opened[call_id])
            wanted = [(query.key, entry.key), (query.team, entry.team), (query.tag, entry.tag)]
            wanted += [(query.model, entry.asked_model), (query.job, entry.job)]
            is_wanted = all(asked is None or asked == has for asked, has in wanted)
            is_old = (query.before is None or call_id < query.before) and entry.received_ns >= query.since_ns
            if is_wanted and is_old and not query.is_lapsed:
                adjustments = tuple(self._adjustments.get(call_id, ()))
                found.append(replace(entry, adjustments=adjustments))
        return found[: max(query.limit, 0)]

    async def resolve(self, call_id: str, n: int, cash_nanos: int) -> bool:
        """Say no: nothing lapses here."""
        return False

    async def adjust(self, call_id: str, n: int, delta_nanos: int, reason: str) -> bool:
        """Put an adjustment beside a settled attempt; see `ledger.Journal`."""
        attempt = self._attempts.get((call_id, n))
        settled = None if attempt is None else attempt.settled
        beside = self._adjustments.setdefault(call_id, [])
        before = sum(one.delta_nanos for one in beside if one.n == n)
        if settled is None or (settled.cash_nanos or 0) + before + delta_nanos < 0:
            return False
        beside.append(Adjustment(n=n, delta_nanos=delta_nanos, reason=reason, written_ns=0))
        return True

    async def spent(self, start_ns: int, end_ns: int | None) -> list[SpentBy]:
        """Add up what calls have cost; see `ledger.Journal`. Nothing lapses here."""
        return [
            SpentBy(about(attempt.held.opened, attempt.held.target), self._cost(attempt), 0)
            for attempt in self._attempts.values()
            if attempt.settled is not None
            and start_ns <= attempt.held.opened.call.received_ns
            and (end_ns is None or attempt.held.opened.call.received_ns < end_ns)
        ]

    async def spent_of_jobs(self, jobs: Sequence[str]) -> list[SpentBy]:
        """Add up what jobs have cost; see `ledger.Journal`. Nothing lapses here."""
        found = [SpentBy(OfJob(job), 0, 0) for job in jobs]
        for attempt in self._attempts.values():
            line = attempt.held.opened.call.line
            if attempt.settled is not None and line is not None and line.job in jobs:
                at = jobs.index(line.job)
                found[at] = found[at]._replace(spent_nanos=found[at].spent_nanos + self._cost(attempt))
        return found

    async def lapsed_lines(self, job: str) -> list[LapsedLine]:
        """Give none: nothing lapses here."""
        return []

    async def receipt(self, receipt: Receipt) -> ReceiptEntry | None:
        """Look a receipt up; see `ledger.Journal`."""
        found = self._receipts.get(receipt.scope)
        return None if found is None or found.created_ns < receipt.since_ns else found

    async def draw(self, slices: Sequence[Slice]) -> None:
        """Remember how far spending may go; see `ledger.SoleJournal`."""
        for one in slices:
            self.drawn[one.ceiling, one.window] = one.amount_nanos

    async def dead_slices(self) -> list[Slice]:
        """Give none: nothing outlives the process here."""
        return []

    async def lapse_slice(self, found: Slice, lapsed_nanos: int) -> None:
        """Do nothing: there is none."""

    async def lapsed_slices(self) -> list[LapsedSlice]:
        """Give none."""
        return []

    def _open_receipt(self, opened: CallOpened) -> None:
        receipt = opened.receipt
        if receipt is None:
            return
        found = self._receipts.get(receipt.scope)
        if found is not None and found.call_id == opened.call.id:
            return  # of an attempt before
        self._receipts[receipt.scope] = ReceiptEntry(
            state=ReceiptState.RUNNING,
            fingerprint=receipt.fingerprint,
            call_id=opened.call.id,
            created_ns=opened.call.received_ns,
            reply=None,
        )

    def _end_receipt(self, opened: CallOpened, state: ReceiptState, reply: bytes | None) -> None:
        scope = None if opened.receipt is None else opened.receipt.scope
        found = None if scope is None else self._receipts.get(scope)
        if scope is None or found is None or found.call_id != opened.call.id:
            return
        if may_move(RECEIPT, found.state, state):
            self._receipts[scope] = structs.replace(found, state=state, reply=reply)

    async def counted(self, *, limit: int) -> list[Counted]:
        """Read what estimates learn from."""
        found = [
            Counted(
                target=attempt.held.target.name,
                shape=attempt.held.shape,
                input_tokens=attempt.settled.usage.input_tokens,
            )
            for attempt in self._attempts.values()
            if attempt.held.shape is not None
            and attempt.settled is not None
            and attempt.settled.usage_source is UsageSource.REPORTED
        ]
        return found[-limit:]

    def statistics(self) -> JournalStatistics:
        """What was written; every record is its own commit."""
        return JournalStatistics(
            waiting=0, commits=self._records, records=self._records, refused=self._refused
        )

    def _cost(self, attempt: _Attempt) -> int:
        beside = self._adjustments.get(attempt.held.call_id, ())
        more = sum(one.delta_nanos for one in beside if one.n == attempt.held.n)
        return more + ((attempt.settled.cash_nanos or 0) if attempt.settled is not None else 0)

    def _entry(self, opened: CallOpened) -> Entry:
        call = opened.call
        closed = self._ends.get(call.id)
        attempts = sorted(
            (attempt for (call_id, _), attempt in self._attempts.items() if call_id == call.id),
            key=lambda attempt: attempt.held.n,
        )
        entry = Entry(
            call_id=call.id,
            cause=call.cause.value,
            key=call.caller.key,
            team=call.caller.team,
            tenant=call.caller.tenant,
            tag=call.tag,
            endpoint=call.endpoint,
            asked_model=call.asked_model,
            call_class=call.call_class.value,
            data_class=call.data_class.value,
            streamed=call.streamed,
            generation=opened.generation,
            received_ns=call.received_ns,
            first_event_ns=None,
            last_event_ns=None,
            prompt_bytes=call.prompt_bytes,
            route=opened.route,
            finish_reasons=(),
            error_code=None,
            end=None,
            attempts=tuple(_attempt_entry(attempt) for attempt in attempts),
            receipt=opened.receipt_use,
            answer_of=opened.resent_of,
            job=None if call.line is None else call.line.job,
            line=None if call.line is None else call.line.n,
            looked=opened.looked,
        )
        if closed is None:
            return entry
        entry = _with_shared(entry, closed.shared)
        return replace(
            entry,
            first_event_ns=closed.first_event_ns,
            last_event_ns=closed.last_event_ns,
            finish_reasons=closed.finish_reasons,
            error_code=closed.error_code,
            end=closed.end,
            looked=closed.looked or opened.looked,
        )


def _with_shared(entry: Entry, shared: Shared | None) -> Entry:
    if shared is None:
        return entry
    return replace(
        entry,
        receipt=shared.use,
        answer_of=shared.of,
        avoided_input=shared.usage.input_tokens,
        avoided_output=shared.usage.output_tokens,
        avoided_nanos=shared.cash_nanos,
    )


def _attempt_entry(attempt: _Attempt) -> AttemptEntry:
    held, settled = attempt.held, attempt.settled
    entry = AttemptEntry(
        n=held.n,
        target=held.target.name,
        tier=held.target.tier.value,
        replica=None,
        state=attempt.state,
        outcome=None,
        blame=None,
        error_code=None,
        bound_nanos=held.bound_nanos,
        usage=NOTHING,
        usage_source=UsageSource.NONE,
        price_id=held.price_id,
        cash_nanos=None,
        sent_ns=None,
        first_ns=None,
        last_ns=None,
    )
    if settled is None:
        return entry
    return replace(
        entry,
        replica=settled.replica,
        outcome=settled.outcome,
        blame=settled.blame,
        error_code=settled.error_code,
        usage=settled.usage,
        usage_source=settled.usage_source,
        cash_nanos=settled.cash_nanos,
        sent_ns=settled.sent_ns,
        first_ns=settled.first_ns,
        last_ns=settled.last_ns,
    )
