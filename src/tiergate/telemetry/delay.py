"""How late the event loop is: everything waits for it, so a delay here is in every call's time."""

import asyncio
from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

TICK_S: Final = 0.02
"""So often it is looked whether the loop is late; what holds it up for longer is always seen."""
BOUNDS_S: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)


class LoopDelay:
    """A histogram of delays. `counts`: one for each bound and one beyond; `total_s`: their sum."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS_S) + 1)
        self.total_s = 0.0

    @property
    def counts(self) -> Sequence[int]:
        """How many delays there were up to each bound, and beyond the last."""
        return self._counts

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + TICK_S
            await asyncio.sleep(TICK_S)
            self.count(loop.time() - due)

    def count(self, delay_s: float) -> None:
        """Count one delay, in seconds; a clock of whole milliseconds may be early."""
        self._counts[bisect_left(BOUNDS_S, delay_s)] += 1
        self.total_s += max(0.0, delay_s)
