"""From a behaviour to the steps of a reply: bytes, waits and endings, before any of them is performed.

A generator of steps and no I/O: the server plays them on a socket, the in-memory upstream plays the same
ones for its caller.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

import msgspec

from tiergate.testing.answer import Answer
from tiergate.testing.behaviour import Behaviour
from tiergate.testing.bulk import blanks, flood, garbage, header_lines
from tiergate.testing.coding import encoded, sliced
from tiergate.testing.steps import End, Headers, How, Pairs, Pause, Status, Step, Token, Torn

_encode: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Something to send that is no answer."""

    status: int
    content_type: str
    data: bytes


JSON: Final = "application/json"
_HTML: Final = "text/html; charset=utf-8"
_EVENTS: Final = "text/event-stream; charset=utf-8"

_DONE: Final = b"[DONE]"
_BOM: Final = b"\xef\xbb\xbf"
_LINE_ENDS: Final = ((b"\n", b"\n"), (b"\r", b"\r"), (b"\r\n", b"\r\n"), (b"\n", b"\r"), (b"\r", b"\r\n"))
"""Of an event's line and of the empty line after it. CR and LF, in this order, would be one end, not two."""
_CONTENT: Final = b'"content":"'
_PART_OF_A_CHARACTER: Final = "𝄞".encode()[:2]
_PAGE_OF_HTML: Final = (
    b"<!DOCTYPE html>\n<html><head><title>Mock</title></head><body><h1>Not an answer</h1></body></html>\n"
)


def perform(behaviour: Behaviour, answer: Answer | None, request_id: str) -> Iterator[Step]:
    """Give the steps of a reply; `answer` is only looked at where the behaviour answers."""
    steps = _reply(behaviour, answer, request_id)
    if behaviour.encode:
        steps = encoded(steps, behaviour.encodings, empty_members=behaviour.empty_members)
    if behaviour.one_byte_chunks or behaviour.trickle_ms:
        steps = sliced(steps, pause_s=behaviour.trickle_ms / 1_000)
    return steps


def _reply(behaviour: Behaviour, answer: Answer | None, request_id: str) -> Iterator[Step]:
    if behaviour.refuse:
        yield End(How.RESET, complete=False)
    elif behaviour.hang:
        yield End(How.HANG, complete=False)
    elif behaviour.raw is not None or behaviour.garbage is not None:
        yield from _no_response(behaviour)
    else:
        if behaviour.wait_ms:
            yield Pause(behaviour.wait_ms / 1_000)
        if answer is None or not behaviour.answers:
            yield from perform_page(_page(behaviour, answer), behaviour, request_id)
        elif answer.ask.streamed:
            yield from _stream(behaviour, answer, request_id)
        else:
            yield from _whole(behaviour, answer, request_id)


def _no_response(behaviour: Behaviour) -> Iterator[Step]:
    if behaviour.wait_ms:
        yield Pause(behaviour.wait_ms / 1_000)
    if behaviour.raw:
        yield behaviour.raw.encode("latin-1")
    yield from garbage(behaviour.garbage or 0)
    yield End(How.CLOSE, complete=False)


def perform_page(page: Page, behaviour: Behaviour, request_id: str) -> Iterator[Step]:
    """Give the steps that send a page."""
    yield from _head(behaviour, page.status, page.content_type, request_id, length=len(page.data))
    yield from _body(behaviour, page.data)


def error_object(status: int, error: str | Mapping[str, Any] | None) -> bytes:
    """Write an error object in OpenAI's words, with what the script says about it."""
    kind, code = _KINDS.get(status, ("server_error" if status >= 500 else "invalid_request_error", None))
    said: dict[str, Any] = {
        "message": f"The mock was told to answer {status}.",
        "type": kind,
        "param": None,
        "code": code,
    }
    if isinstance(error, str):
        said["message"] = error
    elif error is not None:
        said.update(error)
    return _encode({"error": said})


_KINDS: Final = {
    401: ("invalid_request_error", "invalid_api_key"),
    403: ("invalid_request_error", "permission_denied"),
    404: ("invalid_request_error", "model_not_found"),
    429: ("rate_limit_error", "rate_limit_exceeded"),
    529: ("overloaded_error", "overloaded"),
}


def _page(behaviour: Behaviour, answer: Answer | None) -> Page:
    status = behaviour.status
    if behaviour.redirect is not None:
        return Page(status=status if 300 <= status < 400 else 307, content_type=JSON, data=b"")
    if behaviour.body is not None:
        return Page(status=status, content_type=JSON, data=behaviour.body.encode())
    if behaviour.html:
        return Page(status=status, content_type=_HTML, data=_PAGE_OF_HTML)
    if behaviour.empty:
        streamed = answer is not None and answer.ask.streamed
        return Page(status=status, content_type=_EVENTS if streamed else JSON, data=b"")
    return Page(status=status, content_type=JSON, data=error_object(status, behaviour.error))


def _whole(behaviour: Behaviour, answer: Answer, request_id: str) -> Iterator[Step]:
    data = answer.whole()
    if behaviour.error_in_stream is not None:
        data = error_object(500, behaviour.error)
    if behaviour.truncate_json or behaviour.cut_character:
        data = _beginning(behaviour, data)
    waits = [Token(place, max(1, choice.tokens)) for place, choice in enumerate(answer.choices)]
    head = _head(behaviour, behaviour.status, JSON, request_id, length=len(data))
    if behaviour.early_headers:
        yield from head
        yield from waits
    else:
        yield from waits
        yield from head
    yield from _body(behaviour, data)


def _head(
    behaviour: Behaviour, status: int, content_type: str, request_id: str, *, length: int | None
) -> Iterator[Step]:
    """Status and headers; `length` None: a body in chunks."""
    own = [("content-type", content_type), ("x-request-id", request_id)]
    if behaviour.redirect is not None:
        own.append(("location", behaviour.redirect))
    chunked = (
        length is None
        or behaviour.one_byte_chunks
        or bool(behaviour.encode)
        or "transfer-encoding" in behaviour.headers
    )
    if length is None:
        own.append(("cache-control", "no-cache"))
    if behaviour.encode:
        own.append(("content-encoding", ", ".join(behaviour.encodings)))
    if chunked:
        own.append(("transfer-encoding", "chunked"))
    else:
        assert length is not None
        length += behaviour.padding_bytes + len(_BOM) * behaviour.bom
        own.append(("content-length", str(max(0, length + behaviour.wrong_length))))
    yield Status(status)
    if behaviour.slow_headers_ms:
        yield Pause(behaviour.slow_headers_ms / 1_000)
    yield from header_lines(size=behaviour.header_bytes, count=behaviour.header_count)
    yield Headers(_with_script(own, behaviour), chunked)


def _with_script(own: list[tuple[str, str]], behaviour: Behaviour) -> Pairs:
    if not behaviour.headers:
        return tuple(own)
    scripted = [
        (name.lower(), str(value))
        for name, given in behaviour.headers.items()
        for value in ((given,) if isinstance(given, str | int | float) else given)
    ]
    names = {name for name, _ in scripted}
    return (*(pair for pair in own if pair[0] not in names), *scripted)


def _body(behaviour: Behaviour, data: bytes) -> Iterator[Step]:
    """A body that is not streamed: whole, or broken in its middle."""
    if behaviour.bom:
        yield _BOM
    yield from blanks(behaviour.padding_bytes)
    half = data[: len(data) // 2]
    if behaviour.reset_after_bytes is not None:
        yield from _piece(data[: behaviour.reset_after_bytes])
        yield End(How.RESET, complete=False)
    elif behaviour.stall_after is not None:
        yield from _piece(half)
        yield End(How.HANG, complete=False)
    elif behaviour.reset_after is not None:
        yield from _piece(half)
        yield End(How.RESET, complete=False)
    elif behaviour.clean_cut_after is not None:
        yield from _piece(half)
        yield End(How.CLOSE, complete=False)
    else:
        yield from _piece(data)
        yield _proper_end(behaviour)


def _proper_end(behaviour: Behaviour) -> End:
    wrong = (
        behaviour.wrong_length
        or behaviour.truncate_json
        or behaviour.cut_character
        or behaviour.error_in_stream is not None
    )
    # A length that is too long must be followed by the end of the connection, or the client would just wait.
    how = How.CLOSE if behaviour.hang_up or behaviour.wrong_length > 0 else How.KEEP
    return End(how, complete=not wrong)


def _piece(data: bytes) -> Iterator[bytes]:
    if data:
        yield data


class _Break(Enum):
    STALL = 1
    RESET = 2
    CUT = 3
    ERROR = 4
    GARBLE = 5


def _stream(behaviour: Behaviour, answer: Answer, request_id: str) -> Iterator[Step]:
    if not behaviour.early_headers:
        yield Token(0, 1)
    yield from _head(behaviour, behaviour.status, _EVENTS, request_id, length=None)
    strike, kind = _strike(behaviour, answer)
    bytes_left = behaviour.reset_after_bytes
    if behaviour.bom:
        yield _BOM
    for count, part in enumerate(answer.events()):
        yield Token(part.choice, part.number)
        frame = _frame(behaviour, part.data, count)
        if count == behaviour.bulk_event:
            yield from flood(behaviour.flood_bytes)
            if behaviour.padding_bytes:
                yield from _up_to_padding(behaviour)
                frame = frame.partition(b"data: ")[2]
        if kind is not None and count == strike:
            yield from _broken(kind, behaviour, frame)
            return
        if bytes_left is not None:
            if bytes_left < len(frame):
                yield Torn(frame[:bytes_left], len(frame), closed=False)
                yield End(How.RESET, complete=False)
                return
            bytes_left -= len(frame)
        if behaviour.wrong_length and count == 0:
            yield Torn(frame, max(1, len(frame) + behaviour.wrong_length), closed=True)
        else:
            yield frame
    if not behaviour.no_done:
        yield _frame(behaviour, _DONE)
    yield _proper_end(behaviour)


def _strike(behaviour: Behaviour, answer: Answer) -> tuple[int, _Break | None]:
    """How many events come whole, and what breaks the next one; the finish reason never comes whole."""
    latest = answer.events_before_finish
    for count, kind in (
        (behaviour.stall_after, _Break.STALL),
        (behaviour.reset_after, _Break.RESET),
        (None if behaviour.reset_after_bytes is None else latest, _Break.RESET),
        (behaviour.clean_cut_after, _Break.CUT),
        (behaviour.error_in_stream, _Break.ERROR),
        (latest // 2 if behaviour.truncate_json or behaviour.cut_character else None, _Break.GARBLE),
    ):
        if count is not None:
            return min(count, latest), kind
    return latest, None


def _broken(kind: _Break, behaviour: Behaviour, frame: bytes) -> Iterator[Step]:
    half = frame[: len(frame) // 2]
    match kind:
        case _Break.STALL:
            yield End(How.HANG, complete=False)
        case _Break.RESET:
            yield Torn(half, len(frame), closed=False)
            yield End(How.RESET, complete=False)
        case _Break.CUT:
            yield End(How.KEEP, complete=False)
        case _Break.ERROR:
            yield _frame(behaviour, error_object(500, behaviour.error))
            yield End(How.KEEP, complete=False)
        case _Break.GARBLE:
            yield _beginning(behaviour, frame)
            yield End(How.KEEP, complete=False)


def _beginning(behaviour: Behaviour, data: bytes) -> bytes:
    """Give what comes of JSON that breaks off: half of it, or all up to a part of a character of its text."""
    before, content, _ = data.partition(_CONTENT)
    if not (behaviour.cut_character and content):
        return data[: len(data) // 2]
    return before + content + _PART_OF_A_CHARACTER


def _frame(behaviour: Behaviour, data: bytes, count: int = 0) -> bytes:
    if not (behaviour.crlf or behaviour.comments or behaviour.mixed_line_ends):
        return b"data: " + data + b"\n\n"
    end, blank = (b"\r\n", b"\r\n") if behaviour.crlf else (b"\n", b"\n")
    if behaviour.mixed_line_ends:
        end, blank = _LINE_ENDS[count % len(_LINE_ENDS)]
    comment = b": mock" + end + blank if behaviour.comments else b""
    return comment + b"data: " + data + end + blank


def _up_to_padding(behaviour: Behaviour) -> Iterator[Step]:
    yield b"data: "
    yield from blanks(behaviour.padding_bytes)
