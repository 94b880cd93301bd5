"""Fills `batch.JobStore` with tables that several replicas share.

What lines that are asked have to be written down is written together: all that comes while one transaction is
committed goes into the next.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, Self, TypeVar

import msgspec
import psycopg

from tiergate.batch import Claimed, Crew, Erased, Finished, Job, NewLine, Output, Spooled, StoredFile
from tiergate.core import StorageUnavailable, StoreOwned
from tiergate.ledger import LineState
from tiergate.store.jobrows import change_facts, file_of, job_facts, job_of
from tiergate.store.lines import claimed
from tiergate.store.postgres.connection import Address
from tiergate.store.postgres.jobbooks import PART_BYTES, JobBooks, Notes, crew_of
from tiergate.store.postgres.reading import PostgresReading, Readings
from tiergate.store.session import Reading
from tiergate.store.trouble import Unwritten

_LAST: Final = "~"
"""Stands after every id."""

Done = TypeVar("Done")


@dataclass(slots=True)
class _Receiving:
    """A file that is being received: how much of it is written, and what is not yet."""

    written: int = 0
    rest: bytearray = field(default_factory=bytearray)


class PostgresJobs:
    """A `batch.JobStore` on a server; a context, to be entered with `async with`.

    Args:
        address: of the database, in which the owner's ledger is.
        epoch: of the owner.
    """

    is_shared = True

    def __init__(self, address: Address, *, epoch: int) -> None:
        self._address = address
        self._epoch = epoch
        self._readings = Readings(address, idle_max=4)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tiergate-jobs")
        self._books: JobBooks
        self._receiving: dict[str, _Receiving] = {}
        self._reading: set[int] = set()
        """Jobs into which this process reads lines now; the database may know of more, that failed."""
        self._working: set[int] = set()
        self._notes = Notes()
        self._noted: list[asyncio.Future[None]] = []
        """Those who wait for the notes to be written."""
        self._writing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Open a connection of its own; what owners that are gone received in part is deleted.

        Raises:
            CannotStart: with what to do about it.
        """

        def opened() -> JobBooks:
            try:
                return JobBooks(self._address, self._address.connect_to_write(), epoch=self._epoch)
            except psycopg.Error as error:
                raise self._address.why_not(error) from error

        try:
            self._books = await asyncio.get_running_loop().run_in_executor(self._thread, opened)
            await self._do(self._books.forget_torn)
        except BaseException:
            self._thread.shutdown()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Write what was noted, and close the connections."""
        if self._writing is not None:
            await self._writing
        await asyncio.get_running_loop().run_in_executor(self._thread, self._books.close)
        self._thread.shutdown()
        self._readings.close()

    # Files.

    async def begin_file(self, file: StoredFile) -> None:
        """Begin a file; see `batch.FileStore`."""
        facts = {name: getattr(file, name) for name in ("id", "tenant", "name", "purpose", "created_ns")}
        await self._run("add_file", **facts, epoch=self._epoch)
        self._receiving[file.id] = _Receiving()

    async def append_file(self, file_id: str, data: bytes) -> None:
        """Write on at a file's end; see `batch.FileStore`."""
        receiving = self._receiving[file_id]
        receiving.rest += data
        if len(receiving.rest) >= PART_BYTES:
            await self._write_parts(file_id, receiving)

    async def _write_parts(self, file_id: str, receiving: _Receiving) -> None:
        data, at = bytes(receiving.rest), receiving.written
        await self._do(lambda: self._books.append(file_id, at, data))
        receiving.written += len(data)
        receiving.rest.clear()

    async def end_file(self, file_id: str, size: int, name: str) -> None:
        """End a file; see `batch.FileStore`."""
        await self._write_parts(file_id, self._receiving[file_id])
        await self._run("end_file", id=file_id, bytes=size, name=name)
        del self._receiving[file_id]

    async def file(self, tenant: str, file_id: str) -> StoredFile | None:
        """Give a tenant's file; see `batch.FileStore`."""
        rows = await self._look(lambda look: look.rows("jobs", "file", {"tenant": tenant, "id": file_id}))
        return file_of(rows[0]) if rows else None

    async def files(
        self, tenant: str, *, after: str | None = None, limit: int = 100, purpose: str | None = None
    ) -> list[StoredFile]:
        """Give a tenant's files; see `batch.FileStore`."""
        facts = {"tenant": tenant, "after": after or _LAST, "limit": limit, "purpose": purpose}
        return [file_of(row) for row in await self._look(lambda look: look.rows("jobs", "files", facts))]

    async def drop_file(self, tenant: str, file_id: str, now_ns: int) -> bool:
        """Delete a file; see `batch.FileStore`."""
        self._receiving.pop(file_id, None)
        is_dropped = await self._run("drop_file", tenant=tenant, id=file_id, now_ns=now_ns) > 0
        await self._do(lambda: self._books.forget_files(0))
        return is_dropped

    async def read_file(self, file_id: str, offset: int, size: int) -> bytes:
        """Read a piece of a file; see `batch.FileStore`."""
        return await self._look(lambda look: _text(look, file_id, offset, size))

    # Jobs.

    async def add(self, job: Job, files: Sequence[str] = ()) -> Job:
        """Add a job; see `batch.JobStore`."""

        def add() -> int:
            with self._books.transaction():
                ((no,),) = self._books.rows("add_job", **job_facts(job))
                for source, file_id in enumerate(files):
                    self._books.run("add_input", job=no, source=source, file_id=file_id)
                return int(no)

        try:
            return msgspec.structs.replace(job, no=await self._do(add))
        except StorageUnavailable:
            # Whoever asked would send it again, and pay twice, if it was committed and nobody saw it.
            found = await self.job(job.id)
            if found is None:
                raise
            return found

    async def job(self, job_id: str) -> Job | None:
        """Give a job; see `batch.JobStore`."""
        rows = await self._look(lambda look: look.named_rows("jobs", "job", {"id": job_id}))
        return job_of(rows[0]) if rows else None

    async def jobs(self, tenant: str | None, *, after: str | None = None, limit: int = 20) -> list[Job]:
        """Give a tenant's jobs; see `batch.JobStore`."""
        facts = {"tenant": tenant, "after": after or _LAST, "limit": limit}
        return [job_of(row) for row in await self._look(lambda look: look.named_rows("jobs", "jobs", facts))]

    async def open_jobs(self) -> list[Job]:
        """Give those that have something left to do; see `batch.JobStore`."""
        return [job_of(row) for row in await self._look(lambda look: look.named_rows("jobs", "open_jobs"))]

    async def change(self, no: int, what: Mapping[str, Any]) -> Job:
        """Write down what was decided about a job; see `batch.JobStore`."""
        rows = await self._named("change_job", no=no, **change_facts(what))
        if not rows:
            raise StorageUnavailable("The batch is not there any more: somebody has erased it.")
        return job_of(rows[0])

    async def end(self, no: int, now_ns: int) -> Job | None:
        """End a job none of whose lines waits; see `batch.JobStore`."""

        def end() -> list[Mapping[str, Any]]:
            with self._books.transaction():
                self._books.rows("lock_job", no=no)
                return self._books.named_rows("end_job", no=no, now_ns=now_ns)

        rows = await self._do(end)
        return job_of(rows[0]) if rows else None

    async def worked(self, no: int, worked_ms: int) -> None:
        """Add to the time for which somebody worked on a job; see `batch.JobStore`."""
        await self._run("worked", no=no, worked_ms=worked_ms)

    async def add_input(self, no: int, file_id: str) -> int:
        """Let a job read another file; see `batch.JobStore`."""

        def add() -> int:
            with self._books.transaction():
                if not self._books.rows("lock_job", no=no):
                    return 0  # it was erased, and so is what would be read
                known = [one for _, one in self._books.rows("inputs", job=no)]
                if file_id not in known:
                    self._books.run("add_input", job=no, source=len(known), file_id=file_id)
                    known.append(file_id)
                return known.index(file_id)

        return await self._do(add)

    async def inputs(self, no: int) -> Sequence[str]:
        """Give the files that a job reads; see `batch.JobStore`."""
        return list((await self._look(lambda look: _files(look, no))).values())

    async def begin_reading(self, no: int) -> bool:
        """Become the one who reads lines into a job; see `batch.JobStore`."""
        if no in self._reading:
            return False
        self._reading.add(no)
        is_ours = False
        try:
            is_ours = await self._do(lambda: self._books.begin_reading(no))
        finally:
            if not is_ours:
                self._reading.discard(no)
        return is_ours

    async def end_reading(self, no: int) -> None:
        """Let others read lines into a job; see `batch.JobStore`."""
        self._reading.discard(no)
        await self._run("end_reading", no=no, epoch=self._epoch)

    # Lines.

    async def add_lines(self, no: int, lines: Sequence[NewLine]) -> None:
        """Add lines; see `batch.JobStore`."""
        await self._do(lambda: self._books.add_lines(no, lines))

    async def alike(self, no: int) -> list[tuple[int, int]]:
        """Give lines that may be named alike; see `batch.JobStore`."""
        rows = await self._look(lambda look: look.rows("jobs", "alike", {"job": no}))
        return [(first, n) for first, n in rows]

    async def line_text(self, no: int, n: int) -> bytes:
        """Read a line; see `batch.JobStore`."""

        def read(look: Reading) -> bytes:
            ((source, offset, size),) = look.rows("jobs", "where_line", {"job": no, "n": n})
            return _text(look, _files(look, no)[source], offset, size)

        return await self._look(read)

    async def claim(self, no: int, count: int, *, bytes_max: int) -> list[Claimed]:
        """Claim waiting lines; see `batch.JobStore`."""
        due = await self._do(lambda: self._books.claim(no, count, bytes_max))

        def read(look: Reading) -> list[Claimed]:
            files = _files(look, no)
            return claimed(due, lambda source, offset, size: _text(look, files[source], offset, size))

        if not due:
            return []
        try:
            return await self._look(read)
        except BaseException:
            await self.release(no, [(line.n, 0) for line in due])
            raise

    async def release(self, no: int, lines: Sequence[tuple[int, int]]) -> None:
        """Let claimed lines wait again; see `batch.JobStore`."""
        await self._do(lambda: self._books.release(no, lines))

    async def begin(self, no: int, n: int) -> None:
        """Note that a claimed line is asked now; see `batch.JobStore`."""
        self._notes.begun.append((no, n))
        await self._note()

    async def rest(self, no: int, n: int) -> None:
        """Note that a line is not asked any more for now; see `batch.JobStore`."""
        self._notes.rested.append((no, n))
        await self._note()

    async def spool(self, no: int, finished: Finished) -> Spooled:
        """Write an end into its line, unmarked; see `batch.JobStore`."""
        self._notes.ended.append((no, finished))
        await self._note()
        return Spooled(finished=finished, epoch=self._epoch, offset=0, bytes=len(finished.output), end=0)

    async def _note(self) -> None:
        loop = asyncio.get_running_loop()
        noted = loop.create_future()
        self._noted.append(noted)
        if self._writing is None:
            self._writing = loop.create_task(self._write_notes())
        await noted

    async def _write_notes(self) -> None:
        """Write notes as long as there are some: those that come meanwhile are written together."""
        while self._noted:
            notes, self._notes = self._notes, Notes()
            noted, self._noted = self._noted, []
            refusal: Exception | None = None
            try:
                await self._do(lambda: self._books.write(notes))  # noqa: B023 - awaited within this turn
            except Exception as error:  # noqa: BLE001 - whoever waits gets it, a bug among them
                refusal = error
            for one in noted:
                if not one.done():
                    _answer(one, refusal)
        self._writing = None

    async def finish(self, no: int, spooled: Sequence[Spooled]) -> None:
        """Mark ends in their lines; see `batch.JobStore`."""
        await self._do(lambda: self._books.finish(no, [one.finished for one in spooled]))

    async def join(self, no: int) -> Crew:
        """Note that this owner works a job; see `batch.JobStore`."""
        self._working.add(no)
        return await self._do(lambda: self._books.join(no))

    async def crew(self, no: int) -> Crew:
        """Give who works a job now; see `batch.JobStore`."""
        return await self._look(lambda look: crew_of(look.rows, no, self._epoch))

    async def leave(self, no: int) -> Crew:
        """Note that this owner works a job no more; see `batch.JobStore`."""
        self._working.discard(no)
        return await self._do(lambda: self._books.leave(no))

    async def close_job(self, no: int) -> None:
        """Let go of a job; see `batch.JobStore`."""
        self._working.discard(no)
        await self._do(lambda: self._books.let_go(no))

    async def errors(self, no: int) -> dict[str, int]:
        """Count the failed lines by their error codes; see `batch.JobStore`."""
        return dict(await self._look(lambda look: look.rows("jobs", "errors", {"job": no})))

    async def outputs(
        self, no: int, *, done: bool, failed: bool, after: int = 0, limit: int = 500
    ) -> list[Output]:
        """Give outputs in the order of the input; see `batch.JobStore`."""
        facts = {"job": no, "done": done, "failed": failed, "after": after, "limit": limit}
        rows = await self._look(lambda look: look.rows("jobs", "outputs", facts))
        return [Output(n, LineState(state), bytes(output)) for n, state, output in rows]

    async def output_bytes(self, no: int, *, done: bool, failed: bool) -> int:
        """Give how many bytes the outputs have; see `batch.JobStore`."""
        facts = {"job": no, "done": done, "failed": failed}
        ((size,),) = await self._look(lambda look: look.rows("jobs", "output_bytes", facts))
        return int(size)

    async def retry(self, no: int, codes: Sequence[str] | None, *, deadline_ns: int) -> int:
        """Let failed lines wait again; see `batch.JobStore`."""
        return await self._do(lambda: self._books.retry(no, codes, deadline_ns))

    async def recover(self, no: int) -> list[Finished]:
        """Take over what owners left behind that are not alive; see `batch.JobStore`."""
        return await self._do(lambda: self._books.recover(no))

    async def abandoned(self) -> set[int]:
        """Give the jobs of which owners have lines that are not alive; see `batch.JobStore`.

        What this owner itself could not let go of, it lets go of now.
        """
        for no in self._books.untidy - self._working:
            await self._do(lambda: self._books.let_go(no))  # noqa: B023 - awaited within this turn
        return {no for (no,) in await self._look(lambda look: look.rows("jobs", "abandoned"))}

    async def forget(self, before_ns: int) -> int:
        """Delete what is old; see `batch.JobStore`."""
        jobs = await self._forget_jobs(before_ns, "")
        files = await self._do(lambda: self._books.forget_files(before_ns))
        return jobs + files + await self._do(self._books.forget_torn)

    async def _forget_jobs(self, before_ns: int, tenant: str) -> int:
        """Delete some jobs a piece at a time: others need the thread in between."""
        jobs = await self._do(lambda: self._books.gone(before_ns, tenant))
        for no in jobs:
            while await self._do(lambda: self._books.forget_some(no)):  # noqa: B023 - awaited within this turn
                pass
        return len(jobs)

    async def erase(self, tenant: str) -> Erased:
        """Delete all of a tenant; see `batch.JobStore`."""
        jobs = 0
        while forgotten := await self._forget_jobs(-1, tenant):
            jobs += forgotten
        return Erased(jobs, await self._do(lambda: self._books.erase_files(tenant)))

    # Threads.

    async def _run(self, name: str, /, **facts: Any) -> int:
        def run() -> int:
            with self._books.transaction():
                return self._books.run(name, **facts)

        return await self._do(run)

    async def _named(self, name: str, /, **facts: Any) -> list[Mapping[str, Any]]:
        def rows() -> list[Mapping[str, Any]]:
            with self._books.transaction():
                return self._books.named_rows(name, **facts)

        return await self._do(rows)

    async def _do(self, work: Callable[[], Done]) -> Done:
        """Do something with the books, in their thread."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except Unwritten as error:
            raise StorageUnavailable(
                f"Jobs cannot be written now ({error.word}). Is their database there, and has its disk room?"
            ) from error

    async def _look(self, work: Callable[[PostgresReading], Done]) -> Done:
        """Read, beside whoever writes."""

        def look() -> Done:
            with self._readings.look() as reading:
                return work(reading)

        return await asyncio.to_thread(look)


def _files(look: Reading, no: int) -> dict[int, str]:
    return dict(look.rows("jobs", "inputs", {"job": no}))


def _text(look: Reading, file_id: str, offset: int, size: int) -> bytes:
    facts = {"file_id": file_id, "begins": offset, "ends": offset + size}
    return b"".join([part for (part,) in look.rows("jobs", "read_text", facts)])


def _answer(noted: "asyncio.Future[None]", refusal: Exception | None) -> None:
    if refusal is None:
        noted.set_result(None)
    elif isinstance(refusal, (StorageUnavailable, StoreOwned)):
        # To each its own: whoever raises it adds where.
        noted.set_exception(type(refusal)(str(refusal)))
    else:
        noted.set_exception(refusal)
