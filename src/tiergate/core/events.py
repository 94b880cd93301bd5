"""Events: one frozen record for each thing worth telling; `telemetry` decides how it is told."""

from collections.abc import Callable
from typing import Final

import msgspec

from tiergate.core.call import CallClass, EndState, Goal, ReceiptUse
from tiergate.core.target import Target, Tier
from tiergate.core.usage import Usage, UsageDoubt, UsageSource


class CallEnded(msgspec.Struct, frozen=True, kw_only=True):
    """A call reached its end; emitted exactly once for each call. Durations are milliseconds.

    It carries names and counts, never text, keys or upstream messages.
    """

    call_id: str
    wall_ns: int
    endpoint: str
    key: str
    team: str | None
    tag: str | None
    asked_model: str
    call_class: CallClass
    streamed: bool
    end: EndState
    error_code: str | None
    target: Target | None
    attempts: int
    ttft_ms: float | None
    total_ms: float
    usage: Usage | None
    usage_source: UsageSource | None
    cash_nanos: int | None
    generation: int
    receipt: ReceiptUse | None = None
    job: str | None = None
    """The job that it answered a line of."""
    time_limit_s: float | None = None
    """How long its caller gave it, if it said."""
    cache: str | None = None
    """What became of it at the cache (`CacheSaid.outcome`), and
    cache_reason: why."""
    cache_reason: str | None = None
    avoided: Usage | None = None
    """What was not used, since somebody else has paid for the answer, and
    avoided_nanos: what that would have cost; None: nothing was avoided, or its price is unknown."""
    avoided_nanos: int | None = None

    @property
    def tier(self) -> Tier | None:
        """The tier that answered, or was asked last; the cache where somebody else has paid."""
        if self.avoided is not None:
            return Tier.CACHE
        return None if self.target is None else self.target.tier

    def is_in_time(self, goal: Goal) -> bool:
        """Tell whether it was answered in time: by its caller's deadline, else by the goal of its class."""
        if self.end is not EndState.SUCCESS:
            return False
        first_ms = self.ttft_ms if self.streamed else None
        is_begun = goal.first_event_s is None or first_ms is None or first_ms <= goal.first_event_s * 1e3
        total_s = goal.total_s if self.time_limit_s is None else self.time_limit_s
        return is_begun and self.total_ms <= total_s * 1e3


class AttemptFailed(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt did not carry its call; the call may go on elsewhere."""

    call_id: str
    n: int
    target: Target
    error_code: str
    status: int | None
    elapsed_ms: float


class UsageDoubted(msgspec.Struct, frozen=True, kw_only=True):
    """Something is odd about what an attempt used or cost. Amounts are nano-dollars; None: not known."""

    call_id: str
    n: int
    target: Target
    doubt: UsageDoubt
    cash_nanos: int | None
    """What is charged."""
    bound_nanos: int | None
    """What was held."""
    upstream_cost_nanos: int | None
    """What the provider says."""


class BudgetReached(msgspec.Struct, frozen=True, kw_only=True):
    """So much of a budget is spent that somebody wants to know. Amounts are nano-dollars."""

    budget: str
    """Its scope, name and window, such as `key:web per month`."""
    share: float
    """The share of it that was reached, as the settings ask for it."""
    spent_nanos: int
    held_nanos: int
    amount_nanos: int
    window_start_ns: int
    window_end_ns: int | None


class SpendingFast(msgspec.Struct, frozen=True, kw_only=True):
    """A key's calls have cost more within an hour than they should. Amounts are nano-dollars."""

    key: str
    spent_nanos: int
    """What they have cost within the last hour, as this process saw it."""
    limit_nanos: int


ADMIN: Final = "admin"
"""Stands for all endpoints of the admin plane."""


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """A request was refused before it became a call; counted, never billed."""

    endpoint: str
    code: str
    status: int
    key: str | None = None
    """Whose limit it was, where it was one."""
    limit: str | None = None
    """Which limit of the key: `rpm`, `tpm` or `concurrency`."""


class BreakerChanged(msgspec.Struct, frozen=True, kw_only=True):
    """A target, or all of a provider, is left alone, tried again or asked as usual again."""

    target: str
    """`provider/model`, or the provider alone."""
    part: str
    """What of it: `servers`, `credential` or `model`."""
    state: str
    """From now on: `closed`, `open`, `half_open` or `isolated`."""
    wait_s: float
    """For how long whoever comes is refused; infinite: until somebody restores it."""
    because: str
    """What the last failure said, in our words."""


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """Something an operator should know: a word to search for, and a sentence."""

    word: str
    message: str
    severe: bool = False


Event = (
    CallEnded
    | AttemptFailed
    | UsageDoubted
    | BudgetReached
    | SpendingFast
    | Refusal
    | BreakerChanged
    | Notice
)
Emit = Callable[[Event], None]
"""Where a room sends its events. Must not block and must not raise."""
