"""Works one batch that has something left to do: reads its input, runs its engine, rests, and ends it."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from msgspec.structs import replace

from tiergate.batch.input import InputReader
from tiergate.batch.ports import Engine, JobStore, MakeEngine
from tiergate.batch.records import Crew, Finished, Halt, Job, JobState, Pause
from tiergate.batch.weather import Weather
from tiergate.core import (
    Clock,
    Emit,
    Notice,
    StorageBroken,
    StorageUnavailable,
    StoreOwned,
    place_of,
    usd_text,
)

_TRY_AGAIN_S: Final = 5.0
_COUNTED_EACH_S: Final = 5.0
_AGAIN_S: Final = 1.0
"""When to look again at a job whose last lines others have, or whose input others read."""
_NAP_MAX_S: Final = 30.0
_BROKEN_FOR_S: Final = 60.0
"""After an error of the disk: whoever starts after that goes on at once."""
_KEYS_S: Final = 7.0
"""Within this what is made or revoked at another replica holds here."""
_ALONE: Final = Crew(1, 0, 0)


class Turns:
    """So many jobs are worked at one time; others wait for their turn, those that came before first."""

    def __init__(self, at_once: int) -> None:
        self.at_once = at_once
        self._taken = 0
        self._freed = asyncio.Event()

    def take(self) -> bool:
        """Take a turn; False: there is none now."""
        if self._taken >= self.at_once:
            self._freed.clear()
            return False
        self._taken += 1
        return True

    def give_back(self) -> None:
        """Let the next one have it."""
        self._taken -= 1
        self.stir()

    def stir(self) -> None:
        """Let all who wait look again."""
        self._freed.set()

    async def wait(self) -> None:
        """Wait until it is worth to look again."""
        await self._freed.wait()


@dataclass(frozen=True, slots=True, kw_only=True)
class Hands:
    """What a shift works with. Where `is_idle`, it works no job, but for the end of those that are ended."""

    is_idle: bool
    store: JobStore
    make_engine: MakeEngine
    reader: Callable[[Job], InputReader]
    """Gives what reads the input of a job."""
    turns: Turns
    clock: Clock
    emit: Emit
    count: Callable[[Finished], None]
    """Hears of each end that is in the spool."""
    spent_of: Callable[[Job], Awaitable[int]]
    """Gives what a job has cost."""


class Shift:
    """One job, and what works it here.

    Args:
        job: as it is in the store.
        hands: what it works with.
        spent_nanos: what it has cost by now.
    """

    def __init__(self, job: Job, hands: Hands, *, spent_nanos: int = 0) -> None:
        self.job = job
        self.spent_nanos = spent_nanos
        """By calls of this process and of all before it."""
        self.engine: Engine | None = None
        """What works it now."""
        self.task: asyncio.Task[None] | None = None
        self.is_over = False
        """It came to its end, and its task with it."""
        self._hands = hands
        self._store = hands.store
        self._clock = hands.clock
        self._wake = asyncio.Event()
        self._since: float | None = None
        """When the present run began, in monotonic seconds; None: there is none, or another owner counts."""
        self._crew = _ALONE
        """Who works it, as it was told last."""
        self._nap_s = 0.0
        """So long it rests before the next run: others have what is left to do."""
        self._weather = Weather()
        self._has_doubted_key = False
        self._broken: str | None = None
        """Why nothing is done here any more before the next start."""
        self._is_let_go = False
        self._is_erased = False

    # From outside.

    def start(self, on_over: "Callable[[Shift], None]") -> None:
        """Begin; `on_over` is told when it is over."""

        async def live() -> None:
            await self._live()
            on_over(self)

        self.task = asyncio.create_task(live())

    def let_go(self) -> None:
        """Begin no other run; the present one asks nothing more."""
        self._is_let_go = True
        self._wake.set()
        if self.engine is not None:
            self.engine.call_off()

    def break_off(self) -> None:
        """Wait no longer for what is asked."""
        if self.engine is not None:
            self.engine.break_off()

    async def change(self, **what: Any) -> None:
        """Change what is decided about the job, write it down, and let its engine know."""
        job = await self._store.change(self.job.no, what)
        if "expired_ns" not in what:
            # Its time may be over, which is written down when what is asked has ended.
            job = replace(job, expired_ns=job.expired_ns or self.job.expired_ns)
        self.job = job
        self._tell_engine()
        self._wake.set()

    def hear_of(self, job: Job | None) -> None:
        """Take the job as others have left it; None: it is erased."""
        if job is None:
            self._is_erased = True
            self.let_go()
            self.break_off()
            return
        self.job = replace(job, expired_ns=job.expired_ns or self.job.expired_ns)
        self._wake.set()
        if self.engine is not None and (job.pause is not None or not job.is_open):
            self.engine.call_off()

    async def meet(self) -> None:
        """See who else works the job by now, and take this owner's share of it.

        Raises:
            StorageUnavailable: not now.
            StoreOwned: this owner was declared dead.
        """
        if self.engine is not None:
            self._crew = await self._store.crew(self.job.no)
            self._tell_engine()

    def stir(self) -> None:
        """Look again at once: others have left lines."""
        self._wake.set()

    def timed(self, job: Job) -> Job:
        """Give the job with the time of the run that is going on."""
        return job if self._since is None else replace(job, worked_ms=job.worked_ms + self._worked_ms())

    # Its task.

    async def _live(self) -> None:
        """Work the job until it ends, or is let go."""
        while self.job.is_open and not self._is_let_go:
            try:
                await self._step()
            except StoreOwned as error:
                # Others have taken over. What is on its way here comes too late.
                self._tell("batch_lost", str(error), severe=True)
                return
            except Exception as error:  # noqa: BLE001 - the border of a task: a bug stops one job, and is told
                if self._is_erased:
                    return  # what was to be written has no place any more
                await self._failed(error)
        self.is_over = not self.job.is_open

    async def _failed(self, error: Exception) -> None:
        """Stop a job that a bug is in the way of, until somebody lets it go on."""
        message = f"The batch {self.job.id} was stopped by an error ({place_of(error)})."
        self._hands.emit(Notice(word="batch_failed", message=message, severe=True))
        try:
            await self.change(pause=Pause(halt=Halt.STOPPED, word="internal_error", message=message))
        except (StorageUnavailable, StoreOwned):
            await self._rest(_TRY_AGAIN_S)

    async def _step(self) -> None:
        self._wake.clear()
        if self._broken is not None:
            await self._wait_for_the_next_start(self._broken)
            return
        if self._nap_s:
            nap_s, self._nap_s = self._nap_s, 0.0
            await self._rest(nap_s)
            return
        if self._hands.is_idle and self.job.cancel_ns is None and self.job.expired_ns is None:
            await self._wake.wait()
            return
        pause = self.job.pause
        if pause is not None and self.job.state in (JobState.PARKED, JobState.STOPPED):
            if await self._is_pause_over(pause):
                await self.change(pause=None)
            return
        if not self._hands.turns.take():
            await self._hands.turns.wait()
            return
        try:
            await self._work()
        except StorageBroken as error:
            self._broken = str(error)
            self._tell("batch_parked", self._broken, severe=True)
            with suppress(StorageUnavailable):  # then others take this owner for one who works it
                await self._store.leave(self.job.no)
        except StorageUnavailable as error:
            self._hands.emit(Notice(word="batch_storage", message=str(error), severe=True))
            await self._rest(_TRY_AGAIN_S)
        finally:
            self._hands.turns.give_back()

    async def _wait_for_the_next_start(self, why: str) -> None:
        """Let the job stand still here: ends are in its spool that only whoever starts next can mark."""
        if self.job.pause is None and not self._store.is_shared:
            until_ns = self._clock.wall_ns() + int(_BROKEN_FOR_S * 1e9)
            pause = Pause(halt=Halt.PARKED, word="storage_broken", message=why, until_ns=until_ns)
            try:
                await self.change(pause=pause)
            except StorageUnavailable:
                await self._rest(_TRY_AGAIN_S)
                return
        self._wake.clear()
        await self._wake.wait()

    async def _is_pause_over(self, pause: Pause) -> bool:
        """Wait for the end of a pause, a change, or the job's own end; True: the pause is over."""
        now_ns = self._clock.wall_ns()
        if now_ns >= self.job.deadline_ns:
            await self.change(expired_ns=now_ns, pause=None)
            return False
        until_ns = self.job.deadline_ns
        if pause.until_ns is not None:
            until_ns = min(until_ns, pause.until_ns)
        await self._rest((until_ns - now_ns) / 1e9)
        return pause.until_ns is not None and self._clock.wall_ns() >= pause.until_ns

    async def _rest(self, wait_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, wait_s)):
                await self._wake.wait()

    async def _work(self) -> None:
        await self._look()
        if self.job.read_ns is None and not await self._read():
            self._nap_s = _AGAIN_S
            return
        if not self.job.is_open:
            return
        self._crew = await self._store.join(self.job.no)
        share = self._crew.share(self.job.concurrency)
        if not share:
            await self._store.leave(self.job.no)
            self._nap_s = _TRY_AGAIN_S
            return
        # Others may still ask as many as before this one came.
        is_done = await self._run(min(share, max(1, self.job.concurrency - self._crew.asking)))
        expired_ns = self.job.expired_ns
        await self._look()
        job = self.job
        if expired_ns is not None and job.is_open and job.expired_ns is None:
            await self.change(expired_ns=expired_ns)
        if is_done:
            await self._end()

    async def _look(self) -> None:
        """Take the job as it is in the store."""
        self.job = await self._store.job(self.job.id) or self.job

    async def _read(self) -> bool:
        """Read the input of the job; False: somebody else does."""
        if not await self._store.begin_reading(self.job.no):
            return False
        try:
            await self._look()
            if self.job.read_ns is not None:
                return True
            await self.change(**(await self._hands.reader(self.job).read(self.job)))
        finally:
            await self._store.end_reading(self.job.no)
        if self.job.failed_ns is not None:
            # Without the sentences: they may quote what stands in a line.
            codes = sorted({problem.code for problem in self.job.problems})
            self._tell("batch_refused", f"refused: {', '.join(codes)}.")
        else:
            self._tell("batch_begun", f"{self.job.lines:,} lines, key {self.job.key}.")
        return True

    async def _run(self, share: int) -> bool:
        """Let an engine work the job, asking so many lines at one time; True: none is left for it."""
        self._since = self._clock.monotonic() if self._crew.place == 0 else None
        self.engine = self._hands.make_engine(
            replace(self.job, concurrency=share),
            on_pause=self._paused,
            on_finished=self._hands.count,
            weather=self._weather,
        )
        left_s = max(0.0, (self.job.deadline_ns - self._clock.wall_ns()) / 1e9)
        expiry = asyncio.get_running_loop().call_later(left_s, self._expire)
        counting = asyncio.create_task(self._count_time())
        try:
            return await self.engine.run()
        finally:
            expiry.cancel()
            counting.cancel()
            self.engine = None
            if self._since is not None:
                worked_ms, self._since = self._worked_ms(), None
                await self._store.worked(self.job.no, worked_ms)

    async def _end(self) -> None:
        """End the job, unless somebody has let lines wait again in the meantime, or still has some."""
        ended = await self._store.end(self.job.no, self._clock.wall_ns())
        if ended is not None:
            self.job = ended
            self._tell("batch_ended", _ended_sentence(ended, await self._hands.spent_of(ended)))
        elif self._store.is_shared:
            self._nap_s = _AGAIN_S

    async def _count_time(self) -> None:
        """Write down now and then for how long the job is worked: a kill loses no more than that."""
        while True:
            await asyncio.sleep(_COUNTED_EACH_S)
            if self._since is None:
                continue  # where several work it, one counts
            worked_ms, self._since = self._worked_ms(), self._clock.monotonic()
            with suppress(StorageUnavailable, StoreOwned):  # whoever needs it for more tells of it
                await self._store.worked(self.job.no, worked_ms)

    async def _paused(self, pause: Pause | None) -> None:
        if pause is not None and await self._goes_on_elsewhere(pause):
            return
        await self.change(pause=pause)
        if pause is not None:
            is_stopped = pause.halt is Halt.STOPPED
            self._tell(f"batch_{pause.halt.value}", pause.message, severe=is_stopped)

    async def _goes_on_elsewhere(self, pause: Pause) -> bool:
        """Tell whether others go on with a job that stands still here; the last of them writes it down.

        What is refused for whoever asks is refused for all.
        """
        if not self._store.is_shared:
            return False
        if pause.word == "key" and not self._has_doubted_key:
            # One that was made elsewhere a moment ago is known here in some seconds.
            self._has_doubted_key, self._nap_s = True, _KEYS_S
            return True
        if pause.halt is Halt.STOPPED and pause.word != "budget":
            return False
        if not (await self._store.leave(self.job.no)).size:
            return False
        until_ns = pause.until_ns or 0
        wait_s = (until_ns - self._clock.wall_ns()) / 1e9
        self._nap_s = min(max(wait_s, _TRY_AGAIN_S), _NAP_MAX_S)
        return True

    def _tell_engine(self) -> None:
        """Let whatever works the job know how it is now, and this owner's share of it."""
        if self.engine is None:
            return
        share = self._crew.share(self.job.concurrency)
        if share:
            # Others may still ask more than their shares, as before this one came.
            others = max(0, self._crew.asking - self.engine.progress().in_flight)
            share = min(share, max(1, self.job.concurrency - others))
            self.engine.change(replace(self.job, concurrency=share))
        else:
            self.engine.call_off()
        if self._crew.place != 0:
            self._since = None
        elif self._since is None:
            self._since = self._clock.monotonic()

    def _expire(self) -> None:
        self.job = replace(self.job, expired_ns=self._clock.wall_ns())
        self._tell_engine()

    def _worked_ms(self) -> int:
        return 0 if self._since is None else int((self._clock.monotonic() - self._since) * 1e3)

    def _tell(self, word: str, sentence: str, *, severe: bool = False) -> None:
        self._hands.emit(Notice(word=word, message=f"{self.job.id}: {sentence}", severe=severe))


def _ended_sentence(job: Job, spent_nanos: int) -> str:
    return (
        f"{job.state.value}; {job.done:,} lines answered, {job.failed:,} failed, {job.cancelled:,} not "
        f"asked; ${usd_text(spent_nanos)} spent."
    )
