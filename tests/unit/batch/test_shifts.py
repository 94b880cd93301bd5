"""The shifts of a house: which jobs are worked, when they rest, and what the next start makes of them."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest

from tiergate.batch import (
    Batches,
    Claimed,
    Crew,
    Erased,
    Finished,
    Halt,
    Job,
    JobState,
    LineAsks,
    NoSuchBatch,
    Pause,
    Progress,
    Said,
    Shifts,
    StoredFile,
    Wish,
)
from tiergate.batch.weather import Weather
from tiergate.core import Caller, Event, InvalidRequest, StorageBroken, StorageUnavailable
from tiergate.ledger import LapsedLine, LineState, SoleBook
from tiergate.testing import FakeClock, MemoryJobs, MemoryJournal, run_virtual

WEB = Caller(key="web", team="blue")
SHOP = Caller(key="shop")
URL = "/v1/chat/completions"
LINE = b'{"custom_id": "%d", "url": "/v1/chat/completions", "body": {"model": "m", "messages": [{}]}}\n'


class ScriptedEngine:
    """Ends the lines of a job one a second, or does what it is told to."""

    def __init__(self, house: "House", job: Job, on_pause: Any, on_finished: Any) -> None:
        self.house = house
        self.job = job
        self.on_pause = on_pause
        self.on_finished = on_finished
        self._off = asyncio.Event()

    async def run(self) -> bool:
        self.house.running += 1
        self.house.most = max(self.house.most, self.house.running)
        self.house.worked.append(self.job.id)
        try:
            return await self._run()
        finally:
            self.house.running -= 1

    async def _run(self) -> bool:
        store = self.house.store
        while not self._off.is_set():
            if self.house.trouble:
                raise self.house.trouble.pop()
            if self.house.pauses:
                await self.on_pause(self.house.pauses.pop(0))
                return False
            lines = await store.claim(self.job.no, 1, bytes_max=1)
            if not lines:
                return True
            state = LineState.DONE
            if self.job.cancel_ns is None and self.job.expired_ns is None:
                await asyncio.sleep(1)
            else:
                state = LineState.CANCELLED
            finished = Finished(n=lines[0].n, state=state, output=b"x\n", cash_nanos=5)
            await store.finish(self.job.no, [await store.spool(self.job.no, finished)])
            self.on_finished(finished)
        return False

    def change(self, job: Job) -> None:
        self.job = job

    def call_off(self) -> None:
        self._off.set()

    def break_off(self) -> None:
        self._off.set()

    def progress(self) -> Progress:
        return Progress(in_flight=1)


class House:
    """Shifts over stores in memory."""

    def __init__(
        self,
        *,
        at_once: int = 4,
        store: MemoryJobs | None = None,
        journal: MemoryJournal | None = None,
    ) -> None:
        self.clock = FakeClock()
        self.store = store or MemoryJobs()
        self.journal = journal or MemoryJournal()
        self.events: list[Event] = []
        self.worked: list[str] = []
        self.running = self.most = 0
        self.weathers: list[Weather] = []
        self.engines: list[ScriptedEngine] = []
        self.pauses: list[Pause] = []
        self.trouble: list[Exception] = []
        self.ceilings = 0
        rooms: Any = SimpleNamespace(clock=self.clock, emit=self.events.append)
        self.asks = LineAsks(
            rooms,
            caller_of=lambda key: WEB,
            lapsed_of=self.journal.lapsed_lines,
            say=lambda error: Said(500, error.code, b"{}"),
            randomness=bytes,
        )
        self.book = SoleBook(self.journal)
        estimator: Any = SimpleNamespace(unpriced=lambda caller, models: None)
        self.shifts = Shifts(
            self.store,
            self.asks,
            self._engine,
            estimator=estimator,
            book=self.book,
            journal=self.journal,
            on_ceilings=self._count,
            clock=self.clock,
            emit=self.events.append,
            at_once=at_once,
        )
        self._made = 0
        self.batches = Batches(
            self.store, self.shifts, estimator, clock=self.clock, randomness=self._randomness
        )

    def _engine(
        self,
        job: Job,
        *,
        on_pause: Callable[[Pause | None], Awaitable[None]],
        on_finished: Callable[[Finished], None],
        weather: Weather,
    ) -> ScriptedEngine:
        self.weathers.append(weather)
        self.engines.append(ScriptedEngine(self, job, on_pause, on_finished))
        return self.engines[-1]

    def _count(self) -> None:
        self.ceilings += 1

    def _randomness(self, count: int) -> bytes:
        self._made += 1
        return self._made.to_bytes(count, "big")

    async def file(self, lines: int, caller: Caller = WEB, *, first: int = 1) -> str:
        self._made += 1
        file_id = f"file-{self._made}"
        tenant = caller.partition
        await self.store.begin_file(
            StoredFile(id=file_id, tenant=tenant, name="", purpose="batch", created_ns=0)
        )
        data = b"".join(LINE % n for n in range(first, first + lines))
        await self.store.append_file(file_id, data)
        await self.store.end_file(file_id, len(data), "in.jsonl")
        return file_id

    async def job(self, lines: int, caller: Caller = WEB, **wished: Any) -> str:
        wish = Wish(input_file=await self.file(lines, caller), endpoint=URL, **wished)
        return (await self.batches.create(caller, wish)).id

    async def until(self, job_id: str, state: JobState, caller: Caller = WEB) -> Job:
        while (job := (await self.batches.view(caller, job_id)).job).state is not state:
            await asyncio.sleep(0.1)
        return job


def play(house: House, test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def tick() -> None:
        # Inputs are checked in a thread, which lives in real time: the clock must not run far ahead of it.
        while True:
            await asyncio.sleep(0.05)

    async def bounded() -> None:
        ticking = asyncio.create_task(tick())
        async with asyncio.timeout(100_000):
            await test()
        await house.shifts.aclose()
        ticking.cancel()

    run_virtual(bounded(), clock=house.clock)


def test_a_job_is_read_worked_and_ends() -> None:
    """And what it took is counted."""
    house = House()

    async def test() -> None:
        job = await house.until(await house.job(3), JobState.COMPLETED)
        assert (job.lines, job.done, job.cash_nanos, job.problems) == (3, 3, 15, ())
        assert 2_900 <= job.worked_ms < 4_000
        assert house.shifts.ended == {"done": 3} and house.shifts.at_work() == {}
        assert [getattr(event, "word", "") for event in house.events] == ["batch_begun", "batch_ended"]

    play(house, test)


def test_so_many_are_worked_at_one_time_and_all_in_the_end() -> None:
    """Others wait; a larger number lets them in at once."""
    house = House(at_once=2)

    async def test() -> None:
        ids = [await house.job(2) for _ in range(5)]
        for job_id in ids:
            await house.until(job_id, JobState.COMPLETED)
        assert house.most == 2
        house.shifts.use(at_once=5)
        for job_id in [await house.job(500) for _ in range(5)]:
            await house.until(job_id, JobState.COMPLETED)
        assert house.most == 5

    play(house, test)


def test_a_parked_job_goes_on_by_itself_and_a_stopped_one_does_not() -> None:
    """Until somebody changes something about it."""
    house = House()

    async def test() -> None:
        until_ns = house.clock.wall_ns() + 3_600 * 10**9
        house.pauses = [
            Pause(halt=Halt.PARKED, word="throttled", message="wait", until_ns=until_ns),
            Pause(halt=Halt.STOPPED, word="credential", message="mend it"),
        ]
        job_id = await house.job(2)
        assert (await house.until(job_id, JobState.PARKED)).pause == Pause(
            halt=Halt.PARKED, word="throttled", message="wait", until_ns=until_ns
        )
        await house.until(job_id, JobState.STOPPED)
        assert house.clock.wall_ns() >= until_ns
        await asyncio.sleep(3_600)
        assert (await house.batches.view(WEB, job_id)).job.state is JobState.STOPPED
        await house.batches.change(WEB, job_id, concurrency=3)
        assert (await house.until(job_id, JobState.COMPLETED)).concurrency == 3
        # What is known of the weather outlives the pauses.
        assert len(house.weathers) == 3 and len(set(map(id, house.weathers))) == 1

    play(house, test)


@pytest.mark.parametrize("is_stopped", [False, True])
def test_a_cancelled_job_gives_each_line_its_end(is_stopped: bool) -> None:
    """Also one that stands still."""
    house = House()

    async def test() -> None:
        if is_stopped:
            house.pauses = [Pause(halt=Halt.STOPPED, word="funds", message="pay")]
        job_id = await house.job(50)
        await asyncio.sleep(3.5)
        await house.batches.cancel(WEB, job_id)
        job = await house.until(job_id, JobState.CANCELLED)
        assert job.done + job.cancelled == 50 and job.cancelled >= 46
        with pytest.raises(InvalidRequest, match="has ended"):
            await house.batches.cancel(WEB, job_id)

    play(house, test)


@pytest.mark.parametrize("is_stopped", [False, True])
def test_a_job_expires_at_its_deadline(is_stopped: bool) -> None:
    """Running or not; the lines that are left have their end, and it is not completed."""
    house = House()

    async def test() -> None:
        if is_stopped:
            house.pauses = [Pause(halt=Halt.STOPPED, word="funds", message="pay")]
        job = await house.until(await house.job(500, window_s=60), JobState.EXPIRED)
        # Reading takes its time in a thread, which virtual time does not wait for.
        assert job.deadline_ns == job.created_ns + 60_000_000_000
        assert 0 <= (job.ended_ns - max(job.deadline_ns, job.read_ns)) / 1e9 < 10
        assert job.done + job.cancelled == 500 and job.expired_ns is not None

    play(house, test)


def test_what_failed_is_asked_again_with_its_time_begun_anew() -> None:
    """An ended job is an open one again."""
    house = House()

    async def test() -> None:
        job_id = await house.job(20)
        await house.until(job_id, JobState.RUNNING)
        await asyncio.sleep(3.5)
        await house.batches.cancel(WEB, job_id)
        with pytest.raises(InvalidRequest, match="is being ended"):
            await house.batches.retry(WEB, job_id, None)
        before = await house.until(job_id, JobState.CANCELLED)
        await asyncio.sleep(1_000)
        assert await house.batches.retry(WEB, job_id, ["another"]) == 0
        assert await house.batches.retry(WEB, job_id, None) == before.cancelled
        job = await house.until(job_id, JobState.COMPLETED)
        assert (job.done, job.cancelled) == (20, 0)
        assert job.deadline_ns > before.deadline_ns

    play(house, test)


def test_a_job_takes_more_lines_while_it_runs_and_after_its_end() -> None:
    """Their numbers follow, and the hash is that of all of them."""
    house = House()

    async def test() -> None:
        whole = await house.job(9)
        job_id = await house.job(3)
        await house.until(job_id, JobState.RUNNING)
        await house.batches.extend(WEB, job_id, [await house.file(3, first=4)])
        await house.until(job_id, JobState.COMPLETED)
        await house.batches.extend(WEB, job_id, [await house.file(3, first=7)])
        grown = await house.until(job_id, JobState.COMPLETED)
        assert (grown.lines, grown.done) == (9, 9)
        assert grown.sha256 == (await house.until(whole, JobState.COMPLETED)).sha256

    play(house, test)


def test_trouble_with_the_store_passes_and_a_bug_stops_one_job() -> None:
    """And both are told."""
    house = House()

    async def test() -> None:
        house.trouble = [RuntimeError("a bug"), StorageUnavailable("full")]
        job_id = await house.job(2)
        job = await house.until(job_id, JobState.STOPPED)
        assert job.pause is not None and job.pause.word == "internal_error"
        words = [getattr(event, "word", "") for event in house.events]
        assert words == ["batch_begun", "batch_storage", "batch_failed"]
        await house.batches.change(WEB, job_id)
        await house.until(job_id, JobState.COMPLETED)

    play(house, test)


def test_a_broken_disk_parks_a_job_until_the_next_start() -> None:
    """F30: nothing of it is asked before, whatever anybody wishes; then it goes on by itself."""
    house = House()

    async def test() -> None:
        house.trouble = [StorageBroken("restart")]
        job_id = await house.job(2)
        job = await house.until(job_id, JobState.PARKED)
        assert job.pause is not None
        assert (job.pause.word, job.pause.message) == ("storage_broken", "restart")
        await asyncio.sleep(3_600)
        await house.batches.change(WEB, job_id)
        await house.until(job_id, JobState.PARKED)
        assert len(house.engines) == 1
        words = [getattr(event, "word", "") for event in house.events]
        assert words == ["batch_begun", "batch_parked"]

    play(house, test)
    after = House(store=house.store.died(), journal=house.journal)

    async def goes_on() -> None:
        await after.shifts.open()
        (job,) = await after.store.jobs(None)
        await after.until(job.id, JobState.COMPLETED)

    play(after, goes_on)


class SharedJobs(MemoryJobs):
    """A store that others work, too: so many of them."""

    is_shared = True
    others = 0
    place: int | None = 0

    async def crew(self, no: int) -> Crew:
        own = await super().crew(no)
        return Crew(own.size + self.others, None if own.place is None else self.place, own.asking)


@pytest.mark.parametrize(
    ("pause", "others", "written"),
    [
        (Pause(halt=Halt.STOPPED, word="budget", message="spent"), 1, False),
        (Pause(halt=Halt.PARKED, word="throttled", message="wait", until_ns=1), 2, False),
        (Pause(halt=Halt.STOPPED, word="budget", message="spent"), 0, True),
        (Pause(halt=Halt.STOPPED, word="funds", message="pay"), 1, True),
    ],
)
def test_a_job_that_stands_still_here_goes_on_elsewhere(pause: Pause, others: int, written: bool) -> None:
    """Where it may; the last one that works it says that it stands still, and what is so for all is said."""
    store = SharedJobs()
    house = House(store=store)

    async def test() -> None:
        store.others = others
        house.pauses = [pause]
        job_id = await house.job(2)
        if written:
            job = await house.until(job_id, JobState.STOPPED)
            assert job.pause == pause
            return
        job = await house.until(job_id, JobState.COMPLETED)
        assert job.ended_ns is not None and job.ended_ns - job.created_ns >= 5_000_000_000
        words = [getattr(event, "word", "") for event in house.events]
        assert words == ["batch_begun", "batch_ended"]

    play(house, test)


@pytest.mark.parametrize("times", [1, 2])
def test_a_key_that_is_not_known_here_may_be_known_in_a_moment(times: int) -> None:
    """Where others may have made it: it is looked for once more, some seconds later."""
    house = House(store=SharedJobs())
    unknown = Pause(halt=Halt.STOPPED, word="key", message="opens nothing any more")

    async def test() -> None:
        house.pauses = [unknown] * times
        job_id = await house.job(2)
        if times == 2:
            assert (await house.until(job_id, JobState.STOPPED)).pause == unknown
            return
        job = await house.until(job_id, JobState.COMPLETED)
        assert job.ended_ns is not None and job.ended_ns - job.created_ns >= 7_000_000_000

    play(house, test)


def test_a_job_that_two_let_go_on_is_worked_once() -> None:
    """However both come in between of what the other does."""
    house = House()

    async def test() -> None:
        job_id = await house.job(4)
        job = await house.until(job_id, JobState.COMPLETED)
        for n, code in ((1, "a"), (2, "b")):
            kept = house.store.kept[job.no].lines[n]
            kept.end = Finished(n=n, state=LineState.FAILED, output=b"x\n", error_code=code)
        engines = len(house.engines)
        counts = await asyncio.gather(*(house.batches.retry(WEB, job_id, [code]) for code in "ab"))
        assert counts == [1, 1]
        await house.until(job_id, JobState.COMPLETED)
        assert len(house.engines) == engines + 1 and house.most == 1

    play(house, test)


def test_concurrency_is_shared_out_among_those_who_work_a_job() -> None:
    """Also as it changes, and as others come and go; whose share is none rests."""
    store = SharedJobs()
    house = House(store=store)

    async def shares(*others: int) -> list[int]:
        found = []
        for store.others in others:
            await house.shifts.look_around()
            found.append(house.engines[-1].job.concurrency)
        return found

    async def test() -> None:
        store.others = 1
        job_id = await house.job(30, concurrency=9)
        await house.until(job_id, JobState.RUNNING)
        await asyncio.sleep(1)
        assert await shares(1, 2, 0, 3) == [5, 3, 9, 3]
        await house.batches.change(WEB, job_id, concurrency=20)
        assert house.engines[-1].job.concurrency == 5
        store.place = None
        assert await shares(1) == [5]
        await asyncio.sleep(2)
        assert house.running == 0
        store.place = 0
        await house.until(job_id, JobState.COMPLETED)

    play(house, test)


def test_what_others_decide_holds_here() -> None:
    """What they began, changed, stopped and ended; and of what they erased nothing is left."""
    store = SharedJobs()
    house = House(store=store)

    async def begun(job_id: str) -> Job:
        return await house.until(job_id, JobState.RUNNING)

    async def test() -> None:
        other = House(store=store)
        other._made = 100
        begun_elsewhere = await other.batches.create(WEB, Wish(input_file=await other.file(5), endpoint=URL))
        await other.shifts.aclose()
        assert house.shifts.at_work() == {}
        await house.shifts.look_around()
        assert house.shifts.at_work() == {"reading": 1}
        await house.until(begun_elsewhere.id, JobState.COMPLETED)

        cancelled, ended, stopped, erased = [await begun(await house.job(1_000)) for _ in range(4)]
        budget = {"budget_nanos": 7, "concurrency": 3}
        await store.change(stopped.no, budget)
        before = house.ceilings
        await house.shifts.look_around()
        assert [one.amount_nanos for one in house.shifts.ceilings()] == [7] and house.ceilings > before
        pause = Pause(halt=Halt.STOPPED, word="funds", message="pay")
        await store.change(stopped.no, {"pause": pause})
        await store.change(cancelled.no, {"cancel_ns": house.clock.wall_ns()})
        await store.change(ended.no, {"ended_ns": house.clock.wall_ns()})
        del store.kept[erased.no]
        await house.shifts.look_around()
        assert sorted(house.shifts.at_work()) == ["cancelling", "completed", "stopped"]
        await house.until(cancelled.id, JobState.CANCELLED)
        await asyncio.sleep(3)
        assert house.shifts.at_work() == {"stopped": 1} and house.running == 0
        await store.change(stopped.no, {"pause": None})
        await house.shifts.look_around()
        await house.until(stopped.id, JobState.COMPLETED)
        assert not [event for event in house.events if getattr(event, "severe", False)]

    play(house, test)


def test_each_sees_its_own() -> None:
    """Somebody else's is not there, for any act."""
    house = House()

    async def test() -> None:
        job_id, file_id = await house.job(1), await house.file(1)
        for act in (
            house.batches.view(SHOP, job_id),
            house.batches.cancel(SHOP, job_id),
            house.batches.change(SHOP, job_id, concurrency=1),
            house.batches.retry(SHOP, job_id, None),
            house.batches.extend(SHOP, job_id, [file_id]),
            house.batches.file(SHOP, file_id),
            house.batches.create(SHOP, Wish(input_file=file_id, endpoint=URL)),
        ):
            with pytest.raises(NoSuchBatch):
                await act
        assert await house.batches.listed(SHOP, after=None, limit=9) == []

    play(house, test)


def test_an_erasure_ends_what_runs_and_leaves_nothing() -> None:
    """Of that tenant alone."""
    house = House()

    async def test() -> None:
        for _ in range(2):
            await house.job(500)
        other = await house.job(3, SHOP)
        await asyncio.sleep(2)
        assert await house.batches.erase(WEB.partition) == Erased(2, 2)
        assert await house.batches.listed(WEB, after=None, limit=9) == []
        assert (await house.until(other, JobState.COMPLETED, SHOP)).done == 3

    play(house, test)


def test_the_next_owner_goes_on_and_settles_what_was_answered() -> None:
    """An attempt whose answer is in the spool costs what it cost; others are asked again, and say so."""

    class Lapsed(MemoryJournal):
        async def lapsed_lines(self, job: str) -> list[LapsedLine]:
            return [LapsedLine(1, "call-1", 1), LapsedLine(2, "call-2", 1), LapsedLine(3, "call-3", 2)]

    house = House()
    resolved: list[tuple[str, int, int]] = []

    async def first() -> None:
        house.pauses = [Pause(halt=Halt.STOPPED, word="funds", message="pay")]
        job_id = await house.job(4)
        job = await house.until(job_id, JobState.STOPPED)
        for n, call_id, attempt in ((1, "call-1", 1), (3, "call-3", 1)):
            await house.store.spool(
                job.no,
                Finished(
                    n=n,
                    state=LineState.DONE,
                    output=b"y\n",
                    call_id=call_id,
                    attempt=attempt,
                    cash_nanos=7,
                ),
            )
        await house.store.begin(job.no, 2)

    play(house, first)
    later = House(store=house.store.died(), journal=Lapsed())

    class Book(SoleBook):
        async def resolve(self, call_id: str, n: int, cash_nanos: int) -> bool:
            resolved.append((call_id, n, cash_nanos))
            return True

    later.shifts._book = Book(later.journal)

    async def second() -> None:
        await later.shifts.open()
        (job_id,) = [job.id for job in await later.batches.listed(WEB, after=None, limit=9)]
        job = await later.batches.view(WEB, job_id)
        resent = [await later.asks._resent(job.job, Claimed(n, b"")) for n in (1, 2, 3, 4)]
        assert resent == ["call-1", "call-2", "call-3", None]
        assert resolved == [("call-1", 1, 7)]
        await later.batches.change(WEB, job_id)
        job = await later.until(job_id, JobState.COMPLETED)
        assert (job.done, job.interrupted) == (4, 1)

    play(later, second)


def test_an_input_that_was_read_in_part_is_read_again() -> None:
    """From its beginning: no line twice."""
    house = House()

    async def first() -> None:
        house.store.refuses.add("change")
        await house.job(5)
        while not any(len(kept.lines) == 5 for kept in house.store.kept.values()):
            await asyncio.sleep(0.1)

    play(house, first)
    house.store.refuses.clear()
    later = House(store=house.store.died())

    async def second() -> None:
        await later.shifts.open()
        (found,) = await later.batches.listed(WEB, after=None, limit=9)
        job = await later.until(found.id, JobState.COMPLETED)
        assert (job.lines, job.done) == (5, 5)

    play(later, second)


def test_ceilings_are_those_of_open_jobs_with_budgets() -> None:
    """They come with the job and go with it."""
    house = House()

    async def test() -> None:
        job_id = await house.job(3, budget_nanos=50)
        await house.job(3)
        (ceiling,) = house.shifts.ceilings()
        assert (ceiling.id, ceiling.amount_nanos) == (f"job:{job_id} in total", 50)
        await house.batches.change(WEB, job_id, budget_nanos=70)
        assert [one.amount_nanos for one in house.shifts.ceilings()] == [70]
        before = house.ceilings
        await house.until(job_id, JobState.COMPLETED)
        assert house.shifts.ceilings() == [] and house.ceilings > before

    play(house, test)
