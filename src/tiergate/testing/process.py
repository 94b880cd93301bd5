"""The mock as a process of its own: run one here, or start one and end it with the block that started it."""

import asyncio
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

from tiergate.core import CannotStart
from tiergate.testing.script import Script
from tiergate.testing.server import MockServer

_START_S: Final = 20.0
_END_S: Final = 3.0


async def run_mock(
    script: Script,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    ready: Callable[[MockServer], None] | None = None,
    ended: asyncio.Event | None = None,
) -> None:
    """Serve a script until SIGINT or SIGTERM, or until `ended` is set.

    Args:
        script: what to answer.
        host: an address of this machine.
        port: 0: one that is free.
        ready: called once, when the first request can come.
        ended: another way to stop it.

    Raises:
        CannotStart: the port is taken.
    """
    loop = asyncio.get_running_loop()
    ended = ended or asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    try:
        async with MockServer(script, host=host, port=port) as server:
            if ready is not None:
                ready(server)
            await ended.wait()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


class MockProcess:
    """A mock server in a process of its own, which ends when the block does, or when this process dies.

    >>> with MockProcess("default: {words: 300, tokens_per_s: 50}") as mock:
    ...     print(mock.base_url, mock.pid)   # http://127.0.0.1:40123/v1 4711
    """

    def __init__(self, script: str = "", *, host: str = "127.0.0.1", port: int = 0) -> None:
        """Take the script as the text of its YAML."""
        self._script = script
        self._host = host
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""
        """`http://host:port`, once it runs."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def base_url(self) -> str:
        """What an OpenAI client wants: the URL with `/v1`."""
        return self.url + "/v1"

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._running.pid

    def start(self) -> None:
        """Start it and wait until it listens; blocks for a part of a second.

        Raises:
            SettingsError: the script is wrong; found here, before anything starts.
            CannotStart: it did not begin to listen.
        """
        Script.from_yaml(self._script)
        command = [sys.executable, "-m", "tiergate.testing", "--piped"]
        command += ["--host", self._host, "--port", str(self._port)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603 - our own interpreter and module
        try:
            self._say(self._script)
            self.url = str(self._hear()["url"])
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End it: first by closing its input, then with signals. Later calls do nothing."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it may have died before it read the script
            process.stdin.close()
        if not _gone(process):
            process.terminate()
            if not _gone(process):
                process.kill()
                process.wait()
        process.stdout.close()

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the mock process was not started; use it with `with`")
        return self._process

    def _say(self, script: str) -> None:
        pipe = self._running.stdin
        assert pipe is not None
        try:
            pipe.write(json.dumps(script).encode() + b"\n")
            pipe.flush()
        except BrokenPipeError as error:
            raise self._silent() from error

    def _hear(self) -> dict[str, Any]:
        pipe = self._running.stdout
        assert pipe is not None
        readable, _, _ = select.select([pipe], [], [], _START_S)
        line = pipe.readline() if readable else b""
        if not line:
            raise self._silent()
        said: dict[str, Any] = json.loads(line)
        return said

    def _silent(self) -> CannotStart:
        return CannotStart(
            f"The mock process did not begin to listen on {self._host}:{self._port}; its own output says why."
        )


async def run_piped(*, host: str, port: int) -> None:
    """Be the child of a `MockProcess`: script in on the first line, URL out on one, end with the input."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 26)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    script = Script.from_yaml(json.loads(await reader.readline()))
    ended = asyncio.Event()

    async def watch() -> None:
        await reader.read()
        ended.set()

    watching = asyncio.create_task(watch())
    await run_mock(script, host=host, port=port, ready=_announce, ended=ended)
    watching.cancel()


def _announce(server: MockServer) -> None:
    os.write(sys.stdout.fileno(), json.dumps({"url": server.url, "pid": os.getpid()}).encode() + b"\n")


def _gone(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        return False
    return True
