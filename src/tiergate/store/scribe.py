"""The writing thread's side: takes what waits, commits it together, answers, and knows what to do in trouble.

    SQLite              PostgreSQL          holds               settlements and ends
    ──────              ──────────          ─────               ────────────────────
    database locked     connection lost,    wait, refused       wait, written in order
                        server restarting   after a bound
    disk full           server's disk full  refused             written into their room, or wait for space
    a record is unwritable: a number over   that one is         written with its values forced into range,
    64 bits, bad text, NUL on PostgreSQL    refused             and told
    input/output error  an error that no-   refused until       lost; what they would settle lapses, still
                        body thought of     reopened            charged

Where the connection is lost during a commit nobody knows whether it was made. Settlements and ends can be
written twice without harm; a hold of such a batch is written so that it may stand already (`Batch.again`),
and where it is refused instead it is released, in case it stands.

Its waits are real: it is a thread, and sleeps on the machine's own clock. `clock` only stamps records.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from tiergate.core import Clock, Notice, StorageBroken, StorageUnavailable, StoreOwned, TiergateError
from tiergate.store.books import Batch, Books
from tiergate.store.inbox import (
    Answer,
    EndMessage,
    FlushMessage,
    HoldMessage,
    Inbox,
    Message,
    SettleMessage,
    StopMessage,
    WorkMessage,
)
from tiergate.store.rows import kept_without_reply, place_of, released_row, settled_place, tame
from tiergate.store.session import Checkpoints, Lapsed, Place
from tiergate.store.trouble import Trouble, Unwritten

_HEARTBEAT_S: Final = 5.0
_LINGER_S: Final = 0.02
"""How long a settlement waits for a hold to share its commit; a crash within it leaves the hold lapsed."""
_IDLE_S: Final = 0.25
_IDLE_RECORDS: Final = 300
"""Fewer records than this in the write-ahead log are not worth a checkpoint when idle."""
_BUSY_RECORDS: Final = 4_000
"""That many make a checkpoint due also when busy: 4 to 36 MB of log, the less the larger the batches."""
_REST_FREE_RECORDS: Final = 4
_REST_PER_RECORD_S: Final = 50e-6
_REST_MAX_S: Final = 0.002
"""After a batch of more than a few records the thread rests, the longer the larger it was, so that more wait
for the next: a commit costs as much as writing 10 records. With few calls it does not rest."""
_FULL_PAUSE_MIN_S: Final = 0.25
_FULL_PAUSE_MAX_S: Final = 2.0

_UNWRITABLE: Final = (
    "The record of this call cannot be written. If this machine's clock was set back by weeks, set it right."
)
_WAITING: Final = "The ledger has records that it cannot write now. Try again shortly."
_TAKEN: Final = (
    "The record of this call cannot be written, most likely since its Idempotency-Key is in use at another "
    "replica. Send it again shortly."
)
_UNDONE: Final = "The ledger cannot be changed now ({}). Try again shortly."
_UNSURE: Final = (
    "The connection to the ledger was lost while this was written ({}). Look whether it was, before you try "
    "again."
)
_UNSIGNED: Final = "The ledger was closed without signing off ({})."
_FORCED: Final = (
    "A record held numbers or text that no ledger can hold; it was written with them forced into range."
)
_LOST: Final = (
    "A settlement or an end could not be written, by force neither; its hold lapses and stays charged."
)
_LEFT: Final = "{} records could not be written before the ledger was closed; what was held lapses."
_CLOSING: Final = "The ledger is being closed."

Told = list[tuple[Answer, TiergateError | None]]


@dataclass(slots=True)
class _Pending:
    holds: list[HoldMessage] = field(default_factory=list)
    settlements: list[SettleMessage] = field(default_factory=list)
    ends: list[EndMessage] = field(default_factory=list)
    flushes: list[Answer] = field(default_factory=list)
    work: WorkMessage | None = None

    def records(self) -> int:
        return len(self.holds) + len(self.settlements) + len(self.ends)

    def unwritten(self) -> "_Pending":
        """Give what remains when the records are written."""
        return _Pending(flushes=self.flushes, work=self.work)


class Scribe:
    """Writes an inbox into the books until it is told to stop.

    Args:
        books: open, and used by nobody else.
        inbox: what to write.
        checkpoints: of the same database.
        tell: passes answers to those who await them; must not block.
        notify: passes a notice on; must not block.
        clock: stamps the owner's heartbeat.
    """

    def __init__(
        self,
        books: Books,
        inbox: Inbox,
        checkpoints: Checkpoints,
        *,
        tell: Callable[[Told], None],
        notify: Callable[[Notice], None],
        clock: Clock,
    ) -> None:
        self._books = books
        self._inbox = inbox
        self._checkpoints = checkpoints
        self._sayings = books.sayings
        self._tell = tell
        self._notify = notify
        self._clock = clock
        self._pending = _Pending()
        self._later: deque[Message] = deque()
        """Taken out of the inbox, and to be looked at when the work before them is done."""
        self._told: Told = []
        self._trouble: Trouble | None = None
        """The trouble that a notice was given of, until it is over."""
        self._pause_s = 0.0
        self._doubtful: set[tuple[str, int]] = set()
        """Attempts whose holds may be written, or not."""
        self._unaffordable: dict[Place, TiergateError] = {}
        """Holds of the last batch that did not fit."""
        self._unchecked = 0
        self._beat_at = time.monotonic() + _HEARTBEAT_S
        self._stop_by: float | None = None
        self.broken: str | None = None
        """Why nothing is written any more."""
        self.finished = 0
        """Records that need no more waiting for: written, refused or lost."""
        self.written = 0
        self.commits = 0
        self.refused = 0
        self.lost = 0

    def run(self) -> None:
        """Work until a stop message has come and what waits is written, or its time is over."""
        while not self._may_stop():
            try:
                self.turn()
            except Exception as error:  # noqa: BLE001 - the thread must live: everybody who waits, waits for it
                self._break(f"The ledger's writer failed ({type(error).__name__}). Restart Tiergate.")
                self._send_answers()
        left = self._pending.records()
        if left:
            self._notify(Notice(word="ledger_record_lost", message=_LEFT.format(left), severe=True))
        self._drop_pending(_CLOSING)
        self._send_answers()
        self._checkpoints.wait()
        if not left and self.broken is None:
            self._sign_off()

    def turn(self) -> None:
        """Take what waits, write it, answer, look after the file."""
        took = self._take()
        if self.broken is not None:
            self._drop_pending(self.broken)
        elif self._pending.records():
            self._write()
        if not self._pending.records():
            self._told += [(answer, None) for answer in self._pending.flushes]
            self._pending.flushes.clear()
            self._work()
        else:
            self._refuse_work(_WAITING)
        self._send_answers()
        self._upkeep(idle=not took)

    def _may_stop(self) -> bool:
        if self._stop_by is None:
            return False
        return not self._pending.records() or time.monotonic() >= self._stop_by

    def _take(self) -> bool:
        if self._pause_s:
            time.sleep(self._pause_s)
            self._pause_s = 0.0
        if self._later:
            messages, self._later = list(self._later), deque()
        elif self._pending.records():
            messages = self._inbox.take(wait_s=0.0, linger_s=0.0)
        else:
            wait_s = _IDLE_S if self._unchecked >= _IDLE_RECORDS else self._beat_at - time.monotonic()
            messages = self._inbox.take(wait_s=max(wait_s, 0.0), linger_s=_LINGER_S)
        self._sort(messages)
        return bool(messages)

    def _take_more(self) -> None:
        """Take what has come since; nothing that comes after work which sees only what was before it."""
        if self._pending.work is None and not self._later:
            self._sort(self._inbox.take(wait_s=0.0, linger_s=0.0))

    def _sort(self, messages: Sequence[Message]) -> None:
        pending = self._pending
        for place, message in enumerate(messages, start=1):
            match message:
                case HoldMessage():
                    pending.holds.append(message)
                case SettleMessage():
                    pending.settlements.append(message)
                case EndMessage():
                    pending.ends.append(message)
                case FlushMessage():
                    pending.flushes.append(message.answer)
                case WorkMessage():
                    # Work sees what was handed in before it, and nothing that comes after.
                    pending.work = message
                    self._later.extend(messages[place:])
                    break
                case StopMessage():
                    self._stop_by = message.by

    def _gather(self) -> Batch:
        """Give everything that waits, also what came while others wrote the database."""
        self._take_more()
        pending = self._pending
        return self._batch(holds=pending.holds, settlements=pending.settlements, ends=pending.ends)

    def _write(self) -> None:
        trouble = self._attempt(self._gather)
        if trouble is None:
            rest_s = (self._pending.records() - _REST_FREE_RECORDS) * _REST_PER_RECORD_S
            self._pause_s = min(max(rest_s, 0.0), _REST_MAX_S)
            self._told += [self._answer_to(hold) for hold in self._pending.holds]
            # On a full disk settlements are written too; it has passed when something new is.
            if self._trouble is Trouble.LOCKED or self._pending.holds:
                self._recovered()
            self._pending = self._pending.unwritten()
        elif trouble is Trouble.LOCKED:
            self._refuse_overdue()
        elif trouble is not Trouble.BROKEN:
            self._write_one_by_one()

    def _attempt(self, gather: Callable[[], Batch]) -> Trouble | None:
        """Write a batch; tell what was in the way, after which none of it is written."""
        batch = Batch()

        def begun() -> Batch:
            nonlocal batch
            batch = gather()
            return batch

        try:
            self._unaffordable = self._books.write(begun)
        except StoreOwned as error:
            self._break(str(error))
            return Trouble.BROKEN
        except Unwritten as error:
            if error.trouble is Trouble.BROKEN:
                self._break(self._sayings.broken.format(error.word))
            if error.doubtful:
                self._doubtful.update(map(place_of, (*batch.holds, *batch.again)))
            return error.trouble
        self._doubtful.difference_update(map(place_of, batch.again))
        self.commits += 1
        self.written += len(batch) - len(self._unaffordable)
        self.refused += len(self._unaffordable)
        self.finished += len(batch)
        self._unchecked += len(batch)
        return None

    def _batch(
        self,
        *,
        holds: Sequence[HoldMessage] = (),
        settlements: Sequence[SettleMessage] = (),
        ends: Sequence[EndMessage] = (),
    ) -> Batch:
        """Give a batch. Of holds that may be written already, nobody wants to hear that they are."""
        rows = [hold.hold for hold in holds]
        return Batch(
            calls=[hold.call for hold in holds],
            holds=[row for row in rows if place_of(row) not in self._doubtful] if self._doubtful else rows,
            again=[row for row in rows if place_of(row) in self._doubtful] if self._doubtful else [],
            settlements=[settlement.row for settlement in settlements],
            ends=[end.row for end in ends],
            receipts=[hold.receipt for hold in holds if hold.receipt is not None],
            kept=[settlement.kept for settlement in settlements if settlement.kept is not None],
            freed=[end.freed for end in ends if end.freed is not None],
            asks={place_of(hold.hold): hold.ask for hold in holds if hold.ask is not None},
        )

    def _work(self) -> None:
        """Do what else there is to do."""
        if self._pending.work is None:
            return
        work, answer = self._pending.work
        refusal: TiergateError | None = None
        try:
            work(self._books)
        except StoreOwned as error:
            self._break(str(error))
            return
        except TiergateError as error:
            refusal = error
        except Unwritten as error:
            if error.trouble is Trouble.BROKEN:
                self._break(self._sayings.broken.format(error.word))
                return
            refusal = StorageUnavailable((_UNSURE if error.doubtful else _UNDONE).format(error.word))
        self._pending.work = None
        self._told.append((answer, refusal))
        self._unchecked += 1

    def _refuse_work(self, sentence: str) -> None:
        if self._pending.work is not None:
            self._told.append((self._pending.work.answer, self._refusal(sentence)))
            self._pending.work = None

    def _refuse_overdue(self) -> None:
        now = time.monotonic()
        waiting: list[HoldMessage] = []
        for hold in self._pending.holds:
            if hold.until <= now:
                self._refuse(hold, self._sayings.locked)
                self._in_trouble(Trouble.LOCKED, "ledger_locked", self._sayings.locked)
            else:
                waiting.append(hold)
        self._pending.holds = waiting

    def _write_one_by_one(self) -> None:
        """After a batch failed: none of its records takes another with it."""
        began = time.monotonic()
        batch, self._pending = self._pending, self._pending.unwritten()
        met: set[Trouble] = set()
        # A hold may stand on money that a settlement gave back, so that one is written first, or both wait.
        held = {place_of(hold.hold) for hold in batch.holds}
        steps: deque[HoldMessage | SettleMessage | EndMessage] = deque(
            one for one in batch.settlements if settled_place(one.row) not in held
        )
        steps.extend(batch.holds)
        steps.extend(one for one in batch.settlements if settled_place(one.row) in held)
        steps.extend(batch.ends)
        try:
            while steps:
                self._write_one(steps[0], met)
                steps.popleft()
                self._beat_if_due()
        finally:
            # Where an error comes that nobody thought of, somebody still has to be told.
            for left in steps:
                self._put_off(left)
        if Trouble.FULL in met:
            self._in_trouble(Trouble.FULL, "ledger_full", self._sayings.full)
            took = time.monotonic() - began
            self._pause_s = min(max(4 * took, _FULL_PAUSE_MIN_S), _FULL_PAUSE_MAX_S)

    def _write_one(self, message: HoldMessage | SettleMessage | EndMessage, met: set[Trouble]) -> None:
        match message:
            case HoldMessage():
                self._hold_one(message, met)
            case SettleMessage():
                self._settle_one(message, met)
            case EndMessage():
                if self._must_wait(self._attempt_one(self._batch(ends=[message]), met)):
                    self._put_off(message)

    def _put_off(self, message: HoldMessage | SettleMessage | EndMessage) -> None:
        match message:
            case HoldMessage():
                self._pending.holds.append(message)
            case SettleMessage():
                self._pending.settlements.append(message)
            case EndMessage():
                self._pending.ends.append(message)

    def _hold_one(self, hold: HoldMessage, met: set[Trouble]) -> None:
        trouble = Trouble.FULL if Trouble.FULL in met else self._attempt_one(self._batch(holds=[hold]), met)
        if trouble is None:
            self._told.append(self._answer_to(hold))
        elif trouble is Trouble.LOCKED:
            self._put_off(hold)
        else:
            self._refuse(hold, self.broken or self._why_not(hold, trouble))

    def _settle_one(self, one: SettleMessage, met: set[Trouble]) -> None:
        trouble = self._attempt_one(self._batch(settlements=[one]), met)
        if trouble is Trouble.FULL and one.kept is not None:
            # There is room for the settlement and none for the answer: so that is not kept.
            trouble = self._attempt_one(self._batch(settlements=[_without_reply(one)]), met)
        if self._must_wait(trouble):
            self._put_off(one)

    def _answer_to(self, hold: HoldMessage) -> tuple[Answer, TiergateError | None]:
        return hold.answer, self._unaffordable.get(place_of(hold.hold))

    def _why_not(self, hold: HoldMessage, trouble: Trouble) -> str:
        if trouble is Trouble.FULL:
            return self._sayings.full
        return _UNWRITABLE if hold.receipt is None else _TAKEN

    def _attempt_one(self, batch: Batch, met: set[Trouble]) -> Trouble | None:
        """Write a batch of one record, by force if it must be; `met` are the troubles of this round."""
        if Trouble.BROKEN in met or Trouble.LOCKED in met:
            return Trouble.BROKEN if Trouble.BROKEN in met else Trouble.LOCKED
        trouble = self._attempt(lambda: batch)
        if trouble is Trouble.RECORD:
            trouble = self._attempt(lambda: _tamed(batch))
            if trouble is None:
                self._notify(Notice(word="ledger_value_forced", message=_FORCED, severe=True))
        if trouble is not None:
            met.add(trouble)
        return trouble

    def _must_wait(self, trouble: Trouble | None) -> bool:
        if trouble is None:
            return False
        if trouble is Trouble.LOCKED or trouble is Trouble.FULL:
            return True
        self._lose(1)
        if trouble is Trouble.RECORD:
            self._notify(Notice(word="ledger_record_lost", message=_LOST, severe=True))
        return False

    def _refuse(self, hold: HoldMessage, sentence: str) -> None:
        if place_of(hold.hold) in self._doubtful:
            # It may stand, and nobody will settle it.
            self._doubtful.discard(place_of(hold.hold))
            self._pending.settlements.append(SettleMessage(released_row(hold.hold)))
            self.finished -= 1
        self.refused += 1
        self.finished += 1
        self._told.append((hold.answer, self._refusal(sentence)))

    def _refusal(self, sentence: str) -> TiergateError:
        return StorageUnavailable(sentence) if self.broken is None else StorageBroken(sentence)

    def _lose(self, records: int) -> None:
        self.lost += records
        self.finished += records

    def _break(self, sentence: str) -> None:
        """Write nothing more: what the disk holds now is not known, so no promise can be made."""
        if self.broken is None:
            self.broken = sentence
            self._notify(Notice(word="ledger_broken", message=sentence, severe=True))
        self._drop_pending(sentence)

    def _drop_pending(self, sentence: str) -> None:
        for hold in self._pending.holds:
            self._refuse(hold, sentence)
        self._told += [(answer, self._refusal(sentence)) for answer in self._pending.flushes]
        self._refuse_work(sentence)
        self._lose(len(self._pending.settlements) + len(self._pending.ends))
        self._pending = _Pending()

    def _in_trouble(self, trouble: Trouble, word: str, sentence: str) -> None:
        if self._trouble is not trouble:
            self._trouble = trouble
            self._notify(Notice(word=word, message=sentence, severe=True))

    def _recovered(self) -> None:
        if self._trouble is not None:
            self._trouble = None
            self._notify(Notice(word="ledger_recovered", message="The ledger is written again."))

    def _send_answers(self) -> None:
        if self._told:
            self._tell(self._told)
            self._told = []

    def _upkeep(self, *, idle: bool) -> None:
        if self.broken is not None:
            return
        self._beat_if_due()
        if self._unchecked >= (_IDLE_RECORDS if idle else _BUSY_RECORDS):
            self._unchecked = 0
            self._checkpoints.start()
        if self._checkpoints.failure is not None:
            self._break(self._sayings.broken.format(self._checkpoints.failure.word))

    def _beat_if_due(self) -> None:
        if self.broken is None and time.monotonic() >= self._beat_at:
            self._beat()

    def _beat(self) -> None:
        """Say that the owner lives. It can be said later as well: a lock or a full disk passes by."""
        self._beat_at = time.monotonic() + _HEARTBEAT_S
        self._unchecked += 1
        try:
            lapsed = self._books.heartbeat(self._clock.wall_ns())
            if lapsed != Lapsed():
                self._notify(lapsed_notice(lapsed))
        except StoreOwned as error:
            self._break(str(error))
        except Unwritten as error:
            if error.trouble is Trouble.BROKEN:
                self._break(self._sayings.broken.format(error.word))

    def _sign_off(self) -> None:
        """Leave with the books closed. Where that fails the next owner finds this one dead."""
        try:
            self._books.leave(self._clock.wall_ns())
        except (Unwritten, StoreOwned) as error:
            word = error.word if isinstance(error, Unwritten) else type(error).__name__
            self._notify(Notice(word="ledger_not_signed_off", message=_UNSIGNED.format(word)))


def lapsed_notice(lapsed: Lapsed) -> Notice:
    """Say what owners that died left behind."""
    message = (
        f"A process did not close its books: {lapsed.holds} holds and {lapsed.calls} calls lapsed. The holds "
        f"stay charged at their worst case until somebody settles them: tiergate entries list --lapsed."
    )
    return Notice(word="ledger_lapsed", message=message, severe=True)


def _without_reply(settlement: SettleMessage) -> SettleMessage:
    return settlement._replace(kept=None if settlement.kept is None else kept_without_reply(settlement.kept))


def _tamed(batch: Batch) -> Batch:
    return replace(
        batch,
        calls=[tame(row) for row in batch.calls],
        holds=[tame(row) for row in batch.holds],
        settlements=[tame(row) for row in batch.settlements],
        ends=[tame(row) for row in batch.ends],
        again=[tame(row) for row in batch.again],
    )
