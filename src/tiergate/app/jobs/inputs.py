"""Input files of any form as lines of OpenAI's batch format, read lazily: memory does not grow with them."""

import gzip
import zlib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from tiergate.app.jobs.arrays import split_array
from tiergate.app.jobs.csvrows import csv_records
from tiergate.app.jobs.lines import line_pieces
from tiergate.app.jobs.pieces import BLANK, Piece
from tiergate.app.jobs.rows import InputRow, RowMaker
from tiergate.app.jobs.template import read_template
from tiergate.app.jobs.wishes import Form, Wish
from tiergate.core import CannotStart, InvalidRequest
from tiergate.wire import loads, read_object

CHUNK_BYTES: Final = 64 * 1024


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


@contextmanager
def open_input(source: Path | BinaryIO, *, wish: Wish) -> Iterator[Iterator[InputRow]]:
    """Open an input and give its rows as they are read.

    Args:
        source: a file, which is decompressed if its name ends in `.gz`, or a stream such as standard input,
            which stays open.
        wish: how it is read, and what its questions get.

    Raises:
        CannotStart: nothing can be made of it; on opening where that shows at once, else on reading.
    """
    name = str(source) if isinstance(source, Path) else "Standard input"
    with _opened(source, name) if isinstance(source, Path) else nullcontext(source) as stream:
        rows = _rows(_chunks(stream, name), name, wish)
        # The first row shows whether anything can be made of the input.
        first = next(rows, None)
        if first is None:
            raise CannotStart(f"{name} has no rows, so there is nothing to ask.")
        yield chain((first,), rows)


def _rows(chunks: Iterator[bytes], name: str, wish: Wish) -> Iterator[InputRow]:
    template = None if wish.prompt is None else read_template(wish.prompt)
    head = next(chunks, b"").removeprefix(b"\xef\xbb\xbf")
    _refuse(head, name, wish)
    form = _form(head, name, wish)
    maker = RowMaker(wish, template)
    whole = chain((head,), chunks)
    if form is Form.CSV:
        return _of_csv(whole, name, wish, maker)
    if form is Form.ARRAY:
        return _of_pieces(split_array(whole, wish.line_bytes_max), maker, is_text=False)
    return _of_pieces(line_pieces(whole, wish.line_bytes_max), maker, is_text=form is Form.TEXT)


def _form(head: bytes, name: str, wish: Wish) -> Form:
    """Tell how the input is divided into rows: as an array, as CSV, as text, or as lines of objects."""
    begin = head.lstrip(BLANK)[:1]
    form = wish.form
    if form is None and (_ending(name) in (".csv", ".tsv") or (wish.prompt and begin not in (b"{", b"["))):
        form = Form.CSV
    if form is Form.CSV and wish.prompt is None:
        raise CannotStart(
            f"{name} is CSV, and nothing says what to ask of a row. Give a template with names of columns in "
            "braces, such as --prompt 'Translate: {text}'."
        )
    if form in (Form.CSV, Form.TEXT) or not begin:
        return form or Form.PROMPTS
    if begin == b"[":
        return Form.ARRAY
    if begin != b"{" or form is Form.ARRAY:
        raise CannotStart(f"{name} {_unlike(form)}")
    return Form.PROMPTS


def _refuse(head: bytes, name: str, wish: Wish) -> None:
    """Refuse what has no rows in any form, and a wish that contradicts itself."""
    if wish.prompt is not None and wish.form in (Form.BATCH, Form.MESSAGES):
        raise CannotStart(
            f"A prompt template makes no sense with the form `{wish.form}`, whose rows have their questions. "
            "Leave one of them out."
        )
    if head[:2] == b"\x1f\x8b":
        raise CannotStart(f"{name} is compressed. Give its name the ending .gz, or send it through gunzip.")
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise CannotStart(f"{name} is UTF-16. Convert it: iconv -f UTF-16 -t UTF-8.")


def _unlike(form: Form | None) -> str:
    """Say what the beginning of an input is not, and what to do."""
    if form is Form.ARRAY:
        return "does not begin with `[`, so it is no JSON array. Leave the form out to have it recognised."
    if form is not None:
        return f"does not begin with an object, as lines of the form `{form}` do."
    return (
        "begins with neither `{` nor `[`, so it is not JSON. Say what it is: --form csv for columns under a "
        "header, --form text where each line is a prompt."
    )


def _of_csv(chunks: Iterable[bytes], name: str, wish: Wish, maker: RowMaker) -> Iterator[InputRow]:
    delimiter = "\t" if _ending(name) == ".tsv" else None
    for n, record in enumerate(csv_records(chunks, wish.line_bytes_max, delimiter), 1):
        if record.flaw:
            yield maker.bad_row(n, record.place, record.flaw)
        else:
            yield maker.row(n, record.place, record.fields)


def _of_pieces(pieces: Iterable[Piece], maker: RowMaker, *, is_text: bool) -> Iterator[InputRow]:
    for n, piece in enumerate(pieces, 1):
        if piece.flaw:
            yield maker.bad_row(n, piece.place, piece.flaw)
            continue
        if n == 1 and piece.data == b"{" and not is_text:
            raise CannotStart(
                "The input spreads an object over several lines. Write each object on a line of its own, or "
                "all of them as one JSON array."
            )
        try:
            fields = _fields_of(piece.data, is_text=is_text)
        except ValueError as error:
            yield maker.bad_row(n, piece.place, str(error))
        else:
            yield maker.row(n, piece.place, fields)


def _fields_of(data: bytes, *, is_text: bool) -> dict[str, object]:
    """Read the fields of a row.

    Raises:
        ValueError: there are none; its text is a flaw as of a `Piece`.
    """
    if is_text:
        try:
            return {"prompt": data.decode()}
        except UnicodeDecodeError:
            raise ValueError("holds bytes that are not UTF-8; convert it with iconv.") from None
    try:
        if data.startswith(b'"'):
            return {"prompt": loads(data)}
        return read_object(data)
    except InvalidRequest as error:
        # Its sentences are about the body of a request, or about a key in it.
        said = str(error)
        flaw = said.removeprefix("The body ")
        raise ValueError(flaw if flaw != said else f"cannot be taken: {said}") from None
    except ValueError:
        raise ValueError(
            "is no JSON text; look at its quotes and backslashes, and for a comma missing after it."
        ) from None


def _ending(name: str) -> str:
    return Path(name.removesuffix(".gz")).suffix.lower()


def _opened(path: Path, name: str) -> AbstractContextManager[_Readable]:
    with _translated(name):
        return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")


def _chunks(stream: _Readable, name: str) -> Iterator[bytes]:
    while True:
        with _translated(name):
            chunk = stream.read(CHUNK_BYTES)
        if not chunk:
            return
        yield chunk


@contextmanager
def _translated(name: str) -> Iterator[None]:
    """Let the errors of files be ours."""
    try:
        yield
    except FileNotFoundError as error:
        raise CannotStart(f"There is no file {name}.") from error
    except IsADirectoryError as error:
        raise CannotStart(f"{name} is a folder. Name one file.") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CannotStart(f"{name} is no whole gzip file; look at it with gzip -t.") from error
    except OSError as error:
        raise CannotStart(f"{name} cannot be read: {error.strerror or error}.") from error
