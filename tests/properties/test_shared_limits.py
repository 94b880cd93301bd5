"""Limits that gateways share, in any weather: what was leased comes back, whatever became of the answers.

Calls that come and go, failing and lost answers, and changed limits pass in virtual time. Then the weather is
good, and from any gateway everything can be used that the limits allow, and not more.
"""

import asyncio
import os
from collections.abc import Coroutine, Sequence
from contextlib import ExitStack, suppress
from random import Random

import pytest

from tiergate.admission import Admission, KeyLimits, Keyring
from tiergate.core import Caller, RateLimited, Target, TargetFull, Tier
from tiergate.rates import Leased, Leasing, PlaceWant, RatesUnavailable, Want, WithoutBank
from tiergate.resilience import Permits, ProviderLimits
from tiergate.testing import FakeClock, MemoryRateBank, run_virtual

CI = Caller(key="ci")
P = Target(provider="p", model="m", tier=Tier.HOSTED)
GATEWAYS, PLACES, RPM = 3, 5, 120
STORMY_S = 90.0
FIRST, _, BEHIND = os.environ.get("TIERGATE_SEEDS", "3:9").partition(":")
SEEDS = range(int(FIRST), int(BEHIND))


class Weather(MemoryRateBank):
    """A bank that answers late, or not, or not any more after it has given."""

    def __init__(self, clock: FakeClock, random: Random) -> None:
        super().__init__(clock)
        self._random = random
        self.is_stormy = False

    async def lease(self, process: str, wants: Sequence[Want | PlaceWant]) -> Leased:
        random = self._random
        mood = random.random() if self.is_stormy else 1.0
        await asyncio.sleep(random.choice((0.001, 0.02, 0.3)) if self.is_stormy else 0.002)
        if mood < 0.1:
            raise RatesUnavailable("it was not asked")
        leased = await super().lease(process, wants)
        if mood < 0.2:
            await asyncio.sleep(random.random() * 0.5)
            raise RatesUnavailable("its answer is lost")
        return leased


class World:
    """Gateways over one bank, each with a door for callers and gates to providers."""

    def __init__(self, seed: int) -> None:
        self.random, self.clock = Random(seed), FakeClock()
        self.bank = Weather(self.clock, self.random)
        self.without = self.random.choice(list(WithoutBank))
        self.leasing = [
            Leasing(self.bank, process=str(number), clock=self.clock, emit=lambda event: None)
            for number in range(GATEWAYS)
        ]
        ring, limits = self.ring(RPM, PLACES), self.limits(RPM, PLACES)
        self.doors = [Admission(ring, monotonic=self.clock.monotonic, sharing=one) for one in self.leasing]
        self.permits = [Permits(limits, clock=self.clock, sharing=one) for one in self.leasing]
        self.inside = 0

    def ring(self, rpm: int | None, concurrency: int | None) -> Keyring:
        limits = KeyLimits(rpm=rpm, tpm=60_000, concurrency=concurrency, without_redis=self.without)
        return Keyring([], limits={"ci": limits})

    def limits(self, rpm: int | None, concurrency: int | None) -> dict[str, ProviderLimits]:
        return {"p": ProviderLimits(rpm=rpm, concurrency=concurrency, without_bank=self.without)}

    def use(self, rpm: int | None, concurrency: int | None) -> None:
        for door, permits in zip(self.doors, self.permits, strict=True):
            door.use(self.ring(rpm, concurrency))
            permits.use(self.limits(rpm, concurrency))

    async def call(self, gateway: int, seconds: float) -> None:
        visit = await self.doors[gateway].visit(CI, lambda: 500)
        with suppress(RateLimited, TargetFull), visit as visitor:
            self.inside += 1
            try:
                with await self.permits[gateway].take(P, wait_s=2) as permit:
                    await asyncio.sleep(seconds)
                    permit.count(3)
                    visitor.count(100)
            finally:
                self.inside -= 1

    async def live(self, seconds: float, *, reloads: bool) -> None:
        """Let calls come and go, leave in the middle, and limits change."""
        ends, random = self.clock.monotonic() + seconds, self.random
        calls: list[asyncio.Task[None]] = []
        while self.clock.monotonic() < ends:
            calls.append(asyncio.create_task(self.call(random.randrange(GATEWAYS), random.random() * 3)))
            if random.random() < 0.1:
                random.choice(calls).cancel()
            if reloads and random.random() < 0.02:
                self.use(random.choice((None, 6, RPM, 6_000)), random.choice((None, 1, PLACES, 40)))
            await asyncio.sleep(random.choice((0.0, 0.05, 0.3, 2.0)))
        await asyncio.gather(*calls, return_exceptions=True)

    async def places_at_door(self, gateway: int) -> int:
        with ExitStack() as inside:
            for number in range(PLACES + 2):
                try:
                    inside.enter_context(await self.doors[gateway].visit(CI))
                except RateLimited:
                    return number
        return PLACES + 2

    async def places_at_gate(self, gateway: int) -> int:
        with ExitStack() as inside:
            for number in range(PLACES + 2):
                try:
                    inside.enter_context(await self.permits[gateway].take(P, wait_s=1))
                except TargetFull:
                    return number
        return PLACES + 2

    async def a_minutes_calls(self, gateway: int) -> int:
        let_in = 0
        for _ in range(RPM + 20):
            with suppress(RateLimited), await self.doors[gateway].visit(CI):
                let_in += 1
        return let_in

    def run(self, main: Coroutine[None, None, None]) -> None:
        async def with_leases() -> None:
            tasks = []
            for one, door, permits in zip(self.leasing, self.doors, self.permits, strict=True):
                assert door.shared_limits is not None
                tasks.append(asyncio.create_task(one.run(permits, door.shared_limits)))
            try:
                await main
            finally:
                for task in tasks:
                    task.cancel()

        run_virtual(with_leases(), clock=self.clock)


@pytest.mark.parametrize("seed", SEEDS)
def test_after_any_weather_everything_can_be_used_again(seed: int) -> None:
    """From any gateway: all places, a minute's calls, and nothing is left behind in the bank."""
    world = World(seed)

    async def main() -> None:
        world.bank.is_stormy = True
        await world.live(STORMY_S, reloads=True)
        world.bank.is_stormy = False
        world.use(RPM, PLACES)
        await asyncio.sleep(200)
        assert world.inside == 0
        for gateway in world.random.sample(range(GATEWAYS), GATEWAYS):
            assert await world.places_at_door(gateway) == PLACES
            await asyncio.sleep(70)
            assert await world.places_at_gate(gateway) == PLACES
            await asyncio.sleep(70)
            assert RPM <= await world.a_minutes_calls(gateway) <= RPM + 1
            await asyncio.sleep(70)
        held = {
            name: of for name, known in world.bank._places.items() for of in known.values() if of != (0, 0)
        }
        assert held == {}

    world.run(main())


@pytest.mark.parametrize("seed", SEEDS)
def test_in_good_weather_a_limit_is_never_passed(seed: int) -> None:
    """However calls come: no more inside than there are places, at the door and at the provider.

    While the word that takes a place from a gateway is on its way, a call may still come in at it.
    """
    world = World(seed)

    async def watch() -> None:
        while True:
            assert world.inside <= PLACES + GATEWAYS - 1, world.inside
            in_flight = [one.statistics()["p"].in_flight for one in world.permits if one.statistics()]
            assert sum(in_flight) <= PLACES + GATEWAYS - 1
            await asyncio.sleep(0.01)

    async def main() -> None:
        watching = asyncio.create_task(watch())
        await world.live(STORMY_S, reloads=False)
        assert not watching.done(), watching.exception()
        watching.cancel()

    world.run(main())
