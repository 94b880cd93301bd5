"""A hold while its attempt runs: what is told of it on the way, and the settlement by the way it was left."""

from types import TracebackType
from typing import Final

from tiergate.core import (
    AttemptFailed,
    Blame,
    Clock,
    Delivery,
    Emit,
    Outcome,
    TiergateError,
    UpstreamError,
    UsageDoubted,
    UsageSource,
)
from tiergate.ledger import Book, Held, HoldState, Kept, Settled
from tiergate.metering import Account, Bound, Lines, Meter, doubts
from tiergate.resilience import Permit, judge
from tiergate.serve.books import CallBooks, CallerLeft, meaning
from tiergate.serve.ports import Exchange


class OpenHold:
    """A hold that is placed; leaving the context settles it, once, by the way it was left."""

    def __init__(
        self,
        books: CallBooks,
        held: Held,
        worst: Bound,
        meter: Meter,
        *,
        permit: Permit,
        book: Book,
        clock: Clock,
        emit: Emit,
        lines: Lines,
    ) -> None:
        self._permit = permit
        self._book = book
        self._clock = clock
        self._emit = emit
        self._lines = lines
        self._books = books
        self._held = held
        self._bound = worst
        self.meter = meter
        self.exchange: Exchange | None = None
        self._placed = clock.monotonic()
        self._sent: float | None = None
        self._first: float | None = None

    def mark_sent(self) -> None:
        """Note that from now on the request may have been delivered."""
        if self._sent is None:
            self._sent = self._clock.monotonic()
            self._books.is_asking = True

    def reported_cash_nanos(self) -> int | None:
        """Give the cost of what was reported so far; None where nothing was, or the price is unknown."""
        since = self._placed if self._sent is None else self._sent
        return self.meter.reported_cash_nanos(elapsed_s=self._clock.monotonic() - since)

    def mark_first_event(self) -> None:
        """Note that the target's first content is here."""
        self._first = self._clock.monotonic()

    def __enter__(self) -> "OpenHold":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        error = meaning(error)
        now = self._clock.monotonic()
        self._books.is_asking = False
        account = self._account(error, now)
        tokens = self.meter.rate_tokens(account)
        self._books.settle(account, tokens=tokens)
        if self._sent is not None:
            self._permit.count(tokens, output=min(tokens, account.usage.output_tokens))
        self._books.finish = self.meter.finish
        kept = self._kept() if error is None else None
        self._book.settle(self._settled(error, account, now, kept))
        if self._held.shape is not None and account.source is UsageSource.REPORTED:
            self._lines.learn(self._held.target.name, self._held.shape, account.usage.input_tokens)
        # The question knows how to mark this hold as sent: without this the two would keep each other alive,
        # and the call with them, until the garbage collector stops everything to find them.
        self.exchange = None
        self._tell_doubts(error, account, now)
        if isinstance(error, UpstreamError):
            self._emit(
                AttemptFailed(
                    call_id=self._held.call_id,
                    n=self._held.n,
                    target=self._held.target,
                    error_code=error.code,
                    status=error.status,
                    elapsed_ms=(now - self._placed) * 1e3,
                )
            )

    def _account(self, error: BaseException | None, now: float) -> Account:
        if self._sent is None or (self.exchange is None and _costs_nothing(error)):
            return self.meter.undelivered()
        elapsed_s = now - self._sent
        return (
            self.meter.delivered(elapsed_s=elapsed_s)
            if error is None
            else self.meter.cut(elapsed_s=elapsed_s)
        )

    def _tell_doubts(self, error: BaseException | None, account: Account, now: float) -> None:
        if self._sent is None:
            return
        elapsed_s = now - self._sent
        for doubt in doubts(account, self.meter, self._bound, is_complete=error is None, elapsed_s=elapsed_s):
            self._emit(
                UsageDoubted(
                    call_id=self._held.call_id,
                    n=self._held.n,
                    target=self._held.target,
                    doubt=doubt,
                    cash_nanos=account.cash_nanos,
                    bound_nanos=self._held.bound_nanos,
                    upstream_cost_nanos=self.meter.upstream_cost_nanos,
                )
            )

    def _kept(self) -> Kept | None:
        """Give the complete answer to the call's receipt, if it has one."""
        if self._books.opened.receipt is None or self._books.keep is None:
            return None
        return Kept(reply=self._books.keep())

    def _settled(
        self, error: BaseException | None, account: Account, now: float, kept: Kept | None
    ) -> Settled:
        outcome, blame = (Outcome.IGNORE, Blame.CALLER) if isinstance(error, CallerLeft) else judge(error)
        exchange, at = self.exchange, self._books.wall_ns
        undelivered = self._sent is None or (
            exchange is None and isinstance(error, UpstreamError) and error.delivery is Delivery.NONE
        )
        return Settled(
            call_id=self._held.call_id,
            n=self._held.n,
            state=HoldState.RELEASED if undelivered else HoldState.SETTLED,
            outcome=outcome,
            blame=blame,
            error_code=error.code if isinstance(error, TiergateError) else None,
            status=error.status if isinstance(error, UpstreamError) else 200 if exchange else None,
            sent_ns=at(self._placed if self._sent is None else self._sent),
            first_ns=None if self._first is None else at(self._first),
            last_ns=at(now),
            usage=account.usage,
            usage_source=account.source,
            cash_nanos=account.cash_nanos,
            upstream_cost_nanos=self.meter.upstream_cost_nanos,
            service_tier=self.meter.service_tier,
            replica=None if exchange is None else exchange.replica,
            upstream_request_id=None if exchange is None else exchange.upstream_request_id,
            kept=kept,
        )


_MAY_HAVE_RUN: Final = frozenset({408, 504, 522, 524})
"""A time-out told by the provider or by what stands in front of it: the request may run on, and be billed."""


def _costs_nothing(error: BaseException | None) -> bool:
    """Tell whether a failure proves that nothing is billed: never delivered, or refused with a status.

    Only before an answer has begun: what is said inside of an answer does not undo it.
    """
    if not isinstance(error, UpstreamError):
        return False
    refused = error.status is not None and not 200 <= error.status < 300
    return error.delivery is Delivery.NONE or (refused and error.status not in _MAY_HAVE_RUN)
