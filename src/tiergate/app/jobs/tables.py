"""Tables written to a file, as JSON lines or CSV; the file is there whole or not at all."""

import csv
import gzip
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

from tiergate.core import CannotStart
from tiergate.wire import dumps


class Writable(Protocol):
    """A file of bytes that is being written."""

    def write(self, data: bytes, /) -> int:
        """Take bytes; give their number."""


def write_table(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write rows as CSV where the path ends in `.csv` or `.tsv`, else as JSON lines; give their number.

    A further `.gz` compresses. CSV has the columns of the first row; what later rows have besides is left
    out.

    Raises:
        CannotStart: it cannot be written. What was there before is left as it was, as after any other error.
    """
    ending = Path(path.name.removesuffix(".gz")).suffix.lower()
    with replacing(path) as file:
        if ending in (".csv", ".tsv"):
            return _write_csv(file, rows, "\t" if ending == ".tsv" else ",")
        return _write_lines(file, rows)


def check_place(path: Path) -> None:
    """See that a file can be written, before anything is paid for that goes there.

    Raises:
        CannotStart: it cannot.
    """
    target = Path(os.path.realpath(path))
    _check_is_file(path, target)
    if not target.parent.is_dir() or not os.access(target.parent, os.W_OK | os.X_OK):
        raise CannotStart(f"{path} cannot be written: its folder is not there, or is not yours to write to.")


def _check_is_file(path: Path, target: Path) -> None:
    if target.exists() and not target.is_file():
        raise CannotStart(f"{path} is no file that could be written. Name a file.")


@contextmanager
def replacing(path: Path) -> Iterator[Writable]:
    """Give a file that takes the place of another one, or of none, once it is written.

    It is compressed if its name ends in `.gz`, and on disk before it has the name. After an error nothing
    has changed.

    Raises:
        CannotStart: it cannot be written, or the path is no file.
    """
    target = Path(os.path.realpath(path))  # what a link points to is replaced, not the link
    beside = target.with_name(f".{target.name[:200]}.{os.getpid()}.tmp")
    try:
        _check_is_file(path, target)
        with beside.open("wb") as file:
            if target.suffix == ".gz":
                with gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as zipped:
                    yield zipped
            else:
                yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(target)
        _sync_folder(target.parent)
    except OSError as error:
        raise CannotStart(f"{path} cannot be written: {error.strerror or error}.") from error
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def take_away(path: Path) -> None:
    """Delete a file, if it is there.

    Raises:
        CannotStart: it cannot be deleted.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise CannotStart(f"{path} cannot be deleted: {error.strerror or error}.") from error


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_lines(file: Writable, rows: Iterable[Mapping[str, Any]]) -> int:
    count = 0
    for row in rows:
        file.write(dumps(row) + b"\n")
        count += 1
    return count


def _write_csv(file: Writable, rows: Iterable[Mapping[str, Any]], delimiter: str) -> int:
    count = 0
    columns: list[str] = []
    # Line ends are CR LF: with these the module quotes a cell that has either of them in every Python.
    writer = csv.writer(_Utf8(file), delimiter=delimiter)
    for row in rows:
        if not count:
            columns = list(row)
            writer.writerow(columns)
        writer.writerow([_cell(row.get(name)) for name in columns])
        count += 1
    return count


class _Utf8:
    """A file of text, as the csv module wants it."""

    def __init__(self, file: Writable) -> None:
        self._file = file

    def write(self, text: str) -> int:
        """Take a record."""
        return self._file.write(text.encode())


def _cell(value: Any) -> str:
    """Write a cell: nothing for None, money without an exponent, what is no text as JSON."""
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:f}" if isinstance(value, Decimal) else dumps(value).decode()
