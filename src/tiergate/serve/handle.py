"""The path of a call: the order of the rooms is written down here, and nowhere else."""

from collections.abc import Callable
from functools import partial

from tiergate.core import Call, NoTargetAvailable, Reply
from tiergate.ledger import CallOpened, Receipt
from tiergate.resilience import drive
from tiergate.routing import Route
from tiergate.serve.attempt import attempt
from tiergate.serve.begun import Begun, whole_reply
from tiergate.serve.books import CallBooks
from tiergate.serve.doors import Doors
from tiergate.serve.entrance import entrance
from tiergate.serve.reader import SharedStream
from tiergate.serve.resolve import Resolved, facts_of, resolve, route_text, way_of
from tiergate.serve.rooms import Rooms
from tiergate.serve.stream import StreamReply


async def handle(rooms: Rooms, call: Call) -> Reply | StreamReply | SharedStream:
    """Answer one call.

    Returns a complete reply, or for a streamed call a stream whose first content is there and which the
    receiver must use as a context.

    Raises:
        Refused: before anything was tried.
        UpstreamError, NoTargetAvailable, DeadlineExceeded: no target answered.
        StorageUnavailable: money could not be held.
    """
    resolved = resolve(call, rooms.rules)
    way = way_of(resolved, rooms.health)
    with Doors() as doors:
        if call.idempotency_key is not None or resolved.may_be_drained:
            return await _share(rooms, call, resolved, way, doors)
        books = await _enter(rooms, call, resolved, way, doors)
        begun = await _ask(rooms, books, resolved, way, doors)
        if call.streamed:
            return StreamReply(begun, books, doors.hand_over())
    return whole_reply(begun, books)


async def _share(
    rooms: Rooms, call: Call, resolved: Resolved, way: Route, doors: Doors
) -> Reply | SharedStream:
    """Answer a call through a flight: its receipt says whether anything has to be asked.

    Only what asks comes through the entrance, and is inside until its flight has ended.
    """
    reader = await rooms.flights.board(
        call,
        partial(_fly, rooms, call, resolved, way),
        generation=resolved.generation,
        deadline=resolved.deadline,
        drain_s=resolved.drain_s,
    )
    doors.open(reader)
    await reader.begin()
    if call.streamed:
        return SharedStream(reader, doors.hand_over())
    return await reader.whole()


async def _fly(
    rooms: Rooms,
    call: Call,
    resolved: Resolved,
    way: Route,
    doors: Doors,
    *,
    receipt: Receipt | None,
    resent_of: str | None,
    on_books: Callable[[CallBooks], None],
) -> Begun:
    books = await _enter(rooms, call, resolved, way, doors, receipt, resent_of)
    on_books(books)
    return await _ask(rooms, books, resolved, way, doors)


async def _ask(rooms: Rooms, books: CallBooks, resolved: Resolved, way: Route, doors: Doors) -> Begun:
    """Drive the attempts until one has begun; its doors close first, then those that are open already."""
    if not way.targets:
        raise NoTargetAvailable(books.call.asked_model, way.reasons)
    begun = await drive(
        facts_of(books.call, resolved, way.targets),
        partial(attempt, rooms, books, resolved, way.last),
        budget=rooms.retries,
        clock=rooms.clock,
        chance=rooms.chance,
    )
    doors.open(begun.doors)
    books.mark_first_event()
    return begun


async def _enter(
    rooms: Rooms,
    call: Call,
    resolved: Resolved,
    way: Route,
    doors: Doors,
    receipt: Receipt | None = None,
    resent_of: str | None = None,
) -> CallBooks:
    """Let a call in and open its books."""
    visitor = doors.open(await entrance(rooms, call))
    opened = CallOpened(
        call=call,
        generation=resolved.generation,
        deadline_ns=call.received_ns + int((resolved.deadline - call.received) * 1e9),
        route=route_text(way.reasons),
        receipt=receipt,
        resent_of=resent_of,
    )
    books = CallBooks(opened, book=rooms.book, clock=rooms.clock, emit=rooms.emit, count=visitor.count)
    return doors.open(books)
