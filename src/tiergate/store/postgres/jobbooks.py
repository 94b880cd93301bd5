"""The books of jobs on PostgreSQL, under one owner's epoch. What writes belongs to one thread."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from tiergate.batch import Crew, Finished, counts_of
from tiergate.core import StoreOwned
from tiergate.ledger import LineState
from tiergate.store.lines import NOWHERE, Due, passed, within
from tiergate.store.postgres.arrays import array
from tiergate.store.postgres.connection import Address, Connection
from tiergate.store.postgres.reach import Reach
from tiergate.store.postgres.session import DEAD
from tiergate.store.postgres.statements import statements
from tiergate.store.rows import Row

PART_BYTES: Final = 1 << 18
"""Of a file's text in one row; the migration knows it, too."""
_FORGOTTEN_AT_ONCE: Final = 2_000
_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Finished).decode


@dataclass(slots=True)
class Notes:
    """What lines that are being asked have to be written down, all in one transaction."""

    begun: list[tuple[int, int]] = field(default_factory=list)
    """Jobs and numbers of lines."""
    rested: list[tuple[int, int]] = field(default_factory=list)
    ended: list[tuple[int, Finished]] = field(default_factory=list)


class JobBooks:
    """The jobs of a database.

    Args:
        address: of the database.
        connection: to it, in which its schema was brought up to date.
        epoch: of the owner.

    Its methods raise `Unwritten`, and StoreOwned where the owner was declared dead: nothing was written then.
    """

    def __init__(self, address: Address, connection: Connection, *, epoch: int) -> None:
        self._reach = Reach(address, connection)
        self._epoch = epoch
        self._statements = statements("jobs")
        self._passed: dict[int, tuple[int, int]] = {}
        """Where the pass over each job's waiting lines is: rank and number of the last claimed one."""
        self._mine: dict[int, set[int]] = {}
        """Lines that this owner has, by their jobs."""
        self._doubtful: set[int] = set()
        """Jobs in which it may have others: nobody saw whether a claim was committed."""

    def close(self) -> None:
        """Close the connection."""
        self._reach.close()

    # Files.

    def forget_torn(self) -> int:
        """Delete files that owners received in part who are not alive; give how many."""
        with self.transaction():
            return self._drop([file_id for (file_id,) in self.rows("files_torn")])

    def append(self, file_id: str, at: int, data: bytes) -> None:
        """Write a piece of a file."""
        with self.transaction():
            for begins in range(0, len(data), PART_BYTES):
                part = data[begins : begins + PART_BYTES]
                self.run("add_part", file_id=file_id, at=at + begins, data=part)

    def forget_files(self, before_ns: int) -> int:
        """Delete files that are deleted or old, and that no job reads; give how many."""
        with self.transaction():
            gone = self.rows("files_gone", before_ns=before_ns, most=_FORGOTTEN_AT_ONCE)
            return self._drop([file_id for (file_id,) in gone])

    def erase_files(self, tenant: str) -> int:
        """Delete all files of a tenant; give how many."""
        with self.transaction():
            return self._drop([file_id for (file_id,) in self.rows("files_of", tenant=tenant)])

    def _drop(self, files: Sequence[str]) -> int:
        for file_id in files:
            self.run("forget_file", id=file_id)
        return len(files)

    # Lines.

    def claim(self, no: int, count: int, bytes_max: int) -> list[Due]:
        """Claim waiting lines."""
        rank, last = self._passed.get(no, NOWHERE)
        mine = self._mine.setdefault(no, set())
        is_doubtful = no in self._doubtful
        self._doubtful.add(no)
        with self.transaction():
            if is_doubtful:
                self._tidy(no, mine)
            due = within(self.rows("due", job=no, rank=rank, n=last, count=count), bytes_max)
            if due:
                lines = array([line.n for line in due])
                self.run("claim", job=no, epoch=self._epoch, lines=lines)
        self._doubtful.discard(no)
        mine.update(line.n for line in due)
        self._passed[no] = passed(due)
        return due

    def release(self, no: int, lines: Sequence[tuple[int, int]]) -> None:
        """Let claimed lines wait again."""
        with self.transaction():
            self._many("release", [(no, n, self._epoch, tries) for n, tries in lines])
        self._mine.get(no, set()).difference_update(n for n, _ in lines)

    def write(self, notes: Notes) -> None:
        """Write down which lines are asked, which are not any more, and which have come to an end."""
        with self.transaction():
            self._many("begin", [(no, n, self._epoch) for no, n in notes.begun])
            self._many("rest", [(no, n, self._epoch) for no, n in notes.rested])
            self._many("spool", [self._end_row(no, end) for no, end in notes.ended])

    def _end_row(self, no: int, end: Finished) -> Row:
        facts = _encode(msgspec.structs.replace(end, output=b""))
        return (no, end.n, self._epoch, end.state.value, end.error_code, facts, end.output)

    def finish(self, no: int, ends: Sequence[Finished]) -> None:
        """Mark ends in their lines, and count them."""
        with self.transaction():
            self._mark(no, ends)
        self._mine.get(no, set()).difference_update(end.n for end in ends)

    def _mark(self, no: int, ends: Sequence[Finished]) -> None:
        """Mark ends; one that is marked already is not counted twice."""
        if not ends:
            return
        lines = array([end.n for end in ends])
        marked = {n for (n,) in self.rows("finish", job=no, lines=lines)}
        counted = {end.n: end for end in reversed(ends) if end.n in marked}
        if counted:
            self.run("count", job=no, **counts_of(counted.values()))

    def recover(self, no: int) -> list[Finished]:
        """Take over what owners left behind who are not alive; give the ends that were not marked."""
        with self.transaction():
            left = self.rows("left_behind", job=no)
            ends = [_decode(facts) for _, facts, _ in left if facts is not None]
            lost = {n: is_asked for n, facts, is_asked in left if facts is None}
            self._mark(no, ends)
            if lost:
                self.run("interrupted", job=no, lines=array(lost))
                self.run("count_interrupted", job=no, count=sum(lost.values()))
            self.run("forget_crew", job=no)
        return ends

    def let_go(self, no: int) -> None:
        """Let go of a job that is not worked here any more, with all that was claimed of it."""
        self._passed.pop(no, None)
        self._mine.pop(no, None)
        self._doubtful.add(no)
        with self.transaction():
            self._tidy(no, ())
            self.run("leave_crew", job=no, epoch=self._epoch)
        self._doubtful.discard(no)

    def _tidy(self, no: int, mine: Collection[int]) -> None:
        """Mark ends that are written and in nobody's hand, and let lines wait that nobody knows of."""
        known = array(mine)
        unmarked = self.rows("unmarked", job=no, epoch=self._epoch, lines=known)
        self._mark(no, [_decode(facts) for _, facts in unmarked])
        self.run("release_others", job=no, epoch=self._epoch, lines=known)

    @property
    def untidy(self) -> set[int]:
        """Jobs in which this owner may have lines that nobody here knows of."""
        return set(self._doubtful)

    # Jobs.

    def join(self, no: int) -> Crew:
        """Note that this owner works a job, and give who does."""
        with self.transaction():
            self.run("join_crew", job=no, epoch=self._epoch)
            return self._crew(no)

    def leave(self, no: int) -> Crew:
        """Note that this owner works a job no more, and give who does."""
        with self.transaction():
            self.run("leave_crew", job=no, epoch=self._epoch)
            return self._crew(no)

    def _crew(self, no: int) -> Crew:
        return crew_of(lambda _, name, facts: self.rows(name, **facts), no, self._epoch)

    def begin_reading(self, no: int) -> bool:
        """Become the one who reads lines into a job, and delete what another reading left behind."""
        with self.transaction():
            if not self.run("begin_reading", no=no, epoch=self._epoch):
                return False
        while self._forget_unread(no):
            pass
        return True

    def _forget_unread(self, no: int) -> bool:
        with self.transaction():
            self.rows("lock_job", no=no)
            lines = self.rows("unread", job=no, most=_FORGOTTEN_AT_ONCE)
            if lines:
                failed = sum(LineState(state) is LineState.FAILED for _, state in lines)
                self.run("forget_unread", job=no, first=lines[0][0], last=lines[-1][0])
                self.run("uncount_unread", job=no, failed=failed)
            else:
                self.run("forget_unread_inputs", job=no)
        return bool(lines)

    def retry(self, no: int, codes: Sequence[str] | None, deadline_ns: int) -> int:
        """Let failed lines wait again; give how many."""
        with self.transaction():
            self.run("take_long")
            self.rows("lock_job", no=no)
            found = [code for code, _ in self.rows("errors", job=no) if codes is None or code in codes]
            for code in found:
                self.run("uncount", job=no, code=code)
            if found:
                self.run("reopen", no=no, deadline_ns=deadline_ns)
            return sum(self.run("retry", job=no, code=code) for code in found)

    def gone(self, before_ns: int, tenant: str) -> list[int]:
        """Give some jobs that ended before a moment, or are a tenant's."""
        with self.transaction():
            return [no for (no,) in self.rows("jobs_gone", before_ns=before_ns, tenant=tenant, most=100)]

    def forget_some(self, no: int) -> bool:
        """Delete some lines of a job, and with the last ones the job; False: it is gone."""
        with self.transaction():
            if self.run("forget_lines", job=no, most=_FORGOTTEN_AT_ONCE):
                return True
            for name in ("forget_inputs", "forget_crew", "forget_job"):
                self.run(name, job=no)
            return False

    # Statements.

    def rows(self, name: str, /, **facts: Any) -> list[Row]:
        """Give all rows of a question."""
        return self._reach.connection.execute(self._statements[name], facts).fetchall()

    def named_rows(self, name: str, /, **facts: Any) -> list[Mapping[str, Any]]:
        """Give all rows of a question, by the names of their columns."""
        cursor = self._reach.connection.execute(self._statements[name], facts)
        names = [column.name for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor]

    def run(self, name: str, /, **facts: Any) -> int:
        """Run a statement; give how many rows it touched."""
        return self._reach.connection.execute(self._statements[name], facts).rowcount

    def add_lines(self, no: int, rows: Iterable[Row]) -> None:
        """Add lines, all or none; none where the job was erased meanwhile."""
        with self.transaction():
            if self.rows("reads", no=no, epoch=self._epoch):
                self._many("add_line", [(no, *row) for row in rows])

    def _many(self, name: str, rows: Sequence[Row]) -> None:
        if rows:
            columns = [array(column) for column in zip(*rows, strict=True)]
            self._reach.connection.execute(self._statements[name], columns)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write what is said inside, all or nothing."""
        with self._reach.writing((self._statements["alive"], (self._epoch,))) as alive:
            if alive is None:
                raise StoreOwned(DEAD)
            yield


def crew_of(rows: Callable[[str, str, Mapping[str, Any]], list[Row]], no: int, epoch: int) -> Crew:
    """Give who works a job, as an owner sees it. `rows` answers a question of a file of SQL."""
    epochs = [one for (one,) in rows("jobs", "crew", {"job": no})]
    ((asking,),) = rows("jobs", "asked", {"job": no})
    return Crew(len(epochs), epochs.index(epoch) if epoch in epochs else None, asking)
