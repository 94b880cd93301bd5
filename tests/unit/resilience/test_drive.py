"""What now: the decision as a table, and the loop that follows it."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from tiergate.core import (
    DeadlineExceeded,
    StorageUnavailable,
    Target,
    TargetFull,
    Tier,
    UpstreamError,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from tiergate.resilience import Stop, Try, drive, what_now
from tiergate.testing import FakeClock, run_virtual

A, B, C = (Target(provider=name, model="m", tier=Tier.HOSTED) for name in "abc")


def unreachable(target: Target) -> UpstreamError:
    return UpstreamUnreachable(f"{target.name} refused", target=target.name)


def full(target: Target) -> UpstreamError:
    return TargetFull(f"{target.name} is full", target=target.name)


def rejected(target: Target) -> UpstreamError:
    return UpstreamRejected(f"{target.name} says no", target=target.name, status=400)


Fails = Callable[[Target], UpstreamError]


@pytest.mark.parametrize(
    ("failed", "attempts_max", "now", "step"),
    [
        ((), 3, 0, (A, 1)),
        ((unreachable,), 3, 0, (B, 2)),
        ((unreachable, unreachable), 3, 0, (C, 3)),
        ((unreachable, unreachable, unreachable), 5, 0, "c/m refused"),
        ((unreachable, unreachable), 2, 0, "b/m refused"),
        ((unreachable,), 1, 0, "a/m refused"),
        ((full,), 1, 0, (B, 1)),
        ((full, full), 1, 0, (C, 1)),
        ((full, full, full), 1, 0, "c/m is full"),
        ((full, unreachable), 2, 0, (C, 2)),
        ((unreachable, full), 1, 0, "a/m refused"),
        ((rejected,), 3, 0, "a/m says no"),
        ((unreachable, rejected), 3, 0, "b/m says no"),
        ((), 3, 9.99, (A, 1)),
        ((), 3, 10, "time for this call is over"),
        ((unreachable,), 3, 10, "a/m refused"),
        ((full,), 3, 11, "a/m is full"),
    ],
)
def test_what_now(
    failed: Sequence[Fails], attempts_max: int, now: float, step: tuple[Target, int] | str
) -> None:
    """Targets in order, numbered by attempts really made, until one is at fault, the cap or the deadline."""
    failures = [fails(target) for fails, target in zip(failed, (A, B, C), strict=False)]
    found = what_now((A, B, C), failures, attempts_max=attempts_max, now=now, deadline=10)
    match found:
        case Try():
            assert (found.target, found.n) == step
        case Stop():
            assert isinstance(step, str) and step in str(found.error)


@dataclass
class Attempts:
    """Attempts that fail as told and succeed after that; each takes a second."""

    fails: Sequence[Fails | BaseException] = ()
    made: list[tuple[str, int]] = field(default_factory=list)

    async def __call__(self, target: Target, n: int) -> str:
        await asyncio.sleep(1)
        self.made.append((target.provider, n))
        if len(self.made) > len(self.fails):
            return f"answer of {target.provider}"
        failure = self.fails[len(self.made) - 1]
        raise failure if isinstance(failure, BaseException) else failure(target)


def driven(attempts: Attempts, *, attempts_max: int = 3, deadline: float = 100) -> str:
    clock = FakeClock()
    loop = drive((A, B, C), attempts, attempts_max=attempts_max, deadline=deadline, clock=clock)
    return run_virtual(loop, clock=clock)


def test_the_first_target_that_answers_ends_the_loop() -> None:
    """In order, and the numbers count attempts that were made: a full target is none."""
    attempts = Attempts(fails=(unreachable, full))
    assert driven(attempts) == "answer of c"
    assert attempts.made == [("a", 1), ("b", 2), ("c", 2)]


def test_the_last_failure_is_told_with_those_before_it() -> None:
    """Who failed, and with which sentence."""
    with pytest.raises(UpstreamUnreachable) as failure:
        driven(Attempts(fails=(unreachable, full, unreachable)))
    assert failure.value.target == "c/m"
    assert failure.value.tried == (("a/m", "a/m refused"), ("b/m", "b/m is full"))


def test_a_rejected_request_ends_the_loop_and_tells_what_was_tried_before() -> None:
    """It would be rejected everywhere."""
    attempts = Attempts(fails=(unreachable, rejected))
    with pytest.raises(UpstreamRejected) as failure:
        driven(attempts)
    assert attempts.made == [("a", 1), ("b", 2)]
    assert failure.value.tried == (("a/m", "a/m refused"),)


def test_no_attempt_begins_after_the_deadline() -> None:
    """Each takes a second: at 2 s the third is not made."""
    attempts = Attempts(fails=(unreachable,) * 3)
    with pytest.raises(UpstreamUnreachable):
        driven(attempts, deadline=2)
    assert attempts.made == [("a", 1), ("b", 2)]


def test_without_any_time_nothing_is_tried() -> None:
    """And the caller is told that, not that a target failed."""
    attempts = Attempts()
    with pytest.raises(DeadlineExceeded):
        driven(attempts, deadline=0)
    assert attempts.made == []


def test_no_more_attempts_than_allowed() -> None:
    """Over all targets."""
    attempts = Attempts(fails=(unreachable,) * 3)
    with pytest.raises(UpstreamUnreachable):
        driven(attempts, attempts_max=2)
    assert len(attempts.made) == 2


@pytest.mark.parametrize(
    "foreign", [StorageUnavailable("disk full"), asyncio.CancelledError(), AssertionError("a bug")]
)
def test_what_is_no_failure_of_a_target_is_not_tried_elsewhere(foreign: BaseException) -> None:
    """A full disk, a caller who left, a bug: the loop has no answer to them."""
    attempts = Attempts(fails=(unreachable, foreign))
    with pytest.raises(type(foreign)):
        driven(attempts)
    assert attempts.made == [("a", 1), ("b", 2)]


def test_a_time_out_is_a_failure_like_any_other() -> None:
    """Another target may be faster."""
    slow = UpstreamTimeout("too slow", phase="first_event", target="a/m")
    assert driven(Attempts(fails=(slow,))) == "answer of b"
