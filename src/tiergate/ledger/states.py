"""The states of everything that the ledger keeps, and the only ways between them.

Stored states are words in a column, so they are enumerations here; every UPDATE in the store names the
state that it leaves, and the tables below are what a property test holds those UPDATEs against.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, TypeVar


class HoldState(StrEnum):
    """`held → settled | released | lapsed`, `lapsed → settled`."""

    HELD = "held"
    """The worst case is set aside; the attempt may run."""
    SETTLED = "settled"
    """Replaced by the true cost."""
    RELEASED = "released"
    """Given back: the request provably never reached the provider."""
    LAPSED = "lapsed"
    """The owner died with it; still charged until someone knows better."""


class ReceiptState(StrEnum):
    """`running → done | freed | unknown`, `unknown → running | freed`."""

    RUNNING = "running"
    DONE = "done"
    FREED = "freed"
    """Ended without success: the key may be used again."""
    UNKNOWN = "unknown"
    """The owner died: a resend is allowed and recorded."""


class FlightState(StrEnum):
    """`open → landed | failed | abandoned`: one upstream call and its readers."""

    OPEN = "open"
    LANDED = "landed"
    FAILED = "failed"
    ABANDONED = "abandoned"
    """The last reader left."""


class LineState(StrEnum):
    """`waiting → done | failed | cancelled`: a line of a job. One that is not done may wait again."""

    WAITING = "waiting"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    """The end of its job came before it was asked."""


class OwnerState(StrEnum):
    """`alive → left | dead`: a process that serves a store."""

    ALIVE = "alive"
    LEFT = "left"
    """Closed its books and went."""
    DEAD = "dead"
    """Found gone by the next owner."""


class SliceState(StrEnum):
    """`drawn → returned | lapsed`: a part of a ceiling lent to an owner."""

    DRAWN = "drawn"
    RETURNED = "returned"
    LAPSED = "lapsed"


State = TypeVar("State", bound=StrEnum)
Moves = Mapping[State, frozenset[State]]


def _moves(*pairs: tuple[State, State]) -> Moves[State]:
    table: dict[State, frozenset[State]] = {}
    for before, after in pairs:
        table[before] = table.get(before, frozenset()) | {after}
    return table


HOLD: Final = _moves(
    (HoldState.HELD, HoldState.SETTLED),
    (HoldState.HELD, HoldState.RELEASED),
    (HoldState.HELD, HoldState.LAPSED),
    (HoldState.LAPSED, HoldState.SETTLED),
)
RECEIPT: Final = _moves(
    (ReceiptState.RUNNING, ReceiptState.DONE),
    (ReceiptState.RUNNING, ReceiptState.FREED),
    (ReceiptState.RUNNING, ReceiptState.UNKNOWN),
    (ReceiptState.UNKNOWN, ReceiptState.RUNNING),
    (ReceiptState.UNKNOWN, ReceiptState.FREED),
)
FLIGHT: Final = _moves(
    (FlightState.OPEN, FlightState.LANDED),
    (FlightState.OPEN, FlightState.FAILED),
    (FlightState.OPEN, FlightState.ABANDONED),
)
LINE: Final = _moves(
    (LineState.WAITING, LineState.DONE),
    (LineState.WAITING, LineState.FAILED),
    (LineState.WAITING, LineState.CANCELLED),
    (LineState.FAILED, LineState.WAITING),
    (LineState.CANCELLED, LineState.WAITING),
)
OWNER: Final = _moves((OwnerState.ALIVE, OwnerState.LEFT), (OwnerState.ALIVE, OwnerState.DEAD))
SLICE: Final = _moves((SliceState.DRAWN, SliceState.RETURNED), (SliceState.DRAWN, SliceState.LAPSED))


def may_move(moves: Moves[State], before: State, after: State) -> bool:
    """Tell whether the machine has a way from one state to the other."""
    return after in moves.get(before, frozenset())
