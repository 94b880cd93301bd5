"""How patient the gateway is with its targets."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Bounds of one call. Times are seconds."""

    attempts: int = 3
    """In total, over all targets."""
    first_event_s: float = 60
    """Until the first event of a stream."""
    idle_s: float = 60
    """Between two events of a stream."""
    reasoning_s: float = 300
    """At least this for both of them, where a model is known to think before it answers."""
    total_s: float = 600
    """The whole call, not streamed."""
    stream_total_s: float = 3600
    """The whole call, streamed."""
    permit_wait_s: float = 1
    """For a place at a target that is at its limit of concurrency, while another target is left."""
    backoff_s: float = 0.05
    """The most that the first retry of a target waits, unless it was throttled; doubles with each failure."""
    throttled_backoff_s: float = 1
    """The same after a 429 that does not say how long to wait."""
    backoff_max_s: float = 8
    """The longest wait before a retry of an interactive call."""
    batch_backoff_max_s: float = 60
    """The longest wait before a retry of any other."""
    budget_wait_s: float = 2
    """For money that others hold, at the last target."""


def permit_wait_s(policy: RetryPolicy, *, left_s: float, is_last: bool) -> float:
    """Give how long a call may wait for a place at a full target.

    Where another target is left it goes on soon. The last one is worth a quarter of the time that is left:
    the rest of it must be enough for the answer.
    """
    wait_s = left_s / 4 if is_last else min(policy.permit_wait_s, left_s)
    return max(0.0, wait_s)


def budget_wait_s(policy: RetryPolicy, *, left_s: float, is_last: bool) -> float:
    """Give how long a hold may wait for money; not at all while another target is left."""
    return max(0.0, min(policy.budget_wait_s, left_s / 4)) if is_last else 0.0
