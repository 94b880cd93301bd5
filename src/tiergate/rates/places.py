"""Places: how much may be going on at one time, shared with other processes. Pure."""

from math import ceil
from typing import Final

from tiergate.rates.wants import PlaceWant

_AHEAD_SHARE: Final = 0.05
"""Of the limit; so many free places each busy process has, so that the next one need not wait. Of a small
limit none: they would be missing elsewhere."""
_NO_LIMIT: Final = float("inf")


class LeasedPlaces:
    """This process's part of a limit of concurrency that several share.

    Args:
        limit: of all together.
        taken: those in which something is already.
    """

    __slots__ = (
        "_given",
        "_is_short",
        "_left",
        "_most_taken",
        "_share",
        "_taken",
        "_waiting",
        "_wanted",
        "limit",
    )

    def __init__(self, limit: int, *, taken: int = 0) -> None:
        self.limit = limit
        self._taken = taken
        self._waiting = 0
        self._most_taken = 0
        """At one time since the last lease."""
        self._given = 0
        self._wanted = 0
        self._is_short = False
        self._left = limit
        self._share: float | None = None

    @property
    def at_rest(self) -> bool:
        """Tell whether nothing is here, and nothing is asked for."""
        return not (self._taken or self._given or self._wanted)

    @property
    def left(self) -> int:
        """Give how many may still be taken, here or from what is known to be left for all.

        What others have while nothing is leased here is not known.
        """
        if self.at_rest:
            return self.limit
        elsewhere = self._left if self._share is None else 0
        return max(0, int(min(self.limit, self._here + elsewhere)) - self._taken)

    def has_room(self) -> bool:
        """Tell whether one more may be taken now."""
        return self._taken < self._here

    def may_be_leased(self) -> bool:
        """Tell whether there may be one for whoever asks."""
        return self._share is None and not self._is_short and self._taken < self.limit

    def take(self) -> None:
        """Take one, whatever is there."""
        self._taken += 1
        self._most_taken = max(self._most_taken, self._taken)

    def give_back(self) -> None:
        """Give one back."""
        self._taken -= 1

    def expect(self, waiting: int) -> None:
        """Take note that so many are waited for: they are leased next."""
        self._waiting = max(self._waiting, waiting)

    def want(self, name: str) -> PlaceWant:
        """Give what to lease now: what was taken at one time, what is waited for, and some ahead."""
        busiest = max(self._taken + self._waiting, self._most_taken)
        ahead = int(self.limit * _AHEAD_SHARE) if busiest else 0
        known = max(self._given, self._wanted)
        self._wanted = min(self.limit, busiest + ahead)
        self._most_taken, self._waiting = self._taken, 0
        return PlaceWant(name, self._wanted, self._taken, self.limit, known)

    def grant(self, amount: float, now: float, left: float | None = None) -> None:
        """Take what was leased; `left` is what others find."""
        self._share = None
        if left is None:
            return
        self._given, self._left = int(amount), int(left)
        self._is_short = self._given < self._wanted

    def lend(self, share: float) -> None:
        """Let this share of the limit be used, because nobody answers."""
        self._share = share

    def alone(self, share: float, now: float) -> None:
        """Have this share of the limit from now on: 0, and nothing is let in; infinite, and everything."""
        self._share = share

    @property
    def _here(self) -> float:
        if self._share is None:
            return self._given
        return self._share if self._share == _NO_LIMIT else ceil(self.limit * self._share)
