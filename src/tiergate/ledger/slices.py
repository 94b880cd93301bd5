"""Slices: how far the spending of a ceiling may go before more of it has to be written down for good.

Records of holds are committed before their first byte leaves, and outlive the process. A loss of power may
take the last of them along, with money that was spent by then. So an owner first writes down, and waits until
the disk has it, how far it lets a ceiling's spending go; what of that no record tells afterwards counts as
spent. One such writing lasts for a while: it reaches for a step more than is needed now.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from tiergate.ledger.ceilings import Balance, Ceiling, Claim, Scope, Total, Whose
from tiergate.ledger.windows import Period, Window

_STEPS: Final = 64
"""So often a ceiling's spending is written down, about; a part as large is what a loss of power costs."""


class Slice(NamedTuple):
    """How far the spending of a ceiling may go in a window, what is held included. Nano-dollars."""

    ceiling: str
    """Its id."""
    window: Window
    amount_nanos: int


class LapsedSlice(NamedTuple):
    """What may have been spent of a ceiling in the window that begins there, and no record tells."""

    ceiling: str
    start_ns: int
    nanos: int


def must_draw(balance: Balance, amount_nanos: int) -> bool:
    """Tell whether a hold would go further than is written down."""
    return balance.spent_nanos + balance.held_nanos + amount_nanos > balance.drawn_nanos


def slice_of(balance: Balance, amount_nanos: int) -> Slice:
    """Give the slice to draw for a hold: that far and a step further, where the ceiling goes so far."""
    needed = balance.spent_nanos + balance.held_nanos + amount_nanos
    further = min(needed + balance.ceiling.amount_nanos // _STEPS, balance.limit_nanos)
    return Slice(balance.ceiling.id, balance.window, max(needed, further))


def lapsed_of(found: Slice, spent: Mapping[Whose, Total]) -> int:
    """Give what a slice says beyond what the records say was spent in its window."""
    told = spent.get(claim_of(found).ceiling.whose, Total())
    return max(0, found.amount_nanos - told.spent_nanos)


def claim_of(found: Slice) -> Claim:
    """Read back whose slice it is.

    >>> claim_of(Slice("key:my key per day", Window(start_ns=0, end_ns=1), 5)).ceiling.name
    'my key'
    """
    whose, period = found.ceiling.removesuffix(" in total"), Period.TOTAL.value
    if whose == found.ceiling:
        whose, _, period = found.ceiling.rpartition(" per ")
    scope, _, name = whose.partition(":")
    return Claim(Ceiling(scope=Scope(scope), name=name, period=Period(period), amount_nanos=0), found.window)
