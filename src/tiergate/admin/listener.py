"""The admin plane's socket and the server behind it: uvicorn, in the loop that is there."""

import asyncio
import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import uvicorn

from tiergate.admin.connection import BoundedConnection
from tiergate.admin.guard import App
from tiergate.core import CannotStart

_STOP_S: Final = 2.0
_STARTED_S: Final = 10.0


class _Config(uvicorn.Config):
    exchange_s: float


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self.is_up.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to whoever owns the process."""
        yield


class AdminListener:
    """Serves the admin plane from `start` to `stop`.

    `exchange_s` bounds a request and its answer together, however slowly its client sends or reads.
    """

    def __init__(self, plane: App, *, host: str, port: int, exchange_s: float = 60.0) -> None:
        self._host, self._asked_port = host, port
        config = _Config(
            plane,
            http=BoundedConnection,
            # Whatever is installed: a request for an upgrade comes to the guard, which refuses it.
            ws="none",
            # Nor does a header say who a client is.
            proxy_headers=False,
            log_config=None,
            # uvicorn would tell in its own way, as often as anybody likes, what it takes for no request. What
            # fails in the plane is told by the guard.
            log_level="critical",
            access_log=False,
            lifespan="off",
            server_header=False,
            date_header=True,
            limit_concurrency=100,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=1,
        )
        config.exchange_s = exchange_s
        self._server = _Server(config)
        self._serving: asyncio.Task[None] | None = None
        self.port = port
        """The one that it got, once it is started."""

    @property
    def connections(self) -> int:
        """How many are open now."""
        return len(self._server.server_state.connections)

    async def start(self, *, may_move: bool = False) -> None:
        """Bind and serve. `may_move`: where the port is taken, a free one will do.

        Raises:
            CannotStart: the address cannot be had.
        """
        try:
            bound = _bound(self._host, self._asked_port)
        except OSError as error:
            if not may_move or error.errno != errno.EADDRINUSE:
                raise CannotStart(
                    f"The admin plane cannot listen on {self._host}:{self._asked_port} ({error.strerror}). "
                    "Set another `admin.listen`; port 0 takes a free one."
                ) from error
            bound = _bound(self._host, 0)
        self.port = bound.getsockname()[1]
        self._serving = asyncio.create_task(self._server.serve(sockets=[bound]))
        async with asyncio.timeout(_STARTED_S):
            await self._server.is_up.wait()

    async def stop(self) -> None:
        """Let what runs finish for a moment, and close."""
        if self._serving is None:
            return
        self._server.should_exit = True
        done, _ = await asyncio.wait({self._serving}, timeout=_STOP_S)
        if not done:
            self._server.force_exit = True
            self._serving.cancel()
            await asyncio.wait({self._serving})


def _bound(host: str, port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound
