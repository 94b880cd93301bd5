"""A circuit breaker: stops asking what fails, and asks one at a time whether it has come back.

    CLOSED ──too many failures──► OPEN ──its time is over──► HALF OPEN ──two of three were good──► CLOSED
                                   ▲                            │
                                   └────────two were bad────────┘   for longer than the time before

Whoever enters is given a number of the state that it entered in. What it tells afterwards counts only as long
as the breaker is in that state: an answer that began before the breaker opened says nothing of what is now.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, assert_never

from tiergate.resilience.outcomes import Verdict
from tiergate.resilience.retries import Chance


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerPolicy:
    """When a breaker opens, and for how long. Times are seconds."""

    enabled: bool = True
    """False: nothing is ever left alone but what is isolated by hand."""
    window_s: float = 30
    """How far back failures count."""
    calls_min: int = 20
    """Fewer calls than this in the window say nothing."""
    failed_share: float = 0.5
    """The share of them that must fail."""
    in_a_row: int = 5
    """Failures without a sign of life that are enough by themselves."""
    open_s: float = 30
    """Until it is tried again; after each trial that fails so much longer."""
    open_max_s: float = 300
    jitter: float = 0.2
    """The part of that time by which it may be longer or shorter, so that breakers do not try together."""


_BUCKETS: Final = 10
_TRIALS: Final = 3
_GOOD_TRIALS: Final = 2
_TRIAL_RUNS_S: Final = 1.0
"""What is said to who comes while a trial runs; nobody knows how long it takes."""


@dataclass(slots=True)
class _Recent:
    """Calls and failures of the window, by parts of it."""

    part_s: float
    calls: list[int] = field(default_factory=lambda: [0] * _BUCKETS)
    failed: list[int] = field(default_factory=lambda: [0] * _BUCKETS)
    part: int = 0
    part_ends: float = 0.0

    def add(self, now: float, *, calls: int, failed: int) -> None:
        part = int(now / self.part_s)
        if part > self.part:
            self._move_to(part)
        self.calls[self.part % _BUCKETS] += calls
        self.failed[self.part % _BUCKETS] += failed

    def _move_to(self, part: int) -> None:
        for step in range(min(part - self.part, _BUCKETS)):
            self.calls[(part - step) % _BUCKETS] = 0
            self.failed[(part - step) % _BUCKETS] = 0
        self.part, self.part_ends = part, (part + 1) * self.part_s


@dataclass(slots=True)
class Closed:
    """Everybody may enter."""

    recent: _Recent
    in_a_row: int = 0


@dataclass(slots=True)
class Open:
    """Nobody may, until a moment."""

    until: float
    openings: int


@dataclass(slots=True)
class HalfOpen:
    """One at a time may."""

    openings: int
    good: int = 0
    bad: int = 0
    is_tried: bool = False


@dataclass(slots=True)
class Isolated:
    """Nobody may, until somebody restores it by hand."""


State = Closed | Open | HalfOpen | Isolated


class StateName(StrEnum):
    """The states as people read them."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    ISOLATED = "isolated"


class Breaker:
    """One breaker. Whoever uses it brings the time, and what draws a number from 0 to 1.

    `because` is what the last failure said, in a sentence.
    """

    __slots__ = ("_number", "_policy", "because", "state")

    def __init__(self, policy: BreakerPolicy) -> None:
        self._policy = policy
        self._number = 0
        self.because = ""
        self.state: State = self._closed()

    @property
    def number(self) -> int:
        """The number of its state."""
        return self._number

    @property
    def name(self) -> StateName:
        """The name of its state."""
        match self.state:
            case Closed():
                return StateName.CLOSED
            case Open():
                return StateName.OPEN
            case HalfOpen():
                return StateName.HALF_OPEN
            case Isolated():
                return StateName.ISOLATED
            case _:
                assert_never(self.state)

    def use(self, policy: BreakerPolicy) -> None:
        """Take another policy; what was counted is counted anew. The same one changes nothing."""
        if policy == self._policy:
            return
        self._policy = policy
        if isinstance(self.state, Closed):
            self._become(self._closed())

    def wait_s(self, now: float) -> float | None:
        """Give how long it will refuse whoever comes now; None: it lets one in."""
        match self.state:
            case Closed():
                return None
            case Open():
                return self.state.until - now if now < self.state.until else None
            case HalfOpen():
                return _TRIAL_RUNS_S if self.state.is_tried else None
            case Isolated():
                return float("inf")
            case _:
                assert_never(self.state)

    def enter(self, now: float) -> int:
        """Let one in that `wait_s` does not refuse; give the number that it tells its verdict with."""
        assert self.wait_s(now) is None
        if isinstance(self.state, Open):
            self._become(HalfOpen(openings=self.state.openings))
        if isinstance(self.state, HalfOpen):
            self.state.is_tried = True
        return self._number

    def tell(
        self, number: int, verdict: Verdict, *, now: float, chance: Chance, was_good: bool = False
    ) -> bool:
        """Take a verdict; give whether the state has changed. One of an earlier state counts nothing.

        `was_good`: it was told before that this one began well. A failure then stands for that, not beside
        it: of streams that all break off in the middle, all have failed and not half.
        """
        if number != self._number:
            return False
        state = self.state
        if type(state) is Closed:
            # What nearly every call finds, before the slower ways to look.
            return self._count(state, verdict, now, chance, was_good=was_good)
        match state:
            case HalfOpen():
                return self._judge(state, verdict, now, chance, was_good=was_good)
            case _:
                return False

    def tell_good(self, number: int, *, now: float) -> None:
        """Take a good verdict while it is closed; one of an earlier state counts nothing."""
        state = self.state
        assert type(state) is Closed
        if number == self._number and self._policy.enabled:
            recent = state.recent
            # Nearly every call, three times: what `add` does, without its price.
            if now < recent.part_ends:
                recent.calls[recent.part % _BUCKETS] += 1
            else:
                recent.add(now, calls=1, failed=0)
            state.in_a_row = 0

    def isolate(self) -> None:
        """Let nobody in until it is restored."""
        self._become(Isolated())

    def restore(self) -> None:
        """Let everybody in, whatever was before."""
        self._become(self._closed())

    def _count(self, state: Closed, verdict: Verdict, now: float, chance: Chance, *, was_good: bool) -> bool:
        if verdict is Verdict.NOTHING or not self._policy.enabled:
            return False
        if verdict is Verdict.GOOD:
            state.recent.add(now, calls=1, failed=0)
            state.in_a_row = 0
            return False
        state.recent.add(now, calls=0 if was_good else 1, failed=1)
        state.in_a_row += verdict is Verdict.UNREACHED
        calls, failed = sum(state.recent.calls), sum(state.recent.failed)
        # A stream can break off after its beginning has left the window: it is a call of now then.
        calls = max(calls, failed)
        is_much = calls >= self._policy.calls_min and failed >= calls * self._policy.failed_share
        if not is_much and state.in_a_row < self._policy.in_a_row:
            return False
        self._open(openings=1, now=now, chance=chance)
        return True

    def _judge(
        self, state: HalfOpen, verdict: Verdict, now: float, chance: Chance, *, was_good: bool
    ) -> bool:
        # One that has begun well is no trial any more: another one may run by now.
        state.is_tried = state.is_tried and was_good
        if verdict is Verdict.NOTHING:
            return False
        if verdict is Verdict.GOOD:
            state.good += 1
        else:
            state.good -= was_good
            state.bad += 1
        if state.good >= _GOOD_TRIALS:
            self._become(self._closed())
            return True
        if state.bad > _TRIALS - _GOOD_TRIALS:
            self._open(openings=state.openings + 1, now=now, chance=chance)
            return True
        return False

    def _open(self, *, openings: int, now: float, chance: Chance) -> None:
        policy = self._policy
        open_s = min(policy.open_s * openings, policy.open_max_s)
        open_s *= 1 + policy.jitter * (2 * chance() - 1)
        self._become(Open(until=now + open_s, openings=openings))

    def _become(self, state: State) -> None:
        self._number += 1
        self.state = state

    def _closed(self) -> Closed:
        return Closed(recent=_Recent(part_s=self._policy.window_s / _BUCKETS))
