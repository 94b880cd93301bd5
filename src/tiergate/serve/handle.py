"""The path of a call: the order of the rooms is written down here, and nowhere else."""

from functools import partial

from tiergate.admission import Visitor
from tiergate.core import Call, NoTargetAvailable, Origin, Reply
from tiergate.ledger import CallOpened
from tiergate.resilience import drive
from tiergate.routing import Route, route
from tiergate.serve.attempt import Begun, attempt
from tiergate.serve.books import CallBooks
from tiergate.serve.doors import Doors
from tiergate.serve.entrance import entrance
from tiergate.serve.resolve import Resolved, resolve
from tiergate.serve.rooms import Rooms
from tiergate.serve.stream import StreamReply
from tiergate.wire import dumps


async def handle(rooms: Rooms, call: Call) -> Reply | StreamReply:
    """Answer one call.

    Returns a complete reply, or for a streamed call a `StreamReply` whose first content is there and which
    the receiver must use as a context.

    Raises:
        Refused: before anything was tried.
        UpstreamError, NoTargetAvailable, DeadlineExceeded: no target answered.
        StorageUnavailable: money could not be held.
    """
    with Doors() as doors:
        visitor = doors.open(entrance(rooms, call))
        resolved = resolve(call, rooms.rules)
        way = route(resolved.targets, policy=resolved.policy, data_class=resolved.data_class)
        books = doors.open(_books(rooms, call, resolved, way, visitor))
        targets = way.targets
        if not targets:
            raise NoTargetAvailable(call.asked_model, way.reasons)
        begun = await drive(
            targets,
            partial(attempt, rooms, books, resolved, targets[-1]),
            attempts_max=resolved.retry.attempts,
            deadline=resolved.deadline,
            clock=rooms.clock,
        )
        # From here the attempt's doors close first, then the call's.
        doors.open(begun.doors)
        books.mark_first_event()
        if call.streamed:
            return StreamReply(begun, books, doors.hand_over())
    return _reply(begun, books)


def _books(rooms: Rooms, call: Call, resolved: Resolved, way: Route, visitor: Visitor) -> CallBooks:
    opened = CallOpened(
        call=call,
        generation=resolved.generation,
        deadline_ns=call.received_ns + int((resolved.deadline - call.received) * 1e9),
        route=dumps(way.reasons).decode(),
    )
    return CallBooks(opened, book=rooms.book, clock=rooms.clock, emit=rooms.emit, count=visitor.count)


def _reply(begun: Begun, books: CallBooks) -> Reply:
    whole = begun.first[0]
    assert books.account is not None
    return Reply(
        origin=Origin(call_id=books.call.id, target=begun.target, attempts=begun.n),
        data=whole.data,
        text=whole.text,
        finish=whole.finish,
        usage=books.account.usage,
        cash_nanos=books.cash_nanos(),
    )
