"""Retries: which failures are worth another try at the same target, after how long, and how many of them.

The wait is drawn at random between nothing and a bound that doubles with each failure of the target ("full
jitter"): callers that failed together do not come back together. A provider that says how long to wait is
obeyed, or the call ends with what it said.
"""

from collections.abc import Callable, Mapping
from typing import Final

from tiergate.core import (
    CallClass,
    Target,
    TargetThrottled,
    UpstreamError,
    UpstreamFault,
    UpstreamInterrupted,
    UpstreamThrottled,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from tiergate.resilience.outcomes import is_pushed_back
from tiergate.resilience.policy import RetryPolicy

_PASSING: Final = frozenset({409, 425})
"""Client errors that say something of the moment and not of the request."""
_MAY_RUN: Final = frozenset({504, 522, 524})
"""Time-outs that are told by what stands in front of the provider: the request may be running on."""
_SPREAD: Final = 0.1
_WINDOW_S: Final = 10
_SHARE: Final = 0.2
_SPARE: Final = 3


def may_pass(error: UpstreamError) -> bool:
    """Tell whether the same target may carry the same call a moment later.

    A time-out after sending may be running on, and be billed; what is no answer, a refused credential, a
    quota that is used up and an unknown model stay what they are for longer than a call waits. A provider
    that says whether it wants the request again is believed.
    """
    if error.should_retry is not None and isinstance(error, UpstreamThrottled | UpstreamFault):
        return error.should_retry
    match error:
        case TargetThrottled():
            return True
        case UpstreamTimeout():
            return error.phase == "connect"
        case UpstreamThrottled():
            return not error.quota
        case UpstreamFault():
            status = error.status
            return status is None or status in _PASSING or (status >= 500 and status not in _MAY_RUN)
        case UpstreamUnreachable() | UpstreamInterrupted():
            return True
        case _:
            return False


def wait_s(
    error: UpstreamError, failures: int, *, policy: RetryPolicy, call_class: CallClass, chance: float
) -> float | None:
    """Give how long to wait before the target is tried again; None: longer than a call waits.

    `failures`: of this target in this call, so far; `chance`: drawn from 0 to 1.
    """
    cap_s = policy.backoff_max_s if call_class is CallClass.INTERACTIVE else policy.batch_backoff_max_s
    if error.retry_after_s is not None:
        # A little later than asked for, so that all who were told the same time do not come back together.
        asked_s = error.retry_after_s * (1 + _SPREAD * chance)
        return asked_s if error.retry_after_s <= cap_s else None
    base_s = policy.throttled_backoff_s if is_pushed_back(error) else policy.backoff_s
    return chance * min(cap_s, base_s * 2.0 ** (failures - 1))


class RetryBudget:
    """How many retries each provider is spared: a fifth of the calls that came to it in the last 10 s, and 3.

    Where everything fails, retries then make a fifth more of it, and not three times as much. Calls that an
    official client sends again by itself, and those that come from a target that failed, do not count.
    """

    def __init__(self) -> None:
        self._pools: dict[str, _Pool] = {}

    def came(self, target: Target, now: float) -> None:
        """Count a call's first attempt."""
        self._pool(target).calls.add(now)

    def allows(self, target: Target, now: float) -> bool:
        """Tell whether one more retry is spared."""
        pool = self._pool(target)
        return pool.retries.count(now) + 1 <= pool.calls.count(now) * _SHARE + _SPARE

    def took(self, target: Target, now: float) -> None:
        """Count a retry."""
        self._pool(target).retries.add(now)

    def statistics(self, now: float) -> Mapping[str, tuple[int, int]]:
        """Give calls and retries of the last 10 s, by provider."""
        return {name: (pool.calls.count(now), pool.retries.count(now)) for name, pool in self._pools.items()}

    def _pool(self, target: Target) -> "_Pool":
        pool = self._pools.get(target.provider)
        if pool is None:
            pool = self._pools[target.provider] = _Pool()
        return pool


class _Pool:
    __slots__ = ("calls", "retries")

    def __init__(self) -> None:
        self.calls = _Recent()
        self.retries = _Recent()


class _Recent:
    """A count of the last 10 s, by whole seconds."""

    __slots__ = ("_counts", "_second")

    def __init__(self) -> None:
        self._counts = [0] * (_WINDOW_S + 1)
        self._second = 0

    def add(self, now: float) -> None:
        self._move_to(int(now))
        self._counts[self._second % len(self._counts)] += 1

    def count(self, now: float) -> int:
        self._move_to(int(now))
        return sum(self._counts)

    def _move_to(self, second: int) -> None:
        gone = min(second - self._second, len(self._counts))
        for step in range(gone):
            self._counts[(second - step) % len(self._counts)] = 0
        self._second = max(self._second, second)


Chance = Callable[[], float]
"""Draws a number from 0 to 1."""
