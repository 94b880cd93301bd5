"""A rate that is learned: what a provider says is left, less what it cannot have counted yet."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiergate.core import Allowance
from tiergate.rates import LearnedRate


def heard(said: Allowance, *, taken: float = 0, ago_s: float = 0, now: float = 0) -> LearnedRate:
    rate = LearnedRate(is_exact=False)
    for _ in range(int(taken)):
        rate.take(1, now)
    rate.hear(said, taken=taken, ago_s=ago_s, now=now)
    return rate


def test_what_is_left_comes_back_as_fast_as_the_reset_says() -> None:
    """60 requests, none left, whole in a minute: one comes each second, up to 60."""
    rate = heard(Allowance(60, 0, 60))
    assert rate.wait_s(1, 0) == pytest.approx(1)
    assert rate.left(30) == pytest.approx(30)
    assert rate.left(600) == 60
    slow = heard(Allowance(14_400, 0, 86_400))
    assert slow.wait_s(1, 0) == pytest.approx(6)


def test_a_reset_of_a_rate_that_was_hardly_used_does_not_tell_its_speed() -> None:
    """Resets are rounded to whole seconds; then the limit is one of a minute."""
    rate = heard(Allowance(6_000, 5_999, 1))
    rate.take(5_999, 0)
    assert rate.wait_s(1, 0) == pytest.approx(0.01)


def test_what_was_taken_since_the_question_is_not_counted_yet() -> None:
    """Of ten that were sent at once the first was told that nine are left."""
    assert heard(Allowance(10, 9, 6), taken=9).left(0) == 0
    assert heard(Allowance(10, 9, 6), taken=4).left(0) == 5


def test_what_has_come_back_since_the_question_is_there() -> None:
    """An answer that took two minutes, while one was asked each second as one came back."""
    rate = LearnedRate(is_exact=False)
    rate.hear(Allowance(60, 30, 30), taken=0, ago_s=0, now=0)
    for second in range(1, 121):
        rate.take(1, second)
    rate.hear(Allowance(60, 30, 30), taken=120, ago_s=120, now=120)
    assert rate.left(120) == pytest.approx(30)


def test_a_late_answer_does_not_bring_back_what_was_just_taken() -> None:
    """A minute's pause between question and answer, and a burst at its end."""
    rate = LearnedRate(is_exact=False)
    rate.hear(Allowance(60, 59, 1), taken=0, ago_s=0, now=0)
    for _ in range(59):
        rate.take(1, 59)
    rate.hear(Allowance(60, 59, 1), taken=59, ago_s=60, now=60)
    assert rate.left(60) <= 2


def test_nobody_waits_longer_than_the_reset_that_was_named() -> None:
    """Whatever is asked for, and whatever else was said."""
    assert heard(Allowance(100, 0, 7)).wait_s(1_000, 0) == pytest.approx(7)
    assert heard(Allowance(None, 0, 7)).wait_s(1, 0) == 7
    assert heard(Allowance(None, 0, None)).wait_s(1, 0) == 60
    assert heard(Allowance(100, 0, None)).wait_s(100, 0) == pytest.approx(60)


def test_a_rate_that_comes_back_at_once_is_waited_for_to_its_end() -> None:
    """And is whole then."""
    rate = heard(Allowance(100, 0, 30, comes_at_once=True))
    assert rate.wait_s(1, 0) == 30
    assert rate.left(30) == 100


def test_what_was_taken_in_an_earlier_window_is_no_matter_of_this_one() -> None:
    """The answer took longer than a window."""
    rate = LearnedRate(is_exact=False)
    rate.hear(Allowance(10, 9, 60, comes_at_once=True), taken=0, ago_s=0, now=0)
    for now in (1, 2, 3, 61):
        rate.take(1, now)
    rate.hear(Allowance(10, 8, 59, comes_at_once=True), taken=4, ago_s=62, now=62)
    assert rate.left(62) == 7


def test_an_answer_that_does_not_say_what_remains_says_nothing() -> None:
    """A limit alone may be anybody's."""
    rate = heard(Allowance(1, None, 60))
    rate.take(5, 0)
    assert rate.wait_s(1, 0) == 0


def test_what_was_never_sent_is_made_good() -> None:
    """Up to the limit."""
    rate = heard(Allowance(10, 5, 30))
    rate.take(1, 0)
    rate.give_back(1)
    assert rate.left(0) == 5
    rate.give_back(100)
    assert rate.left(0) == 10


AMOUNT = st.none() | st.floats(0, 1e6)
SAID = st.builds(
    Allowance, st.none() | st.floats(1, 1e6), AMOUNT, st.none() | st.floats(0, 86_400), st.booleans()
)
STEPS = st.lists(st.tuples(st.floats(0, 200), SAID | st.floats(0, 1e4), st.floats(0, 1e4)), max_size=30)


@given(STEPS, st.floats(0, 1e4))
def test_whatever_was_said_and_taken_no_wait_is_longer_than_what_was_named(
    steps: list[tuple[float, Allowance | float, float]], amount: float
) -> None:
    """The longest reset, or the minute of who named none; and after its wait everybody goes."""
    rate, now, longest = LearnedRate(is_exact=False), 0.0, 60.0
    for pause, step, taken in steps:
        now += pause
        if isinstance(step, Allowance):
            rate.hear(step, taken=taken, ago_s=pause, now=now)
            if step.limit is not None and step.remaining is not None and step.reset_s is not None:
                used = max(step.limit - step.remaining, step.limit / 10)
                longest = max(longest, step.reset_s * step.limit / used)
            longest = max(longest, step.reset_s or 0.0)
        else:
            rate.take(step, now)
        assert rate.left(now) >= 0
        wait_s = rate.wait_s(amount, now)
        assert 0 <= wait_s <= longest * (1 + 1e-6) + 1e-3
    later = now + rate.wait_s(amount, now)
    assert rate.wait_s(amount, later + 1e-3) <= 1e-3


def test_no_answer_says_that_more_is_left_than_this_process_alone_leaves() -> None:
    """Of ten that were sent at once the last one arrived first, and is told that nine are left."""
    rate = LearnedRate(is_exact=True)
    rate.hear(Allowance(11, 10, 6), taken=0, ago_s=0, now=0)
    for _ in range(10):
        rate.take(1, 0)
    rate.hear(Allowance(11, 9, 12), taken=0, ago_s=0, now=0)
    assert rate.left(0) == 0
