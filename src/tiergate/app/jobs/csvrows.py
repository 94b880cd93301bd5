"""Records of a CSV file with a header, one by one, as the csv module reads them."""

import csv
import re
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from tiergate.app.jobs.lines import Line, split_lines
from tiergate.app.jobs.pieces import too_long
from tiergate.app.jobs.template import listed
from tiergate.core import CannotStart

_DELIMITERS: Final = (",", "\t", ";")
_QUOTED: Final = re.compile(r'"[^"]*"')


class Record(msgspec.Struct, frozen=True):
    """A record below the header."""

    place: str
    """The line that it begins at."""
    fields: dict[str, str]
    """Cells by column; none where it has a flaw."""
    flaw: str = ""
    """As of a `Piece`."""


def csv_records(chunks: Iterable[bytes], bytes_max: int, delimiter: str | None = None) -> Iterator[Record]:
    """Give the records that are not blank lines.

    Args:
        chunks: the file, without byte order mark.
        bytes_max: of one record.
        delimiter: None takes the one that the header has.

    Raises:
        CannotStart: it is not UTF-8, has no header, the header is wrong, or a quote is never closed.
    """
    # The limit is one of the whole process. A record is bounded where its lines are read.
    csv.field_size_limit(max(csv.field_size_limit(), bytes_max))
    lines = _Lines(split_lines(chunks, bytes_max), bytes_max)
    if delimiter is None:
        delimiter = _delimiter_of(lines.peek())
    cells_of = csv.reader(lines, delimiter=delimiter, strict=True)
    columns: list[str] | None = None
    while True:
        lines.begin()
        try:
            cells = next(cells_of)
        except StopIteration:
            return
        except (csv.Error, _TooLong) as error:
            flaw = _flaw_of(error, lines, bytes_max)
            if columns is None:
                raise CannotStart(f"The CSV header {flaw}") from error
            yield Record(lines.place, {}, flaw)
            continue
        if _blank(cells, columns):
            continue
        if columns is None:
            columns = _columns(cells)
        elif len(cells) != len(columns):
            yield Record(lines.place, {}, _ragged(len(cells), len(columns)))
        else:
            yield Record(lines.place, dict(zip(columns, cells, strict=True)))


def _blank(cells: list[str], columns: list[str] | None) -> bool:
    # Under a single column a cell of spaces, or an empty one in quotes, is a row.
    return not cells or (len(cells) == 1 and not cells[0].strip() and (columns is None or len(columns) > 1))


def _ragged(cells: int, columns: int) -> str:
    return (
        f"has another number of cells ({cells}) than the header ({columns}). Put quotes around a cell that "
        "has a delimiter or a line feed in it."
    )


class _TooLong(Exception):  # a step of reading, not an error that leaves this module
    """A record is too long; what is left of it was passed over."""


class _Lines:
    """Lines as text, counted from where a record begins."""

    def __init__(self, lines: Iterator[Line], bytes_max: int) -> None:
        self._lines = lines
        self._bytes_max = bytes_max
        self._peeked: Line | None = None
        self._size = 0
        self._quotes = 0
        self._begins_at: int | None = None
        self.ended = False

    @property
    def place(self) -> str:
        """Where the record begins."""
        return f"line {self._begins_at}"

    def peek(self) -> str:
        """Give the first line without taking it."""
        self._peeked = next(self._lines, None)
        data = None if self._peeked is None else self._peeked.data
        return (data or b"").decode("utf-8", "replace")

    def begin(self) -> None:
        """Let the next line be the first one of a record."""
        self._size = self._quotes = 0
        self._begins_at = None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._next()
        if line.data is None or self._size > self._bytes_max:
            self._pass_over()
            raise _TooLong
        try:
            return line.data.decode() + "\n"
        except UnicodeDecodeError as error:
            raise CannotStart(
                f"The CSV file is not UTF-8 at line {line.number}. Convert it: iconv -f WINDOWS-1252 -t "
                "UTF-8 for most files that Excel writes, or save it there as `CSV UTF-8`."
            ) from error

    def _next(self) -> Line:
        line, self._peeked = self._peeked or next(self._lines, None), None
        if line is None:
            self.ended = True
            raise StopIteration
        self._begins_at = self._begins_at or line.number
        data = line.data or b""
        self._size += len(data) + (self._size > 0)
        self._quotes += line.quotes + data.count(b'"')
        return line

    def _pass_over(self) -> None:
        # Quotes inside of quotes are doubled, so a record ends at the first line end after an even number.
        while self._quotes % 2 and not self.ended:
            try:
                self._next()
            except StopIteration:
                return


def _flaw_of(error: Exception, lines: _Lines, bytes_max: int) -> str:
    if lines.ended:
        raise CannotStart(
            f"In the CSV file the record at {lines.place} opens a quote that nothing closes, so all after it "
            "is lost. Close it; a quote inside of a quoted cell is doubled."
        ) from error
    if isinstance(error, _TooLong):
        return too_long(bytes_max)
    return f"is no CSV ({error}). Put quotes around the cell, and double those inside of it."


def _delimiter_of(header: str) -> str:
    bare = _QUOTED.sub("", header)
    return next((delimiter for delimiter in _DELIMITERS if delimiter in bare), ",")


def _columns(cells: list[str]) -> list[str]:
    columns = [cell.strip() or f"column_{place}" for place, cell in enumerate(cells, 1)]
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise CannotStart(
            f"The CSV header has columns of the same name: {listed(twice)}. Rename one of each."
        )
    return columns
