"""One attempt: a permit, a hold, the way out, and the account when it is over.

The three are doors opened in this order and closed in the other, by the same exit for success, failure and
cancellation. A stream that has begun takes the open doors along (stream.py).
"""

from collections.abc import Mapping
from contextlib import closing
from functools import partial
from typing import Any, Final

from tiergate.catalog import Price
from tiergate.core import (
    Call,
    Chunk,
    DeadlineExceeded,
    Delivery,
    Target,
    Unaffordable,
    UpstreamProtocolError,
    UpstreamTimeout,
)
from tiergate.ledger import Book, Held
from tiergate.metering import Bound, Meter, bound, shape_of
from tiergate.resilience import Permit, budget_wait_s, permit_wait_s
from tiergate.serve.begun import Begun
from tiergate.serve.books import CallBooks, CallerLeft
from tiergate.serve.doors import Doors
from tiergate.serve.egress import egress
from tiergate.serve.entrance import tokens_asked
from tiergate.serve.hold import OpenHold
from tiergate.serve.ports import Exchange, Question
from tiergate.serve.resolve import Resolved
from tiergate.serve.rooms import Rooms
from tiergate.wire import choices_asked, output_tokens_asked

HELD_BACK_EVENTS_MAX: Final = 64
HELD_BACK_BYTES_MAX: Final = 256 * 1024
"""Start-up events before the first content wait here, so that the target may still change."""


async def attempt(
    rooms: Rooms, books: CallBooks, resolved: Resolved, last: Target, target: Target, n: int
) -> Begun:
    """Try one target until its first content event; without a stream, until its end.

    `last` is the route's last target: there the wait for a permit may be longer.

    Raises:
        UpstreamError: it did not answer; everything is closed and settled.
    """
    if books.is_deserted:
        raise CallerLeft
    queued = rooms.clock.monotonic()
    with Doors() as doors:
        left_s = resolved.deadline - queued
        is_last = target is last
        wait_s = permit_wait_s(resolved.retry, left_s=left_s, is_last=is_last)
        rooms.health.check(target)
        permit = doors.open(
            await rooms.permits.take(
                target,
                wait_s=wait_s,
                tokens=partial(tokens_asked, books.call),
                call_class=books.call.call_class,
            )
        )
        _check_time(rooms, resolved)
        trial = doors.open(rooms.health.enter(target))
        hold = doors.open(await _hold(rooms, books, resolved, target, n, permit, queued, is_last=is_last))
        patience = resolved.patience(target)
        question = Question(
            call_id=books.call.id,
            target=target,
            body=books.call.body,
            beside=_beside(rooms, books.call, resolved, target),
            streamed=books.call.streamed,
            deadline=resolved.deadline,
            first_event_s=patience.first_event_s,
            idle_s=patience.idle_s,
            mark_sent=hold.mark_sent,
        )
        if books.is_deserted:
            raise CallerLeft
        try:
            exchange = await egress(rooms.upstream, question, resolved.data_class)
            doors.open(closing(exchange))
            permit.learn(exchange.allowances)
            hold.exchange = exchange
            first = await _first_content(exchange, hold.meter, target)
            if not question.streamed:
                await _to_the_end(exchange)
        except UpstreamTimeout as error:
            if error.phase == "first_event" and patience.is_hasty:
                # The caller's own short time was over, which says nothing of the target.
                error.phase = "total"
            raise
        hold.mark_first_event()
        trial.mark_first_content()
        return Begun(target=target, n=n, first=first, exchange=exchange, hold=hold, doors=doors.hand_over())
    raise AssertionError("unreachable: doors swallow nothing")


def _beside(rooms: Rooms, call: Call, resolved: Resolved, target: Target) -> Mapping[str, Any]:
    """Give what a provider is told beside the request, where its settings say so."""
    wanted = resolved.hints.get(target.provider)
    return rooms.cache.hints(call.caller.partition, call.body, wanted) if wanted else {}


def _check_time(rooms: Rooms, resolved: Resolved) -> None:
    """See that there is time left after a wait: of a process that was stopped, say."""
    if rooms.clock.monotonic() >= resolved.deadline:
        raise DeadlineExceeded("The time for this call was over before it was its turn.")


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
) -> OpenHold:
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
    return OpenHold(
        books,
        held,
        worst,
        meter,
        permit=permit,
        book=rooms.book,
        clock=rooms.clock,
        emit=rooms.emit,
        lines=rooms.lines,
    )


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
