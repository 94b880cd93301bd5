"""Pieces of an input that is longer than memory: the bytes of one row each, up to a limit."""

from typing import Final

import msgspec

BLANK: Final = b" \t\r\n"
"""What JSON takes for white space."""


class Piece(msgspec.Struct, frozen=True):
    """What one row is made of."""

    place: str
    """Such as `line 17`."""
    data: bytes
    flaw: str = ""
    """Why it cannot be read, as the rest of a sentence that begins with the place."""


class Kept:
    """Bytes that come bit by bit and are forgotten, all but their number, once there are too many."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._parts: list[bytes] = []
        self.size = 0
        self.quotes = 0
        """How many double quotes were among those that are forgotten."""

    def add(self, data: bytes) -> None:
        """Take some more."""
        self.size += len(data)
        self._parts.append(data)
        if self.size > self._bytes_max:
            self.quotes += sum(part.count(b'"') for part in self._parts)
            self._parts.clear()

    def take(self) -> bytes | None:
        """Give what came, or None where it was too much; then begin anew."""
        data = b"".join(self._parts) if self.size <= self._bytes_max else None
        self._parts.clear()
        self.size = self.quotes = 0
        return data


def too_long(bytes_max: int) -> str:
    """Give the flaw of a piece of more bytes than are allowed."""
    return f"is longer than {bytes_max} bytes; split it, or leave some of it out."
