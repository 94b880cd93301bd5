"""How long a call waits for a place."""

import pytest

from tiergate.resilience import RetryPolicy, permit_wait_s


@pytest.mark.parametrize(
    ("left_s", "is_last", "wait_s"),
    [(600, False, 1), (0.5, False, 0.5), (600, True, 150), (0.4, True, 0.1), (-3, False, 0), (-3, True, 0)],
)
def test_a_full_target_is_waited_for(left_s: float, is_last: bool, wait_s: float) -> None:
    """Briefly while another one is left, for a quarter of the remaining time where none is; never below 0."""
    assert permit_wait_s(RetryPolicy(permit_wait_s=1), left_s=left_s, is_last=is_last) == wait_s
