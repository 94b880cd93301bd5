"""A rate: so many requests or tokens per minute. Pure, time is brought along.

`Bucket` is what a provider takes from one process. What is not used is saved up for a few seconds and no
longer, so that over any minute hardly more than the rate is asked for. It begins empty: what the process
before this one has just used is not known, and a burst would come on top of it. Only the very first call need
not wait. `LeasedBucket` is one process's part of what several use together.
"""

from typing import Final, Protocol

from tiergate.rates.wants import Want

BURST_S: Final = 5.0
"""So many seconds of a rate may be used at once, after a pause."""
SLICE_S: Final = 0.1
"""For so long what is leased of a shared rate should last."""
_SLICE_SHARE: Final = 0.05
"""Of a minute's amount; most that is leased ahead at once."""
A_LEASE_S: Final = SLICE_S / 2
"""So long whoever lacks something waits, on the average, until it is leased."""
_IDLE_LEASES: Final = 10
"""Not used for so many leases, it is at rest."""
_ROUNDING_S: Final = 1e-6
_ROUNDING: Final = 1e-3
"""What is leased in several parts, and written down in between, is a little less than the whole."""
_NO_LIMIT: Final = float("inf")
_FOR_EVER_S: Final = 3600.0
"""Nobody knows when the store is back."""


class RateBucket(Protocol):
    """What a gate asks of a rate."""

    per_minute: int

    def left(self, now: float) -> float:
        """Give what may be taken; less than nothing: it is owed."""
        ...

    def wait_s(self, amount: float, now: float) -> float:
        """Give the time until so much may be taken; 0: now."""
        ...

    def take(self, amount: float, now: float) -> None:
        """Take so much, whatever is there."""
        ...

    def correct(self, *, took: float, used: float) -> None:
        """Make good what was taken too much, or too little."""
        ...

    def expect(self, amount: float) -> None:
        """Take note that so much is waited for."""
        ...

    def change(self, per_minute: int, now: float) -> None:
        """Take another rate."""
        ...


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

    def expect(self, amount: float) -> None:
        """Take note that so much is waited for: time alone brings it."""

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


class LeasedBucket:
    """This process's part of a rate that several share: what was leased of it, and nothing grows by itself.

    While nobody can be asked it grows at a share of the rate (`alone`).

    Args:
        per_minute: the rate of all together.
        now: monotonic seconds.
        burst_s: so many seconds of the rate are saved up at most.
        begins_full: what nobody has used for so long is saved up. Such a rate is given back whole when it is
            at rest. Otherwise nothing is, and the very first call need not wait.
    """

    __slots__ = (
        "_at",
        "_banked",
        "_banked_at",
        "_begins_full",
        "_burst_s",
        "_idle",
        "_is_doubtful",
        "_is_fresh",
        "_lent",
        "_level",
        "_missing",
        "_share",
        "_used",
        "per_minute",
    )

    def __init__(
        self, per_minute: int, *, now: float, burst_s: float = BURST_S, begins_full: bool = False
    ) -> None:
        self.per_minute = per_minute
        self._burst_s = burst_s
        self._begins_full = begins_full
        self._at = now
        self._level = 0.0
        self._is_fresh = not begins_full
        self._share: float | None = None
        self._used = 0.0
        self._missing = 0.0
        """What was waited for since the last lease, and was not there."""
        self._lent = 0.0
        """What may be used beyond what was leased, because nobody answers."""
        self._idle = 0
        """Leases since it was used."""
        self._is_doubtful = False
        """What the bank has is to be looked at."""
        self._banked = self.first
        """What was left for all at that moment, as far as it is known here."""
        self._banked_at = now

    @property
    def most(self) -> float:
        """What is saved up at most."""
        return max(1.0, self._per_s * self._burst_s)

    @property
    def first(self) -> float:
        """What is saved up of a rate that nobody has used."""
        return self.most if self._begins_full else 0.0

    @property
    def at_rest(self) -> bool:
        """Tell whether nothing of it is here, and nothing is owed."""
        return self._idle > _IDLE_LEASES and abs(self._level) <= _ROUNDING and not self._is_doubtful

    def left(self, now: float) -> float:
        """Give what may be taken here without a lease."""
        self._fill(now)
        return self._level + self._lent

    def left_for_all(self, now: float) -> float:
        """Give what may be taken here and is known to be left in the bank."""
        return self.left(now) + (self._in_bank(now) if self._share is None else 0.0)

    def wait_s(self, amount: float, now: float) -> float:
        """Give the time until so much may be there, if nobody else takes it; 0: now."""
        if self._is_fresh or self._share == _NO_LIMIT or self._lent == _NO_LIMIT:
            return 0.0
        missing = min(amount, self.most) - self.left(now)
        if missing <= _ROUNDING:
            return 0.0
        if self._share is None:
            return max(A_LEASE_S, (missing - self._in_bank(now)) / self._per_s)
        if self._share == 0:
            return _FOR_EVER_S
        return max(A_LEASE_S, missing / (self._per_s * self._share))

    def take(self, amount: float, now: float) -> None:
        """Take so much, whatever is there."""
        self._fill(now)
        self._is_fresh = False
        self._level -= amount
        self._used += amount

    def correct(self, *, took: float, used: float) -> None:
        """Make good what was taken too much, or too little. What comes back is saved up as far as ever."""
        self._level = min(max(self._level, self.most), self._level + took - used)

    def expect(self, amount: float) -> None:
        """Take note that so much is waited for: it is leased next."""
        self._missing = max(self._missing, amount - self._level)

    def look_again(self) -> None:
        """Take note that what is known here may be old; somebody was refused by it, say."""
        self._is_doubtful = True

    def change(self, per_minute: int, now: float) -> None:
        """Take another rate."""
        self._fill(now)
        self.per_minute = per_minute
        self._level = min(self.most, max(self._level, -float(per_minute)))

    def want(self, name: str) -> Want:
        """Give what to lease now."""
        amount = self._wanted()
        if amount < 0:
            # What is given back is not used from here on. If the answer is lost, it is not there twice.
            self._level += amount
        if self._begins_full and self._idle == _IDLE_LEASES + 1:
            # The last word before it rests: others may have used it meanwhile.
            self.look_again()
        return Want(name, amount, self._per_s, self.most, self.first, self._is_doubtful)

    def _wanted(self) -> float:
        """Give what to lease now, so that nobody waits; less than nothing: what to give back.

        What is owed, and as much as was used since the last lease or is waited for, at least one or what the
        whole rate brings in a moment, so that the next call finds something. Ahead of need never more than a
        twentieth of a minute's.
        """
        is_used = self._used or self._missing or (self._is_doubtful and self._idle <= _IDLE_LEASES)
        self._idle = 0 if is_used else self._idle + 1
        if self._begins_full and self._idle > _IDLE_LEASES:
            return -self._level
        share = self.per_minute * _SLICE_SHARE
        # Of a small rate of a key nothing is kept ahead: it would be missing elsewhere.
        least = 0.0 if self._begins_full and share < 1 else max(1.0, self._per_s * SLICE_S)
        most = max(least, share) if least else 0.0
        ahead = max(least, min(self._used, most))
        owed = max(0.0, -self._level)
        wanted = owed + max(min(most, ahead - self._level - owed), min(self.most, self._missing - owed))
        self._used = self._missing = 0.0
        return wanted if wanted > 0 else min(0.0, 2 * ahead - self._level)

    def grant(self, amount: float, now: float, left: float | None = None) -> None:
        """Take what was leased; what was given back is gone already. `left` is what others find."""
        self._fill(now)
        if _NO_LIMIT in (self._share, self._lent):
            # Everything was let in; owed is what can be brought back in the time of a burst.
            self._level = max(self._level, -self.most)
        self._share = None
        self._lent = 0.0
        self._level += max(0.0, amount)
        if left is not None:
            self._banked, self._banked_at = left, now
            self._is_doubtful = False

    def rest(self, now: float) -> None:
        """Forget what was in force while nobody answered: whoever comes next asks again."""
        self.grant(0.0, now)

    def lend(self, share: float) -> None:
        """Let this share of what is saved up be used before it is leased; what is used of it is owed."""
        self._lent = self.first * share if self._begins_full else 0.0

    def alone(self, share: float, now: float) -> None:
        """Grow by this share of the rate from now on: 0, and nothing is let in; infinite, and everything."""
        self._fill(now)
        self._share = share
        self.lend(share)

    @property
    def _per_s(self) -> float:
        return self.per_minute / 60

    def _in_bank(self, now: float) -> float:
        """Give what the bank may have by now, if nobody else takes of it."""
        return min(self.most, self._banked + max(0.0, now - self._banked_at) * self._per_s)

    def _fill(self, now: float) -> None:
        if now > self._at:
            # What is lent stands for a part of what is saved up, and is no more on top of it.
            most = max(0.0 if self._begins_full else 1.0, self.most * (self._share or 0.0)) - self._lent
            if self._share and self._share != _NO_LIMIT and self._level < most:
                grown = self._level + (now - self._at) * self._per_s * self._share
                self._level = min(most, grown)
            self._at = now
