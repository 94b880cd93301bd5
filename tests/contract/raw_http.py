"""Raw sockets against a real listener, so that no HTTP library mends what the tests look for."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import uvloop

from tiergate.web.listener import Application, Listener, ListenerLimits
from tiergate.web.visit import VisitLimits

JSON = ((b"content-type", b"application/json"),)
STREAM = ((b"content-type", b"text/event-stream"),)
LAST_CHUNK = b"\r\n0\r\n\r\n"

_open: list["Client"] = []


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run an asynchronous test on the loop that the gateway uses; at most 15 seconds. Closes its clients."""

    async def guarded() -> None:
        async with asyncio.timeout(15):
            await main()

    try:
        uvloop.run(guarded())
    finally:
        while _open:
            _open.pop().close()


@contextlib.asynccontextmanager
async def listening(
    application: Application,
    *,
    header_read_s: float = 5.0,
    write_idle_s: float = 5.0,
    connections: int = 200,
    read_bytes_per_s: int = 4096,
    visit: VisitLimits | None = None,
) -> AsyncIterator[Listener]:
    """Run the application on a free port of loopback, and stop it at the end."""
    limits = ListenerLimits(
        header_read_s=header_read_s,
        connections=connections,
        read_bytes_per_s=read_bytes_per_s,
        visit=visit or VisitLimits(write_idle_s=write_idle_s),
    )
    listener = Listener(application, host="127.0.0.1", port=0, limits=limits)
    await listener.start()
    try:
        yield listener
    finally:
        await listener.stop(drain_s=0)


def request(
    target: str = "/", body: bytes | None = None, *, method: str | None = None, more: bytes = b""
) -> bytes:
    """Write a well-formed request; `more` are further header lines, each with its line end."""
    verb = method or ("GET" if body is None else "POST")
    length = b"" if body is None else b"Content-Length: %d\r\n" % len(body)
    return b"%s %s HTTP/1.1\r\nHost: localhost\r\n%s%s\r\n" % (
        verb.encode(),
        target.encode("latin-1"),
        length,
        more,
    ) + (body or b"")


class Client:
    """One connection: what it received, and when."""

    def __init__(self, port: int, *, receive_buffer: int | None = None) -> None:
        self.received = b""
        self.arrivals: list[tuple[float, bytes]] = []
        self.ended = False
        self._socket = socket.socket()
        _open.append(self)
        if receive_buffer is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.connect(("127.0.0.1", port))
        self._socket.setblocking(False)

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._socket, data)

    async def read_some(self) -> bool:
        """Wait for the next bytes; False when the connection has ended."""
        try:
            data = await asyncio.get_running_loop().sock_recv(self._socket, 65536)
        except ConnectionError:
            data = b""
        if not data:
            self.ended = True
            return False
        self.received += data
        self.arrivals.append((time.monotonic(), data))
        return True

    async def read_until(self, marker: bytes, *, timeout_s: float = 3.0) -> bool:
        """Read until `marker` was received; False if the connection ended before."""
        async with asyncio.timeout(timeout_s):
            while marker not in self.received:
                if not await self.read_some():
                    return False
        return True

    async def read_to_end(self, *, timeout_s: float = 3.0) -> bytes:
        """Read until the connection ends."""
        async with asyncio.timeout(timeout_s):
            while await self.read_some():
                pass
        return self.received

    async def read_for(self, seconds: float) -> bytes:
        """Read what arrives within so many seconds."""
        try:
            return await self.read_to_end(timeout_s=seconds)
        except TimeoutError:
            return self.received

    def sip(self, count: int) -> None:
        """Read at most so many bytes of those that are here."""
        self._socket.recv(count)

    async def trickle(self, *, bytes_each: int, every_s: float) -> None:
        """Read so much at a time until the connection ends."""
        with contextlib.suppress(ConnectionError):
            while await asyncio.get_running_loop().sock_recv(self._socket, bytes_each):
                await asyncio.sleep(every_s)

    def stop_sending(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._socket.close()


async def exchange(port: int, data: bytes, marker: bytes | None = None) -> bytes:
    """Send and give all that comes back: up to `marker`, or to the end of the connection."""
    client = Client(port)
    try:
        await client.send(data)
        if marker is None:
            return await client.read_to_end()
        await client.read_until(marker)
        return client.received
    finally:
        client.close()


async def until(condition: Callable[[], bool], *, timeout_s: float = 3.0) -> float:
    """Wait until the condition holds; give the seconds that it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < timeout_s, "the condition did not come true in time"
        await asyncio.sleep(0.005)
    return time.monotonic() - began


async def finished(awaitable: Awaitable[object], *, timeout_s: float) -> float:
    """Wait for it at most so long; give the seconds that it took."""
    began = time.monotonic()
    async with asyncio.timeout(timeout_s):
        await awaitable
    return time.monotonic() - began
