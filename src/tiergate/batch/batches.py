"""All batches of a house: what callers ask for, and one task for each job that is open."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from msgspec.structs import replace

from tiergate.batch.asking import LineAsks
from tiergate.batch.estimating import Estimator
from tiergate.batch.input import InputReader
from tiergate.batch.ports import JobStore
from tiergate.batch.records import Finished, Halt, Job, JobState, Pause, StoredFile
from tiergate.batch.runner import Progress, Runner
from tiergate.core import (
    CallEnded,
    Caller,
    Clock,
    DataClass,
    Emit,
    Event,
    InvalidRequest,
    Notice,
    StorageUnavailable,
    TiergateError,
    new_id,
)
from tiergate.ledger import Book, Ceiling, Journal, LineState, Scope
from tiergate.wire import BATCH_URLS

CONCURRENCY: Final = 100
"""Lines asked at one time at most, where nobody says how many."""
CONCURRENCY_MAX: Final = 10_000
WINDOW_S: Final = 86_400
WINDOW_S_MAX: Final = 30 * 86_400
_TRY_AGAIN_S: Final = 5.0


class NoSuchBatch(TiergateError):
    """There is no batch, or no file, of this id here."""

    code = "not_found"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a batch is to be. `budget_nanos`: None: no ceiling of its own."""

    input_file: str
    more_files: tuple[str, ...] = ()
    """Whose lines follow those of the first one."""
    endpoint: str
    model: str | None = None
    data_class: DataClass = DataClass.ANY
    tag: str | None = None
    budget_nanos: int | None = None
    concurrency: int = CONCURRENCY
    is_strict: bool = False
    by_prefix: bool = False
    window_s: int = WINDOW_S
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A job as it is now. Amounts are nano-dollars; `held_nanos` None: without a budget nobody counts it."""

    job: Job
    errors: Mapping[str, int]
    spent_nanos: int
    held_nanos: int | None
    progress: Progress | None
    """None: nobody works on it now."""


@dataclass(slots=True)
class _Open:
    """A job that has something left to do."""

    job: Job
    spent_nanos: int = 0
    runner: Runner | None = None
    task: "asyncio.Task[None] | None" = None
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    since: float | None = None
    """When the present run began."""
    kept: int = 0
    """So many are about to give it more to do; it does not end before they have."""
    is_erased: bool = False


class Batches:
    """Takes batches and works them. `open` goes on with those of before, `aclose` leaves them for the next.

    Args:
        store: keeps them.
        asks: how lines are asked.
        estimator: tells what a batch will cost.
        book, journal: money.
        on_ceilings: told when jobs that have budgets came, changed or went.
        clock, randomness, emit: time, ids, and who hears of what happens.
        at_once: so many are worked at one time; others wait for their turn.
    """

    def __init__(
        self,
        store: JobStore,
        asks: LineAsks,
        estimator: Estimator,
        *,
        book: Book,
        journal: Journal,
        on_ceilings: Callable[[], None],
        clock: Clock,
        randomness: Callable[[int], bytes],
        emit: Emit,
        at_once: int = 4,
    ) -> None:
        self.store = store
        self.estimator = estimator
        self._asks = asks
        self._book = book
        self._journal = journal
        self._on_ceilings = on_ceilings
        self._clock = clock
        self._randomness = randomness
        self._emit = emit
        self._open: dict[str, _Open] = {}
        self.ended: dict[str, int] = {}
        """Lines that came to their end here, by how they ended."""
        self._at_once = at_once
        self._at_work = 0
        self._turn = asyncio.Event()
        self._is_closing = False

    # Its own life.

    async def open(self) -> None:
        """Go on with what is open; whoever worked it before is dead.

        Raises:
            StorageUnavailable: jobs or the ledger cannot be read.
        """
        for job in await self.store.open_jobs():
            await self._take_over(job)
        self._on_ceilings()
        for opened in self._open.values():
            self._start(opened)

    async def _take_over(self, job: Job) -> None:
        if job.read_ns is None:
            self._open[job.id] = _Open(job)
            return
        marked = {(one.n, one.call_id): one for one in await self.store.recover(job.no)}
        for lapsed in await self._journal.lapsed_lines(job.id):
            done = marked.get((lapsed.line, lapsed.call_id))
            if done is not None and done.attempt == lapsed.n and done.state is LineState.DONE:
                # Its answer is here, and with it what it cost: only the settlement was lost.
                await self._book.resolve(lapsed.call_id, lapsed.n, done.cash_nanos)
            else:
                self._asks.resent_of[job.id, lapsed.line] = lapsed.call_id
        ((_, spent, _),) = await self._journal.spent_of_jobs([job.id])
        found = await self.store.job(job.id)
        assert found is not None
        self._open[job.id] = _Open(found, spent)

    def _start(self, opened: _Open) -> None:
        opened.task = asyncio.create_task(self._live(opened))

    async def aclose(self, drain_s: float = 0.0) -> None:
        """Ask nothing more, wait at most so long for what is asked, and leave the rest for the next start."""
        self._is_closing = True
        self._turn.set()
        tasks = []
        for opened in self._open.values():
            opened.wake.set()
            if opened.runner is not None:
                opened.runner.call_off()
            if opened.task is not None:
                tasks.append(opened.task)
        if not tasks:
            return
        await asyncio.wait(tasks, timeout=drain_s)
        for opened in self._open.values():
            if opened.runner is not None:
                opened.runner.break_off()
        _, late = await asyncio.wait(tasks, timeout=5.0)
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def ceilings(self) -> list[Ceiling]:
        """Give the ceilings of open jobs that have a budget."""
        return [
            Ceiling(scope=Scope.JOB, name=one.job.id, amount_nanos=one.job.budget_nanos)
            for one in self._open.values()
            if one.job.budget_nanos is not None
        ]

    def hear(self, event: Event) -> None:
        """Take what a call of a job has cost, whichever way it ended."""
        if isinstance(event, CallEnded) and event.job is not None:
            opened = self._open.get(event.job)
            if opened is not None:
                opened.spent_nanos += event.cash_nanos or 0

    # What callers ask for.

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
        job = await self.store.add(
            Job(
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
            ),
            files,
        )
        opened = self._open[job.id] = _Open(job)
        self._on_ceilings()
        self._start(opened)
        return job

    async def view(self, caller: Caller, job_id: str) -> View:
        """Give a batch as it is now.

        Raises:
            NoSuchBatch: the caller has none of this id.
        """
        job = await self._found(caller, job_id)
        opened = self._open.get(job_id)
        if opened is None:
            ((_, spent, _),) = await self._journal.spent_of_jobs([job_id])
            progress = None
        else:
            spent = opened.spent_nanos
            progress = None if opened.runner is None else opened.runner.progress()
        return View(
            job=self._timed(job, opened),
            errors=await self.store.errors(job.no) if job.failed or job.cancelled else {},
            spent_nanos=spent,
            held_nanos=await self._held_nanos(job),
            progress=progress,
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
        opened = self._open.get(job_id)
        if opened is None:
            raise InvalidRequest(f"The batch {job_id} has ended ({job.state.value}).")
        if job.cancel_ns is None:
            await self._change(opened, cancel_ns=self._clock.wall_ns(), pause=None)

    async def change(
        self, caller: Caller, job_id: str, *, budget_nanos: int | None = None, concurrency: int | None = None
    ) -> None:
        """Give a batch that has not ended another budget or concurrency; one that stands still goes on.

        Raises:
            NoSuchBatch: the caller has none of this id.
        """
        await self._found(caller, job_id)
        opened = self._open.get(job_id)
        if opened is None:
            return
        await self._change(
            opened,
            budget_nanos=opened.job.budget_nanos if budget_nanos is None else budget_nanos,
            concurrency=concurrency or opened.job.concurrency,
            pause=None,
        )
        self._on_ceilings()

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
        async with self._kept_open(job) as opened:
            reader = self._reader(opened.job)
            await self._change(opened, ended_ns=None, **(await reader.grow(opened.job, files)))

    async def retry(self, caller: Caller, job_id: str, codes: Sequence[str] | None) -> int:
        """Let failed lines be asked again, those with these error codes or all; gives how many.

        Raises:
            NoSuchBatch: the caller has none of this id.
        """
        job = await self._found(caller, job_id)
        if job.read_ns is None:
            return 0
        count = await self.store.retry(job.no, codes)
        if count:
            async with self._kept_open(job) as opened:
                opened.job = await self._fresh(opened.job)
                await self._change(opened, ended_ns=None, cancel_ns=None, expired_ns=None, pause=None)
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

    def use(self, *, at_once: int) -> None:
        """Take another number of batches that are worked at one time; those that are, go on."""
        self._at_once = at_once
        self._turn.set()

    async def erase(self, tenant: str) -> int:
        """End all batches of a tenant at once, and delete them with their files; gives how many these were.

        Raises:
            StorageUnavailable: not all of them are gone.
        """
        opened = [one for one in self._open.values() if one.job.tenant == tenant]
        for one in opened:
            one.is_erased = True
            one.wake.set()
            if one.runner is not None:
                one.runner.break_off()
        await asyncio.gather(*(one.task for one in opened if one.task is not None), return_exceptions=True)
        for one in opened:
            self._open.pop(one.job.id, None)
        self._on_ceilings()
        return await self.store.erase(tenant)

    def at_work(self) -> Mapping[str, int]:
        """Count the batches that have something left to do, by what they are doing."""
        found: dict[str, int] = {}
        for opened in self._open.values():
            found[opened.job.state.value] = found.get(opened.job.state.value, 0) + 1
        return found

    def asking(self) -> int:
        """Count the lines that are asked now."""
        runners = [opened.runner for opened in self._open.values() if opened.runner is not None]
        return sum(runner.progress().in_flight for runner in runners)

    # Inside.

    async def _found(self, caller: Caller, job_id: str) -> Job:
        opened = self._open.get(job_id)
        job = await self.store.job(job_id)
        if job is None or job.tenant != caller.partition:
            raise NoSuchBatch(f"There is no batch {job_id[:100]!r} here.")
        if opened is not None:
            opened.job = _counted(opened.job, job)
            return opened.job
        return job

    async def _fresh(self, job: Job) -> Job:
        found = await self.store.job(job.id)
        return job if found is None else _counted(job, found)

    async def _held_nanos(self, job: Job) -> int | None:
        if job.budget_nanos is None or job.id not in self._open:
            return None
        for balance in await self._book.balances(self._clock.wall_ns()):
            if balance.ceiling.scope is Scope.JOB and balance.ceiling.name == job.id:
                return balance.held_nanos
        return None

    @asynccontextmanager
    async def _kept_open(self, job: Job) -> AsyncIterator[_Open]:
        """Give a job as an open one that ends no sooner than the context does.

        One that had ended is worked again from then on, and its time begins anew.
        """
        opened = self._open.get(job.id)
        while opened is not None and opened.task is not None and not opened.job.is_open:
            # It is just ending.
            await asyncio.wait([opened.task])
            opened = self._open.get(job.id)
        if opened is None:
            ((_, spent, _),) = await self._journal.spent_of_jobs([job.id])
            deadline_ns = self._clock.wall_ns() + job.window_s * 1_000_000_000
            again = _Open(replace(job, ended_ns=None, deadline_ns=deadline_ns), spent)
            opened = self._open.setdefault(job.id, again)
        opened.kept += 1
        try:
            yield opened
        finally:
            opened.kept -= 1
            opened.wake.set()
            if opened.task is None:
                self._on_ceilings()
                self._start(opened)

    async def _change(self, opened: _Open, **what: object) -> None:
        """Change what is decided about a job, write it down, and let its runner know."""
        opened.job = replace(opened.job, **what)
        await self.store.save(opened.job)
        if opened.runner is not None:
            opened.runner.change(opened.job)
        opened.wake.set()
        if opened.task is not None and opened.task.done() and opened.job.is_open:
            # A bug had stopped it.
            self._start(opened)

    def _timed(self, job: Job, opened: _Open | None) -> Job:
        """Give a job with the time of the run that is going on."""
        if opened is None or opened.since is None:
            return job
        return replace(job, worked_ms=job.worked_ms + int((self._clock.monotonic() - opened.since) * 1e3))

    def _reader(self, job: Job) -> InputReader:
        def unpriced(models: set[str]) -> str | None:
            caller = self._asks.caller_of(job.key)
            return None if caller is None else self.estimator.unpriced(caller, models)

        return InputReader(self.store, self._asks, self._clock, unpriced)

    async def _live(self, opened: _Open) -> None:
        """Work a job until it ends, or the house closes."""
        try:
            while opened.job.is_open and not self._is_closing and not opened.is_erased:
                await self._step(opened)
        except Exception as error:  # noqa: BLE001 - the border of a task: a bug stops one job, and is told
            message = f"The batch {opened.job.id} was stopped by an error ({type(error).__name__}: {error})."
            self._emit(Notice(word="batch_failed", message=message, severe=True))
            pause = Pause(halt=Halt.STOPPED, word="internal_error", message=message)
            with suppress(StorageUnavailable):
                await self._change(opened, pause=pause)
        else:
            if not opened.job.is_open:
                del self._open[opened.job.id]
                self._on_ceilings()

    async def _step(self, opened: _Open) -> None:
        opened.wake.clear()
        pause = opened.job.pause
        if pause is not None and opened.job.state in (JobState.PARKED, JobState.STOPPED):
            if await self._is_over(opened, pause):
                await self._change(opened, pause=None)
            return
        if self._at_work >= self._at_once:
            # Those that came before are worked first.
            self._turn.clear()
            await self._turn.wait()
            return
        self._at_work += 1
        try:
            await self._work(opened)
        except StorageUnavailable as error:
            self._emit(Notice(word="batch_storage", message=str(error), severe=True))
            await self._rest(opened, _TRY_AGAIN_S)
        finally:
            self._at_work -= 1
            self._turn.set()

    async def _is_over(self, opened: _Open, pause: Pause) -> bool:
        """Wait for the end of a pause, a change, or the job's own end; True: the pause is over."""
        now_ns = self._clock.wall_ns()
        if now_ns >= opened.job.deadline_ns:
            await self._change(opened, expired_ns=now_ns, pause=None)
            return False
        until_ns = opened.job.deadline_ns
        if pause.until_ns is not None:
            until_ns = min(until_ns, pause.until_ns)
        await self._rest(opened, (until_ns - now_ns) / 1e9)
        return pause.until_ns is not None and self._clock.wall_ns() >= pause.until_ns

    async def _rest(self, opened: _Open, wait_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, wait_s)):
                await opened.wake.wait()

    async def _work(self, opened: _Open) -> None:
        if self._is_closing or not opened.job.is_open:
            return
        if opened.job.read_ns is None:
            await self._change(opened, **(await self._reader(opened.job).read(opened.job)))
            if opened.job.failed_ns is not None:
                return
        job = opened.job = await self._fresh(opened.job)
        opened.since = self._clock.monotonic()
        opened.runner = Runner(
            job,
            store=self.store,
            asks=self._asks,
            on_pause=lambda pause: self._change(opened, pause=pause),
            on_finished=self._count,
            clock=self._clock,
        )
        left_s = max(0.0, (job.deadline_ns - self._clock.wall_ns()) / 1e9)
        expiry = asyncio.get_running_loop().call_later(left_s, self._expire, opened)
        try:
            is_done = await opened.runner.run()
        finally:
            expiry.cancel()
            opened.runner = None
            opened.job = self._timed(await self._fresh(opened.job), opened)
            opened.since = None
            await self.store.save(opened.job)
        if not is_done or opened.job.left > 0:
            return
        if opened.kept:
            await self._rest(opened, _TRY_AGAIN_S)
        else:
            await self._change(opened, ended_ns=self._clock.wall_ns(), pause=None)

    def _count(self, finished: Finished) -> None:
        """Count an end that is in its spool."""
        state = finished.state.value
        self.ended[state] = self.ended.get(state, 0) + 1

    def _expire(self, opened: _Open) -> None:
        opened.job = replace(opened.job, expired_ns=self._clock.wall_ns())
        if opened.runner is not None:
            opened.runner.change(opened.job)


def _counted(job: Job, found: Job) -> Job:
    """Give a job as it was decided about, with what is counted as it is in the store."""
    return replace(
        found,
        **{
            name: getattr(job, name)
            for name in (
                *("sha256", "lines", "budget_nanos", "concurrency", "deadline_ns", "read_ns", "cancel_ns"),
                *("expired_ns", "failed_ns", "ended_ns", "problems", "pause", "worked_ms"),
            )
        },
    )
