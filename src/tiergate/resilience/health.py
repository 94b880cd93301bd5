"""Health: what is known of targets by how attempts at them ended, and who is left alone for a while.

A provider's servers, its credential and each of its models have a breaker of their own. A model that asks to
be left alone for a while (429, or overloaded) is, for that time; it is not ill.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil
from types import TracebackType
from typing import Final

from tiergate.core import (
    BreakerChanged,
    Clock,
    Emit,
    Target,
    TargetResting,
    TargetThrottled,
    UpstreamError,
)
from tiergate.resilience.breaker import Breaker, BreakerPolicy, Closed, HalfOpen, Isolated, StateName
from tiergate.resilience.outcomes import ALL_GOOD, Part, Verdict, Verdicts, is_pushed_back, verdicts_of
from tiergate.resilience.retries import Chance

WATCHED_MAX: Final = 4096
"""Callers may name models that the settings do not: so many are remembered, the last ones."""
_WHY: Final = {
    Part.SERVERS: "its servers cannot be reached",
    Part.CREDENTIAL: "our credential there is blocked",
    Part.MODEL: "too many calls failed there",
}
_BAD: Final = (Verdict.BAD, Verdict.UNREACHED)
# An enumeration takes its time to be walked through, and every call does it.
_PARTS: Final = tuple(Part)


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthReport:
    """The state of one part of a provider.

    `model` is empty where it is the provider's own. Whoever comes is refused for `wait_s` seconds (infinite:
    isolated by hand), or for `throttled_s` because the target asked for it; `because` is what the last
    failure said.
    """

    provider: str
    model: str
    part: Part
    state: StateName
    wait_s: float
    throttled_s: float = 0.0
    because: str = ""


class Health:
    """The breakers of all targets. They are known by name, so they outlive a reload.

    Args:
        policy: when they open.
        clock: monotonic seconds.
        chance: draws the jitter.
        emit: hears of those that change their state.
    """

    def __init__(self, policy: BreakerPolicy, *, clock: Clock, chance: Chance, emit: Emit) -> None:
        self._policy = policy
        self._clock = clock
        self._chance = chance
        self._emit = emit
        self._providers: dict[str, tuple[Breaker, Breaker]] = {}
        """Of each its servers and its credential."""
        self._models: dict[tuple[str, str], _Watched] = {}

    def use(self, policy: BreakerPolicy) -> None:
        """Take another policy. Credentials may be other ones, so those that are blocked are tried again."""
        self._policy = policy
        for servers, credential in self._providers.values():
            servers.use(policy)
            credential.use(_of_credentials(policy))
            if credential.name in (StateName.OPEN, StateName.HALF_OPEN):
                credential.restore()
        for watched in self._models.values():
            watched.breakers[-1].use(policy)

    # What an attempt asks.

    def check(self, target: Target) -> None:
        """Tell before a wait that an attempt would be refused after it.

        Raises:
            TargetResting: it is left alone now.
            TargetThrottled: it asked us to wait.
        """
        watched = self._watched(target)
        if watched.is_well:
            return
        refusal = self._refusal(watched, self._clock.monotonic())
        if refusal is not None:
            raise refusal

    def enter(self, target: Target) -> "Trial":
        """Let an attempt at a target begin; give a context that hears how it goes.

        Raises:
            TargetResting: it is left alone now; nothing was counted.
            TargetThrottled: it asked us to wait; nothing was counted.
        """
        watched = self._watched(target)
        if watched.is_well:
            return Trial(self, watched, [breaker.number for breaker in watched.breakers])
        now = self._clock.monotonic()
        refusal = self._refusal(watched, now)
        if refusal is not None:
            raise refusal
        return Trial(self, watched, [breaker.enter(now) for breaker in watched.breakers])

    def why_not(self, target: Target) -> str | None:
        """Say in a sentence why a target is not asked now; None: it is."""
        watched = self._models.get((target.provider, target.model))
        if watched is None and target.provider not in self._providers:
            return None
        watched = watched or self._watched(target)
        if watched.is_well:
            return None
        refusal = self._refusal(watched, self._clock.monotonic())
        return None if refusal is None else str(refusal)

    def hear_good(self, watched: "_Watched", numbers: list[int]) -> None:
        """Take that a target answers: what nearly every call tells."""
        if not watched.is_well:
            self.hear(watched, numbers, ALL_GOOD)
            return
        now = self._clock.monotonic()
        for breaker, number in zip(watched.breakers, numbers, strict=True):
            breaker.tell_good(number, now=now)

    def hear(
        self,
        watched: "_Watched",
        numbers: list[int],
        verdicts: Verdicts,
        *,
        error: BaseException | None = None,
        was_good: bool = False,
    ) -> None:
        """Take what a trial tells."""
        now = self._clock.monotonic()
        if isinstance(error, UpstreamError):
            watched.throttle(error, now)
        for part, breaker, number in zip(_PARTS, watched.breakers, numbers, strict=True):
            verdict = verdicts.get(part, Verdict.NOTHING)
            if verdict in _BAD:
                breaker.because = str(error)
            if breaker.tell(number, verdict, now=now, chance=self._chance, was_good=was_good):
                self._tell(watched.provider, watched.model if part is Part.MODEL else "", part, breaker)

    # What an operator asks.

    def isolate(self, provider: str, model: str = "") -> None:
        """Leave a target alone until it is restored; without a model, everything of a provider."""
        part = Part.MODEL if model else Part.SERVERS
        breaker = self._model(provider, model).breakers[-1] if model else self._provider(provider)[0]
        breaker.isolate()
        breaker.because = ""
        self._tell(provider, model, part, breaker)

    def restore(self, provider: str, model: str = "") -> None:
        """Ask a target again at once, whatever was before; without a model, everything of a provider.

        A single model of a provider that is left alone stays so with it.
        """
        for watched in list(self._models.values()):
            if watched.provider == provider and model in ("", watched.model):
                watched.throttled_until = 0.0
                self._restore(provider, watched.model, Part.MODEL, watched.breakers[-1])
        if not model:
            servers, credential = self._provider(provider)
            self._restore(provider, "", Part.SERVERS, servers)
            self._restore(provider, "", Part.CREDENTIAL, credential)

    def reports(self) -> Iterator[HealthReport]:
        """Give the state of everything that was asked, or isolated."""
        now = self._clock.monotonic()
        for provider, (servers, credential) in self._providers.items():
            yield _report(provider, "", Part.SERVERS, servers, now)
            yield _report(provider, "", Part.CREDENTIAL, credential, now)
        for watched in self._models.values():
            report = _report(watched.provider, watched.model, Part.MODEL, watched.breakers[-1], now)
            yield replace(report, throttled_s=max(0.0, watched.throttled_until - now))

    # Inside.

    def _restore(self, provider: str, model: str, part: Part, breaker: Breaker) -> None:
        if breaker.name is not StateName.CLOSED:
            breaker.restore()
            self._tell(provider, model, part, breaker)

    def _refusal(self, watched: "_Watched", now: float) -> TargetResting | TargetThrottled | None:
        if watched.is_well:
            return None
        name = watched.name
        for part, breaker in zip(_PARTS, watched.breakers, strict=True):
            wait_s = breaker.wait_s(now)
            if wait_s is not None:
                return TargetResting(
                    f"{name} is left alone: {_reason(part, breaker, wait_s)}.",
                    target=name,
                    retry_after_s=wait_s,
                )
        wait_s = watched.throttled_until - now
        if wait_s <= 0:
            watched.throttled_until = 0.0
        elif self._policy.enabled:
            return TargetThrottled(
                f"{name} asked to be left alone; it is asked again in {_seconds(wait_s)}.",
                target=name,
                retry_after_s=wait_s,
            )
        return None

    def _tell(self, provider: str, model: str, part: Part, breaker: Breaker) -> None:
        wait_s = breaker.wait_s(self._clock.monotonic()) or 0.0
        self._emit(
            BreakerChanged(
                target=f"{provider}/{model}" if model else provider,
                part=part.value,
                state=breaker.name.value,
                wait_s=wait_s,
                because=breaker.because,
            )
        )

    def _provider(self, name: str) -> tuple[Breaker, Breaker]:
        found = self._providers.get(name)
        if found is None:
            found = self._providers[name] = (Breaker(self._policy), Breaker(_of_credentials(self._policy)))
        return found

    def _watched(self, target: Target) -> "_Watched":
        found = self._models.get((target.provider, target.model))
        return self._model(target.provider, target.model) if found is None else found

    def _model(self, provider: str, model: str) -> "_Watched":
        found = self._models.get((provider, model))
        if found is None:
            if len(self._models) >= WATCHED_MAX:
                self._forget_one()
            found = _Watched(provider, model, (*self._provider(provider), Breaker(self._policy)))
            self._models[provider, model] = found
        return found

    def _forget_one(self) -> None:
        # The oldest, and where all are isolated the oldest of those: somebody has to go.
        kept = (place for place, one in self._models.items() if one.breakers[-1].name is StateName.CLOSED)
        del self._models[next(kept, next(iter(self._models)))]


class _Watched:
    """A model at a provider: its own breaker and those that it shares, in the order of `Part`."""

    __slots__ = ("breakers", "model", "name", "provider", "throttled_until")

    def __init__(self, provider: str, model: str, breakers: tuple[Breaker, Breaker, Breaker]) -> None:
        self.provider = provider
        self.model = model
        self.name = f"{provider}/{model}"
        self.breakers = breakers
        self.throttled_until = 0.0

    @property
    def is_well(self) -> bool:
        """Whether nothing is against it: what nearly every call finds."""
        servers, credential, model = self.breakers
        return (
            not self.throttled_until
            and type(servers.state) is type(credential.state) is type(model.state) is Closed
        )

    def throttle(self, error: UpstreamError, now: float) -> None:
        """Leave it alone for as long as it asks for."""
        if error.retry_after_s is not None and is_pushed_back(error):
            self.throttled_until = max(self.throttled_until, now + error.retry_after_s)


class Trial:
    """An attempt that health knows of; a context that tells how it went.

    It tells twice: that the target answers, with its first content, and how it ended. A stream may take an
    hour, and a breaker that lets one try at a time would wait for it.
    """

    __slots__ = ("_has_begun", "_health", "_numbers", "_watched")

    def __init__(self, health: Health, watched: _Watched, numbers: list[int]) -> None:
        self._health = health
        self._watched = watched
        self._numbers = numbers
        self._has_begun = False

    def mark_first_content(self) -> None:
        """Tell that the target answers."""
        self._has_begun = True
        self._health.hear_good(self._watched, self._numbers)

    def __enter__(self) -> "Trial":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._health.hear(
                self._watched, self._numbers, verdicts_of(error), error=error, was_good=self._has_begun
            )
        elif not self._has_begun:
            self._health.hear_good(self._watched, self._numbers)


def _of_credentials(policy: BreakerPolicy) -> BreakerPolicy:
    # One that is refused once is refused the next time.
    return replace(policy, in_a_row=1)


def _report(provider: str, model: str, part: Part, breaker: Breaker, now: float) -> HealthReport:
    return HealthReport(
        provider=provider,
        model=model,
        part=part,
        state=breaker.name,
        wait_s=breaker.wait_s(now) or 0.0,
        because=breaker.because,
    )


def _reason(part: Part, breaker: Breaker, wait_s: float) -> str:
    if isinstance(breaker.state, Isolated):
        return "it is isolated by hand"
    if isinstance(breaker.state, HalfOpen):
        return f"{_WHY[part]}, and one call is trying whether it has come back"
    said = f" ({breaker.because.rstrip('.')})" if breaker.because else ""
    return f"{_WHY[part]}{said}; it is asked again in {_seconds(wait_s)}"


def _seconds(wait_s: float) -> str:
    return f"{max(1, ceil(wait_s))} s"
