"""Works the batches of a house: one shift for each that is open, some of them at one time."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from tiergate.batch.asking import LineAsks
from tiergate.batch.estimating import Estimator
from tiergate.batch.input import InputReader
from tiergate.batch.ports import JobStore, MakeEngine
from tiergate.batch.records import Finished, Job, Progress
from tiergate.batch.shift import Hands, Shift, Turns
from tiergate.core import CallEnded, Clock, Emit, Event, StorageUnavailable, StoreOwned
from tiergate.ledger import Book, Ceiling, Journal, LineState, Scope

_LET_GO_S: Final = 5.0
_FOLLOW_EACH_S: Final = 2.0


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
        is_idle: none is worked, as by a process that ends in a moment: whatever it asked would be lost.
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
        is_idle: bool = False,
    ) -> None:
        self._store = store
        self._asks = asks
        self._estimator = estimator
        self._book = book
        self._journal = journal
        self.on_ceilings = on_ceilings
        self._clock = clock
        self._open: dict[str, Shift] = {}
        self.ended: dict[str, int] = {}
        """Lines that came to their end here, by how they ended."""
        self._is_closing = False
        self._turns = Turns(at_once)
        self._hands = Hands(
            is_idle=is_idle,
            store=store,
            make_engine=make_engine,
            reader=self.reader,
            turns=self._turns,
            clock=clock,
            emit=emit,
            count=self._count,
            spent_of=self.spent_of,
        )

    # Their life.

    async def open(self) -> None:
        """Go on with what is open; whoever worked it before is dead, or works it, too.

        Raises:
            StorageUnavailable: jobs or the ledger cannot be read.
        """
        for job in await self._store.open_jobs():
            await self._take_on(job)

    async def _take_on(self, job: Job) -> Shift:
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

    def begin(self, job: Job, spent_nanos: int = 0) -> Shift:
        """Take a job on."""
        known = self._open.get(job.id)
        if known is not None and not known.is_over:
            return known  # somebody else was faster
        shift = self._open[job.id] = Shift(job, self._hands, spent_nanos=spent_nanos)
        self.on_ceilings()
        if self._is_closing:
            shift.let_go()
        shift.start(self._over)
        return shift

    def _over(self, shift: Shift) -> None:
        if self._open.get(shift.job.id) is shift:
            del self._open[shift.job.id]
            self.on_ceilings()

    async def go_on(self, job: Job) -> None:
        """Go on with a job that is open again, as it is in the store."""
        shift = self._open.get(job.id)
        if shift is None or shift.is_over:
            self.begin(job, await self.spent_nanos(job.id))
        else:
            shift.hear_of(job)
            await shift.meet()

    async def again(self, job: Job) -> Shift:
        """Give a job as an open one; its time begins anew where it had ended."""
        shift = await self.find(job)
        if shift is not None:
            return shift
        deadline_ns = self._clock.wall_ns() + job.window_s * 1_000_000_000
        changed = await self._store.change(job.no, {"ended_ns": None, "deadline_ns": deadline_ns})
        return self.begin(changed, await self.spent_nanos(job.id))

    async def aclose(self, drain_s: float = 0.0) -> None:
        """Ask nothing more, wait at most so long for what is asked, and leave the rest for the next start."""
        self._is_closing = True
        await self._end(list(self._open.values()), drain_s)

    async def erase(self, tenant: str) -> None:
        """Let go of all jobs of a tenant, at once."""
        await self._end([one for one in self._open.values() if one.job.tenant == tenant], 0.0)

    async def _end(self, shifts: Sequence[Shift], drain_s: float) -> None:
        for shift in shifts:
            shift.let_go()
        self._turns.stir()
        tasks = [shift.task for shift in shifts if shift.task is not None]
        if not tasks:
            return
        await asyncio.wait(tasks, timeout=drain_s)
        for shift in shifts:
            shift.break_off()
        _, late = await asyncio.wait(tasks, timeout=_LET_GO_S)
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for shift in shifts:
            self._over(shift)

    # Beside other owners.

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
        for shift in list(self._open.values()):
            job = found.pop(shift.job.id, None)
            if job is None or job.decided != shift.job.decided:
                await self._hear_of(shift)
            if shift.job.is_open and shift.job.no in abandoned:
                await self._recover(shift.job)
                shift.stir()
            if shift.job.is_open and self._open.get(shift.job.id) is shift:
                await shift.meet()
        for job in found.values():
            await self._take_on(job)

    async def _hear_of(self, shift: Shift) -> None:
        # As it is by now: it may have been decided here, and a moment ago.
        job = await self._store.job(shift.job.id)
        if job is not None and job.decided == shift.job.decided:
            return
        shift.hear_of(job)
        self._turns.stir()
        if job is None:
            self._over(shift)
        else:
            self.on_ceilings()

    async def find(self, job: Job) -> Shift | None:
        """Give a job that is open, be it that others began it just now; None: it is not."""
        shift = self._open.get(job.id)
        if not self._store.is_shared:
            return shift
        if not job.is_open:
            return None  # whatever is known here by now
        return shift or await self._take_on(job)

    # What is asked of them.

    async def change(self, shift: Shift, **what: Any) -> None:
        """Change what is decided about a job, write it down, and let its engine know."""
        await shift.change(**what)
        if shift.job.is_open and shift.is_over:
            # It had ended when that was decided, and nobody works it any more.
            self.begin(shift.job, shift.spent_nanos)

    def use(self, *, at_once: int) -> None:
        """Take another number of batches that are worked at one time; those that are, go on."""
        self._turns.at_once = at_once
        self._turns.stir()

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
            shift = self._open.get(event.job)
            if shift is not None:
                shift.spent_nanos += event.cash_nanos or 0

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
        shift = self._open.get(job.id)
        # Of calls of other replicas nobody tells us but the ledger.
        if shift is None or self._store.is_shared:
            return await self.spent_nanos(job.id)
        return shift.spent_nanos

    async def progress(self, job: Job) -> Progress | None:
        """Give what is done with a job now, by all that work it; None: nobody does."""
        shift = self._open.get(job.id)
        own = None if shift is None or shift.engine is None else shift.engine.progress()
        if not self._store.is_shared:
            return own
        crew = await self._store.crew(job.no)
        if not crew.size or (crew.size == 1 and crew.place == 0):
            return own
        why = f"shared by {crew.size} replicas"
        again = {} if own is None else own.again
        return Progress(in_flight=crew.asking, limit=job.concurrency, why=why, again=again)

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
        shift = self._open.get(job.id)
        return job if shift is None else shift.timed(job)

    def reader(self, job: Job) -> InputReader:
        """Give what reads the input of a job."""

        def unpriced(models: set[str]) -> str | None:
            caller = self._asks.caller_of(job.key)
            return None if caller is None else self._estimator.unpriced(caller, models)

        return InputReader(self._store, self._asks, self._clock, unpriced)

    def at_work(self) -> Mapping[str, int]:
        """Count the jobs that have something left to do, by what they are doing."""
        found: dict[str, int] = {}
        for shift in self._open.values():
            found[shift.job.state.value] = found.get(shift.job.state.value, 0) + 1
        return found

    def asking(self) -> int:
        """Count the lines that are asked now."""
        engines = [shift.engine for shift in self._open.values() if shift.engine is not None]
        return sum(engine.progress().in_flight for engine in engines)

    def _count(self, finished: Finished) -> None:
        """Count an end that is in its spool."""
        state = finished.state.value
        self.ended[state] = self.ended.get(state, 0) + 1
