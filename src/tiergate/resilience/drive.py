"""The only loop over attempts: try, and after a failure decide what now.

It knows no money and no HTTP: the attempt is a callable that `serve` composes. While it waits before a retry,
no place, no money and no connection is held.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, TypeVar, assert_never

import msgspec

from tiergate.core import (
    BudgetBusy,
    CallClass,
    Clock,
    DeadlineExceeded,
    Target,
    TargetFull,
    TargetResting,
    Unaffordable,
    UpstreamError,
)
from tiergate.resilience.policy import RetryPolicy
from tiergate.resilience.retries import Chance, RetryBudget, may_pass, wait_s

Opened = TypeVar("Opened")
Attempt = Callable[[Target, int], Awaitable[Opened]]
"""One attempt at a target; the number counts from 1 and only attempts that were really made."""


class Failure(NamedTuple):
    """A target that was tried and did not answer."""

    target: Target
    error: UpstreamError


class Try(msgspec.Struct, frozen=True, kw_only=True):
    """Try this target, after so many seconds."""

    target: Target
    n: int
    wait_s: float = 0.0
    is_retry: bool = False
    """It was asked before."""


class Stop(msgspec.Struct, frozen=True, kw_only=True):
    """Give up; `error` is what the caller is told."""

    error: Exception


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What one call's decisions go by. `deadline`: monotonic seconds."""

    targets: Sequence[Target]
    policy: RetryPolicy
    deadline: float
    call_class: CallClass = CallClass.INTERACTIVE
    is_sent_again: bool = False
    """The client has sent the call before and tries again by itself."""


def what_now(
    facts: Facts,
    failures: Sequence[Failure],
    *,
    now: float,
    spares: Callable[[Target], bool],
    chance: float,
) -> Try | Stop:
    """Decide the next step from the failures so far, in order.

    Each target is tried once, in order, and then again those whose failure may pass, while attempts and time
    are left. One that is left alone is passed over, and waited for only when it has said for how long.
    `spares`: whether a target's provider may be asked once more.
    """
    if failures and not failures[-1].error.elsewhere:
        return Stop(error=_verdict(failures))
    made = sum(_is_made(failure.error) for failure in failures)
    if made >= facts.policy.attempts:
        return Stop(error=_verdict(failures))
    if now >= facts.deadline:
        return Stop(
            error=_verdict(failures) if failures else DeadlineExceeded("The time for this call is over.")
        )
    tried = {failure.target for failure in failures}
    fresh = next((target for target in facts.targets if target not in tried), None)
    if fresh is not None:
        return Try(target=fresh, n=made + 1)
    again = _again(facts, failures, now=now, spares=spares, chance=chance)
    if again is None:
        return Stop(error=_verdict(failures))
    target, wait = again
    return Try(target=target, n=made + 1, wait_s=wait, is_retry=_was_asked(failures, target))


def _again(
    facts: Facts,
    failures: Sequence[Failure],
    *,
    now: float,
    spares: Callable[[Target], bool],
    chance: float,
) -> tuple[Target, float] | None:
    """Choose a target to try again, the one with the shortest wait, and the first of equals."""
    found: list[tuple[float, Target]] = []
    for target in facts.targets:
        errors = [failure.error for failure in failures if failure.target == target]
        # Who was not asked yet, because it wants to be left alone, is spared nothing by waiting for it.
        if not may_pass(errors[-1]) or (_was_asked(failures, target) and not spares(target)):
            continue
        if len(errors) >= facts.policy.attempts:
            continue
        wait = wait_s(
            errors[-1], len(errors), policy=facts.policy, call_class=facts.call_class, chance=chance
        )
        if wait is not None and now + wait < facts.deadline:
            found.append((wait, target))
    if not found:
        return None
    wait, target = min(found, key=lambda one: one[0])
    return target, wait


async def drive(
    facts: Facts, attempt: Attempt[Opened], *, budget: RetryBudget, clock: Clock, chance: Chance
) -> Opened:
    """Try the targets until one answers.

    Raises:
        UpstreamError: the last failure; its `tried` lists the earlier ones.
        DeadlineExceeded: the time was over before the first attempt.
    """
    assert facts.targets
    failures: list[Failure] = []
    while True:
        now = clock.monotonic()
        step = what_now(
            facts,
            failures,
            now=now,
            spares=lambda target, now=now: budget.allows(target, now),  # type: ignore[misc]  # bound at once
            chance=chance() if failures else 0.0,
        )
        match step:
            case Try():
                if step.is_retry:
                    budget.took(step.target, now)
                if step.wait_s > 0:
                    await asyncio.sleep(step.wait_s)
                is_first = step.n == 1 and not facts.is_sent_again
                try:
                    opened = await attempt(step.target, step.n)
                except UpstreamError as error:
                    if is_first and _is_made(error):
                        budget.came(step.target, clock.monotonic())
                    failures.append(Failure(step.target, error))
                else:
                    if is_first:
                        budget.came(step.target, clock.monotonic())
                    return opened
            case Stop():
                raise step.error
            case _:
                assert_never(step)


def _verdict(failures: Sequence[Failure]) -> UpstreamError:
    """Give the last failure of an attempt that was made; where none was, the one that may pass soonest."""
    errors = [failure.error for failure in failures]
    telling = max(errors, key=lambda error: (_weight(error), errors.index(error)))
    earlier = {(error.target, str(error)): None for error in errors if error is not telling}
    telling.tried = tuple(earlier)
    return telling


def _was_asked(failures: Sequence[Failure], target: Target) -> bool:
    return any(failure.target == target and _is_made(failure.error) for failure in failures)


def _is_made(error: UpstreamError) -> bool:
    return not isinstance(error, TargetFull | TargetResting | Unaffordable)


def _weight(error: UpstreamError) -> int:
    match error:
        case TargetFull():
            return 3
        case TargetResting():
            return 2
        case BudgetBusy():
            return 1
        case Unaffordable():
            return 0
        case _:
            return 4
