"""One attempt: a permit, a hold, the way out, and the account when it is over.

The three are doors opened in this order and closed in the other, by the same exit for success, failure and
cancellation. A stream that has begun takes the open doors along (stream.py).
"""

from collections.abc import Sequence
from contextlib import closing
from types import TracebackType
from typing import Final

import msgspec

from tiergate.catalog import Price
from tiergate.core import (
    AttemptFailed,
    Blame,
    Call,
    Chunk,
    Delivery,
    Outcome,
    Target,
    TiergateError,
    Unaffordable,
    UpstreamAuthFailed,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamRejected,
    UpstreamThrottled,
    UsageDoubted,
    UsageSource,
)
from tiergate.ledger import Book, Held, HoldState, Settled
from tiergate.metering import Account, Bound, Meter, bound, doubts, shape_of
from tiergate.resilience import Permit, budget_wait_s, permit_wait_s
from tiergate.serve.books import CallBooks, CallerLeft, meaning
from tiergate.serve.doors import Doors
from tiergate.serve.egress import egress
from tiergate.serve.ports import Exchange, Question
from tiergate.serve.resolve import Resolved
from tiergate.serve.rooms import Rooms
from tiergate.wire import choices_asked, output_tokens_asked

HELD_BACK_EVENTS_MAX: Final = 64
HELD_BACK_BYTES_MAX: Final = 256 * 1024
"""Start-up events before the first content wait here, so that the target may still change."""


class Begun(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt whose first content has arrived, or whose whole reply has; `doors` close it."""

    target: Target
    n: int
    first: Sequence[Chunk]
    exchange: Exchange
    hold: "OpenHold"
    doors: Doors


async def attempt(
    rooms: Rooms, books: CallBooks, resolved: Resolved, last: Target, target: Target, n: int
) -> Begun:
    """Try one target until its first content event; without a stream, until its end.

    `last` is the route's last target: there the wait for a permit may be longer.

    Raises:
        UpstreamError: it did not answer; everything is closed and settled.
    """
    queued = rooms.clock.monotonic()
    with Doors() as doors:
        left_s = resolved.deadline - queued
        is_last = target is last
        wait_s = permit_wait_s(resolved.retry, left_s=left_s, is_last=is_last)
        permit = doors.open(await rooms.permits.take(target, wait_s=wait_s))
        hold = doors.open(await _hold(rooms, books, resolved, target, n, permit, queued, is_last=is_last))
        question = Question(
            call_id=books.call.id,
            target=target,
            body=books.call.body,
            streamed=books.call.streamed,
            deadline=resolved.deadline,
            first_event_s=resolved.first_event_s,
            idle_s=resolved.retry.idle_s,
            mark_sent=hold.mark_sent,
        )
        exchange = await egress(rooms.upstream, question, resolved.data_class)
        doors.open(closing(exchange))
        hold.exchange = exchange
        first = await _first_content(exchange, hold.meter, target)
        if not question.streamed:
            await _to_the_end(exchange)
        hold.mark_first_event()
        return Begun(target=target, n=n, first=first, exchange=exchange, hold=hold, doors=doors.hand_over())
    raise AssertionError("unreachable: doors swallow nothing")


async def _first_content(exchange: Exchange, meter: Meter, target: Target) -> list[Chunk]:
    """Collect chunks up to and with the first content event."""
    waiting: list[Chunk] = []
    size = 0
    async for chunks in exchange:
        for chunk in chunks:
            meter.take(chunk)
            size += len(chunk.data)
        waiting.extend(chunks)
        if any(chunk.content for chunk in chunks):
            return waiting
        if len(waiting) > HELD_BACK_EVENTS_MAX or size > HELD_BACK_BYTES_MAX:
            raise _no_content(target, "began with many events and no content in them")
    raise _no_content(target, "ended without any content")


async def _to_the_end(exchange: Exchange) -> None:
    """See the end of a reply that is one chunk: only then was it complete."""
    async for _ in exchange:
        raise AssertionError("a reply that is not streamed is one chunk")


def _no_content(target: Target, what: str) -> UpstreamProtocolError:
    return UpstreamProtocolError(
        f"The answer of {target.name} {what}.", target=target.name, delivery=Delivery.CONFIRMED
    )


async def _hold(
    rooms: Rooms,
    books: CallBooks,
    resolved: Resolved,
    target: Target,
    n: int,
    permit: Permit,
    queued: float,
    *,
    is_last: bool,
) -> "OpenHold":
    call = books.call
    permitted = rooms.clock.monotonic()
    price = resolved.prices.find(target, books.wall_ns(permitted))
    choices = choices_asked(call.body)
    worst = _worst(call, resolved, target, price, choices)
    # Only of text: what a picture counts is no matter of its shape.
    is_told = worst.input_tokens is not None and rooms.lines.wants(target.name)
    held = Held(
        opened=books.opened,
        n=n,
        target=target,
        bound_nanos=worst.nanos,
        price_id=None if price.record is None else price.record.id,
        queued_ns=books.wall_ns(queued),
        permit_ns=books.wall_ns(permitted),
        in_flight=permit.in_flight,
        shape=shape_of(call.body) if is_told else None,
    )
    wait_s = budget_wait_s(resolved.retry, left_s=resolved.deadline - permitted, is_last=is_last)
    await _place(rooms.book, books, held, wait_s)
    meter = Meter(bound=worst, price=price, choices=choices, sent_ns=held.permit_ns)
    return OpenHold(rooms, books, held, worst, meter)


def _worst(call: Call, resolved: Resolved, target: Target, price: Price, choices: int) -> Bound:
    output_tokens = output_tokens_asked(call.body)
    if output_tokens is None:
        output_tokens = resolved.facts(target).output_tokens
    return bound(
        call.body,
        prompt_bytes=call.prompt_bytes,
        output_tokens=output_tokens,
        choices=choices,
        price=price,
    )


async def _place(book: Book, books: CallBooks, held: Held, wait_s: float) -> None:
    """Ask for the hold. From then on the call may cost something, unless no ceiling allows it."""
    books.attempts, books.target = held.n, held.target
    try:
        await book.hold(held, wait_s=wait_s)
    except Unaffordable:
        books.attempts = held.n - 1
        raise


class OpenHold:
    """A hold that is placed; leaving the context settles it, once, by the way it was left."""

    def __init__(self, rooms: Rooms, books: CallBooks, held: Held, worst: Bound, meter: Meter) -> None:
        self._book: Book = rooms.book
        self._clock = rooms.clock
        self._emit = rooms.emit
        self._lines = rooms.lines
        self._books = books
        self._held = held
        self._bound = worst
        self.meter = meter
        self.exchange: Exchange | None = None
        self._placed = rooms.clock.monotonic()
        self._sent: float | None = None
        self._first: float | None = None

    def mark_sent(self) -> None:
        """Note that from now on the request may have been delivered."""
        if self._sent is None:
            self._sent = self._clock.monotonic()

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
        account = self._account(error, now)
        self._books.settle(account, tokens=self.meter.rate_tokens(account))
        self._books.finish = self.meter.finish
        self._book.settle(self._settled(error, account, now))
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

    def _settled(self, error: BaseException | None, account: Account, now: float) -> Settled:
        outcome, blame = _judge(error)
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


def _judge(error: BaseException | None) -> tuple[Outcome, Blame | None]:
    match error:
        case None:
            return Outcome.SUCCESS, None
        case UpstreamRejected():
            return Outcome.IGNORE, Blame.CALLER
        case UpstreamAuthFailed() | UpstreamThrottled():
            return Outcome.DROPPED, Blame.US
        case UpstreamError():
            return Outcome.DROPPED, Blame.PROVIDER
        case CallerLeft():
            return Outcome.IGNORE, Blame.CALLER
        case _:
            return Outcome.IGNORE, Blame.US
