"""How much a target can do at one time, learned from what it says. Pure; whoever asks brings the time.

A little more after good answers, a tenth less when it pushes back (additive increase, multiplicative
decrease). Nothing is held back before a target pushes back for the first time, and after a while without it.
"""

from typing import Final

_SHARE: Final = 0.9
_CUT_EVERY_S: Final = 1.0
"""Answers that were under way together push back together: that is one sign and not many."""
_FORGET_S: Final = 300.0


class Adaptive:
    """The learned limit of one target."""

    __slots__ = ("_cut_at", "_good", "limit")

    def __init__(self) -> None:
        self.limit: float | None = None
        """Attempts in flight at one time; None: as many as there are."""
        self._cut_at = 0.0
        self._good = 0

    def has_room(self, in_flight: int, now: float) -> bool:
        """Tell whether one more may go there, beside so many."""
        if self.limit is None:
            return True
        if now - self._cut_at >= _FORGET_S:
            self.limit = None
            return True
        return in_flight + 1 <= max(1.0, self.limit)

    def forgotten_in_s(self, now: float) -> float:
        """Give the time until the limit is forgotten, if the target does not push back any more."""
        return max(0.0, self._cut_at + _FORGET_S - now)

    def was_good(self, in_flight: int) -> None:
        """Take a good answer; `in_flight` with it. Nobody learns from a target that has little to do."""
        if self.limit is None or in_flight < self.limit / 2:
            return
        self._good += 1
        if self._good >= self.limit:
            self._good = 0
            self.limit += 1

    def pushed_back(self, in_flight: int, now: float) -> None:
        """Take a sign that it was too much; `in_flight` with the attempt that was pushed back."""
        if self.limit is not None and now - self._cut_at < _CUT_EVERY_S:
            return
        self._cut_at = now
        self._good = 0
        self.limit = max(1.0, _SHARE * (in_flight if self.limit is None else min(self.limit, in_flight)))
