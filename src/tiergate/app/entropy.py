"""Random bytes from the operating system, fetched many at a time.

Each fetch is a system call in which other threads of this process run; whoever made it then waits until they
let it go on. A call needs ten bytes for its id.
"""

import os
from typing import Final

_AT_ONCE: Final = 4_096


class Entropy:
    """Gives so many random bytes, none of them twice. It belongs to one thread of one process."""

    __slots__ = ("_at", "_bytes")

    def __init__(self) -> None:
        self._bytes = b""
        self._at = 0

    def __call__(self, count: int) -> bytes:
        """Give `count` random bytes."""
        end = self._at + count
        if end > len(self._bytes):
            self._bytes, self._at, end = os.urandom(max(_AT_ONCE, count)), 0, count
        found = self._bytes[self._at : end]
        self._at = end
        return found
