"""What now: the decision as a table, and the loop that follows it."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiergate.core import (
    CallClass,
    DeadlineExceeded,
    StorageUnavailable,
    Target,
    TargetFull,
    TargetResting,
    TargetThrottled,
    Tier,
    UpstreamAuthFailed,
    UpstreamError,
    UpstreamFault,
    UpstreamRejected,
    UpstreamThrottled,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from tiergate.resilience import Facts, Failure, RetryBudget, RetryPolicy, Stop, Try, drive, what_now
from tiergate.testing import FakeClock, run_virtual

A, B, C = (Target(provider=name, model="m", tier=Tier.HOSTED) for name in "abc")


Fails = Callable[[Target], UpstreamError]


def unreachable(target: Target) -> UpstreamError:
    return UpstreamUnreachable(f"{target.name} refused", target=target.name)


def full(target: Target) -> UpstreamError:
    return TargetFull(f"{target.name} is full", target=target.name)


def rejected(target: Target) -> UpstreamError:
    return UpstreamRejected(f"{target.name} says no", target=target.name, status=400)


def rejected_key(target: Target) -> UpstreamError:
    return UpstreamAuthFailed(f"{target.name} refuses our key", target=target.name)


def throttled(wait_s: float | None = None, *, quota: bool = False) -> Fails:
    def fails(target: Target) -> UpstreamError:
        return UpstreamThrottled(
            f"{target.name} throttles", target=target.name, retry_after_s=wait_s, quota=quota
        )

    return fails


def fault(status: int | None) -> Fails:
    return lambda target: UpstreamFault(f"{target.name} failed", target=target.name, status=status)


def asked_for(status: int, *, retry_after_s: float | None = None, should_retry: bool | None = None) -> Fails:
    def fails(target: Target) -> UpstreamError:
        error = UpstreamFault(f"{target.name} failed", target=target.name, status=status)
        error.retry_after_s, error.should_retry = retry_after_s, should_retry
        return error

    return fails


def resting(wait_s: float) -> Fails:
    return lambda target: TargetResting(f"{target.name} rests", target=target.name, retry_after_s=wait_s)


def left_alone(wait_s: float) -> Fails:
    return lambda target: TargetThrottled(
        f"{target.name} wants peace", target=target.name, retry_after_s=wait_s
    )


def slow(phase: str) -> Fails:
    return lambda target: UpstreamTimeout(f"{target.name} is slow", phase=phase, target=target.name)


def decided(
    failed: Sequence[tuple[Target, Fails]],
    *,
    targets: Sequence[Target] = (A, B, C),
    attempts: int = 3,
    now: float = 0,
    spares: bool = True,
    call_class: CallClass = CallClass.INTERACTIVE,
    chance: float = 1.0,
) -> Try | Stop:
    facts = Facts(targets=targets, policy=RetryPolicy(attempts=attempts), deadline=10, call_class=call_class)
    failures = [Failure(target, fails(target)) for target, fails in failed]
    return what_now(facts, failures, now=now, spares=lambda _: spares, chance=chance)


@pytest.mark.parametrize(
    ("failed", "attempts", "now", "step"),
    [
        ((), 3, 0, (A, 1)),
        ((unreachable,), 3, 0, (B, 2)),
        ((unreachable, unreachable), 3, 0, (C, 3)),
        ((unreachable, unreachable, unreachable), 3, 0, "c/m refused"),
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
def test_every_target_is_tried_once_in_order(
    failed: Sequence[Fails], attempts: int, now: float, step: tuple[Target, int] | str
) -> None:
    """At once, numbered by attempts really made, until one is at fault, the cap or the deadline."""
    found = decided(list(zip((A, B, C), failed, strict=False)), attempts=attempts, now=now)
    match found:
        case Try():
            assert (found.target, found.n) == step
            assert (found.wait_s, found.is_retry) == (0, False)
        case Stop():
            assert isinstance(step, str) and step in str(found.error)


@pytest.mark.parametrize(
    ("failures", "wait_s"),
    [
        ([unreachable], 0.05),
        ([unreachable, unreachable], 0.1),
        ([unreachable] * 9, 8),
        ([fault(500)], 0.05),
        ([fault(None)], 0.05),
        ([fault(409)], 0.05),
        ([slow("connect")], 0.05),
        ([throttled()], 1),
        ([throttled(), throttled()], 2),
        ([throttled(2.5)], 2.75),
        ([throttled(0)], 0),
        ([throttled(8)], 8.8),
        ([throttled(8.1)], None),
        ([unreachable, throttled(3)], 3.3),
        ([fault(529)], 1),
        ([fault(503)], 1),
        ([asked_for(503, retry_after_s=2)], 2.2),
        ([asked_for(503, retry_after_s=9)], None),
        ([asked_for(500, should_retry=False)], None),
        ([asked_for(408, should_retry=True)], 0.05),
        ([throttled(quota=True)], None),
        ([fault(404)], None),
        ([fault(408)], None),
        ([fault(504)], None),
        ([slow("first_event")], None),
        ([slow("total")], None),
        ([rejected_key], None),
        ([full], None),
        ([rejected], None),
    ],
)
def test_a_target_is_tried_again_when_its_failure_may_pass(
    failures: Sequence[Fails], wait_s: float | None
) -> None:
    """After a wait that doubles, or the one that it asks for; what will not pass is told at once."""
    found = decided([(A, fails) for fails in failures], targets=(A,), attempts=99)
    if wait_s is None:
        assert isinstance(found, Stop)
    else:
        assert isinstance(found, Try) and (found.n, found.is_retry) == (len(failures) + 1, True)
        assert found.wait_s == pytest.approx(wait_s)


def test_the_wait_is_drawn_between_nothing_and_its_bound() -> None:
    """Callers that failed together come back apart; never before a provider wants it, and hardly after."""
    for chance in (0.0, 0.25, 1.0):
        found = decided([(A, unreachable)], targets=(A,), chance=chance)
        assert isinstance(found, Try) and found.wait_s == 0.05 * chance
        found = decided([(A, throttled(2))], targets=(A,), chance=chance)
        assert isinstance(found, Try) and found.wait_s == pytest.approx(2 + 0.2 * chance)


def test_the_target_that_may_be_asked_soonest_is_tried_again() -> None:
    """Of those that were all tried; the first of equals."""
    found = decided([(A, throttled(5)), (B, throttled(2)), (C, rejected_key)], attempts=9)
    assert isinstance(found, Try) and (found.target, found.wait_s) == (B, 2.2)
    found = decided([(A, unreachable), (B, unreachable)], targets=(A, B), attempts=9)
    assert isinstance(found, Try) and found.target == A


def test_nobody_waits_beyond_the_deadline_nor_after_the_last_attempt() -> None:
    """The caller is told at once."""
    assert isinstance(decided([(A, throttled(5))], targets=(A,), now=6), Stop)
    assert isinstance(decided([(A, throttled(5))], targets=(A,), now=4), Try)
    assert isinstance(decided([(A, unreachable)] * 3, targets=(A,)), Stop)


def test_a_batch_waits_longer() -> None:
    """Nobody sits in front of it."""
    assert isinstance(decided([(A, throttled(8.5))], targets=(A,)), Stop)
    found = decided([(A, throttled(8.5))], targets=(A,), call_class=CallClass.BATCH)
    assert isinstance(found, Try) and found.wait_s == pytest.approx(8.5 * 1.1)


def test_a_provider_that_has_failed_enough_is_spared() -> None:
    """Another target is a first attempt there, and is tried all the same."""
    assert isinstance(decided([(A, unreachable)], targets=(A,), spares=False), Stop)
    assert isinstance(decided([(A, unreachable)], targets=(A, B), spares=False), Try)


def test_who_is_left_alone_is_passed_over_and_costs_no_attempt() -> None:
    """The next target is tried at once, with the same number."""
    for passed in (resting(20), left_alone(0.1)):
        found = decided([(A, passed)])
        assert isinstance(found, Try) and (found.target, found.n, found.wait_s) == (B, 1, 0)


def test_who_said_for_how_long_is_waited_for_when_nobody_else_is_left() -> None:
    """It was not asked, so this is no retry, and a provider that is spared is asked all the same."""
    found = decided([(A, left_alone(2)), (B, rejected_key)], targets=(A, B), spares=False)
    assert isinstance(found, Try) and (found.target, found.n, found.is_retry) == (A, 2, False)
    assert found.wait_s == pytest.approx(2.2)
    assert isinstance(decided([(A, left_alone(8.1))], targets=(A,)), Stop)
    assert isinstance(decided([(A, left_alone(2))] * 3, targets=(A,)), Stop)
    assert isinstance(decided([(A, resting(0.5))], targets=(A,)), Stop)


def test_who_was_asked_before_and_wants_peace_now_is_spared_too() -> None:
    """Whatever it said last, asking it once more is a retry, and counts as one."""
    failed = [(A, fault(503)), (A, left_alone(2))]
    found = decided(failed, targets=(A,))
    assert isinstance(found, Try) and (found.n, found.is_retry) == (2, True)
    assert isinstance(decided(failed, targets=(A,), spares=False), Stop)


def test_of_targets_that_were_not_asked_the_one_that_may_pass_soonest_is_told() -> None:
    """Whoever was asked goes first; the others are listed."""
    for failures, said in (
        ([(A, resting(30)), (B, left_alone(9))], "b/m wants peace"),
        ([(A, left_alone(9)), (B, resting(30))], "a/m wants peace"),
        ([(A, resting(30)), (B, rejected_key)], "b/m refuses our key"),
        ([(A, rejected_key), (B, resting(30))], "a/m refuses our key"),
    ):
        found = decided(failures, targets=(A, B))
        assert isinstance(found, Stop) and str(found.error) == said
        assert isinstance(found.error, UpstreamError) and len(found.error.tried) == 1


# The budget of retries.


def test_a_fifth_of_the_calls_and_three_may_be_tried_again() -> None:
    """In 10 seconds; each provider for itself."""
    budget = RetryBudget()
    for _ in range(10):
        budget.came(A, 100.0)
    taken = 0
    while taken < 99 and budget.allows(A, 100.5):
        budget.took(A, 100.5)
        taken += 1
    assert taken == 5
    assert budget.allows(B, 100.5)
    assert budget.statistics(100.5)["a"] == (10, 5)
    assert not budget.allows(A, 109.9)
    assert budget.allows(A, 111.5)
    assert budget.statistics(1000.0)["a"] == (0, 0)


@given(steps=st.lists(st.tuples(st.floats(0, 3), st.sampled_from(["call", "retry", "wait"])), max_size=200))
def test_retries_never_exceed_their_share(steps: list[tuple[float, str]]) -> None:
    """Over every 10 seconds: a fifth of the calls of as long and one second more, and 3."""
    budget, now = RetryBudget(), 50.0
    calls: list[float] = []
    retries: list[float] = []
    for wait, what in steps:
        now += wait
        if what == "call":
            budget.came(A, now)
            calls.append(now)
        elif what == "retry" and budget.allows(A, now):
            budget.took(A, now)
            retries.append(now)
            recent = sum(now - 10 < one for one in retries)
            assert recent <= 0.2 * sum(now - 11 <= one for one in calls) + 3


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


def driven(
    attempts: Attempts,
    *,
    attempts_max: int = 3,
    deadline: float = 100,
    targets: Sequence[Target] = (A, B, C),
    budget: RetryBudget | None = None,
) -> str:
    clock = FakeClock()
    facts = Facts(targets=targets, policy=RetryPolicy(attempts=attempts_max), deadline=deadline)
    loop = drive(facts, attempts, budget=budget or RetryBudget(), clock=clock, chance=lambda: 1.0)
    return run_virtual(loop, clock=clock)


def test_the_first_target_that_answers_ends_the_loop() -> None:
    """In order, and the numbers count attempts that were made: a full target is none."""
    attempts = Attempts(fails=(unreachable, full))
    assert driven(attempts) == "answer of c"
    assert attempts.made == [("a", 1), ("b", 2), ("c", 2)]


def test_the_last_failure_is_told_with_those_before_it() -> None:
    """Who failed, and with which sentence."""
    with pytest.raises(UpstreamUnreachable) as failure:
        driven(Attempts(fails=(unreachable, full, unreachable)), attempts_max=2)
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


def test_a_target_that_failed_is_tried_again_after_a_wait() -> None:
    """Nothing is held meanwhile, and the number goes on."""
    attempts = Attempts(fails=(unreachable, unreachable))
    clock = FakeClock()
    facts = Facts(targets=(A,), policy=RetryPolicy(), deadline=100)
    loop = drive(facts, attempts, budget=RetryBudget(), clock=clock, chance=lambda: 1.0)
    assert run_virtual(loop, clock=clock) == "answer of a"
    assert attempts.made == [("a", 1), ("a", 2), ("a", 3)]
    assert clock.monotonic() == pytest.approx(3 + 0.05 + 0.1)


def test_retries_are_taken_from_the_budget_and_calls_fill_it() -> None:
    """Three are spared to begin with, and none more of a provider that nobody calls."""
    budget = RetryBudget()
    made = []
    for _ in range(4):
        attempts = Attempts(fails=(unreachable,) * 9)
        with pytest.raises(UpstreamUnreachable):
            driven(attempts, targets=(A,), budget=budget)
        made.append(len(attempts.made))
    assert made == [3, 2, 1, 1]
    assert budget.statistics(1)["a"] == (4, 3)


def test_a_call_that_is_sent_again_fills_no_budget() -> None:
    """The clients' own retries are no reason for more of ours."""
    budget, clock = RetryBudget(), FakeClock()
    facts = Facts(targets=(A,), policy=RetryPolicy(), deadline=100, is_sent_again=True)
    run_virtual(drive(facts, Attempts(), budget=budget, clock=clock, chance=lambda: 1.0), clock=clock)
    assert budget.statistics(0).get("a", (0, 0)) == (0, 0)
