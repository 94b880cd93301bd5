"""How late the event loop is."""

import asyncio
import time

from tiergate.telemetry import BOUNDS_S, LoopDelay


def test_what_holds_up_the_loop_is_seen() -> None:
    """A pause in which nothing else could run is counted, in the bucket of its length."""
    delay = LoopDelay()

    async def main() -> None:
        task = asyncio.create_task(delay.run())
        await asyncio.sleep(0.2)
        time.sleep(0.4)
        await asyncio.sleep(0.1)
        task.cancel()

    asyncio.run(main())
    assert len(delay.counts) == len(BOUNDS_S) + 1
    assert sum(delay.counts[BOUNDS_S.index(0.25) + 1 :]) == 1
    assert sum(delay.counts) >= 8
    assert delay.total_s >= 0.35


def test_a_loop_that_is_early_is_in_time() -> None:
    """Its clock may have whole milliseconds."""
    delay = LoopDelay()
    delay.count(-0.001)
    assert (delay.counts[0], delay.total_s) == (1, 0.0)
