"""How many lines of a job may be asked at one time. Pure; whoever asks brings the time.

It begins with a few and doubles, until something pushes back; from then on a little more after good answers
and a third less when it is pushed back (additive increase, multiplicative decrease). What providers say about
their rates is kept elsewhere, for everybody who asks them.
"""

from typing import Final

_FIRST: Final = 8
_SHARE: Final = 0.7
_CUT_EVERY_S: Final = 1.0
"""Lines that were under way together push back together: that is one sign and not many."""


class Pace:
    """The number of lines that may be asked at one time, at most `most`. `is_careful`: it begins with one."""

    __slots__ = ("_cut_at", "_good", "_is_first_time", "limit", "most", "why")

    def __init__(self, most: int, *, is_careful: bool = False) -> None:
        self.most = most
        self.limit = 1.0 if is_careful else float(min(_FIRST, most))
        self.why = "starting"
        """What limits it now, in a word: `starting`, `concurrency`, or what pushed back last."""
        self._is_first_time = True
        self._good = 0
        self._cut_at = float("-inf")

    def change(self, most: int) -> None:
        """Take another most."""
        self.most = most
        self.limit = min(self.limit, float(most))

    def was_good(self) -> None:
        """Take a good answer."""
        if self.limit >= self.most:
            self.why = "concurrency"
            return
        self._good += 1
        if self._is_first_time or self._good >= self.limit:
            self._good = 0
            self.limit = min(float(self.most), self.limit + 1)

    def pushed_back(self, in_flight: int, why: str, now: float) -> None:
        """Take a sign that it was too much; `in_flight` with the line that was pushed back."""
        self.why = why
        self._is_first_time = False
        if now - self._cut_at < _CUT_EVERY_S:
            return
        self._cut_at, self._good = now, 0
        self.limit = max(1.0, _SHARE * min(self.limit, in_flight))

    def narrowed(self, in_flight: int, why: str) -> None:
        """Take a sign that no more than is in flight now will do: what is left of a budget, say."""
        self.why = why
        self._is_first_time = False
        self._good = 0
        self.limit = max(1.0, min(self.limit, float(in_flight)))
