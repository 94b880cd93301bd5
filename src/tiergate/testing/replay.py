"""Replies that would come out the same again, kept as bytes.

In a benchmark the mock is asked the same thing a hundred thousand times and must not be what is measured.
So where nothing in a script depends on chance, on the number of a request or on time, the bytes of a reply
are kept under the bytes of its request, and only its number is written anew. They are kept until the second
is over: replies carry the date. Everything is logged and counted as ever.
"""

from typing import Final

from tiergate.core import Clock
from tiergate.testing.log import LogEntry

_REQUEST_BYTES_MAX: Final = 16 << 10
_REPLY_BYTES_MAX: Final = 256 << 10
_KEPT_MAX: Final = 256


class Replays:
    """Replies of the present second, by the bytes of their requests."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._second = -1
        self._kept: dict[bytes, tuple[LogEntry, list[bytes]]] = {}

    def keep(self, request: bytes, entry: LogEntry, reply: bytes) -> None:
        """Keep a reply that was sent whole."""
        small = len(request) <= _REQUEST_BYTES_MAX and len(reply) <= _REPLY_BYTES_MAX
        if small and len(self._kept) < _KEPT_MAX:
            self._kept[request] = entry, reply.split(in_ids(entry.number).encode())

    def find(self, request: bytes) -> tuple[LogEntry, list[bytes]] | None:
        """Give the entry of the same request a moment ago, and its reply cut where its number stood."""
        second = self._clock.wall_ns() // 1_000_000_000
        if second != self._second:
            self._second = second
            self._kept.clear()
        return self._kept.get(request)


def in_ids(number: int) -> str:
    """Write a request's number as it stands in the ids of its reply: always of the same length."""
    return f"{number:012d}"
