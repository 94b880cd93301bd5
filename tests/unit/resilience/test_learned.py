"""A gate that learns a provider's rates from its answers: as fast as they allow, and no faster."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from tiergate.core import (
    Allowance,
    Allowances,
    CallClass,
    Target,
    TargetThrottled,
    Tier,
    UpstreamThrottled,
)
from tiergate.resilience import Permits, PermitStatistics, ProviderLimits, RateLeft
from tiergate.testing import FakeClock, run_virtual
from tiergate.testing.limits import Allowing, Limits
from tiergate.upstream import read_allowances

P = Target(provider="p", model="m", tier=Tier.HOSTED)
OTHER_MODEL = Target(provider="p", model="other", tier=Tier.HOSTED)
NOTHING_LEFT = Allowances(requests=Allowance(60, 0, 60))


def virtual(main: Coroutine[Any, Any, None], clock: FakeClock) -> None:
    run_virtual(main, clock=clock)


async def hear(permits: Permits, said: Allowances | None, *, at: Target = P) -> None:
    """Make one call whose answer says this."""
    with await permits.take(at, wait_s=0) as permit:
        permit.learn(said)
        permit.count(0)


def of(permits: Permits) -> PermitStatistics:
    return permits.statistics()["p"]


async def turns() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


class Provider:
    """One that has limits, as seen through a gate: calls that are refused and those that are answered."""

    def __init__(self, limits: Limits, clock: FakeClock, *, permits: Permits | None = None) -> None:
        self.clock = clock
        self.permits = permits or Permits({}, clock=clock)
        self.allowing = Allowing(limits)
        self.refused = 0
        self.answered: list[float] = []

    async def call(self, takes_s: float, *, asks: int = 10, uses: int = 10) -> None:
        """Be one call, again and again until it is answered."""
        while True:
            try:
                with await self.permits.take(P, wait_s=1e4, tokens=lambda: asks) as permit:
                    permit.count(0)
                    granted = self.allowing.ask("m", asks, self.clock.monotonic())
                    headers = {name.encode(): said.encode() for name, said in granted.headers.items()}
                    if granted.wait_s:
                        await asyncio.sleep(0.01)
                        error = UpstreamThrottled("429", retry_after_s=granted.wait_s)
                        error.allowances = read_allowances(headers)
                        raise error
                    await asyncio.sleep(takes_s)
                    permit.learn(read_allowances(headers))
                    permit.count(uses)
            except UpstreamThrottled as error:
                self.refused += 1
                await asyncio.sleep(error.retry_after_s or 0)
            else:
                self.answered.append(self.clock.monotonic())
                return


@pytest.mark.parametrize("takes_s", [0.1, 5.0, 90.0])
def test_a_crowd_goes_as_fast_as_the_provider_allows_and_no_faster(takes_s: float) -> None:
    """60 per minute: 60 at once and one each second; not one of 200 is refused, however long answers take."""
    clock = FakeClock()

    async def main() -> None:
        provider = Provider(Limits(rpm=60), clock)
        await provider.call(0.1)
        began = clock.monotonic()
        await asyncio.gather(*(provider.call(takes_s) for _ in range(200)))
        assert provider.refused == 0
        assert provider.answered[-1] - began - takes_s == pytest.approx(141, abs=3)

    virtual(main(), clock)


def test_a_crowd_keeps_to_the_tokens_too() -> None:
    """6,000 per minute: 60 calls of 100 at once, and one each second."""
    clock = FakeClock()

    async def main() -> None:
        provider = Provider(Limits(tpm=6_000), clock)
        await provider.call(0.1, asks=100, uses=100)
        began = clock.monotonic()
        await asyncio.gather(*(provider.call(5, asks=100, uses=100) for _ in range(100)))
        assert provider.refused == 0
        assert provider.answered[-1] - began - 5 == pytest.approx(41, abs=3)

    virtual(main(), clock)


def test_a_provider_that_counts_what_is_never_used_is_found_out() -> None:
    """It counts `max_tokens`, of which answers use a fifth: after the first refusals that is known."""
    clock = FakeClock()

    async def main() -> None:
        provider = Provider(Limits(tpm=6_000), clock)
        for _ in range(30):
            await provider.call(1, asks=100, uses=20)
        await asyncio.gather(*(provider.call(1, asks=100, uses=20) for _ in range(80)))
        seen = provider.refused
        assert 1 <= seen <= 40
        await asyncio.gather(*(provider.call(1, asks=100, uses=20) for _ in range(200)))
        assert provider.refused <= seen + 2

    virtual(main(), clock)


def test_who_finds_nothing_left_waits_for_the_refill() -> None:
    """As for a limit of the settings: or is told at once, and for how long, where it has less time."""
    clock = FakeClock()

    async def main() -> None:
        permits = Permits({}, clock=clock)
        await hear(permits, Allowances(requests=Allowance(6, 0, 60)))
        with pytest.raises(TargetThrottled, match=r"p/m says .* used up.* room in 10\.0 s") as refusal:
            await permits.take(P, wait_s=5)
        assert refusal.value.retry_after_s == pytest.approx(10)
        assert clock.monotonic() == 0
        await permits.take(P, wait_s=20)
        assert clock.monotonic() == pytest.approx(10)

    virtual(main(), clock)


def test_a_refusal_teaches_as_much_as_an_answer() -> None:
    """The attempt ends with it, and the next one waits."""
    clock = FakeClock()

    async def main() -> None:
        permits = Permits({}, clock=clock)
        error = UpstreamThrottled("429")
        error.allowances = NOTHING_LEFT
        permit = await permits.take(P, wait_s=0)
        permit.count(0)
        permit.__exit__(None, error, None)
        with pytest.raises(TargetThrottled):
            await permits.take(P, wait_s=0.5)

    virtual(main(), clock)


def test_another_model_is_not_kept_waiting() -> None:
    """Neither by what is left nor by who waits for it."""
    clock = FakeClock()

    async def main() -> None:
        permits = Permits({}, clock=clock)
        await hear(permits, NOTHING_LEFT)
        waiting = asyncio.create_task(permits.take(P, wait_s=60))
        await turns()
        await permits.take(OTHER_MODEL, wait_s=0)
        assert clock.monotonic() == 0 and not waiting.done()
        await waiting

    virtual(main(), clock)


def test_interactive_calls_go_before_batch_and_who_wants_less_does_not_pass() -> None:
    """Of one model, whatever each of them may use."""
    clock = FakeClock()

    async def main() -> None:
        permits = Permits({}, clock=clock)
        await hear(permits, Allowances(tokens=Allowance(600, 0, 60)))
        order: list[str] = []

        async def caller(name: str, tokens: int, call_class: CallClass) -> None:
            with await permits.take(P, wait_s=60, tokens=lambda: tokens, call_class=call_class):
                order.append(name)

        tasks = [asyncio.create_task(caller("batch", 1, CallClass.BATCH))]
        await turns()
        tasks.append(asyncio.create_task(caller("interactive", 100, CallClass.INTERACTIVE)))
        await asyncio.gather(*tasks)
        assert order == ["interactive", "batch"]

    virtual(main(), clock)


def test_the_tighter_of_both_limits_counts() -> None:
    """That of the settings, and what was learned."""
    clock = FakeClock()

    async def main() -> None:
        permits = Permits({"p": ProviderLimits(rpm=6)}, clock=clock)
        clock.advance(60)
        await hear(permits, Allowances(requests=Allowance(600, 599, 0.1)))
        with pytest.raises(TargetThrottled, match=r"limits\.rpm 6"):
            await permits.take(P, wait_s=1)
        await asyncio.sleep(30)
        await hear(permits, Allowances(requests=Allowance(6, 0, 60)))
        permits.use({"p": ProviderLimits(rpm=60_000)})
        with pytest.raises(TargetThrottled, match="p/m says"):
            await permits.take(P, wait_s=1)

    virtual(main(), clock)


def test_an_answer_that_says_more_is_left_lets_in_who_waits() -> None:
    """The account was raised, say."""
    clock = FakeClock()

    async def main() -> None:
        permits = Permits({}, clock=clock)
        running = await permits.take(P, wait_s=0)
        await hear(permits, Allowances(requests=Allowance(1, 0, 60)))
        waiting = asyncio.create_task(permits.take(P, wait_s=100))
        await turns()
        assert not waiting.done()
        running.learn(Allowances(requests=Allowance(600, 599, 0.1)))
        await waiting
        assert clock.monotonic() == 0

    virtual(main(), clock)


def test_what_nobody_has_said_again_for_five_minutes_is_forgotten() -> None:
    """Also where a day was named, and somebody waits."""
    clock = FakeClock()

    async def main() -> None:
        permits = Permits({}, clock=clock)
        await hear(permits, Allowances(requests=Allowance(1, 0, 86_400)))
        assert of(permits).learned_rates == {"m": {"requests": RateLeft(limit=1, left=0)}}
        await permits.take(P, wait_s=1_000)
        assert clock.monotonic() == pytest.approx(300)
        assert of(permits).learned_rates == {}
        await permits.take(P, wait_s=0)

    virtual(main(), clock)


@pytest.mark.parametrize("said", [None, Allowances(), Allowances(requests=Allowance(1, None, 60))])
def test_an_answer_that_says_nothing_changes_nothing(said: Allowances | None) -> None:
    """Neither before nor after one that did."""
    clock = FakeClock()

    async def main() -> None:
        permits = Permits({}, clock=clock)
        await hear(permits, said)
        assert of(permits).learned_rates == {}
        await hear(permits, Allowances(requests=Allowance(60, 30, 30)))
        before = of(permits).learned_rates
        with await permits.take(P, wait_s=0) as permit:
            permit.learn(said)
        assert of(permits).learned_rates == before

    virtual(main(), clock)


def test_input_and_output_are_kept_apart_where_the_provider_does() -> None:
    """A long question needs no room in the output; nothing left of one of them is too little."""
    clock = FakeClock()

    async def main() -> None:
        permits = Permits({}, clock=clock)
        said = Allowances(
            tokens=Allowance(100, 0, 60),
            input_tokens=Allowance(30_000, 20_000, 20),
            output_tokens=Allowance(8_000, 7_000, 10),
        )
        for _ in range(30):
            with await permits.take(P, wait_s=0, tokens=lambda: 10_000) as permit:
                permit.count(10_000, output=100)
                permit.learn(said)
        assert set(of(permits).learned_rates["m"]) == {"input_tokens", "output_tokens"}
        left = of(permits).learned_rates["m"]
        held = await permits.take(P, wait_s=0, tokens=lambda: 10_000)
        taken = {name: left[name].left - rate.left for name, rate in of(permits).learned_rates["m"].items()}
        assert 9_000 < taken["input_tokens"] < 10_000 and taken["output_tokens"] < 200
        held.learn(
            Allowances(input_tokens=Allowance(30_000, 20_000, 20), output_tokens=Allowance(8_000, 0, 60))
        )
        with pytest.raises(TargetThrottled):
            await permits.take(P, wait_s=0.01, tokens=lambda: 10_000)

    virtual(main(), clock)


def test_a_request_that_was_never_sent_takes_nothing_of_what_was_learned() -> None:
    """No money was there for it."""
    clock = FakeClock()

    async def main() -> None:
        permits = Permits({}, clock=clock)
        await hear(permits, Allowances(requests=Allowance(60, 30, 30), tokens=Allowance(600, 300, 30)))
        before = of(permits)
        with await permits.take(P, wait_s=0, tokens=lambda: 10):
            pass
        assert of(permits) == before

    virtual(main(), clock)


def test_switched_off_nothing_is_learned_and_what_was_is_forgotten() -> None:
    """`adaptive_concurrency: false`."""
    clock = FakeClock()

    async def main() -> None:
        permits = Permits({}, clock=clock)
        await hear(permits, NOTHING_LEFT)
        permits.use({}, is_adaptive=False)
        await hear(permits, NOTHING_LEFT)
        await hear(permits, NOTHING_LEFT)
        permits.use({}, is_adaptive=True)
        await permits.take(P, wait_s=0)
        assert of(permits).learned_rates == {}

    virtual(main(), clock)
