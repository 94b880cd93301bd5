"""What now: retry, next target, wait or stop; breakers, permits and rates of targets, deadline arithmetic."""

from tiergate.resilience.drive import Attempt, Facts, Failure, Stop, Try, drive, what_now
from tiergate.resilience.permits import Permit, Permits, PermitStatistics
from tiergate.resilience.policy import RetryPolicy, budget_wait_s, permit_wait_s
from tiergate.resilience.retries import RetryBudget, may_pass, wait_s

__all__ = [
    "Attempt",
    "Facts",
    "Failure",
    "Permit",
    "PermitStatistics",
    "Permits",
    "RetryBudget",
    "RetryPolicy",
    "Stop",
    "Try",
    "budget_wait_s",
    "drive",
    "may_pass",
    "permit_wait_s",
    "wait_s",
    "what_now",
]
