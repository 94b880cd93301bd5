"""The admin plane's socket and the server behind it: uvicorn, in the loop that is there."""

import asyncio
import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import uvicorn

from tiergate.admin.guard import Guard
from tiergate.core import CannotStart

_STOP_S: Final = 2.0
_STARTED_S: Final = 10.0


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
    """Serves the admin plane from `start` to `stop`."""

    def __init__(self, plane: Guard, *, host: str, port: int) -> None:
        self._host, self._asked_port = host, port
        config = uvicorn.Config(
            plane,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            date_header=True,
            limit_concurrency=100,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=1,
        )
        self._server = _Server(config)
        self._serving: asyncio.Task[None] | None = None
        self.port = port
        """The one that it got, once it is started."""

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
