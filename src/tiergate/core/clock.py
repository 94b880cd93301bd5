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
    """The machine's own clock; `monotonic` is the one that asyncio's loop uses."""

    # The functions themselves: a call asks a dozen times, and one around them would cost more than they do.
    wall_ns = staticmethod(time.time_ns)
    monotonic = staticmethod(time.monotonic)


def new_id(wall_ns: int, randomness: bytes) -> str:
    """Make a 26-character id that sorts by time: 50 bits of milliseconds, 80 bits of randomness.

    Args:
        wall_ns: now, nanoseconds since 1970.
        randomness: 10 bytes.

    Crockford's base 32 in lower case, as in the ULID specification.
    """
    assert len(randomness) == 10
    number = int.from_bytes(randomness, "big")
    return f"{_millisecond(wall_ns // 1_000_000)}{_forty_bits(number >> 40)}{_forty_bits(number)}"


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
    return f"{_PAIRS[number >> 40]}{_forty_bits(number)}"


def _forty_bits(number: int) -> str:
    return (
        f"{_PAIRS[number >> 30 & 1023]}{_PAIRS[number >> 20 & 1023]}"
        f"{_PAIRS[number >> 10 & 1023]}{_PAIRS[number & 1023]}"
    )
