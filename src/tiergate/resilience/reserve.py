"""Places that batch leaves free for interactive calls, as many as those have lately had at one time. Pure.

A place that a batch call has taken is taken until its answer is complete, which may be a minute; whoever is
in a hurry then waits in front of a full server. Where nobody interactive has come for a while, nothing is
kept free.
"""

from typing import Final

_SPAN_S: Final = 30.0
"""The most of this span and the one before counts."""
_SHARE_MAX: Final = 0.5
"""However many interactive calls there were, batch has the other part."""


class Reserve:
    """What interactive calls at one provider have needed; whoever asks brings the time."""

    __slots__ = ("_before", "_most", "_since", "in_flight")

    def __init__(self) -> None:
        self.in_flight = 0
        """Interactive attempts now."""
        self._since = 0.0
        self._most = 0
        self._before = 0

    def enter(self, now: float) -> None:
        """Take an interactive attempt that begins."""
        self.in_flight += 1
        self._turn(now)
        self._most = max(self._most, self.in_flight)

    def leave(self) -> None:
        """Take one that has ended."""
        self.in_flight -= 1

    def places(self, limit: int, now: float) -> int:
        """Give how many of `limit` places batch leaves free now, beside those that are taken."""
        self._turn(now)
        most = min(max(self._most, self._before), int(limit * _SHARE_MAX))
        return max(0, most - self.in_flight)

    def turns_in_s(self, now: float) -> float:
        """Give when fewer places may be left free, without any event."""
        self._turn(now)
        return self._since + _SPAN_S - now

    def _turn(self, now: float) -> None:
        spans = int((now - self._since) / _SPAN_S)
        if spans:
            self._before = self._most if spans == 1 else self.in_flight
            self._most = self.in_flight
            self._since += spans * _SPAN_S
