"""What is odd about an account: an operator hears of it, and it is charged all the same."""

from collections.abc import Iterator
from typing import Final

from tiergate.core import UsageDoubt, UsageSource
from tiergate.metering.bound import Bound
from tiergate.metering.meter import Account, Meter

_TOLERANCE: Final = 0.01
_TOLERANCE_NANOS: Final = 1_000
"""A provider rounds what it says to some digits, and prices move: a cent in a dollar is no news."""


def doubts(
    account: Account, meter: Meter, bound: Bound, *, is_complete: bool, elapsed_s: float
) -> Iterator[UsageDoubt]:
    """Tell what is odd about an attempt's account.

    Args:
        account: of the attempt.
        meter: that read it, and
        bound: that it was held under.
        is_complete: whether the whole answer came. One that was cut reports nothing, which is not odd.
        elapsed_s: how long it took.
    """
    if meter.is_odd:
        yield UsageDoubt.UNREADABLE
    elif is_complete and account.source is UsageSource.BOUNDED:
        yield UsageDoubt.UNREPORTED
    if account.source is not UsageSource.REPORTED:
        return
    usage = account.usage
    if _is_above(usage.input_tokens, bound.input_tokens) or _is_above(
        usage.output_tokens, bound.output_tokens
    ):
        yield UsageDoubt.ABOVE_BOUND
    theirs = meter.upstream_cost_nanos
    ours = None if theirs is None else meter.priced_nanos(usage, elapsed_s=elapsed_s)
    if ours is not None and theirs is not None:
        allowed = max(_TOLERANCE_NANOS, int(_TOLERANCE * max(ours, theirs)))
        if abs(ours - theirs) > allowed:
            yield UsageDoubt.COST_DIFFERS


def _is_above(tokens: int, most: int | None) -> bool:
    return most is not None and tokens > most
