"""Server-sent events, read from bytes that may be cut anywhere, in linear time.

Follows the event stream format of the WHATWG HTML standard (section 9.2): lines end with LF, CR or CRLF, a
leading byte order mark is skipped, comments are ignored, the data lines of an event are joined with LF, an
event without data is no event, and one that the end of the stream cuts off is dropped.
"""

import re
from collections.abc import Callable
from typing import Final, NamedTuple

from tiergate.core import UpstreamProtocolError

EVENT_BYTES_MAX: Final = 1 << 20
"""Default bound of one event: 1 MiB."""

_BOM: Final = b"\xef\xbb\xbf"
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")


class ServerSentEvent(NamedTuple):
    """One event; `name` is empty for the default type."""

    data: bytes
    name: bytes = b""


class SseParser:
    """Turns pieces of bytes into events; holds at most one unfinished event."""

    def __init__(self, *, event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        self._event_bytes_max = event_bytes_max
        self._rest: list[bytes] = []
        """The unfinished line, in the pieces that it arrived in: joined once, so many pieces cost no more."""
        self._rest_size = 0
        self._data: list[bytes] = []
        self._data_size = 0
        self._name = b""
        self._started = False
        self._after_cr = False

    def feed(self, piece: bytes) -> list[ServerSentEvent]:
        """Take the next bytes and give the events that they complete, in order.

        Raises:
            UpstreamProtocolError: an event is larger than the bound.
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

    def _feed_lines(self, piece: bytes) -> list[ServerSentEvent]:
        if not self._started and not (piece := self._without_bom(piece)):
            return []
        if self._after_cr and piece:
            self._after_cr = False
            piece = piece.removeprefix(b"\n")
        lines = _LINE_END.split(piece)
        if piece.endswith(b"\r"):
            self._after_cr = True
        events: list[ServerSentEvent] = []
        for line in lines[:-1]:
            if self._rest:
                line = b"".join((*self._rest, line))  # noqa: PLW2901 - the line's beginning came earlier
                self._rest.clear()
                self._rest_size = 0
            self._line(line, events.append)
        if lines[-1]:
            self._rest.append(lines[-1])
            self._rest_size += len(lines[-1])
        self._check_size()
        return events

    def _without_bom(self, piece: bytes) -> bytes:
        start = b"".join((*self._rest, piece))
        if len(start) < len(_BOM) and _BOM.startswith(start):
            self._rest = [start] if start else []
            return b""
        self._started = True
        self._rest.clear()
        return start.removeprefix(_BOM)

    def _line(self, line: bytes, emit: Callable[[ServerSentEvent], None]) -> None:
        if not line:
            if self._data:
                emit(ServerSentEvent(b"\n".join(self._data), self._name))
            self._data.clear()
            self._data_size = 0
            self._name = b""
            return
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
            self._data_size += len(value) + 1
            self._check_size()
        elif field == b"event":
            self._name = value

    def _check_size(self) -> None:
        if self._data_size + self._rest_size > self._event_bytes_max:
            raise _too_large(self._event_bytes_max)


def write_event(data: bytes) -> bytes:
    """Write one event; `data` has no line breaks."""
    return b"data: " + data + b"\n\n"


def _whole_events(piece: bytes, event_bytes_max: int) -> list[ServerSentEvent] | None:
    """Read a piece that holds whole events of the commonest shape, `data: …` LF LF; None: any other shape."""
    if not (piece.startswith(b"data: ") and piece.endswith(b"\n\n")) or b"\r" in piece:
        return None
    events = []
    for block in piece[:-2].split(b"\n\n"):
        if not block.startswith(b"data: ") or b"\n" in block:
            return None
        if len(block) > event_bytes_max:
            raise _too_large(event_bytes_max)
        events.append(ServerSentEvent(block[6:]))
    return events


def _too_large(event_bytes_max: int) -> UpstreamProtocolError:
    return UpstreamProtocolError(f"The upstream sent an event of more than {event_bytes_max} bytes.")
