"""Jobs in memory: the same rules as the real store, everything readable, nothing on disk."""

from collections import Counter
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Final

from msgspec.structs import replace

from tiergate.batch import (
    Claimed,
    Crew,
    Erased,
    Finished,
    Job,
    NewLine,
    Output,
    Spooled,
    StoredFile,
    counts_of,
)
from tiergate.core import StorageUnavailable
from tiergate.ledger import LineState

_DECIDED: Final = frozenset(
    {
        *("sha256", "lines", "budget_nanos", "concurrency", "deadline_ns", "read_ns", "cancel_ns"),
        *("expired_ns", "failed_ns", "ended_ns", "problems", "pause"),
    }
)
_NOWHERE: Final = (-(1 << 62), 0)
"""Before all lines."""


@dataclass(slots=True)
class KeptFile:
    """A file, as far as it was received; `about.bytes` is None until its end."""

    about: StoredFile
    text: bytearray = field(default_factory=bytearray)
    is_dropped: bool = False


@dataclass(slots=True)
class KeptLine:
    """A line and what has become of it; `end` is None while it waits."""

    new: NewLine
    tries: int = 0
    interrupted: int = 0
    end: Finished | None = None

    @property
    def state(self) -> LineState:
        """Where it is."""
        return LineState.WAITING if self.end is None else self.end.state


@dataclass(slots=True)
class KeptSpool:
    """What one owner has spooled: each end with the place behind its record, and how far they are marked."""

    ends: list[tuple[Finished, int]] = field(default_factory=list)
    marked: int = 0


@dataclass(slots=True)
class KeptJob:
    """A job with all that belongs to it; `begun`: lines that are being asked."""

    job: Job
    inputs: list[str] = field(default_factory=list)
    lines: dict[int, KeptLine] = field(default_factory=dict)
    spools: dict[int, KeptSpool] = field(default_factory=dict)
    begun: list[int] = field(default_factory=list)

    def count(self, finished: Finished) -> None:
        """Add an end to what is counted."""
        added = {name: getattr(self.job, name) + amount for name, amount in counts_of([finished]).items()}
        self.job = replace(self.job, **added)


class MemoryJobs:
    """A `batch.JobStore` that forgets everything with the process.

    Attributes:
        refuses: methods that raise StorageUnavailable while their names stand here, as on a full disk.
        kept: the jobs, by their numbers.
        texts: the files, by their ids.
    """

    is_shared = False

    def __init__(self, *, epoch: int = 1) -> None:
        self.epoch: Final = epoch
        self.refuses: set[str] = set()
        self.kept: dict[int, KeptJob] = {}
        self.texts: dict[str, KeptFile] = {}
        self._last_no = 0
        self._reading: set[int] = set()
        self._working: set[int] = set()
        self._passed: dict[int, tuple[int, int]] = {}
        """Where the pass over each job's waiting lines is: rank and number of the last claimed one."""

    def died(self) -> "MemoryJobs":
        """Give the next owner's store, with all that this one leaves behind, should it die now.

        This one goes on for itself: nothing that is done with it from here on is found in the other.
        """
        found = MemoryJobs(epoch=self.epoch + 1)
        found.kept, found._last_no = deepcopy(self.kept), self._last_no
        found.texts = deepcopy({name: one for name, one in self.texts.items() if one.about.bytes is not None})
        return found

    # Files.

    async def begin_file(self, file: StoredFile) -> None:
        """Begin a file; see `batch.FileStore`."""
        self._enter("begin_file")
        self.texts[file.id] = KeptFile(replace(file, bytes=None))

    async def append_file(self, file_id: str, data: bytes) -> None:
        """Write on at a file's end; see `batch.FileStore`."""
        self._enter("append_file")
        self.texts[file_id].text += data

    async def end_file(self, file_id: str, size: int, name: str) -> None:
        """End a file; see `batch.FileStore`."""
        self._enter("end_file")
        kept = self.texts[file_id]
        kept.about = replace(kept.about, bytes=size, name=name)

    async def file(self, tenant: str, file_id: str) -> StoredFile | None:
        """Give a tenant's file; see `batch.FileStore`."""
        self._enter("file")
        kept = self.texts.get(file_id)
        return kept.about if kept is not None and _is_found(kept, tenant) else None

    async def files(
        self, tenant: str, *, after: str | None = None, limit: int = 100, purpose: str | None = None
    ) -> list[StoredFile]:
        """Give a tenant's files; see `batch.FileStore`."""
        self._enter("files")
        found = [
            kept.about
            for file_id, kept in sorted(self.texts.items(), reverse=True)
            if _is_found(kept, tenant) and (not after or file_id < after)
        ]
        return [one for one in found if purpose in (None, one.purpose)][:limit]

    async def drop_file(self, tenant: str, file_id: str, now_ns: int) -> bool:
        """Delete a file; see `batch.FileStore`."""
        self._enter("drop_file")
        kept = self.texts.get(file_id)
        if kept is None or kept.about.tenant != tenant or kept.is_dropped:
            return False
        kept.is_dropped = True
        self._forget_files(0)
        return True

    async def read_file(self, file_id: str, offset: int, size: int) -> bytes:
        """Read a piece of a file; see `batch.FileStore`."""
        self._enter("read_file")
        kept = self.texts.get(file_id)
        return b"" if kept is None else bytes(kept.text[offset : offset + size])

    # Jobs.

    async def add(self, job: Job, files: Sequence[str] = ()) -> Job:
        """Add a job; see `batch.JobStore`."""
        self._enter("add")
        self._last_no += 1
        added = replace(job, no=self._last_no)
        self.kept[added.no] = KeptJob(added, list(files))
        return added

    async def job(self, job_id: str) -> Job | None:
        """Give a job; see `batch.JobStore`."""
        self._enter("job")
        return next((kept.job for kept in self.kept.values() if kept.job.id == job_id), None)

    async def jobs(self, tenant: str | None, *, after: str | None = None, limit: int = 20) -> list[Job]:
        """Give a tenant's jobs; see `batch.JobStore`."""
        self._enter("jobs")
        found = sorted((kept.job for kept in self.kept.values()), key=lambda job: job.id, reverse=True)
        return [job for job in found if tenant in (None, job.tenant) and (not after or job.id < after)][
            :limit
        ]

    async def open_jobs(self) -> list[Job]:
        """Give those that have something left to do; see `batch.JobStore`."""
        self._enter("open_jobs")
        return [kept.job for kept in self.kept.values() if kept.job.is_open]

    async def change(self, no: int, what: Mapping[str, Any]) -> Job:
        """Write down what was decided about a job; see `batch.JobStore`."""
        self._enter("change")
        assert set(what) <= _DECIDED
        kept = self.kept[no]
        kept.job = replace(kept.job, **what)
        return kept.job

    async def end(self, no: int, now_ns: int) -> Job | None:
        """End a job none of whose lines waits; see `batch.JobStore`."""
        self._enter("end")
        kept = self.kept[no]
        waiting = [n for n, line in kept.lines.items() if line.end is None and n <= kept.job.lines]
        if waiting or kept.job.ended_ns is not None:
            return None
        kept.job = replace(kept.job, ended_ns=now_ns, pause=None)
        return kept.job

    async def worked(self, no: int, worked_ms: int) -> None:
        """Add to the time for which somebody worked on a job; see `batch.JobStore`."""
        self._enter("worked")
        kept = self.kept[no]
        kept.job = replace(kept.job, worked_ms=kept.job.worked_ms + worked_ms)

    async def add_input(self, no: int, file_id: str) -> int:
        """Let a job read another file; see `batch.JobStore`."""
        self._enter("add_input")
        inputs = self.kept[no].inputs
        if file_id not in inputs:
            inputs.append(file_id)
        return inputs.index(file_id)

    async def inputs(self, no: int) -> Sequence[str]:
        """Give the files that a job reads; see `batch.JobStore`."""
        self._enter("inputs")
        return list(self.kept[no].inputs)

    # Lines.

    async def add_lines(self, no: int, lines: Sequence[NewLine]) -> None:
        """Add lines; see `batch.JobStore`."""
        self._enter("add_lines")
        self.kept[no].lines.update({line.n: KeptLine(line) for line in lines})

    async def begin_reading(self, no: int) -> bool:
        """Become the one who reads lines into a job; see `batch.JobStore`."""
        self._enter("begin_reading")
        if no in self._reading:
            return False
        self._reading.add(no)
        kept = self.kept[no]
        # Ends of then stand no longer in the way of lines that come in their places.
        self._recover_spools(kept, but=self.epoch)
        unread = {n: line for n, line in kept.lines.items() if n > kept.job.lines}
        failed = sum(line.state is LineState.FAILED for line in unread.values())
        kept.job = replace(kept.job, failed=kept.job.failed - failed)
        for n in unread:
            del kept.lines[n]
        if kept.job.lines and kept.job.read_ns is not None:
            del kept.inputs[kept.lines[kept.job.lines].new.source + 1 :]
        return True

    async def end_reading(self, no: int) -> None:
        """Let others read lines into a job; see `batch.JobStore`."""
        self._reading.discard(no)

    async def alike(self, no: int) -> list[tuple[int, int]]:
        """Give lines that may be named alike; see `batch.JobStore`."""
        self._enter("alike")
        first: dict[int, int] = {}
        found = []
        for n, line in sorted(self.kept[no].lines.items()):
            if line.new.custom_hash is None:
                continue
            earlier = first.setdefault(line.new.custom_hash, n)
            if earlier != n and line.end is None:
                found.append((earlier, n))
        return found

    async def line_text(self, no: int, n: int) -> bytes:
        """Read a line; see `batch.JobStore`."""
        self._enter("line_text")
        return self._text(self.kept[no], self.kept[no].lines[n])

    async def claim(self, no: int, count: int, *, bytes_max: int) -> list[Claimed]:
        """Claim waiting lines; see `batch.JobStore`."""
        self._enter("claim")
        kept = self.kept[no]
        passed = self._passed.get(no, _NOWHERE)
        found: list[Claimed] = []
        taken = 0
        for place, line in sorted(((line.new.rank, n), line) for n, line in kept.lines.items()):
            if place <= passed or line.end is not None or place[1] > kept.job.lines:
                continue
            taken += line.new.bytes
            if len(found) == count or (found and taken > bytes_max):
                break
            found.append(Claimed(place[1], self._text(kept, line), line.tries, line.interrupted))
        last = kept.lines[found[-1].n].new if found else None
        self._passed[no] = _NOWHERE if last is None else (last.rank, last.n)
        return found

    async def begin(self, no: int, n: int) -> None:
        """Note that a claimed line is asked now; see `batch.JobStore`."""
        self._enter("begin")
        if n not in self.kept[no].begun:
            self.kept[no].begun.append(n)

    async def rest(self, no: int, n: int) -> None:
        """Note that it is not asked any more for now; see `batch.JobStore`."""
        self._enter("rest")
        _let_go(self.kept[no], n)

    async def release(self, no: int, lines: Sequence[tuple[int, int]]) -> None:
        """Let claimed lines wait again; see `batch.JobStore`."""
        self._enter("release")
        kept = self.kept[no]
        for n, tries in lines:
            _let_go(kept, n)
            if tries:
                kept.lines[n].tries = tries

    async def join(self, no: int) -> Crew:
        """Note that this owner works a job; see `batch.JobStore`."""
        self._enter("join")
        self._working.add(no)
        return await self.crew(no)

    async def crew(self, no: int) -> Crew:
        """Give who works a job now: the one owner, or nobody; see `batch.JobStore`."""
        self._enter("crew")
        is_at_work = no in self._working
        return Crew(int(is_at_work), 0 if is_at_work else None, len(self.kept[no].begun))

    async def leave(self, no: int) -> Crew:
        """Note that this owner works a job no more; see `batch.JobStore`."""
        self._enter("leave")
        self._working.discard(no)
        return await self.crew(no)

    async def close_job(self, no: int) -> None:
        """Let go of a job; see `batch.JobStore`."""
        self._enter("close_job")
        self._passed.pop(no, None)

    async def spool(self, no: int, finished: Finished) -> Spooled:
        """Write an end into the job's spool; see `batch.JobStore`."""
        self._enter("spool")
        kept = self.kept[no]
        spool = kept.spools.setdefault(self.epoch, KeptSpool())
        at = spool.ends[-1][1] if spool.ends else 0
        end = at + len(finished.output)
        spool.ends.append((finished, end))
        _let_go(kept, finished.n)
        return Spooled(finished=finished, epoch=self.epoch, offset=at, bytes=len(finished.output), end=end)

    async def finish(self, no: int, spooled: Sequence[Spooled]) -> None:
        """Mark ends in their lines; see `batch.JobStore`."""
        self._enter("finish")
        kept = self.kept[no]
        for one in spooled:
            _mark(kept, one.finished)
            spool = kept.spools[one.epoch]
            spool.marked = max(spool.marked, one.end)

    async def errors(self, no: int) -> dict[str, int]:
        """Count the failed lines by their error codes; see `batch.JobStore`."""
        self._enter("errors")
        codes = Counter(end.error_code or "" for end in self._failed(no).values())
        return dict(sorted(codes.items(), key=lambda item: (-item[1], item[0])))

    async def outputs(
        self, no: int, *, done: bool, failed: bool, after: int = 0, limit: int = 500
    ) -> list[Output]:
        """Give outputs in the order of the input; see `batch.JobStore`."""
        self._enter("outputs")
        found = self._outputs(no, done=done, failed=failed)
        return [one for one in found if one.n > after][:limit]

    async def output_bytes(self, no: int, *, done: bool, failed: bool) -> int:
        """Give how many bytes the outputs have; see `batch.JobStore`."""
        self._enter("output_bytes")
        return sum(len(one.line) for one in self._outputs(no, done=done, failed=failed))

    async def retry(self, no: int, codes: Sequence[str] | None, *, deadline_ns: int) -> int:
        """Let failed lines wait again; see `batch.JobStore`."""
        self._enter("retry")
        kept = self.kept[no]
        found = [n for n, end in self._failed(no).items() if codes is None or end.error_code in codes]
        states = Counter(kept.lines[n].state for n in found)
        kept.job = replace(
            kept.job,
            failed=kept.job.failed - states[LineState.FAILED],
            cancelled=kept.job.cancelled - states[LineState.CANCELLED],
        )
        if found:
            deadline_ns = kept.job.deadline_ns if kept.job.ended_ns is None else deadline_ns
            reopened = dict.fromkeys(("ended_ns", "cancel_ns", "expired_ns", "pause"))
            kept.job = replace(kept.job, deadline_ns=deadline_ns, **reopened)
        for n in found:
            kept.lines[n] = KeptLine(kept.lines[n].new)
        return len(found)

    async def recover(self, no: int) -> list[Finished]:
        """Take a job over; see `batch.JobStore`."""
        self._enter("recover")
        kept = self.kept[no]
        found = self._recover_spools(kept)
        interrupted = [kept.lines[n] for n in kept.begun if kept.lines[n].end is None]
        for line in interrupted:
            line.interrupted += 1
        kept.begun.clear()
        kept.job = replace(kept.job, interrupted=kept.job.interrupted + len(interrupted))
        return found

    def _recover_spools(self, kept: KeptJob, *, but: int | None = None) -> list[Finished]:
        found = []
        for epoch, spool in sorted(kept.spools.items()):
            unmarked = [(end, at) for end, at in spool.ends if at > spool.marked and epoch != but]
            for finished, at in unmarked:
                _mark(kept, finished)
                spool.marked = at
            found += [replace(finished, output=b"") for finished, _ in unmarked]
        return found

    async def abandoned(self) -> set[int]:
        """Give nothing: there is one owner; see `batch.JobStore`."""
        self._enter("abandoned")
        return set()

    async def forget(self, before_ns: int) -> int:
        """Delete what is old; see `batch.JobStore`."""
        self._enter("forget")
        old = [no for no, kept in self.kept.items() if _is_old(kept.job, before_ns)]
        for no in old:
            del self.kept[no]
        return len(old) + self._forget_files(before_ns)

    async def erase(self, tenant: str) -> Erased:
        """Delete all of a tenant; see `batch.JobStore`."""
        self._enter("erase")
        jobs = [no for no, kept in self.kept.items() if kept.job.tenant == tenant]
        files = [file_id for file_id, kept in self.texts.items() if kept.about.tenant == tenant]
        for no in jobs:
            del self.kept[no]
        for file_id in files:
            del self.texts[file_id]
        return Erased(len(jobs), len(files))

    # Inside.

    def _enter(self, method: str) -> None:
        if method in self.refuses:
            raise StorageUnavailable(f"The jobs were told to refuse `{method}`.")

    def _text(self, kept: KeptJob, line: KeptLine) -> bytes:
        begins = line.new.offset
        return bytes(self.texts[kept.inputs[line.new.source]].text[begins : begins + line.new.bytes])

    def _failed(self, no: int) -> dict[int, Finished]:
        ends = {n: line.end for n, line in self.kept[no].lines.items() if line.end is not None}
        return {n: end for n, end in ends.items() if end.state is not LineState.DONE}

    def _outputs(self, no: int, *, done: bool, failed: bool) -> list[Output]:
        ends = [line.end for _, line in sorted(self.kept[no].lines.items()) if line.end is not None]
        return [
            Output(end.n, end.state, end.output)
            for end in ends
            if (done if end.state is LineState.DONE else failed)
        ]

    def _forget_files(self, before_ns: int) -> int:
        read = {file_id for kept in self.kept.values() for file_id in kept.inputs}
        gone = [
            file_id
            for file_id, kept in self.texts.items()
            if file_id not in read and (kept.is_dropped or kept.about.created_ns < before_ns)
        ]
        for file_id in gone:
            del self.texts[file_id]
        return len(gone)


def _is_found(kept: KeptFile, tenant: str) -> bool:
    return kept.about.tenant == tenant and kept.about.bytes is not None and not kept.is_dropped


def _is_old(job: Job, before_ns: int) -> bool:
    ended_ns = job.failed_ns if job.ended_ns is None else job.ended_ns
    return ended_ns is not None and ended_ns < before_ns


def _let_go(kept: KeptJob, n: int) -> None:
    if n in kept.begun:
        kept.begun.remove(n)


def _mark(kept: KeptJob, finished: Finished) -> None:
    """Mark an end; one that is marked already is not counted twice."""
    line = kept.lines[finished.n]
    if line.end is None:
        line.end = finished
        kept.count(finished)
