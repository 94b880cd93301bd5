"""Jobs, lines and ends for suites of their stores, and a place for them on a server."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from places import Kept
from tiergate.batch import Finished, Job, JobStore, NewLine, StoredFile
from tiergate.ledger import LineState
from tiergate.store import LedgerJournal
from tiergate.store.postgres.connection import Address
from tiergate.store.postgres.jobs import PostgresJobs

NOW_NS = 1_800_000_000_000_000_000
MUCH = 1 << 20
TEAM, OTHER = "team:web", "key:lone"
DONE, FAILED, CANCELLED = LineState.DONE, LineState.FAILED, LineState.CANCELLED


class OnServer:
    """A data folder of a replica: whoever comes back to it has buried its last owner."""

    def __init__(self, kept: Kept) -> None:
        self.kept = kept

    @asynccontextmanager
    async def owner(self) -> AsyncIterator[JobStore]:
        async with self.kept.journal(randomness=os.urandom) as journal, jobs_of(self.kept, journal) as jobs:
            yield jobs

    def replica(self) -> "OnServer":
        return OnServer(self.kept.replica())

    def tear(self, no: int, finished: Finished) -> None:
        pass


def jobs_of(kept: Kept, journal: LedgerJournal) -> PostgresJobs:
    assert kept.store is not None
    return PostgresJobs(Address(kept.store), epoch=journal.owner.epoch)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await test()

    asyncio.run(bounded())


def file(number: int, tenant: str = TEAM, **facts: Any) -> StoredFile:
    facts = {"name": "", "purpose": "batch", "created_ns": NOW_NS + number, **facts}
    return StoredFile(id=f"file-{number:03}", tenant=tenant, **facts)


async def stored(jobs: JobStore, one: StoredFile, *pieces: bytes) -> None:
    await jobs.begin_file(one)
    for piece in pieces:
        await jobs.append_file(one.id, piece)
    await jobs.end_file(one.id, sum(map(len, pieces)), f"{one.id}.jsonl")


def a_job(number: int = 1, tenant: str = TEAM, **facts: Any) -> Job:
    facts = {"input_file": file(number).id, "concurrency": 8, "window_s": 3600, **facts}
    return Job(
        id=f"batch_{number:03}",
        tenant=tenant,
        key="alice",
        endpoint="/v1/chat/completions",
        created_ns=NOW_NS,
        deadline_ns=NOW_NS + 10**15,
        **facts,
    )


async def begun(jobs: JobStore, texts: list[bytes], *, number: int = 1, tenant: str = TEAM) -> int:
    """Keep a job and its lines, which stand one behind the other in one file; gives its number."""
    await stored(jobs, file(number, tenant), b"".join(texts))
    job = await jobs.add(a_job(number, tenant))
    source = await jobs.add_input(job.no, file(number).id)
    await read(jobs, job.no, placed(texts, source=source))
    return job.no


async def read(jobs: JobStore, no: int, lines: list[NewLine], *files: str) -> None:
    """Add lines behind those that are there, as whoever reads an input does."""
    assert await jobs.begin_reading(no)
    for file_id in files:
        await jobs.add_input(no, file_id)
    await jobs.add_lines(no, lines)
    await jobs.change(no, {"lines": max(line.n for line in lines), "read_ns": NOW_NS})
    await jobs.end_reading(no)


def placed(texts: list[bytes], *, source: int = 0, first: int = 1) -> list[NewLine]:
    offsets = [sum(map(len, texts[:number])) for number in range(len(texts))]
    return [
        NewLine(n, source, offset, len(text))
        for n, offset, text in zip(range(first, first + len(texts)), offsets, texts, strict=True)
    ]


def answer(n: int, **facts: Any) -> Finished:
    known = {"state": DONE, "output": b"answer %d\n" % n, "call_id": f"call-{n}", "attempt": 2}
    known |= {"input_tokens": 100, "cached_tokens": 10, "output_tokens": 20, "cash_nanos": 1_000 + n}
    return Finished(n=n, **{**known, **facts})


def fault(n: int, code: str = "bad", state: LineState = FAILED) -> Finished:
    return Finished(n=n, state=state, output=b"%s %d\n" % (code.encode(), n), error_code=code)


async def ended(jobs: JobStore, no: int, *ends: Finished) -> None:
    await jobs.finish(no, [await jobs.spool(no, end) for end in ends])


async def claimed(jobs: JobStore, no: int, count: int = 100, bytes_max: int = MUCH) -> list[int]:
    return [line.n for line in await jobs.claim(no, count, bytes_max=bytes_max)]


async def found(jobs: JobStore, number: int = 1) -> Job:
    job = await jobs.job(a_job(number).id)
    assert job is not None
    return job


async def counts(jobs: JobStore) -> tuple[int, int, int]:
    job = await found(jobs)
    return job.done, job.failed, job.cancelled


async def outputs(jobs: JobStore, no: int, *, done: bool = True, failed: bool = True) -> list[bytes]:
    return [one.line for one in await jobs.outputs(no, done=done, failed=failed)]
