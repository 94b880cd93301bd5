"""Fills `batch.JobStore` with the books of jobs, which have a thread of their own, away from the ledger's."""

import asyncio
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import msgspec

from tiergate.batch import Claimed, Crew, Erased, Finished, Job, NewLine, Output, Spooled, StoredFile
from tiergate.core import StorageUnavailable
from tiergate.ledger import LineState
from tiergate.store.jobbooks import JobBooks, spool_name, text_name
from tiergate.store.jobrows import change_facts, file_of, job_facts, job_of
from tiergate.store.sqlite_errors import word_of

_LAST: Final = "~"
"""Stands after every id."""

Done = TypeVar("Done")


class SqliteJobs:
    """A `batch.JobStore` on this machine's disk; a context, to be entered with `async with`.

    Args:
        data_dir: the data folder; whoever enters this holds its `OwnerLock`.
        epoch: of the owner.
    """

    is_shared = False

    def __init__(self, data_dir: Path, *, epoch: int) -> None:
        self._data_dir = data_dir
        self._epoch = epoch
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tiergate-jobs")
        self._books: JobBooks
        self._reading: set[int] = set()
        self._working: set[int] = set()
        self._ends: list[tuple[int, Finished, asyncio.Future[Spooled]]] = []
        """That are to be spooled in this turn of the loop."""

    async def __aenter__(self) -> Self:
        """Open the file.

        Raises:
            CannotStart: with what to do about it.
        """
        try:
            loop = asyncio.get_running_loop()
            self._books = await loop.run_in_executor(
                self._thread, lambda: JobBooks(self._data_dir, epoch=self._epoch)
            )
        except BaseException:
            self._thread.shutdown()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Do what was asked for, and close the file."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._books.close)
        self._thread.shutdown()

    # Files.

    async def begin_file(self, file: StoredFile) -> None:
        """Begin a file; see `batch.FileStore`."""
        facts = {name: getattr(file, name) for name in ("id", "tenant", "name", "purpose", "created_ns")}
        await self._do(lambda: self._books.run("add_file", **facts))

    async def append_file(self, file_id: str, data: bytes) -> None:
        """Write on at a file's end; see `batch.FileStore`."""
        await self._do(lambda: self._books.texts.append(text_name(file_id), data))

    async def end_file(self, file_id: str, size: int, name: str) -> None:
        """End a file; see `batch.FileStore`."""

        def end() -> None:
            self._books.texts.sync(text_name(file_id))
            self._books.texts.close(text_name(file_id))
            self._books.run("end_file", id=file_id, bytes=size, name=name)

        await self._do(end)

    async def file(self, tenant: str, file_id: str) -> StoredFile | None:
        """Give a tenant's file; see `batch.FileStore`."""
        rows = await self._do(lambda: self._books.rows("file", tenant=tenant, id=file_id))
        return file_of(rows[0]) if rows else None

    async def files(
        self, tenant: str, *, after: str | None = None, limit: int = 100, purpose: str | None = None
    ) -> list[StoredFile]:
        """Give a tenant's files; see `batch.FileStore`."""
        facts = {"tenant": tenant, "after": after or _LAST, "limit": limit, "purpose": purpose}
        return [file_of(row) for row in await self._do(lambda: self._books.rows("files", **facts))]

    async def drop_file(self, tenant: str, file_id: str, now_ns: int) -> bool:
        """Delete a file; see `batch.FileStore`."""
        facts = {"tenant": tenant, "id": file_id, "now_ns": now_ns}
        is_dropped = await self._do(lambda: self._books.run("drop_file", **facts)) > 0
        await self._do(lambda: self._books.forget_files(0))
        return is_dropped

    async def read_file(self, file_id: str, offset: int, size: int) -> bytes:
        """Read a piece of a file; see `batch.FileStore`."""
        return await self._do(lambda: self._books.texts.read(text_name(file_id), offset, size))

    # Jobs.

    async def add(self, job: Job, files: Sequence[str] = ()) -> Job:
        """Add a job; see `batch.JobStore`."""

        def add() -> int:
            with self._books.transaction():
                ((no,),) = self._books.rows("add_job", **job_facts(job))
                for source, file_id in enumerate(files):
                    self._books.run("add_input", job=no, source=source, file_id=file_id)
                return int(no)

        return msgspec.structs.replace(job, no=await self._do(add))

    async def job(self, job_id: str) -> Job | None:
        """Give a job; see `batch.JobStore`."""
        rows = await self._do(lambda: self._books.named_rows("job", id=job_id))
        return job_of(rows[0]) if rows else None

    async def jobs(self, tenant: str | None, *, after: str | None = None, limit: int = 20) -> list[Job]:
        """Give a tenant's jobs; see `batch.JobStore`."""
        facts = {"tenant": tenant, "after": after or _LAST, "limit": limit}
        return [job_of(row) for row in await self._do(lambda: self._books.named_rows("jobs", **facts))]

    async def open_jobs(self) -> list[Job]:
        """Give those that have something left to do; see `batch.JobStore`."""
        return [job_of(row) for row in await self._do(lambda: self._books.named_rows("open_jobs"))]

    async def change(self, no: int, what: Mapping[str, Any]) -> Job:
        """Write down what was decided about a job; see `batch.JobStore`."""
        (row,) = await self._do(lambda: self._books.named_rows("change_job", no=no, **change_facts(what)))
        return job_of(row)

    async def end(self, no: int, now_ns: int) -> Job | None:
        """End a job none of whose lines waits; see `batch.JobStore`."""
        rows = await self._do(lambda: self._books.named_rows("end_job", no=no, now_ns=now_ns))
        return job_of(rows[0]) if rows else None

    async def worked(self, no: int, worked_ms: int) -> None:
        """Add to the time for which somebody worked on a job; see `batch.JobStore`."""
        await self._do(lambda: self._books.run("worked", no=no, worked_ms=worked_ms))

    async def add_input(self, no: int, file_id: str) -> int:
        """Let a job read another file; see `batch.JobStore`."""

        def add() -> int:
            known = [one for _, one in self._books.rows("inputs", job=no)]
            if file_id not in known:
                self._books.run("add_input", job=no, source=len(known), file_id=file_id)
                known.append(file_id)
            return known.index(file_id)

        return await self._do(add)

    async def inputs(self, no: int) -> Sequence[str]:
        """Give the files that a job reads; see `batch.JobStore`."""
        return [file_id for _, file_id in await self._do(lambda: self._books.rows("inputs", job=no))]

    # Lines.

    async def add_lines(self, no: int, lines: Sequence[NewLine]) -> None:
        """Add lines; see `batch.JobStore`."""
        rows = [(no, *line) for line in lines]
        await self._do(lambda: self._books.many("add_line", rows))

    async def begin_reading(self, no: int) -> bool:
        """Become the one who reads lines into a job; see `batch.JobStore`."""
        if no in self._reading:
            return False
        self._reading.add(no)
        try:
            await self._do(lambda: self._books.forget_unread(no))
        except BaseException:
            self._reading.discard(no)
            raise
        return True

    async def end_reading(self, no: int) -> None:
        """Let others read lines into a job; see `batch.JobStore`."""
        self._reading.discard(no)

    async def alike(self, no: int) -> list[tuple[int, int]]:
        """Give lines that may be named alike; see `batch.JobStore`."""
        return await self._do(lambda: self._books.rows("alike", job=no))

    async def line_text(self, no: int, n: int) -> bytes:
        """Read a line; see `batch.JobStore`."""

        def read() -> bytes:
            ((source, offset, size),) = self._books.rows("where_line", job=no, n=n)
            files = dict(self._books.rows("inputs", job=no))
            return self._books.texts.read(text_name(files[source]), offset, size)

        return await self._do(read)

    async def claim(self, no: int, count: int, *, bytes_max: int) -> list[Claimed]:
        """Claim waiting lines; see `batch.JobStore`."""
        return await self._do(lambda: self._books.claim(no, count, bytes_max))

    async def release(self, no: int, lines: Sequence[tuple[int, int]]) -> None:
        """Let claimed lines wait again; see `batch.JobStore`."""
        for n, _ in lines:
            self._books.rest(no, n)
        rows = [(tries, no, n) for n, tries in lines if tries]
        if rows:
            await self._do(lambda: self._books.many("tried", rows))

    async def begin(self, no: int, n: int) -> None:
        """Note that a claimed line is asked now; see `batch.JobStore`."""
        self._books.begin(no, n)

    async def rest(self, no: int, n: int) -> None:
        """Note that a line is not asked any more for now; see `batch.JobStore`."""
        self._books.rest(no, n)

    async def spool(self, no: int, finished: Finished) -> Spooled:
        """Write an end into the job's spool; see `batch.JobStore`."""
        loop = asyncio.get_running_loop()
        if not self._ends:
            # Those that come in this turn of the loop are written together: each write lets other threads
            # run, and waits until they let the loop go on.
            loop.call_soon(self._write_ends)
        written: asyncio.Future[Spooled] = loop.create_future()
        self._ends.append((no, finished, written))
        return await written

    def _write_ends(self) -> None:
        ends, self._ends = self._ends, []
        by_job: dict[int, list[tuple[Finished, asyncio.Future[Spooled]]]] = {}
        for no, finished, written in ends:
            by_job.setdefault(no, []).append((finished, written))
        for no, own in by_job.items():
            try:
                spooled = self._books.spool(no, [finished for finished, _ in own])
            except StorageUnavailable as error:
                for _, written in own:
                    if not written.done():
                        written.set_exception(type(error)(str(error)))
                continue
            for (_, written), one in zip(own, spooled, strict=True):
                if not written.done():
                    written.set_result(one)

    async def finish(self, no: int, spooled: Sequence[Spooled]) -> None:
        """Mark ends in their lines; see `batch.JobStore`."""
        await self._do(lambda: self._books.finish(no, spooled))

    async def join(self, no: int) -> Crew:
        """Note that this owner works a job; see `batch.JobStore`."""
        self._working.add(no)
        return await self.crew(no)

    async def crew(self, no: int) -> Crew:
        """Give who works a job now: the one owner, or nobody; see `batch.JobStore`."""
        is_at_work = no in self._working
        return Crew(int(is_at_work), 0 if is_at_work else None, self._books.asking(no))

    async def leave(self, no: int) -> Crew:
        """Note that this owner works a job no more; see `batch.JobStore`."""
        self._working.discard(no)
        return await self.crew(no)

    async def close_job(self, no: int) -> None:
        """Let go of a job; see `batch.JobStore`."""

        def close() -> None:
            self._books.let_go(no)
            self._books.texts.close(spool_name(no, self._epoch))

        await self._do(close)

    async def errors(self, no: int) -> dict[str, int]:
        """Count the failed lines by their error codes; see `batch.JobStore`."""
        return dict(await self._do(lambda: self._books.rows("errors", job=no)))

    async def outputs(
        self, no: int, *, done: bool, failed: bool, after: int = 0, limit: int = 500
    ) -> list[Output]:
        """Give outputs in the order of the input; see `batch.JobStore`."""
        facts = {"job": no, "done": done, "failed": failed, "after": after, "limit": limit}

        def read() -> list[Output]:
            return [
                Output(n, LineState(state), self._books.texts.read(spool_name(no, epoch), offset, size))
                for n, state, epoch, offset, size in self._books.rows("outputs", **facts)
            ]

        return await self._do(read)

    async def output_bytes(self, no: int, *, done: bool, failed: bool) -> int:
        """Give how many bytes the outputs have; see `batch.JobStore`."""
        ((size,),) = await self._do(
            lambda: self._books.rows("output_bytes", job=no, done=done, failed=failed)
        )
        return int(size)

    async def retry(self, no: int, codes: Sequence[str] | None, *, deadline_ns: int) -> int:
        """Let failed lines wait again; see `batch.JobStore`."""

        def retry() -> int:
            found = [code for code, _ in self._books.rows("errors", job=no) if codes is None or code in codes]
            with self._books.transaction():
                for code in found:
                    self._books.run("uncount", job=no, code=code)
                if found:
                    self._books.run("reopen", no=no, deadline_ns=deadline_ns)
                return sum(self._books.run("retry", job=no, code=code) for code in found)

        return await self._do(retry)

    async def recover(self, no: int) -> list[Finished]:
        """Take a job over; see `batch.JobStore`."""
        return await self._do(lambda: self._books.recover(no))

    async def abandoned(self) -> set[int]:
        """Give nothing: there is one owner; see `batch.JobStore`."""
        return set()

    async def forget(self, before_ns: int) -> int:
        """Delete what is old; see `batch.JobStore`."""
        return await self._do(lambda: self._books.forget(before_ns, "") + self._books.forget_files(before_ns))

    async def erase(self, tenant: str) -> Erased:
        """Delete all of a tenant; see `batch.JobStore`."""
        jobs = 0
        while forgotten := await self._do(lambda: self._books.forget(-1, tenant)):
            jobs += forgotten
        return Erased(jobs, await self._do(lambda: self._books.erase_files(tenant)))

    async def _do(self, work: Callable[[], Done]) -> Done:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except sqlite3.Error as error:
            raise StorageUnavailable(
                f"Jobs cannot be written or read now ({word_of(error)}). Is the disk full? Nothing is lost."
            ) from error
