"""The door of batches: what callers ask for, each of its own and of nobody else's."""

from collections.abc import Callable, Mapping, Sequence

from tiergate.batch.estimating import Estimator
from tiergate.batch.ports import JobStore
from tiergate.batch.records import Erased, Job, StoredFile
from tiergate.batch.shifts import Shifts
from tiergate.batch.wishes import NoSuchBatch, View, Wish
from tiergate.core import Caller, Clock, InvalidRequest, new_id
from tiergate.wire import BATCH_URLS


class Batches:
    """All batches of a house.

    Args:
        store: keeps them.
        shifts: works them.
        estimator: tells what one will cost.
        clock: time.
        randomness: gives so many random bytes.
    """

    def __init__(
        self,
        store: JobStore,
        shifts: Shifts,
        estimator: Estimator,
        *,
        clock: Clock,
        randomness: Callable[[int], bytes],
    ) -> None:
        self.store = store
        self.shifts = shifts
        self.estimator = estimator
        self._clock = clock
        self._randomness = randomness

    async def create(self, caller: Caller, wish: Wish) -> Job:
        """Take a batch.

        Raises:
            InvalidRequest: it cannot be worked; says why.
            NoSuchBatch: there is no such file.
            StorageUnavailable: nothing was taken.
        """
        if wish.endpoint not in BATCH_URLS:
            raise InvalidRequest(f"`endpoint` must be one of {', '.join(BATCH_URLS)}.", param="endpoint")
        files = (wish.input_file, *wish.more_files)
        for file_id in files:
            await self.file(caller, file_id)
        now_ns = self._clock.wall_ns()
        job = Job(
            id=f"batch_{new_id(now_ns, self._randomness(10))}",
            tenant=caller.partition,
            key=caller.key,
            tag=wish.tag,
            endpoint=wish.endpoint,
            model=wish.model,
            data_class=wish.data_class.stricter(caller.data_class),
            input_file=wish.input_file,
            budget_nanos=wish.budget_nanos,
            concurrency=wish.concurrency,
            is_strict=wish.is_strict,
            by_prefix=wish.by_prefix,
            window_s=wish.window_s,
            metadata=wish.metadata,
            created_ns=now_ns,
            deadline_ns=now_ns + wish.window_s * 1_000_000_000,
        )
        return self.shifts.begin(await self.store.add(job, files)).job

    async def view(self, caller: Caller, job_id: str) -> View:
        """Give a batch as it is now.

        Raises:
            NoSuchBatch: the caller has none of this id.
        """
        job = await self._found(caller, job_id)
        return View(
            job=self.shifts.timed(job),
            errors=await self.store.errors(job.no) if job.failed or job.cancelled else {},
            spent_nanos=await self.shifts.spent_of(job),
            held_nanos=await self.shifts.held_nanos(job),
            progress=await self.shifts.progress(job),
        )

    async def listed(self, caller: Caller, *, after: str | None, limit: int) -> list[Job]:
        """Give a caller's batches, newest first."""
        return await self.store.jobs(caller.partition, after=after, limit=limit)

    async def cancel(self, caller: Caller, job_id: str) -> None:
        """End a batch: what is asked now is finished, what is not is not asked.

        Raises:
            NoSuchBatch: the caller has none of this id.
            InvalidRequest: it has ended already.
        """
        job = await self._found(caller, job_id)
        opened = await self.shifts.find(job)
        if opened is None:
            raise InvalidRequest(f"The batch {job_id} has ended ({job.state.value}).")
        if job.cancel_ns is None:
            await self.shifts.change(opened, cancel_ns=self._clock.wall_ns(), pause=None)

    async def change(
        self, caller: Caller, job_id: str, *, budget_nanos: int | None = None, concurrency: int | None = None
    ) -> None:
        """Give a batch that has not ended another budget or concurrency; one that stands still goes on.

        Raises:
            NoSuchBatch: the caller has none of this id.
        """
        opened = await self.shifts.find(await self._found(caller, job_id))
        if opened is None:
            return
        wished: Mapping[str, int | None] = {"budget_nanos": budget_nanos, "concurrency": concurrency}
        given = {name: value for name, value in wished.items() if value is not None}
        await self.shifts.change(opened, pause=None, **given)
        self.shifts.on_ceilings()

    async def extend(self, caller: Caller, job_id: str, files: Sequence[str]) -> None:
        """Let a batch answer the lines of more files, after its own.

        Raises:
            NoSuchBatch: the caller has none of this id, or no such file.
            InvalidRequest: its input is still being read.
        """
        job = await self._found(caller, job_id)
        for file_id in files:
            await self.file(caller, file_id)
        if job.read_ns is None or job.failed_ns is not None or job.cancel_ns is not None:
            raise InvalidRequest(f"The batch {job_id} cannot grow now: it is {job.state.value}.")
        if not await self.store.begin_reading(job.no):
            raise InvalidRequest(f"The batch {job_id} takes other lines just now: try again shortly.")
        try:
            # As it is by now: others may have brought lines before.
            job = await self.shifts.fresh(job)
            grown = await self.shifts.reader(job).grow(job, files)
            opened = await self.shifts.again(job)
            await self.shifts.change(opened, ended_ns=None, **grown)
        finally:
            await self.store.end_reading(job.no)

    async def retry(self, caller: Caller, job_id: str, codes: Sequence[str] | None) -> int:
        """Let failed lines be asked again, those with these error codes or all; gives how many.

        Raises:
            NoSuchBatch: the caller has none of this id.
            InvalidRequest: it is just being ended, and its lines with it.
        """
        job = await self._found(caller, job_id)
        if job.ended_ns is None and (job.cancel_ns is not None or job.expired_ns is not None):
            raise InvalidRequest(f"The batch {job_id} is being ended: try again when all its lines have.")
        if job.read_ns is None:
            return 0
        deadline_ns = self._clock.wall_ns() + job.window_s * 1_000_000_000
        count = await self.store.retry(job.no, codes, deadline_ns=deadline_ns)
        if count:
            await self.shifts.go_on(await self.shifts.fresh(job))
        return count

    async def file(self, caller: Caller, file_id: str) -> StoredFile:
        """Give a caller's file.

        Raises:
            NoSuchBatch: it has none of this id.
        """
        found = await self.store.file(caller.partition, file_id)
        if found is None:
            raise NoSuchBatch(f"There is no file {file_id[:100]!r} here.")
        return found

    async def erase(self, tenant: str) -> Erased:
        """End all batches of a tenant at once, and delete them with their files; gives how many these were.

        Raises:
            StorageUnavailable: not all of them are gone.
        """
        await self.shifts.erase(tenant)
        return await self.store.erase(tenant)

    async def _found(self, caller: Caller, job_id: str) -> Job:
        job = await self.store.job(job_id)
        if job is None or job.tenant != caller.partition:
            raise NoSuchBatch(f"There is no batch {job_id[:100]!r} here.")
        return job
