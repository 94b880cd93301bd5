"""Elements of a JSON array, one by one, while it is being read: only one of them is held at a time.

Only strings and brackets are understood here, which is what finding the commas between elements needs.
Whether an element is JSON says whoever reads it.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final

from tiergate.app.jobs.pieces import BLANK, Kept, Piece, too_long

# What leads to the next mark, and the mark: each is the last byte of a match. A quote is one only where its
# string does not end in the same chunk, and a backslash only where it is the last byte of one.
_INSIDE: Final = rb'(?:[^"\\]++|\\.)*+'
_IN_STRING: Final = re.compile(_INSIDE + rb'["\\]', re.DOTALL)
_IN_ELEMENT: Final = re.compile(rb'(?:[^"\[\]{}]++|"%s")*+["\[\]{}]' % _INSIDE, re.DOTALL)
_BETWEEN: Final = re.compile(rb'(?:[^"\[\]{},]++|"%s")*+["\[\]{},]' % _INSIDE, re.DOTALL)

_CUT_OFF: Final = "is cut off: the input ends before its array does. Write the file anew, or end it with `]`."
_MORE: Final = "stands after the end of the array; put it inside, or write one object on each line instead."


def split_array(chunks: Iterable[bytes], bytes_max: int) -> Iterator[Piece]:
    """Give the elements of the array that `chunks` begin with, without the white space around them.

    A comma after the last one is no fault. What follows the array, and an array without end, is a last piece
    with a flaw.
    """
    array = _Array(bytes_max)
    for chunk in chunks:
        yield from array.read(chunk)
    yield from array.end()


class _Array:
    """How far an array has been read."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._element = Kept(bytes_max)
        self._count = 0
        self._depth = 0
        """0 before and after the array, 1 between its elements."""
        self._in_string = False
        self._escaped = False
        self._closed = False
        self._more = False

    def read(self, chunk: bytes) -> Iterator[Piece]:
        """Give the elements that end in this chunk."""
        begin = at = 0
        while not self._closed:
            if self._escaped and at < len(chunk):
                self._escaped = False
                at += 1
            found = self._way().match(chunk, at)
            if found is None:
                break
            at = found.end()
            if self._depth == 0:
                begin = at
            if self._passes(chunk[at - 1 : at]):
                self._element.add(chunk[begin : at - 1])
                yield from self._ended()
                begin = at
        if self._closed:
            self._more = self._more or bool(chunk[at:].strip(BLANK))
        elif self._depth:
            self._element.add(chunk[begin:])

    def end(self) -> Iterator[Piece]:
        """Give what is to be said of an array that did not end, or of what came after it."""
        if not self._closed:
            yield Piece(f"element {self._count + 1}", b"", _CUT_OFF)
        elif self._more:
            yield Piece("what", b"", _MORE)

    def _way(self) -> re.Pattern[bytes]:
        if self._in_string:
            return _IN_STRING
        return _BETWEEN if self._depth <= 1 else _IN_ELEMENT

    def _passes(self, mark: bytes) -> bool:
        """Go past a mark; tell whether an element ended there."""
        if self._in_string:
            self._escaped = mark == b"\\"
            self._in_string = self._escaped
        elif mark == b'"':
            self._in_string = True
        elif mark in b"[{":
            self._depth += 1
        elif mark in b"]}":
            self._depth -= 1
            self._closed = self._depth == 0
            return self._closed
        else:
            return True
        return False

    def _ended(self) -> Iterator[Piece]:
        data = self._element.take()
        place = f"element {self._count + 1}"
        if data is None:
            yield Piece(place, b"", too_long(self._bytes_max))
        elif data := data.strip(BLANK):
            yield Piece(place, data)
        elif not self._closed:
            yield Piece(place, b"", "is empty: there are two commas with nothing between. Take one away.")
        else:
            return
        self._count += 1
