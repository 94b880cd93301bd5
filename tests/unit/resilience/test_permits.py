"""Permits: never more in flight than the limit, first come first served, and no place is ever lost."""

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiergate.core import CallClass, Target, TargetFull, TargetThrottled, Tier, UpstreamThrottled
from tiergate.rates import BURST_S, Bucket
from tiergate.resilience import Permit, Permits, PermitStatistics, ProviderLimits
from tiergate.testing import FakeClock, run_virtual

P = Target(provider="p", model="m", tier=Tier.HOSTED)
OTHER_MODEL = Target(provider="p", model="other", tier=Tier.HOSTED)
Q = Target(provider="q", model="m", tier=Tier.HOSTED)


def places(limits: Mapping[str, int | None]) -> dict[str, ProviderLimits]:
    return {name: ProviderLimits(concurrency=limit) for name, limit in limits.items()}


def state(in_flight: int, waiting: int, limit: int | None) -> PermitStatistics:
    left = None if limit is None else max(0, limit - in_flight)
    limits = ProviderLimits(concurrency=limit)
    return PermitStatistics(in_flight=in_flight, waiting=waiting, limits=limits, places_left=left)


def made(limits: Mapping[str, int | None], *, clock: FakeClock | None = None) -> Permits:
    return Permits(places(limits), clock=clock or FakeClock())


async def turns(count: int = 3) -> None:
    """Let everybody who can go on do so."""
    for _ in range(count):
        await asyncio.sleep(0)


def of(permits: Permits, provider: str = "p") -> PermitStatistics:
    return permits.statistics()[provider]


def test_a_place_is_given_at_once_while_there_is_one_and_taken_back_once() -> None:
    """Leaving the context twice gives back one place."""

    async def main() -> None:
        permits = made({"p": 2})
        one, two = await permits.take(P, wait_s=0), await permits.take(OTHER_MODEL, wait_s=0)
        assert (one.in_flight, two.in_flight) == (1, 2)
        assert of(permits) == state(2, 0, 2)
        with one:
            pass
        with one:
            pass
        assert of(permits).in_flight == 1

    run_virtual(main())


def test_providers_do_not_share_their_places_and_one_without_a_limit_has_no_end_of_them() -> None:
    """Models of one provider do share."""

    async def main() -> None:
        permits = made({"p": 1, "r": None})
        await permits.take(P, wait_s=0)
        for _ in range(1000):
            await permits.take(Q, wait_s=0)
        with pytest.raises(TargetFull):
            await permits.take(OTHER_MODEL, wait_s=0)
        assert of(permits, "q") == state(1000, 0, None)

    run_virtual(main())


def test_who_waits_in_vain_is_told_after_exactly_the_time_it_allowed() -> None:
    """The refusal names the target, the setting and the wait, and says that nothing was sent."""
    clock = FakeClock()

    async def main() -> None:
        permits = made({"p": 1})
        await permits.take(P, wait_s=0)
        with pytest.raises(TargetFull, match=r"limits\.concurrency.* within 1\.5 s") as refusal:
            await permits.take(P, wait_s=1.5)
        assert clock.monotonic() == 1.5
        assert refusal.value.target == "p/m"
        assert of(permits) == state(1, 0, 1)

    run_virtual(main(), clock=clock)


def test_no_more_wait_than_there_are_places() -> None:
    """A longer queue would only make everybody late: the next is refused at once."""
    clock = FakeClock()

    async def main() -> None:
        permits = made({"p": 2})
        for _ in range(2):
            await permits.take(P, wait_s=0)
        waiting = [asyncio.create_task(permits.take(P, wait_s=60)) for _ in range(2)]
        await turns()
        with pytest.raises(TargetFull, match="As many wait already"):
            await permits.take(P, wait_s=60)
        assert clock.monotonic() == 0
        for task in waiting:
            task.cancel()

    run_virtual(main(), clock=clock)


def test_batch_leaves_free_what_interactive_calls_have_lately_needed() -> None:
    """And takes it once none has come for a while."""

    async def main() -> None:
        clock = FakeClock()
        permits = made({"p": 4}, clock=clock)
        live = [await permits.take(P, wait_s=0) for _ in range(2)]
        for permit in live:
            with permit:
                pass
        for _ in range(2):
            await permits.take(P, wait_s=0, call_class=CallClass.BATCH)
        with pytest.raises(TargetFull, match="kept free"):
            await permits.take(P, wait_s=0, call_class=CallClass.BATCH)
        with await permits.take(P, wait_s=0), pytest.raises(TargetFull):
            await permits.take(P, wait_s=0, call_class=CallClass.BATCH)
        clock.advance(61)
        await permits.take(P, wait_s=0, call_class=CallClass.BATCH)

    run_virtual(main())


def test_batch_that_waits_for_a_free_place_has_it_without_any_event() -> None:
    """Once nobody interactive has come for a while, though nobody else leaves."""
    clock = FakeClock()

    async def main() -> None:
        permits = made({"p": 4}, clock=clock)
        live = [await permits.take(P, wait_s=0) for _ in range(2)]
        for permit in live:
            with permit:
                pass
        for _ in range(3):
            await permits.take(P, wait_s=100, call_class=CallClass.BATCH)
        assert 30 <= clock.monotonic() <= 61

    run_virtual(main(), clock=clock)


def test_a_limit_of_zero_lets_nobody_in() -> None:
    """And nobody waits for it."""

    async def main() -> None:
        with pytest.raises(TargetFull):
            await made({"p": 0}).take(P, wait_s=60)

    run_virtual(main())


def test_a_raised_limit_lets_in_who_waits_and_a_lowered_one_sends_nobody_away() -> None:
    """A reload counts what is in flight already."""

    async def main() -> None:
        permits = made({"p": 1})
        held = [await permits.take(P, wait_s=0)]
        task = asyncio.create_task(permits.take(P, wait_s=60))
        await turns()
        permits.use(places({"p": 3}))
        held += [await task, await permits.take(P, wait_s=0)]
        permits.use(places({"p": 1}))
        assert of(permits) == state(3, 0, 1)
        for permit in held[:2]:
            with permit:
                pass
        with pytest.raises(TargetFull):
            await permits.take(P, wait_s=0)
        with held[2]:
            pass
        await permits.take(P, wait_s=0)
        permits.use(places({}))
        assert of(permits) == state(1, 0, None)

    run_virtual(main())


def test_a_new_limit_holds_for_providers_that_were_never_used() -> None:
    """The gate is made with the limit of the day."""

    async def main() -> None:
        permits = made({})
        permits.use(places({"p": 1}))
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
                self.permits.use(places({"p": self.limit}))
            case "pass":
                await asyncio.sleep(number / 4)
            case "turn":
                await asyncio.sleep(0)
        self.check()

    def check(self) -> None:
        found = self.permits.statistics().get("p", state(0, 0, self.limit))
        assert found.limits.concurrency == self.limit
        assert found.in_flight >= len(self.held)
        if found.in_flight > self.seen_in_flight:
            assert self.limit is None or found.in_flight <= self.limit, "let in above the limit"
        self.seen_in_flight = found.in_flight
        waits_though_free = found.waiting and (self.limit is None or found.in_flight < self.limit)
        assert not waits_though_free

    async def go_home(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for permit in self.held:
            permit.__exit__()
        if "p" in self.permits.statistics():
            assert of(self.permits) == state(0, 0, self.limit)


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

    clock = FakeClock()

    async def main() -> None:
        crowd = Crowd(made({"p": limit}, clock=clock), limit)
        for action, number in events:
            await crowd.do(action, number)
        await crowd.go_home()

    run_virtual(main(), clock=clock)


@settings(max_examples=80)
@given(st.lists(st.sampled_from(["come", "leave", "cancel"]), max_size=40), st.integers(1, 3))
def test_first_come_first_served(actions: list[str], limit: int) -> None:
    """Those who do not give up are let in in the order in which they came."""

    async def main() -> None:
        crowd = Crowd(made({"p": limit}), limit)
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
        permits = made({"p": 2})
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
        assert of(permits) == state(2, 0, 2)

    run_virtual(main())


def test_a_place_that_is_given_as_the_time_runs_out_is_not_lost() -> None:
    """Place and time-out in the same turn: either way the books are right."""

    def race(leave_first: bool) -> Coroutine[Any, Any, None]:
        async def main() -> None:
            permits = made({"p": 1})
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
            assert of(permits) == state(expected, 0, 1)

        return main()

    for leave_first in (True, False):
        run_virtual(race(leave_first))


# Who goes first.


def test_interactive_calls_go_before_batch() -> None:
    """Whoever came first; within a class in the order of coming."""

    async def main() -> None:
        permits = made({"p": 4})
        held = [await permits.take(P, wait_s=0) for _ in range(4)]
        order: list[str] = []

        async def caller(name: str, call_class: CallClass) -> None:
            with await permits.take(P, wait_s=60, call_class=call_class):
                order.append(name)

        names = ("batch 1", "batch 2", "interactive 1", "interactive 2")
        tasks = [asyncio.create_task(caller(name, CallClass(name.partition(" ")[0]))) for name in names]
        await turns()
        for permit in held:
            with permit:
                pass
        await asyncio.gather(*tasks)
        assert order == ["interactive 1", "interactive 2", "batch 1", "batch 2"]

    run_virtual(main())


def test_an_interactive_call_takes_the_place_of_a_batch_call_in_a_full_line() -> None:
    """The one that came last; a batch call takes nobody's."""

    async def main() -> None:
        permits = made({"p": 2})
        for _ in range(2):
            await permits.take(P, wait_s=0)
        batch = [
            asyncio.create_task(permits.take(P, wait_s=60, call_class=CallClass.BATCH)) for _ in range(2)
        ]
        await turns()
        with pytest.raises(TargetFull, match="As many wait already"):
            await permits.take(P, wait_s=60, call_class=CallClass.BATCH)
        interactive = asyncio.create_task(permits.take(P, wait_s=60))
        await turns()
        assert [task.done() for task in batch] == [False, True]
        with pytest.raises(TargetFull, match="interactive call took its place"):
            await batch[1]
        for task in (batch[0], interactive):
            task.cancel()

    run_virtual(main())


def test_the_newest_goes_first_when_it_is_late() -> None:
    """The others would hardly be served in time any more, and then nobody would be."""
    clock = FakeClock()

    async def main() -> None:
        permits = made({"p": 3}, clock=clock)
        held = [await permits.take(P, wait_s=0) for _ in range(3)]
        order: list[int] = []

        async def caller(number: int) -> None:
            await permits.take(P, wait_s=10)
            order.append(number)

        tasks = []
        for number in range(3):
            tasks.append(asyncio.create_task(caller(number)))
            await asyncio.sleep(2)
        with held[0]:
            pass
        await turns()
        assert order == [2]
        for permit in held[1:]:
            with permit:
                pass
        await turns()
        assert order == [2, 1, 0]

    run_virtual(main(), clock=clock)


def test_one_whose_time_is_over_gets_no_place() -> None:
    """F35: the process stood still, and its timer has not fired yet when a place becomes free."""
    clock = FakeClock()

    async def main() -> None:
        permits = made({"p": 2}, clock=clock)
        held = [await permits.take(P, wait_s=0) for _ in range(2)]
        late = asyncio.create_task(permits.take(P, wait_s=1))
        in_time = asyncio.create_task(permits.take(P, wait_s=60))
        await turns()
        clock.advance(10)
        for permit in held:
            with permit:
                pass
        with pytest.raises(TargetFull):
            await late
        assert (await in_time).in_flight == 1

    run_virtual(main(), clock=clock)


def test_who_comes_now_does_not_pass_those_that_wait() -> None:
    """Also where there is room for it: a question of few tokens waits behind one of many."""
    clock = FakeClock()

    async def main() -> None:
        permits = Permits({"p": ProviderLimits(tpm=600)}, clock=clock)
        (await permits.take(P, wait_s=0)).count(0)
        order: list[int] = []

        async def caller(tokens: int) -> None:
            (await permits.take(P, wait_s=60, tokens=lambda: tokens)).count(tokens)
            order.append(tokens)

        large = asyncio.create_task(caller(40))
        await asyncio.sleep(1)
        small = asyncio.create_task(caller(5))
        await asyncio.gather(large, small)
        assert order == [40, 5]

    run_virtual(main(), clock=clock)


# Rates.


def test_what_is_made_good_saves_up_no_more_than_a_pause() -> None:
    """A call that took much and used nothing comes back when the rate is full again."""
    bucket = Bucket(60, now=0.0)
    bucket.take(100, 10.0)
    bucket.correct(took=100, used=0)
    bucket.correct(took=100, used=0)
    assert bucket.left(10.0) == BURST_S


def test_a_question_larger_than_what_is_ever_saved_up_is_asked_all_the_same() -> None:
    """When as much is there as ever is; what it took beyond that is owed."""
    bucket = Bucket(60, now=0.0)
    bucket.take(0, 0.0)
    assert bucket.wait_s(100, 0.0) == BURST_S
    assert bucket.wait_s(100, BURST_S) == 0
    bucket.take(100, BURST_S)
    assert bucket.wait_s(1, BURST_S) == 96


def test_what_is_owed_under_an_old_rate_is_at_most_a_minute_of_the_new_one() -> None:
    """A rate that a reload makes much lower does not keep everybody out for an hour."""
    bucket = Bucket(6_000, now=0.0)
    bucket.take(6_000, 0.0)
    bucket.change(60, 0.0)
    assert bucket.left(0.0) == -60


def test_a_rate_spreads_calls_over_its_minute() -> None:
    """60 per minute: one at once, then one each second; none is lost by waiting."""
    clock = FakeClock()
    times: list[float] = []

    async def main() -> None:
        permits = Permits({"p": ProviderLimits(rpm=60)}, clock=clock)

        async def caller() -> None:
            permit = await permits.take(P, wait_s=100)
            permit.count(0)
            times.append(clock.monotonic())
            with permit:
                pass

        await asyncio.gather(*(caller() for _ in range(20)))

    run_virtual(main(), clock=clock)
    assert times[0] == 0
    # The first took what was not there yet, so the second waits for two.
    assert times[1:] == pytest.approx([number + 2 for number in range(19)], abs=1e-3)


def test_who_would_wait_too_long_for_a_rate_is_told_at_once_for_how_long() -> None:
    """And with which limit; it may come again then."""
    clock = FakeClock()

    async def main() -> None:
        permits = Permits({"p": ProviderLimits(rpm=6)}, clock=clock)
        (await permits.take(P, wait_s=0)).count(0)
        with pytest.raises(TargetThrottled, match=r"limits\.rpm 6\).* room in 20\.0 s") as refusal:
            await permits.take(P, wait_s=5)
        assert refusal.value.retry_after_s == pytest.approx(20)
        assert clock.monotonic() == 0
        assert permits.statistics()["p"].waiting == 0

    run_virtual(main(), clock=clock)


def test_tokens_are_taken_before_and_made_good_after() -> None:
    """What was not used is there again; what was used more is owed."""
    clock = FakeClock()

    async def main() -> None:
        permits = Permits({"p": ProviderLimits(tpm=6_000)}, clock=clock)
        with await permits.take(P, wait_s=0, tokens=lambda: 1_000) as permit:
            assert permits.statistics()["p"].tokens_left == -1_000
            permit.count(100)
        assert permits.statistics()["p"].tokens_left == -100
        with await permits.take(P, wait_s=60, tokens=lambda: 100) as permit:
            assert clock.monotonic() == pytest.approx(2)
            permit.count(400)
        assert permits.statistics()["p"].tokens_left == pytest.approx(-300)

    run_virtual(main(), clock=clock)


def test_a_request_that_was_never_sent_uses_nothing_of_a_rate() -> None:
    """No money was there for it."""
    clock = FakeClock()

    async def main() -> None:
        permits = Permits({"p": ProviderLimits(rpm=60, tpm=60)}, clock=clock)
        clock.advance(60)
        (await permits.take(P, wait_s=0)).count(0)
        clock.advance(60)
        before = permits.statistics()["p"]
        with await permits.take(P, wait_s=0, tokens=lambda: 5):
            pass
        assert permits.statistics()["p"] == before

    run_virtual(main(), clock=clock)


def test_all_limits_are_looked_at_before_any_is_counted() -> None:
    """Who is kept out by one has taken nothing of another."""
    clock = FakeClock()

    async def main() -> None:
        permits = Permits({"p": ProviderLimits(concurrency=1, rpm=600, tpm=600_000)}, clock=clock)
        permit = await permits.take(P, wait_s=0, tokens=lambda: 10)
        before = permits.statistics()["p"]
        for _ in range(5):
            with pytest.raises(TargetFull):
                await permits.take(P, wait_s=0, tokens=lambda: 10)
        assert permits.statistics()["p"] == before
        with permit:
            pass

    run_virtual(main(), clock=clock)


def test_a_new_rate_lets_in_who_waits_for_the_old_one() -> None:
    """A reload."""
    clock = FakeClock()

    async def main() -> None:
        permits = Permits({"p": ProviderLimits(rpm=1)}, clock=clock)
        (await permits.take(P, wait_s=0)).count(0)
        task = asyncio.create_task(permits.take(P, wait_s=600))
        await turns()
        permits.use({"p": ProviderLimits()})
        await task
        assert clock.monotonic() == 0

    run_virtual(main(), clock=clock)


@pytest.mark.parametrize("how", ["its time is over", "it is called off"])
def test_who_stands_behind_one_that_gives_up_goes_in_if_it_wants_less(how: str) -> None:
    """The first wanted more tokens than there are yet; for the second there are enough."""
    clock = FakeClock()

    async def main() -> None:
        permits = Permits({"p": ProviderLimits(tpm=6_000)}, clock=clock)
        running = await permits.take(P, wait_s=0)
        clock.advance(1)
        greedy = asyncio.create_task(permits.take(P, wait_s=4.5, tokens=lambda: 500))
        await turns()
        modest = asyncio.create_task(permits.take(P, wait_s=60, tokens=lambda: 10))
        await asyncio.sleep(0)
        running.count(300)
        running.__exit__()
        await asyncio.sleep(4)
        if how == "it is called off":
            greedy.cancel()
        await asyncio.gather(greedy, return_exceptions=True)
        gave_up = clock.monotonic()
        await modest
        assert clock.monotonic() == gave_up <= 5.5

    run_virtual(main(), clock=clock)


def test_one_that_is_refused_at_once_keeps_nobody_waiting_behind_it() -> None:
    """A batch call waits for a few tokens; an interactive one that wants many goes before it, and away."""
    clock = FakeClock()

    async def main() -> None:
        permits = Permits({"p": ProviderLimits(tpm=6_000)}, clock=clock)
        (await permits.take(P, wait_s=0)).count(0)
        batch = asyncio.create_task(
            permits.take(P, wait_s=60, tokens=lambda: 100, call_class=CallClass.BATCH)
        )
        await turns()
        with pytest.raises(TargetThrottled):
            await permits.take(P, wait_s=2, tokens=lambda: 500)
        await batch
        assert clock.monotonic() == pytest.approx(1)

    run_virtual(main(), clock=clock)


# What a target can do at one time.


def throttled() -> UpstreamThrottled:
    return UpstreamThrottled("throttles.")


def test_a_target_that_pushes_back_is_given_less_and_slowly_more() -> None:
    """A tenth less for all that pushed back together; one more when all its places were good once."""
    clock = FakeClock()

    async def main() -> None:
        permits = Permits({}, clock=clock)
        held = [await permits.take(P, wait_s=0) for _ in range(20)]
        other = await permits.take(OTHER_MODEL, wait_s=0)
        for permit in held[:5]:
            permit.__exit__(None, throttled(), None)
        assert permits.statistics()["p"].learned == {"m": 18}
        held = held[5:] + [await permits.take(P, wait_s=0) for _ in range(3)]
        with pytest.raises(TargetFull, match="p/m has pushed back and is given 18 at a time"):
            await permits.take(P, wait_s=1)
        with other, await permits.take(OTHER_MODEL, wait_s=0):
            pass
        for _ in range(18):
            held.pop(0).__exit__()
            held.append(await permits.take(P, wait_s=0))
        assert permits.statistics()["p"].learned == {"m": 19}
        clock.advance(300)
        held.append(await permits.take(P, wait_s=0))
        held.append(await permits.take(P, wait_s=0))
        assert permits.statistics()["p"].learned == {}

    run_virtual(main(), clock=clock)


def test_a_target_that_has_little_to_do_teaches_nothing() -> None:
    """One call after the other says nothing about twenty at a time."""
    clock = FakeClock()

    async def main() -> None:
        permits = Permits({}, clock=clock)
        held = [await permits.take(P, wait_s=0) for _ in range(20)]
        for permit in held:
            permit.__exit__(None, throttled(), None)
        for _ in range(100):
            with await permits.take(P, wait_s=0):
                pass
        assert permits.statistics()["p"].learned == {"m": 18}

    run_virtual(main(), clock=clock)


def test_however_often_a_target_pushes_back_one_at_a_time_is_let_in() -> None:
    """It could never show otherwise that it has recovered."""
    clock = FakeClock()

    async def main() -> None:
        permits = Permits({}, clock=clock)
        for _ in range(50):
            (await permits.take(P, wait_s=0)).__exit__(None, throttled(), None)
            clock.advance(2)
        assert permits.statistics()["p"].learned == {"m": 1}

    run_virtual(main(), clock=clock)


def test_names_that_callers_make_up_leave_no_lane_behind() -> None:
    """A model that pushed back is remembered, and one that has nothing in flight is not."""

    async def main() -> None:
        permits = made({"p": None})
        for number in range(10):
            made_up = Target(provider="p", model=f"made-up-{number}", tier=Tier.HOSTED)
            with await permits.take(made_up, wait_s=0):
                pass
        (await permits.take(P, wait_s=0)).__exit__(None, throttled(), None)
        assert set(permits._gates["p"]._lanes) == {"m"}

    run_virtual(main())


def test_a_learned_limit_that_is_forgotten_lets_in_who_waits() -> None:
    """Though nothing else happens: the one attempt that is inside stays."""
    clock = FakeClock()

    async def main() -> None:
        permits = Permits({}, clock=clock)
        with pytest.raises(UpstreamThrottled), await permits.take(P, wait_s=1):
            raise throttled()
        with await permits.take(P, wait_s=1):
            began = clock.monotonic()
            with await permits.take(P, wait_s=1000):
                assert clock.monotonic() - began == pytest.approx(300, abs=1)

    run_virtual(main(), clock=clock)


def test_a_model_that_pushed_back_keeps_no_other_one_waiting() -> None:
    """Who waits for it lets the others pass."""

    async def main() -> None:
        permits = made({"p": 10})
        held = [await permits.take(P, wait_s=0) for _ in range(2)]
        held.pop().__exit__(None, throttled(), None)
        waiting = asyncio.create_task(permits.take(P, wait_s=60))
        await turns()
        assert not waiting.done()
        assert (await permits.take(OTHER_MODEL, wait_s=0)).in_flight == 2
        held.pop().__exit__()
        await waiting

    run_virtual(main())


def test_switched_off_nothing_is_learned() -> None:
    """`adaptive_concurrency: false`."""

    async def main() -> None:
        permits = Permits({}, clock=FakeClock(), is_adaptive=False)
        for _ in range(5):
            (await permits.take(P, wait_s=0)).__exit__(None, throttled(), None)
        assert permits.statistics()["p"].learned == {}

    run_virtual(main())
