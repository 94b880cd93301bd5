"""What now: retry, next target, wait or stop; breakers, permits and rates of targets, deadline arithmetic."""

from tiergate.resilience.drive import Attempt, Stop, Try, drive, what_now
from tiergate.resilience.permits import Permit, Permits, PermitStatistics
from tiergate.resilience.policy import RetryPolicy

__all__ = [
    "Attempt",
    "Permit",
    "PermitStatistics",
    "Permits",
    "RetryPolicy",
    "Stop",
    "Try",
    "drive",
    "what_now",
]
