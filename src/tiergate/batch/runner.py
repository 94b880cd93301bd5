"""Works one job: claims lines, asks as many at one time as will do, and spools what becomes of each.

Of what a line is and how it is asked it knows nothing: its `lane` is handed in. It decides little: what an
error means (`verdict.py`), how many to ask (`pace.py`) and whether to go on at all (`weather.py`) is decided
by pure code. A line's place in the window is free again once its end is in the spool: so a kill takes no more
answers than lines were in the window.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from heapq import heappop, heappush
from itertools import chain
from random import random
from typing import Any, Final, assert_never

from tiergate.batch.pace import Pace
from tiergate.batch.ports import JobStore, Lane
from tiergate.batch.records import Claimed, Finished, Halt, Job, Pause, Progress, Spooled
from tiergate.batch.verdict import Again, Broke, Fails, Over, Stops, verdict
from tiergate.batch.weather import Weather
from tiergate.core import Clock, StorageBroken, StorageUnavailable, TiergateError
from tiergate.serve import STOPPING

CLAIMED_BYTES_MAX: Final = 4 << 20
"""Of text that waits in memory to be asked."""
_CLAIMED_MAX: Final = 1_000
_UNMARKED_MAX: Final = 4_000
"""Ends that are spooled and not marked: more are not asked for before some are."""
_GATHER_S: Final = 0.2
"""So long ends come together before they are marked, while others are asked: a disk that syncs holds
up whoever writes."""
_TRY_AGAIN_S: Final = 1.0
_BACKOFF_MAX_S: Final = 60.0
_BROKE_MAX: Final = 20
"""So many lines for which there was not enough money left, and there is none for the rest."""
_LATER_SPARE: Final = 64
_SUSPECT_FROM: Final = 2
"""Interruptions from which on a line is asked alone: its owner died each time."""
_POISON_FROM: Final = 5
"""And from which on it is asked no more."""


class Runner:
    """Works a job until its end, a stop, or until it is called off.

    Args:
        job: as it is in the store; its counts are those of the start.
        store: keeps it.
        lane: how lines are asked.
        on_pause: writes down that the job stands still.
        on_finished: hears of each end that is in the spool.
        clock: time.
        chance: draws a number from 0 to 1.
        weather: what the last outcomes of its lines were, over its pauses; None: nothing is known.
    """

    def __init__(
        self,
        job: Job,
        *,
        store: JobStore,
        lane: Lane,
        on_pause: Callable[[Pause | None], Awaitable[None]],
        on_finished: Callable[[Finished], None],
        clock: Clock,
        chance: Callable[[], float] = random,
        weather: Weather | None = None,
    ) -> None:
        self.job = job
        self._store = store
        self._lane = lane
        self._on_pause = on_pause
        self._on_finished = on_finished
        self._clock = clock
        self._chance = chance
        self._weather = weather or Weather()
        self._pace = Pace(job.concurrency, is_careful=self._weather.is_doubtful)
        self._ready: deque[Claimed] = deque()
        self._suspects: deque[Claimed] = deque()
        self._later: list[tuple[float, int, Claimed]] = []
        """Lines that are asked again, and when."""
        self._aside: list[Claimed] = []
        """Lines for which there was not enough money left."""
        self._broke: Pause | None = None
        """What was said of the last of them."""
        self._workers: set[asyncio.Task[None]] = set()
        self._is_alone = False
        """One of the suspects is asked now."""
        self._asking = 0
        self._unmarked: deque[Spooled] = deque()
        self._marking = 0
        self._news = asyncio.Event()
        self._marked = asyncio.Event()
        self._hurry = asyncio.Event()
        """Nothing is asked, so somebody waits for what is to be marked."""
        self._pass_is_over = False
        self._pause: Pause | None = None
        self._untold: Pause | None = None
        """A pause that could not be written down yet."""
        self._is_called_off = False
        self._again: dict[str, int] = {}
        self._failure: BaseException | None = None
        self._is_unmarkable = False
        """Whoever marks has met a bug."""

    def progress(self) -> Progress:
        """Tell what it is doing now."""
        return Progress(
            in_flight=self._asking, limit=int(self._pace.limit), why=self._pace.why, again=dict(self._again)
        )

    def change(self, job: Job) -> None:
        """Take another concurrency, or that the job is to end."""
        self.job = job
        self._pace.change(job.concurrency)
        self._news.set()

    def call_off(self) -> None:
        """Ask nothing more; `run` returns when what is asked has ended."""
        self._is_called_off = True
        self._news.set()

    def break_off(self) -> None:
        """Wait no longer for what is asked; those lines wait again."""
        self.call_off()
        for worker in self._workers:
            worker.cancel(STOPPING)

    async def run(self) -> bool:
        """Work; True: every line has come to its end. False: it stands still, or was called off.

        Raises:
            StorageUnavailable: jobs cannot be read or written.
        """
        marker = asyncio.create_task(self._mark())
        marker.add_done_callback(self._marker_ended)
        try:
            while not await self._turn():
                self._news.clear()
                if self._is_idle():
                    continue
                await self._wait()
            await self._until_still()
            if self._is_ending() and not self._is_called_off:
                await self._end_unasked()
        finally:
            for worker in self._workers:
                worker.cancel(STOPPING)
            await asyncio.gather(*self._workers, return_exceptions=True)
            try:
                await self._release_all()
            finally:
                await self._until_marked()
                marker.cancel()
                await self._store.close_job(self.job.no)
        if self._failure is not None:
            raise self._failure
        if self._untold is not None:
            await self._on_pause(self._untold)
        return self._pause is None and not self._is_called_off

    # One turn.

    async def _turn(self) -> bool:
        """Do what can be done now; True: there is nothing more to do."""
        if self._failure is not None or self._is_called_off or self._pause is not None:
            return True
        if self._is_ending():
            return True
        self._take_due()
        paused = self._weather.pause(now=self._clock.monotonic(), wall_ns=self._clock.wall_ns())
        if paused is not None:
            await self._stand_still(paused)
            return True
        if len(self._ready) < min(self._pace.limit, _CLAIMED_MAX) and not self._pass_is_over:
            await self._claim()
        self._start_workers()
        if self._workers or self._ready or self._suspects or self._later or self._unmarked or self._marking:
            return False
        if not self._pass_is_over:
            return False
        if self._broke is not None:
            await self._stand_still(self._broke)
            return True
        # All that was claimed has come to an end. What waits now was let go, or came in between.
        await self._claim()
        return self._pass_is_over

    def _is_idle(self) -> bool:
        return not (self._workers or self._later or self._unmarked or self._marking)

    async def _claim(self) -> None:
        count = min(_CLAIMED_MAX, max(32, 2 * int(self._pace.limit)))
        if self._weather.is_doubtful:
            count = _CLAIMED_MAX
        try:
            claimed = await self._store.claim(self.job.no, count, bytes_max=CLAIMED_BYTES_MAX)
        except StorageUnavailable as error:
            # Those that are asked go on: they are paid.
            self._weather.was_bad("storage", str(error), wait_s=None, now=self._clock.monotonic())
            await asyncio.sleep(_TRY_AGAIN_S)
            self._pass_is_over = False
            return
        self._pass_is_over = not claimed
        if self._weather.is_doubtful:
            # Who was tried least says most: it may be another one that nobody can answer.
            claimed.sort(key=lambda line: line.tries)
        for line in claimed:
            (self._suspects if line.interrupted >= _SUSPECT_FROM else self._ready).append(line)

    def _start_workers(self) -> None:
        if self._suspects or self._is_alone:
            # Each by itself: so it is known whose doing it is, should the process die again.
            if not self._workers:
                self._is_alone = True
                self._start(self._alone(self._suspects.popleft()))
            return
        if not self._is_crowded():
            room = max(1, int(self._pace.limit)) - len(self._workers)
            for _ in range(min(room, len(self._ready))):
                self._start(self._work())

    def _start(self, work: "Coroutine[Any, Any, None]") -> None:
        worker = asyncio.create_task(work)
        self._hurry.clear()
        self._workers.add(worker)
        worker.add_done_callback(self._ended)

    def _ended(self, worker: "asyncio.Task[None]") -> None:
        self._workers.discard(worker)
        error = None if worker.cancelled() else worker.exception()
        if error is not None:
            self._failure = error
        if not self._workers:
            self._hurry.set()
        self._news.set()

    async def _wait(self) -> None:
        """Wait for news, or until a line that waits may be asked."""
        wait_s = None
        if self._later:
            wait_s = max(0.0, self._later[0][0] - self._clock.monotonic())
        try:
            async with asyncio.timeout(wait_s):
                await self._news.wait()
        except TimeoutError:
            return

    def _take_due(self) -> None:
        now = self._clock.monotonic()
        while self._later and self._later[0][0] <= now:
            line = heappop(self._later)[2]
            (self._suspects if line.interrupted >= _SUSPECT_FROM else self._ready).appendleft(line)

    def _is_crowded(self) -> bool:
        """Tell whether enough is in memory: ends that are not marked, lines that are to be asked again."""
        is_behind = len(self._unmarked) + self._marking >= _UNMARKED_MAX
        return is_behind or len(self._later) > 2 * self._pace.limit + _LATER_SPARE

    # Workers.

    async def _work(self) -> None:
        """Ask one line after the other, as long as there is room for this one among the others."""
        while self._ready and not self._is_over() and not self._is_crowded():
            await self._one(self._ready.popleft())
            if len(self._workers) > max(1.0, self._pace.limit):
                return
            if len(self._ready) < self._pace.limit:
                self._news.set()

    async def _alone(self, line: Claimed) -> None:
        try:
            if line.interrupted >= _POISON_FROM:
                await self._put(self._lane.poisoned(self.job, line))
            else:
                await self._one(line)
        finally:
            self._is_alone = False

    def _is_over(self) -> bool:
        return self._pause is not None or self._is_called_off or bool(self._suspects) or self._is_ending()

    def _is_ending(self) -> bool:
        return self.job.cancel_ns is not None or self.job.expired_ns is not None

    async def _one(self, line: Claimed) -> None:
        self._asking += 1
        is_let_go = True
        try:
            await self._store.begin(self.job.no, line.n)
            try:
                finished = await self._lane.ask(self.job, line)
            except TiergateError as error:
                is_let_go = await self._heard(line, error)
                return
            is_let_go = False
            self._pace.was_good()
            self._weather.was_good()
            await self._put(finished)
        finally:
            self._asking -= 1
            if is_let_go:
                self._ready.appendleft(line)

    async def _heard(self, line: Claimed, error: TiergateError) -> bool:
        """Act on an error; True: the line is to be let go."""
        found = verdict(error, line.tries, is_spared=lambda: self._is_everybodys(line))
        match found:
            case Fails():
                await self._put(self._lane.failed(self.job, line, error))
                return False
            case Again():
                await self._store.rest(self.job.no, line.n)
                self._ask_again(line, found, str(error))
                return False
            case Stops():
                await self._stand_still(Pause(halt=Halt.STOPPED, word=found.word, message=str(error)))
            case Broke():
                await self._store.rest(self.job.no, line.n)
                await self._is_broke(line, found, str(error))
                return False
            case Over():
                raise error
            case _:
                assert_never(found)
        return True

    def _is_everybodys(self, line: Claimed) -> bool:
        """Tell whether a failure may well be no line's own: nothing is answered, others were tried less."""
        others = chain(self._ready, (one for _, _, one in self._later))
        return self._weather.is_bad and any(one.tries < line.tries for one in others)

    def _ask_again(self, line: Claimed, found: Again, message: str) -> None:
        now = self._clock.monotonic()
        self._again[found.word] = self._again.get(found.word, 0) + 1
        if found.pushes:
            self._pace.pushed_back(self._asking, found.word, now)
        if found.narrows:
            self._pace.narrowed(self._asking - 1, found.word)
        if found.is_weather:
            self._weather.was_bad(found.word, message, wait_s=found.wait_s, now=now)
        tries = line.tries + found.counts
        wait_s = found.wait_s
        if wait_s is None:
            wait_s = 0.0 if found.narrows else min(_BACKOFF_MAX_S, 2.0**tries)
        # Not all of them at one moment.
        due = now + wait_s * (1 + self._chance() / 2)
        if found.narrows and self._asking <= 1:
            due = now + _TRY_AGAIN_S  # others hold the money
        heappush(self._later, (due, line.n, line._replace(tries=tries)))
        self._news.set()

    async def _is_broke(self, line: Claimed, found: Broke, message: str) -> None:
        """Take that a line does not fit into what is left of a budget; smaller ones may."""
        self._aside.append(line)
        self._pace.narrowed(self._asking - 1, "budget")
        halt = Halt.STOPPED if found.until_ns is None else Halt.PARKED
        self._broke = Pause(halt=halt, word="budget", message=message, until_ns=found.until_ns)
        if len(self._aside) >= _BROKE_MAX:
            await self._stand_still(self._broke)

    async def _stand_still(self, pause: Pause) -> None:
        if self._pause is None:
            self._pause = pause
            try:
                await self._on_pause(pause)
            except StorageUnavailable:
                # Answers may be in our hands, and need room first: it is told when all is still.
                self._untold = pause
        self._news.set()

    # Ends.

    async def _put(self, finished: Finished) -> None:
        """Put an end into the spool; it is paid, so it is kept until there is room for it."""
        spooled, is_good_again = None, False
        while spooled is None:
            try:
                spooled = await self._store.spool(self.job.no, finished)
            except StorageBroken:
                raise
            except StorageUnavailable as error:
                self._pace.why = "storage"
                self._again["storage"] = self._again.get("storage", 0) + 1
                self._weather.was_bad("storage", str(error), wait_s=None, now=self._clock.monotonic())
                await asyncio.sleep(_TRY_AGAIN_S)
                is_good_again = True
        if is_good_again:
            self._weather.was_good()
        self._unmarked.append(spooled)
        self._marked.set()
        self._on_finished(finished)

    async def _mark(self) -> None:
        """Mark what is in the spool, as much at one time as has come."""
        while True:
            await self._marked.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(_GATHER_S):
                    await self._hurry.wait()
            self._marked.clear()
            await self._mark_those()

    async def _mark_those(self) -> None:
        batch = [self._unmarked.popleft() for _ in range(len(self._unmarked))]
        self._marking = len(batch)
        try:
            await self._store.finish(self.job.no, batch)
        except StorageBroken:
            raise
        except StorageUnavailable as error:
            # What is spooled outlives us; marking it can wait.
            self._weather.was_bad("storage", str(error), wait_s=None, now=self._clock.monotonic())
            self._unmarked.extendleft(reversed(batch))
            self._marking = 0
            await asyncio.sleep(_TRY_AGAIN_S)
        self._marking = 0
        if self._unmarked:
            self._marked.set()
        self._news.set()

    async def _until_still(self) -> None:
        """Wait until nothing is asked any more."""
        while self._workers:
            self._news.clear()
            await self._news.wait()

    def _marker_ended(self, marker: "asyncio.Task[None]") -> None:
        if not marker.cancelled():
            self._failure, self._is_unmarkable = marker.exception(), True
            self._news.set()

    async def _until_marked(self) -> None:
        while (self._unmarked or self._marking) and not self._is_unmarkable:
            self._news.clear()
            self._hurry.set()
            self._marked.set()
            try:
                async with asyncio.timeout(_TRY_AGAIN_S):
                    await self._news.wait()
            except TimeoutError:
                if self._is_called_off:
                    return

    async def _release_all(self) -> None:
        waiting = self._taken_back()
        if waiting:
            await self._store.release(self.job.no, [(line.n, line.tries) for line in waiting])

    def _taken_back(self) -> list[Claimed]:
        """Give all lines that were claimed and are not asked now."""
        lines = [*self._ready, *self._suspects, *(line for _, _, line in self._later), *self._aside]
        for holder in (self._ready, self._suspects, self._later, self._aside):
            holder.clear()
        return lines

    async def _end_unasked(self) -> None:
        """Let all lines end that the end of the job comes before."""
        lines = self._taken_back()
        is_first = True
        while (lines or is_first) and not self._is_called_off and self._failure is None:
            is_first = bool(lines)
            ends = [self._lane.unasked(self.job, line) for line in lines]
            put = await asyncio.gather(*map(self._put, ends), return_exceptions=True)
            for error in filter(None, put):
                raise error
            await self._until_marked()
            lines = await self._store.claim(self.job.no, _CLAIMED_MAX, bytes_max=CLAIMED_BYTES_MAX)
