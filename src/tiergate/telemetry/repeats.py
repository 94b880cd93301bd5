"""What would be said again and again is said now and then, with how often it was left out."""

from typing import Final

from tiergate.core import ADMIN, Event, Refusal, UsageDoubted

_SAID_EACH_NS: Final = 600 * 1_000_000_000
_KEPT_MAX: Final = 1_000
"""Callers choose model names, so what is remembered of targets is bounded."""


class Repeats:
    """Lets through one in ten minutes of the doubts about one target, and of the refusals at the admin plane.

    Whoever tries tokens there must not fill the log; the metrics count every one.
    """

    def __init__(self) -> None:
        self._said: dict[tuple[str, str], tuple[int, int]] = {}

    def left_out(self, event: Event, wall_ns: int) -> int | None:
        """Give how many of its kind were left out since the last one; None: leave this one out, too."""
        kind = _kind(event)
        if kind is None:
            return 0
        said_ns, count = self._said.get(kind, (None, 0))
        if said_ns is not None and 0 <= wall_ns - said_ns < _SAID_EACH_NS:
            self._said[kind] = (said_ns, count + 1)
            return None
        if len(self._said) >= _KEPT_MAX:
            self._said.clear()
        self._said[kind] = (wall_ns, 0)
        return count


def _kind(event: Event) -> tuple[str, str] | None:
    """Tell what an event repeats; None: it is always said."""
    match event:
        case UsageDoubted():
            return (event.target.name, event.doubt)
        case Refusal(endpoint=endpoint, code=code) if endpoint == ADMIN:
            return (endpoint, code)
        case _:
            return None
