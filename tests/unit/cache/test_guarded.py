"""A shelf that is slow or gone costs a call little, once, and then nothing."""

import asyncio
from collections.abc import Callable, Coroutine
from itertools import pairwise
from typing import Any

import pytest

from tiergate.cache import Found, GuardedShelf, Place, ShelfUnavailable
from tiergate.core import Event, Notice
from tiergate.testing import FakeClock, FakeShelf, run_virtual

HERE = Place(b"k", "team:x", "m")


class Stage:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.behind = FakeShelf()
        self.events: list[Event] = []
        self.shelf = GuardedShelf(self.behind, monotonic=self.clock.monotonic, emit=self.events.append)

    def run(self, test: Callable[[], Coroutine[Any, Any, None]]) -> None:
        run_virtual(test(), clock=self.clock)

    @property
    def words(self) -> list[str]:
        return [event.word for event in self.events if isinstance(event, Notice)]


def test_while_it_answers_it_is_asked() -> None:
    """And gives what is there."""
    stage = Stage()

    async def test() -> None:
        found = await stage.shelf.get(HERE, 0)
        assert isinstance(found, Found)
        assert await stage.shelf.put(HERE, b"v", ticket=found.ticket, now_ns=0, expires_ns=9)
        again = await stage.shelf.get(HERE, 0)
        assert again is not None and again.value == b"v"

    stage.run(test)
    assert stage.words == [] and stage.shelf.is_there


@pytest.mark.parametrize("how", ["slow", "gone"])
def test_it_is_waited_for_once_and_then_left_alone(how: str) -> None:
    """For a second, then twice as long, up to half a minute; one call tries, the others go on at once."""
    stage = Stage()
    stage.behind.is_gone = how == "gone"
    stage.behind.delay_s = 9.0 if how == "slow" else 0.01

    async def test() -> None:
        tried: list[float] = []
        began = stage.clock.monotonic()
        while stage.clock.monotonic() < began + 200:
            before, asked = stage.clock.monotonic(), stage.behind.asked
            found = await asyncio.gather(*(stage.shelf.get(HERE, 0) for _ in range(3)))
            assert found == [None, None, None]
            assert stage.clock.monotonic() - before <= 0.051
            if stage.behind.asked > asked:
                tried.append(round(before - began))
            await asyncio.sleep(0.2)
        waits = [after - before for before, after in pairwise(tried)]
        assert waits[:6] == [pytest.approx(wait, abs=1) for wait in (1, 2, 4, 8, 16, 30)]
        assert all(wait == pytest.approx(30, abs=1) for wait in waits[6:])
        assert stage.behind.asked <= 3 + len(tried) - 1
        stage.behind.is_gone, stage.behind.delay_s = False, 0.0
        await asyncio.sleep(31)
        assert await stage.shelf.get(HERE, 0) is not None
        assert await stage.shelf.put(HERE, b"v", ticket=b"", now_ns=0, expires_ns=1)

    stage.run(test)
    assert stage.words == ["cache_gone", "cache_back"] and stage.shelf.is_there


def test_a_purge_is_tried_whatever_was_before() -> None:
    """Whoever purges is told whether it was done."""
    stage = Stage()
    stage.behind.is_gone = True

    async def test() -> None:
        await stage.shelf.get(HERE, 0)
        with pytest.raises(ShelfUnavailable):
            await stage.shelf.purge("team:x", None)
        stage.behind.is_gone = False
        await stage.shelf.purge("team:x", None)

    stage.run(test)


def test_sweeping_brings_nothing_back() -> None:
    """It may cost a shelf nothing, and shows nothing of it."""
    stage = Stage()
    stage.behind.is_gone = True

    async def test() -> None:
        await stage.shelf.get(HERE, 0)
        stage.behind.is_gone = False
        for _ in range(10):
            await asyncio.sleep(5)
            await stage.shelf.sweep(0)
        assert not stage.shelf.is_there and stage.behind.asked == 1
        assert await stage.shelf.get(HERE, 0) is not None
        await stage.shelf.sweep(0)
        assert stage.behind.asked == 3

    stage.run(test)
    assert stage.words == ["cache_gone", "cache_back"]
