"""The fake clock and the event loop that lives on it."""

import asyncio
import time

import pytest

from tiergate.core import Clock
from tiergate.testing import FakeClock, NothingWillHappen, run_virtual


def test_the_clock_stands_still_until_it_is_moved() -> None:
    """Advancing moves both clocks by the same amount."""
    clock: Clock = FakeClock(wall_ns=1_000)
    assert (clock.monotonic(), clock.wall_ns()) == (0.0, 1_000)

    assert isinstance(clock, FakeClock)
    clock.advance(2.5)

    assert (clock.monotonic(), clock.wall_ns()) == (2.5, 2_500_001_000)


def test_the_wall_jumps_alone() -> None:
    """A jump of the wall clock, back or forward, lets no time pass."""
    clock = FakeClock(wall_ns=10_000_000_000)
    clock.jump_wall(-3)

    assert (clock.monotonic(), clock.wall_ns()) == (0.0, 7_000_000_000)


def test_time_never_goes_back() -> None:
    """Monotonic time is refused a step back, and a step that is no number."""
    with pytest.raises(ValueError, match="never goes back"):
        FakeClock().advance(-0.1)
    with pytest.raises(ValueError, match="never goes back"):
        FakeClock().advance(float("nan"))


def test_a_day_of_sleep_takes_no_time() -> None:
    """Sleeps end at exactly their virtual time while hardly any real time passes."""
    clock = FakeClock()
    started = time.monotonic()

    run_virtual(asyncio.sleep(86_400), clock=clock)

    assert clock.monotonic() == 86_400
    assert time.monotonic() - started < 5


def test_tasks_wake_in_the_order_of_their_timers() -> None:
    """Three sleepers started in another order wake by time, each seeing its own time."""

    async def main() -> list[tuple[str, float]]:
        woken: list[tuple[str, float]] = []

        async def sleeper(name: str, seconds: float) -> None:
            await asyncio.sleep(seconds)
            woken.append((name, asyncio.get_running_loop().time()))

        await asyncio.gather(sleeper("late", 30), sleeper("early", 1), sleeper("middle", 7.5))
        return woken

    assert run_virtual(main()) == [("early", 1.0), ("middle", 7.5), ("late", 30.0)]


def test_time_outs_are_virtual_too() -> None:
    """A wait of an hour is cut after a virtual second."""
    clock = FakeClock()

    async def main() -> None:
        async with asyncio.timeout(1):
            await asyncio.sleep(3_600)

    with pytest.raises(TimeoutError):
        run_virtual(main(), clock=clock)
    assert clock.monotonic() == pytest.approx(1)


def test_advancing_by_hand_makes_timers_due() -> None:
    """A test may also move the clock itself while tasks sleep."""
    clock = FakeClock()

    async def main() -> float:
        sleeper = asyncio.create_task(asyncio.sleep(10))
        await asyncio.sleep(0)
        clock.advance(25)
        await sleeper
        return clock.monotonic()

    assert run_virtual(main(), clock=clock) == 25


def test_a_wait_that_can_never_end_is_an_error() -> None:
    """With no timer set, waiting is reported instead of hanging the test."""

    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(NothingWillHappen):
        run_virtual(main())


def test_a_thread_may_still_wake_the_loop() -> None:
    """Work in a thread is waited for when there is nothing else to wait for."""
    assert run_virtual(asyncio.to_thread(lambda: 42)) == 42
