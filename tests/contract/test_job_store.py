"""What every store of jobs promises: those on disk, on a server and in memory run the same suite."""

import sqlite3
import stat
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import permutations
from pathlib import Path
from typing import Any, Protocol

import pytest
from msgspec.structs import replace

from contract.job_records import (
    CANCELLED,
    DONE,
    FAILED,
    MUCH,
    NOW_NS,
    OTHER,
    TEAM,
    OnServer,
    a_job,
    answer,
    begun,
    claimed,
    counts,
    ended,
    fault,
    file,
    found,
    outputs,
    placed,
    read,
    run,
    stored,
)
from tiergate.batch import Crew, Erased, Finished, Halt, Job, JobStore, NewLine, Pause, Problem
from tiergate.core import CannotStart, DataClass, StorageUnavailable
from tiergate.store import SqliteJobs
from tiergate.store.spool import write_record
from tiergate.testing import MemoryJobs


class Place(Protocol):
    """Where jobs are kept. Whoever opens it is a new owner; the one before died without a word."""

    def owner(self) -> AbstractAsyncContextManager[JobStore]: ...

    def tear(self, no: int, finished: Finished) -> None:
        """Leave behind what a kill leaves in the middle of writing an end."""


class InMemory:
    def __init__(self) -> None:
        self._jobs: MemoryJobs | None = None

    @asynccontextmanager
    async def owner(self) -> AsyncIterator[JobStore]:
        self._jobs = MemoryJobs() if self._jobs is None else self._jobs.died()
        yield self._jobs

    def tear(self, no: int, finished: Finished) -> None:
        pass


class OnDisk:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._epoch = 0

    @asynccontextmanager
    async def owner(self) -> AsyncIterator[JobStore]:
        self._epoch += 1
        async with SqliteJobs(self.folder, epoch=self._epoch) as jobs:
            yield jobs

    def tear(self, no: int, finished: Finished) -> None:
        with self.spool(no).open("ab") as file:
            file.write(write_record(finished).data[:-1])

    def spool(self, no: int) -> Path:
        return self.folder / "jobs" / f"s{no}" / str(self._epoch)


@pytest.fixture(params=["memory", "disk", "server"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "server":
        return OnServer(request.getfixturevalue("postgres_places").new())
    return InMemory() if request.param == "memory" else OnDisk(tmp_path)


@pytest.fixture
def disk(tmp_path: Path) -> OnDisk:
    return OnDisk(tmp_path)


# Files.


def test_a_file_is_found_once_it_has_ended(place: Place) -> None:
    """Nobody finds it before; it is read in any pieces, and nothing behind its end."""

    async def test() -> None:
        async with place.owner() as jobs:
            await jobs.begin_file(file(1, name="draft"))
            await jobs.append_file(file(1).id, b"abc")
            assert await jobs.file(TEAM, file(1).id) is None
            assert await jobs.files(TEAM) == []
            await jobs.append_file(file(1).id, b"defg")
            await jobs.end_file(file(1).id, 7, "a.jsonl")
            assert await jobs.file(TEAM, file(1).id) == file(1, name="a.jsonl", bytes=7)
            pieces = [await jobs.read_file(file(1).id, at, 3) for at in (0, 2, 6, 7, 100)]
            assert pieces == [b"abc", b"cde", b"g", b"", b""]
            assert await jobs.read_file("file-none", 0, 3) == b""

    run(test)


def test_files_are_listed_newest_first(place: Place) -> None:
    """Those older than one, so many, of one purpose."""

    async def test() -> None:
        async with place.owner() as jobs:
            for number in range(1, 6):
                await stored(jobs, file(number, purpose="batch" if number % 2 else "other"), b"x")
            for asked, wanted in (
                ({}, [5, 4, 3, 2, 1]),
                ({"limit": 2}, [5, 4]),
                ({"after": file(4).id, "limit": 2}, [3, 2]),
                ({"after": file(1).id}, []),
                ({"purpose": "batch"}, [5, 3, 1]),
                ({"purpose": "batch", "after": file(5).id, "limit": 1}, [3]),
                ({"purpose": "nothing"}, []),
            ):
                listed = await jobs.files(TEAM, **asked)  # type: ignore[arg-type]  # as whoever lists asks
                assert [one.id for one in listed] == [file(number).id for number in wanted], asked

    run(test)


def test_a_file_is_its_tenants_alone(place: Place) -> None:
    """Others neither find nor list nor delete it."""

    async def test() -> None:
        async with place.owner() as jobs:
            await stored(jobs, file(1), b"x")
            assert await jobs.file(OTHER, file(1).id) is None
            assert await jobs.files(OTHER) == []
            assert not await jobs.drop_file(OTHER, file(1).id, NOW_NS)
            assert await jobs.file(TEAM, file(1).id) is not None

    run(test)


def test_a_file_that_is_deleted_is_gone(place: Place) -> None:
    """At once, and once."""

    async def test() -> None:
        async with place.owner() as jobs:
            await stored(jobs, file(1), b"x")
            await stored(jobs, file(2), b"y")
            assert await jobs.drop_file(TEAM, file(1).id, NOW_NS)
            assert not await jobs.drop_file(TEAM, file(1).id, NOW_NS)
            assert await jobs.file(TEAM, file(1).id) is None
            assert [one.id for one in await jobs.files(TEAM)] == [file(2).id]
            assert await jobs.read_file(file(1).id, 0, 9) == b""
            assert await jobs.read_file(file(2).id, 0, 9) == b"y"

    run(test)


def test_a_job_reads_on_in_a_file_that_is_deleted(place: Place) -> None:
    """Its tenant does not find it any more; with the job it goes."""

    async def test() -> None:
        async with place.owner() as jobs:
            no = await begun(jobs, [b"one\n", b"two\n"])
            assert await jobs.drop_file(TEAM, file(1).id, NOW_NS)
            assert await jobs.file(TEAM, file(1).id) is None and await jobs.files(TEAM) == []
            assert await jobs.line_text(no, 2) == b"two\n"
            assert [one.text for one in await jobs.claim(no, 9, bytes_max=MUCH)] == [b"one\n", b"two\n"]
            await jobs.change(no, {"ended_ns": NOW_NS})
            await jobs.forget(NOW_NS + 1)
            assert await jobs.read_file(file(1).id, 0, 9) == b""

    run(test)


def test_what_was_received_in_part_is_gone_with_its_owner(place: Place) -> None:
    """Those that had ended are there."""

    async def test() -> None:
        async with place.owner() as jobs:
            await stored(jobs, file(1), b"whole")
            await jobs.begin_file(file(2))
            await jobs.append_file(file(2).id, b"torn")
        async with place.owner() as jobs:
            assert await jobs.read_file(file(1).id, 0, 9) == b"whole"
            assert await jobs.read_file(file(2).id, 0, 9) == b""
            assert [one.id for one in await jobs.files(TEAM)] == [file(1).id]
            await stored(jobs, file(2), b"again")
            assert await jobs.read_file(file(2).id, 0, 9) == b"again"

    run(test)


# Jobs.


def test_a_job_is_read_back_as_it_was_added(place: Place) -> None:
    """With its number, also by the next owner."""
    wish = a_job(
        1,
        tag="nightly",
        model="m",
        data_class=DataClass.PRIVATE_ONLY,
        budget_nanos=5_000,
        is_strict=True,
        by_prefix=True,
        metadata={"ü": "ä\n"},
    )

    async def test() -> None:
        async with place.owner() as jobs:
            added = await jobs.add(wish)
            assert added == replace(wish, no=added.no)
            assert await jobs.job(wish.id) == added
            assert await jobs.job("batch_none") is None
        async with place.owner() as jobs:
            assert await jobs.job(wish.id) == added
            assert (await jobs.add(a_job(2))).no != added.no

    run(test)


def test_what_is_decided_is_saved_and_what_is_counted_stays(place: Place) -> None:
    """Only what is given changes."""

    async def test() -> None:
        async with place.owner() as jobs:
            no = await begun(jobs, [b"one\n", b"two\n"])
            before = await found(jobs)
            await ended(jobs, no, answer(1))
            decided = {
                "sha256": b"\0" * 32,
                "lines": 2,
                "budget_nanos": 7,
                "concurrency": 3,
                "deadline_ns": 11,
                "read_ns": 12,
                "cancel_ns": 13,
                "expired_ns": 14,
                "failed_ns": 15,
                "ended_ns": 16,
                "problems": (Problem(code="c", message="m", line=4),),
                "pause": Pause(halt=Halt.PARKED, word="throttled", message="wait", until_ns=18),
            }
            after = await jobs.change(no, decided)
            assert after == await found(jobs)
            assert replace(after, done=0, input_tokens=0, cached_tokens=0, output_tokens=0, **_no_cash()) == (
                replace(before, **decided)
            )
            assert (after.done, after.input_tokens, after.cash_nanos) == (1, 100, 1_001)
            await jobs.change(no, {"pause": None})
            await jobs.worked(no, 20)
            await jobs.worked(no, 3)
            later = await found(jobs)
            assert later == replace(after, pause=None, worked_ms=23)

    run(test)


def _no_cash() -> dict[str, Any]:
    return {name: 0 for name in Job.__struct_fields__ if name.startswith("cash_")}


def test_a_job_ends_when_no_line_waits(place: Place) -> None:
    """And what made it stand still is then over."""

    async def test() -> None:
        async with place.owner() as jobs:
            no = await begun(jobs, [b"one\n", b"two\n"])
            await jobs.change(no, {"pause": Pause(halt=Halt.STOPPED, word="w", message="m")})
            await ended(jobs, no, answer(1))
            assert await jobs.end(no, NOW_NS) is None
            assert (await found(jobs)).ended_ns is None
            await ended(jobs, no, answer(2))
            job = await jobs.end(no, NOW_NS)
            assert job == await found(jobs) and (job.ended_ns, job.pause) == (NOW_NS, None)

    run(test)


def test_jobs_are_listed_newest_first(place: Place) -> None:
    """Of a tenant, or of all; older ones than one, so many."""

    async def test() -> None:
        async with place.owner() as jobs:
            for number in range(1, 7):
                await jobs.add(a_job(number, TEAM if number % 2 else OTHER))
            for tenant, after, limit, wanted in (
                (TEAM, None, 20, [5, 3, 1]),
                (OTHER, None, 2, [6, 4]),
                (None, None, 20, [6, 5, 4, 3, 2, 1]),
                (None, 4, 2, [3, 2]),
                (TEAM, 1, 20, []),
                ("team:nobody", None, 20, []),
            ):
                older_than = None if after is None else a_job(after).id
                listed = await jobs.jobs(tenant, after=older_than, limit=limit)
                assert [one.id for one in listed] == [a_job(number).id for number in wanted]

    run(test)


def test_open_are_those_that_neither_ended_nor_failed(place: Place) -> None:
    """The oldest first, of all tenants; one that is cancelled has its end still before it."""

    async def test() -> None:
        async with place.owner() as jobs:
            for number, tenant, change in (
                (9, TEAM, {}),
                (2, OTHER, {"cancel_ns": NOW_NS}),
                (3, TEAM, {"ended_ns": NOW_NS}),
                (4, TEAM, {"failed_ns": NOW_NS}),
                (5, TEAM, {"expired_ns": NOW_NS}),
            ):
                await jobs.change((await jobs.add(a_job(number, tenant))).no, change)
            opened = [job.id for job in await jobs.open_jobs()]
            assert opened == [a_job(number).id for number in (9, 2, 5)]

    run(test)


def test_a_job_reads_each_of_its_files_under_one_number(place: Place) -> None:
    """The same one again is the same."""

    async def test() -> None:
        async with place.owner() as jobs:
            no = (await jobs.add(a_job())).no
            names = ["file-b", "file-a", "file-b"]
            assert [await jobs.add_input(no, name) for name in names] == [0, 1, 0]
            assert list(await jobs.inputs(no)) == ["file-b", "file-a"]

    run(test)


# Lines.


def test_lines_are_claimed_in_the_order_of_rank_and_number(place: Place) -> None:
    """With their texts, from each file that the job reads."""

    async def test() -> None:
        async with place.owner() as jobs:
            await stored(jobs, file(1), b"one\ntwo\n")
            await stored(jobs, file(2), b"three\nfour\n")
            no = (await jobs.add(a_job())).no
            await jobs.add_input(no, file(1).id)
            await read(jobs, no, [NewLine(1, 0, 0, 3, rank=7), NewLine(2, 0, 4, 3, rank=2)])
            more = [NewLine(3, 1, 0, 5, rank=7), NewLine(4, 1, 6, 4, rank=2)]
            await read(jobs, no, more, file(2).id)
            lines = await jobs.claim(no, 3, bytes_max=MUCH)
            assert [(line.n, line.text) for line in lines] == [(2, b"two"), (4, b"four"), (1, b"one")]
            assert [(line.tries, line.interrupted) for line in lines] == [(0, 0)] * 3
            assert await claimed(jobs, no, 3) == [3]
            assert [await jobs.line_text(no, n) for n in (3, 1)] == [b"three", b"one"]

    run(test)


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("gap", [1, 2_000_000], ids=["near", "far"])
def test_a_claim_gives_each_line_its_own_text(place: Place, order: tuple[int, ...], gap: int) -> None:
    """In whatever order, and however far apart, the lines stand in their file."""

    async def test() -> None:
        async with place.owner() as jobs:
            texts = [b"one", b"second", b"line 3"]
            offsets = [sum(map(len, texts[:number])) + number * gap for number in range(3)]
            await stored(jobs, file(1), (b" " * gap).join(texts))
            no = (await jobs.add(a_job())).no
            await jobs.add_input(no, file(1).id)
            await read(
                jobs, no, [NewLine(n + 1, 0, offsets[n], len(texts[n]), rank=order.index(n)) for n in order]
            )
            lines = await jobs.claim(no, 3, bytes_max=MUCH)
            assert [(line.n, line.text) for line in lines] == [(n + 1, texts[n]) for n in order]

    run(test)


def test_a_claim_holds_no_more_text_than_it_may(place: Place) -> None:
    """But one line at least, however long."""

    async def test() -> None:
        async with place.owner() as jobs:
            no = await begun(jobs, [b"x" * size for size in (10, 10, 30, 10, 10, 11)])
            passes = [await claimed(jobs, no, bytes_max=20) for _ in range(5)]
            assert passes == [[1, 2], [3], [4, 5], [6], []]

    run(test)


def test_a_pass_gives_each_waiting_line_once(place: Place) -> None:
    """Then nothing; the next pass gives what waits by then."""

    async def test() -> None:
        async with place.owner() as jobs:
            no = await begun(jobs, [b"%d" % n for n in range(1, 6)])
            assert await claimed(jobs, no, 2) == [1, 2]
            await ended(jobs, no, answer(1))
            await jobs.release(no, [(2, 0)])
            assert await claimed(jobs, no, 2) == [3, 4]
            await ended(jobs, no, answer(3), fault(4))
            assert await claimed(jobs, no, 2) == [5]
            assert await claimed(jobs, no, 2) == []
            await jobs.release(no, [(5, 0)])
            assert await claimed(jobs, no) == [2, 5]
            assert await claimed(jobs, no) == []
            await ended(jobs, no, answer(2), answer(5))
            assert [await claimed(jobs, no) for _ in range(3)] == [[], [], []]

    run(test)


def test_a_job_that_is_closed_begins_with_a_new_pass(place: Place) -> None:
    """What was claimed and had no end waits."""

    async def test() -> None:
        async with place.owner() as jobs:
            no = await begun(jobs, [b"%d" % n for n in range(1, 5)])
            assert await claimed(jobs, no, 3) == [1, 2, 3]
            await ended(jobs, no, answer(2))
            await jobs.close_job(no)
            assert await claimed(jobs, no) == [1, 3, 4]

    run(test)


def test_lines_that_are_added_later_are_claimed_by_the_pass_that_goes_on(place: Place) -> None:
    """Or by the next one."""

    async def test() -> None:
        async with place.owner() as jobs:
            texts = [b"%d" % n for n in range(1, 5)]
            await stored(jobs, file(1), b"".join(texts))
            no = (await jobs.add(a_job())).no
            await jobs.add_input(no, file(1).id)
            lines = placed(texts)
            await read(jobs, no, lines[:2])
            assert await claimed(jobs, no) == [1, 2]
            await read(jobs, no, lines[2:])
            assert await claimed(jobs, no) == [3, 4]

    run(test)


def test_what_is_let_go_waits_with_the_tries_that_it_had(place: Place) -> None:
    """Also for the next owner, to whom it was not interrupted."""

    async def test() -> None:
        async with place.owner() as jobs:
            no = await begun(jobs, [b"%d" % n for n in range(1, 4)])
            await jobs.claim(no, 3, bytes_max=MUCH)
            for n in (1, 2):
                await jobs.begin(no, n)
            await jobs.release(no, [(1, 2), (2, 0), (3, 0)])
            await jobs.close_job(no)
        async with place.owner() as jobs:
            assert await jobs.recover(no) == []
            lines = await jobs.claim(no, 3, bytes_max=MUCH)
            assert [(line.n, line.tries, line.interrupted) for line in lines] == [
                (1, 2, 0),
                (2, 0, 0),
                (3, 0, 0),
            ]
            assert (await found(jobs)).interrupted == 0

    run(test)


def test_alike_are_those_that_have_the_hash_of_an_earlier_one(place: Place) -> None:
    """Each with the first of them, if it waits; lines without a hash are like none."""
    hashes = [5, None, 6, 5, None, 5, 6, 7]

    async def test() -> None:
        async with place.owner() as jobs:
            no = (await jobs.add(a_job())).no
            await jobs.add_input(no, file(1).id)
            await read(jobs, no, [NewLine(n, 0, 0, 1, value) for n, value in enumerate(hashes, start=1)])
            assert await jobs.alike(no) == [(1, 4), (1, 6), (3, 7)]
            await ended(jobs, no, fault(1), fault(6))
            assert await jobs.alike(no) == [(1, 4), (3, 7)]

    run(test)


# Ends.


def test_ends_are_marked_counted_and_read_in_the_order_of_the_input(place: Place) -> None:
    """Whichever came first; those that are done, those that are not, or both."""

    async def test() -> None:
        async with place.owner() as jobs:
            no = await begun(jobs, [b"%d" % n for n in range(1, 6)])
            first = await jobs.spool(no, answer(4, is_hit=True))
            second = await jobs.spool(no, answer(2))
            assert await outputs(jobs, no) == []
            await jobs.finish(no, [second, first])
            await ended(jobs, no, fault(3), fault(1, "late", CANCELLED))
            assert await outputs(jobs, no) == [b"late 1\n", b"answer 2\n", b"bad 3\n", b"answer 4\n"]
            assert await outputs(jobs, no, failed=False) == [b"answer 2\n", b"answer 4\n"]
            assert await outputs(jobs, no, done=False) == [b"late 1\n", b"bad 3\n"]
            assert await outputs(jobs, no, done=False, failed=False) == []
            pages = [await jobs.outputs(no, done=True, failed=True, after=n, limit=2) for n in (0, 2, 4)]
            assert [[one.n for one in page] for page in pages] == [[1, 2], [3, 4], []]
            assert [one.state for one in pages[0]] == [CANCELLED, DONE]
            sizes = [
                await jobs.output_bytes(no, done=done, failed=failed)
                for done, failed in ((True, True), (True, False), (False, True), (False, False))
            ]
            assert sizes == [31, 18, 13, 0]
            job = await found(jobs)
            assert (job.done, job.failed, job.cancelled, job.hits) == (2, 1, 1, 1)
            assert (job.input_tokens, job.cached_tokens, job.output_tokens) == (200, 20, 40)
            assert job.cash_nanos == 2_006
            assert await claimed(jobs, no) == [5]

    run(test)


def test_an_end_that_is_marked_twice_counts_once(place: Place) -> None:
    """The first one is the line's; a second one of the same line changes nothing."""

    async def test() -> None:
        async with place.owner() as jobs:
            no = await begun(jobs, [b"1", b"2"])
            once = await jobs.spool(no, answer(1))
            await jobs.finish(no, [once, once])
            await jobs.finish(no, [once])
            await ended(jobs, no, fault(1), answer(1, output=b"another\n"))
            assert await counts(jobs) == (1, 0, 0)
            assert (await found(jobs)).cash_nanos == 1_001
            assert await outputs(jobs, no) == [b"answer 1\n"]
        async with place.owner() as jobs:
            assert await jobs.recover(no) == []
            assert await counts(jobs) == (1, 0, 0)

    run(test)


def test_failed_lines_are_counted_by_their_errors(place: Place) -> None:
    """The most frequent first, those that nobody asked among them."""

    async def test() -> None:
        async with place.owner() as jobs:
            no = await begun(jobs, [b"%d" % n for n in range(1, 8)])
            codes = ["b", "c", "c", "a", "d", "d"]
            await ended(jobs, no, answer(7))
            await ended(
                jobs,
                no,
                *(fault(n, code, CANCELLED if code == "d" else FAILED) for n, code in enumerate(codes, 1)),
            )
            assert list((await jobs.errors(no)).items()) == [("c", 2), ("d", 2), ("a", 1), ("b", 1)]

    run(test)


@pytest.mark.parametrize("is_ended", [False, True])
def test_a_job_goes_on_with_what_failed(place: Place, is_ended: bool) -> None:
    """In one step with its lines: who dies then leaves no ended job with lines that wait."""

    async def test() -> None:
        async with place.owner() as jobs:
            no = await begun(jobs, [b"1", b"2"])
            await ended(jobs, no, answer(1), fault(2))
            before = await jobs.change(
                no,
                {
                    "ended_ns": NOW_NS if is_ended else None,
                    "cancel_ns": NOW_NS,
                    "expired_ns": NOW_NS,
                    "pause": Pause(halt=Halt.STOPPED, word="w", message="m"),
                },
            )
            assert await jobs.retry(no, ["nothing"], deadline_ns=5) == 0
            assert await found(jobs) == before
            assert await jobs.retry(no, None, deadline_ns=5) == 1
            deadline_ns = 5 if is_ended else before.deadline_ns
            open_again = {"ended_ns": None, "cancel_ns": None, "expired_ns": None, "pause": None}
            assert await found(jobs) == replace(before, failed=0, deadline_ns=deadline_ns, **open_again)

    run(test)


@pytest.mark.parametrize(
    ("codes", "left", "waiting"),
    [
        (None, (1, 0, 0), [2, 3, 4, 5]),
        (["late"], (1, 3, 0), [5]),
        (["bad", "late"], (1, 1, 0), [2, 4, 5]),
        (["nothing"], (1, 3, 1), []),
        ([], (1, 3, 1), []),
    ],
)
def test_failed_lines_wait_again(
    place: Place, codes: list[str] | None, left: tuple[int, int, int], waiting: list[int]
) -> None:
    """Those with the errors that are named; their outputs are gone, and their next ends count."""

    async def test() -> None:
        async with place.owner() as jobs:
            no = await begun(jobs, [b"%d" % n for n in range(1, 6)])
            await jobs.claim(no, 1, bytes_max=MUCH)
            await jobs.release(no, [(1, 3)])
            await ended(
                jobs, no, answer(1), fault(2), fault(3, "other"), fault(4), fault(5, "late", CANCELLED)
            )
            await jobs.close_job(no)
            assert await jobs.retry(no, codes, deadline_ns=NOW_NS) == len(waiting)
            assert await counts(jobs) == left
            lines = await jobs.claim(no, 9, bytes_max=MUCH)
            assert [line.n for line in lines] == waiting
            assert all((line.tries, line.interrupted) == (0, 0) for line in lines)
            assert len(await outputs(jobs, no)) == 5 - len(waiting)
            await ended(jobs, no, *(answer(n) for n in waiting))
            assert await counts(jobs) == (1 + len(waiting), left[1], left[2])
        async with place.owner() as jobs:
            assert await jobs.recover(no) == []
            assert await counts(jobs) == (1 + len(waiting), left[1], left[2])

    run(test)


# Deaths.


def test_what_was_spooled_and_not_marked_is_marked_by_the_next_owner(place: Place) -> None:
    """Once, with what it took; it is not asked again, and was not interrupted."""

    async def test() -> None:
        async with place.owner() as jobs:
            no = await begun(jobs, [b"%d" % n for n in range(1, 6)])
            await jobs.claim(no, 5, bytes_max=MUCH)
            for n in (1, 2, 3):
                await jobs.begin(no, n)
            await ended(jobs, no, answer(2))
            await jobs.spool(no, answer(3))
            await jobs.spool(no, fault(1))
        async with place.owner() as jobs:
            found_ends = sorted(await jobs.recover(no), key=lambda end: end.n)
            assert found_ends == [replace(fault(1), output=b""), answer(3, output=b"")]
            assert await counts(jobs) == (2, 1, 0)
            job = await found(jobs)
            assert (job.cash_nanos, job.interrupted) == (2_005, 0)
            assert await outputs(jobs, no) == [b"bad 1\n", b"answer 2\n", b"answer 3\n"]
            assert await claimed(jobs, no) == [4, 5]
            await ended(jobs, no, answer(4))
        async with place.owner() as jobs:
            assert await jobs.recover(no) == []
            assert await counts(jobs) == (3, 1, 0)
            assert await outputs(jobs, no) == [b"bad 1\n", b"answer 2\n", b"answer 3\n", b"answer 4\n"]

    run(test)


def test_what_was_begun_and_has_no_end_was_interrupted(place: Place) -> None:
    """The line, once for each death, and the job; one that was only claimed was not."""

    async def test() -> None:
        async with place.owner() as jobs:
            no = await begun(jobs, [b"%d" % n for n in range(1, 5)])
        for deaths in (0, 1, 2):
            async with place.owner() as jobs:
                await jobs.recover(no)
                assert (await found(jobs)).interrupted == 2 * deaths
                lines = await jobs.claim(no, 9, bytes_max=MUCH)
                assert [line.interrupted for line in lines] == [deaths, 0, deaths, 0]
                for n in (1, 3):
                    await jobs.begin(no, n)
        # Who dies before it has begun anything has interrupted nothing.
        for _ in range(2):
            async with place.owner() as jobs:
                await jobs.recover(no)
                assert (await found(jobs)).interrupted == 6

    run(test)


def test_a_line_that_is_begun_again_was_interrupted_once(place: Place) -> None:
    """However often its owner asked it."""

    async def test() -> None:
        async with place.owner() as jobs:
            no = await begun(jobs, [b"1", b"2"])
            await jobs.claim(no, 2, bytes_max=MUCH)
            for _ in range(3):
                await jobs.begin(no, 1)
            for _ in range(3):
                await jobs.begin(no, 2)
                await jobs.rest(no, 2)
            await jobs.begin(no, 2)
        async with place.owner() as jobs:
            await jobs.recover(no)
            assert (await found(jobs)).interrupted == 2
            assert [line.interrupted for line in await jobs.claim(no, 2, bytes_max=MUCH)] == [1, 1]

    run(test)


def test_a_line_that_rests_was_not_interrupted(place: Place) -> None:
    """Its owner had it, and nobody was asked."""

    async def test() -> None:
        async with place.owner() as jobs:
            no = await begun(jobs, [b"1", b"2"])
            assert await claimed(jobs, no) == [1, 2]
            for n in (1, 2):
                await jobs.begin(no, n)
            await jobs.rest(no, 1)
            assert await claimed(jobs, no) == []
        async with place.owner() as jobs:
            await jobs.recover(no)
            assert [line.interrupted for line in await jobs.claim(no, 2, bytes_max=MUCH)] == [0, 1]

    run(test)


def test_an_end_that_was_not_written_whole_is_none(place: Place) -> None:
    """Its line waits again; what stands before it is kept, and what comes later is read."""

    async def test() -> None:
        async with place.owner() as jobs:
            no = await begun(jobs, [b"%d" % n for n in range(1, 4)])
            await jobs.claim(no, 3, bytes_max=MUCH)
            for n in (1, 2):
                await jobs.begin(no, n)
            await jobs.spool(no, answer(1))
        place.tear(no, answer(2))
        async with place.owner() as jobs:
            assert [end.n for end in await jobs.recover(no)] == [1]
            lines = await jobs.claim(no, 3, bytes_max=MUCH)
            assert [(line.n, line.interrupted) for line in lines] == [(2, 1), (3, 0)]
            await jobs.spool(no, answer(2))
        async with place.owner() as jobs:
            assert [end.n for end in await jobs.recover(no)] == [2]
            assert await outputs(jobs, no) == [b"answer 1\n", b"answer 2\n"]

    run(test)


def test_an_owner_that_dies_while_it_takes_over_loses_nothing(place: Place) -> None:
    """Ends of two owners before are marked, too."""

    async def test() -> None:
        async with place.owner() as jobs:
            no = await begun(jobs, [b"1", b"2", b"3"])
            await jobs.spool(no, answer(2))
        async with place.owner() as jobs:
            await jobs.spool(no, answer(1))
        async with place.owner() as jobs:
            assert sorted(end.n for end in await jobs.recover(no)) == [1, 2]
            assert await claimed(jobs, no) == [3]

    run(test)


# What is taken away.


def test_lines_of_a_reading_that_was_broken_off_are_gone(place: Place) -> None:
    """With their ends and what was counted; then they are read from the beginning, and nobody had them."""

    async def test() -> None:
        async with place.owner() as jobs:
            await stored(jobs, file(1), b"123")
            no = (await jobs.add(a_job(), [file(1).id])).no
            lines = placed([b"1", b"2", b"3"])
            assert await jobs.begin_reading(no)
            await jobs.add_lines(no, lines[:2])
            await ended(jobs, no, fault(1))
            await jobs.spool(no, fault(2))
            assert await claimed(jobs, no) == []
        async with place.owner() as jobs:
            assert await jobs.begin_reading(no)
            assert await found(jobs) == replace(a_job(), no=no)
            assert list(await jobs.inputs(no)) == [file(1).id]
            await jobs.add_lines(no, lines)
            await ended(jobs, no, fault(2, "late"))
            await jobs.change(no, {"lines": 3, "read_ns": NOW_NS})
            await jobs.end_reading(no)
            assert await counts(jobs) == (0, 1, 0)
            assert await claimed(jobs, no) == [1, 3]
        async with place.owner() as jobs:
            assert await jobs.recover(no) == []
            assert await outputs(jobs, no) == [b"late 2\n"]
            assert (await found(jobs)).interrupted == 0

    run(test)


def test_a_job_that_was_to_grow_is_as_it_was(place: Place) -> None:
    """Neither more lines nor other files, when the reading was broken off; and it had ended all the time."""

    async def test() -> None:
        async with place.owner() as jobs:
            no = await begun(jobs, [b"1", b"2"])
            await ended(jobs, no, answer(1), fault(2))
            await stored(jobs, file(2), b"34")
            assert await jobs.begin_reading(no)
            source = await jobs.add_input(no, file(2).id)
            await jobs.add_lines(no, placed([b"3", b"4"], source=source, first=3))
            await ended(jobs, no, fault(4))
            assert await claimed(jobs, no) == []
            assert await jobs.end(no, NOW_NS) is not None
        async with place.owner() as jobs:
            await jobs.recover(no)
            await stored(jobs, file(3), b"three, four")
            assert await jobs.begin_reading(no)
            assert await counts(jobs) == (1, 1, 0)
            assert list(await jobs.inputs(no)) == [file(1).id]
            source = await jobs.add_input(no, file(3).id)
            await jobs.add_lines(no, [NewLine(3, source, 0, 5), NewLine(4, source, 7, 4)])
            await jobs.change(no, {"lines": 4, "ended_ns": None})
            await jobs.end_reading(no)
            lines = await jobs.claim(no, 9, bytes_max=MUCH)
            assert [(line.n, line.text) for line in lines] == [(3, b"three"), (4, b"four")]

    run(test)


def test_one_at_a_time_reads_lines_into_a_job(place: Place) -> None:
    """Others are sent away until it has ended, or died."""

    async def test() -> None:
        async with place.owner() as jobs:
            no, other = [(await jobs.add(a_job(number))).no for number in (1, 2)]
            assert await jobs.begin_reading(no)
            assert not await jobs.begin_reading(no)
            assert await jobs.begin_reading(other)
            await jobs.end_reading(no)
            assert await jobs.begin_reading(no)
        async with place.owner() as jobs:
            assert await jobs.begin_reading(no)
            assert not await jobs.begin_reading(no)

    run(test)


def test_who_works_a_job_is_known(place: Place) -> None:
    """From when on, until when, and what is asked."""

    async def test() -> None:
        async with place.owner() as jobs:
            no = await begun(jobs, [b"1", b"2", b"3"])
            assert await jobs.crew(no) == Crew(0, None, 0)
            for _ in range(2):
                assert await jobs.join(no) == Crew(1, 0, 0)
            await claimed(jobs, no)
            for n in (1, 2, 3):
                await jobs.begin(no, n)
            await jobs.rest(no, 3)
            assert await jobs.crew(no) == Crew(1, 0, 2)
            await ended(jobs, no, answer(1))
            assert await jobs.leave(no) == Crew(0, None, 1)
            await jobs.release(no, [(2, 0), (3, 0)])
            await jobs.close_job(no)
            assert await jobs.crew(no) == Crew(0, None, 0)

    run(test)


def test_what_ended_long_ago_is_forgotten(place: Place) -> None:
    """Jobs by their ends, files by their age; no job that is open, and no file that a job reads."""

    async def test() -> None:
        async with place.owner() as jobs:
            for number, change in (
                (1, {"ended_ns": NOW_NS - 1}),
                (2, {"failed_ns": NOW_NS - 1}),
                (3, {"ended_ns": NOW_NS}),
                (4, {}),
            ):
                await begun(jobs, [b"x"], number=number)
                await jobs.change((await found(jobs, number)).no, change)
            for number, created_ns in ((5, NOW_NS - 1), (6, NOW_NS)):
                await stored(jobs, file(number, created_ns=created_ns), b"x")
            while await jobs.forget(NOW_NS):
                pass
            assert [job.id for job in await jobs.jobs(TEAM)] == [a_job(number).id for number in (4, 3)]
            # The files of the forgotten ones are as young as any, and stay.
            files = [one.id for one in await jobs.files(TEAM)]
            assert files == [file(number).id for number in (6, 4, 3, 2, 1)]
            await jobs.forget(NOW_NS + 100)
            assert [one.id for one in await jobs.files(TEAM)] == [file(4).id]

    run(test)


def test_all_of_a_tenant_is_erased(place: Place) -> None:
    """However much; nothing of another one."""

    async def test() -> None:
        async with place.owner() as jobs:
            mine = await begun(jobs, [b"mine"], number=1)
            others = await begun(jobs, [b"1", b"2"], number=2, tenant=OTHER)
            await ended(jobs, mine, answer(1))
            await ended(jobs, others, answer(1))
            await jobs.spool(others, answer(2))
            await stored(jobs, file(3), b"mine, too")
            await jobs.begin_file(file(4))
            for number in range(100, 250):
                await jobs.add(a_job(number))
            assert await jobs.erase(TEAM) == Erased(151, 3)
            assert await jobs.erase(TEAM) == Erased(0, 0)
            assert await jobs.files(TEAM) == [] and await jobs.jobs(TEAM) == []
            assert [await jobs.read_file(file(number).id, 0, 9) for number in (1, 2, 3)] == [b"", b"12", b""]
            assert await outputs(jobs, others) == [b"answer 1\n"]
        async with place.owner() as jobs:
            assert [end.n for end in await jobs.recover(others)] == [2]
            assert await outputs(jobs, others) == [b"answer 1\n", b"answer 2\n"]

    run(test)


# On disk.


def bytes_of(folder: Path) -> bytes:
    """Everything that stands in a folder: names and texts."""
    paths = sorted(folder.rglob("*"))
    return b"\n".join([str(path.relative_to(folder)).encode() for path in paths]) + b"".join(
        path.read_bytes() for path in paths if path.is_file()
    )


@pytest.mark.parametrize("how", ["erase", "forget"])
def test_nothing_of_a_text_is_left_on_the_disk(disk: OnDisk, how: str) -> None:
    """Neither of a question nor of an answer, nor the name of a file."""
    canary = b"canary-of-a-text"

    async def test() -> None:
        async with disk.owner() as jobs:
            await stored(jobs, file(1, name="draft"), canary * 50)
            job = await jobs.add(a_job(1, metadata={"canary": "canary-of-metadata"}))
            await jobs.add_input(job.no, file(1).id)
            await read(jobs, job.no, placed([canary * 50]))
            await ended(jobs, job.no, answer(1, output=b"canary-of-an-answer"))
            await jobs.end_file(file(1).id, 800, "canary-of-a-name")
            await jobs.change(job.no, {"ended_ns": NOW_NS})
            there = bytes_of(disk.folder)
            assert all(
                b"canary-of-" + word in there for word in (b"a-text", b"an-answer", b"a-name", b"metadata")
            )
            if how == "erase":
                await jobs.erase(TEAM)
                assert b"canary" not in bytes_of(disk.folder)
            else:
                await jobs.forget(NOW_NS + 100)
        assert b"canary" not in bytes_of(disk.folder)

    run(test)


def test_it_is_for_its_owners_eyes_only(disk: OnDisk) -> None:
    """Each file and each folder."""

    async def test() -> None:
        async with disk.owner() as jobs:
            no = await begun(jobs, [b"1"])
            await jobs.begin(no, 1)
            await ended(jobs, no, answer(1))
            paths = list(disk.folder.rglob("*"))
            assert len(paths) >= 7
            modes = {path: stat.S_IMODE(path.stat().st_mode) for path in paths}
            assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}
            assert {mode for path, mode in modes.items() if not path.is_dir()} == {0o600}

    run(test)


@pytest.mark.parametrize("cut", [1, 10, 60, 90, 130])
def test_a_spool_that_is_cut_off_anywhere_keeps_its_whole_records(disk: OnDisk, cut: int) -> None:
    """What was marked before is marked; the rest waits again, and the file ends behind the last whole one."""

    async def test() -> None:
        async with disk.owner() as jobs:
            no = await begun(jobs, [b"1", b"2", b"3", b"4"])
            await ended(jobs, no, answer(1))
            for n in (2, 3, 4):
                await jobs.spool(no, answer(n))
        spool = disk.spool(no)
        whole = spool.read_bytes()
        spool.write_bytes(whole[:-cut])
        async with disk.owner() as jobs:
            kept = [end.n for end in await jobs.recover(no)]
            assert kept == [2, 3, 4][: len(kept)]
            assert await claimed(jobs, no) == [2, 3, 4][len(kept) :]
            assert await outputs(jobs, no) == [b"answer %d\n" % n for n in (1, *kept)]
            ends = await jobs.recover(no)
            assert ends == [] and whole.startswith(spool.read_bytes())
            assert spool.read_bytes().count(b"answer") == 1 + len(kept)

    run(test)


def test_a_spool_with_long_answers_is_read_whole(disk: OnDisk) -> None:
    """Longer ones than are read at one time, and many behind each other."""
    sizes = [3_000_000, 10, 1_100_000, 700_000, 700_000, 5]

    async def test() -> None:
        async with disk.owner() as jobs:
            no = await begun(jobs, [b"x"] * len(sizes))
            for n, size in enumerate(sizes, start=1):
                await jobs.spool(no, answer(n, output=b"%d" % n * size))
        async with disk.owner() as jobs:
            assert [end.n for end in await jobs.recover(no)] == list(range(1, 7))
            assert [len(line) for line in await outputs(jobs, no)] == sizes

    run(test)


def test_a_file_that_is_no_database_stops_the_start(disk: OnDisk) -> None:
    """With what to do about it."""
    (disk.folder / "jobs.db").write_bytes(b"no database" * 1000)

    async def test() -> None:
        with pytest.raises(CannotStart, match="tiergate restore"):
            async with disk.owner():
                pass

    run(test)


def test_a_link_in_place_of_the_folder_stops_the_start(disk: OnDisk, tmp_path: Path) -> None:
    """Texts are written to no other place."""
    (tmp_path / "elsewhere").mkdir()
    (disk.folder / "jobs").symlink_to(tmp_path / "elsewhere")

    async def test() -> None:
        with pytest.raises(CannotStart, match="no link"):
            async with disk.owner():
                pass

    run(test)


def test_a_locked_database_is_told_and_takes_nothing(disk: OnDisk) -> None:
    """The line waits; when it is free again everything goes on."""

    async def test() -> None:
        async with disk.owner() as jobs:
            no = await begun(jobs, [b"1"])
            assert isinstance(jobs, SqliteJobs)
            await jobs._do(lambda: jobs._books.connection.execute("PRAGMA busy_timeout = 10"))
            spooled = await jobs.spool(no, answer(1))
            other = sqlite3.connect(disk.folder / "jobs.db", isolation_level=None)
            other.execute("BEGIN EXCLUSIVE")
            with pytest.raises(StorageUnavailable, match="SQLITE_BUSY"):
                await jobs.finish(no, [spooled])
            other.execute("ROLLBACK")
            other.close()
            assert await counts(jobs) == (0, 0, 0)
            await jobs.finish(no, [spooled])
            assert await counts(jobs) == (1, 0, 0)

    run(test)
