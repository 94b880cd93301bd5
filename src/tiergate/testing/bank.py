"""A bank of shared rates in memory: several processes in one, for tests of what they share."""

from collections.abc import Sequence

from tiergate.core import Clock
from tiergate.rates import Leased, PlaceWant, RatesUnavailable, Want

_THERE_S = 5.0


class MemoryRateBank:
    """Fills the port `rates.RateBank`.

    `is_gone`: nobody can ask it. `leases`: how often it was asked, and answered.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._levels: dict[str, tuple[float, float]] = {}
        self._places: dict[str, dict[str, tuple[int, int]]] = {}
        self._there: dict[str, float] = {}
        self.is_gone = False
        self.leases = 0

    async def lease(self, process: str, wants: Sequence[Want | PlaceWant]) -> Leased:
        """Take note that a process is there, and give it what it wants and is left."""
        if self.is_gone:
            raise RatesUnavailable("it was taken away")
        self.leases += 1
        now = self._clock.monotonic()
        self._there[process] = now
        self._there = {name: seen for name, seen in self._there.items() if now - seen < _THERE_S}
        processes = len(self._there)
        found = [
            self._have(want, process, now) if isinstance(want, PlaceWant) else self._one(want, now, processes)
            for want in wants
        ]
        return Leased([granted for granted, _ in found], [left for _, left in found], processes)

    def _one(self, want: Want, now: float, processes: int) -> tuple[float, float | None]:
        """Give what is granted, and what is left."""
        if not want.is_needed:
            return 0.0, None
        level, at = self._levels.get(want.name, (want.first, now))
        level = min(want.most, level + (now - at) * want.per_s)
        part = want.most if want.first else max(1.0, want.most / processes)
        granted = max(0.0, min(want.amount, level, part)) if want.amount > 0 else want.amount
        left = min(want.most, level - granted)
        self._levels[want.name] = left, now
        return granted, left

    def _have(self, want: PlaceWant, process: str, now: float) -> tuple[int, int | None]:
        """Give how many places a process has, and how many are left."""
        if not want.is_needed:
            return 0, None
        known = self._places.setdefault(want.name, {})
        others = {name: of for name, of in known.items() if name != process and name in self._there}
        held = sum(has for has, _ in others.values())
        busy = sorted([process, *(name for name, (_, wants) in others.items() if wants)])
        share, more = divmod(want.limit, len(busy))
        # What cannot be divided goes round.
        turn = (busy.index(process) + int(now)) % len(busy)
        most = max(share + (turn < more), want.limit - sum(wants for _, wants in others.values()))
        granted = max(0, min(want.places, want.limit - held, most))
        has = max(granted, want.taken)
        known[process] = has, want.places
        return granted, max(0, want.limit - held - has)
