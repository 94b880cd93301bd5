"""Our own HTTP/1.1 transport: pools of connections, and how a connection is made and verified.

It exists because money needs to know whether a request was delivered, and because a server of ours must
stop working the moment nobody waits; neither can be had from a general client (docs/decisions).
"""

import asyncio
import ipaddress
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import Final

from tiergate.core import Delivery, UpstreamError
from tiergate.upstream import failures
from tiergate.upstream.connection import READ_BYTES, Connection
from tiergate.upstream.tls import Trust
from tiergate.upstream.transport import (
    Endpoint,
    Origin,
    OriginStatistics,
    Response,
    Timing,
    TransportStatistics,
    nobody_asks,
)

IDLE_AGE_S: Final = 15.0
"""How long an idle connection is kept. Servers close theirs after 5 s (uvicorn, Node) to 75 s (nginx), and
a request sent into such a close is lost without proof; calls that are further apart pay for a new
connection, which is cheap beside an answer of seconds. A close that arrives while we wait is seen."""


Resolve = Callable[[Origin], Awaitable[Sequence[tuple[int, str]]]]
"""Finds an origin's addresses, each with its family, the first to be tried first."""


class _Pool:
    """The connections to one origin. A place is held by each of them and by each attempt to open one."""

    __slots__ = ("_left", "busy", "idle", "opening", "origin", "sockets", "waiters")

    def __init__(self, origin: Origin, left: Callable[["_Pool"], None]) -> None:
        self.origin = origin
        self.idle: list[Connection] = []
        self.busy: set[Connection] = set()
        self.opening = 0
        self.waiters: deque[asyncio.Future[Connection | None]] = deque()
        self.sockets: set[Connection] = set()
        """Those whose socket is open, also while it is being closed."""
        self._left = left
        """Told whenever something has left the pool."""

    def take(self) -> Connection | None:
        """Take the idle connection that was used last: the others may grow old and close."""
        while self.idle:
            connection = self.idle.pop()
            if connection.is_fit():
                self.busy.add(connection)
                return connection
            connection.abort()
        return None

    def is_full(self) -> bool:
        """Whether every place is held."""
        return len(self.busy) + self.opening + len(self.idle) >= self.origin.max_connections

    def is_unused(self) -> bool:
        """Whether nothing is here that the pool must be kept for."""
        return not (self.idle or self.busy or self.opening or self.waiters or self.sockets)

    def pass_on(self) -> None:
        """Something has left: let the first who waits open a connection, if there is a place."""
        if self.waiters and not self.is_full():
            waiter = self._next_waiter()
            if waiter is not None:
                self.opening += 1
                waiter.set_result(None)
        self._left(self)

    # What connections say.

    def returned(self, connection: Connection) -> None:
        """Hand a connection to the first who waits, else let it rest."""
        waiter = self._next_waiter()
        if waiter is not None:
            waiter.set_result(connection)
        else:
            self.busy.discard(connection)
            self.idle.append(connection)
            connection.rest()

    def lost(self, connection: Connection) -> None:
        """Give the place of a lost connection to the first who waits."""
        self.busy.discard(connection)
        if connection in self.idle:
            self.idle.remove(connection)
        self.pass_on()

    def closed(self, connection: Connection) -> None:
        """Its socket is closed."""
        self.sockets.discard(connection)
        self.pass_on()

    def _next_waiter(self) -> asyncio.Future[Connection | None] | None:
        while self.waiters:
            waiter = self.waiters.popleft()
            if not waiter.done():
                return waiter
        return None


class Http1Transport:
    """Carries requests over HTTP/1.1; belongs to the loop that first uses it.

    `connect_s` bounds the finding of the address, the connecting and the TLS handshake together;
    `pool_wait_s` the waiting for a place where all of an origin's connections are in use. `resolve` finds
    an origin's addresses; what it gives is what is connected to.
    """

    def __init__(
        self,
        *,
        connect_s: float = 3.0,
        pool_wait_s: float = 1.0,
        idle_age_s: float = IDLE_AGE_S,
        resolve: Resolve | None = None,
    ) -> None:
        self._resolve = resolve or system_addresses
        self._connect_s = connect_s
        self._pool_wait_s = pool_wait_s
        self._idle_age_s = idle_age_s
        self._pools: dict[Origin, _Pool] = {}
        self._trust = Trust()
        self._read_buffer = memoryview(bytearray(READ_BYTES))
        self._opened = 0
        self._all_closed: asyncio.Future[None] | None = None

    async def send(
        self, endpoint: Endpoint, body: bytes, *, timing: Timing, mark_sent: Callable[[], None] = nobody_asks
    ) -> Response:
        """Send a request and wait for the head of its response.

        A request that finds its idle connection dead before a byte of it left goes once more, over a new
        connection: that is proven non-delivery. One whose connection closes after the write is never
        repeated here, though most such closes are a server's idle time-out: it may have been received, be
        running and be billed. It fails with delivery POSSIBLE, and whoever holds the money decides.
        """
        if monotonic() >= timing.deadline:
            raise failures.too_slow(endpoint.label, "total", Delivery.NONE)
        request = b"%bcontent-length: %d\r\n\r\n%b" % (endpoint.head, len(body), body)
        pool = self._pools.get(endpoint.origin) or self._new_pool(endpoint.origin)
        connection = pool.take() or await self._acquire(pool, endpoint.label, timing.deadline)
        mark_sent()
        response = connection.begin(endpoint.label, request, timing)
        if response is None:
            connection = await self._acquire(pool, endpoint.label, timing.deadline)
            response = connection.begin(endpoint.label, request, timing)
        if response is None:
            raise failures.unreachable(endpoint.label, ConnectionResetError())
        await response.head()
        return response

    def statistics(self) -> TransportStatistics:
        """What is open now."""
        return TransportStatistics(
            origins=tuple(
                OriginStatistics(
                    origin=pool.origin,
                    open=len(pool.sockets),
                    idle=len(pool.idle),
                    in_flight=len(pool.busy),
                    waiting=len(pool.waiters),
                )
                for pool in self._pools.values()
            ),
            opened=self._opened,
        )

    async def aclose(self) -> None:
        """Close every connection; exchanges in flight fail. Returns when the sockets are closed."""
        self._all_closed = asyncio.get_running_loop().create_future()
        for pool in list(self._pools.values()):
            for connection in list(pool.sockets):
                connection.close()
        if any(pool.sockets for pool in self._pools.values()):
            await self._all_closed

    def _new_pool(self, origin: Origin) -> _Pool:
        pool = self._pools[origin] = _Pool(origin, self._left)
        return pool

    def _left(self, pool: _Pool) -> None:
        if pool.is_unused():
            # Reloads bring new origins and abandon old ones, so an empty pool is not kept.
            self._pools.pop(pool.origin, None)
        closed = self._all_closed
        if closed is not None and not closed.done() and not any(p.sockets for p in self._pools.values()):
            closed.set_result(None)

    async def _acquire(self, pool: _Pool, label: str, deadline: float) -> Connection:
        """Get a connection that carries nothing, new or handed on, waiting for a place if there is none."""
        if not pool.is_full():
            pool.opening += 1
        else:
            handed_on = await self._wait_for_place(pool, label, deadline)
            if handed_on is not None:
                if handed_on.is_fit():
                    return handed_on
                pool.opening += 1
                handed_on.abort()
        try:
            connection = await self._open(pool, label, deadline)
            if self._all_closed is not None:
                connection.abort()
                raise failures.closed(label)
            if not connection.is_open():
                raise failures.unreachable(label, ConnectionResetError())
            # Only now and not in connection_made: uvloop never says connection_lost of a connection
            # whose opening is cancelled just after it succeeded.
            self._opened += 1
            pool.sockets.add(connection)
            pool.busy.add(connection)
            return connection
        finally:
            pool.opening -= 1
            pool.pass_on()

    async def _wait_for_place(self, pool: _Pool, label: str, deadline: float) -> Connection | None:
        """Wait to be handed a connection, or (None) the place for a new one, already counted as opening."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[Connection | None] = loop.create_future()
        limit_s, phase = _shorter(self._pool_wait_s, "pool", deadline)
        timer = loop.call_later(limit_s, _give_up, turn, failures.too_slow(label, phase, Delivery.NONE))
        pool.waiters.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._hand_back(pool, turn.result())
            raise
        finally:
            timer.cancel()

    def _hand_back(self, pool: _Pool, handed_on: Connection | None) -> None:
        """What was given to a waiter that left goes to the next one."""
        if handed_on is None:
            pool.opening -= 1
            pool.pass_on()
        elif handed_on.is_fit():
            pool.returned(handed_on)
        else:
            handed_on.abort()

    async def _open(self, pool: _Pool, label: str, deadline: float) -> Connection:
        limit_s, phase = _shorter(self._connect_s, "connect", deadline)
        if self._all_closed is not None:
            raise failures.closed(label)
        try:
            async with asyncio.timeout(limit_s):
                return await self._connect(pool, label, monotonic() + limit_s)
        except TimeoutError as error:
            raise failures.too_slow(label, phase, Delivery.NONE) from error
        except (OSError, UnicodeError) as error:
            raise failures.unreachable(label, error) from error

    async def _connect(self, pool: _Pool, label: str, until: float) -> Connection:
        """Try the origin's addresses in order; each may take its share of the time that is left."""
        origin = pool.origin
        loop = asyncio.get_running_loop()
        context = await self._trust.context(origin.ca_file, label) if origin.scheme == "https" else None
        addresses = await self._resolve(origin)
        for left in range(len(addresses), 0, -1):
            family, address = addresses[-left]
            share_s = (until - monotonic()) / left
            try:
                async with asyncio.timeout(share_s):
                    _, connection = await loop.create_connection(
                        lambda: self._new_connection(loop, pool),
                        address,
                        origin.port,
                        family=family,
                        ssl=context,
                        server_hostname=origin.host if context is not None else None,
                    )
                    return connection
            except OSError:
                if left == 1:
                    raise
        raise socket.gaierror(socket.EAI_NONAME, "no address")

    def _new_connection(self, loop: asyncio.AbstractEventLoop, pool: _Pool) -> Connection:
        return Connection(pool, loop=loop, read_buffer=self._read_buffer, idle_age_s=self._idle_age_s)


async def system_addresses(origin: Origin) -> Sequence[tuple[int, str]]:
    """Find an origin's addresses, each with its family, in the system's order, each once."""
    try:
        literal = ipaddress.ip_address(origin.host)
    except ValueError:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
        return list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found))
    return [(socket.AF_INET if literal.version == 4 else socket.AF_INET6, origin.host)]


def _shorter(limit_s: float, phase: str, deadline: float) -> tuple[float, str]:
    """The shorter of a phase's own limit and what is left until the deadline, and which one it is."""
    left_s = deadline - monotonic()
    return (limit_s, phase) if limit_s < left_s else (max(0.0, left_s), "total")


def _give_up(turn: asyncio.Future[Connection | None], error: UpstreamError) -> None:
    if not turn.done():
        turn.set_exception(error)
