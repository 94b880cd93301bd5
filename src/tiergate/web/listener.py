"""The socket and the server behind it: granian's embedded server on a socket that we bound ourselves.

Signals are not handled here; whoever owns the process calls `stop`.
"""

import asyncio
import errno
import ipaddress
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import granian.net
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server

from tiergate.core import CannotStart
from tiergate.serve import STOPPING
from tiergate.web.endings import Endings, hang_up, reset, reset_unread
from tiergate.web.visit import ClientStalled, Visit, VisitLimits

Application = Callable[[Visit], Awaitable[None]]
"""Answers one visit. It lets no exception out but `ConnectionBroken`, `ClientGone` and cancellation."""

_LAST_WORDS_S: Final = 1.0
_ANSWER_LEAVES_S: Final = 0.1
"""For an answer on its way, before the rest of its request is cut off."""
_BUFFER_BYTES: Final = 64 * 1024
# granian configures Python's logging when it is made, and by default that closes every handler of the
# process. An incremental configuration only sets the level of granian's own logger.
_NO_LOGGING: Final = {"incremental": True, "formatters": {}, "handlers": {}, "loggers": {}}


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerLimits:
    """What one listener takes on.

    Attributes:
        connections: how many are served at a time, idle ones included. Those above it wait in the kernel's
            queue, unanswered, until one closes.
        backlog: length of that queue, at least 128; it also takes bursts of new connections. granian would
            use the one number for both if only one were given.
        header_read_s: time for the headers of a request, counted from the connection or from the answer
            before it: silent, slow and idle connections end here. More than the 60 s of common balancers.
        send_buffer_bytes: how much the kernel holds for a client that does not read; Linux counts twice
            that, and without it 2.5 MiB.
        read_bytes_per_s: how fast a client must read what of an answer is above that; the write-idle time
            comes on top.
        visit: the limits of each request.
    """

    connections: int = 2048
    backlog: int = 1024
    header_read_s: float = 65.0
    send_buffer_bytes: int = 64 * 1024
    read_bytes_per_s: int = 4096
    visit: VisitLimits = field(default_factory=VisitLimits)


class Listener:
    """Takes connections on one address and shows each request to the application as a `Visit`."""

    def __init__(self, application: Application, *, host: str, port: int, limits: ListenerLimits) -> None:
        """Prepare; nothing is bound yet. `port` 0 means any free one."""
        self._application = application
        self._host = "127.0.0.1" if host == "localhost" else host
        self._asked_port = port
        self._limits = limits
        self._inside: set[asyncio.Task[Any]] = set()
        self._endings = Endings()
        self._server: Any = None
        self._serving: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self._stopped = asyncio.Event()
        self._stopping = False
        self.port = port
        """The port in use; known after `start` where 0 was asked."""

    @property
    def visits(self) -> int:
        """How many requests are being answered now."""
        return len(self._inside)

    async def start(self) -> None:
        """Bind, and serve from now on.

        Raises:
            CannotStart: the address is not an IP address or not ours, or the port is taken.
        """
        bound = _bind(self._host, self._asked_port, self._limits)
        self.port = self._endings.port = bound.getsockname()[1]
        limits = self._limits
        self._server = _ServerOnSocket(
            bound,
            self._visit,
            address=self._host,
            port=self.port,
            interface=Interfaces.ASGINL,
            http=HTTPModes.http1,
            websockets=False,
            backlog=limits.backlog,
            backpressure=limits.connections,
            http1_settings=HTTP1Settings(
                header_read_timeout=int(limits.header_read_s * 1000), max_buffer_size=_BUFFER_BYTES
            ),
            log_enabled=False,
            log_dictconfig=_NO_LOGGING,
        )
        self._serving = asyncio.create_task(self._server.serve(), name="granian")
        # The socket listens already: who connects now is served as soon as granian runs. One moment shows
        # whether it starts at all.
        await asyncio.wait({self._serving}, timeout=0.01)
        if self._serving.done():
            bound.close()
            raise CannotStart("The HTTP server ended while it started.") from self._serving.exception()

    async def ended(self) -> None:
        """Wait until nothing is served any more, be it by `stop` or because the server failed."""
        assert self._serving is not None, "start comes first"
        await asyncio.wait({self._serving})

    async def stop(self, *, drain_s: float) -> None:
        """Take no more connections, let running requests finish for `drain_s`, then end them.

        When the time is over every running application is cancelled and has one second to tell its client;
        then the connections that are left are cut. A second call ends the first one's patience. Returns
        within `drain_s` and about two seconds, whatever the clients do.
        """
        if self._serving is None:
            return
        if self._stopping:
            self._hurry.set()
            await self._stopped.wait()
            return
        self._stopping = True
        self._server.stop()
        try:
            await self._drain(self._serving, drain_s)
            if not self._serving.done():
                await self._turn_out(self._serving)
        finally:
            self._stopped.set()

    async def _drain(self, serving: asyncio.Task[None], drain_s: float) -> None:
        hurry = asyncio.create_task(self._hurry.wait())
        try:
            await asyncio.wait({serving, hurry}, timeout=drain_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            hurry.cancel()

    async def _turn_out(self, serving: asyncio.Task[None]) -> None:
        for task in tuple(self._inside):
            task.cancel(STOPPING)
        # granian is done when every connection has sent what it had to send.
        await asyncio.wait({serving}, timeout=_LAST_WORDS_S)
        for task in tuple(self._inside):
            task.cancel(STOPPING)
        if not serving.done():
            self._endings.reset_all()
            # Never cancelled: granian's thread sets a future in it when the last connection has ended.
            await asyncio.wait({serving}, timeout=_LAST_WORDS_S)

    async def _visit(
        self, scope: Mapping[str, Any], receive: Callable[[], Any], send: Callable[[dict[str, Any]], Any]
    ) -> None:
        """One request, as granian shows it: a bare ASGI application."""
        visit = Visit(scope, receive, send, self._limits.visit)
        # It asks again, so it has read.
        self._endings.forget(visit.client)
        task = asyncio.current_task()
        assert task is not None
        self._inside.add(task)
        try:
            await self._application(visit)
        except ClientStalled:
            # granian looks at our failure only when it has room to write, which may be never.
            self._endings.later(visit.client, reset, after_s=0)
            raise
        finally:
            self._inside.discard(task)
            visit.leave()
            self._see_off(visit)

    def _see_off(self, visit: Visit) -> None:
        """Give a client a time to end its upload, or to read what it was answered."""
        limits = self._limits
        if visit.uploading:
            # A read that was called off goes on inside of granian, and holds the connection for as long as
            # the client likes: no time-out looks at it.
            self._endings.later(visit.client, hang_up, after_s=_ANSWER_LEAVES_S)
        elif visit.unread_bytes_max > limits.send_buffer_bytes:
            # A client that takes a few bytes now and then satisfies the kernel.
            patience_s = limits.visit.write_idle_s + visit.unread_bytes_max / limits.read_bytes_per_s
            self._endings.later(visit.client, reset_unread, after_s=patience_s)


class _ServerOnSocket(Server):
    """granian on a socket that is bound already.

    Its own way binds with SO_REUSEPORT, so that a second gateway would start on the same port and silently
    take half of the calls, and gives no hold on the options that accepted connections inherit.
    """

    _shd: Any

    def __init__(self, bound: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._bound = bound

    def _init_shared_socket(self) -> None:
        # granian's stubs know neither the holder's constructor nor that the module has it.
        net: Any = granian.net
        self._shd = net.SocketHolder(self._bound.detach(), False, self.backlog)


def _bind(host: str, port: int, limits: ListenerLimits) -> socket.socket:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise CannotStart(f"Cannot listen on {host!r}: give an IP address, or localhost.") from None
    bound = socket.socket(socket.AF_INET6 if address.version == 6 else socket.AF_INET, socket.SOCK_STREAM)
    try:
        _set_options(bound, limits)
        bound.bind((host, port))
        bound.listen(limits.backlog)
    except OSError as error:
        bound.close()
        raise CannotStart(_why_not(host, port, error)) from error
    return bound


def _set_options(bound: socket.socket, limits: ListenerLimits) -> None:
    # Only this: after a restart the old connections' remains must not block the port. A socket that still
    # listens does.
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # The rest is inherited by every accepted connection.
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, limits.send_buffer_bytes)
    # A whole answer is out of our hands before the client has read it. The kernel ends a connection that
    # takes nothing for this long.
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(limits.visit.write_idle_s * 1000))


def _why_not(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"Port {port} on {host} is taken. Stop what listens there (`ss -ltnp` shows it), "
            f"or set `listen` to another port."
        )
    if error.errno == errno.EACCES:
        return f"This user may not listen on port {port}. Set `listen` to a port above 1023."
    if error.errno == errno.EADDRNOTAVAIL:
        return f"This machine has no address {host}. Set `listen` to one of its own, or to 127.0.0.1."
    return f"Cannot listen on {host} port {port}: {os.strerror(error.errno or 0)}."
