"""Whether it is of any use to go on: lines that only fail for a while are better parked. Pure."""

from typing import Final

from tiergate.batch.records import Halt, Pause

_BAD_FOR_S: Final = 30.0
"""So long nothing but failures, and a job is parked."""
_LONG_S: Final = 45.0
"""Somebody who wants to be left alone for longer is not waited for line by line."""
_FIRST_S: Final = 15.0
_MOST_S: Final = 300.0


class Weather:
    """What the last outcomes of a job's lines say."""

    __slots__ = ("_bad_since", "_last", "_parked", "_wait_s")

    def __init__(self) -> None:
        self._bad_since: float | None = None
        self._last = ("", "")
        self._wait_s = 0.0
        self._parked = 0
        """How often it was parked without a good answer in between."""

    @property
    def is_doubtful(self) -> bool:
        """Whether it was parked, and nobody has seen a good answer since."""
        return self._parked > 0

    @property
    def is_bad(self) -> bool:
        """Whether nobody has seen a good answer since the last failure that is no line's own."""
        return self._bad_since is not None or self._parked > 0

    def was_good(self) -> None:
        """Take a good answer."""
        self._bad_since = None
        self._parked = 0

    def was_bad(self, word: str, message: str, *, wait_s: float | None, now: float) -> None:
        """Take a failure that is no line's own; `wait_s`: what was said to wait."""
        if self._bad_since is None:
            self._bad_since = now
        self._last = (word, message)
        self._wait_s = wait_s or 0.0

    def pause(self, *, now: float, wall_ns: int) -> Pause | None:
        """Tell whether to stand still, and until when; None: go on.

        After a pause it is bad from the first failure on.
        """
        if self._bad_since is None:
            return None
        is_long = self._wait_s >= _LONG_S
        if not is_long and not self._parked and now - self._bad_since < _BAD_FOR_S:
            return None
        wait_s = max(self._wait_s, min(_MOST_S, _FIRST_S * 2**self._parked))
        self._parked += 1
        self._bad_since, self._wait_s = None, 0.0
        word, message = self._last
        return Pause(halt=Halt.PARKED, word=word, message=message, until_ns=wall_ns + int(wait_s * 1e9))
