"""What batches need from outside: a store for files, jobs and lines, a lane for lines, an engine for jobs."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from tiergate.batch.records import (
    Claimed,
    Crew,
    Erased,
    Finished,
    Job,
    NewLine,
    Output,
    Pause,
    Progress,
    Spooled,
    StoredFile,
)
from tiergate.batch.weather import Weather
from tiergate.core import TiergateError


class FileStore(Protocol):
    """Keeps uploaded files.

    Every method raises StorageUnavailable where it cannot be done now.
    """

    async def begin_file(self, file: StoredFile) -> None:
        """Begin a file; nobody finds it before its end."""
        ...

    async def append_file(self, file_id: str, data: bytes) -> None:
        """Write on at its end."""
        ...

    async def end_file(self, file_id: str, size: int, name: str) -> None:
        """End a file of `size` bytes and give it a name; then no loss of power takes it away."""
        ...

    async def file(self, tenant: str, file_id: str) -> StoredFile | None:
        """Give a tenant's file; None: it has none of this id."""
        ...

    async def files(
        self, tenant: str, *, after: str | None = None, limit: int = 100, purpose: str | None = None
    ) -> list[StoredFile]:
        """Give a tenant's files, newest first, those that are older than `after`."""
        ...

    async def drop_file(self, tenant: str, file_id: str, now_ns: int) -> bool:
        """Delete a file; jobs that read it read on. False: there is none."""
        ...

    async def read_file(self, file_id: str, offset: int, size: int) -> bytes:
        """Read at most `size` bytes; fewer only at its end."""
        ...


class JobStore(FileStore, Protocol):
    """Keeps jobs and their lines, for one owner or for several that work side by side.

    An end of a line is first spooled, then marked in the line: what is spooled outlives the process, what is
    marked a loss of power. Whoever finds a job after an owner died marks what was spooled, and lets the rest
    of what that owner had claimed wait again. An owner that was declared dead and is not can write nothing
    any more: every method that writes raises StoreOwned.
    """

    is_shared: bool
    """Whether other owners work the same jobs."""

    async def add(self, job: Job, files: Sequence[str] = ()) -> Job:
        """Add a job that reads these files, one after the other; gives it with its number."""
        ...

    async def job(self, job_id: str) -> Job | None:
        """Give a job."""
        ...

    async def jobs(self, tenant: str | None, *, after: str | None = None, limit: int = 20) -> list[Job]:
        """Give a tenant's jobs, newest first, those that are older than `after`; of all tenants for None."""
        ...

    async def open_jobs(self) -> list[Job]:
        """Give those that have something left to do, the oldest first."""
        ...

    async def change(self, no: int, what: Mapping[str, Any]) -> Job:
        """Write down what was decided about a job, by the names of its fields; gives it as it is then."""
        ...

    async def end(self, no: int, now_ns: int) -> Job | None:
        """End a job none of whose lines waits, and give it as it is then; None: some do, or it had ended.

        Its lines are as many as it says: those that are being read are none yet, here and for `claim`.
        """
        ...

    async def worked(self, no: int, worked_ms: int) -> None:
        """Add to the time for which somebody worked on a job."""
        ...

    async def add_input(self, no: int, file_id: str) -> int:
        """Let a job read another file; gives its number among those."""
        ...

    async def inputs(self, no: int) -> Sequence[str]:
        """Give the files that a job reads, in order."""
        ...

    async def add_lines(self, no: int, lines: Sequence[NewLine]) -> None:
        """Add lines, which wait."""
        ...

    async def begin_reading(self, no: int) -> bool:
        """Become the one who reads lines into a job; False: somebody else is.

        What a reading left behind that was broken off is gone: lines after the job's number of them, what
        was counted of those, and files that were to be read after its own. None of them was ever claimed.
        """
        ...

    async def end_reading(self, no: int) -> None:
        """Let others read lines into a job."""
        ...

    async def alike(self, no: int) -> list[tuple[int, int]]:
        """Give waiting lines whose `custom_hash` is that of an earlier line: (earlier, later)."""
        ...

    async def line_text(self, no: int, n: int) -> bytes:
        """Read a line."""
        ...

    async def claim(self, no: int, count: int, *, bytes_max: int) -> list[Claimed]:
        """Claim waiting lines, in their order; of no more text than `bytes_max`, but of one line at least.

        Where none is given, a pass over all of them is over. To be asked again once those of the pass have
        been marked or let go: then the next begins, with whatever waits by then.
        """
        ...

    async def begin(self, no: int, n: int) -> None:
        """Note that a claimed line is asked now. Should its owner die before its end, `recover` tells."""
        ...

    async def rest(self, no: int, n: int) -> None:
        """Note that a line that was begun is not asked any more for now; it stays claimed."""
        ...

    async def release(self, no: int, lines: Sequence[tuple[int, int]]) -> None:
        """Let claimed lines wait again, with the tries that they had: (n, tries)."""
        ...

    async def join(self, no: int) -> Crew:
        """Note that this owner works a job, and give who does by now."""
        ...

    async def crew(self, no: int) -> Crew:
        """Give who works a job now."""
        ...

    async def leave(self, no: int) -> Crew:
        """Note that this owner works a job no more, and give who does by now."""
        ...

    async def close_job(self, no: int) -> None:
        """Let go of what is kept open for a job that is not worked any more."""
        ...

    async def spool(self, no: int, finished: Finished) -> Spooled:
        """Write an end into the job's spool; when this returns it outlives the process.

        Raises:
            StorageUnavailable: nothing was written.
        """
        ...

    async def finish(self, no: int, spooled: Sequence[Spooled]) -> None:
        """Mark ends in their lines, and count them; when this returns a loss of power takes nothing away."""
        ...

    async def errors(self, no: int) -> dict[str, int]:
        """Count the failed lines by their error codes, the most frequent first."""
        ...

    async def outputs(
        self, no: int, *, done: bool, failed: bool, after: int = 0, limit: int = 500
    ) -> list[Output]:
        """Give outputs in the order of the input: those of lines after `after` that are there by now."""
        ...

    async def output_bytes(self, no: int, *, done: bool, failed: bool) -> int:
        """Give how many bytes all of these outputs have."""
        ...

    async def retry(self, no: int, codes: Sequence[str] | None, *, deadline_ns: int) -> int:
        """Let lines wait again that failed or were cancelled, and their job go on; gives how many.

        Args:
            no: of the job.
            codes: those with these error codes; None: all.
            deadline_ns: of the job, where it had ended.
        """
        ...

    async def recover(self, no: int) -> list[Finished]:
        """Take a job over: mark what was spooled, let wait what was claimed. Gives what was marked."""
        ...

    async def abandoned(self) -> set[int]:
        """Give the jobs of which owners have lines that died beside this one."""
        ...

    async def forget(self, before_ns: int) -> int:
        """Delete some jobs that ended before a moment, and files that are as old; gives how many."""
        ...

    async def erase(self, tenant: str) -> Erased:
        """Delete all files and jobs of a tenant, none of which is worked any more; gives how many."""
        ...


class Lane(Protocol):
    """How lines are asked: one by one, as live calls, for now."""

    async def ask(self, job: Job, line: Claimed) -> Finished:
        """Ask a line; give its end, where it was answered or is at fault itself.

        Raises:
            TiergateError: it was not answered.
        """
        ...

    def failed(self, job: Job, line: Claimed, error: TiergateError) -> Finished:
        """Give the end of a line that was asked in vain."""
        ...

    def poisoned(self, job: Job, line: Claimed) -> Finished:
        """Give the end of a line that its owners died with."""
        ...

    def unasked(self, job: Job, line: Claimed) -> Finished:
        """Give the end of a line that its job's own end came before."""
        ...


class Engine(Protocol):
    """What works one job: in this process, for now."""

    async def run(self) -> bool:
        """Work; True: every line has come to its end. False: it stands still, or was called off.

        Raises:
            StorageUnavailable: jobs cannot be read or written.
        """
        ...

    def change(self, job: Job) -> None:
        """Take another concurrency, or that the job is to end."""
        ...

    def call_off(self) -> None:
        """Ask nothing more; `run` returns when what is asked has ended."""
        ...

    def break_off(self) -> None:
        """Wait no longer for what is asked; those lines wait again."""
        ...

    def progress(self) -> Progress:
        """Tell what it is doing now."""
        ...


class MakeEngine(Protocol):
    """Gives what works a job."""

    def __call__(
        self,
        job: Job,
        *,
        on_pause: Callable[[Pause | None], Awaitable[None]],
        on_finished: Callable[[Finished], None],
        weather: Weather,
    ) -> Engine:
        """Give it for one run.

        Args:
            job: as it is in the store.
            on_pause: writes down that it stands still.
            on_finished: hears of each end that is in the spool.
            weather: what its lines have met so far; it outlives the run.
        """
        ...
