"""One TCP connection of the mock: requests in, steps out, byte for byte as the script wants them.

Requests are parsed by httptools; replies are written by hand, because every HTTP framework would mend what
is meant to be broken. Requests that come in one piece (pipelining) are answered in their order.
"""

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterator
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Final, NamedTuple, cast

from tiergate.testing.log import Ended
from tiergate.testing.requests import Request, RequestReader, Unreadable
from tiergate.testing.stage import Scene
from tiergate.testing.steps import End, Headers, How, Pause, Status, Step, Token, Torn

_WAITING_MAX: Final = 64
"""Requests that may wait for their turn on one connection."""
_FLUSH_BYTES: Final = 64 << 10
_GOOD_END: Final = End(How.KEEP)
_RESET_PATIENCE_S: Final = 1.0
_LINGER_NOT: Final = struct.pack("ii", 1, 0)


class Play(NamedTuple):
    """What a request is answered with; `scene` None: nothing that is logged."""

    steps: Iterator[Step]
    scene: Scene | None


class Connection(asyncio.Protocol):
    """Reads requests, hands each to `serve`, and performs the steps that it gives."""

    def __init__(
        self,
        number: int,
        *,
        serve: Callable[[Request], Play],
        replay: Callable[[bytes, int], bytes | None],
        made: Callable[["Connection"], None],
        lost: Callable[["Connection"], None],
        wall_ns: Callable[[], int],
    ) -> None:
        self._number = number
        self._serve = serve
        self._replay = replay
        self._made = made
        self._lost = lost
        self._wall_ns = wall_ns
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._reader = RequestReader(number)
        self._waiting: deque[Request] = deque()
        self._reading_paused = False
        # The reply that is going on.
        self._request: Request | None = None
        self._play: Play | None = None
        self._chunked = False
        self._timer: asyncio.TimerHandle | None = None
        self._writing_paused = False
        self._held = False
        """Steps stopped because the client does not read."""
        self._all_at_once = True
        """Nothing of the reply was sent before its end."""
        self._leaving = False
        """A reset is on its way."""

    # The socket.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection; small pieces leave at once."""
        self._transport = cast("asyncio.Transport", transport)
        self._made(self)
        self._socket_option(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        """Read on."""
        if not self._open():
            return
        idle = not (self._play or self._waiting or self._writing_paused) and self._reader.between
        if idle and (reply := self._replay(data, self._number)) is not None:
            self._write(reply)
            return
        try:
            self._waiting.extend(self._reader.feed(data))
        except Unreadable as error:
            self._refuse(error.status)
        if self._reader.wants_permission() and self._play is None and not self._waiting:
            self._write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._work()

    def eof_received(self) -> None:
        """The client said that nothing more comes: it leaves, whatever it may still read."""
        self._stop(Ended.ABORTED)

    def connection_lost(self, error: Exception | None) -> None:
        """The client is gone, or we left."""
        self._stop(Ended.ABORTED)
        self._transport = None
        self._waiting.clear()
        self._lost(self)

    def pause_writing(self) -> None:
        """The client does not read as fast as we write."""
        self._writing_paused = True

    def resume_writing(self) -> None:
        """It caught up."""
        self._writing_paused = False
        if self._held:
            self._held = False
            self._go_on()

    def abort(self) -> None:
        """Leave at once."""
        if self._transport is not None:
            self._transport.abort()

    def _refuse(self, status: int) -> None:
        # What is going on is not finished for a client that sends something that is no request.
        self._stop(Ended.ABORTED)
        self._waiting.clear()
        self._write(_status_line(status) + b"content-length: 0\r\nconnection: close\r\n\r\n")
        self._close()

    # The reply.

    def _work(self) -> None:
        """Answer the requests that wait, one after the other, until an answer takes time."""
        while self._play is None and self._waiting and self._open():
            self._request = self._waiting.popleft()
            self._play = self._serve(self._request)
            self._all_at_once = True
            self._perform()
        self._bound_reading()

    def _bound_reading(self) -> None:
        crowded = len(self._waiting) >= _WAITING_MAX
        if self._transport is None or not self._open() or crowded == self._reading_paused:
            return
        self._reading_paused = crowded
        if crowded:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _go_on(self) -> None:
        self._perform()
        self._work()

    def _perform(self) -> None:
        """Perform steps until one must wait."""
        if self._play is None or self._must_hold():
            return
        steps, scene = self._play
        pace = None if scene is None else scene.pace
        out: list[bytes] = []
        size = 0
        for step in steps:
            match step:
                case bytes():
                    out.append(self._framed(step))
                    size += len(step)
                    if size >= _FLUSH_BYTES:
                        self._send_early(out)
                        out.clear()
                        size = 0
                        if self._must_hold():
                            return
                case Token():
                    assert pace is not None
                    if not pace.reached(step):
                        self._send_early(out)
                        pace.when(step, self._go_on)
                        return
                case Status():
                    if scene is not None:
                        scene.entry.status = step.code
                    out.append(_status_line(step.code))
                case Headers():
                    out.append(self._header_block(step))
                case Torn():
                    out.append(self._torn(step))
                case Pause():
                    self._send_early(out)
                    self._timer = self._loop.call_later(step.seconds, self._go_on)
                    return
                case End():
                    self._end(step, b"".join(out))
                    return

    def _open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing() and not self._leaving

    def _must_hold(self) -> bool:
        self._held = self._writing_paused
        return self._held

    def _framed(self, data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data

    def _torn(self, torn: Torn) -> bytes:
        end = b"\r\n" if torn.closed else b""
        return b"%x\r\n%b%b" % (torn.claimed, torn.data, end) if self._chunked else torn.data

    def _header_block(self, headers: Headers) -> bytes:
        assert self._request is not None
        lines = [f"{name}: {value}\r\n" for name, value in headers.pairs]
        self._chunked = headers.chunked
        if headers.chunked and not self._request.http_1_1:
            # HTTP/1.0 has no chunks: the end of the connection is the end of the body.
            lines = [line for line in lines if not line.startswith("transfer-encoding:")]
            self._chunked = False
        if not self._keeps_alive():
            lines.append("connection: close\r\n")
        if not any(name == "date" for name, _ in headers.pairs):
            lines.append(_date(self._wall_ns() // 1_000_000_000))
        return "".join(lines).encode("latin-1", "replace") + b"\r\n"

    def _keeps_alive(self) -> bool:
        return self._request is not None and self._request.keep_alive and self._request.http_1_1

    def _end(self, end: End, out: bytes) -> None:
        assert self._play is not None and self._transport is not None
        keep_alive = self._keeps_alive()
        request, scene = self._request, self._play.scene
        if self._chunked and end.how in (How.KEEP, How.CLOSE):
            out += b"0\r\n\r\n"
        self._write(out)
        if end.how is How.HANG:
            return
        self._stop(Ended.COMPLETED if end.complete else Ended.BROKEN)
        if request is not None and scene is not None and end == _GOOD_END and keep_alive:
            self._keep(scene, request, out)
        if end.how is How.RESET:
            self._leaving = True
            self._reset_when_sent(self._loop.time() + _RESET_PATIENCE_S)
        elif end.how is How.CLOSE or not keep_alive:
            self._close()

    def _keep(self, scene: Scene, request: Request, reply: bytes) -> None:
        if self._all_at_once and request.raw is not None:
            scene.stage.keep(scene, request.raw, reply)

    def _stop(self, how: Ended) -> None:
        """End the reply that is going on, if there is one."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        play, self._play, self._request = self._play, None, None
        self._chunked = self._held = False
        if play is not None and play.scene is not None:
            play.scene.finish(how)

    def _reset_when_sent(self, until: float) -> None:
        # A reset throws away what the kernel has not been given yet, so wait for that, but not for ever.
        if self._transport is None:
            return
        if self._transport.get_write_buffer_size() and self._loop.time() < until:
            self._loop.call_later(0.001, self._reset_when_sent, until)
            return
        self._socket_option(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        self._transport.abort()

    def _send_early(self, out: list[bytes]) -> None:
        self._all_at_once = False
        self._write(b"".join(out))

    def _write(self, data: bytes) -> None:
        if data and self._transport is not None:
            self._transport.write(data)

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _socket_option(self, level: int, name: int, value: int | bytes) -> None:
        assert self._transport is not None
        self._transport.get_extra_info("socket").setsockopt(level, name, value)


@lru_cache(maxsize=64)
def _status_line(code: int) -> bytes:
    try:
        phrase = HTTPStatus(code).phrase
    except ValueError:
        phrase = "Unknown"
    return f"HTTP/1.1 {code} {phrase}\r\n".encode()


@lru_cache(maxsize=2)
def _date(wall_s: int) -> str:
    return f"date: {formatdate(wall_s, usegmt=True)}\r\n"
