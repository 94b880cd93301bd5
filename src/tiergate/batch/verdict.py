"""What an error means to the line that met it, and to its job. Pure."""

from collections.abc import Callable, Mapping
from math import isfinite
from types import MappingProxyType
from typing import Final

import msgspec

from tiergate.core import (
    BudgetBusy,
    BudgetExceeded,
    BudgetUnbounded,
    DeadlineExceeded,
    InvalidKey,
    NoTargetAvailable,
    RateLimited,
    Refused,
    StorageBroken,
    StorageUnavailable,
    TargetFull,
    TargetResting,
    TiergateError,
    UpstreamAuthFailed,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamRejected,
    UpstreamThrottled,
    UpstreamTimeout,
)
from tiergate.serve import Stopping

TRIES: Final[Mapping[str, int]] = MappingProxyType({"outage": 5, "timeout": 3, "protocol": 3})
"""So often a line is asked that fails with an error of this class; each time is up to three attempts."""
_LOOKED_AT_S: Final = 60.0
"""A target that was isolated by hand says nothing of a time: after so long it is looked at again."""


class Fails(msgspec.Struct, frozen=True):
    """It is the line's own fault, or it was asked often enough."""


class Again(msgspec.Struct, frozen=True, kw_only=True):
    """Ask it again; `wait_s`: not before; None: nothing was said.

    `counts`: as a try that failed. `pushes`: less should be asked at one time. `is_weather`: others will fare
    alike. `narrows`: no more than is in flight now will do.
    """

    word: str
    wait_s: float | None = None
    counts: bool = False
    pushes: bool = False
    is_weather: bool = False
    narrows: bool = False


class Stops(msgspec.Struct, frozen=True, kw_only=True):
    """No line of the job will fare better before somebody has done something; this one waits again."""

    word: str


class Broke(msgspec.Struct, frozen=True, kw_only=True):
    """A budget has no room for it, even when nothing is held. `until_ns`: when it begins anew."""

    budget: str
    until_ns: int | None


class Over(msgspec.Struct, frozen=True):
    """Nothing of the job can be done before the next start."""


Verdict = Fails | Again | Stops | Broke | Over


def verdict(error: TiergateError, tries: int, *, is_spared: Callable[[], bool] = lambda: False) -> Verdict:
    """Say what to do with a line that was asked in vain, `tries` times before this.

    `is_spared`: asked where this was its last try: whether it is asked again all the same, since the failure
    may well be everybody's.
    """
    found = _verdict(error)
    if isinstance(found, Again) and found.counts and tries + 1 >= TRIES.get(found.word, 1):
        return found if is_spared() else Fails()
    return found


def _verdict(error: TiergateError) -> Verdict:
    match error:
        case RateLimited():
            return Again(word="key_limit", wait_s=error.retry_after_s, pushes=True)
        case InvalidKey():
            return Stops(word="key")
        case Refused() | UpstreamRejected() | BudgetUnbounded():
            return Fails()
        case BudgetBusy():
            return Again(word="budget_busy", narrows=True)
        case BudgetExceeded():
            return Broke(budget=error.budget, until_ns=error.until_ns)
        case UpstreamAuthFailed():
            return Stops(word="credential")
        case StorageBroken():
            return Over()
        case StorageUnavailable():
            return Again(word="storage", wait_s=1.0, is_weather=True)
        case Stopping():
            return Again(word="stopping")
        case UpstreamError():
            return _of_target(error)
        case NoTargetAvailable() | DeadlineExceeded():
            return Again(word="timeout", counts=True, is_weather=True)
        case _:
            return Fails()


def _of_target(error: UpstreamError) -> Verdict:
    match error:
        case UpstreamThrottled() if error.quota:
            return Stops(word="funds")
        case UpstreamThrottled() | TargetFull():
            return Again(word="throttled", wait_s=error.retry_after_s, pushes=True, is_weather=True)
        case TargetResting():
            # Nobody was asked: it is no try of this line's.
            wait_s = error.retry_after_s
            if wait_s is None or not isfinite(wait_s):
                wait_s = _LOOKED_AT_S
            return Again(word="outage", wait_s=wait_s, is_weather=True)
        case UpstreamTimeout():
            return Again(word="timeout", counts=True, pushes=True, is_weather=True)
        case UpstreamProtocolError():
            return Again(word="protocol", counts=True, pushes=True, is_weather=True)
        case _:
            return Again(word="outage", wait_s=error.retry_after_s, counts=True, pushes=True, is_weather=True)
