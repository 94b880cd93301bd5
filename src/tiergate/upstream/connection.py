"""One HTTP/1.1 connection: idle, or carrying one request and its response.

The parser is llhttp in its strict mode, which refuses what smuggling lives on: both lengths, repeated or
odd lengths, folded headers, bare line feeds. What it accepts and we do not is refused here.
"""

import asyncio
import select
import socket
import struct
from time import monotonic
from typing import Any, Final, Protocol, cast

import httptools

from tiergate.core import Delivery, UpstreamError, UpstreamProtocolError
from tiergate.upstream import failures
from tiergate.upstream.transport import Timing

READ_BYTES: Final = 32 * 1024
"""Most that one read takes; with BUFFERED_BYTES_MAX it bounds what a stalled reader costs: 64 KiB."""
BUFFERED_BYTES_MAX: Final = 32 * 1024
"""Above this much that nobody has taken, the server is no longer read."""
PIECE_BYTES_MAX: Final = 4 * 1024
"""Most that is given out at once. Events of a word each become ten times as large as they came, and lie with
a caller who does not read: with 64 KiB a stalled stream took 700 KiB, with 4 KiB it takes 190 (2026-11)."""
WITHOUT_BODY_BYTES_MAX: Final = 64 * 1024
"""Most that may arrive without a byte of body among it: the head, and what surrounds chunks."""

_MISSED: Final = select.POLLIN | select.POLLRDHUP
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
_TOO_LARGE: Final = "its headers, or what surrounds its chunks, are too large"


class Owner(Protocol):
    """Who lends the connection out."""

    def returned(self, connection: "Connection") -> None:
        """The exchange is over and the connection can carry another one."""
        ...

    def lost(self, connection: "Connection") -> None:
        """The connection can carry nothing any more; said once."""
        ...

    def closed(self, connection: "Connection") -> None:
        """Its socket is closed; said once."""
        ...


class Http1Response:
    """A response that arrives on a connection; see `transport.Response`."""

    __slots__ = (
        "_body",
        "_connection",
        "_ended",
        "_failure",
        "_waiter",
        "headers",
        "status",
        "waiting_since",
    )

    def __init__(self, connection: "Connection") -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.waiting_since: float | None = None
        self._body: bytes | bytearray = b""
        self._connection: Connection | None = connection
        self._ended = False
        self._failure: UpstreamError | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def head(self) -> None:
        """Wait for status and headers."""
        while not self.status:
            if self._failure is not None:
                raise self._failure
            await self._wait()

    async def next_piece(self) -> bytes | None:
        """Give what has arrived, at most `PIECE_BYTES_MAX` of it, or wait for it."""
        while not self._body:
            if self._failure is not None:
                raise self._failure
            if self._ended:
                return None
            await self._wait()
        if len(self._body) <= PIECE_BYTES_MAX:
            piece, self._body = bytes(self._body), b""
        else:
            piece = bytes(self._body[: self._piece_end()])
            self._drop(len(piece))
        if self._connection is not None and self.buffered_bytes <= BUFFERED_BYTES_MAX:
            self._connection.resume()
        return piece

    def leave(self, within_s: float) -> None:
        """Stop reading."""
        if self._connection is not None:
            self._connection.drain(monotonic() + within_s)

    def close(self) -> None:
        """Free the connection now."""
        connection = self._connection
        if connection is not None:
            self.fail(failures.interrupted(connection.label, connection.delivery))
            connection.abort()

    @property
    def buffered_bytes(self) -> int:
        """What has arrived and nobody has taken."""
        return len(self._body)

    def take_in(self, piece: bytes) -> None:
        """Keep a piece of the body; pieces that pile up are joined, so that small ones cost no more."""
        if not self._body:
            self._body = piece
        elif isinstance(self._body, bytearray):
            self._body += piece
        else:
            self._body = bytearray(self._body) + piece

    def _piece_end(self) -> int:
        """Give where the next piece ends: behind an empty line, if there is one, since events end there."""
        line = self._body.rfind(b"\n\n", 0, PIECE_BYTES_MAX)
        return PIECE_BYTES_MAX if line < 0 else line + 2

    def _drop(self, count: int) -> None:
        if isinstance(self._body, bytearray):
            del self._body[:count]
        else:
            self._body = bytearray(self._body[count:])

    def end(self) -> None:
        """The body is complete; the connection is no longer ours."""
        self._connection = None
        self._ended = True
        self.wake()

    def fail(self, error: UpstreamError) -> None:
        """Nothing more will come; what came before is still given out."""
        self._connection = None
        self._failure = error
        self.wake()

    def wake(self) -> None:
        """Let the reader look again."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def _wait(self) -> None:
        connection = self._connection
        assert connection is not None and self._waiter is None, "one reader at a time, and not after the end"
        self._waiter = connection.loop.create_future()
        self.waiting_since = monotonic()
        try:
            await self._waiter
        except asyncio.CancelledError:
            self.close()
            raise
        finally:
            self._waiter = self.waiting_since = None


class Connection(asyncio.BufferedProtocol):
    """One connection. It has one timer, which is armed rarely: it fires, looks, and arms itself again.

    `read_buffer` may be shared by all connections of a loop: what was read is parsed before the next read.
    """

    __slots__ = (
        "_armed_for",
        "_begun",
        "_complete",
        "_draining",
        "_head_done",
        "_heard",
        "_idle_age_s",
        "_idle_since",
        "_in_body",
        "_interim",
        "_keep",
        "_lost",
        "_owner",
        "_parser",
        "_paused",
        "_plain",
        "_poll",
        "_read_buffer",
        "_refusal",
        "_response",
        "_timer",
        "_timing",
        "_transport",
        "_until_eof",
        "_without_body_bytes",
        "label",
        "loop",
    )

    def __init__(
        self, owner: Owner, *, loop: asyncio.AbstractEventLoop, read_buffer: memoryview, idle_age_s: float
    ) -> None:
        self.loop = loop
        self.label = ""
        self._owner = owner
        self._read_buffer = read_buffer
        self._idle_age_s = idle_age_s
        self._parser: Any = httptools.HttpResponseParser(self)
        self._poll = select.poll()
        self._response: Http1Response | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timing = Timing(0.0)
        self._armed_for = self._begun = self._idle_since = 0.0
        self._lost = self._paused = False
        self._reset()

    def _reset(self) -> None:
        self._heard = self._interim = self._head_done = self._in_body = self._complete = self._keep = False
        self._until_eof = self._draining = False
        self._refusal = ""
        self._without_body_bytes = 0

    # What the pool and the response ask for.

    @property
    def delivery(self) -> Delivery:
        """Whether the server can have seen the request of now.

        After a write that did not fail some of it has left for the kernel, and nothing shows how far it
        came. So the only proof of the contrary is a write that failed, and that is found in `begin`.
        """
        return Delivery.CONFIRMED if self._heard else Delivery.POSSIBLE

    def is_open(self) -> bool:
        """Whether it can be written to, as far as the loop knows."""
        return not self._lost and not self._transport.is_closing()

    def is_fit(self) -> bool:
        """Whether a further request may be written: an idle connection must be silent.

        The kernel is asked too (0.3 µs), not only the loop: a server's close that arrived in this turn of
        the loop would otherwise swallow the request, and nobody could prove that it was not delivered.
        """
        return self.is_open() and not self._poll.poll(0)

    def begin(self, label: str, request: bytes, timing: Timing) -> Http1Response | None:
        """Write a request. None: it is proven that no byte of it left, and the connection is gone.

        The proof: the request is one write on a connection that had nothing to write, and a transport that
        closes within that call is one whose first write the kernel refused. Under TLS a call may write
        more than once, so there nothing is proven.
        """
        self._reset()
        self.label = label
        self._timing = timing
        self._transport.write(request)
        if self._plain and self._transport.is_closing():
            self.abort()
            return None
        now = self._begun = monotonic()
        self._response = response = Http1Response(self)
        first_event_s = timing.first_event_s
        self._arm(
            timing.deadline if first_event_s is None else min(timing.deadline, now + first_event_s), now
        )
        return response

    def resume(self) -> None:
        """Read on, where reading was paused."""
        if self._paused and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    def drain(self, until: float) -> None:
        """Throw away what still comes; after `until` the connection is dropped."""
        now = monotonic()
        self._draining = True
        self._timing = Timing(until)
        self._arm(until, now)
        self.resume()

    def close(self) -> None:
        """Close it whatever it carries; a reader is told."""
        if self._response is not None:
            self._response.close()
        else:
            self.abort()

    def abort(self) -> None:
        """Close the socket now; the server sees it.

        In the middle of an exchange it sees a reset: a plain close comes after what the kernel has not
        sent yet, and a server that reads slowly would see the leaving seconds later.
        """
        if self._response is not None:
            self._response = None
            if not self._transport.is_closing():  # afterwards its descriptor may be another's
                self._transport.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE
                )
        self._transport.abort()
        self._lose()

    def rest(self) -> None:
        """Wait to be used again, for a limited time."""
        now = self._idle_since = monotonic()
        self._arm(now + self._idle_age_s, now)

    # What the loop says.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are none by inheritance
        self._plain = transport.get_extra_info("sslcontext") is None
        self._poll.register(transport.get_extra_info("socket").fileno(), _MISSED)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Lend the buffer to the next read."""
        return self._read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Parse what was read."""
        response = self._response
        if response is None:
            # Nobody asked: whatever this is, it must not become the beginning of the next response.
            self.abort()
            return
        self._heard = True
        self._without_body_bytes += nbytes
        try:
            self._parser.feed_data(self._read_buffer[:nbytes])
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self._complete:
                self._break(self._protocol_error(self._refusal or f"it is not HTTP/1.1 ({error})"))
                return
            # The response was complete; what follows it began a message, and so ended the keeping.
        if self._refusal:
            self._break(self._protocol_error(self._refusal))
        elif self._complete:
            self._finish(response)
        else:
            self._go_on(response)

    def eof_received(self) -> None:
        """The server closed its side: the end of a body without length, else a break.

        Whether such a body was cut on the way cannot be known here; whoever reads the dialect judges it.
        """
        response = self._response
        if response is not None:
            if self._until_eof:
                response.end()
            else:
                response.fail(failures.interrupted(self.label, self.delivery))
            self._response = None
        self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed."""
        response, self._response = self._response, None
        if response is not None:
            response.fail(failures.interrupted(self.label, self.delivery, exc))
        self._lose()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._parser = None  # it holds our methods: without this every connection is a cycle
        self._owner.closed(self)

    # What the parser says. It goes on into a second message if bytes of one follow the first.

    def on_message_begin(self) -> None:
        """A message begins; a second one means bytes that nobody asked for."""
        if self._complete:
            self._keep = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header of the head; trailers are dropped."""
        response = self._response
        if self._head_done or response is None:
            return
        headers = response.headers
        name = name.lower()
        headers[name] = headers[name] + b", " + value if name in headers else value

    def on_headers_complete(self) -> None:
        """Judge the head."""
        response = self._response
        if self._head_done or response is None:
            return
        status = self._parser.get_status_code()
        if status < 200:
            self._interim = True
            response.headers.clear()
            if status < 100 or status == 101:
                self._refusal = f"it answered with status {status}"
            return
        coding = response.headers.get(b"transfer-encoding")
        if coding is not None and coding.strip().lower() != b"chunked":
            self._refusal = "its body has a transfer encoding other than chunked"
            return
        if self._parser.get_http_version() not in ("1.1", "1.0"):
            self._refusal = "it answered with another version of HTTP"
            return
        if (
            self._without_body_bytes > WITHOUT_BODY_BYTES_MAX
            and _size(response.headers) > WITHOUT_BODY_BYTES_MAX
        ):
            self._refusal = _TOO_LARGE
            return
        self._until_eof = coding is None and b"content-length" not in response.headers
        self._head_done = True
        self._without_body_bytes = 0
        response.status = status

    def on_body(self, piece: bytes) -> None:
        """Keep a piece of the body."""
        response = self._response
        if self._complete or response is None:
            return
        self._without_body_bytes = 0
        if not self._in_body:
            self._in_body = True
            idle_s = self._timing.idle_s
            if idle_s is not None:
                now = monotonic()
                self._arm(now + idle_s, now)
        if not self._draining:
            response.take_in(piece)

    def on_message_complete(self) -> None:
        """The response is complete, unless it was an interim one."""
        if self._interim:
            self._interim = False
        elif not self._complete:
            self._complete = True
            self._keep = self._parser.should_keep_alive()

    # What follows from it.

    def _go_on(self, response: Http1Response) -> None:
        """Wake the reader, or stop reading where it does not keep up."""
        if self._without_body_bytes > WITHOUT_BODY_BYTES_MAX:
            self._break(self._protocol_error(_TOO_LARGE))
            return
        if response.buffered_bytes > BUFFERED_BYTES_MAX and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        if self._head_done:
            response.wake()

    def _finish(self, response: Http1Response) -> None:
        """Part from a complete response; the connection is kept only if nothing about it is odd."""
        self._response = None
        self.resume()
        # An answer that overtook its own request leaves the rest of it in the write buffer.
        keep = self._keep and not self._transport.get_write_buffer_size()
        response.end()
        if keep and not self._transport.is_closing():
            self._owner.returned(self)
        else:
            self.abort()

    def _break(self, error: UpstreamError) -> None:
        response = self._response
        assert response is not None
        response.fail(error)
        self.abort()

    def _protocol_error(self, what: str) -> UpstreamProtocolError:
        return UpstreamProtocolError(
            f"{self.label} did not answer as it should: {what}.",
            delivery=self.delivery,
            status=(self._response.status or None) if self._response is not None else None,
        )

    def _lose(self) -> None:
        if not self._lost:
            self._lost = True
            self._owner.lost(self)

    # Time.

    def _arm(self, when: float, now: float) -> None:
        """Let the timer fire at `when` or before; what it finds then decides."""
        if self._timer is not None:
            if self._armed_for <= when:
                return
            self._timer.cancel()
        self._armed_for = when
        # The millisecond more keeps a loop whose timers count in milliseconds from firing just too early.
        self._timer = self.loop.call_later(max(0.0, when - now) + 0.001, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._lost:
            return
        now = monotonic()
        when, phase = self._limit(now)
        if now < when:
            self._arm(when, now)
        elif self._response is None or self._draining:
            self.abort()
        else:
            self._break(failures.too_slow(self.label, phase, self.delivery))

    def _limit(self, now: float) -> tuple[float, str]:
        """When the present wait ends, and what the wait is for."""
        response = self._response
        if response is None:
            return self._idle_since + self._idle_age_s, ""
        deadline, first_event_s, idle_s = self._timing
        if not self._in_body:
            begins, phase = (None if first_event_s is None else self._begun + first_event_s), "first_event"
        else:
            # A reader that does not wait owes the server nothing: its time begins when it comes.
            since = now if response.waiting_since is None else response.waiting_since
            begins, phase = (None if idle_s is None else since + idle_s), "idle"
        return (deadline, "total") if begins is None or deadline <= begins else (begins, phase)


def _size(headers: dict[bytes, bytes]) -> int:
    return sum(map(len, headers)) + sum(map(len, headers.values()))
