"""Works the batches of a house: one task for each that is open, some of them at one time."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

from msgspec.structs import replace

from tiergate.batch.asking import LineAsks
from tiergate.batch.estimating import Estimator
from tiergate.batch.input import InputReader
from tiergate.batch.openjob import OpenJob
from tiergate.batch.ports import JobStore, MakeEngine
from tiergate.batch.records import Finished, Halt, Job, JobState, Pause, Progress
from tiergate.core import (
    CallEnded,
    Clock,
    Emit,
    Event,
    Notice,
    StorageUnavailable,
    StoreOwned,
    place_of,
    usd_text,
)
from tiergate.ledger import Book, Ceiling, Journal, LineState, Scope

_TRY_AGAIN_S: Final = 5.0
_LET_GO_S: Final = 5.0
_COUNTED_EACH_S: Final = 5.0
_FOLLOW_EACH_S: Final = 2.0
_AGAIN_S: Final = 1.0
"""When to look again at a job whose last lines others have, or whose input others read."""
_NAP_MAX_S: Final = 30.0


class Shifts:
    """All jobs that are open. `open` goes on with those of before, `aclose` leaves them for the next start.

    Args:
        store: keeps them.
        asks: how lines are asked.
        make_engine: gives what works a job.
        estimator: knows prices.
        book: money, and
        journal: its records.
        on_ceilings: told when jobs that have budgets came, changed or went.
        clock: time.
        emit: hears of what happens.
        at_once: so many are worked at one time; others wait for their turn.
    """

    def __init__(
        self,
        store: JobStore,
        asks: LineAsks,
        make_engine: MakeEngine,
        *,
        estimator: Estimator,
        book: Book,
        journal: Journal,
        on_ceilings: Callable[[], None],
        clock: Clock,
        emit: Emit,
        at_once: int = 4,
    ) -> None:
        self._store = store
        self._asks = asks
        self._make_engine = make_engine
        self._estimator = estimator
        self._book = book
        self._journal = journal
        self.on_ceilings = on_ceilings
        self._clock = clock
        self._emit = emit
        self._open: dict[str, OpenJob] = {}
        self.ended: dict[str, int] = {}
        """Lines that came to their end here, by how they ended."""
        self._at_once = at_once
        self._at_work = 0
        self._turn = asyncio.Event()
        self._is_closing = False

    # Their life.

    async def open(self) -> None:
        """Go on with what is open; whoever worked it before is dead, or works it, too.

        Raises:
            StorageUnavailable: jobs or the ledger cannot be read.
        """
        for job in await self._store.open_jobs():
            await self._take_on(job)

    async def _take_on(self, job: Job) -> OpenJob:
        """Take a job on that others have left behind, or work."""
        await self._recover(job)
        await self._asks.look_back(job)
        spent_nanos = await self.spent_nanos(job.id)
        job = await self.fresh(job)
        # Somebody may have asked for it meanwhile.
        return self._open.get(job.id) or self.begin(job, spent_nanos)

    async def _recover(self, job: Job) -> None:
        """Take over what owners that died have left of a job."""
        marked = {(one.n, one.call_id): one for one in await self._store.recover(job.no)}
        if not marked:
            return
        for lapsed in await self._journal.lapsed_lines(job.id):
            done = marked.get((lapsed.line, lapsed.call_id))
            if done is not None and done.attempt == lapsed.n and done.state is LineState.DONE:
                # Its answer is here, and with it what it cost: only the settlement was lost.
                await self._book.resolve(lapsed.call_id, lapsed.n, done.cash_nanos)

    async def follow(self) -> None:
        """Follow what others do with the jobs of a shared store, until it is cancelled."""
        while True:
            await asyncio.sleep(_FOLLOW_EACH_S)
            try:
                await self.look_around()
            except StorageUnavailable:
                continue  # whoever works tells of it
            except StoreOwned:
                return

    async def look_around(self) -> None:
        """Take on jobs that others began, take what others decided, and take over from those that died.

        Raises:
            StorageUnavailable: jobs or the ledger cannot be read.
            StoreOwned: this owner was declared dead.
        """
        found = {job.id: job for job in await self._store.open_jobs()}
        abandoned = await self._store.abandoned()
        for opened in list(self._open.values()):
            job = found.pop(opened.job.id, None)
            if job is None or job.decided != opened.job.decided:
                # As it is by now: it may have been decided here, and a moment ago.
                self._hear_of(opened, await self._store.job(opened.job.id))
            if opened.is_erased or not opened.job.is_open:
                continue
            if opened.job.no in abandoned:
                await self._recover(opened.job)
                opened.wake.set()
            if opened.engine is not None:
                opened.crew = await self._store.join(opened.job.no)
                self._tell_engine(opened)
        for job in found.values():
            await self._take_on(job)

    def _hear_of(self, opened: OpenJob, job: Job | None) -> None:
        """Take a job as others have left it; None: it is erased."""
        if job is None:
            opened.is_erased = True
            self._open.pop(opened.job.id, None)
        elif job.decided == opened.job.decided:
            return
        else:
            opened.job = replace(job, expired_ns=job.expired_ns or opened.job.expired_ns)
        opened.wake.set()
        self._turn.set()
        self.on_ceilings()
        if opened.engine is not None and opened.is_erased:
            opened.engine.break_off()
        elif opened.engine is not None and (opened.job.pause is not None or not opened.job.is_open):
            opened.engine.call_off()

    def _tell_engine(self, opened: OpenJob) -> None:
        """Let whatever works a job know how it is now, and this owner's share of it."""
        if opened.engine is None:
            return
        share = opened.crew.share(opened.job.concurrency)
        if share:
            opened.engine.change(replace(opened.job, concurrency=share))
        else:
            opened.engine.call_off()
        if opened.crew.place != 0:
            opened.since = None
        elif opened.since is None:
            opened.since = self._clock.monotonic()

    def begin(self, job: Job, spent_nanos: int = 0) -> OpenJob:
        """Take a job on."""
        opened = self._open[job.id] = OpenJob(job, spent_nanos)
        self.on_ceilings()
        self._start(opened)
        return opened

    async def again(self, job: Job) -> OpenJob:
        """Give a job as an open one; its time begins anew where it had ended."""
        opened = await self.find(job)
        if opened is not None:
            return opened
        deadline_ns = self._clock.wall_ns() + job.window_s * 1_000_000_000
        changed = await self._store.change(job.no, {"ended_ns": None, "deadline_ns": deadline_ns})
        return self.begin(changed, await self.spent_nanos(job.id))

    def _start(self, opened: OpenJob) -> None:
        opened.task = asyncio.create_task(self._live(opened))

    async def aclose(self, drain_s: float = 0.0) -> None:
        """Ask nothing more, wait at most so long for what is asked, and leave the rest for the next start."""
        self._is_closing = True
        self._turn.set()
        await self._end(list(self._open.values()), drain_s)

    async def erase(self, tenant: str) -> None:
        """Let go of all jobs of a tenant, at once."""
        opened = [one for one in self._open.values() if one.job.tenant == tenant]
        for one in opened:
            one.is_erased = True
        self._turn.set()
        await self._end(opened, 0.0)
        for one in opened:
            self._open.pop(one.job.id, None)
        self.on_ceilings()

    async def _end(self, opened: Sequence[OpenJob], drain_s: float) -> None:
        for one in opened:
            one.wake.set()
            if one.engine is not None:
                one.engine.call_off()
        tasks = [one.task for one in opened if one.task is not None]
        if not tasks:
            return
        await asyncio.wait(tasks, timeout=drain_s)
        for one in opened:
            if one.engine is not None:
                one.engine.break_off()
        _, late = await asyncio.wait(tasks, timeout=_LET_GO_S)
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # What is asked of them.

    def get(self, job_id: str) -> OpenJob | None:
        """Give a job that is open here; None: it is not, or others began it just now."""
        return self._open.get(job_id)

    async def find(self, job: Job) -> OpenJob | None:
        """Give a job that is open, be it that others began it just now; None: it is not."""
        opened = self._open.get(job.id)
        if opened is None and job.is_open and self._store.is_shared:
            return await self._take_on(job)
        return opened

    async def change(self, opened: OpenJob, **what: Any) -> None:
        """Change what is decided about a job, write it down, and let its engine know."""
        job = await self._store.change(opened.job.no, what)
        if "expired_ns" not in what:
            # Its time may be over, which is written down when what is asked has ended.
            job = replace(job, expired_ns=job.expired_ns or opened.job.expired_ns)
        opened.job = job
        self._tell_engine(opened)
        opened.wake.set()
        if opened.job.is_open and opened.is_over:
            # It had ended when that was decided, and nobody works it any more.
            self.begin(opened.job, opened.spent_nanos)

    def use(self, *, at_once: int) -> None:
        """Take another number of batches that are worked at one time; those that are, go on."""
        self._at_once = at_once
        self._turn.set()

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

    async def spent_nanos(self, job_id: str) -> int:
        """Give what the ledger says that a job has cost.

        Raises:
            StorageUnavailable: it cannot be read.
        """
        ((_, spent, _),) = await self._journal.spent_of_jobs([job_id])
        return spent

    async def spent_of(self, job: Job) -> int:
        """Give what a job has cost by now.

        Raises:
            StorageUnavailable: it cannot be read.
        """
        opened = self._open.get(job.id)
        # Of calls of other replicas nobody tells us but the ledger.
        if opened is None or self._store.is_shared:
            return await self.spent_nanos(job.id)
        return opened.spent_nanos

    async def progress(self, job: Job) -> Progress | None:
        """Give what is done with a job now, by all that work it; None: nobody does."""
        opened = self._open.get(job.id)
        own = None if opened is None or opened.engine is None else opened.engine.progress()
        if not self._store.is_shared:
            return own
        crew = await self._store.crew(job.no)
        if not crew.size or crew == (1, 0, crew.asking):
            return own
        again = {} if own is None else own.again
        return Progress(
            in_flight=crew.asking, limit=job.concurrency, why=f"shared by {crew.size} replicas", again=again
        )

    async def held_nanos(self, job: Job) -> int | None:
        """Give what is held of a job's budget; None: it has none, or is not open."""
        if job.budget_nanos is None or job.id not in self._open:
            return None
        for balance in await self._book.balances(self._clock.wall_ns()):
            if balance.ceiling.scope is Scope.JOB and balance.ceiling.name == job.id:
                return balance.held_nanos
        return None

    async def fresh(self, job: Job) -> Job:
        """Give a job as it is in the store."""
        return await self._store.job(job.id) or job

    def timed(self, job: Job) -> Job:
        """Give a job with the time of the run that is going on."""
        opened = self._open.get(job.id)
        if opened is None or opened.since is None:
            return job
        return replace(job, worked_ms=job.worked_ms + self._ms_since(opened.since))

    def reader(self, job: Job) -> InputReader:
        """Give what reads the input of a job."""

        def unpriced(models: set[str]) -> str | None:
            caller = self._asks.caller_of(job.key)
            return None if caller is None else self._estimator.unpriced(caller, models)

        return InputReader(self._store, self._asks, self._clock, unpriced)

    def at_work(self) -> Mapping[str, int]:
        """Count the jobs that have something left to do, by what they are doing."""
        found: dict[str, int] = {}
        for opened in self._open.values():
            found[opened.job.state.value] = found.get(opened.job.state.value, 0) + 1
        return found

    def asking(self) -> int:
        """Count the lines that are asked now."""
        engines = [opened.engine for opened in self._open.values() if opened.engine is not None]
        return sum(engine.progress().in_flight for engine in engines)

    # The task of each.

    async def _live(self, opened: OpenJob) -> None:
        """Work a job until it ends, or the house closes."""
        while opened.job.is_open and not self._is_closing and not opened.is_erased:
            try:
                await self._step(opened)
            except StoreOwned as error:
                # Others have taken over. What is on its way here comes too late.
                self._tell(opened.job, "batch_lost", str(error), severe=True)
                self._open.pop(opened.job.id, None)
                return
            except Exception as error:  # noqa: BLE001 - the border of a task: a bug stops one job, and is told
                await self._failed(opened, error)
        if not opened.job.is_open:
            opened.is_over = True
            self._open.pop(opened.job.id, None)
            self.on_ceilings()

    async def _failed(self, opened: OpenJob, error: Exception) -> None:
        """Stop a job that a bug is in the way of, until somebody lets it go on."""
        message = f"The batch {opened.job.id} was stopped by an error ({place_of(error)})."
        self._emit(Notice(word="batch_failed", message=message, severe=True))
        try:
            pause = Pause(halt=Halt.STOPPED, word="internal_error", message=message)
            await self.change(opened, pause=pause)
        except (StorageUnavailable, StoreOwned):
            await self._rest(opened, _TRY_AGAIN_S)

    async def _step(self, opened: OpenJob) -> None:
        opened.wake.clear()
        if opened.nap_s:
            nap_s, opened.nap_s = opened.nap_s, 0.0
            await self._rest(opened, nap_s)
            return
        pause = opened.job.pause
        if pause is not None and opened.job.state in (JobState.PARKED, JobState.STOPPED):
            if await self._is_over(opened, pause):
                await self.change(opened, pause=None)
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

    async def _is_over(self, opened: OpenJob, pause: Pause) -> bool:
        """Wait for the end of a pause, a change, or the job's own end; True: the pause is over."""
        now_ns = self._clock.wall_ns()
        if now_ns >= opened.job.deadline_ns:
            await self.change(opened, expired_ns=now_ns, pause=None)
            return False
        until_ns = opened.job.deadline_ns
        if pause.until_ns is not None:
            until_ns = min(until_ns, pause.until_ns)
        await self._rest(opened, (until_ns - now_ns) / 1e9)
        return pause.until_ns is not None and self._clock.wall_ns() >= pause.until_ns

    async def _rest(self, opened: OpenJob, wait_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, wait_s)):
                await opened.wake.wait()

    async def _work(self, opened: OpenJob) -> None:
        job = opened.job = await self.fresh(opened.job)
        if job.read_ns is None and not await self._read(opened):
            opened.nap_s = _AGAIN_S
            return
        job = opened.job
        if not job.is_open:
            return
        opened.crew = await self._store.join(job.no)
        share = opened.crew.share(job.concurrency)
        if not share:
            await self._store.leave(job.no)
            opened.nap_s = _TRY_AGAIN_S
            return
        opened.since = self._clock.monotonic() if opened.crew.place == 0 else None
        # Others may still ask as many as before this one came.
        share = min(share, max(1, job.concurrency - opened.crew.asking))
        opened.engine = self._make_engine(
            replace(job, concurrency=share),
            on_pause=partial(self._paused, opened),
            on_finished=self._count,
            weather=opened.weather,
        )
        left_s = max(0.0, (job.deadline_ns - self._clock.wall_ns()) / 1e9)
        expiry = asyncio.get_running_loop().call_later(left_s, self._expire, opened)
        counting = asyncio.create_task(self._count_time(opened))
        try:
            is_done = await opened.engine.run()
        finally:
            expiry.cancel()
            counting.cancel()
            opened.engine = None
            since, opened.since = opened.since, None
            if since is not None:
                await self._store.worked(job.no, self._ms_since(since))
        if opened.job.expired_ns is not None:
            await self.change(opened, expired_ns=opened.job.expired_ns)
        opened.job = await self.fresh(opened.job)
        if is_done:
            await self._end_job(opened)

    async def _read(self, opened: OpenJob) -> bool:
        """Read the input of a job; False: somebody else does."""
        if not await self._store.begin_reading(opened.job.no):
            return False
        try:
            opened.job = await self.fresh(opened.job)
            if opened.job.read_ns is not None:
                return True
            await self.change(opened, **(await self.reader(opened.job).read(opened.job)))
        finally:
            await self._store.end_reading(opened.job.no)
        if opened.job.failed_ns is not None:
            # Without the sentences: they may quote what stands in a line.
            codes = sorted({problem.code for problem in opened.job.problems})
            self._tell(opened.job, "batch_refused", f"refused: {', '.join(codes)}.")
        else:
            self._tell(opened.job, "batch_begun", f"{opened.job.lines:,} lines, key {opened.job.key}.")
        return True

    async def _end_job(self, opened: OpenJob) -> None:
        """End a job, unless somebody has let lines wait again in the meantime, or still has some."""
        ended = await self._store.end(opened.job.no, self._clock.wall_ns())
        if ended is not None:
            opened.job = ended
            spent_nanos = await self.spent_of(ended)
            self._tell(ended, "batch_ended", _ended_sentence(ended, spent_nanos))
        elif self._store.is_shared:
            opened.nap_s = _AGAIN_S

    async def _count_time(self, opened: OpenJob) -> None:
        """Write down now and then for how long a job is worked: a kill loses no more than that."""
        while True:
            await asyncio.sleep(_COUNTED_EACH_S)
            if opened.since is None:
                continue  # where several work it, one counts
            since, opened.since = opened.since, self._clock.monotonic()
            with suppress(StorageUnavailable):  # whoever needs it for more than this tells of it
                await self._store.worked(opened.job.no, self._ms_since(since))

    async def _paused(self, opened: OpenJob, pause: Pause | None) -> None:
        if pause is not None and await self._goes_on_elsewhere(opened, pause):
            return
        await self.change(opened, pause=pause)
        if pause is not None:
            is_stopped = pause.halt is Halt.STOPPED
            self._tell(opened.job, f"batch_{pause.halt.value}", pause.message, severe=is_stopped)

    async def _goes_on_elsewhere(self, opened: OpenJob, pause: Pause) -> bool:
        """Tell whether others go on with a job that stands still here; the last of them writes it down.

        What is refused for whoever asks is refused for all.
        """
        is_for_all = pause.halt is Halt.STOPPED and pause.word != "budget"
        if is_for_all or not self._store.is_shared:
            return False
        if not (await self._store.leave(opened.job.no)).size:
            return False
        until_ns = pause.until_ns or 0
        wait_s = (until_ns - self._clock.wall_ns()) / 1e9
        opened.nap_s = min(max(wait_s, _TRY_AGAIN_S), _NAP_MAX_S)
        return True

    def _tell(self, job: Job, word: str, sentence: str, *, severe: bool = False) -> None:
        self._emit(Notice(word=word, message=f"{job.id}: {sentence}", severe=severe))

    def _count(self, finished: Finished) -> None:
        """Count an end that is in its spool."""
        state = finished.state.value
        self.ended[state] = self.ended.get(state, 0) + 1

    def _expire(self, opened: OpenJob) -> None:
        opened.job = replace(opened.job, expired_ns=self._clock.wall_ns())
        self._tell_engine(opened)

    def _ms_since(self, since: float) -> int:
        return int((self._clock.monotonic() - since) * 1e3)


def _ended_sentence(job: Job, spent_nanos: int) -> str:
    return (
        f"{job.state.value}; {job.done:,} lines answered, {job.failed:,} failed, {job.cancelled:,} not "
        f"asked; ${usd_text(spent_nanos)} spent."
    )
