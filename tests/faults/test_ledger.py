"""The ledger on disk under faults: locks, failing writes, sudden ends, and what never reaches the disk."""

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from contract.ledger_records import CANARY, closed, held, opened, released, settled
from tiergate.core import CannotStart, EndState, Event, Notice, StorageUnavailable
from tiergate.ledger import HoldState
from tiergate.store import LedgerJournal, WriterLimits, open_journal
from tiergate.testing import FakeClock


def journal_in(
    folder: Path,
    *,
    emit: Callable[[Event], None] = lambda _: None,
    clock: FakeClock | None = None,
    limits: WriterLimits | None = None,
) -> LedgerJournal:
    return open_journal(folder, clock=clock or FakeClock(), randomness=os.urandom, emit=emit, limits=limits)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await test()

    asyncio.run(bounded())


def program(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program of its own on the data folder, at most 20 s."""
    tests = Path(__file__).parents[1]
    path = os.pathsep.join([str(tests), str(tests.parent / "src")])
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", text, str(folder)],
        capture_output=True,
        text=True,
        timeout=20,
        env=os.environ | {"PYTHONPATH": path},
        check=False,
    )


def lock(folder: Path) -> sqlite3.Connection:
    other = sqlite3.connect(folder / "ledger.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    return other


def test_a_locked_database_stops_neither_the_loop_nor_loses_a_record(tmp_path: Path) -> None:
    """Holds are refused after their bound, the event loop goes on, and all that was handed in drains."""

    async def test() -> None:
        async with journal_in(tmp_path, limits=WriterLimits(hold_wait_s=0.3)) as journal:
            for number in range(1, 51):
                await journal.hold(held(number))
            with closing(lock(tmp_path)):
                for number in range(1, 51):
                    journal.settle(settled(number, cash_nanos=number))
                    journal.close(closed(number))
                began, turns = time.monotonic(), 0
                waiting = asyncio.create_task(journal.hold(held(99)))
                while not waiting.done():
                    await asyncio.sleep(0.001)
                    turns += 1
                took = time.monotonic() - began
                with pytest.raises(StorageUnavailable, match="locked"):
                    await waiting
                assert 0.25 < took < 5
                assert turns > 20
                assert journal.statistics().waiting == 100
            entries = await journal.entries(limit=100)
            assert [entry.attempts[0].cash_nanos for entry in entries] == list(range(1, 51))
            assert {entry.end for entry in entries} == {EndState.SUCCESS}
            await journal.hold(held(100))

    run(test)


def test_no_more_holds_are_taken_than_can_wait(tmp_path: Path) -> None:
    """Past the bound holds are refused at once; settlements are taken; free calls are only counted."""

    async def test() -> None:
        limits = WriterLimits(waiting_max=10, hold_wait_s=30)
        async with journal_in(tmp_path, limits=limits) as journal:
            await journal.hold(held(1))
            with closing(lock(tmp_path)):
                waiting = [asyncio.create_task(journal.hold(held(number))) for number in range(2, 12)]
                await asyncio.sleep(0)
                with pytest.raises(StorageUnavailable, match="10 records"):
                    await journal.hold(held(50))
                journal.settle(settled(1))
                journal.close(closed(1))
                journal.close(closed(60, attempts=0))
            await asyncio.gather(*waiting)

            entry = await journal.entry(opened(1).call.id)
            assert entry is not None and entry.end is EndState.SUCCESS
            assert await journal.entry(opened(60).call.id) is None
            statistics = journal.statistics()
            assert (statistics.refused, statistics.uncounted, statistics.lost) == (1, 1, 0)

    run(test)


def test_a_write_error_closes_the_ledger_until_it_is_opened_again(tmp_path: Path) -> None:
    """When the kernel refuses a write, no hold is granted any more, also not when it would work again."""
    text = """
import asyncio, os, resource, sys
from pathlib import Path
from contract.ledger_records import held, settled
from tiergate.core import StorageUnavailable
from tiergate.store import open_journal
from tiergate.testing import FakeClock

async def main():
    folder, notices = Path(sys.argv[1]), []
    journal = open_journal(folder, clock=FakeClock(), randomness=os.urandom, emit=notices.append)
    async with journal:
        await journal.hold(held(1))
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        limit = (folder / "ledger.db-wal").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        for number in (2, 3):
            if number == 3:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)
            try:
                await journal.hold(held(number))
            except StorageUnavailable as error:
                print("refused", error)
        journal.settle(settled(1))
        try:
            await journal.flush()
        except StorageUnavailable as error:
            print("no flush")
    print("lost", journal.statistics().lost, [notice.word for notice in notices])

asyncio.run(main())
"""
    done = program(text, tmp_path)

    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["refused", "refused", "no", "lost"]
    assert "SQLITE_IOERR_WRITE" in lines[0]
    assert lines[3] == "lost 1 ['ledger_broken']"

    async def reopened() -> None:
        async with journal_in(tmp_path) as journal:
            (entry,) = await journal.entries()
            assert [attempt.state for attempt in entry.attempts] == [HoldState.LAPSED]
            await journal.hold(held(4))
        with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)

    run(reopened)


def test_a_program_that_forgets_to_close_ends_and_keeps_its_books(tmp_path: Path) -> None:
    """Leaving without closing neither hangs nor loses what was handed in."""
    text = """
import asyncio, atexit, os, sqlite3, sys
from pathlib import Path
from contract.ledger_records import closed, held, settled
from tiergate.store import open_journal
from tiergate.testing import FakeClock

async def main():
    folder = Path(sys.argv[1])
    journal = open_journal(folder, clock=FakeClock(), randomness=os.urandom, emit=print)
    await journal.__aenter__()
    for number in range(1, 101):
        await journal.hold(held(number))
    # Until the program ends nothing can be written, so everything below is still waiting then.
    other = sqlite3.connect(folder / "ledger.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    atexit.register(other.close)
    for number in range(1, 101):
        journal.settle(settled(number))
        journal.close(closed(number))

asyncio.run(main())
"""
    done = program(text, tmp_path)

    assert (done.returncode, done.stderr) == (0, "")

    async def reopened() -> None:
        async with journal_in(tmp_path) as journal:
            entries = await journal.entries(limit=200)
            assert [entry.end for entry in entries] == [EndState.SUCCESS] * 100
            assert journal.owner.epoch == 2

    run(reopened)


def test_an_answer_to_a_closed_loop_is_dropped(tmp_path: Path) -> None:
    """The loop that asked is gone: the thread writes on, and nothing crashes."""
    text = """
import asyncio, os, sys, time
from pathlib import Path
from contract.ledger_records import held
from tiergate.store import open_journal
from tiergate.testing import FakeClock

loop = asyncio.new_event_loop()
journal = open_journal(Path(sys.argv[1]), clock=FakeClock(), randomness=os.urandom, emit=print)
loop.run_until_complete(journal.__aenter__())
asking = loop.create_task(journal.hold(held(1)))
loop.run_until_complete(asyncio.sleep(0))
asking.cancel()
loop.run_until_complete(asyncio.wait([asking]))
loop.close()
deadline = time.monotonic() + 10
while journal.statistics().waiting and time.monotonic() < deadline:
    time.sleep(0.01)
print(journal.statistics().records)
"""
    done = program(text, tmp_path)

    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


def test_the_next_owner_says_what_lapsed(tmp_path: Path) -> None:
    """Holds that nobody settled lapse at the next opening, with one notice that counts them."""

    async def test() -> None:
        async with journal_in(tmp_path) as journal:
            for number in (1, 2, 3):
                await journal.hold(held(number))
            journal.settle(settled(1))
            journal.close(closed(1))
        events: list[Event] = []
        async with journal_in(tmp_path, emit=events.append) as journal:
            entries = await journal.entries()
            assert [entry.end for entry in entries] == [EndState.SUCCESS, EndState.LAPSED, EndState.LAPSED]
            assert [entry.attempts[0].state for entry in entries[1:]] == [HoldState.LAPSED] * 2
            assert journal.owner.epoch == 2
        (notice,) = events
        assert isinstance(notice, Notice)
        assert (notice.word, notice.severe) == ("ledger_lapsed", True)
        assert "2 holds and 2 calls" in notice.message

    run(test)


def test_a_clock_that_goes_back_changes_nothing(tmp_path: Path) -> None:
    """Epochs grow, holds lapse and calls end the same way when the clock is a day behind."""
    clock = FakeClock()

    async def test() -> None:
        async with journal_in(tmp_path, clock=clock) as journal:
            await journal.hold(held(1))
        clock.jump_wall(-86_400)
        async with journal_in(tmp_path, clock=clock) as journal:
            assert journal.owner.epoch == 2
            await journal.hold(held(2))
            journal.settle(released(2))
            journal.close(closed(2))
            first, second = await journal.entries()
            assert first.end is EndState.LAPSED
            assert (second.end, second.attempts[0].state) == (EndState.SUCCESS, HoldState.RELEASED)

    run(test)


def test_no_text_of_a_call_reaches_the_disk(tmp_path: Path) -> None:
    """The body is never written: a canary in it is in no file of the data folder, open or closed."""

    def found() -> list[str]:
        return [file.name for file in tmp_path.iterdir() if CANARY.encode() in file.read_bytes()]

    async def test() -> None:
        async with journal_in(tmp_path) as journal:
            await journal.hold(held(1))
            journal.settle(settled(1))
            journal.close(closed(1))
            await journal.flush()
            assert CANARY in str(opened(1).call.body)
            assert b"nightly" in (tmp_path / "ledger.db-wal").read_bytes()
            assert found() == []
        assert b"nightly" in (tmp_path / "ledger.db").read_bytes()
        assert found() == []

    run(test)


def test_a_new_data_folder_is_its_owners_alone(tmp_path: Path) -> None:
    """The folder has mode 0700 and every file in it 0600."""
    folder = tmp_path / "a" / "data"

    async def test() -> None:
        async with journal_in(folder) as journal:
            await journal.hold(held(1))
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}

    run(test)


@pytest.mark.parametrize("what", ["a file in its place", "a newer ledger"])
def test_a_ledger_that_cannot_be_opened_says_why(tmp_path: Path, what: str) -> None:
    """Opening fails with a sentence for the operator, and leaves no thread behind."""
    folder = tmp_path / "data"
    if what == "a file in its place":
        folder.touch()
    else:
        folder.mkdir()
        with closing(sqlite3.connect(folder / "ledger.db")) as connection:
            connection.execute("PRAGMA user_version = 99")

    async def test() -> None:
        with pytest.raises(CannotStart, match="data_dir"):
            async with journal_in(folder):
                pytest.fail("it was opened")

    run(test)


def test_what_comes_after_closing_is_refused_or_told(tmp_path: Path) -> None:
    """A closed journal grants nothing; a settlement that comes too late is told to the operator."""
    events: list[Event] = []

    async def test() -> None:
        async with journal_in(tmp_path, emit=events.append) as journal:
            await journal.hold(held(1))
        with pytest.raises(StorageUnavailable, match="closed"):
            await journal.hold(held(2))
        with pytest.raises(StorageUnavailable, match="closed"):
            await journal.entries()
        journal.settle(settled(1))

    run(test)
    assert [event.word for event in events if isinstance(event, Notice)] == ["ledger_record_lost"]


def test_many_checkpoints_leave_the_books_whole(tmp_path: Path) -> None:
    """Thousands of calls, with the log moved into the database while they are written: nothing is missing."""
    count = 1_500

    async def one(journal: LedgerJournal, numbers: range) -> None:
        for number in numbers:
            await journal.hold(held(number))
            journal.settle(settled(number, cash_nanos=number))
            journal.close(closed(number))

    async def test() -> None:
        async with journal_in(tmp_path) as journal:
            await asyncio.gather(*(one(journal, range(start, count, 30)) for start in range(30)))
            await journal.flush()
            assert journal.statistics().records == 3 * count
        with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            total = connection.execute("SELECT count(*), sum(cash_nanos) FROM attempt").fetchone()
            assert total == (count, sum(range(count)))

    run(test)
