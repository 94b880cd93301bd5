"""The books of jobs: an SQLite file, `jobs.db`, and the texts of jobs in a folder beside it.

They belong to one thread, but for what a line that is being asked needs: `begin`, `rest` and `spool` are a
number in memory and one system call, and whoever has an answer in the hand waits for no thread with it.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tiergate.batch import Claimed, Finished, Spooled, counts_of
from tiergate.core import CannotStart
from tiergate.ledger import LineState
from tiergate.store.folder import make_folder, make_private_file
from tiergate.store.lines import NOWHERE, READ_AT_ONCE, claimed, passed, within
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
_FORGOTTEN_AT_ONCE: Final = 2_000


class JobBooks:
    """The jobs of a data folder, open under one owner's epoch.

    Args:
        data_dir: the data folder.
        epoch: of the owner.

    Raises:
        CannotStart: with what to do about it.
    """

    def __init__(self, data_dir: Path, *, epoch: int) -> None:
        self._epoch = epoch
        self._statements = statements("jobs")
        self._passed: dict[int, tuple[int, int]] = {}
        """Where the pass over each job's waiting lines is: rank and number of the last claimed one."""
        self._slots: dict[int, Slots] = {}
        make_folder(data_dir)
        self.texts = Texts(jobs_folder(data_dir))
        self.connection = self._opened(data_dir / JOBS_FILE)
        # What an owner that is gone received in part.
        self._drop([file_id for (file_id,) in self.rows("files_torn")])

    @staticmethod
    def _opened(path: Path) -> sqlite3.Connection:
        make_private_file(path)
        try:
            connection = sqlite3.connect(path, isolation_level=None)
            for pragma in _PRAGMAS:
                connection.execute(f"PRAGMA {pragma}")
            migrate(connection, "jobs")
        except sqlite3.Error as error:
            raise CannotStart(
                f"The file {path} cannot be used ({word_of(error)}). Restore it from a backup "
                "(`tiergate restore`), or move it away: jobs that it knows of are then unknown."
            ) from error
        return connection

    def close(self) -> None:
        """Close them."""
        for slots in self._slots.values():
            slots.close()
        self.texts.close_all()
        self.connection.close()

    def claim(self, no: int, count: int, bytes_max: int) -> list[Claimed]:
        """Claim waiting lines."""
        files = dict(self.rows("inputs", job=no))
        rank, last = self._passed.get(no, NOWHERE)
        due = within(self.rows("due", job=no, rank=rank, n=last, count=count), bytes_max)
        found = claimed(
            due, lambda source, offset, size: self.texts.read(text_name(files[source]), offset, size)
        )
        self._passed[no] = passed(due)
        return found

    def begin(self, no: int, n: int) -> None:
        """Note that a line is asked now; called by the event loop."""
        self._slots_of(no).begin(n)

    def rest(self, no: int, n: int) -> None:
        """Note that it is not; called by the event loop."""
        self._slots_of(no).end(n)

    def asking(self, no: int) -> int:
        """Count the lines that are asked now; called by the event loop."""
        slots = self._slots.get(no)
        return 0 if slots is None else slots.taken

    def spool(self, no: int, ends: Sequence[Finished]) -> list[Spooled]:
        """Write ends into the job's spool, all or none; called by the event loop.

        Raises:
            StorageUnavailable: nothing was written.
        """
        records = list(map(write_record, ends))
        slots = self._slots_of(no)
        at = self.texts.append(spool_name(no, self._epoch), b"".join([data for data, _ in records]))
        spooled = []
        for finished, (data, output_at) in zip(ends, records, strict=True):
            slots.end(finished.n)
            end = at + len(data)
            spooled.append(
                Spooled(
                    finished=finished,
                    epoch=self._epoch,
                    offset=at + output_at,
                    bytes=len(data) - output_at,
                    end=end,
                )
            )
            at = end
        return spooled

    def finish(self, no: int, spooled: Sequence[Spooled]) -> None:
        """Mark ends in their lines, when their spools are on the disk."""
        for epoch in {one.epoch for one in spooled}:
            self.texts.sync(spool_name(no, epoch))
        self._mark(no, spooled)

    def _mark(self, no: int, spooled: Sequence[Spooled]) -> None:
        """Mark ends; one that is marked already is not counted twice."""
        with self.transaction():
            ends = self._marked(no, spooled)
            if ends:
                self.run("count", job=no, **counts_of(ends))
            marked = {one.epoch: 0 for one in spooled}
            for one in spooled:
                marked[one.epoch] = max(marked[one.epoch], one.end)
            for epoch, end_at in marked.items():
                self.run("mark", job=no, epoch=epoch, marked=end_at)

    def _marked(self, no: int, spooled: Sequence[Spooled]) -> list[Finished]:
        """Mark ends in their lines; give those that were not marked before."""
        rows = [
            (end.state._value_, one.epoch, one.offset, one.bytes, end.error_code, no, end.n)
            for one in spooled
            for end in (one.finished,)
        ]
        self.connection.execute("SAVEPOINT ends")
        before = self.connection.total_changes
        self.connection.executemany(self._statements["finish"], rows)
        if self.connection.total_changes - before == len(rows):
            return [one.finished for one in spooled]
        # After a death some may be marked already: so one by one.
        self.connection.execute("ROLLBACK TO ends")
        return [
            one.finished
            for one, row in zip(spooled, rows, strict=True)
            if self.connection.execute(self._statements["finish"], row).rowcount
        ]

    def recover(self, no: int) -> list[Finished]:
        """Take a job over; give the ends that were spooled and not marked."""
        found = self._recover_spools(no)
        slots = self._slots_of(no)
        with self.transaction():
            count = sum(self.run("interrupted", job=no, n=n) for n in slots.found)
            self.run("count_interrupted", job=no, count=count)
        slots.clear()
        return found

    def _recover_spools(self, no: int, *, but: int | None = None) -> list[Finished]:
        found: list[Finished] = []
        known = dict(self.rows("spools", job=no))
        for epoch in self.texts.list(f"s{no}"):
            if epoch != but:
                found += self._recover_spool(no, epoch, known.get(epoch, 0))
        return found

    def _slots_of(self, no: int) -> Slots:
        slots = self._slots.get(no)
        if slots is None:
            slots = self._slots[no] = Slots(self.texts.folder(f"s{no}") / "asked")
        return slots

    def _recover_spool(self, no: int, epoch: int, marked: int) -> list[Finished]:
        """Mark what was spooled and not marked, a piece at a time, and cut off what was not written whole."""
        name, at = spool_name(no, epoch), marked
        found: list[Finished] = []
        size, reach = self.texts.size(name), READ_AT_ONCE
        while at < size:
            data = self.texts.read(name, at, reach)
            read = list(read_records(data, at=at))
            if not read and at + reach >= size:
                break
            reach = READ_AT_ONCE if read else 2 * reach
            if read:
                self.texts.write_again(name, at, data[: read[-1].end - at])
            self.texts.sync(name)
            self._mark(no, [_spooled(one, epoch) for one in read])
            found += [one.finished for one in read]
            at = read[-1].end if read else at
        if at < size:
            self.texts.truncate(name, at)
        self.texts.close(name)
        return found

    def forget(self, before_ns: int, tenant: str) -> int:
        """Delete jobs that ended before a moment, or all of a tenant; give how many."""
        jobs = [no for (no,) in self.rows("jobs_gone", before_ns=before_ns, tenant=tenant, most=100)]
        for no in jobs:
            self.forget_lines(no)
            self.let_go(no)
            self.texts.delete(f"s{no}")
            with self.transaction():
                for name in ("forget_inputs", "forget_spools", "forget_job"):
                    self.run(name, job=no)
        return len(jobs)

    def forget_lines(self, no: int) -> None:
        """Delete all lines of a job."""
        while self.run("forget_lines", job=no, most=_FORGOTTEN_AT_ONCE):
            pass

    def forget_unread(self, no: int) -> None:
        """Delete what a reading left behind that was broken off."""
        # Ends of then stand no longer in the way of lines that come in their places.
        self._recover_spools(no, but=self._epoch)
        while lines := self.rows("unread", job=no, most=_FORGOTTEN_AT_ONCE):
            failed = sum(LineState(state) is LineState.FAILED for _, state in lines)
            with self.transaction():
                self.run("forget_unread", job=no, first=lines[0][0], last=lines[-1][0])
                self.run("uncount_unread", job=no, failed=failed)
        self.run("forget_unread_inputs", job=no)

    def let_go(self, no: int) -> None:
        """Let go of what is kept open for a job."""
        self._passed.pop(no, None)
        slots = self._slots.pop(no, None)
        if slots is not None:
            slots.close()

    def forget_files(self, before_ns: int) -> int:
        """Delete files that are deleted or old, and that no job reads; give how many."""
        gone = self.rows("files_gone", before_ns=before_ns, most=_FORGOTTEN_AT_ONCE)
        return self._drop([file_id for (file_id,) in gone])

    def erase_files(self, tenant: str) -> int:
        """Delete all files of a tenant; give how many."""
        count = self._drop([file_id for (file_id,) in self.rows("files_of", tenant=tenant)])
        self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return count

    def _drop(self, files: Sequence[str]) -> int:
        for file_id in files:
            self.texts.delete(text_name(file_id))
            self.run("forget_file", id=file_id)
        return len(files)

    def rows(self, name: str, /, **facts: Any) -> list[Any]:
        """Give all rows of a question."""
        return self.connection.execute(self._statements[name], facts).fetchall()

    def named_rows(self, name: str, /, **facts: Any) -> list[Mapping[str, Any]]:
        """Give all rows of a question, by the names of their columns."""
        cursor = self.connection.execute(self._statements[name], facts)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]

    def run(self, name: str, /, **facts: Any) -> int:
        """Run a statement; give how many rows it touched."""
        return self.connection.execute(self._statements[name], facts).rowcount

    def many(self, name: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Run a statement for each row, in one transaction."""
        with self.transaction():
            self.connection.executemany(self._statements[name], rows)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write what is said inside, all or nothing."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.connection.execute("COMMIT")
        finally:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")


def _spooled(read: Read, epoch: int) -> Spooled:
    return Spooled(finished=read.finished, epoch=epoch, offset=read.offset, bytes=read.bytes, end=read.end)


def text_name(file_id: str) -> str:
    """Give the name of a file's text."""
    return f"files/{file_id}"


def spool_name(no: int, epoch: int) -> str:
    """Give the name of the spool of a job and an owner."""
    return f"s{no}/{epoch}"
