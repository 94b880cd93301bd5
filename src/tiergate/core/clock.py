"""Time and identity as arguments: a clock port and time-ordered ids."""

import time
from functools import lru_cache
from typing import Final, Protocol

_CROCKFORD: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS: Final = tuple(high + low for high in _CROCKFORD for low in _CROCKFORD)


class Clock(Protocol):
    """Where time comes from. Rooms that decide receive it, so tests hold time in their hand."""

    def wall_ns(self) -> int:
        """Nanoseconds since 1970 in UTC; may jump; for records only."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back; for durations and deadlines."""
        ...


class SystemClock:
    """The machine's own clock."""

    def wall_ns(self) -> int:
        """Nanoseconds since 1970 in UTC."""
        return time.time_ns()

    def monotonic(self) -> float:
        """Seconds of the monotonic clock, the same that asyncio's loop uses."""
        return time.monotonic()


def new_id(wall_ns: int, randomness: bytes) -> str:
    """Make a 26-character id that sorts by time: 50 bits of milliseconds, 80 bits of randomness.

    Args:
        wall_ns: now, nanoseconds since 1970.
        randomness: 10 bytes.

    Crockford's base 32 in lower case, as in the ULID specification.
    """
    assert len(randomness) == 10
    return _millisecond(wall_ns // 1_000_000) + _written(int.from_bytes(randomness, "big"), 8)


def id_time_ns(identity: str) -> int:
    """Give the time that an id of `new_id` was made at, in nanoseconds since 1970, whole milliseconds.

    >>> id_time_ns(new_id(1_767_225_600_123_456_789, bytes(10)))
    1767225600123000000
    """
    milliseconds = 0
    for character in identity[:10]:
        milliseconds = milliseconds * 32 + _CROCKFORD.index(character)
    return milliseconds * 1_000_000


@lru_cache(maxsize=8)
def _millisecond(number: int) -> str:
    return _written(number, 5)


def _written(number: int, pairs: int) -> str:
    return "".join([_PAIRS[(number >> shift) & 1023] for shift in range(10 * pairs - 10, -1, -10)])
