"""The books of one call: opened when it is admitted, closed exactly once, whichever way it leaves.

The closing writes the ledger's end of the call and emits the event that everybody else counts.
"""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Final

from tiergate.core import (
    CacheSaid,
    Call,
    CallEnded,
    Clock,
    Emit,
    EndState,
    Target,
    TiergateError,
)
from tiergate.ledger import Book, CallClosed, CallOpened, Looked, Shared
from tiergate.metering import Account

STOPPING: Final = "stopping"
"""The message of a cancellation by which the gateway ends a call; any other says that the caller left."""


class CallerLeft(Exception):
    """The caller went away before the end; says nothing about anybody else."""


class Stopping(TiergateError):
    """The gateway is going down and cannot finish this call."""

    code = "shutting_down"

    def __init__(self) -> None:
        super().__init__("The gateway is going down; try again, elsewhere or later.")


def meaning(error: BaseException | None) -> BaseException | None:
    """Give what a cancellation means for the books; anything else means itself."""
    if not isinstance(error, asyncio.CancelledError):
        return error
    return Stopping() if STOPPING in error.args else CallerLeft()


class CallBooks:
    """A context around a call. What it learns on the way is what its end will say.

    `count` is told the tokens of each attempt.
    """

    def __init__(
        self, opened: CallOpened, *, book: Book, clock: Clock, emit: Emit, count: Callable[[int], None]
    ) -> None:
        self.opened = opened
        self.call: Call = opened.call
        self._zero_ns = opened.call.received_ns - int(opened.call.received * 1e9)
        self._book = book
        self._clock = clock
        self._emit = emit
        self._count = count
        self.attempts = 0
        self.target: Target | None = None
        self._spent_nanos: int | None = 0
        self.account: Account | None = None
        """Of the attempt that answered, or of the last that failed."""
        self.finish: tuple[str, ...] = ()
        self.keep: Callable[[], bytes | None] | None = None
        """Gives the complete answer as it is kept, where the call has a receipt."""
        self.shared: Shared | None = None
        """The answer that somebody else has paid for."""
        self.said: CacheSaid | None = None
        """What its caller is told of the cache, and
        self.looked: what its entry says of that in the end; None: what it said at its beginning."""
        self.looked: Looked | None = None
        self._is_rescued = False
        self.is_asking = False
        """A target may be working on an answer, and bill it."""
        self.is_deserted = False
        """Nobody waits for the answer any more."""
        self._first: float | None = None

    def wall_ns(self, monotonic: float) -> int:
        """Give a moment of this call as wall time; a clock that jumps cannot reorder a call."""
        return self._zero_ns + int(monotonic * 1e9)

    def mark_first_event(self) -> None:
        """Note that content is about to leave for the caller."""
        self._first = self._clock.monotonic()

    def now(self) -> float:
        """Give this moment, on the monotonic clock."""
        return self._clock.monotonic()

    def rescue(self, shared: Shared, looked: Looked, finish: tuple[str, ...]) -> None:
        """Note that its caller is given somebody's answer after its own attempts have failed."""
        self.shared, self.looked, self.finish = shared, looked, finish
        self._is_rescued = True
        self.mark_first_event()

    def settle(self, account: Account, *, tokens: int) -> None:
        """Add the account of an attempt that is over; also of one that failed and is billed all the same.

        `tokens`: how many count for the caller's rate.
        """
        self.account = account
        self._count(tokens)
        self._spent_nanos = _sum(self._spent_nanos, account.cash_nanos)

    def cash_nanos(self, running: int | None = 0) -> int | None:
        """Give what the providers will invoice for all attempts, and for what the running one reported.

        None while a price is unknown.
        """
        return _sum(self._spent_nanos, running)

    @property
    def ttft_ms(self) -> float | None:
        """Milliseconds from receiving the call to its first content; None before that."""
        return None if self._first is None else (self._first - self.call.received) * 1e3

    @property
    def elapsed_ms(self) -> float:
        """Milliseconds since the call was received."""
        return (self._clock.monotonic() - self.call.received) * 1e3

    def __enter__(self) -> "CallBooks":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        error = None if self._is_rescued else meaning(error)
        end = self._end(error)
        code = error.code if isinstance(error, TiergateError) else None
        now = self._clock.monotonic()
        self._book.close(
            CallClosed(
                opened=self.opened,
                end=end,
                error_code=code,
                first_event_ns=None if self._first is None else self.wall_ns(self._first),
                last_event_ns=self.wall_ns(now),
                finish_reasons=self.finish,
                attempts=self.attempts,
                shared=self.shared,
                looked=self.looked,
            )
        )
        self._emit(self._ended(end, code, now))

    def _end(self, error: BaseException | None) -> EndState:
        if error is None and not self.is_deserted:
            return EndState.SUCCESS
        if self.is_deserted or isinstance(error, CallerLeft):
            return EndState.CLIENT_CLOSED
        return EndState.FAILED if self._first is None else EndState.INTERRUPTED

    def _ended(self, end: EndState, code: str | None, now: float) -> CallEnded:
        call, account = self.call, self.account
        looked, shared = self.looked or self.opened.looked, self.shared
        return CallEnded(
            call_id=call.id,
            wall_ns=self.wall_ns(now),
            endpoint=call.endpoint,
            key=call.caller.key,
            team=call.caller.team,
            tag=call.tag,
            asked_model=call.asked_model,
            call_class=call.call_class,
            streamed=call.streamed,
            end=end,
            error_code=code,
            target=self.target,
            attempts=self.attempts,
            ttft_ms=self.ttft_ms,
            total_ms=(now - call.received) * 1e3,
            usage=None if account is None else account.usage,
            usage_source=None if account is None else account.source,
            cash_nanos=None if account is None and shared is None else self._spent_nanos,
            generation=self.opened.generation,
            job=None if call.line is None else call.line.job,
            time_limit_s=call.time_limit_s,
            receipt=self.opened.receipt_use if shared is None else shared.use,
            cache=looked.outcome,
            cache_reason=looked.reason,
            avoided=None if shared is None else shared.usage,
            avoided_nanos=None if shared is None else shared.cash_nanos,
        )


def free_books(opened: CallOpened, *, book: Book, clock: Clock, emit: Emit) -> CallBooks:
    """Give the books of a call that pays nothing: it has no attempts, and uses no tokens."""
    return CallBooks(opened, book=book, clock=clock, emit=emit, count=_uncounted)


def _uncounted(tokens: int) -> None:
    """Count nothing."""


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other
