"""The path of a call: the order of the rooms is written down here, and nowhere else."""

from collections.abc import Callable
from functools import partial

from tiergate.core import Call, NoTargetAvailable, Refused, Reply, TiergateError, Unaffordable
from tiergate.ledger import Receipt
from tiergate.resilience import drive
from tiergate.serve.asking import Asking
from tiergate.serve.attempt import attempt
from tiergate.serve.begun import Begun, whole_reply
from tiergate.serve.books import CallBooks
from tiergate.serve.cached import give, give_old, look
from tiergate.serve.doors import Doors
from tiergate.serve.entrance import entrance
from tiergate.serve.reader import SharedStream, Stream
from tiergate.serve.resolve import facts_of, resolve, way_of
from tiergate.serve.rooms import Rooms
from tiergate.serve.stream import StreamReply


async def handle(rooms: Rooms, call: Call) -> Reply | Stream:
    """Answer one call.

    Returns a complete reply, or for a streamed call a stream whose first content is there and which the
    receiver must use as a context.

    Raises:
        Refused: before anything was tried.
        UpstreamError, NoTargetAvailable, DeadlineExceeded: no target answered.
        StorageUnavailable: money could not be held.
    """
    resolved = resolve(call, rooms.rules)
    found, way = look(rooms.cache, call, resolved), way_of(resolved, rooms.health)
    asking = Asking(call=call, resolved=resolved, look=found, way=way)
    if asking.look.answer is not None and call.idempotency_key is None:
        return give(asking, asking.look.answer, rooms.flights.free_books(asking.opened(is_given=True)))
    with Doors() as doors:
        if call.idempotency_key is not None or asking.look.key is not None or resolved.may_be_drained:
            return await _share(rooms, asking, doors)
        books = await _enter(rooms, asking, doors)
        begun = await _ask(rooms, books, asking, doors)
        if call.streamed:
            return StreamReply(begun, books, doors.hand_over())
    return whole_reply(begun, books)


async def _share(rooms: Rooms, asking: Asking, doors: Doors) -> Reply | SharedStream:
    """Answer a call through a flight: whether anything has to be asked is known there.

    Only what asks comes through the entrance, and is inside until its flight has ended.
    """
    failures = 0
    while True:
        reader = doors.open(await rooms.flights.board(asking, partial(_fly, rooms)))
        try:
            await reader.begin()
            break
        except TiergateError as error:
            # What a caller is refused is its own; of targets that fail the others try once more, together.
            failures += not isinstance(error, Refused | Unaffordable)
            if failures > 1 or not reader.may_ask_itself(error):
                raise
            reader.step_off()
    if asking.call.streamed:
        return SharedStream(reader, doors.hand_over())
    return reader.whole()


async def _fly(
    rooms: Rooms,
    asking: Asking,
    doors: Doors,
    *,
    receipt: Receipt | None,
    resent_of: str | None,
    on_books: Callable[[CallBooks], None],
) -> Begun:
    books = await _enter(rooms, asking, doors, receipt, resent_of)
    on_books(books)
    try:
        return await _ask(rooms, books, asking, doors)
    except TiergateError as error:
        give_old(books, asking.look, error)
        raise


async def _ask(rooms: Rooms, books: CallBooks, asking: Asking, doors: Doors) -> Begun:
    """Drive the attempts until one has begun; its doors close first, then those that are open already."""
    way, resolved = asking.way, asking.resolved
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
    asking: Asking,
    doors: Doors,
    receipt: Receipt | None = None,
    resent_of: str | None = None,
) -> CallBooks:
    """Let a call in and open its books."""
    visitor = doors.open(await entrance(rooms, asking.call))
    opened = asking.opened(receipt, resent_of)
    books = CallBooks(opened, book=rooms.book, clock=rooms.clock, emit=rooms.emit, count=visitor.count)
    books.said = asking.look.said
    return doors.open(books)
