"""Tables of jobs that several owners write: who gets which line, who is refused, and broken connections."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest

from contract.job_records import (
    MUCH,
    NOW_NS,
    TEAM,
    a_job,
    answer,
    begun,
    claimed,
    counts,
    ended,
    fault,
    file,
    found,
    jobs_of,
    outputs,
    placed,
    run,
    stored,
)
from cut import Cut, Wire
from places import Kept, Places
from postgres import Server
from tiergate.batch import Crew, JobStore
from tiergate.core import StorageUnavailable, StoreOwned
from tiergate.store import LedgerJournal

Done = TypeVar("Done")


@pytest.fixture
def kept(postgres_places: Places) -> Kept:
    """An empty database."""
    return postgres_places.new()


@asynccontextmanager
async def owner(kept: Kept) -> AsyncIterator[tuple[LedgerJournal, JobStore]]:
    async with kept.journal(randomness=os.urandom) as journal, jobs_of(kept, journal) as jobs:
        yield journal, jobs


async def again(attempt: Callable[[], Awaitable[Done]]) -> Done:
    """Try until the server is reached again."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await attempt()
            except StorageUnavailable:
                await asyncio.sleep(0.05)


def bury(kept: Kept, journal: LedgerJournal) -> None:
    kept.rows(f"UPDATE owner SET state = 'dead' WHERE epoch = {journal.owner.epoch}")


# --- side by side ---------------------------------------------------------------------------------------


def test_each_line_is_with_one_owner(kept: Kept) -> None:
    """However many claim at one time; what one lets go another gets."""

    async def test() -> None:
        async with owner(kept) as (_, one), owner(kept.replica()) as (_, two):
            no = await begun(one, [b"%d" % n for n in range(100)])
            got = await asyncio.gather(*(claimed(jobs, no, 7) for jobs in (one, two) * 8))
            lines = [n for some in got for n in some]
            assert sorted(lines) == list(range(1, 101))
            assert await claimed(one, no) == [] == await claimed(two, no)
            mine = got[0]
            await one.release(no, [(n, 2) for n in mine])
            again = await two.claim(no, 100, bytes_max=MUCH)
            assert [(line.n, line.tries) for line in again] == [(n, 2) for n in mine]
            await one.close_job(no)
            assert await claimed(two, no) == sorted(n for some in got[2::2] for n in some)

    run(test)


def test_ends_of_several_owners_are_counted_together(kept: Kept) -> None:
    """And none of them twice, whoever says it."""

    async def test() -> None:
        async with owner(kept) as (_, one), owner(kept.replica()) as (_, two):
            no = await begun(one, [b"%d" % n for n in range(40)])
            first, second = await claimed(one, no, 20), await claimed(two, no, 20)
            await asyncio.gather(
                *(ended(one, no, answer(n)) for n in first), *(ended(two, no, answer(n)) for n in second)
            )
            assert await counts(one) == (40, 0, 0)
            await ended(one, no, fault(second[0]))
            assert await counts(two) == (40, 0, 0)
            assert await outputs(one, no) == [b"answer %d\n" % n for n in range(1, 41)]

    run(test)


def test_a_job_ends_once_and_not_before_others_have_ended_their_lines(kept: Kept) -> None:
    """Whoever comes second is told that there is nothing to end."""

    async def test() -> None:
        async with owner(kept) as (_, one), owner(kept.replica()) as (_, two):
            no = await begun(one, [b"1", b"2"])
            assert await claimed(one, no, 1) == [1] and await claimed(two, no, 1) == [2]
            await ended(one, no, answer(1))
            assert await one.end(no, NOW_NS) is None
            await two.spool(no, answer(2))
            assert await one.end(no, NOW_NS) is None
            await ended(two, no, answer(2))
            ends = await asyncio.gather(one.end(no, NOW_NS), two.end(no, NOW_NS + 1))
            assert sorted(job is None for job in ends) == [False, True]

    run(test)


def test_what_there_is_is_shared_out_among_those_who_work(kept: Kept) -> None:
    """All of it, evenly; who leaves or dies leaves its share to the others."""

    async def test() -> None:
        async with (
            owner(kept) as (_, one),
            owner(kept.replica()) as (dying, two),
            owner(kept.replica()) as (_, three),
        ):
            no = await begun(one, [b"1", b"2"])
            assert await one.join(no) == Crew(1, 0, 0)
            assert await two.join(no) == Crew(2, 1, 0)
            assert await three.join(no) == Crew(3, 2, 0)
            crews = [await jobs.crew(no) for jobs in (one, two, three)]
            assert [crew.share(8) for crew in crews] == [3, 3, 2]
            assert [crew.share(1) for crew in crews] == [1, 0, 0]
            await claimed(two, no)
            await two.begin(no, 1)
            assert await one.crew(no) == Crew(3, 0, 1)
            bury(kept, dying)
            assert await three.crew(no) == Crew(2, 1, 0)
            assert (await one.leave(no)).size == 1
            await three.close_job(no)
            assert (await one.crew(no)).share(8) == 0
            assert await one.crew(no) == Crew(0, None, 0)

    run(test)


# --- the dead -------------------------------------------------------------------------------------------


def test_what_a_dead_owner_left_is_taken_over_once(kept: Kept) -> None:
    """F46: its ends are marked, what it asked was interrupted, the rest waits; two who look do it once."""

    async def test() -> None:
        async with (
            owner(kept) as (dying, old),
            owner(kept.replica()) as (_, one),
            owner(kept.replica()) as (_, two),
        ):
            no = await begun(old, [b"%d" % n for n in range(6)])
            assert await claimed(old, no, 5) == [1, 2, 3, 4, 5]
            for n in (1, 2, 3, 4):
                await old.begin(no, n)
            await ended(old, no, answer(1))
            await old.spool(no, answer(2))
            await old.rest(no, 4)
            assert await one.abandoned() == set()
            assert await one.recover(no) == []
            bury(kept, dying)
            assert await one.abandoned() == {no}
            both = await asyncio.gather(one.recover(no), two.recover(no))
            assert sorted(len(ends) for ends in both) == [0, 1]
            assert await counts(one) == (2, 0, 0)
            assert (await found(one)).interrupted == 1
            assert await one.abandoned() == set()
            lines = await two.claim(no, 9, bytes_max=MUCH)
            assert [(line.n, line.interrupted) for line in lines] == [(3, 1), (4, 0), (5, 0), (6, 0)]

    run(test)


def test_who_was_declared_dead_writes_nothing_any_more(kept: Kept) -> None:
    """F46: whatever it tries; lines, jobs and files stay as whoever lives has them."""

    async def test() -> None:
        async with owner(kept) as (dying, dead), owner(kept.replica()) as (_, alive):
            no = await begun(dead, [b"1", b"2", b"3"])
            await claimed(dead, no, 2)
            await dead.begin(no, 1)
            spooled = await dead.spool(no, answer(2))
            await dead.begin_file(file(8))
            bury(kept, dying)
            await alive.recover(no)
            assert await claimed(alive, no) == [1, 3]
            before = await found(alive)
            tries: list[Callable[[], Awaitable[Any]]] = [
                lambda: dead.claim(no, 9, bytes_max=MUCH),
                lambda: dead.begin(no, 1),
                lambda: dead.rest(no, 1),
                lambda: dead.spool(no, answer(1)),
                lambda: dead.finish(no, [spooled]),
                lambda: dead.release(no, [(1, 5)]),
                lambda: dead.recover(no),
                lambda: dead.join(no),
                lambda: dead.leave(no),
                lambda: dead.close_job(no),
                lambda: dead.change(no, {"cancel_ns": 1}),
                lambda: dead.end(no, NOW_NS),
                lambda: dead.worked(no, 1),
                lambda: dead.retry(no, None, deadline_ns=1),
                lambda: dead.add(a_job(2)),
                lambda: dead.add_input(no, "file-9"),
                lambda: dead.begin_reading(no),
                lambda: dead.end_reading(no),
                lambda: dead.begin_file(file(9)),
                lambda: dead.append_file(file(8).id, b"x" * MUCH),
                lambda: dead.drop_file(TEAM, file(1).id, NOW_NS),
                lambda: dead.erase(TEAM),
                lambda: dead.forget(NOW_NS * 2),
            ]
            for attempt in tries:
                with pytest.raises(StoreOwned, match="declared it dead"):
                    await attempt()
            assert await found(alive) == before
            await ended(alive, no, answer(1), answer(3))
            assert await outputs(alive, no) == [b"answer 1\n", b"answer 2\n", b"answer 3\n"]
            # It may look on: whoever asks it is told what is there.
            assert await outputs(dead, no) == await outputs(alive, no)

    run(test)


def test_an_end_that_nobody_has_in_the_hand_is_marked_when_its_job_is_let_go(kept: Kept) -> None:
    """Whoever wrote it was called off before it could say so: the row is paid, and the job must end."""

    async def test() -> None:
        async with owner(kept) as (_, jobs):
            no = await begun(jobs, [b"1", b"2"])
            await claimed(jobs, no)
            await jobs.spool(no, answer(1))
            await jobs.close_job(no)
            assert await counts(jobs) == (1, 0, 0)
            assert await claimed(jobs, no) == [2]
            await jobs.spool(no, answer(2))
            await jobs.close_job(no)
            assert await jobs.end(no, NOW_NS) is not None
            assert await outputs(jobs, no) == [b"answer 1\n", b"answer 2\n"]

    run(test)


def test_a_job_that_is_erased_takes_no_lines_any_more(kept: Kept) -> None:
    """Whoever reads its input at that moment leaves nothing behind."""

    async def test() -> None:
        async with owner(kept) as (_, one), owner(kept.replica()) as (_, two):
            await stored(one, file(1), b"12")
            no = (await one.add(a_job(), [file(1).id])).no
            assert await one.begin_reading(no)
            await one.add_lines(no, placed([b"1"]))
            await two.erase(TEAM)
            await one.add_lines(no, placed([b"2"], first=2))
            await one.add_input(no, file(2).id)
            await one.spool(no, fault(2))
            with pytest.raises(StorageUnavailable, match="erased"):
                await one.change(no, {"lines": 2})
            await one.end_reading(no)
            for table in ("job", "line", "job_input", "file", "file_part"):
                assert kept.count(table) == 0, table

    run(test)


def test_a_file_that_a_dead_owner_received_in_part_goes(kept: Kept) -> None:
    """That of one who lives stays, and is found when it has ended."""

    async def test() -> None:
        async with owner(kept) as (dying, dead), owner(kept.replica()) as (_, alive):
            for number, jobs in ((1, dead), (2, alive)):
                await jobs.begin_file(file(number))
                await jobs.append_file(file(number).id, b"x" * 300_000)
            bury(kept, dying)
            async with owner(kept.replica()) as (_, other):
                assert kept.rows("SELECT DISTINCT file_id FROM file_part") == [(file(2).id,)]
                await alive.append_file(file(2).id, b"y" * 300_000)
                await alive.end_file(file(2).id, 600_000, "two")
                assert await other.read_file(file(2).id, 299_999, 3) == b"xyy"
                whole = await other.read_file(file(2).id, 0, 1 << 20)
                assert whole == b"x" * 300_000 + b"y" * 300_000

    run(test)


# --- the server -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", list(Cut), ids=lambda when: when.name)
def test_a_line_whose_claim_nobody_saw_is_not_lost(kept: Kept, postgres_server: Server, when: Cut) -> None:
    """Whether the server had done it or not: the next claim has it, and those that were claimed stay so."""

    async def test() -> None:
        async with owner(kept) as (_, other):
            no = await begun(other, [b"%d" % n for n in range(6)])
            with Wire(postgres_server.socket) as wire:
                async with owner(kept.through(wire.folder)) as (_, jobs):
                    assert await claimed(jobs, no, 2) == [1, 2]
                    wire.cut = when
                    with pytest.raises(StorageUnavailable, match="database"):
                        await claimed(jobs, no, 3)
                    assert wire.cuts == 1
                    assert await claimed(jobs, no, 9) == [3, 4, 5, 6]
                    await jobs.release(no, [(5, 0)])
                    assert await claimed(other, no) == [5]

    run(test)


@pytest.mark.parametrize("when", list(Cut), ids=lambda when: when.name)
def test_an_end_whose_commit_nobody_saw_counts_once(kept: Kept, postgres_server: Server, when: Cut) -> None:
    """It is written again, and marked again: by whoever has it in the hand."""

    async def test() -> None:
        async with owner(kept) as (_, other):
            no = await begun(other, [b"1", b"2"])
            with Wire(postgres_server.socket) as wire:
                async with owner(kept.through(wire.folder)) as (_, jobs):
                    await claimed(jobs, no)
                    for n in (1, 2):
                        wire.cut = when
                        with pytest.raises(StorageUnavailable):
                            await jobs.spool(no, answer(n))
                        spooled = await jobs.spool(no, answer(n))
                        wire.cut = when
                        with pytest.raises(StorageUnavailable):
                            await jobs.finish(no, [spooled])
                        await jobs.finish(no, [spooled])
                    assert wire.cuts == 4
            assert await counts(other) == (2, 0, 0)
            assert (await found(other)).cash_nanos == 2_003
            assert await outputs(other, no) == [b"answer 1\n", b"answer 2\n"]

    run(test)


def test_a_reading_that_a_restart_broke_off_begins_anew(kept: Kept, postgres_server: Server) -> None:
    """By the same owner, which could not even say that it has ended; one at a time all the same."""

    async def test() -> None:
        async with owner(kept) as (_, jobs), owner(kept.replica()) as (_, other):
            no = (await jobs.add(a_job())).no
            assert await jobs.begin_reading(no)
            assert not await jobs.begin_reading(no) and not await other.begin_reading(no)
            await asyncio.to_thread(postgres_server.crash)
            try:
                with pytest.raises(StorageUnavailable):
                    await jobs.end_reading(no)
            finally:
                await asyncio.to_thread(postgres_server.start)
            assert await again(lambda: jobs.begin_reading(no))
            assert not await again(lambda: other.begin_reading(no))
            await jobs.end_reading(no)
            assert await other.begin_reading(no)

    run(test)


@pytest.mark.parametrize("when", list(Cut), ids=lambda when: when.name)
def test_a_job_whose_commit_nobody_saw_is_not_added_twice(
    kept: Kept, postgres_server: Server, when: Cut
) -> None:
    """Whoever would send it again would pay it twice."""

    async def test() -> None:
        with Wire(postgres_server.socket) as wire:
            async with owner(kept.through(wire.folder)) as (_, jobs):
                wire.cut = when
                if when is Cut.AFTER:
                    assert (await jobs.add(a_job())).no
                else:
                    with pytest.raises(StorageUnavailable):
                        await jobs.add(a_job())
                assert kept.count("job") == (when is Cut.AFTER)

    run(test)


def test_a_server_that_restarts_takes_nothing_with_it(kept: Kept, postgres_server: Server) -> None:
    """What comes while it is away is refused, with what it is about; afterwards all goes on."""

    async def test() -> None:
        async with owner(kept) as (_, jobs):
            await stored(jobs, file(3), b"three")
            no = await begun(jobs, [b"1", b"2"])
            await claimed(jobs, no)
            spooled = await jobs.spool(no, answer(1))
            await asyncio.to_thread(postgres_server.crash)
            try:
                for attempt in (
                    lambda: jobs.begin(no, 2),
                    lambda: jobs.finish(no, [spooled]),
                    lambda: jobs.job(a_job().id),
                    lambda: jobs.read_file(file(3).id, 0, 9),
                ):
                    with pytest.raises(StorageUnavailable, match=r"database|Jobs"):
                        await attempt()
            finally:
                await asyncio.to_thread(postgres_server.start)
            await again(lambda: jobs.finish(no, [spooled]))
            assert await counts(jobs) == (1, 0, 0)
            assert await jobs.read_file(file(3).id, 0, 9) == b"three"

    run(test)


# --- much at one time -----------------------------------------------------------------------------------

HURRIED = """
CREATE FUNCTION hurried() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('statement_timeout') <> '10min' THEN RAISE 'there is not enough time'; END IF;
    RETURN NEW;
END $$
"""
ON_LINES = """
CREATE TRIGGER hurried BEFORE UPDATE ON line FOR EACH ROW
WHEN (OLD.state = 'failed' AND NEW.state = 'waiting') EXECUTE FUNCTION hurried()
"""


def test_a_retry_of_very_many_lines_is_given_its_time(kept: Kept) -> None:
    """It is one step, half a minute for a million lines: longer than anything else may take."""

    async def test() -> None:
        async with owner(kept) as (_, jobs):
            no = await begun(jobs, [b"a", b"b"])
            await claimed(jobs, no)
            await ended(jobs, no, fault(1), fault(2))
            for statement in (HURRIED, ON_LINES):
                kept.rows(statement)
            assert await jobs.retry(no, None, deadline_ns=NOW_NS) == 2
            assert await counts(jobs) == (0, 0, 0)

    run(test)
