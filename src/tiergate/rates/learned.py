"""A rate that nobody has set: what a provider's answers say is left of it. Pure, time is brought along.

An answer speaks of a moment between its question and itself. So what was taken since the question is taken as
not counted yet, less what has come back meanwhile; how much that can be, a bucket of what this process alone
has taken tells, for an answer may take a minute.
"""

from typing import Final

from tiergate.core import Allowance

WINDOW_S: Final = 60.0
"""The window of a rate that does not say when it is whole again, and of one whose speed is not known."""
_TELLING: Final = 0.1
"""So much of a rate must be used for its reset to tell its speed: resets are rounded to seconds."""
_NO_LIMIT: Final = float("inf")
_ROUNDING: Final = 1e-6


class LearnedRate:
    """What is left of one rate; as much as anybody wants, before anything was heard.

    Args:
        is_exact: what is taken is known and not estimated. Then no answer can say that more is left than what
            this process has taken leaves: what it sent before another question may arrive after it.
    """

    __slots__ = ("_at", "_is_exact", "_left", "_own", "_per_s", "_reset_s", "_whole_at", "limit")

    def __init__(self, *, is_exact: bool) -> None:
        self._is_exact = is_exact
        self.limit = _NO_LIMIT
        """Requests or tokens in a window; infinite: not known."""
        self._at = 0.0
        self._left = _NO_LIMIT
        self._own = _NO_LIMIT
        """What would be left if nobody else took anything."""
        self._per_s = 0.0
        """What comes back in a second; 0: nothing before all of it does."""
        self._reset_s = WINDOW_S
        self._whole_at = 0.0
        """All of it is there again at the latest then."""

    def hear(self, said: Allowance, *, taken: float, ago_s: float, now: float) -> None:
        """Take what an answer says; one that does not say what remains says nothing.

        Args:
            said: what it says.
            taken: what was taken since its question, which is `ago_s` old.
            ago_s: seconds.
            now: monotonic seconds.
        """
        if said.remaining is None:
            return
        self._fill(now)
        self._take_speed(said)
        remaining = min(said.remaining, self.limit)
        # What was taken before the first word is known from it alone.
        self._own = remaining if self._own == _NO_LIMIT else min(self._own, self.limit)
        left = max(0.0, remaining - self._uncounted(remaining, taken, ago_s))
        self._left = min(left, self._own) if self._is_exact else left
        self._whole_at = now + self._reset_s
        if self._per_s:
            self._whole_at += (remaining - self._left) / self._per_s

    def left(self, now: float) -> float:
        """Give what is left. Nothing is owed: a provider refuses what it has no room for."""
        self._fill(now)
        return self._left

    def wait_s(self, amount: float, now: float) -> float:
        """Give the time until so much is left; 0: now. More than the limit is there when all of it is."""
        self._fill(now)
        missing = min(amount, self.limit) - self._left
        if missing <= _ROUNDING:
            return 0.0
        whole_s = self._whole_at - now
        return min(whole_s, missing / self._per_s) if self._per_s else whole_s

    def take(self, amount: float, now: float) -> None:
        """Take so much, whatever is there."""
        self._fill(now)
        self._left = max(0.0, self._left - amount)
        self._own = max(0.0, self._own - amount)
        if self._per_s:
            self._whole_at = max(self._whole_at, now) + amount / self._per_s

    def give_back(self, amount: float) -> None:
        """Make good what was taken and never sent."""
        self._left = min(self.limit, self._left + amount)
        self._own = min(self.limit, self._own + amount)

    def _uncounted(self, remaining: float, taken: float, ago_s: float) -> float:
        """Give what of `taken` the provider may not have counted, and has not come back either."""
        if self.limit == _NO_LIMIT:
            return taken
        if not self._per_s:
            # What was taken in an earlier window is no matter of this one.
            return min(taken, self.limit - self._own)
        left = min(remaining - taken + self._per_s * ago_s, self._own)
        return max(0.0, min(taken, remaining - left))

    def _take_speed(self, said: Allowance) -> None:
        """Note how much there is in all, and how it comes back."""
        limit = _NO_LIMIT if said.limit is None else said.limit
        used = limit - (said.remaining or 0.0)
        if limit == _NO_LIMIT or said.comes_at_once:
            self._per_s = 0.0
        elif said.reset_s and used >= limit * _TELLING:
            self._per_s = used / said.reset_s
        elif not self._per_s or limit != self.limit:
            self._per_s = limit / WINDOW_S
        if limit != self.limit:
            # Of another limit, what was taken under the last one says nothing.
            self._own = _NO_LIMIT
        self.limit = limit
        self._reset_s = WINDOW_S if said.reset_s is None else said.reset_s

    def _fill(self, now: float) -> None:
        if now <= self._at:
            return
        come = (now - self._at) * self._per_s
        self._own = min(self.limit, self._own + come)
        if now < self._whole_at:
            self._left = min(self.limit, self._left + come)
        else:
            # Also where the speed was misjudged: it was said that all of it is there by now.
            self._left = self._own = self.limit
            if not self._per_s:
                self._whole_at = now + self._reset_s
        self._at = now
