"""The mock as a server: an OpenAI-compatible provider or engine on a real socket, playing a script."""

import asyncio
import socket
import ssl
from dataclasses import asdict, replace
from types import TracebackType
from typing import Final, Self

import msgspec

from tiergate.capacity import EngineStatistics
from tiergate.core import CannotStart, Clock, SystemClock
from tiergate.testing.ask import read_ask
from tiergate.testing.behaviour import Behaviour
from tiergate.testing.connection import Connection, Play
from tiergate.testing.log import LogEntry, MockStatistics
from tiergate.testing.performance import JSON, Page, error_object, perform_page
from tiergate.testing.requests import Request
from tiergate.testing.script import Script
from tiergate.testing.stage import Stage

CHAT_PATH: Final = "/v1/chat/completions"

_encode: Final = msgspec.json.Encoder().encode
_BACKLOG: Final = 4_096
_PLAIN: Final = Behaviour()
_MOCK_MODEL: Final = "mock"
_CREATED_S: Final = 1_767_225_600
_METRICS: Final = "text/plain; version=0.0.4; charset=utf-8"
_REBIND_TRIES: Final = 100


class MockServer:
    """A mock provider in this event loop.

    >>> async def main():
    ...     async with MockServer(Behaviour(reply="hello", stall_after=3)) as server:
    ...         print(server.base_url)   # http://127.0.0.1:40123/v1, for any OpenAI client
    """

    def __init__(
        self,
        script: Script | Behaviour | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        clock: Clock | None = None,
    ) -> None:
        self._script = script_of(script)
        self._host = host
        self._port = port
        self._clock = clock or SystemClock()
        self._tls: ssl.SSLContext | None = None
        self._stage: Stage | None = None
        self._listener: asyncio.AbstractServer | None = None
        self._shut_socket: socket.socket | None = None
        """Holds the port while the door is closed: bound and not listening, so connecting is refused."""
        self._connections: set[Connection] = set()
        self._connection_count = 0
        self._all_gone = asyncio.Event()
        self._all_gone.set()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Take the port and listen.

        Raises:
            CannotStart: the port is taken, the host is not ours, or the file for TLS cannot be used.
        """
        self._tls = _context(self._script)
        self._stage = Stage(self._script, asyncio.get_running_loop(), self._clock)
        self._shut_socket = self._bound()
        self._port = self._shut_socket.getsockname()[1]
        if not self._script.default.refuse:
            await self.open_door()

    async def close(self) -> None:
        """Stop listening and drop every connection."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if self._shut_socket is not None:
            self._shut_socket.close()
            self._shut_socket = None
        self.drop_connections()
        await self._all_gone.wait()

    @property
    def url(self) -> str:
        """`http://host:port`; `https` with a script that says `tls`."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'https' if self._script.tls else 'http'}://{host}:{self._port}"

    @property
    def base_url(self) -> str:
        """What an OpenAI client wants: the URL with `/v1`."""
        return self.url + "/v1"

    @property
    def log(self) -> list[LogEntry]:
        """What was asked, oldest first; the last 10,000."""
        return self._on_stage.log.entries()

    def statistics(self) -> MockStatistics:
        """Count what happened since the script began."""
        return self._on_stage.statistics()

    def engine_statistics(self) -> EngineStatistics | None:
        """Count what the engine holds; None without one."""
        return self._on_stage.engine_statistics()

    @property
    def connections_open(self) -> int:
        """Connections that are open now."""
        return len(self._connections)

    @property
    def connections_total(self) -> int:
        """Connections that were ever made, those included in which no TLS came about."""
        return self._connection_count

    async def play(self, script: Script | Behaviour) -> None:
        """Go over to another script, with counters and log from zero; answers on their way go on.

        Raises:
            CannotStart: the file for TLS cannot be used; the script before goes on.
        """
        before, now = self._script, script_of(script)
        self._tls = _context(now)
        if now.tls != before.tls:
            await self.close_door()
        self._script = now
        self._stage = Stage(self._script, asyncio.get_running_loop(), self._clock)
        if self._script.default.refuse:
            await self.close_door()
        else:
            await self.open_door()

    async def close_door(self) -> None:
        """Refuse new connections: connecting fails as on a machine where nothing runs. Others go on."""
        if self._listener is None:
            return
        self._listener.close()
        self._listener = None
        self._shut_socket = await self._bound_again()

    async def open_door(self) -> None:
        """Listen again, on the same port."""
        if self._shut_socket is None:
            return
        loop = asyncio.get_running_loop()
        taken, self._shut_socket = self._shut_socket, None
        self._listener = await loop.create_server(self._connect, sock=taken, backlog=_BACKLOG, ssl=self._tls)

    def drop_connections(self) -> None:
        """Tear down every connection, whatever it carries."""
        for connection in list(self._connections):
            connection.abort()

    @property
    def _on_stage(self) -> Stage:
        if self._stage is None:
            raise RuntimeError("the mock server was not started; use it with `async with`")
        return self._stage

    def _bound(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        taken = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.setblocking(False)
            taken.bind((self._host, self._port))
        except OSError as error:
            taken.close()
            raise CannotStart(f"Cannot listen on {self._host}:{self._port}: {error.strerror}.") from error
        return taken

    async def _bound_again(self) -> socket.socket:
        """Take the port that our own listener had a moment ago; the event loop closes it in its own time."""
        for _ in range(_REBIND_TRIES):
            try:
                return self._bound()
            except CannotStart:
                await asyncio.sleep(0.01)
        return self._bound()

    def _connect(self) -> Connection:
        self._connection_count += 1
        return Connection(
            self._connection_count,
            serve=self._serve,
            replay=self._replay,
            made=self._have,
            lost=self._lose,
            wall_ns=self._clock.wall_ns,
        )

    def _have(self, connection: Connection) -> None:
        # Not before: the connection of a client that refuses our certificate is never made, nor lost.
        self._connections.add(connection)
        self._all_gone.clear()

    def _lose(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._all_gone.set()

    def _replay(self, data: bytes, connection: int) -> bytes | None:
        return self._on_stage.replay(data, connection)

    def _serve(self, request: Request) -> Play:
        if request.path == CHAT_PATH and request.method == "POST":
            scene = self._on_stage.open(
                lambda: read_ask(request.body),
                path=request.path,
                headers=request.headers,
                body_bytes=len(request.body),
                connection=request.connection,
            )
            return Play(scene.steps(), scene)
        broken = self._on_stage.open_other(
            path=request.path, headers=request.headers, connection=request.connection
        )
        if broken is not None:
            return Play(broken.steps(), broken)
        return Play(perform_page(self._page(request), _PLAIN, "req-page"), None)

    def _page(self, request: Request) -> Page:
        page = None
        if request.method in ("GET", "HEAD"):
            page = self._models(request.path) or self._view(request.path)
        if page is None:
            message = f"There is no {request.method} {request.path} at this mock."
            page = Page(status=404, content_type=JSON, data=error_object(404, message))
        # HEAD is answered like GET without the body; the length would say more than follows, so it is 0.
        return replace(page, data=b"") if request.method == "HEAD" else page

    def _models(self, path: str) -> Page | None:
        models = [
            {"id": name, "object": "model", "created": _CREATED_S, "owned_by": "tiergate-mock"}
            for name in self._script.models or (_MOCK_MODEL,)
        ]
        if path == "/v1/models":
            return _json({"object": "list", "data": models})
        found = [model for model in models if path == f"/v1/models/{model['id']}"]
        return _json(found[0]) if found else None

    def _view(self, path: str) -> Page | None:
        stage = self._on_stage
        match path:
            case "/health":
                return Page(status=200, content_type=JSON, data=b"")
            case "/mock/log":
                return _json({"data": [entry.as_json() for entry in stage.log.entries()]})
            case "/mock/statistics":
                engine = stage.engine_statistics()
                return _json(
                    {
                        **asdict(stage.statistics()),
                        "connections_open": self.connections_open,
                        "connections_total": self.connections_total,
                        "engine": None if engine is None else asdict(engine),
                    }
                )
            case "/metrics":
                engine = stage.engine_statistics()
                return None if engine is None else self._metrics(engine)
            case _:
                return None

    def _metrics(self, engine: EngineStatistics) -> Page:
        """The gauges and counters that routers read, under the names that vLLM gives them."""
        model = (self._script.models or (_MOCK_MODEL,))[0]
        values = (
            ("num_requests_running", "gauge", engine.running),
            ("num_requests_waiting", "gauge", engine.waiting),
            ("kv_cache_usage_perc", "gauge", engine.kv_share),
            ("prompt_tokens_total", "counter", engine.prompt_tokens),
            ("generation_tokens_total", "counter", engine.output_tokens),
        )
        lines = [
            f'# TYPE vllm:{name} {kind}\nvllm:{name}{{model_name="{model}"}} {float(value)}\n'
            for name, kind, value in values
        ]
        return Page(status=200, content_type=_METRICS, data="".join(lines).encode())


def script_of(script: Script | Behaviour | None) -> Script:
    """Give a script that answers everything in one way, where no script is given."""
    if script is None:
        return Script()
    return Script(default=script) if isinstance(script, Behaviour) else script


def _context(script: Script) -> ssl.SSLContext | None:
    """Make what TLS needs, from a certificate that clients need not like: that is their part to find out."""
    if script.tls is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(script.tls)
    except OSError as error:
        reason = "it holds no key with its certificate" if isinstance(error, ssl.SSLError) else error.strerror
        raise CannotStart(f"The file for TLS {script.tls} cannot be used: {reason}.") from error
    return context


def _json(value: object) -> Page:
    return Page(status=200, content_type=JSON, data=_encode(value))
