"""F30, F31, F33: a batch whose process is killed in place of any call that changes a file, or whose disk
fails at it: the same command again ends with one row for each, asks few again, and charges what was billed.

Each kind of call is taken, at its first time and at one in its middle. `TIERGATE_POINTS=all pytest
tests/crash/test_batch_points.py` takes every call there is (some minutes).
"""

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import pytest
import yaml

from batches import rows_in, rows_of, written
from diskfaults import Point, counted, faults, library, was_hit
from house import calls_of, environment, until
from nursery import Child, Nursery
from tiergate.app.house import read_ledger
from tiergate.ledger import HoldState
from tiergate.testing import MockProcess

ROWS = 12
CONCURRENCY = 4
MAX_TOKENS = 60
PER_TOKEN_NANOS = 100_000
SCRIPT = json.dumps({"default": {"words": [2, 20], "ttft_ms": 2}})
RUN = ("batch", "run", "in.jsonl", "-o", "out.jsonl", "--concurrency", str(CONCURRENCY))
TAKES_ALL = os.environ.get("TIERGATE_POINTS") == "all"


@pytest.fixture(scope="module")
def mock() -> Iterator[MockProcess]:
    with MockProcess(SCRIPT) as process:
        yield process


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    made = Nursery(environment(LD_PRELOAD=str(library())))
    yield made
    made.close()


def laid_out(folder: Path, mock: MockProcess) -> Path:
    """Make a folder with settings and an input; its model has the folder's name."""
    folder.mkdir()
    name = folder.name
    settings = {
        "providers": {"dear": {"base_url": mock.base_url}},
        "models": {name: {"targets": [f"dear/{name}"]}},
        "prices": [{"target": f"dear/{name}", "usd_per_1m": {"input": 0, "output": PER_TOKEN_NANOS / 1000}}],
    }
    (folder / "tiergate.yaml").write_text(yaml.safe_dump(settings))
    (folder / "in.jsonl").write_bytes(written(rows_of(ROWS, model=name, max_tokens=MAX_TOKENS)))
    return folder


def begin(nursery: Nursery, folder: Path, **told: str) -> Child:
    files = {name: folder.with_suffix(f".{name}") for name in ("out", "err")}
    return nursery.start(RUN, folder=folder, environ=environment(**told), **files)


def run(nursery: Nursery, folder: Path, **told: str) -> int:
    """Run the command to its end, and give its exit status."""
    child = begin(nursery, folder, **told)
    try:
        return child.wait(60)
    except subprocess.TimeoutExpired:
        child.kill()
        raise AssertionError(f"it does not end: {said(folder)}") from None


def said(folder: Path) -> str:
    file = folder.with_suffix(".err")
    return file.read_text() if file.exists() else ""


async def charged(folder: Path) -> int:
    """Give the nano-dollars that the ledger counts; nothing is held any more."""
    attempts = [one async for entry in read_ledger(folder / "tiergate-data") for one in entry.attempts]
    assert all(one.state is not HoldState.HELD for one in attempts)
    lapsed = [one.bound_nanos or 0 for one in attempts if one.state is HoldState.LAPSED]
    return sum(lapsed) + sum(one.cash_nanos or 0 for one in attempts if one.state is HoldState.SETTLED)


def points(nursery: Nursery, mock: MockProcess, folder: Path) -> list[Point]:
    """Give the calls that a run makes, in their order as far as there is one."""
    log = laid_out(folder, mock).with_suffix(".log")
    assert run(nursery, folder, **faults(folder, how="log", log=log)) == 0, said(folder)
    found = []
    for name, count in counted(log).items():
        nths = range(1, count + 1) if TAKES_ALL else sorted({1, (count + 1) // 2})
        found += [Point(name, nth) for nth in nths]
    return found


def check(folder: Path, mock: MockProcess) -> None:
    """One row for each, all that was billed is charged, and few were asked again."""
    rows = rows_in((folder / "out.jsonl").read_bytes())
    assert [one["custom_id"] for one in rows] == [f"row-{n}" for n in range(1, ROWS + 1)]
    assert all(one["response"]["status_code"] == 200 for one in rows)
    assert not (folder / "out.errors.jsonl").exists()
    asked = calls_of(mock, folder.name)
    assert ROWS <= len(asked) <= ROWS + CONCURRENCY
    tokens = sum(one["tokens"] for one in asked)
    assert tokens * PER_TOKEN_NANOS <= asyncio.run(charged(folder))


def go_through(point: Point, how: str, nursery: Nursery, mock: MockProcess, folder: Path) -> bool:
    """Let a run be killed at a point, or its disk fail there, and run again; tell whether it came there."""
    log = laid_out(folder, mock).with_suffix(".log")
    what = f"{how} {point}"
    try:
        status = run(nursery, folder, **faults(folder, how=how, log=log, at=point))
        what += f": {status}, {said(folder)}"
        is_hit = log.exists() and was_hit(log)
        assert not is_hit or how == "fail" or status == -signal.SIGKILL
        assert "Traceback" not in what
        if how == "kill" and (folder / "out.jsonl").exists():
            assert len(rows_in((folder / "out.jsonl").read_bytes())) == ROWS
        if status != 0:
            assert run(nursery, folder) == 0
        check(folder, mock)
    except AssertionError as error:
        raise AssertionError(f"{what}\nThen: {said(folder)}") from error
    return is_hit


def test_whatever_call_is_the_last_the_batch_goes_on(
    nursery: Nursery, mock: MockProcess, tmp_path: Path
) -> None:
    """One row for each, in the order of the input; what stands at the output's place meanwhile is whole."""
    wanted = list(product(points(nursery, mock, tmp_path / "good"), ["kill", "fail"]))
    if not TAKES_ALL:
        wanted = wanted[::3]  # an odd step, so that both hows are among them

    def one(number: int) -> bool:
        point, how = wanted[number]
        return go_through(point, how, nursery, mock, tmp_path / f"m{number}")

    with ThreadPoolExecutor(4) as threads:
        hit = sum(threads.map(one, range(len(wanted))))
    assert hit > 30


def test_a_kill_while_an_input_is_read_begins_no_second_batch(
    nursery: Nursery, mock: MockProcess, tmp_path: Path
) -> None:
    """The same command waits until it is known what the first one holds, and asks nothing twice."""
    folder = laid_out(tmp_path / "reading", mock)
    with (folder / "in.jsonl").open("ab") as file:
        file.write(b"no line of a batch\n" * 40_000)  # which take a second to be read
    child = begin(nursery, folder)
    until(lambda: "worked by this process" in said(folder), what="the batch")
    child.kill()
    assert child.wait() == -signal.SIGKILL
    assert calls_of(mock, folder.name) == []
    assert run(nursery, folder) == 1, said(folder)
    assert "is being read" in said(folder)
    assert "12 answered, 40,000 failed" in said(folder)
    assert len(calls_of(mock, folder.name)) == ROWS
