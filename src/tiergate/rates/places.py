"""Places: how much may be going on at one time, shared with other processes. Pure, time is brought along."""

from math import ceil
from typing import Final

from tiergate.rates.wants import PlaceWant

_AHEAD_SHARE: Final = 0.05
"""Of the limit; so many free places each busy process has, so that the next one need not wait. Of a small
limit none: they would be missing elsewhere."""
_GOOD_FOR_S: Final = 4.0
"""A process that was silent for longer may have been given up, and its free places given to others."""
_NO_LIMIT: Final = float("inf")


class LeasedPlaces:
    """This process's part of a limit of concurrency that several share.

    Args:
        limit: of all together.
        taken: those in which something is already.
    """

    __slots__ = (
        "_given",
        "_given_at",
        "_is_short",
        "_known",
        "_left",
        "_lifted",
        "_most_taken",
        "_share",
        "_taken",
        "_told",
        "_waiting",
        "_wanted",
        "limit",
    )

    def __init__(self, limit: int, *, taken: int = 0) -> None:
        self.limit = limit
        self._lifted = False
        self._taken = taken
        self._waiting = 0
        self._most_taken = 0
        """At one time since the last lease."""
        self._given = 0
        self._given_at = 0.0
        self._wanted = 0
        self._told = 0
        """Those that were taken when the bank was asked last."""
        self._known = 0
        """The most that the bank may have written down of this process: what it has, or wants. An answer that
        is lost leaves it in doubt, and then it is told again."""
        self._is_short = False
        self._left = limit
        self._share: float | None = None

    @property
    def at_rest(self) -> bool:
        """Tell whether nothing is here, and the bank knows of nothing."""
        return not (self._taken or self._given or self._wanted or self._known)

    @property
    def left(self) -> int:
        """Give how many may still be taken, here or from what is known to be left for all.

        What others have while nothing is leased here is not known.
        """
        if self.at_rest:
            return self.limit
        here = self._of_share() if self._share is not None else self._given + self._left
        return max(0, int(min(self.limit, here)) - self._taken)

    def change(self, limit: int | None) -> None:
        """Take another limit. None: there is none any more; what was leased goes back as it becomes free."""
        self._lifted = limit is None
        if limit is not None:
            self.limit = limit

    def has_room(self, now: float) -> bool:
        """Tell whether one more may be taken now."""
        if self._lifted:
            return True
        if self._share is not None:
            return self._taken < self._of_share()
        return now - self._given_at <= _GOOD_FOR_S and self._taken < min(self._given, self.limit)

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
        busiest = self._taken if self._lifted else max(self._taken + self._waiting, self._most_taken)
        ahead = int(self.limit * _AHEAD_SHARE) if busiest and not self._lifted else 0
        self._wanted = min(self.limit, busiest + ahead)
        self._most_taken, self._waiting, self._told = self._taken, 0, self._taken
        # What is given back is not used from here on: others may have it before the answer comes.
        self._given = min(self._given, self._wanted)
        self._known = max(self._known, self._wanted, self._taken)
        return PlaceWant(name, self._wanted, self._taken, self.limit, self._known)

    def grant(self, amount: float, now: float, left: float | None = None) -> None:
        """Take what was leased; `left` is what others find, None: the bank was not asked."""
        self._share = None
        if left is None:
            self._is_short = False
            return
        self._given, self._given_at, self._left = int(amount), now, int(left)
        self._known = max(self._given, self._wanted, self._told)
        self._is_short = self._given < self._wanted

    def lend(self, share: float) -> None:
        """Let this share of the limit be used, because nobody answers."""
        self._share = share

    def alone(self, share: float, now: float) -> None:
        """Have this share of the limit from now on: 0, and nothing is let in; infinite, and everything."""
        self._share = share

    def rest(self, now: float) -> None:
        """Forget what was in force while nobody answered: whoever comes next asks again."""
        self.grant(0, now)

    def _of_share(self) -> float:
        share = self._share or 0.0
        return share if share == _NO_LIMIT else ceil(self.limit * share)
