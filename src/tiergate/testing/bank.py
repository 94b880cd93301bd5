"""A bank of shared rates in memory: several processes in one, for tests of what they share."""

from collections.abc import Sequence

from tiergate.core import Clock
from tiergate.rates import Leased, RatesUnavailable, Want

_THERE_S = 5.0


class MemoryRateBank:
    """Fills the port `rates.RateBank`. `is_gone`: nobody can ask it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._levels: dict[str, tuple[float, float]] = {}
        self._there: dict[str, float] = {}
        self.is_gone = False

    async def lease(self, process: str, wants: Sequence[Want]) -> Leased:
        """Take note that a process is there, and give it what it wants and is left."""
        if self.is_gone:
            raise RatesUnavailable("it was taken away")
        now = self._clock.monotonic()
        self._there[process] = now
        self._there = {name: seen for name, seen in self._there.items() if now - seen < _THERE_S}
        processes = len(self._there)
        found = [self._one(want, now, processes) for want in wants]
        return Leased([granted for granted, _ in found], [left for _, left in found], processes)

    def _one(self, want: Want, now: float, processes: int) -> tuple[float, float | None]:
        """Give what is granted, and what is left."""
        if not want.amount:
            return 0.0, None
        level, at = self._levels.get(want.name, (want.first, now))
        level = min(want.most, level + (now - at) * want.per_s)
        part = max(1.0, want.most / processes)
        granted = max(0.0, min(want.amount, level, part)) if want.amount > 0 else want.amount
        left = min(want.most, level - granted)
        self._levels[want.name] = left, now
        return granted, left
