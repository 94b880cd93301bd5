"""Health: what fails for itself, who is left alone, and what whoever comes then is told."""

from collections.abc import Callable

import pytest

from tiergate.core import (
    BreakerChanged,
    BudgetExceeded,
    Event,
    Target,
    TargetResting,
    TargetThrottled,
    Tier,
    UpstreamAuthFailed,
    UpstreamError,
    UpstreamFault,
    UpstreamInterrupted,
    UpstreamProtocolError,
    UpstreamRejected,
    UpstreamThrottled,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from tiergate.resilience import BreakerPolicy, Health, HealthReport, Part, Verdict, verdicts_of
from tiergate.resilience.health import WATCHED_MAX
from tiergate.testing import FakeClock

A1, A2, B1 = (
    Target(provider=provider, model=model, tier=Tier.HOSTED)
    for provider, model in (("a", "one"), ("a", "two"), ("b", "one"))
)
GOOD, BAD, UNREACHED = Verdict.GOOD, Verdict.BAD, Verdict.UNREACHED


def failed(status: int) -> UpstreamError:
    return UpstreamFault(f"failed ({status}).", status=status)


def quota() -> UpstreamError:
    return UpstreamThrottled("used up.", quota=True)


def refused(status: int) -> UpstreamError:
    error = UpstreamAuthFailed("refused our key.")
    error.status = status
    return error


def slow(phase: str) -> UpstreamError:
    return UpstreamTimeout("slow.", phase=phase)


def throttled(wait_s: float | None) -> UpstreamError:
    return UpstreamThrottled("throttles.", retry_after_s=wait_s)


class Clinic:
    """Health, its clock, and what it told."""

    def __init__(self, policy: BreakerPolicy | None = None) -> None:
        self.clock = FakeClock()
        self.told: list[BreakerChanged] = []
        self.health = Health(policy or BreakerPolicy(), clock=self.clock, chance=lambda: 0.5, emit=self._hear)

    def _hear(self, event: Event) -> None:
        assert isinstance(event, BreakerChanged)
        self.told.append(event)

    def attempt(
        self, target: Target, error: BaseException | None = None, *, begins: bool = False, count: int = 1
    ) -> None:
        """Make attempts that end so; `begins`: their first content came."""
        for _ in range(count):
            trial = self.health.enter(target)
            trial.__enter__()
            if begins:
                trial.mark_first_content()
            trial.__exit__(None if error is None else type(error), error, None)

    def refusal(self, target: Target) -> TargetResting | TargetThrottled | None:
        try:
            self.health.check(target)
        except (TargetResting, TargetThrottled) as error:
            return error
        return None

    def report(self, provider: str, model: str, part: Part) -> HealthReport:
        (found,) = (
            report
            for report in self.health.reports()
            if (report.provider, report.model, report.part) == (provider, model, part)
        )
        return found


@pytest.mark.parametrize(
    ("error", "servers", "credential", "model"),
    [
        (UpstreamUnreachable("no."), UNREACHED, None, None),
        (slow("connect"), UNREACHED, None, None),
        (slow("first_event"), GOOD, None, UNREACHED),
        (slow("idle"), GOOD, None, BAD),
        (slow("pool"), None, None, None),
        (slow("total"), None, None, None),
        (refused(401), GOOD, UNREACHED, None),
        (refused(400), GOOD, UNREACHED, None),
        (refused(403), GOOD, None, None),
        (quota(), GOOD, UNREACHED, None),
        (throttled(1), GOOD, None, None),
        (failed(500), GOOD, None, BAD),
        (failed(503), GOOD, None, BAD),
        (failed(200), GOOD, None, BAD),
        (failed(529), GOOD, None, None),
        (failed(404), GOOD, None, None),
        (failed(408), GOOD, None, None),
        (UpstreamFault("inside its stream."), GOOD, None, BAD),
        (UpstreamInterrupted("broke off."), GOOD, None, BAD),
        (UpstreamProtocolError("no answer."), GOOD, None, BAD),
        (UpstreamRejected("no.", status=400), GOOD, None, None),
        (BudgetExceeded("no money."), None, None, None),
        (RuntimeError("a bug"), None, None, None),
    ],
)
def test_what_a_failure_says(
    error: BaseException, servers: Verdict | None, credential: Verdict | None, model: Verdict | None
) -> None:
    """Of servers, credential and model; a 4xx is nobody's failure, and neither is the caller's own time."""
    said = {Part.SERVERS: servers, Part.CREDENTIAL: credential, Part.MODEL: model}
    assert verdicts_of(error) == {part: verdict for part, verdict in said.items() if verdict is not None}


@pytest.mark.parametrize(
    ("error", "count", "rests", "well"),
    [
        (UpstreamUnreachable("no."), 5, (A1, A2), (B1,)),
        (slow("first_event"), 5, (A1,), (A2, B1)),
        (failed(500), 20, (A1,), (A2, B1)),
        (refused(401), 1, (A1, A2), (B1,)),
        (quota(), 1, (A1, A2), (B1,)),
    ],
)
def test_each_part_fails_for_itself(
    error: UpstreamError, count: int, rests: tuple[Target, ...], well: tuple[Target, ...]
) -> None:
    """Not one attempt earlier; whoever comes is told why, what was said last, and until when."""
    clinic = Clinic()
    clinic.attempt(A1, error, count=count - 1)
    assert clinic.refusal(A1) is None
    clinic.attempt(A1, error)
    for target in rests:
        refusal = clinic.refusal(target)
        assert isinstance(refusal, TargetResting) and refusal.retry_after_s == 30
        assert refusal.target == target.name
        assert str(error).rstrip(".") in str(refusal) and "again in 30 s" in str(refusal)
        assert clinic.health.why_not(target) == str(refusal)
        with pytest.raises(TargetResting):
            clinic.health.enter(target)
    for target in well:
        assert clinic.refusal(target) is None
        assert clinic.health.why_not(target) is None
    clinic.clock.advance(30)
    assert clinic.refusal(A1) is None


@pytest.mark.parametrize(
    "error", [refused(403), failed(404), throttled(None), UpstreamRejected("no.", status=400), None]
)
def test_a_4xx_opens_nothing(error: UpstreamError | None) -> None:
    """However many there are."""
    clinic = Clinic()
    clinic.attempt(A1, error, count=200)
    assert clinic.refusal(A1) is None
    assert clinic.told == []


@pytest.mark.parametrize(
    "make", [throttled, lambda wait_s: overloaded(529, wait_s), lambda s: overloaded(503, s)]
)
def test_one_that_asks_to_be_left_alone_is_for_that_time(make: Callable[[float], UpstreamError]) -> None:
    """Its other models are not; a shorter wait that is told later takes nothing away."""
    clinic = Clinic()
    clinic.attempt(A2)
    clinic.attempt(A1, make(9))
    clinic.clock.advance(2)
    refusal = clinic.refusal(A1)
    assert isinstance(refusal, TargetThrottled) and refusal.retry_after_s == 7
    assert clinic.refusal(A2) is None
    assert clinic.report("a", "one", Part.MODEL).throttled_s == 7
    clinic.clock.advance(6.99)
    assert clinic.refusal(A1) is not None
    clinic.clock.advance(0.02)
    assert clinic.refusal(A1) is None


def overloaded(status: int, wait_s: float) -> UpstreamError:
    error = failed(status)
    error.retry_after_s = wait_s
    return error


def test_the_longer_of_two_waits_holds() -> None:
    """Two attempts were running; the later answer asked for less."""
    clinic = Clinic()
    one, two = clinic.health.enter(A1), clinic.health.enter(A1)
    one.__exit__(None, throttled(20), None)
    two.__exit__(None, throttled(1), None)
    refusal = clinic.refusal(A1)
    assert refusal is not None and refusal.retry_after_s == 20


def test_a_stream_lets_the_next_one_try_when_it_has_begun() -> None:
    """It may take an hour; what it says at its end belongs to a state that is over."""
    clinic = Clinic()
    clinic.attempt(A1, slow("first_event"), count=5)
    clinic.clock.advance(30)
    stream = clinic.health.enter(A1)
    refusal = clinic.refusal(A1)
    assert isinstance(refusal, TargetResting) and refusal.retry_after_s == 1
    assert "one call is trying" in str(refusal)
    stream.mark_first_content()
    clinic.attempt(A1, begins=True)
    stream.__exit__(None, UpstreamInterrupted("broke off."), None)
    assert [(event.state, event.part) for event in clinic.told] == [("open", "model"), ("closed", "model")]
    assert clinic.report("a", "one", Part.MODEL).state == "closed"


def test_streams_that_all_break_off_are_all_failures() -> None:
    """Though each of them began."""
    clinic = Clinic()
    clinic.attempt(A1, UpstreamInterrupted("broke off."), begins=True, count=19)
    assert clinic.refusal(A1) is None
    clinic.attempt(A1, UpstreamInterrupted("broke off."), begins=True)
    assert clinic.refusal(A1) is not None


def test_an_attempt_that_never_left_tries_nothing() -> None:
    """No money was there for it: the next one tries."""
    clinic = Clinic()
    clinic.attempt(A1, slow("first_event"), count=5)
    clinic.clock.advance(30)
    clinic.attempt(A1, BudgetExceeded("no money."), count=3)
    assert clinic.refusal(A1) is None
    assert clinic.report("a", "one", Part.MODEL).state == "half_open"


def test_by_hand_a_model_or_a_whole_provider_is_left_alone() -> None:
    """Without an end; what was never asked, too; it outlives new settings."""
    clinic = Clinic()
    clinic.health.isolate("a", "two")
    assert clinic.refusal(A1) is None
    refusal = clinic.refusal(A2)
    assert isinstance(refusal, TargetResting) and "isolated by hand" in str(refusal)
    clinic.health.isolate("b")
    clinic.health.use(BreakerPolicy(enabled=False))
    clinic.clock.advance(1e6)
    assert clinic.refusal(A2) is not None and clinic.refusal(B1) is not None
    clinic.health.restore("a", "two")
    clinic.health.restore("b")
    assert clinic.refusal(A2) is None and clinic.refusal(B1) is None


def test_a_provider_that_is_restored_is_asked_at_once() -> None:
    """Whatever kept it away; a single model of it only by its own name."""
    clinic = Clinic()
    clinic.attempt(A1, throttled(60))
    clinic.attempt(A2, failed(500), count=20)
    clinic.attempt(Target(provider="a", model="three", tier=Tier.HOSTED), quota())
    clinic.health.restore("a", "one")
    assert clinic.refusal(A1) is not None, "its credential is blocked"
    clinic.health.restore("a")
    assert clinic.refusal(A1) is None and clinic.refusal(A2) is None


def test_other_settings_try_a_blocked_credential_again() -> None:
    """It may be another one by now; servers that were not reached stay what they are."""
    clinic = Clinic()
    clinic.attempt(A1, refused(401))
    clinic.attempt(B1, UpstreamUnreachable("no."), count=5)
    clinic.health.use(BreakerPolicy())
    assert clinic.refusal(A1) is None
    assert clinic.refusal(B1) is not None


def test_switched_off_nobody_is_left_alone() -> None:
    """Each call asks again, whatever was said."""
    clinic = Clinic(BreakerPolicy(enabled=False))
    for error in (UpstreamUnreachable("no."), failed(500), refused(401), throttled(60)):
        clinic.attempt(A1, error, count=30)
    assert clinic.refusal(A1) is None


def test_what_changes_is_told_once() -> None:
    """With what was said last."""
    clinic = Clinic()
    clinic.attempt(A1, refused(401))
    clinic.clock.advance(30)
    clinic.attempt(A1)
    clinic.attempt(A1)
    opened, closed = clinic.told
    assert (opened.target, opened.part, opened.state, opened.wait_s) == ("a", "credential", "open", 30)
    assert opened.because == "refused our key."
    assert (closed.state, closed.wait_s) == ("closed", 0)


def test_names_that_callers_make_up_fill_no_memory() -> None:
    """The oldest is forgotten, and what somebody isolated is not."""
    clinic = Clinic()
    clinic.health.isolate("a", "two")
    for number in range(WATCHED_MAX + 10):
        clinic.attempt(Target(provider="a", model=f"made-up-{number}", tier=Tier.HOSTED))
    assert sum(1 for report in clinic.health.reports() if report.model) == WATCHED_MAX
    assert clinic.refusal(A2) is not None
