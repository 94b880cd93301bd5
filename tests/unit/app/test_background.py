"""Work that nobody awaits: an operator hears of its end, and it ends with the house."""

import asyncio
from contextlib import AsyncExitStack

from tiergate.app.background import in_background
from tiergate.core import Event, Notice


def test_an_error_in_it_is_told() -> None:
    """Nobody else would notice: budgets would no longer be watched, keys no longer followed."""
    heard: list[Event] = []

    async def works() -> None:
        await asyncio.sleep(0)
        raise KeyError("lost")

    async def test() -> None:
        async with AsyncExitStack() as stack:
            in_background(stack, works(), "Watching the budgets", heard.append)
            await asyncio.sleep(0.01)

    asyncio.run(test())
    (notice,) = heard
    assert isinstance(notice, Notice)
    assert notice.severe
    assert notice.message.startswith("Watching the budgets has ended, by an error (KeyError: 'lost').")


def test_the_end_of_the_house_is_no_error() -> None:
    """It is cancelled, and nobody is told."""
    heard: list[Event] = []
    left: list[bool] = []

    async def works() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            left.append(True)

    async def test() -> None:
        async with AsyncExitStack() as stack:
            in_background(stack, works(), "Delivering alerts", heard.append)
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)

    asyncio.run(test())
    assert (heard, left) == ([], [True])
