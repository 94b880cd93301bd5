"""Server-sent events, read from bytes that may be cut anywhere, in linear time.

Follows the event stream format of the WHATWG HTML standard (section 9.2): lines end with LF, CR or CRLF, a
leading byte order mark is skipped, comments are ignored, the data lines of an event are joined with LF, an
event without data is no event, and one that the end of the stream cuts off is dropped.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from tiergate.core import UpstreamProtocolError

EVENT_BYTES_MAX: Final = 1 << 20
"""Default bound of one event: 1 MiB."""

_BOM: Final = b"\xef\xbb\xbf"
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")


class ServerSentEvent(msgspec.Struct, frozen=True, gc=False):
    """One event; `name` is empty for the default type."""

    data: bytes
    name: bytes = b""


class SseParser:
    """Turns pieces of bytes into events; holds at most one unfinished event."""

    def __init__(self, *, event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        self._event_bytes_max = event_bytes_max
        self._rest = bytearray()
        """The unfinished line. It grows in place, so many small pieces cost no more than a large one."""
        self._data = bytearray()
        """The data lines of the unfinished event, each with its LF."""
        self._name = b""
        self._started = False
        self._after_cr = False

    def feed(self, piece: bytes) -> Iterable[ServerSentEvent]:
        """Take the next bytes and give the events that they complete, in order.

        The events are read while they are taken: take them all before the next piece.

        Raises:
            UpstreamProtocolError: an event is larger than the bound; those before it were given.
        """
        if (
            self._started
            and not self._rest
            and not self._data
            and not self._name
            and not self._after_cr
            and (events := _whole_events(piece, self._event_bytes_max)) is not None
        ):
            return events
        return self._feed_lines(piece)

    def _feed_lines(self, piece: bytes) -> Iterator[ServerSentEvent]:
        if not self._started and not (piece := self._without_bom(piece)):
            return
        if self._after_cr and piece:
            self._after_cr = False
            piece = piece.removeprefix(b"\n")
        lines = _LINE_END.split(piece)
        if piece.endswith(b"\r"):
            self._after_cr = True
        for line in lines[:-1]:
            if self._rest:
                self._rest += line
                line = bytes(self._rest)  # noqa: PLW2901 - the line's beginning came earlier
                self._rest.clear()
            if (event := self._line(line)) is not None:
                yield event
        if lines[-1]:
            self._rest += lines[-1]
            self._check_size(len(self._rest))

    def _without_bom(self, piece: bytes) -> bytes:
        start = bytes(self._rest) + piece
        self._rest.clear()
        if len(start) < len(_BOM) and _BOM.startswith(start):
            self._rest += start
            return b""
        self._started = True
        return start.removeprefix(_BOM)

    def _line(self, line: bytes) -> ServerSentEvent | None:
        if not line:
            event = ServerSentEvent(bytes(self._data[:-1]), self._name) if self._data else None
            self._data.clear()
            self._name = b""
            return event
        self._check_size(len(line))
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data += value
            self._data += b"\n"
        elif field == b"event":
            self._name = value
        return None

    def _check_size(self, line_size: int) -> None:
        # A line counts with all its bytes, whether it has arrived whole or not: so no cut changes the bound.
        if len(self._data) + line_size > self._event_bytes_max:
            raise UpstreamProtocolError(
                f"The upstream sent an event of more than {self._event_bytes_max} bytes."
            )


def write_event(data: bytes) -> bytes:
    """Write one event; `data` has no line breaks."""
    return b"data: " + data + b"\n\n"


def _whole_events(piece: bytes, event_bytes_max: int) -> list[ServerSentEvent] | None:
    """Read a piece that holds whole events of the commonest shape, `data: …` LF LF; None: any other shape."""
    if not (piece.startswith(b"data: ") and piece.endswith(b"\n\n")) or b"\r" in piece:
        return None
    if piece.find(b"\n") == len(piece) - 2 <= event_bytes_max:
        return [ServerSentEvent(piece[6:-2])]
    events = []
    for block in piece[:-2].split(b"\n\n"):
        if not block.startswith(b"data: ") or b"\n" in block or len(block) > event_bytes_max:
            return None
        events.append(ServerSentEvent(block[6:]))
    return events
