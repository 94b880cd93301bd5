"""Processes of the command line that need not import the package: each is forked from one that has.

Hundreds of tests start a gateway or a command of their own, and most of the time that it takes is spent with
imports. A forked process runs the same code with the same arguments as `python -m tiergate.app.cli` does, in
an environment, a folder and files of its own, and ends like any other process.
"""

import atexit
import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NoReturn

_LOADED: Final = ("tiergate.app.cli", "tiergate.app.serving", "tiergate.store.redis")
_START_S: Final = 30.0
_END_S: Final = 5.0
_ADD: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT


class Child:
    """A process of the nursery; of `subprocess.Popen` it has what the tests use."""

    def __init__(self, nursery: "Nursery", pid: int) -> None:
        self.pid = pid
        self._nursery = nursery

    def poll(self) -> int | None:
        """Give its exit status, or None while it runs."""
        return self._nursery.status_of(self.pid, timeout_s=0)

    def wait(self, timeout_s: float = _START_S) -> int:
        """Wait for its end and give its exit status; the number of a signal is negative."""
        status = self._nursery.status_of(self.pid, timeout_s=timeout_s)
        if status is None:
            raise subprocess.TimeoutExpired("tiergate", timeout_s)
        return status

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it has just ended, and it is not told yet
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


class Nursery:
    """Has loaded the package once, and gives children that run it."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], env=dict(environ), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._ended: dict[int, int] = {}
        self._born: list[int] = []
        self._news = threading.Condition()
        self._starting = threading.Lock()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        atexit.register(self.close)

    def start(
        self,
        arguments: Sequence[str],
        *,
        folder: Path,
        environ: Mapping[str, str],
        out: Path,
        err: Path,
        given: Path = Path(os.devnull),
    ) -> Child:
        """Run `tiergate` with these arguments and this input; what it writes is added to two files."""
        wish = {"arguments": arguments, "folder": folder, "environ": environ}
        wish |= {"given": given, "out": out, "err": err}
        assert self._process.stdin is not None
        with self._starting:
            self._process.stdin.write(json.dumps(wish, default=str).encode() + b"\n")
            self._process.stdin.flush()
            return self._born_next()

    def _born_next(self) -> Child:
        with self._news:
            assert self._news.wait_for(lambda: self._born, _START_S), "the nursery gives no child"
            return Child(self, self._born.pop(0))

    def status_of(self, pid: int, *, timeout_s: float) -> int | None:
        """Give the exit status of a child, None while it runs, waiting for so long."""
        with self._news:
            self._news.wait_for(lambda: pid in self._ended, timeout_s)
            return self._ended.get(pid)

    def close(self) -> None:
        """Let it end; children that still run are killed.

        It is told, too: a test that has copied our descriptors may hold its input open.
        """
        atexit.unregister(self.close)
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(b"null\n")
            self._process.stdin.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._listener.join()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            with self._news:
                if "born" in said:
                    self._born.append(said["born"])
                else:
                    self._ended[said["ended"]] = said["status"]
                self._news.notify_all()
        self._process.stdout.close()


def main() -> None:
    """Be the nursery: a wish on each line of the input, children and their ends on the output."""
    for name in _LOADED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    children: set[int] = set()
    wishes, rest = sys.stdin.fileno(), b""
    while True:
        ready, _, _ = select.select([wishes, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            _tell_of_the_dead(children)
        if wishes in ready:
            data = os.read(wishes, 1 << 16)
            if not data:
                break
            *lines, rest = (rest + data).split(b"\n")
            if b"null" in lines:
                break
            for line in lines:
                pid = os.fork()
                if not pid:
                    _become(json.loads(line), (woken, wake))
                children.add(pid)
                _say({"born": pid})
    for pid in children:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _tell_of_the_dead(children: set[int]) -> None:
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        children.discard(pid)
        _say({"ended": pid, "status": os.waitstatus_to_exitcode(status)})


def _become(wish: dict[str, Any], pipes: tuple[int, int]) -> NoReturn:
    """Be what was wished for: the command line, in this process."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for pipe in pipes:
        os.close(pipe)
    for number, (name, flags) in enumerate((("given", os.O_RDONLY), ("out", _ADD), ("err", _ADD))):
        file = os.open(wish[name], flags, 0o600)
        os.dup2(file, number)
        os.close(file)
    os.chdir(wish["folder"])
    os.environ.clear()
    os.environ.update(wish["environ"])
    sys.argv = ["tiergate", *wish["arguments"]]
    sys.path[0] = ""
    command: Any = importlib.import_module("tiergate.app.cli")
    command.main()
    raise AssertionError("the command line ends the process")


def _say(what: dict[str, int]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
