"""The only loop over attempts: try, and after a failure decide what now.

It knows no money and no HTTP: the attempt is a callable that `serve` composes.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar, assert_never

import msgspec

from tiergate.core import BudgetBusy, Clock, DeadlineExceeded, Target, TargetFull, Unaffordable, UpstreamError

Opened = TypeVar("Opened")
Attempt = Callable[[Target, int], Awaitable[Opened]]
"""One attempt at a target; the number counts from 1 and only attempts that were really made."""


class Try(msgspec.Struct, frozen=True, kw_only=True):
    """Try this target now."""

    target: Target
    n: int


class Stop(msgspec.Struct, frozen=True, kw_only=True):
    """Give up; `error` is what the caller is told."""

    error: Exception


def what_now(
    targets: Sequence[Target],
    failures: Sequence[UpstreamError],
    *,
    attempts_max: int,
    now: float,
    deadline: float,
) -> Try | Stop:
    """Decide the next step from the failures so far, one for each target that was tried, in order."""
    if failures and not failures[-1].elsewhere:
        return Stop(error=_verdict(failures))
    made = sum(_is_made(failure) for failure in failures)
    if len(failures) == len(targets) or made >= attempts_max:
        return Stop(error=_verdict(failures))
    if now >= deadline:
        return Stop(
            error=_verdict(failures) if failures else DeadlineExceeded("The time for this call is over.")
        )
    return Try(target=targets[len(failures)], n=made + 1)


async def drive(
    targets: Sequence[Target],
    attempt: Attempt[Opened],
    *,
    attempts_max: int,
    deadline: float,
    clock: Clock,
) -> Opened:
    """Try the targets in order until one answers.

    Raises:
        UpstreamError: the last failure; its `tried` lists the earlier ones.
        DeadlineExceeded: the time was over before the first attempt.
    """
    assert targets
    failures: list[UpstreamError] = []
    while True:
        step = what_now(
            targets, failures, attempts_max=attempts_max, now=clock.monotonic(), deadline=deadline
        )
        match step:
            case Try():
                try:
                    return await attempt(step.target, step.n)
                except UpstreamError as error:
                    failures.append(error)
            case Stop():
                raise step.error
            case _:
                assert_never(step)


def _verdict(failures: Sequence[UpstreamError]) -> UpstreamError:
    """Give the last failure of an attempt that was made; where none was, the one that may pass soonest."""
    telling = max(failures, key=lambda failure: (_weight(failure), failures.index(failure)))
    telling.tried = tuple((failure.target, str(failure)) for failure in failures if failure is not telling)
    return telling


def _is_made(failure: UpstreamError) -> bool:
    return not isinstance(failure, TargetFull | Unaffordable)


def _weight(failure: UpstreamError) -> int:
    if _is_made(failure):
        return 3
    return 2 if isinstance(failure, TargetFull) else 1 if isinstance(failure, BudgetBusy) else 0
