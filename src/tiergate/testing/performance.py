"""From a behaviour to the steps of a reply: bytes, waits and endings, before any of them is performed.

A generator of steps and no I/O: the server plays them on a socket, the in-memory upstream plays the same
ones for its caller.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, NamedTuple

import msgspec

from tiergate.testing.answer import Answer
from tiergate.testing.behaviour import Behaviour

_encode: Final = msgspec.json.Encoder().encode

Pairs = tuple[tuple[str, str], ...]


class Status(NamedTuple):
    """The status line."""

    code: int


class Headers(NamedTuple):
    """All headers but those that belong to the connection; then the body begins."""

    pairs: Pairs
    chunked: bool


class Torn(NamedTuple):
    """A piece of the body in a chunk that claims another length than its own."""

    data: bytes
    claimed: int
    closed: bool
    """The chunk ends like a good one; otherwise the rest of it is missing."""


class Token(NamedTuple):
    """Wait until this token of this choice has left."""

    choice: int
    number: int


class Pause(NamedTuple):
    """Wait so long."""

    seconds: float


class How(Enum):
    """What becomes of the connection."""

    KEEP = "keep"
    """It may carry the next request."""
    CLOSE = "close"
    """It ends in an orderly way."""
    RESET = "reset"
    """It is torn down with a reset."""
    HANG = "hang"
    """It stays as it is until the client leaves."""


class End(NamedTuple):
    """The last step."""

    how: How
    complete: bool = True
    """Nothing was left out and nothing was wrong."""


Step = bytes | Torn | Token | Pause | Status | Headers | End


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
_PAGE_OF_HTML: Final = (
    b"<!DOCTYPE html>\n<html><head><title>Mock</title></head><body><h1>Not an answer</h1></body></html>\n"
)


def perform(behaviour: Behaviour, answer: Answer | None, request_id: str) -> Iterator[Step]:
    """Give the steps of a reply; `answer` is only looked at where the behaviour answers."""
    if behaviour.refuse:
        yield End(How.RESET, complete=False)
    elif behaviour.hang:
        yield End(How.HANG, complete=False)
    else:
        if behaviour.wait_ms:
            yield Pause(behaviour.wait_ms / 1_000)
        if answer is None or not behaviour.answers:
            yield from perform_page(_page(behaviour, answer), behaviour, request_id)
        elif answer.ask.streamed:
            yield from _stream(behaviour, answer, request_id)
        else:
            yield from _whole(behaviour, answer, request_id)


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
    if behaviour.truncate_json:
        data = data[: len(data) // 2]
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
    chunked = length is None or behaviour.one_byte_chunks or "transfer-encoding" in behaviour.headers
    if length is None:
        own.append(("cache-control", "no-cache"))
    if chunked:
        own.append(("transfer-encoding", "chunked"))
    else:
        assert length is not None
        own.append(("content-length", str(max(0, length + behaviour.wrong_length))))
    yield Status(status)
    if behaviour.slow_headers_ms:
        yield Pause(behaviour.slow_headers_ms / 1_000)
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
    half = data[: len(data) // 2]
    if behaviour.reset_after_bytes is not None:
        yield from _pieces(behaviour, data[: behaviour.reset_after_bytes])
        yield End(How.RESET, complete=False)
    elif behaviour.stall_after is not None:
        yield from _pieces(behaviour, half)
        yield End(How.HANG, complete=False)
    elif behaviour.reset_after is not None:
        yield from _pieces(behaviour, half)
        yield End(How.RESET, complete=False)
    elif behaviour.clean_cut_after is not None:
        yield from _pieces(behaviour, half)
        yield End(How.CLOSE, complete=False)
    else:
        yield from _pieces(behaviour, data)
        yield _proper_end(behaviour)


def _proper_end(behaviour: Behaviour) -> End:
    wrong = behaviour.wrong_length or behaviour.truncate_json or behaviour.error_in_stream is not None
    # A length that is too long must be followed by the end of the connection, or the client would just wait.
    how = How.CLOSE if behaviour.hang_up or behaviour.wrong_length > 0 else How.KEEP
    return End(how, complete=not wrong)


def _pieces(behaviour: Behaviour, data: bytes) -> Iterator[bytes]:
    if behaviour.one_byte_chunks:
        for place in range(len(data)):
            yield data[place : place + 1]
    elif data:
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
    for count, part in enumerate(answer.events()):
        yield Token(part.choice, part.number)
        frame = _frame(behaviour, part.data)
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
        elif behaviour.one_byte_chunks:
            yield from _pieces(behaviour, frame)
        else:
            yield frame
    if not behaviour.no_done:
        yield from _pieces(behaviour, _frame(behaviour, _DONE))
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
        (latest // 2 if behaviour.truncate_json else None, _Break.GARBLE),
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
            yield from _pieces(behaviour, _frame(behaviour, error_object(500, behaviour.error)))
            yield End(How.KEEP, complete=False)
        case _Break.GARBLE:
            yield from _pieces(behaviour, half)
            yield End(How.KEEP, complete=False)


def _frame(behaviour: Behaviour, data: bytes) -> bytes:
    if not (behaviour.crlf or behaviour.comments):
        return b"data: " + data + b"\n\n"
    end = b"\r\n" if behaviour.crlf else b"\n"
    comment = b": mock" + end + end if behaviour.comments else b""
    return comment + b"data: " + data + end + end
