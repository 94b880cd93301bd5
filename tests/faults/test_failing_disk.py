"""F30: the disk gives an input/output error at one call, whichever: what was promised is there, and nothing
that is not on the disk for good is promised."""

import asyncio
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from contract.job_records import MUCH, found
from contract.ledger_records import held, opened
from diskfaults import Point, counted, faults, library, was_hit
from diskfaults.program import CALLS, LINES
from house import SOURCES, environment
from tiergate.ledger import HoldState, LineState
from tiergate.store import LEDGER_FILE, LedgerJournal, open_journal
from tiergate.store.jobbooks import JOBS_FILE
from tiergate.store.jobs import SqliteJobs
from tiergate.testing import FakeClock

Said = list[list[Any]]


class Programs:
    """Runs the programs of `diskfaults.program` on disks that fail."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def run(
        self, program: str, folder: Path, *, filled: Path | None = None, **told: Any
    ) -> tuple[Said, Path]:
        """Run one to its end, on a copy of a data folder; give what it said, and the log of its calls."""
        folder.mkdir()
        if filled is not None:
            shutil.copytree(filled, folder / "data")
        said, log = folder / "said", folder / "log"
        said.touch()
        environ = faults(folder / "data", log=log, **told)
        wish = {"program": program, "folder": str(folder / "data"), "said": str(said), "environ": environ}
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(wish) + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline().strip() == "0", told
        return [json.loads(line) for line in said.read_text().splitlines()], log

    def fail_each(
        self, program: str, folder: Path, *, filled: Path | None = None, sample: int = 1
    ) -> Iterator[tuple[Point, Said, Path]]:
        """Let each call of a program (or one of so many) fail; give what it said, and its data folder."""
        said, log = self.run(program, folder / "good", filled=filled, how="log")
        assert said[-1][0] == "closed"
        points = [
            Point(name, nth) for name, count in counted(log).items() for nth in range(1, count + 1, sample)
        ]
        assert len(points) > 20
        for number, point in enumerate(points):
            said, log = self.run(program, folder / str(number), filled=filled, how="fail", at=point)
            if was_hit(log):
                yield point, said, folder / str(number) / "data"


@pytest.fixture(scope="module")
def programs() -> Iterator[Programs]:
    tests = str(Path(__file__).parents[1])
    environ = environment(LD_PRELOAD=str(library())) | {"PYTHONPATH": os.pathsep.join([tests, SOURCES])}
    with subprocess.Popen(
        [sys.executable, "-m", "diskfaults.program"],
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Programs(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(10) == 0


def numbers(said: Said, what: str) -> list[int]:
    return [line[1] for line in said if line[0] == what]


def is_whole(file: Path) -> bool:
    with closing(sqlite3.connect(file)) as connection:
        return bool(connection.execute("PRAGMA integrity_check").fetchone() == ("ok",))


CALL_IDS = {opened(number).call.id: number for number in range(1, CALLS + 1)}
SYNC_OF_SPOOL = re.compile(r"f(data)?sync jobs(/s#(/#)?)?")


def journal_in(folder: Path) -> LedgerJournal:
    return open_journal(folder, clock=FakeClock(), randomness=os.urandom, emit=lambda _: None)


async def states_in(folder: Path) -> dict[int, HoldState]:
    async with journal_in(folder) as journal:
        entries = await journal.entries()
        await journal.hold(held(CALLS + 1))  # it can be written again
    return {CALL_IDS[entry.call_id]: entry.attempts[0].state for entry in entries}


async def made(folder: Path) -> None:
    async with journal_in(folder):
        pass


def check_ledger(said: Said, data: Path) -> None:
    """What was promised is there, what was refused is held by nobody, and nothing was promised afterwards."""
    states = asyncio.run(states_in(data))
    assert is_whole(data / LEDGER_FILE)
    for number in numbers(said, "held"):
        wanted = (
            {HoldState.SETTLED}
            if number in numbers(said, "settled")
            else {HoldState.SETTLED, HoldState.LAPSED}
        )
        assert states[number] in wanted
    for number in numbers(said, "not held"):
        assert states.get(number, HoldState.RELEASED) in (HoldState.RELEASED, HoldState.LAPSED)
    words = [line[0] for line in said]
    refused = [place for place, word in enumerate(words) if word.startswith("not ")]
    if refused:
        assert not {"held", "settled"} & set(words[refused[0] :])
        assert "restart Tiergate" in said[refused[0]][2]


def test_a_ledger_keeps_its_promises_whichever_call_fails(programs: Programs, tmp_path: Path) -> None:
    """And after an error it promises nothing more until it is opened again."""
    filled = tmp_path / "filled"
    asyncio.run(made(filled))
    refusing = 0
    for point, said, data in programs.fail_each("ledger", tmp_path, filled=filled):
        try:
            check_ledger(said, data)
        except AssertionError as error:
            raise AssertionError(f"{point}: {said}") from error
        refusing += any(line[0].startswith("not ") for line in said)
    assert refusing > 10


@pytest.mark.parametrize("program", ["ledger", "jobs"])
def test_a_start_that_the_disk_breaks_off_says_so_and_the_next_one_goes_on(
    programs: Programs, tmp_path: Path, program: str
) -> None:
    """Also in the middle of making the file for the first time."""
    refused = 0
    for point, said, data in programs.fail_each(program, tmp_path, sample=9):
        if said[0][0] == "open":
            continue
        refused += 1
        assert said[0][0] in ("CannotStart", "StorageUnavailable"), point
        assert "cannot be" in said[0][1] or "is full" in said[0][1]
        again, _ = programs.run(program, data.parent / "again", filled=data, how="log")
        assert again[-1] == ["closed", ""], (point, again)
    assert refused > 3


# Jobs.


async def look_at_jobs(folder: Path, said: Said) -> None:
    async with SqliteJobs(folder, epoch=2) as store:
        if not numbers(said, "marked") and not numbers(said, "spooled"):
            return
        job = await found(store)
        recovered = [one.n for one in await store.recover(job.no)]
        lines = {one.n: one for one in await store.outputs(job.no, done=True, failed=True)}
        for n in numbers(said, "spooled"):
            assert (lines[n].state, lines[n].line) == (LineState.DONE, b"answer %d\n" % n)
        assert not set(recovered) & {n for first in numbers(said, "marked") for n in (first, first + 1)}
        job = await found(store)
        assert job.done == len(lines)
        rest = await store.claim(job.no, 100, bytes_max=MUCH)
        assert sorted([*lines, *(line.n for line in rest)]) == list(range(1, LINES + 1))
        assert [line.text for line in rest] == [b"line %d\n" % line.n for line in rest]


def test_jobs_keep_their_promises_whichever_call_fails(programs: Programs, tmp_path: Path) -> None:
    """What is spooled is found again as it was; whatever is not is asked once; each line once."""
    filled = tmp_path / "filled"

    async def fill() -> None:
        async with SqliteJobs(filled, epoch=0):
            pass

    asyncio.run(fill())
    unsynced = 0
    for point, said, data in programs.fail_each("jobs", tmp_path, filled=filled):
        try:
            asyncio.run(look_at_jobs(data, said))
            assert is_whole(data / JOBS_FILE)
            if SYNC_OF_SPOOL.fullmatch(point.name) and numbers(said, "spooled"):
                unsynced += 1
                place = [line[0] for line in said].index("not marked")
                assert "marked" not in [line[0] for line in said[place:]]
                assert "restart" in said[place][2]
        except Exception as error:
            raise AssertionError(f"{point}: {said}") from error
    assert unsynced >= 2


SPOOLED_ALONE = [["open"], ["begun"], ["spooled", 1], ["spooled", 2]]


def test_who_takes_a_spool_over_writes_it_again(programs: Programs, tmp_path: Path) -> None:
    """The owner before was told of an error: what stands in memory alone counts as written, unless it is."""
    spool = "jobs/s#/#"
    first, _ = programs.run("jobs", tmp_path / "one", how="fail", at=Point(f"fdatasync {spool}"))
    assert first[:4] == SPOOLED_ALONE and first[4][0] == "not marked"
    said, log = programs.run("taken over", tmp_path / "two", filled=tmp_path / "one" / "data", how="log")
    assert said == [["recovered", [1, 2]], ["closed", ""]]
    calls = [line.partition(" ")[0] for line in log.read_text().splitlines() if line.endswith(f" {spool}")]
    assert calls == ["pwrite64", "fdatasync"]


def test_nothing_is_written_behind_half_an_end(programs: Programs, tmp_path: Path) -> None:
    """A write that broke off, and could not be taken back: the spool is left alone until the next start."""
    said, log = programs.run(
        "jobs", tmp_path / "one", how="half", at=Point("write jobs/s#/#", 2), following=2
    )
    hit = [line for line in log.read_text().splitlines() if line.startswith("!")]
    assert [line.split()[1] for line in hit] == ["write", "write", "ftruncate64"]
    words = [line[0] for line in said]
    assert words[:3] == ["open", "begun", "spooled"] and "spooled" not in words[3:]
    asyncio.run(look_at_jobs(tmp_path / "one" / "data", said))
