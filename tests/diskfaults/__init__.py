"""A disk that fails at a chosen call, and processes that are killed in place of one: see `failing.c`.

It is loaded into the processes of a nursery of its own, so the machine's C compiler is needed.
"""

import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

import pytest

_SOURCE: Final = Path(__file__).with_name("failing.c")


@dataclass(frozen=True)
class Point:
    """A call that changes a file: its name, and which of those with this name it is, from 1."""

    name: str
    nth: int = 1

    def __str__(self) -> str:
        return f"{self.name} ({self.nth})"


@cache
def library() -> Path:
    """Compile it, once in a run; where there is no compiler the test is skipped."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("a disk that fails is written in C, and there is no compiler (Debian: apt install gcc)")
    built = Path(mkdtemp(prefix="tiergate-disk-")) / "failing.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", built, _SOURCE, "-ldl"], check=True)
    return built


def faults(
    folder: Path, *, how: str, log: Path, at: Point | None = None, following: int = 0
) -> dict[str, str]:
    """Give what a process needs to be told; see `failing.c`. `following`: so many calls after it fail."""
    told = {"DISK_FOLDER": str(folder.resolve()), "DISK_HOW": how, "DISK_LOG": str(log)}
    told["DISK_NEXT"] = str(following)
    return told | ({} if at is None else {"DISK_POINT": at.name, "DISK_NTH": str(at.nth)})


def counted(log: Path) -> Counter[str]:
    """Count the calls in a log by their names."""
    return Counter(line.removeprefix("! ") for line in log.read_text().splitlines())


def was_hit(log: Path) -> bool:
    """Tell whether the call came that was to be hit."""
    return any(line.startswith("! ") for line in log.read_text().splitlines())
