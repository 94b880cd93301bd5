"""Bytes in bulk, made while they leave: nothing here is ever held whole, however much was asked for."""

from collections.abc import Iterator
from typing import Final

from tiergate.testing.steps import Pause, Step

PIECE_BYTES: Final = 64 << 10
_TURN_BYTES: Final = 1 << 20
_LINES: Final = 2_000
"""After so much, or so many lines, others get the loop: a client that reads fast never makes us wait."""

# Lines that a reader of events must pass over, of every line end, with NUL and a byte order mark in them. No
# CR stands before an LF of another line: the two would be one end.
_PASSED_OVER: Final = b": \0\r\r: \xef\xbb\xbf\n\nid: \0\r\n\r\nretry: 7\runknown\nevent\r\n"
_NO_HTTP: Final = bytes((place * 167 + 13) % 256 for place in range(PIECE_BYTES))


def blanks(size: int) -> Iterator[Step]:
    """Give so many spaces: white space before JSON, and before the data of an event."""
    return _repeated(b" " * PIECE_BYTES, size)


def flood(size: int) -> Iterator[Step]:
    """Give so many bytes of lines without data; the last one ends."""
    if size:
        yield from _repeated(_PASSED_OVER * (PIECE_BYTES // len(_PASSED_OVER)), size - 1)
        yield b"\n"


def garbage(size: int) -> Iterator[Step]:
    """Give so many bytes that are no HTTP."""
    return _repeated(_NO_HTTP, size)


def header_lines(*, size: int, count: int) -> Iterator[Step]:
    """Give a header of so many bytes, and so many headers."""
    if size:
        yield b"x-large: "
        yield from _repeated(b"a" * PIECE_BYTES, size)
        yield b"\r\n"
    for first in range(0, count, _LINES):
        lines = [b"x-many-%d: 1\r\n" % number for number in range(first, min(first + _LINES, count))]
        yield b"".join(lines)
        if len(lines) == _LINES:
            yield Pause(0.0)


def _repeated(block: bytes, size: int) -> Iterator[Step]:
    turn = 0
    while size > 0:
        piece = block[:size]
        yield piece
        size -= len(piece)
        turn += len(piece)
        if turn >= _TURN_BYTES:
            turn = 0
            yield Pause(0.0)
