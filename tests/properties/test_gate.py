"""The gate of a provider with all its limits, over any order of coming, leaving, giving up and reloading."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from tiergate.core import CallClass, Target, TargetFull, Tier, UpstreamThrottled
from tiergate.rates import BURST_S
from tiergate.resilience import Permit, Permits, ProviderLimits
from tiergate.testing import FakeClock, run_virtual

MODELS = tuple(Target(provider="p", model=name, tier=Tier.HOSTED) for name in ("m", "other"))
LIMITS = st.builds(
    ProviderLimits,
    concurrency=st.none() | st.integers(0, 3),
    rpm=st.none() | st.sampled_from([6, 60, 600]),
    tpm=st.none() | st.sampled_from([60, 600, 6_000]),
)


@dataclass
class Held:
    """A place that somebody has, and how many tokens it took."""

    permit: Permit
    took: int


@dataclass
class Crowd:
    """Callers of both classes at one provider. After each event the gate must be in order."""

    permits: Permits
    limits: ProviderLimits
    clock: FakeClock
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)
    seen_in_flight: int = 0

    async def caller(self, model: Target, call_class: CallClass, tokens: int, wait_s: float) -> None:
        try:
            permit = await self.permits.take(
                model, wait_s=wait_s, tokens=lambda: tokens, call_class=call_class
            )
        except TargetFull:
            return
        if call_class is CallClass.BATCH:
            self.check_nobody_was_overtaken()
        took = 0 if self.limits.tpm is None else tokens
        self.held.append(Held(permit, took))

    def check_nobody_was_overtaken(self) -> None:
        """Whoever is interactive and has waited since before this moment is kept back by its model alone."""
        gate, now = self.permits._gates["p"], self.clock.monotonic()
        for waiter in gate.line.in_order(now):
            if waiter.call_class is CallClass.INTERACTIVE and waiter.since < now:
                lane = gate._lanes.get(waiter.model)
                is_kept_back = lane is not None and not lane.adaptive.has_room(lane.in_flight, now)
                assert is_kept_back, "a batch call went before an interactive one"

    def leave(self, number: int, error: Exception | None, used: int | None) -> None:
        held = self.held.pop(number % len(self.held))
        if used is not None:
            held.permit.count(used)
        held.permit.__exit__(None if error is None else type(error), error, None)

    def check(self) -> None:
        gate = self.permits._gates.get("p")
        if gate is None:
            return
        now, found = self.clock.monotonic(), gate.statistics()
        assert found.in_flight == sum(lane.in_flight for lane in gate._lanes.values()) >= len(self.held)
        limit = self.limits.concurrency
        if found.in_flight > self.seen_in_flight:
            assert limit is None or found.in_flight <= limit, "let in above the limit"
        self.seen_in_flight = found.in_flight
        for left, per_minute in (
            (found.requests_left, self.limits.rpm),
            (found.tokens_left, self.limits.tpm),
        ):
            assert (left is None) == (per_minute is None)
            assert left is None or per_minute is None or left <= max(1.0, per_minute / 60 * BURST_S)
        # Whoever stands first has a reason to stand, or its timer is about to fire.
        waiting = list(gate.line.in_order(now))
        if waiting and now - waiting[0].since <= (waiting[0].until - waiting[0].since) / 2:
            first = gate._hindrance(waiting[0].model, waiting[0].tokens, now, waiting[0].call_class)
            due = gate._timer is not None and gate._timer.when() <= now + 1e-5
            assert first is not None or due, "waits though it may enter"

    def rates(self) -> list[tuple[float, float]]:
        """Give what is left of each rate there is, and the most that can be."""
        found = self.permits.statistics()["p"]
        rates = ((found.requests_left, self.limits.rpm), (found.tokens_left, self.limits.tpm))
        return [
            (left, max(1.0, per_minute / 60 * BURST_S))
            for left, per_minute in rates
            if left is not None and per_minute is not None
        ]

    async def go_home(self) -> None:
        """Everybody goes; after a pause nothing is missing of any rate."""
        for task in self.tasks:
            task.cancel()
        for ended in await asyncio.gather(*self.tasks, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended
        while self.held:
            self.leave(0, None, None)
        gate = self.permits._gates.get("p")
        if gate is None:
            return
        assert (gate.in_flight, len(gate.line)) == (0, 0)
        assert all(not lane.in_flight and lane.adaptive.limit is not None for lane in gate._lanes.values())
        await asyncio.sleep(3_600)
        found = self.permits.statistics()["p"]
        for left, per_minute in (
            (found.requests_left, self.limits.rpm),
            (found.tokens_left, self.limits.tpm),
        ):
            assert per_minute is None or left == max(1.0, per_minute / 60 * BURST_S)


Event = Callable[[Crowd], None]


def comes(model: Target, call_class: CallClass, tokens: int, wait_s: float) -> Event:
    return lambda crowd: crowd.tasks.append(
        asyncio.create_task(crowd.caller(model, call_class, tokens, wait_s))
    )


def leaves(number: int, used: int | None, pushed_back: bool) -> Event:
    error = UpstreamThrottled("throttles") if pushed_back else None
    return lambda crowd: crowd.leave(number, error, used) if crowd.held else None


def gives_up(number: int) -> Event:
    return lambda crowd: crowd.tasks[number % len(crowd.tasks)].cancel() and None if crowd.tasks else None


def reloads(limits: ProviderLimits) -> Event:
    def event(crowd: Crowd) -> None:
        crowd.limits = limits
        crowd.permits.use({"p": limits})

    return event


def stands_still(seconds: float) -> Event:
    """The process is stopped: time goes on and no timer fires."""
    return lambda crowd: crowd.clock.advance(seconds)


COMES = st.builds(
    comes,
    st.sampled_from(MODELS),
    st.sampled_from(CallClass),
    st.sampled_from([0, 1, 10, 40, 700]),
    st.sampled_from([0.0, 0.5, 3.0, 20.0]),
)
LEAVES = st.builds(leaves, st.integers(0, 5), st.none() | st.sampled_from([0, 5, 50, 1_000]), st.booleans())
EVENTS = st.lists(
    st.tuples(
        COMES
        | COMES
        | LEAVES
        | st.builds(gives_up, st.integers(0, 20))
        | st.builds(reloads, LIMITS)
        | st.builds(stands_still, st.floats(0, 5)),
        st.sampled_from([None, None, 0.0, 0.1, 1.0, 7.3]),
    ),
    max_size=40,
)


@settings(max_examples=300)
@given(EVENTS, LIMITS)
def test_whatever_happens_at_a_gate_with_all_limits_it_stays_in_order(
    events: list[tuple[Event, float | None]], limits: ProviderLimits
) -> None:
    """No place is lost or given twice, no rate is exceeded, nobody waits in vain and nothing is missing."""
    clock = FakeClock()

    async def main() -> None:
        crowd = Crowd(Permits({"p": limits}, clock=clock), limits, clock)
        for event, pause_s in events:
            event(crowd)
            if pause_s is None:
                continue  # the next one happens in the same turn of the loop
            await asyncio.sleep(pause_s)
            await asyncio.sleep(0)
            crowd.check()
        await crowd.go_home()

    run_virtual(main(), clock=clock)
