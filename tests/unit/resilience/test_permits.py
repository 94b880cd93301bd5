"""Permits: never more in flight than the limit, first come first served, and no place is ever lost."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiergate.core import Target, TargetFull, Tier
from tiergate.resilience import Permit, Permits, PermitStatistics
from tiergate.testing import FakeClock, run_virtual

P = Target(provider="p", model="m", tier=Tier.HOSTED)
OTHER_MODEL = Target(provider="p", model="other", tier=Tier.HOSTED)
Q = Target(provider="q", model="m", tier=Tier.HOSTED)


async def turns(count: int = 3) -> None:
    """Let everybody who can go on do so."""
    for _ in range(count):
        await asyncio.sleep(0)


def of(permits: Permits, provider: str = "p") -> PermitStatistics:
    return permits.statistics()[provider]


def test_a_place_is_given_at_once_while_there_is_one_and_taken_back_once() -> None:
    """Leaving the context twice gives back one place."""

    async def main() -> None:
        permits = Permits({"p": 2})
        one, two = await permits.take(P, wait_s=0), await permits.take(OTHER_MODEL, wait_s=0)
        assert (one.in_flight, two.in_flight) == (1, 2)
        assert of(permits) == PermitStatistics(in_flight=2, waiting=0, limit=2)
        with one:
            pass
        with one:
            pass
        assert of(permits).in_flight == 1

    run_virtual(main())


def test_providers_do_not_share_their_places_and_one_without_a_limit_has_no_end_of_them() -> None:
    """Models of one provider do share."""

    async def main() -> None:
        permits = Permits({"p": 1, "r": None})
        await permits.take(P, wait_s=0)
        for _ in range(1000):
            await permits.take(Q, wait_s=0)
        with pytest.raises(TargetFull):
            await permits.take(OTHER_MODEL, wait_s=0)
        assert of(permits, "q") == PermitStatistics(in_flight=1000, waiting=0, limit=None)

    run_virtual(main())


def test_who_waits_in_vain_is_told_after_exactly_the_time_it_allowed() -> None:
    """The refusal names the target, the setting and the wait, and says that nothing was sent."""
    clock = FakeClock()

    async def main() -> None:
        permits = Permits({"p": 1})
        await permits.take(P, wait_s=0)
        with pytest.raises(TargetFull, match=r"limits\.concurrency.* within 1\.5 s") as refusal:
            await permits.take(P, wait_s=1.5)
        assert clock.monotonic() == 1.5
        assert refusal.value.target == "p/m"
        assert of(permits) == PermitStatistics(in_flight=1, waiting=0, limit=1)

    run_virtual(main(), clock=clock)


def test_no_more_wait_than_there_are_places() -> None:
    """A longer queue would only make everybody late: the next is refused at once."""
    clock = FakeClock()

    async def main() -> None:
        permits = Permits({"p": 2})
        for _ in range(2):
            await permits.take(P, wait_s=0)
        waiting = [asyncio.create_task(permits.take(P, wait_s=60)) for _ in range(2)]
        await turns()
        with pytest.raises(TargetFull, match="as many wait already"):
            await permits.take(P, wait_s=60)
        assert clock.monotonic() == 0
        for task in waiting:
            task.cancel()

    run_virtual(main(), clock=clock)


def test_a_limit_of_zero_lets_nobody_in() -> None:
    """And nobody waits for it."""

    async def main() -> None:
        with pytest.raises(TargetFull):
            await Permits({"p": 0}).take(P, wait_s=60)

    run_virtual(main())


def test_a_raised_limit_lets_in_who_waits_and_a_lowered_one_sends_nobody_away() -> None:
    """A reload counts what is in flight already."""

    async def main() -> None:
        permits = Permits({"p": 1})
        held = [await permits.take(P, wait_s=0)]
        task = asyncio.create_task(permits.take(P, wait_s=60))
        await turns()
        permits.use({"p": 3})
        held += [await task, await permits.take(P, wait_s=0)]
        permits.use({"p": 1})
        assert of(permits) == PermitStatistics(in_flight=3, waiting=0, limit=1)
        for permit in held[:2]:
            with permit:
                pass
        with pytest.raises(TargetFull):
            await permits.take(P, wait_s=0)
        with held[2]:
            pass
        await permits.take(P, wait_s=0)
        permits.use({})
        assert of(permits) == PermitStatistics(in_flight=1, waiting=0, limit=None)

    run_virtual(main())


def test_a_new_limit_holds_for_providers_that_were_never_used() -> None:
    """The gate is made with the limit of the day."""

    async def main() -> None:
        permits = Permits({})
        permits.use({"p": 1})
        await permits.take(P, wait_s=0)
        with pytest.raises(TargetFull):
            await permits.take(P, wait_s=0)

    run_virtual(main())


# Any order of events.


@dataclass
class Crowd:
    """Callers at one gate. After each event the gate must be in order."""

    permits: Permits
    limit: int | None
    tasks: list[asyncio.Task[Permit]] = field(default_factory=list)
    held: list[Permit] = field(default_factory=list)
    admitted: list[int] = field(default_factory=list)
    """Callers in the order in which they were let in."""
    seen_in_flight: int = 0

    async def caller(self, number: int, wait_s: float) -> Permit:
        permit = await self.permits.take(P, wait_s=wait_s)
        self.admitted.append(number)
        self.held.append(permit)
        return permit

    async def do(self, action: str, number: int) -> None:
        match action:
            case "come":
                self.tasks.append(asyncio.create_task(self.caller(len(self.tasks), number / 4)))
            case "leave" if self.held:
                self.held.pop(number % len(self.held)).__exit__()
            case "cancel" if self.tasks:
                self.tasks[number % len(self.tasks)].cancel()
            case "limit":
                self.limit = number if number < 5 else None
                self.permits.use({"p": self.limit})
            case "pass":
                await asyncio.sleep(number / 4)
            case "turn":
                await asyncio.sleep(0)
        self.check()

    def check(self) -> None:
        state = self.permits.statistics().get("p", PermitStatistics(in_flight=0, waiting=0, limit=self.limit))
        assert state.limit == self.limit
        assert state.in_flight >= len(self.held)
        if state.in_flight > self.seen_in_flight:
            assert self.limit is None or state.in_flight <= self.limit, "let in above the limit"
        self.seen_in_flight = state.in_flight
        waits_though_free = state.waiting and (self.limit is None or state.in_flight < self.limit)
        assert not waits_though_free

    async def go_home(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for permit in self.held:
            permit.__exit__()
        if "p" in self.permits.statistics():
            assert of(self.permits) == PermitStatistics(in_flight=0, waiting=0, limit=self.limit)


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["come", "come", "come", "leave", "leave", "cancel", "limit", "pass", "turn"]),
        st.integers(0, 5),
    ),
    max_size=40,
)


@settings(max_examples=150)
@given(EVENTS, st.none() | st.integers(0, 3))
def test_whatever_happens_no_place_is_lost_and_none_is_given_twice(
    events: list[tuple[str, int]], limit: int | None
) -> None:
    """Coming, leaving, time-outs, cancellation at any moment and new limits, in any order."""

    async def main() -> None:
        crowd = Crowd(Permits({"p": limit}), limit)
        for action, number in events:
            await crowd.do(action, number)
        await crowd.go_home()

    run_virtual(main())


@settings(max_examples=80)
@given(st.lists(st.sampled_from(["come", "leave", "cancel"]), max_size=40), st.integers(1, 3))
def test_first_come_first_served(actions: list[str], limit: int) -> None:
    """Those who do not give up are let in in the order in which they came."""

    async def main() -> None:
        crowd = Crowd(Permits({"p": limit}), limit)
        for action in actions:
            await crowd.do(action, 4 if action == "come" else 0)
            await turns()
        assert crowd.admitted == sorted(crowd.admitted)
        await crowd.go_home()

    run_virtual(main())


@pytest.mark.parametrize("when", ["before the place is free", "as the place is given", "after it was given"])
def test_cancelling_who_waits_gives_the_place_to_the_next(when: str) -> None:
    """Also in the very turn in which the place was given."""

    async def main() -> None:
        permits = Permits({"p": 2})
        held = [await permits.take(P, wait_s=0) for _ in range(2)]
        first, second = (asyncio.create_task(permits.take(P, wait_s=60)) for _ in range(2))
        await turns()
        if when == "before the place is free":
            first.cancel()
            await turns()
        with held[0]:
            pass
        if when == "as the place is given":
            first.cancel()
        await turns()
        if when == "after it was given":
            (await first).__exit__()
        permit = await second
        assert permit.in_flight == 2
        assert of(permits) == PermitStatistics(in_flight=2, waiting=0, limit=2)

    run_virtual(main())


def test_a_place_that_is_given_as_the_time_runs_out_is_not_lost() -> None:
    """Place and time-out in the same turn: either way the books are right."""

    def race(leave_first: bool) -> Coroutine[Any, Any, None]:
        async def main() -> None:
            permits = Permits({"p": 1})
            held = await permits.take(P, wait_s=0)
            loop = asyncio.get_running_loop()
            if leave_first:
                loop.call_at(1.0, held.__exit__)
            task = asyncio.create_task(permits.take(P, wait_s=1))
            await turns()
            if not leave_first:
                loop.call_at(1.0, held.__exit__)
            (result,) = await asyncio.gather(task, return_exceptions=True)
            expected = 1 if isinstance(result, Permit) else 0
            assert of(permits) == PermitStatistics(in_flight=expected, waiting=0, limit=1)

        return main()

    for leave_first in (True, False):
        run_virtual(race(leave_first))
