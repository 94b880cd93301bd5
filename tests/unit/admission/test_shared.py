"""Rates of keys that several processes share: together no more than the limit, and none refused too soon."""

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from tiergate.admission import Admission, KeyLimits, Keyring
from tiergate.core import Caller, RateLimited
from tiergate.rates import ASKED_S, Leased, Leasing, PlaceWant, SharedLimit, Want, WithoutBank
from tiergate.testing import FakeClock, MemoryRateBank, run_virtual

CI = Caller(key="ci")


class DistantBank(MemoryRateBank):
    """One that is somewhere else: an answer takes a moment."""

    answer_s = 0.002

    async def lease(self, process: str, wants: Sequence[Want]) -> Leased:
        await asyncio.sleep(self.answer_s)
        return await super().lease(process, wants)


@dataclass
class Fleet:
    """Doors of several processes over one bank, in virtual time."""

    limits: KeyLimits
    count: int = 4
    clock: FakeClock = field(default_factory=FakeClock)
    refusals: list[RateLimited] = field(default_factory=list)
    longest_s: float = 0.0

    def __post_init__(self) -> None:
        self.bank = DistantBank(self.clock)
        self.leasing = [
            Leasing(self.bank, process=str(number), clock=self.clock, emit=lambda event: None)
            for number in range(self.count)
        ]
        ring = Keyring([], limits={"ci": self.limits})
        self.doors = [
            Admission(ring, monotonic=self.clock.monotonic, sharing=leasing) for leasing in self.leasing
        ]

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        async def with_leases() -> None:
            tasks = []
            for leasing, door in zip(self.leasing, self.doors, strict=True):
                assert door.shared_limits is not None
                tasks.append(asyncio.create_task(leasing.run(door.shared_limits)))
            await asyncio.sleep(1.5)  # so that each knows of the others
            try:
                await main
            finally:
                for task in tasks:
                    task.cancel()

        run_virtual(with_leases(), clock=self.clock)

    async def call(self, process: int = 0, *, asks: int = 0, uses: int = 0) -> bool:
        """Make a call that takes no time; tell whether it was let in."""
        began = self.clock.monotonic()
        visitor = await self.doors[process].visit(CI, lambda: asks)
        self.longest_s = max(self.longest_s, self.clock.monotonic() - began)
        try:
            with visitor:
                visitor.count(uses)
        except RateLimited as refusal:
            self.refusals.append(refusal)
            return False
        return True

    def leased(self) -> list[SharedLimit]:
        """Give what all doors lease."""
        return [
            limit
            for door in self.doors
            if door.shared_limits
            for limit in door.shared_limits.shared(urgent=False)
        ]

    async def burst(self, count: int, processes: Sequence[int], **tokens: int) -> int:
        """Make calls at once, spread over processes; give how many were let in."""
        calls = [self.call(processes[number % len(processes)], **tokens) for number in range(count)]
        return sum(await asyncio.gather(*calls))


@pytest.mark.parametrize("processes", [(0, 1, 2, 3), (2,), (0, 3)])
def test_a_minutes_calls_get_in_at_once_wherever_they_come(processes: tuple[int, ...]) -> None:
    """All of them and not one more; whoever is too many is told, and until when."""
    fleet = Fleet(KeyLimits(rpm=60))

    async def main() -> None:
        assert await fleet.burst(100, processes) in (59, 60)
        # One who is refused may have to wait for all of those before it: as the limit says, a second each.
        assert all(0 < refusal.retry_after_s <= 3 for refusal in fleet.refusals)
        assert "may make 60 calls a minute (rpm)" in str(fleet.refusals[0])
        await asyncio.sleep(10)
        assert await fleet.burst(30, processes) in (9, 10, 11)
        await asyncio.sleep(600)
        assert await fleet.burst(100, processes) in (59, 60)

    fleet.run(main())


def test_steady_calls_wait_for_nobody() -> None:
    """What they need next is leased while they come."""
    fleet = Fleet(KeyLimits(rpm=6_000))

    async def main() -> None:
        for number in range(400):
            assert await fleet.call(number % 4)
            if number == 100:
                fleet.longest_s = 0.0
            await asyncio.sleep(0.02)

    fleet.run(main())
    assert fleet.longest_s == 0.0


def test_who_has_used_up_its_rate_troubles_the_bank_no_more_than_others() -> None:
    """Refused at once, by what is known here."""
    fleet = Fleet(KeyLimits(rpm=6), count=1)

    async def main() -> None:
        await fleet.burst(10, [0])
        leases = fleet.bank.leases
        for _ in range(1_000):
            assert not await fleet.call()
            await asyncio.sleep(0.001)
        assert fleet.bank.leases - leases <= 12

    fleet.run(main())


def test_what_one_key_asks_for_has_nobody_else_looked_at() -> None:
    """However many keys there are: a call that waits for a lease waits for its own."""
    fleet = Fleet(KeyLimits(rpm=60), count=1)
    wanted: list[int] = []

    async def main() -> None:
        (door,) = fleet.doors
        names = [f"key-{number}" for number in range(500)]
        door.use(Keyring([], limits=dict.fromkeys(["ci", *names], fleet.limits)))
        await asyncio.gather(*(door.visit(Caller(key=name)) for name in names))
        lease = fleet.bank.lease

        async def counted(process: str, wants: Sequence[Want | PlaceWant]) -> Leased:
            wanted.append(len(wants))
            return await lease(process, wants)

        fleet.bank.lease = counted  # type: ignore[method-assign]  # one that counts
        await asyncio.sleep(0.11)
        assert await fleet.call()
        assert wanted == [1] and len(fleet.leased()) >= 500

    fleet.run(main())


def test_tokens_that_were_not_used_are_there_for_all() -> None:
    """What a call took is made good when it ends, also at the other processes."""
    fleet = Fleet(KeyLimits(tpm=60_000))

    async def main() -> None:
        for number in range(20):
            assert await fleet.call(number % 4, asks=20_000, uses=1_000)
            await asyncio.sleep(1.2)

    fleet.run(main())


def test_what_asks_for_more_than_a_minute_holds_gets_in_when_nothing_is_used() -> None:
    """As in one process; and what it used beyond is owed by all."""
    fleet = Fleet(KeyLimits(tpm=1_000), count=2)

    async def main() -> None:
        assert await fleet.call(0, asks=5_000, uses=3_000)
        assert not await fleet.call(0, asks=100)
        await asyncio.sleep(2)
        assert not await fleet.call(1, asks=100)
        await asyncio.sleep(119)
        assert not await fleet.call(1, asks=100)
        await asyncio.sleep(10)
        assert await fleet.call(1, asks=100)

    fleet.run(main())


def test_what_is_left_is_told_for_all() -> None:
    """As far as this process knows; what rests is leased no more, and nothing of it is kept back."""
    fleet = Fleet(KeyLimits(rpm=60, concurrency=50), count=2)

    def left() -> tuple[int, float, int | None]:
        found = fleet.doors[0].allowance(CI)
        assert found is not None and found.calls is not None
        assert found.calls.limit == 60
        return found.calls.left, found.calls.full_in_s, found.places

    async def main() -> None:
        await fleet.burst(20, [0, 1])
        await asyncio.sleep(3)
        assert fleet.leased() == []
        calls, full_in_s, places = left()
        assert 41 <= calls <= 43 and 16 <= full_in_s <= 19 and places == 50
        await asyncio.sleep(120)
        assert left() == (60, 0, 50)
        assert fleet.leased() == [], "whoever asks what is left uses nothing"

    fleet.run(main())


def test_of_those_that_rest_a_few_are_remembered() -> None:
    """Callers come and go."""
    fleet = Fleet(KeyLimits(rpm=60), count=1)

    async def main() -> None:
        (door,) = fleet.doors
        names = [f"key-{number}" for number in range(1_500)]
        door.use(Keyring([], limits=dict.fromkeys(names, fleet.limits)))
        for name in names:
            door.allowance(Caller(key=name))
        await asyncio.sleep(3)
        assert fleet.leased() == []
        assert door.shared_limits is not None and len(door.shared_limits._resting) == 1_000

    fleet.run(main())


@pytest.mark.parametrize(
    ("without", "most"),
    [(None, 15), (WithoutBank.SHARE, 15), (WithoutBank.CLOSED, 0), (WithoutBank.OPEN, 100)],
)
@pytest.mark.parametrize("gone_s", [0.0, 5.0])
def test_f24_without_the_bank_each_takes_its_part(
    without: WithoutBank | None, most: int, gone_s: float
) -> None:
    """At once, also in the first moments; what was used is owed when it is back."""
    fleet = Fleet(KeyLimits(rpm=60, without_redis=without))

    async def main() -> None:
        fleet.bank.is_gone = True
        await asyncio.sleep(gone_s)
        assert abs(await fleet.burst(100, [1]) - most) <= 1
        assert fleet.longest_s <= ASKED_S
        await asyncio.sleep(20)
        grown = {0: 0, 15: 5, 100: 100}[most]
        assert abs(await fleet.burst(100, [1]) - grown) <= 1
        fleet.bank.is_gone = False
        await asyncio.sleep(0.5)
        if without is not WithoutBank.OPEN:
            assert abs(await fleet.burst(100, [0, 2]) - (60 - most)) <= 2

    fleet.run(main())


@pytest.mark.parametrize("limits", [{"rpm": 60}, {"concurrency": 5}], ids=["rpm", "concurrency"])
def test_f24_a_key_that_was_closed_in_an_outage_is_open_after_it(limits: dict[str, int]) -> None:
    """Also one that was used for the first time meanwhile, and seldom after."""
    fleet = Fleet(KeyLimits(**limits, without_redis=WithoutBank.CLOSED), count=1)

    async def main() -> None:
        fleet.bank.is_gone = True
        await asyncio.sleep(3)
        assert not await fleet.call()
        await asyncio.sleep(3)
        fleet.bank.is_gone = False
        for _ in range(10):
            await asyncio.sleep(60)
            assert await fleet.call()

    fleet.run(main())


def test_f24_what_was_open_is_not_owed_for_hours() -> None:
    """What was let in without a limit is paid within a minute or two."""
    fleet = Fleet(KeyLimits(rpm=60, without_redis=WithoutBank.OPEN), count=2)

    async def main() -> None:
        fleet.bank.is_gone = True
        await asyncio.sleep(2)
        assert await fleet.burst(6_000, [0, 1]) == 6_000
        fleet.bank.is_gone = False
        await asyncio.sleep(200)
        assert await fleet.burst(100, [0, 1]) >= 59

    fleet.run(main())


def test_f24_a_long_outage_saves_up_no_more_than_a_minute_for_all() -> None:
    """Each gateway its part of it; the same right when the bank is back."""
    fleet = Fleet(KeyLimits(rpm=60))

    async def main() -> None:
        await fleet.burst(4, [0, 1, 2, 3])
        fleet.bank.is_gone = True
        await asyncio.sleep(300)
        assert 56 <= await fleet.burst(200, [0, 1, 2, 3]) <= 60
        await asyncio.sleep(300)
        fleet.bank.is_gone = False
        await asyncio.sleep(1)
        assert await fleet.burst(200, [0, 1, 2, 3]) <= 75

    fleet.run(main())


@pytest.mark.parametrize("tpm", [60_000, 18], ids=["large", "small"])
def test_what_others_gave_back_is_found_soon(tpm: int) -> None:
    """Who was refused by what was known is not refused by it for long."""
    fleet = Fleet(KeyLimits(tpm=tpm), count=2)

    async def main() -> None:
        with await fleet.doors[0].visit(CI, lambda: tpm):
            assert not await fleet.call(1, asks=tpm // 3)
            await asyncio.sleep(0.3)
        for _ in range(4):
            await asyncio.sleep(0.2)
            if await fleet.call(1, asks=tpm // 3):
                return
        raise AssertionError("it is still refused")

    fleet.run(main())


@pytest.mark.parametrize("count", [2, 25])
def test_what_a_call_lacks_goes_to_whoever_comes_first(count: int) -> None:
    """However many gateways there are; of two that cannot both have it one has."""
    fleet = Fleet(KeyLimits(tpm=60_000), count=count)

    async def main() -> None:
        assert await fleet.call(1, asks=60_000, uses=0)
        await asyncio.sleep(120)
        both = await asyncio.gather(fleet.call(0, asks=40_000), fleet.call(1, asks=40_000))
        assert sorted(both) == [False, True]

    fleet.run(main())
    assert fleet.longest_s <= ASKED_S


def test_settings_that_change_while_a_call_asks_are_the_new_ones() -> None:
    """Whoever asked under the old ones brings them not back."""
    fleet = Fleet(KeyLimits(rpm=60), count=1)

    async def main() -> None:
        (door,) = fleet.doors
        waiting = asyncio.create_task(door.visit(CI))
        await asyncio.sleep(0)
        door.use(Keyring([], limits={"ci": KeyLimits(rpm=60, tpm=1_000)}))
        assert await fleet.call(asks=900, uses=900)
        await waiting
        assert not await fleet.call(asks=900)

    fleet.run(main())


def test_f25_a_bank_that_is_slow_holds_no_call_for_long() -> None:
    """A call asks and waits a moment, and then takes the part that is its own."""
    fleet = Fleet(KeyLimits(rpm=60), count=1)

    async def main() -> None:
        fleet.bank.answer_s = 5.0
        assert await fleet.burst(100, [0]) == 60

    fleet.run(main())
    assert 0 < fleet.longest_s <= ASKED_S + 0.001


def test_f24_who_knows_that_nobody_answers_does_not_wait() -> None:
    """The bank is slow to say no; only the first ones wait for that, and no other key's."""
    fleet = Fleet(KeyLimits(rpm=60), count=1)
    names = [f"key-{number}" for number in range(50)]

    async def main() -> None:
        (door,) = fleet.doors
        door.use(Keyring([], limits=dict.fromkeys(names, fleet.limits)))
        fleet.bank.is_gone, fleet.bank.answer_s = True, 0.04
        await asyncio.sleep(2)
        began = fleet.clock.monotonic()
        for name in names:
            with await door.visit(Caller(key=name)):
                pass
        assert fleet.clock.monotonic() == began

    fleet.run(main())


def test_places_are_shared() -> None:
    """No more calls are inside at one time than the limit, wherever they are; who leaves makes room."""
    fleet = Fleet(KeyLimits(concurrency=5))

    async def main() -> None:
        with ExitStack() as inside:
            for process in (0, 0, 0, 1, 3):
                inside.enter_context(await fleet.doors[process].visit(CI))
            for process in range(4):
                assert not await fleet.call(process)
            assert "may have 5 calls inside" in str(fleet.refusals[0])
            found = fleet.doors[0].allowance(CI)
            assert found is not None and found.places == 0
        await asyncio.sleep(0.3)
        for process in range(4):
            assert await fleet.burst(5, [process]) == 5
            await asyncio.sleep(0.3)
        await asyncio.sleep(3)
        assert all(
            not list(door.shared_limits.shared(urgent=False)) for door in fleet.doors if door.shared_limits
        )

    fleet.run(main())


def test_calls_that_come_at_once_get_all_places_and_no_more() -> None:
    """Spread over all processes."""
    fleet = Fleet(KeyLimits(concurrency=10))
    inside = 0

    async def long_call(process: int) -> bool:
        nonlocal inside
        with suppress(RateLimited):
            with await fleet.doors[process].visit(CI):
                inside += 1
                assert inside <= 10
                await asyncio.sleep(5)
                inside -= 1
            return True
        return False

    async def main() -> None:
        for _ in range(3):
            found = await asyncio.gather(*(long_call(number % 4) for number in range(40)))
            assert sum(found) == 10
            await asyncio.sleep(1)

    fleet.run(main())


def test_f24_without_the_bank_each_has_its_part_of_the_places() -> None:
    """At once; and what is inside is counted when it is back."""
    fleet = Fleet(KeyLimits(concurrency=8))

    async def main() -> None:
        fleet.bank.is_gone = True
        with ExitStack() as inside:
            for _ in range(2):
                inside.enter_context(await fleet.doors[0].visit(CI))
            assert not await fleet.call(0)
            assert await fleet.call(1)
            fleet.bank.is_gone = False
            await asyncio.sleep(2)
            assert fleet.longest_s <= ASKED_S
            for _ in range(6):
                inside.enter_context(await fleet.doors[1].visit(CI))
            assert not await fleet.call(2)

    fleet.run(main())


def test_a_changed_limit_keeps_what_was_used() -> None:
    """A rate that goes is forgotten."""
    fleet = Fleet(KeyLimits(rpm=60, tpm=1_000), count=1)

    async def main() -> None:
        assert await fleet.burst(100, [0]) in (59, 60)
        (door,) = fleet.doors
        door.use(Keyring([], limits={"ci": KeyLimits(rpm=120)}))
        await asyncio.sleep(1)
        assert await fleet.burst(100, [0]) <= 4
        door.use(Keyring([], limits={"ci": KeyLimits(tpm=1_000)}))
        assert await fleet.burst(100, [0], asks=1) == 100

    fleet.run(main())
