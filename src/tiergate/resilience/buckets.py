"""A rate: so many requests or tokens per minute that a provider takes from us. Pure, time is brought along.

What is not used is saved up for a few seconds and no longer, so that over any minute hardly more than the
rate is asked for. It begins empty: what the process before this one has just used is not known, and a burst
would come on top of it. Only the very first call need not wait.
"""

from typing import Final

BURST_S: Final = 5.0
"""So many seconds of a rate may be used at once, after a pause."""
_ROUNDING_S: Final = 1e-6


class Bucket:
    """What may be taken now. Less than nothing: who took more than is ever saved up owes the rest."""

    __slots__ = ("_at", "_is_fresh", "_level", "per_minute")

    def __init__(self, per_minute: int, *, now: float) -> None:
        self.per_minute = per_minute
        self._at = now
        self._level = 0.0
        self._is_fresh = True

    def left(self, now: float) -> float:
        """Give what may be taken."""
        self._fill(now)
        return self._level

    def wait_s(self, amount: float, now: float) -> float:
        """Give the time until so much may be taken; 0: now.

        More than is ever saved up may be taken when as much as ever is saved up.
        """
        if self._is_fresh:
            return 0.0
        self._fill(now)
        wait_s = (min(amount, self._most) - self._level) / self._per_s
        return wait_s if wait_s > _ROUNDING_S else 0.0

    def take(self, amount: float, now: float) -> None:
        """Take so much, whatever is there."""
        self._fill(now)
        self._is_fresh = False
        self._level -= amount

    def correct(self, *, took: float, used: float) -> None:
        """Make good what was taken too much, or too little."""
        self._level = min(self._most, self._level + took - used)

    def change(self, per_minute: int, now: float) -> None:
        """Take another rate; what was saved up or is owed stays, as far as the new rate reaches."""
        self._fill(now)
        self.per_minute = per_minute
        # Under a rate that is much lower, what is owed would take for ever.
        self._level = min(self._most, max(self._level, -float(per_minute)))

    @property
    def _per_s(self) -> float:
        return self.per_minute / 60

    @property
    def _most(self) -> float:
        return max(1.0, self._per_s * BURST_S)

    def _fill(self, now: float) -> None:
        # A pause of any length, also of a stopped process, fills it once and no more.
        if now > self._at:
            self._level = min(self._most, self._level + (now - self._at) * self._per_s)
            self._at = now
