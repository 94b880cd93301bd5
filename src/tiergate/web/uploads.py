"""Uploads as browsers and clients send them: the parts of a multipart form, as they come."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from tiergate.core import InvalidRequest

_FIELD_BYTES_MAX: Final = 4_096
_FIELDS_MAX: Final = 20
_WRITTEN_AT_ONCE: Final = 1 << 20
_NAME_CHARS: Final = 255


@dataclass(slots=True)
class Upload:
    """What came beside the file, and what its sender calls it."""

    fields: dict[str, str] = field(default_factory=dict)
    name: str | None = None
    """None: there was no file."""
    bytes: int = 0


@dataclass(slots=True)
class _Part:
    """The part that is being read."""

    header: bytearray = field(default_factory=bytearray)
    value: bytearray = field(default_factory=bytearray)
    headers: dict[str, str] = field(default_factory=dict)
    data: bytearray = field(default_factory=bytearray)
    name: str = ""
    is_file: bool = False


class FormReader:
    """Reads a form with one file in it.

    Args:
        content_type: of the request.
        write: takes the file, a piece at a time.

    Raises:
        InvalidRequest: it is no such form.
    """

    def __init__(self, content_type: str, write: Callable[[bytes], Awaitable[None]]) -> None:
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if kind != b"multipart/form-data" or not boundary:
            raise InvalidRequest("Send the file as a form: `Content-Type: multipart/form-data; boundary=…`.")
        self._write = write
        self._upload = Upload()
        self._part = _Part()
        self._waiting = bytearray()
        self._fields = 0
        self._is_over = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": self._on_header_field,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers,
                    "on_part_data": self._on_data,
                    "on_part_end": self._end,
                    "on_end": self._on_end,
                },
            )
        except FormParserError as error:
            raise InvalidRequest("The form's boundary cannot be one.") from error

    async def read(self, pieces: AsyncIterator[bytes]) -> Upload:
        """Read all of it.

        Raises:
            InvalidRequest: it is malformed, or has too much beside its file.
        """
        async for piece in pieces:
            try:
                self._parser.write(piece)
            except FormParserError as error:
                raise InvalidRequest("The form is malformed; most clients make one by themselves.") from error
            if len(self._waiting) >= _WRITTEN_AT_ONCE:
                await self._flush()
        if not self._is_over:
            raise InvalidRequest("The form ends before its last boundary.")
        await self._flush()
        return self._upload

    async def _flush(self) -> None:
        data, self._waiting = bytes(self._waiting), bytearray()
        self._upload.bytes += len(data)
        if data:
            await self._write(data)

    # What the parser tells.

    def _begin(self) -> None:
        self._part = _Part()

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._part.header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._part.value += data[start:end]

    def _on_header_end(self) -> None:
        part = self._part
        # Not yet as UTF-8: what reads the parts of a header knows only characters that are bytes.
        part.headers[part.header.decode("latin-1").lower()] = part.value.decode("latin-1")
        part.header.clear()
        part.value.clear()

    def _on_headers(self) -> None:
        part = self._part
        kind, options = parse_options_header(part.headers.get("content-disposition", ""))
        name = options.get(b"name")
        if kind != b"form-data" or name is None:
            raise InvalidRequest("Each part of the form needs a name.")
        part.name = name.decode("utf-8", "replace")
        filename = options.get(b"filename")
        part.is_file = filename is not None
        if filename is not None:
            if part.name != "file" or self._upload.name is not None:
                raise InvalidRequest("Send one file, in the part `file`.", param="file")
            self._upload.name = _shown(filename.decode("utf-8", "replace"))
            return
        self._fields += 1
        if self._fields > _FIELDS_MAX:
            raise InvalidRequest(f"The form has more than {_FIELDS_MAX} fields.")

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        part = self._part
        if part.is_file:
            self._waiting += data[start:end]
            return
        part.data += data[start:end]
        if len(part.data) > _FIELD_BYTES_MAX:
            raise InvalidRequest(f"`{part.name[:50]}` is longer than {_FIELD_BYTES_MAX} bytes.")

    def _end(self) -> None:
        part = self._part
        if not part.is_file:
            self._upload.fields[part.name] = part.data.decode("utf-8", "replace")

    def _on_end(self) -> None:
        self._is_over = True


def _shown(name: str) -> str:
    """Give a file's name for people: its last part, without what cannot be printed. It is never a path."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return "".join(one if one.isprintable() else "_" for one in last)[:_NAME_CHARS] or "file"
