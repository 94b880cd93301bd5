"""What now: retry, next target, wait or stop; breakers, permits and rates of targets, deadline arithmetic."""

from tiergate.resilience.drive import Attempt, Stop, Try, drive, what_now
from tiergate.resilience.permits import Permit, Permits, PermitStatistics
from tiergate.resilience.policy import RetryPolicy, budget_wait_s, permit_wait_s

__all__ = [
    "Attempt",
    "Permit",
    "PermitStatistics",
    "Permits",
    "RetryPolicy",
    "Stop",
    "Try",
    "budget_wait_s",
    "drive",
    "permit_wait_s",
    "what_now",
]
