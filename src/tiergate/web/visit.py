"""One request seen from inside: what was asked, its body, and the way back to the client.

It speaks ASGI as granian's embedded server does, and refuses what that server lets through. Every refusal
is an `InvalidRequest`; the application turns it into an answer.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Any, Final, NoReturn

from tiergate.core import Caller, InvalidRequest, RequestTooLarge
from tiergate.serve import CallerLeft

METHODS: Final = frozenset({"GET", "HEAD", "POST", "DELETE", "OPTIONS"})
"""The methods that pass the door; which of them a path knows is the application's business."""

LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})

_WATCH_AFTER_S: Final = 0.2
# Each look at `receive` costs about 7 µs: a call that ends before this time never pays for being watched.
_DISCARD_S: Final = 2.0
_DISCARD_BYTES_MAX: Final = 64 * 1024 * 1024
# granian takes four pieces ahead of the client whatever their size: slices bound what that can be, and
# give a slow client its time for each slice and not for the whole.
_SLICE_BYTES: Final = 16 * 1024
_AHEAD_BYTES_MAX: Final = 256 * 1024
_IN_A_ROW_MAX: Final = 32
# granian puts its own name where none is given, and cannot be kept from it.
_SERVER: Final = (b"server", b"tiergate")
_CLOSE: Final = (b"connection", b"close")
_SET_BY_THE_SERVER: Final = frozenset({b"content-length", b"transfer-encoding", b"connection", b"upgrade"})
_HEADER_NAME: Final = re.compile(rb"[a-z0-9-]+")
_NOT_IN_A_HEADER: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f-\xff]")
_HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?")

Headers = Sequence[tuple[bytes, bytes]]
"""Lower-case names and values, as they go to the client."""


class HostNotServed(InvalidRequest):
    """The Host header is missing, malformed or not one that this gateway answers for (421)."""


class UploadTooSlow(InvalidRequest):
    """The body did not arrive in time (408)."""


class ClientGone(CallerLeft):
    """The client left; nothing that is written reaches anybody."""


class ConnectionBroken(Exception):
    """Leaves the application on purpose, to end the connection without its last chunk.

    So no reader takes a part of an answer for the whole.
    """


class ClientStalled(ConnectionBroken, CallerLeft):
    """The client has not taken a piece for the whole write-idle time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VisitLimits:
    """How much a request may bring, and how long a client may take to read.

    `header_bytes_max` counts names and values together; `target_bytes_max` path and query.
    """

    header_bytes_max: int = 32 * 1024
    target_bytes_max: int = 8 * 1024
    write_idle_s: float = 60.0


class _Stage(Enum):
    ASKED = 1
    ANSWERING = 2
    ENDED = 3


class Visit:
    """A request and the way back to its client; used by one task.

    Attributes:
        method: upper case, as sent.
        path: the path as sent: not decoded, not normalised; bytes above 127 appear as Latin-1. Compare it
            exactly: `//`, `%2e`, `;` and the like are then simply other paths.
        query: what followed the question mark, as sent.
        peer: the client's IP address.
        client: address and port of the client's end of the connection.
        id: the call's, which the client is told to quote; empty until its question has been read.
        caller: who asks for a call, from then on.
        gone: whether the client is known to have left.
        uploading: whether the body has not come to its end.
        unread_bytes_max: the most of an answer that the server has and the client may not have read.
    """

    __slots__ = (
        "_header_list",
        "_headers",
        "_in_a_row",
        "_is_last",
        "_limits",
        "_on_gone",
        "_receive",
        "_repeated",
        "_send",
        "_stage",
        "_too_slow",
        "_unread",
        "_watch",
        "caller",
        "client",
        "gone",
        "id",
        "method",
        "path",
        "query",
        "unread_bytes_max",
        "uploading",
    )

    def __init__(
        self,
        scope: Mapping[str, Any],
        receive: Callable[[], Any],
        send: Callable[[dict[str, Any]], Any],
        limits: VisitLimits,
    ) -> None:
        """Look at the request; nothing is refused before `check`."""
        self.method: str = scope["method"]
        self.path: str = scope["raw_path"].decode("latin-1")
        self.query: bytes = scope["query_string"]
        self.client: tuple[str, str] = scope["client"]
        self.id = ""
        self.caller: Caller | None = None
        self.gone = False
        self.unread_bytes_max = 0
        self._receive = receive
        self._send = send
        self._limits = limits
        self._header_list: list[tuple[bytes, bytes]] = scope["headers"]
        self._headers = headers = dict(self._header_list)
        self._repeated = len(headers) != len(self._header_list)
        # granian takes a bare line feed for the end of a trailer, and a request behind it for more trailers:
        # what it then calls the next request stood in the body of one. So nothing is read behind chunks.
        self._is_last = b"transfer-encoding" in headers
        self._unread = self.uploading = self._is_last or b"content-length" in headers
        self._too_slow = False
        self._in_a_row = 0
        self._stage = _Stage.ASKED
        self._on_gone: Callable[[], object] | None = None
        self._watch: Any = None

    @property
    def peer(self) -> str:
        """The client's IP address."""
        return self.client[0]

    @property
    def started(self) -> bool:
        """Whether an answer has begun: from now on only `write`, `end` and `abort` are left."""
        return self._stage is not _Stage.ASKED

    def listed(self, name: bytes) -> str | None:
        """Give all values of a header that is a list, and may come on several lines, as one.

        Raises:
            InvalidRequest: it is not ASCII.
        """
        if name not in self._headers:
            return None
        value = b", ".join(value for other, value in self._header_list if other == name)
        if not value.isascii():
            raise InvalidRequest(f"The header {name.decode()} holds bytes that are not ASCII.")
        return value.decode("ascii")

    def header(self, name: bytes) -> str | None:
        """Give the value of a header, by its lower-case name.

        Raises:
            InvalidRequest: it came more than once, so two readers could disagree, or is not ASCII.
        """
        value: bytes | None = self._headers.get(name)
        if value is None:
            return None
        if self._repeated and sum(1 for other, _ in self._header_list if other == name) > 1:
            raise InvalidRequest(f"The header {name.decode()} came more than once; send it once.")
        if not value.isascii():
            raise InvalidRequest(f"The header {name.decode()} holds bytes that are not ASCII.")
        return value.decode("ascii")

    def check(self) -> None:
        """Refuse what the server lets through and no honest client sends.

        Raises:
            RequestTooLarge: target or headers over their limits.
            InvalidRequest: an unknown method, a target that is no path, doubtful framing, an upgrade.
        """
        if self.method not in METHODS:
            raise InvalidRequest(f"The method {self.method[:20]!r} is not served here.")
        if not self.path.startswith("/"):
            raise InvalidRequest("The request's target must be a path that begins with '/'.")
        if len(self.path) + len(self.query) > self._limits.target_bytes_max:
            raise RequestTooLarge(f"Path and query are over {self._limits.target_bytes_max} bytes.")
        if sum([len(name) + len(value) for name, value in self._header_list]) > self._limits.header_bytes_max:
            raise RequestTooLarge(f"The headers are over {self._limits.header_bytes_max} bytes.")
        if self._unread:
            self._check_framing()
        # Java's HTTP client offers h2c with every first request and goes on without it; nothing else may.
        if b"upgrade" in self._headers and self._headers[b"upgrade"].lower() != b"h2c":
            raise InvalidRequest("Connections are not upgraded here: no WebSocket, plain HTTP/1.1 only.")

    def _check_framing(self) -> None:
        coding, length = self.header(b"transfer-encoding"), self.header(b"content-length")
        if coding is not None and (length is not None or coding.lower() != "chunked"):
            raise InvalidRequest("Send either Content-Length or 'Transfer-Encoding: chunked', not more.")
        if length is not None and not length.isdigit():
            raise InvalidRequest("Content-Length must be a plain number.")

    async def read_body(self, *, bytes_max: int, timeout_s: float) -> bytes:
        """Read the whole body, at most `bytes_max` bytes, within `timeout_s` in all.

        Raises:
            RequestTooLarge: over `bytes_max`; at once where Content-Length says so.
            UploadTooSlow: not here in time.
            InvalidRequest: compressed, or it broke off: the client left, or its chunks are malformed.
        """
        if not self._unread:
            return b""
        expected = self._expected_bytes(bytes_max)
        task = asyncio.current_task()
        assert task is not None
        # As asyncio.timeout does it, at a third of its cost: nearly every body is here within a millisecond.
        timer = asyncio.get_running_loop().call_later(timeout_s, self._stop_reading, task)
        try:
            return await self._collect(expected, bytes_max)
        except asyncio.CancelledError:
            if self._too_slow and task.uncancel() == 0:
                self._unread = False
                raise UploadTooSlow(f"The body did not arrive within {timeout_s:g} seconds.") from None
            raise
        finally:
            timer.cancel()

    async def body_pieces(self, *, bytes_max: int, idle_s: float) -> AsyncIterator[bytes]:
        """Give the body in pieces as they come, at most `bytes_max` bytes, the next within `idle_s` each.

        Raises:
            RequestTooLarge, UploadTooSlow, InvalidRequest: as `read_body`.
        """
        if not self._unread:
            return
        expected, received = self._expected_bytes(bytes_max), 0
        while True:
            try:
                async with asyncio.timeout(idle_s):
                    message = await self._receive()
            except TimeoutError:
                self._unread = False
                raise UploadTooSlow(f"Nothing of the body arrived for {idle_s:g} seconds.") from None
            if message["type"] != "http.request":
                self._unread = False
                raise InvalidRequest("The body broke off before its end.")
            received += len(message["body"])
            if received > bytes_max:
                raise _too_large(bytes_max)
            if message["body"]:
                yield message["body"]
            if received == expected or not message["more_body"]:
                break
        self._unread = self.uploading = False
        if expected is not None and received != expected:
            raise InvalidRequest("The body is shorter than its Content-Length.")

    def _expected_bytes(self, bytes_max: int) -> int | None:
        """Give the bytes that the body says to have; None: it does not say."""
        if self.header(b"content-encoding") not in (None, "", "identity"):
            raise InvalidRequest("Send the body without Content-Encoding: compressed ones are not read.")
        length = self.header(b"content-length")
        expected = None if length is None else int(length)
        if expected is not None and expected > bytes_max:
            raise _too_large(bytes_max)
        return expected

    def _stop_reading(self, task: asyncio.Task[Any]) -> None:
        self._too_slow = True
        task.cancel()

    async def _collect(self, expected: int | None, bytes_max: int) -> bytes:
        pieces: list[bytes] = []
        received = 0
        while True:
            message = await self._receive()
            # granian tells a broken upload and a client that left in the same way.
            if message["type"] != "http.request":
                self._unread = False
                raise InvalidRequest("The body broke off before its end.")
            pieces.append(message["body"])
            received += len(message["body"])
            if received > bytes_max:
                raise _too_large(bytes_max)
            # The empty message that follows the last byte is not waited for: it costs 6 µs.
            if received == expected or not message["more_body"]:
                break
        self._unread = self.uploading = False
        if expected is not None and received != expected:
            raise InvalidRequest("The body is shorter than its Content-Length.")
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def when_gone(self, callback: Callable[[], object]) -> None:
        """Call `callback` once, on the event loop, if the client leaves before the answer has ended.

        It is noticed within half a second. A client that closes only its sending side counts as gone. To be
        called after the body was read. One callback: a second call replaces the first.
        """
        assert not self._unread, "the body comes first: it arrives on the same way as the notice"
        self._on_gone = callback
        self._watch_client()

    def _watch_client(self) -> None:
        if self._watch is None:
            delay_s, look = (0.0, self._left) if self.gone else (_WATCH_AFTER_S, self._listen)
            self._watch = asyncio.get_running_loop().call_later(delay_s, look)

    def _listen(self) -> None:
        # granian's future begins to work when it is made, so watching needs no task.
        self._watch = notice = self._receive()
        if hasattr(notice, "add_done_callback"):
            notice.add_done_callback(self._heard)
        else:
            # An answer that is ready at once is given only by a connection that is closed already.
            self._left()

    def _heard(self, notice: Any) -> None:
        if notice is not self._watch or notice.cancelled():
            return
        if notice.result()["type"] == "http.request":
            self._listen()
        else:
            self._left()

    def _left(self) -> None:
        self._watch = None
        self.gone = True
        if self._on_gone is not None:
            self._on_gone()

    def leave(self) -> None:
        """Stop watching the client; called by whoever made the visit, when it is over."""
        self._on_gone = None
        watch, self._watch = self._watch, None
        if watch is None:
            return
        if hasattr(watch, "remove_done_callback"):
            # Without it the cancelled future would wake the loop for nothing.
            watch.remove_done_callback(self._heard)
        watch.cancel()

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """Send a whole answer; its Content-Length is set here.

        Returns when the server has taken it, not when the client has read it. What the client still uploads
        is first taken and dropped, for two seconds and 64 MiB at most: a connection that is closed on unread
        bytes is reset, and the client would not see the answer.
        """
        start = _start(status, headers, is_last=self._is_last)
        assert self._stage is _Stage.ASKED, "one request, one answer"
        if self._unread and b"expect" not in self._headers:
            await self._discard()
        self._stage = _Stage.ENDED
        self.leave()
        self.unread_bytes_max = len(body)
        await self._send(start)
        await self._send({"type": "http.response.body", "body": body})

    async def _discard(self) -> None:
        left = _DISCARD_BYTES_MAX
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DISCARD_S):
                while left > 0:
                    message = await self._receive()
                    if message["type"] != "http.request" or not message["more_body"]:
                        self.uploading = False
                        return
                    left -= len(message["body"])

    async def start(self, status: int, headers: Headers) -> None:
        """Begin an answer whose body follows in pieces.

        With content type `text/event-stream` the headers leave now, else with the first piece.
        """
        start = _start(status, headers, is_last=self._is_last)
        assert self._stage is _Stage.ASKED, "one request, one answer"
        self._stage = _Stage.ANSWERING
        if not self._unread:
            # A server's `send` says nothing when the client has left.
            self._watch_client()
        await self._send(start)

    async def write(self, piece: bytes) -> None:
        """Send a piece; it leaves now. Waits while the client does not read.

        At most about 200 KiB are on their way to a client that does not.

        Raises:
            ClientGone: the client is known to have left.
            ClientStalled: it has not made room for the write-idle time; let it pass, it ends the connection.
        """
        assert self._stage is _Stage.ANSWERING, "start comes first"
        if self.gone:
            raise ClientGone
        if len(piece) > _SLICE_BYTES:
            for at in range(0, len(piece), _SLICE_BYTES):
                await self._write(piece[at : at + _SLICE_BYTES])
        elif piece:
            await self._write(piece)

    async def _write(self, piece: bytes) -> None:
        self.unread_bytes_max = min(self.unread_bytes_max + len(piece), _AHEAD_BYTES_MAX)
        sending = self._send({"type": "http.response.body", "body": piece, "more_body": True})
        if hasattr(sending, "cancel"):
            # A future instead of something that is done: no room.
            await self._wait_for_room(sending)
            return
        await sending
        # A client that reads fast, or is gone, never makes us wait; others want the loop too, and the notice
        # that it is gone comes through it.
        self._in_a_row += 1
        if self._in_a_row >= _IN_A_ROW_MAX:
            self._in_a_row = 0
            await asyncio.sleep(0)

    async def _wait_for_room(self, sending: Awaitable[None]) -> None:
        try:
            async with asyncio.timeout(self._limits.write_idle_s):
                await sending
        except TimeoutError:
            raise ClientStalled(f"nothing was read for {self._limits.write_idle_s:g} seconds") from None

    async def end(self) -> None:
        """End the answer well: the last chunk goes out and the connection may be used again."""
        assert self._stage is _Stage.ANSWERING, "start comes first"
        self._stage = _Stage.ENDED
        self.leave()
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def abort(self) -> NoReturn:
        """End the connection without the last chunk, after everything that was written.

        It raises, and what it raises must leave the application.
        """
        raise ConnectionBroken


def check_host(visit: Visit, allowed: frozenset[str]) -> None:
    """Refuse a request whose Host is not one of `allowed`, against DNS rebinding.

    An entry is a name (any port) or `name:port`, lower case, IPv6 in brackets. With no entries the names of
    loopback are allowed.

    Raises:
        HostNotServed: missing, repeated, malformed or not in the list.
    """
    try:
        host = visit.header(b"host")
    except InvalidRequest as error:
        raise HostNotServed(str(error)) from error
    if not host or not _is_served(host, allowed or LOOPBACK_NAMES):
        shown = host[:100] if host else ""
        raise HostNotServed(f"No gateway answers for the host {shown!r} here; see `hosts` in the settings.")


# The answer depends on its arguments only, and nearly all requests ask with the same two.
@lru_cache(maxsize=256)
def _is_served(host: str, allowed: frozenset[str]) -> bool:
    match = _HOST.fullmatch(host.lower())
    return match is not None and (match[0] in allowed or match[1] in allowed)


def _too_large(bytes_max: int) -> RequestTooLarge:
    return RequestTooLarge(f"The body is over the limit of {bytes_max} bytes.")


def _start(status: int, headers: Headers, *, is_last: bool) -> dict[str, Any]:
    # granian ends the process on a status below 100 and cannot send one of the 1xx as an answer.
    if not 200 <= status <= 599:
        raise ValueError(f"{status} is no status of an answer")
    for name, _ in headers:
        _check_name(name)
    if _NOT_IN_A_HEADER.search(b"".join([value for _, value in headers])) is not None:
        raise ValueError("a header's value cannot be sent: only printable ASCII can")
    own = (_SERVER, _CLOSE) if is_last else (_SERVER,)
    return {"type": "http.response.start", "status": status, "headers": [*headers, *own]}


# The names are a handful of constants; asking the expression each time would cost a microsecond per call.
@lru_cache(maxsize=256)
def _check_name(name: bytes) -> None:
    if name in _SET_BY_THE_SERVER:
        raise ValueError(f"the header {name!r} is set by the server alone")
    if _HEADER_NAME.fullmatch(name) is None:
        raise ValueError(f"the header {name!r} cannot be sent")
