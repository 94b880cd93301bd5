"""The event loop's side of writing: hands records to the one thread that writes, brings its answers back."""

import asyncio
import atexit
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tiergate.core import Clock, Emit, Notice, StorageBroken, StorageUnavailable
from tiergate.ledger import Ask, JournalStatistics
from tiergate.store.books import Books
from tiergate.store.inbox import (
    Answer,
    EndMessage,
    FlushMessage,
    HoldMessage,
    Inbox,
    SettleMessage,
    StopMessage,
    Work,
    WorkMessage,
)
from tiergate.store.rows import Row
from tiergate.store.scribe import Scribe, Told

_AT_EXIT_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterLimits:
    """Bounds of the writer. The defaults suit every installation; tests choose smaller ones."""

    waiting_max: int = 20_000
    """Records that may wait before new holds are refused."""
    hold_wait_s: float = 5.0
    """How long a hold may wait for a locked database."""
    stop_wait_s: float = 10.0
    """How long stopping may wait for what is not written yet."""


class Writer:
    """Owns the writing thread. All its methods belong to the event loop that started it."""

    def __init__(
        self, open_books: Callable[[], Books], *, clock: Clock, emit: Emit, limits: WriterLimits
    ) -> None:
        self._open_books = open_books
        self._clock = clock
        self._emit = emit
        self._limits = limits
        self._inbox = Inbox()
        self._scribe: Scribe | None = None
        self._stopping = False
        self._taken = 0
        self._refused = 0
        self._uncounted = 0

    async def start(self) -> Books:
        """Start the thread, open the books in it, and give them: for what they say of owner and lapsed holds.

        Raises:
            CannotStart: the books cannot be opened; the thread has ended.
        """
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[Books] = self._loop.create_future()
        self._ended: Answer = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, name="tiergate-ledger", daemon=True)
        self._thread.start()
        # A daemon thread is cut off at exit, with records still waiting; this gives it time to write them.
        atexit.register(self._stop_at_exit)
        try:
            return await self._opened
        except BaseException:
            self._put_stop()
            atexit.unregister(self._stop_at_exit)
            raise

    def hold(self, call: Row, hold: Row, receipt: Row | None = None, ask: Ask | None = None) -> Answer:
        """Hand in a hold; the answer comes when it is committed or refused.

        Raises:
            StorageUnavailable: refused at once.
        """
        refusal = self._refusal()
        if refusal is None and self._waiting() >= self._limits.waiting_max:
            refusal = StorageUnavailable(
                f"The ledger has {self._waiting()} records to write first. Try again shortly."
            )
        if refusal is not None:
            self._refused += 1
            raise refusal
        answer: Answer = self._loop.create_future()
        self._taken += 1
        until = time.monotonic() + self._limits.hold_wait_s
        self._inbox.put_awaited(HoldMessage(call, hold, answer, until, receipt, ask))
        return answer

    def settle(self, row: Row, kept: Row | None = None) -> None:
        """Hand in a settlement; never refused."""
        self._put(SettleMessage(row, kept))

    def end(self, row: Row, freed: Row | None = None, *, costless: bool) -> None:
        """Hand in a call's end; of costless calls, those that come while too much waits are only counted."""
        if costless and self._waiting() >= self._limits.waiting_max:
            self._uncounted += 1
        else:
            self._put(EndMessage(row, freed))

    def flush(self) -> Answer:
        """Ask for an answer when everything handed in before is committed.

        Raises:
            StorageUnavailable: nothing is written any more.
        """
        answer = self._answer()
        self._inbox.put_awaited(FlushMessage(answer))
        return answer

    def work(self, work: Work) -> Answer:
        """Hand in something else to do with the books, in their thread; the answer comes when it is done.

        Raises:
            StorageUnavailable: nothing is written any more.
        """
        answer = self._answer()
        self._inbox.put_awaited(WorkMessage(work, answer))
        return answer

    async def stop(self) -> None:
        """Write what waits, for a bounded time, sign off and end the thread, which ends also without us."""
        self._put_stop()
        await asyncio.shield(self._ended)
        self._thread.join()
        atexit.unregister(self._stop_at_exit)

    def statistics(self) -> JournalStatistics:
        """What waits, what was written and what was not."""
        scribe = self._scribe
        if scribe is None:
            return JournalStatistics(waiting=0, commits=0, records=0, refused=self._refused)
        return JournalStatistics(
            waiting=self._waiting(),
            commits=scribe.commits,
            records=scribe.written,
            refused=self._refused + scribe.refused,
            uncounted=self._uncounted,
            lost=scribe.lost,
        )

    def _answer(self) -> Answer:
        refusal = self._refusal()
        if refusal is not None:
            raise refusal
        return self._loop.create_future()

    def _refusal(self) -> StorageUnavailable | None:
        if self._scribe is None or self._stopping:
            return StorageUnavailable("The ledger is closed.")
        return None if self._scribe.broken is None else StorageBroken(self._scribe.broken)

    def _waiting(self) -> int:
        return 0 if self._scribe is None else self._taken - self._scribe.finished

    def _put(self, message: SettleMessage | EndMessage) -> None:
        if self._stopping:
            notice = (
                "A record came after the ledger was closed; what it would settle lapses and stays charged."
            )
            self._emit(Notice(word="ledger_record_lost", message=notice, severe=True))
            return
        self._taken += 1
        self._inbox.put(message)

    def _put_stop(self) -> None:
        self._stopping = True
        self._inbox.put_awaited(StopMessage(time.monotonic() + self._limits.stop_wait_s))

    def _stop_at_exit(self) -> None:
        self._put_stop()
        self._thread.join(_AT_EXIT_S)

    def _run(self) -> None:
        """The thread: opens the books, writes until it is told to stop, closes them."""
        try:
            books = self._open_books()
        except BaseException as error:  # noqa: BLE001 - a thread's border: whoever awaits the opening gets it
            self._in_loop(self._opening_failed, error)
            return
        scribe = Scribe(
            books, self._inbox, books.checkpoints, tell=self._tell, notify=self._notify, clock=self._clock
        )
        self._scribe = scribe
        self._in_loop(self._opening_done, books)
        try:
            scribe.run()
        finally:
            books.close()
            self._in_loop(_resolve_all, [(self._ended, None)])

    def _opening_done(self, books: Books) -> None:
        if not self._opened.done():
            self._opened.set_result(books)

    def _opening_failed(self, error: BaseException) -> None:
        if not self._opened.done():
            self._opened.set_exception(error)

    def _tell(self, answers: Told) -> None:
        self._in_loop(_resolve_all, answers)

    def _notify(self, notice: Notice) -> None:
        self._in_loop(self._emit, notice)

    def _in_loop(self, function: Callable[..., object], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            return  # the loop was closed without closing the journal: nobody is left to hear it


def _resolve_all(answers: Told) -> None:
    for answer, error in answers:
        # Whoever was cancelled while it waited has gone.
        if not answer.done():
            if error is None:
                answer.set_result(None)
            else:
                answer.set_exception(error)
