"""An attempt that has begun to answer: after this its target is fixed."""

from collections.abc import Sequence

import msgspec

from tiergate.core import Chunk, Origin, Reply, Target
from tiergate.serve.books import CallBooks
from tiergate.serve.doors import Doors
from tiergate.serve.hold import OpenHold
from tiergate.serve.ports import Exchange


class Begun(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt whose first content has arrived, or whose whole reply has; `doors` close it."""

    target: Target
    n: int
    first: Sequence[Chunk]
    exchange: Exchange
    hold: OpenHold
    doors: Doors


def whole_reply(begun: Begun, books: CallBooks) -> Reply:
    """Give the reply of an attempt that was not streamed and has been settled."""
    whole = begun.first[0]
    assert books.account is not None
    return Reply(
        origin=Origin(call_id=books.call.id, target=begun.target, attempts=begun.n, cache=books.said),
        data=whole.data,
        text=whole.text,
        finish=whole.finish,
        usage=books.account.usage,
        cash_nanos=books.cash_nanos(),
    )
