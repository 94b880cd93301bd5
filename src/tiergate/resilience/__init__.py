"""What now: retry, next target, wait or stop; breakers, permits and rates of targets, deadline arithmetic."""

from tiergate.resilience.breaker import Breaker, BreakerPolicy, StateName
from tiergate.resilience.drive import Attempt, Facts, Failure, Stop, Try, drive, what_now
from tiergate.resilience.gate import NO_LIMITS, PermitStatistics, ProviderLimits
from tiergate.resilience.health import Health, HealthReport, Trial
from tiergate.resilience.learned import RateLeft
from tiergate.resilience.outcomes import Part, Verdict, judge, verdicts_of
from tiergate.resilience.permits import Permit, Permits
from tiergate.resilience.policy import RetryPolicy, budget_wait_s, permit_wait_s
from tiergate.resilience.retries import RetryBudget, may_pass, wait_s

__all__ = [
    "NO_LIMITS",
    "Attempt",
    "Breaker",
    "BreakerPolicy",
    "Facts",
    "Failure",
    "Health",
    "HealthReport",
    "Part",
    "Permit",
    "PermitStatistics",
    "Permits",
    "ProviderLimits",
    "RateLeft",
    "RetryBudget",
    "RetryPolicy",
    "StateName",
    "Stop",
    "Trial",
    "Try",
    "Verdict",
    "budget_wait_s",
    "drive",
    "judge",
    "may_pass",
    "permit_wait_s",
    "verdicts_of",
    "wait_s",
    "what_now",
]
