"""A real gateway in a process of its own, for tests that look at it from outside."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from urllib.request import urlopen

import yaml

import tiergate
from nursery import Child, Nursery
from tiergate.app.house import read_ledger
from tiergate.core import EndState
from tiergate.ledger import Entry, HoldState
from tiergate.store import find_owner
from tiergate.testing import MockProcess

Found = TypeVar("Found")

SOURCES: Final = str(Path(tiergate.__file__).parents[1])
NO_BREAKERS: Final = {"breaker": {"enabled": False}}
"""The section `resilience` of a gateway whose tests fail on purpose, one after the other, at one provider."""
_START_S: Final = 20.0
_STOP_S: Final = 20.0
_COMMAND_S: Final = 30.0


def environment(**more: str) -> dict[str, str]:
    """Give a child's environment: this package, nothing of the settings that a developer may have set."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TIERGATE_")}
    return {**kept, "PYTHONPATH": SOURCES, **more}


@cache
def nursery() -> Nursery:
    """Give the one of this run; it is started for the first gateway."""
    return Nursery(environment())


def until(look: Callable[[], Found | None], *, timeout_s: float = 10.0, what: str = "it") -> Found:
    """Look again and again until there is something (no empty list, no 0); give it."""
    ends = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < ends, f"{what} did not come within {timeout_s:g} s"
        time.sleep(0.005)
    return found


def cli(
    *arguments: str, folder: Path, stdin: str = "", environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    if environ:
        return subprocess.run(
            [sys.executable, "-m", "tiergate.app.cli", *arguments],
            cwd=folder,
            env=environment(**environ),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=_COMMAND_S,
            check=False,
        )
    with TemporaryDirectory() as place:
        files = {name: Path(place) / name for name in ("given", "out", "err")}
        files["given"].write_text(stdin)
        child = nursery().start(arguments, folder=folder, environ=environment(), **files)
        try:
            status = child.wait(_COMMAND_S)
        finally:
            child.kill()
        out, err = (files[name].read_text() for name in ("out", "err"))
    return subprocess.CompletedProcess(("tiergate", *arguments), status, out, err)


def calls_of(mock: MockProcess, model: str) -> list[dict[str, Any]]:
    """Give what a mock was asked for one of its models, oldest first; see `tiergate.testing.log.Entry`."""
    with urlopen(mock.url + "/mock/log") as answer:
        entries = json.load(answer)["data"]
    return [entry for entry in entries if entry["model"] == model]


class GatewayProcess:
    """`tiergate serve` with these settings, on a free port, its data in `folder`; it ends with the block.

    >>> with GatewayProcess(tmp_path, {"providers": {"main": {"base_url": mock.base_url}}}) as gateway:
    ...     print(gateway.base_url, gateway.log())
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        *,
        environ: Mapping[str, str] | None = None,
        drain_s: float = 10.0,
        grace_s: float = 0.0,
        program: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.data_dir = folder / "data"
        self.settings_file = folder / "tiergate.yaml"
        self.environ = dict(environ or {})
        self._program = program
        self._drain_s = drain_s
        self._grace_s = grace_s
        self._process: subprocess.Popen[bytes] | Child | None = None
        self.write(settings)
        self.port = 0
        """Of the data plane, once it runs."""
        self.token = ""
        """What the command line of this machine uses."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # Its life.

    def start(self) -> None:
        """Start it and wait until it listens."""
        self.folder.mkdir(exist_ok=True, parents=True)
        arguments = ["serve", "--config", str(self.settings_file)]
        arguments += ["--drain-s", str(self._drain_s), "--grace-s", str(self._grace_s)]
        if self.environ or self._program:
            self._process = self._begun(arguments)
        else:
            files = {"out": self._file("out"), "err": self._file("err")}
            self._process = nursery().start(arguments, folder=self.folder, environ=environment(), **files)
        until(self._listens, timeout_s=_START_S, what="the gateway")

    def stop(self, number: int = signal.SIGTERM) -> int | None:
        """End it, if it still runs, and give its exit status."""
        process = self._process
        if process is None:
            return None
        if process.poll() is None:
            process.send_signal(number)
        try:
            return process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def has_ended(self) -> bool:
        """Tell whether the process is gone."""
        return self._process is not None and self._process.poll() is not None

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process is not None
        return self._process.pid

    @property
    def descriptors(self) -> int:
        """How many files and sockets it has open."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    # Where it is.

    @property
    def url(self) -> str:
        """`http://host:port`."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        """What an OpenAI client wants."""
        return self.url + "/v1"

    # Its settings.

    def write(self, settings: Mapping[str, Any]) -> None:
        """Write the settings file; nothing reads it before a reload."""
        own = {
            "listen": "127.0.0.1:0",
            "admin": {"listen": "127.0.0.1:0"},
            "data_dir": str(self.data_dir),
        }
        self.write_text(yaml.safe_dump({**own, **settings}, sort_keys=False))

    def write_text(self, text: str) -> None:
        """Write the settings file as this text."""
        self.folder.mkdir(exist_ok=True, parents=True)
        self.settings_file.write_text(text)

    def reload(self) -> dict[str, Any]:
        """Send SIGHUP and give what the log says of it: `reloaded` or `reload_refused`."""
        words = ("reloaded", "reload_refused")
        before = sum(line["event"] in words for line in self.log())
        self.signal(signal.SIGHUP)

        def told() -> dict[str, Any] | None:
            lines = [line for line in self.log() if line["event"] in words]
            return lines[before] if len(lines) > before else None

        return until(told, what="the reload's line")

    # What it says.

    @property
    def stdout(self) -> str:
        """All of its standard output so far."""
        return self._file("out").read_text()

    @property
    def stderr(self) -> str:
        """All of its standard error so far: the log."""
        return self._file("err").read_text()

    def log(self, word: str = "") -> list[dict[str, Any]]:
        """Give the lines of the log that are complete and hold this word."""
        whole, _, _ = self.stderr.rpartition("\n")
        return [json.loads(line) for line in whole.splitlines() if word in line]

    def data_files(self) -> list[Path]:
        """Give every file of the data folder, those of its folders too."""
        return sorted(path for path in self.data_dir.rglob("*") if path.is_file())

    def log_of(self, call_id: str) -> dict[str, Any]:
        """Wait for the line of one call."""

        def look() -> dict[str, Any] | None:
            lines = [line for line in self.log(call_id) if line["event"] == "call"]
            assert len(lines) < 2, "a call has one line"
            return lines[0] if lines else None

        return until(look, what=f"the line of call {call_id}")

    def ledger(self) -> list[Entry]:
        """Read every call of the ledger; only after it was stopped."""
        assert self.has_ended(), "the ledger has one owner"

        async def read() -> list[Entry]:
            return [entry async for entry in read_ledger(self.data_dir)]

        return asyncio.run(read())

    def check_books(self) -> list[Entry]:
        """Stop it and see that each call has one line in the log and one closed row with nothing held.

        Lines of batches that were answered have none in the log.
        """
        assert self.stop() == 0, self.stderr
        entries = self.ledger()
        lines = [line["call"] for line in self.log() if line["event"] == "call"]
        logged = [one.call_id for one in entries if one.job is None or one.end is not EndState.SUCCESS]
        assert sorted(lines) == sorted(logged)
        for entry in entries:
            assert entry.end not in (None, EndState.LAPSED), f"{entry.asked_model} has no end"
            for attempt in entry.attempts:
                assert attempt.state in (HoldState.SETTLED, HoldState.RELEASED), entry.asked_model
                assert attempt.outcome is not None
        return entries

    def _begun(self, arguments: Sequence[str]) -> "subprocess.Popen[bytes]":
        """Start an interpreter of its own, for what is read when it begins."""
        command = [sys.executable, *(self._program or ("-m", "tiergate.app.cli")), *arguments]
        with self._file("out").open("ab") as out, self._file("err").open("ab") as err:
            return subprocess.Popen(
                command, cwd=self.folder, env=environment(**self.environ), stdout=out, stderr=err
            )

    def _file(self, kind: str) -> Path:
        return self.folder / f"gateway.{kind}"

    def _listens(self) -> bool:
        assert not self.has_ended(), f"the gateway did not start:\n{self.stdout}\n{self.stderr}"
        owner = find_owner(self.data_dir)
        if owner is None or owner.address is None or owner.pid != self.pid:
            return False
        self.port, self.token = int(owner.address.rpartition(":")[2]), owner.token or ""
        return True
