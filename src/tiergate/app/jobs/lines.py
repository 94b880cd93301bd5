"""Lines of an input, one by one; a line that is too long is passed over without being held."""

from collections.abc import Iterable, Iterator

import msgspec

from tiergate.app.jobs.pieces import BLANK, Kept, Piece, too_long


class Line(msgspec.Struct, frozen=True):
    """A line without its line feed."""

    number: int
    """From 1."""
    data: bytes | None
    """None: it is too long."""
    quotes: int = 0
    """How many double quotes a line has that is too long."""


def split_lines(chunks: Iterable[bytes], bytes_max: int) -> Iterator[Line]:
    """Give the lines of what comes in chunks, also the last one where no line feed ends it."""
    begun = Kept(bytes_max)
    number = 0
    for chunk in chunks:
        *whole, rest = chunk.split(b"\n")
        for data in whole:
            number += 1
            begun.add(data)
            quotes = begun.quotes
            yield Line(number, begun.take(), quotes)
        begun.add(rest)
    if begun.size:
        quotes = begun.quotes
        yield Line(number + 1, begun.take(), quotes)


def line_pieces(chunks: Iterable[bytes], bytes_max: int) -> Iterator[Piece]:
    """Give the lines that are not blank."""
    for line in split_lines(chunks, bytes_max):
        place = f"line {line.number}"
        if line.data is None:
            yield Piece(place, b"", too_long(bytes_max))
        elif data := line.data.strip(BLANK):
            yield Piece(place, data)
