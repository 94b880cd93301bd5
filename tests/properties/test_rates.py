"""Rates of providers and what targets can do at one time, over any order of events and any time."""

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tiergate.rates import BURST_S, Bucket
from tiergate.resilience.adaptive import Adaptive

STEPS = st.lists(st.tuples(st.floats(0, 20), st.integers(1, 50)), max_size=60)


@given(per_minute=st.integers(1, 10_000), steps=STEPS)
def test_over_any_span_no_more_is_taken_than_the_rate_and_one_burst(
    per_minute: int, steps: list[tuple[float, int]]
) -> None:
    """But for the one call that may go beyond what is ever saved up, and owes it afterwards."""
    bucket, now = Bucket(per_minute, now=0.0), 0.0
    taken: list[tuple[float, int]] = []
    for wait, amount in steps:
        now += wait
        if bucket.wait_s(amount, now) == 0:
            bucket.take(amount, now)
            taken.append((now, amount))
    burst = max(1.0, per_minute / 60 * BURST_S)
    for first, (began, _) in enumerate(taken):
        total = 0
        for at, amount in taken[first:]:
            assert total <= burst + per_minute / 60 * (at - began) + 1e-6
            total += amount


@given(per_minute=st.integers(1, 10_000), steps=STEPS)
def test_the_wait_that_is_told_is_enough_and_not_too_long(
    per_minute: int, steps: list[tuple[float, int]]
) -> None:
    """After it the amount can be taken, and a moment before it cannot."""
    bucket, now = Bucket(per_minute, now=0.0), 0.0
    for wait, amount in steps:
        now += wait
        wait_s = bucket.wait_s(amount, now)
        if wait_s > 0.01:
            assert bucket.wait_s(amount, now + wait_s * 0.99) > 0
        now += wait_s
        assert bucket.wait_s(amount, now) == 0
        bucket.take(amount, now)


@given(per_minute=st.integers(1, 10_000), pause_s=st.floats(0, 1e7))
def test_a_pause_saves_up_one_burst_and_no_more(per_minute: int, pause_s: float) -> None:
    """Also that of a stopped process (F35), and a clock that goes back gives nothing (F34)."""
    bucket = Bucket(per_minute, now=100.0)
    bucket.take(1, 100.0)
    assert bucket.left(100.0 + pause_s) <= max(1.0, per_minute / 60 * BURST_S)
    left = bucket.left(100.0 + pause_s)
    assert bucket.left(50.0) == left


class Learning(RuleBasedStateMachine):
    """A target that takes so many at one time, and pushes everything back that is more."""

    def __init__(self) -> None:
        super().__init__()
        self.adaptive, self.now, self.in_flight = Adaptive(), 0.0, 0

    @rule(seconds=st.floats(0, 30))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(count=st.integers(1, 20))
    def some_enter(self, count: int) -> None:
        for _ in range(count):
            if self.adaptive.has_room(self.in_flight, self.now):
                self.in_flight += 1

    @rule(good=st.booleans(), count=st.integers(1, 20))
    def some_leave(self, *, good: bool, count: int) -> None:
        for _ in range(min(count, self.in_flight)):
            before = self.adaptive.limit
            if good:
                self.adaptive.was_good(self.in_flight)
                assert before is None or self.adaptive.limit is None or self.adaptive.limit >= before
            else:
                self.adaptive.pushed_back(self.in_flight, self.now)
                assert self.adaptive.limit is not None
                assert before is None or self.adaptive.limit <= before
            self.in_flight -= 1

    @invariant()
    def somebody_always_gets_in(self) -> None:
        assert self.in_flight > 0 or self.adaptive.has_room(0, self.now)


TestLearning = Learning.TestCase
