"""Fills `batch.JobStore`: jobs in an SQLite file of their own, `jobs.db`, their texts in a folder beside it.

Nothing of it is in the ledger's way: it has a thread of its own, in which everything happens but the writing
of a spool. That is one system call, and whoever has an answer in the hand waits for no thread with it.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import msgspec

from tiergate.batch import Claimed, Finished, Job, NewLine, Output, Spooled, StoredFile, counts_of
from tiergate.core import CannotStart, StorageUnavailable
from tiergate.ledger import LineState
from tiergate.store.folder import make_folder, make_private_file
from tiergate.store.jobrows import file_of, job_facts, job_of
from tiergate.store.migrate import migrate
from tiergate.store.slots import Slots
from tiergate.store.spool import Read, read_records, write_record
from tiergate.store.sqlite_errors import word_of
from tiergate.store.statements import statements
from tiergate.store.texts import Texts, jobs_folder

JOBS_FILE: Final = "jobs.db"
_PRAGMAS: Final = (
    "journal_mode = WAL",
    "synchronous = FULL",
    "busy_timeout = 5000",
    # What is deleted is overwritten: an erasure leaves no name of a file behind.
    "secure_delete = ON",
    "trusted_schema = OFF",
    "temp_store = FILE",
)
_READ_AT_ONCE: Final = 1 << 20
_LAST: Final = "~"
"""Stands after every id."""
_FORGOTTEN_AT_ONCE: Final = 2_000
_NOWHERE: Final = (-(1 << 62), 0)
"""Before all lines."""

Done = TypeVar("Done")


class SqliteJobs:
    """A `batch.JobStore` on this machine's disk; a context, to be entered with `async with`.

    Args:
        data_dir: the data folder; whoever enters this holds its `OwnerLock`.
        epoch: of the owner.
    """

    def __init__(self, data_dir: Path, *, epoch: int) -> None:
        self._data_dir = data_dir
        self._epoch = epoch
        self._statements = statements("jobs")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tiergate-jobs")
        self._passed: dict[int, tuple[int, int]] = {}
        """Where the pass over each job's waiting lines is: rank and number of the last claimed one."""
        self._slots: dict[int, Slots] = {}
        self._connection: sqlite3.Connection

    async def __aenter__(self) -> Self:
        """Open the file.

        Raises:
            CannotStart: with what to do about it.
        """
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._open)
        except BaseException:
            self._thread.shutdown()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Do what was asked for, and close the file."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    # Files.

    async def begin_file(self, file: StoredFile) -> None:
        """Begin a file; see `batch.FileStore`."""
        facts = {name: getattr(file, name) for name in ("id", "tenant", "name", "purpose", "created_ns")}
        await self._do(lambda: self._run("add_file", **facts))

    async def append_file(self, file_id: str, data: bytes) -> None:
        """Write on at a file's end; see `batch.FileStore`."""
        await self._do(lambda: self._texts.append(_text(file_id), data))

    async def end_file(self, file_id: str, size: int, name: str) -> None:
        """End a file; see `batch.FileStore`."""

        def end() -> None:
            self._texts.sync(_text(file_id))
            self._texts.close(_text(file_id))
            self._run("end_file", id=file_id, bytes=size, name=name)

        await self._do(end)

    async def file(self, tenant: str, file_id: str) -> StoredFile | None:
        """Give a tenant's file; see `batch.FileStore`."""
        rows = await self._do(lambda: self._rows("file", tenant=tenant, id=file_id))
        return file_of(rows[0]) if rows else None

    async def files(
        self, tenant: str, *, after: str | None = None, limit: int = 100, purpose: str | None = None
    ) -> list[StoredFile]:
        """Give a tenant's files; see `batch.FileStore`."""
        facts = {"tenant": tenant, "after": after or _LAST, "limit": limit, "purpose": purpose}
        return [file_of(row) for row in await self._do(lambda: self._rows("files", **facts))]

    async def drop_file(self, tenant: str, file_id: str, now_ns: int) -> bool:
        """Delete a file; see `batch.FileStore`."""
        facts = {"tenant": tenant, "id": file_id, "now_ns": now_ns}
        is_dropped = await self._do(lambda: self._run("drop_file", **facts)) > 0
        await self._do(lambda: self._forget_files(0))
        return is_dropped

    async def read_file(self, file_id: str, offset: int, size: int) -> bytes:
        """Read a piece of a file; see `batch.FileStore`."""
        return await self._do(lambda: self._texts.read(_text(file_id), offset, size))

    # Jobs.

    async def add(self, job: Job, files: Sequence[str]) -> Job:
        """Add a job; see `batch.JobStore`."""

        def add() -> int:
            with self._transaction():
                ((no,),) = self._rows("add_job", **job_facts(job))
                for source, file_id in enumerate(files):
                    self._run("add_input", job=no, source=source, file_id=file_id)
                return int(no)

        return msgspec.structs.replace(job, no=await self._do(add))

    async def job(self, job_id: str) -> Job | None:
        """Give a job; see `batch.JobStore`."""
        rows = await self._do(lambda: self._named_rows("job", id=job_id))
        return job_of(rows[0]) if rows else None

    async def jobs(self, tenant: str | None, *, after: str | None = None, limit: int = 20) -> list[Job]:
        """Give a tenant's jobs; see `batch.JobStore`."""
        facts = {"tenant": tenant, "after": after or _LAST, "limit": limit}
        return [job_of(row) for row in await self._do(lambda: self._named_rows("jobs", **facts))]

    async def open_jobs(self) -> list[Job]:
        """Give those that have something left to do; see `batch.JobStore`."""
        return [job_of(row) for row in await self._do(lambda: self._named_rows("open_jobs"))]

    async def save(self, job: Job) -> None:
        """Write down what was decided about a job; see `batch.JobStore`."""
        await self._do(lambda: self._run("save_job", **job_facts(job)))

    async def add_input(self, no: int, file_id: str) -> int:
        """Let a job read another file; see `batch.JobStore`."""

        def add() -> int:
            known = [one for _, one in self._rows("inputs", job=no)]
            if file_id not in known:
                self._run("add_input", job=no, source=len(known), file_id=file_id)
                known.append(file_id)
            return known.index(file_id)

        return await self._do(add)

    async def inputs(self, no: int) -> Sequence[str]:
        """Give the files that a job reads; see `batch.JobStore`."""
        return [file_id for _, file_id in await self._do(lambda: self._rows("inputs", job=no))]

    # Lines.

    async def add_lines(self, no: int, lines: Sequence[NewLine]) -> None:
        """Add lines; see `batch.JobStore`."""
        rows = [(no, *line) for line in lines]
        await self._do(lambda: self._many(("add_line", rows)))

    async def clear_lines(self, no: int) -> None:
        """Delete all lines of a job; see `batch.JobStore`."""

        def clear() -> None:
            self._forget_lines(no)
            self._let_go(no)
            self._texts.delete(f"s{no}")
            with self._transaction():
                self._run("forget_spools", job=no)
                self._run("reset_counts", no=no)

        await self._do(clear)

    async def alike(self, no: int) -> list[tuple[int, int]]:
        """Give lines that may be named alike; see `batch.JobStore`."""
        return await self._do(lambda: self._rows("alike", job=no))

    async def line_text(self, no: int, n: int) -> bytes:
        """Read a line; see `batch.JobStore`."""

        def read() -> bytes:
            ((source, offset, size),) = self._rows("where_line", job=no, n=n)
            files = dict(self._rows("inputs", job=no))
            return self._texts.read(_text(files[source]), offset, size)

        return await self._do(read)

    async def claim(self, no: int, count: int, *, bytes_max: int) -> list[Claimed]:
        """Claim waiting lines; see `batch.JobStore`."""
        return await self._do(lambda: self._claim(no, count, bytes_max))

    async def release(self, no: int, lines: Sequence[tuple[int, int]]) -> None:
        """Let claimed lines wait again; see `batch.JobStore`."""
        slots = self._slots_of(no)
        for n, _ in lines:
            slots.end(n)
        rows = [(tries, no, n) for n, tries in lines if tries]
        if rows:
            await self._do(lambda: self._many(("tried", rows)))

    async def begin(self, no: int, n: int) -> None:
        """Note that a claimed line is asked now; see `batch.JobStore`."""
        self._slots_of(no).begin(n)

    async def rest(self, no: int, n: int) -> None:
        """Note that a line is not asked any more for now; see `batch.JobStore`."""
        self._slots_of(no).end(n)

    async def spool(self, no: int, finished: Finished) -> Spooled:
        """Write an end into the job's spool; see `batch.JobStore`."""
        data, output_at = write_record(finished)
        slots = self._slots_of(no)
        at = self._texts.append(_spool(no, self._epoch), data)
        slots.end(finished.n)
        return Spooled(
            finished=finished,
            epoch=self._epoch,
            offset=at + output_at,
            bytes=len(data) - output_at,
            end=at + len(data),
        )

    async def finish(self, no: int, spooled: Sequence[Spooled]) -> None:
        """Mark ends in their lines; see `batch.JobStore`."""
        await self._do(lambda: self._finish(no, spooled))

    async def close_job(self, no: int) -> None:
        """Let go of a job; see `batch.JobStore`."""

        def close() -> None:
            self._let_go(no)
            self._texts.close(_spool(no, self._epoch))

        await self._do(close)

    async def errors(self, no: int) -> dict[str, int]:
        """Count the failed lines by their error codes; see `batch.JobStore`."""
        return dict(await self._do(lambda: self._rows("errors", job=no)))

    async def outputs(
        self, no: int, *, done: bool, failed: bool, after: int = 0, limit: int = 500
    ) -> list[Output]:
        """Give outputs in the order of the input; see `batch.JobStore`."""
        facts = {"job": no, "done": done, "failed": failed, "after": after, "limit": limit}

        def read() -> list[Output]:
            return [
                Output(n, LineState(state), self._texts.read(_spool(no, epoch), offset, size))
                for n, state, epoch, offset, size in self._rows("outputs", **facts)
            ]

        return await self._do(read)

    async def output_bytes(self, no: int, *, done: bool, failed: bool) -> int:
        """Give how many bytes the outputs have; see `batch.JobStore`."""
        ((size,),) = await self._do(lambda: self._rows("output_bytes", job=no, done=done, failed=failed))
        return int(size)

    async def retry(self, no: int, codes: Sequence[str] | None) -> int:
        """Let failed lines wait again; see `batch.JobStore`."""

        def retry() -> int:
            found = [code for code, _ in self._rows("errors", job=no) if codes is None or code in codes]
            with self._transaction():
                for code in found:
                    self._run("uncount", job=no, code=code)
                return sum(self._run("retry", job=no, code=code) for code in found)

        return await self._do(retry)

    async def recover(self, no: int) -> list[Finished]:
        """Take a job over; see `batch.JobStore`."""
        return await self._do(lambda: self._recover(no))

    async def forget(self, before_ns: int) -> int:
        """Delete what is old; see `batch.JobStore`."""
        return await self._do(lambda: self._forget(before_ns, "") + self._forget_files(before_ns))

    async def erase(self, tenant: str) -> int:
        """Delete all of a tenant; see `batch.JobStore`."""
        count = 0
        while forgotten := await self._do(lambda: self._forget(-1, tenant)):
            count += forgotten
        return count + await self._do(lambda: self._erase_files(tenant))

    # In the thread.

    def _open(self) -> None:
        make_folder(self._data_dir)
        path = self._data_dir / JOBS_FILE
        self._texts = Texts(jobs_folder(self._data_dir))
        make_private_file(path)
        try:
            connection = sqlite3.connect(path, isolation_level=None)
            for pragma in _PRAGMAS:
                connection.execute(f"PRAGMA {pragma}")
            migrate(connection, "jobs")
            torn = connection.execute(self._statements["files_torn"]).fetchall()
        except sqlite3.Error as error:
            raise CannotStart(
                f"The file {path} cannot be used ({word_of(error)}). Restore it from a backup "
                "(`tiergate restore`), or move it away: jobs that it knows of are then unknown."
            ) from error
        self._connection = connection
        self._drop([file_id for (file_id,) in torn])

    def _close(self) -> None:
        for slots in self._slots.values():
            slots.close()
        self._texts.close_all()
        self._connection.close()

    def _claim(self, no: int, count: int, bytes_max: int) -> list[Claimed]:
        files = dict(self._rows("inputs", job=no))
        rank, last = self._passed.get(no, _NOWHERE)
        found: list[Claimed] = []
        taken = 0
        for n, source, offset, size, tries, interrupted, of_rank in self._rows(
            "due", job=no, rank=rank, n=last, count=count
        ):
            if found and taken + size > bytes_max:
                break
            taken += size
            text = self._texts.read(_text(files[source]), offset, size)
            found.append(Claimed(n, text, tries, interrupted))
            rank, last = of_rank, n
        # After the last one a pass is over, and the next begins with whatever waits then.
        self._passed[no] = (rank, last) if found else _NOWHERE
        return found

    def _finish(self, no: int, spooled: Sequence[Spooled]) -> None:
        for epoch in {one.epoch for one in spooled}:
            self._texts.sync(_spool(no, epoch))
        self._mark(no, spooled)

    def _mark(self, no: int, spooled: Sequence[Spooled]) -> None:
        """Mark ends; one that is marked already is not counted twice."""
        with self._transaction():
            marked: dict[int, int] = {}
            counts: dict[str, int] = {}
            for one in spooled:
                end = one.finished
                row = (end.state._value_, one.epoch, one.offset, one.bytes, end.error_code, no, end.n)
                if self._connection.execute(self._statements["finish"], row).rowcount:
                    for name, amount in counts_of(end).items():
                        counts[name] = counts.get(name, 0) + amount
                marked[one.epoch] = max(marked.get(one.epoch, 0), one.end)
            if counts:
                self._run("count", job=no, **counts)
            for epoch, end_at in marked.items():
                self._run("mark", job=no, epoch=epoch, marked=end_at)

    def _recover(self, no: int) -> list[Finished]:
        found: list[Finished] = []
        known = dict(self._rows("spools", job=no))
        for epoch in self._texts.list(f"s{no}"):
            found += self._recover_spool(no, epoch, known.get(epoch, 0))
        slots = self._slots_of(no)
        with self._transaction():
            count = sum(self._run("interrupted", job=no, n=n) for n in slots.found)
            self._run("count_interrupted", job=no, count=count)
        slots.clear()
        return found

    def _slots_of(self, no: int) -> Slots:
        slots = self._slots.get(no)
        if slots is None:
            slots = self._slots[no] = Slots(self._texts.folder(f"s{no}") / "asked")
        return slots

    def _recover_spool(self, no: int, epoch: int, marked: int) -> list[Finished]:
        """Mark what was spooled and not marked, a piece at a time, and cut off what was not written whole."""
        name, at = _spool(no, epoch), marked
        found: list[Finished] = []
        size, reach = self._texts.size(name), _READ_AT_ONCE
        while at < size:
            read = list(read_records(self._texts.read(name, at, reach), at=at))
            if not read and at + reach >= size:
                break
            reach = _READ_AT_ONCE if read else 2 * reach
            self._texts.sync(name)
            self._mark(no, [_spooled(one, epoch) for one in read])
            found += [one.finished for one in read]
            at = read[-1].end if read else at
        if at < size:
            self._texts.truncate(name, at)
        self._texts.close(name)
        return found

    def _forget(self, before_ns: int, tenant: str) -> int:
        jobs = [no for (no,) in self._rows("jobs_gone", before_ns=before_ns, tenant=tenant, most=100)]
        for no in jobs:
            self._forget_lines(no)
            self._let_go(no)
            self._texts.delete(f"s{no}")
            with self._transaction():
                for name in ("forget_inputs", "forget_spools", "forget_job"):
                    self._run(name, job=no)
        return len(jobs)

    def _forget_lines(self, no: int) -> None:
        while self._run("forget_lines", job=no, most=_FORGOTTEN_AT_ONCE):
            pass

    def _let_go(self, no: int) -> None:
        self._passed.pop(no, None)
        slots = self._slots.pop(no, None)
        if slots is not None:
            slots.close()

    def _forget_files(self, before_ns: int) -> int:
        gone = self._rows("files_gone", before_ns=before_ns, most=_FORGOTTEN_AT_ONCE)
        return self._drop([file_id for (file_id,) in gone])

    def _erase_files(self, tenant: str) -> int:
        count = self._drop([file_id for (file_id,) in self._rows("files_of", tenant=tenant)])
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return count

    def _drop(self, files: Sequence[str]) -> int:
        for file_id in files:
            self._texts.delete(_text(file_id))
            self._run("forget_file", id=file_id)
        return len(files)

    def _rows(self, name: str, /, **facts: Any) -> list[Any]:
        return self._connection.execute(self._statements[name], facts).fetchall()

    def _named_rows(self, name: str, /, **facts: Any) -> list[Mapping[str, Any]]:
        cursor = self._connection.execute(self._statements[name], facts)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]

    def _run(self, name: str, /, **facts: Any) -> int:
        return self._connection.execute(self._statements[name], facts).rowcount

    def _many(self, *what: tuple[str, Sequence[tuple[Any, ...]]]) -> None:
        with self._transaction():
            for name, rows in what:
                self._connection.executemany(self._statements[name], rows)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    async def _do(self, work: Callable[[], Done]) -> Done:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except sqlite3.Error as error:
            raise StorageUnavailable(
                f"Jobs cannot be written or read now ({word_of(error)}). Is the disk full? Nothing is lost."
            ) from error


def _spooled(read: Read, epoch: int) -> Spooled:
    return Spooled(finished=read.finished, epoch=epoch, offset=read.offset, bytes=read.bytes, end=read.end)


def _text(file_id: str) -> str:
    return f"files/{file_id}"


def _spool(no: int, epoch: int) -> str:
    return f"s{no}/{epoch}"
