"""Take away each guard of the list, one at a time, and see that its test fails: `make guards`.

All happens in a copy of the tree. Its package stands first on the path of the tests and of every process
that they start, so nothing of the installed one is used.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from queue import SimpleQueue
from shutil import copy2
from typing import Final
from xml.etree import ElementTree as ET

from listed import ROOT, SOURCES, Guard, guards

TEST_S: Final = 120.0
"""The longest that one test may take; one that hangs without its guard tells nobody why."""
_WRONG_NAMES: Final = "--select=E9,F821,F822,F823"
"""Ruff's rules for what can be compiled, or not even that, and is no program: unknown names."""


class End(StrEnum):
    """How a guard's test ended without it."""

    KILLED = "killed"
    SURVIVED = "survived"
    BROKEN = "broken"
    """It did not fail for the guard's sake: the mutant is no program, or its test did not even begin."""
    HUNG = "hung"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What became of some tests. `status` is pytest's; None: they took too long."""

    status: int | None
    failed: tuple[str, ...]
    """What failed, a line each: the test's name and the beginning of what it said."""
    errors: tuple[str, ...]
    """The same of what could not even begin, or end, well."""
    output: str


class Copy:
    """A copy of the tree, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._environ = {
            **os.environ,
            "PYTHONPATH": str(folder / "src"),
            "CI": "1",  # generated input is the same in every run
        }
        for name in _git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0"):
            if name and (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                copy2(ROOT / name, folder / name)
        found = self._python("-c", "import tiergate; print(tiergate.__file__)").stdout.strip()
        assert Path(found).is_relative_to(folder), f"the tests would use {found}"

    def test(self, tests: Sequence[str], *, timeout_s: float) -> Run:
        """Run some tests by their ids."""
        report = self._folder / "report.xml"
        report.unlink(missing_ok=True)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junit-xml={report}"]
        with subprocess.Popen(
            [*command, *tests],
            cwd=self._folder,
            env=self._environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                output, _ = process.communicate(timeout=timeout_s)
                status: int | None = process.returncode
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)  # with all that the test has started
                output, _ = process.communicate()
                status = None
        return Run(
            status=status, failed=_found(report, "failure"), errors=_found(report, "error"), output=output
        )

    def without(self, guard: Guard) -> tuple[End, str]:
        """Take a guard away, run its test, and put it back; give how that ended, and what it said."""
        path = self._folder / guard.path
        before = path.read_text()
        try:
            _write(path, guard.taken_from(before))
            run = self.test([guard.test], timeout_s=TEST_S)
            return self._judged(guard, run)
        finally:
            _write(path, before)

    def _judged(self, guard: Guard, run: Run) -> tuple[End, str]:
        if run.status is None:
            return End.HUNG, f"not over after {TEST_S:g} s"
        if run.status == 0:
            return End.SURVIVED, "its test passes without it"
        trouble = self._why_no_program(guard)
        if trouble:
            return End.BROKEN, trouble
        if run.status != 1 or not run.failed:
            return End.BROKEN, "; ".join(run.errors) or run.output[-2000:]
        return End.KILLED, run.failed[0]

    def _why_no_program(self, guard: Guard) -> str:
        if not guard.file.endswith(".py"):
            return ""  # SQL: whether it is any, only its test can tell
        module = guard.file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        checked = self._python("-m", "ruff", "check", "--isolated", "-q", _WRONG_NAMES, guard.path)
        return checked.stdout or self._python("-c", f"import tiergate.{module}").stderr

    def _python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self._folder,
            env=self._environ,
            capture_output=True,
            text=True,
            check=False,
        )


def main() -> int:
    """Run what the arguments choose; 1 when a guard can be taken away without its test failing."""
    arguments = _arguments()
    chosen = [
        guard
        for guard in guards()
        if (not arguments.row or arguments.row in guard.row.split())
        and (not arguments.file or arguments.file in guard.file)
    ]
    if not chosen:
        print("No guard of the list is chosen; see --list.")
        return 1
    if arguments.list:
        for guard in chosen:
            print(f"{guard.row:12} {guard.file:28} {guard.what}")
        return 0
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="guards-") as folder:
        copies = [Copy(Path(folder, str(number))) for number in range(arguments.jobs)]
        print(f"{len(chosen)} guards. First their tests as they are …", flush=True)
        tests = list(dict.fromkeys(guard.test for guard in chosen))
        well = copies[0].test(tests, timeout_s=TEST_S * len(tests))
        if well.status != 0:
            print(well.output[-6000:])
            print("They must pass before anything is taken away.")
            return 1
        ends = _ends(copies, chosen)
    print(f"\n{len(chosen)} guards in {time.monotonic() - began:.0f} s: ", end="")
    print(", ".join(f"{ends.count(end)} {end}" for end in End if end in ends) + ".")
    return int(set(ends) != {End.KILLED})


def _ends(copies: Sequence[Copy], chosen: Sequence[Guard]) -> list[End]:
    """Try all guards, as many at one time as there are copies."""
    free: SimpleQueue[Copy] = SimpleQueue()
    for copy in copies:
        free.put(copy)

    def tried(guard: Guard) -> End:
        copy = free.get()
        try:
            return _tried(copy, guard)
        finally:
            free.put(copy)

    with ThreadPoolExecutor(len(copies)) as pool:
        return list(pool.map(tried, chosen))


def _tried(copy: Copy, guard: Guard) -> End:
    began = time.monotonic()
    end, said = copy.without(guard)
    lines = [f"{end:8} {time.monotonic() - began:4.1f} s  {guard.row:8} {guard.what}"]
    if end is not End.KILLED:
        lines += [guard.path, guard.test, said]
    print("\n    ".join(lines), flush=True)
    return end


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--row", help="only guards of this row, F15 say")
    parser.add_argument("--file", help=f"only guards in files whose path below {SOURCES} contains this")
    parser.add_argument("--list", action="store_true", help="say what is on the list, and run nothing")
    parser.add_argument("--jobs", type=int, default=1, help="so many at one time, each in a copy of its own")
    return parser.parse_args()


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def _write(path: Path, text: str) -> None:
    """Write a source, and forget what was compiled of it: of the same second and length it looks the same."""
    path.write_text(text)
    for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
        compiled.unlink()


def _found(report: Path, what: str) -> tuple[str, ...]:
    if not report.exists():
        return ()
    cases = ET.parse(report).iter("testcase")
    return tuple(
        f"{case.get('name')}: {(trouble.get('message') or '').splitlines()[:1]}"
        for case in cases
        for trouble in case.findall(what)
    )


if __name__ == "__main__":
    sys.exit(main())
