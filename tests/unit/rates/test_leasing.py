"""Rates that several processes share: together no more than the rate, and nobody waits for the others."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest

from tiergate.core import Event, Notice, Target, TargetFull, Tier
from tiergate.rates import LeasedBucket, Leasing, WithoutBank
from tiergate.resilience import Permits, ProviderLimits
from tiergate.testing import FakeClock, MemoryRateBank, run_virtual

P = Target(provider="p", model="m", tier=Tier.HOSTED)


@dataclass
class Fleet:
    """Several processes over one bank, and when each of them sent what."""

    limits: ProviderLimits
    count: int = 2
    clock: FakeClock = field(default_factory=FakeClock)
    told: list[Event] = field(default_factory=list)
    sent: list[float] = field(default_factory=list)
    tokens: int = 0

    def __post_init__(self) -> None:
        self.bank = MemoryRateBank(self.clock)
        self.leasing = [
            Leasing(self.bank, process=str(number), clock=self.clock, emit=self.told.append)
            for number in range(self.count)
        ]
        self.permits = [
            Permits({"p": self.limits}, clock=self.clock, sharing=leasing) for leasing in self.leasing
        ]

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        async def with_leases() -> None:
            tasks = [
                asyncio.create_task(one.run(permits))
                for one, permits in zip(self.leasing, self.permits, strict=True)
            ]
            try:
                await main
            finally:
                for task in tasks:
                    task.cancel()

        run_virtual(with_leases(), clock=self.clock)

    async def caller(self, process: int, *, wait_s: float = 1000, tokens: int = 0, used: int = 0) -> None:
        with await self.permits[process].take(P, wait_s=wait_s, tokens=lambda: tokens) as permit:
            self.sent.append(self.clock.monotonic())
            self.tokens += used
            permit.count(used)

    async def busy(self, process: int, until: float) -> None:
        """Send one call after the other."""
        while self.clock.monotonic() < until:
            await self.caller(process)

    @property
    def words(self) -> list[str]:
        return [event.word for event in self.told if isinstance(event, Notice)]


@pytest.mark.parametrize("busy", [(0, 1, 2), (0,), (0, 1)])
def test_together_they_use_the_rate_and_no_more(busy: tuple[int, ...]) -> None:
    """However many of the processes have something to do; the idle ones keep nothing back for long."""
    fleet = Fleet(ProviderLimits(rpm=600), count=3)

    async def main() -> None:
        await asyncio.gather(*(fleet.busy(process, 60) for process in busy for _ in range(20)))

    fleet.run(main())
    for start in range(0, 50, 5):
        used = sum(start <= at < start + 10 for at in fleet.sent)
        assert used <= 100 + 50 + 3 * 30, "the rate, what was saved up, and a twentieth of a minute each"
    last = sum(40 <= at < 60 for at in fleet.sent)
    assert 160 <= last <= 230, last


def test_who_waits_gets_in_as_soon_as_there_is_something() -> None:
    """What many wait for is leased together, as far as it was saved up."""
    fleet = Fleet(ProviderLimits(rpm=600), count=1)

    async def main() -> None:
        await fleet.caller(0)
        await asyncio.sleep(10)
        began, leases = fleet.clock.monotonic(), fleet.bank.leases
        await asyncio.gather(*(fleet.caller(0) for _ in range(40)))
        assert fleet.clock.monotonic() - began < 1.0
        assert fleet.bank.leases - leases <= 3

    fleet.run(main())


def test_what_was_leased_in_parts_is_the_whole() -> None:
    """A bank writes down what it keeps, and cuts a little off: nobody waits for ever for that."""
    bucket = LeasedBucket(60, now=0.0)
    bucket.take(0, 0.0)
    for part in (0.333333, 0.333333, 0.333333):
        assert bucket.wait_s(1, 0.0) > 0
        bucket.grant(part, 0.0)
    assert bucket.wait_s(1, 0.0) == 0


def test_what_is_given_back_is_there_once() -> None:
    """It is gone from here when it is told, answer or not; and no more than ever is saved up."""
    bucket = LeasedBucket(60, now=0.0, burst_s=60, begins_full=True)
    bucket.grant(30, 0.0)
    for _ in range(20):
        bucket.want("x")
    assert bucket.left(0.0) == 0
    bucket.take(60, 0.0)
    for _ in range(10):
        bucket.correct(took=60, used=0)
    assert bucket.left(0.0) == 60


def test_a_long_line_does_not_ask_without_end() -> None:
    """Who waits has it asked for once, as it comes; then every tenth of a second."""
    fleet = Fleet(ProviderLimits(rpm=6_000), count=2)

    async def main() -> None:
        lines = [asyncio.create_task(fleet.busy(process, 20)) for process in (0, 1) for _ in range(20)]
        await asyncio.sleep(5)
        leases = fleet.bank.leases
        await asyncio.sleep(10)
        assert fleet.bank.leases - leases <= 2 * 10 * 60
        await asyncio.gather(*lines)

    fleet.run(main())


def test_who_is_in_a_hurry_is_let_in_where_a_lease_is_enough() -> None:
    """Though it waits for less than a lease takes on the average."""
    fleet = Fleet(ProviderLimits(concurrency=5), count=2)

    async def main() -> None:
        for _ in range(5):
            await asyncio.sleep(3)
            await fleet.caller(0, wait_s=0.04)

    fleet.run(main())


def test_tokens_are_shared_and_made_good() -> None:
    """What a call did not use is there for the other process."""
    fleet = Fleet(ProviderLimits(tpm=60_000))

    async def main() -> None:
        for _ in range(20):
            for process in (0, 1):
                await fleet.caller(process, tokens=3_000, used=500)

    fleet.run(main())
    assert fleet.tokens == 20_000
    assert fleet.sent[-1] < 40, "at 3,000 each it would have been two minutes"


def test_places_are_shared_and_each_busy_process_has_its_part() -> None:
    """Together never more than the limit; one that is alone has all, and a second one gets its half soon."""
    fleet = Fleet(ProviderLimits(concurrency=20))
    inside = [0, 0]
    most_of_one = 0

    async def busy(process: int, until: float) -> None:
        nonlocal most_of_one
        while fleet.clock.monotonic() < until:
            with await fleet.permits[process].take(P, wait_s=1000):
                inside[process] += 1
                assert sum(inside) <= 20
                most_of_one = max(most_of_one, inside[0])
                await asyncio.sleep(1)
                inside[process] -= 1

    async def main() -> None:
        first = [asyncio.create_task(busy(0, 60)) for _ in range(30)]
        await asyncio.sleep(10.5)
        assert inside == [20, 0]
        second = [asyncio.create_task(busy(1, 60)) for _ in range(30)]
        await asyncio.sleep(5)
        assert 9 <= inside[1] <= 11, inside
        await asyncio.gather(*first, *second)

    fleet.run(main())


def test_a_call_into_an_empty_house_waits_for_one_lease_only() -> None:
    """It is asked for at once, not at the next round."""
    fleet = Fleet(ProviderLimits(concurrency=3))

    async def main() -> None:
        for _ in range(10):
            await asyncio.sleep(5)
            began = fleet.clock.monotonic()
            await fleet.caller(1)
            assert fleet.clock.monotonic() - began < 0.01

    fleet.run(main())


@pytest.mark.parametrize(
    ("without", "least", "most"), [(WithoutBank.SHARE, 80, 140), (WithoutBank.CLOSED, 0, 0)]
)
def test_f24_without_the_bank_each_takes_its_part(without: WithoutBank, least: int, most: int) -> None:
    """Or none of it, as its limit says; it is told once, and everything is shared again afterwards."""
    fleet = Fleet(ProviderLimits(rpm=600, without_bank=without))

    async def main() -> None:
        busy = [asyncio.create_task(fleet.busy(process, 90)) for process in (0, 1) for _ in range(10)]
        await asyncio.sleep(30)
        fleet.bank.is_gone = True
        await asyncio.sleep(30)
        fleet.bank.is_gone = False
        await asyncio.gather(*busy)

    fleet.run(main())
    alone = sum(45 <= at < 55 for at in fleet.sent)
    assert least <= alone <= most, alone
    shared = sum(75 <= at < 85 for at in fleet.sent)
    assert 80 <= shared <= 140
    assert fleet.words == ["redis_gone", "redis_gone", "redis_back", "redis_back"]
    assert all(28 < leasing.gone_s < 31 for leasing in fleet.leasing)


def test_f24_without_the_bank_everything_may_pass() -> None:
    """Where a limit says so."""
    fleet = Fleet(ProviderLimits(rpm=6, without_bank=WithoutBank.OPEN), count=1)
    fleet.bank.is_gone = True

    async def main() -> None:
        await fleet.caller(0)
        await asyncio.sleep(2)
        for _ in range(100):
            await fleet.caller(0, wait_s=0)

    fleet.run(main())


def test_a_closed_limit_tells_at_once() -> None:
    """Nobody knows for how long."""
    fleet = Fleet(ProviderLimits(rpm=60, without_bank=WithoutBank.CLOSED), count=1)
    fleet.bank.is_gone = True

    async def main() -> None:
        await fleet.caller(0)
        await asyncio.sleep(2)
        with pytest.raises(TargetFull):
            await fleet.caller(0, wait_s=100)
        assert fleet.clock.monotonic() < 3

    fleet.run(main())


def test_a_short_silence_is_not_noticed() -> None:
    """What was leased lasts, or calls wait a little."""
    fleet = Fleet(ProviderLimits(rpm=600), count=1)

    async def main() -> None:
        await asyncio.sleep(3)
        fleet.bank.is_gone = True
        await asyncio.sleep(0.5)
        fleet.bank.is_gone = False
        await asyncio.sleep(3)

    fleet.run(main())
    assert fleet.told == []
