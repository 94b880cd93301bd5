"""The runner of a job, in virtual time: each line has one end, whatever becomes of asking it."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tiergate.batch import Claimed, Finished, Halt, Job, NewLine, Pause, Runner, Spooled, StoredFile
from tiergate.batch.weather import Weather
from tiergate.core import (
    BudgetBusy,
    BudgetExceeded,
    BudgetUnbounded,
    InvalidKey,
    StorageBroken,
    StorageUnavailable,
    TiergateError,
    UpstreamAuthFailed,
    UpstreamFault,
    UpstreamProtocolError,
    UpstreamRejected,
    UpstreamThrottled,
    UpstreamTimeout,
)
from tiergate.ledger import LineState
from tiergate.testing import FakeClock, MemoryJobs, run_virtual

DONE, FAILED, CANCELLED = LineState.DONE, LineState.FAILED, LineState.CANCELLED
TOO_LONG_S = 1_000.0


class Told(NamedTuple):
    """What asking a line leads to, after so many seconds; without an error it is answered."""

    after_s: float = 1.0
    error: TiergateError | None = None


class Ask(NamedTuple):
    """One line that was asked, and beside how many others."""

    at: float
    n: int
    beside: int


Tells = Callable[[int, int], Told]
"""Of a line and how often it was asked before."""


def throttled(wait_s: float | None = None) -> TiergateError:
    return UpstreamThrottled("wait", retry_after_s=wait_s)


def fault() -> TiergateError:
    return UpstreamFault("down")


def well(n: int, tries: int) -> Told:
    return Told()


class ScriptedLane:
    """Fills the port `Lane`: each line is told what the script says."""

    def __init__(self, tells: Tells, clock: FakeClock) -> None:
        self.tells = tells
        self.asked: list[Ask] = []
        self.in_flight = 0
        self._tries: Counter[int] = Counter()
        self.on_ask: Callable[[int], None] = lambda n: None
        self._clock = clock

    async def ask(self, job: Job, line: Claimed) -> Finished:
        assert line.text == b"%d\n" % line.n
        self.on_ask(line.n)
        tries, self._tries[line.n] = self._tries[line.n], self._tries[line.n] + 1
        self.asked.append(Ask(self._clock.monotonic(), line.n, self.in_flight))
        self.in_flight += 1
        try:
            told = self.tells(line.n, tries)
            await asyncio.sleep(told.after_s)
        finally:
            self.in_flight -= 1
        if told.error is not None:
            raise told.error
        return Finished(n=line.n, state=DONE, output=b"answer %d\n" % line.n, cash_nanos=1)

    def failed(self, job: Job, line: Claimed, error: TiergateError) -> Finished:
        return Finished(n=line.n, state=FAILED, output=b"failed\n", error_code=error.code)

    def poisoned(self, job: Job, line: Claimed) -> Finished:
        return Finished(n=line.n, state=FAILED, output=b"poisoned\n", error_code="poison")

    def unasked(self, job: Job, line: Claimed) -> Finished:
        return Finished(n=line.n, state=CANCELLED, output=b"unasked\n", error_code="unasked")

    def times(self, n: int) -> list[float]:
        """When a line was asked."""
        return [one.at for one in self.asked if one.n == n]

    @property
    def most(self) -> int:
        """How many were asked at one time at most."""
        return max((one.beside + 1 for one in self.asked), default=0)


@dataclass
class Stage:
    """A job of so many lines, and who works it."""

    lines: int
    tells: Tells = well
    concurrency: int = 10
    clock: FakeClock = field(default_factory=FakeClock)
    jobs: MemoryJobs = field(default_factory=MemoryJobs)
    pauses: list[Pause | None] = field(default_factory=list)
    finished: list[int] = field(default_factory=list)
    weather: Weather | None = None

    def __post_init__(self) -> None:
        self.lane = ScriptedLane(self.tells, self.clock)
        asyncio.run(self._begin())
        self.runner = self.anew()

    async def _begin(self) -> None:
        texts = [b"%d\n" % n for n in range(1, self.lines + 1)]
        await self.jobs.begin_file(
            StoredFile(id="file-1", tenant="team:web", name="", purpose="batch", created_ns=1)
        )
        await self.jobs.append_file("file-1", b"".join(texts))
        job = Job(
            id="batch_1",
            tenant="team:web",
            key="alice",
            endpoint="/v1/chat/completions",
            input_file="file-1",
            concurrency=self.concurrency,
            window_s=86_400,
            created_ns=1,
            deadline_ns=1 << 62,
        )
        self.no = (await self.jobs.add(job, ["file-1"])).no
        await self.jobs.change(self.no, {"lines": self.lines, "read_ns": 1})
        places = [sum(map(len, texts[:count])) for count in range(self.lines)]
        await self.jobs.add_lines(
            self.no,
            [
                NewLine(n, 0, at, len(text))
                for n, at, text in zip(range(1, 10**6), places, texts, strict=False)
            ],
        )
        await self.jobs.end_file("file-1", sum(map(len, texts)), "a.jsonl")

    def anew(self) -> Runner:
        """Another runner for what is left, as after a pause or a death."""
        self.runner = Runner(
            self.job,
            store=self.jobs,
            lane=self.lane,
            on_pause=self._paused,
            on_finished=lambda finished: self.finished.append(finished.n),
            clock=self.clock,
            chance=lambda: 0.0,
            weather=self.weather,
        )
        return self.runner

    async def _paused(self, pause: Pause | None) -> None:
        self.pauses.append(pause)
        await self.jobs.change(self.no, {"pause": pause})

    def run(self, *at_times: tuple[float, Callable[[], object]]) -> bool:
        """Work the job, and do something at some times; gives what the runner says in the end."""

        async def main() -> bool:
            loop = asyncio.get_running_loop()
            for second, act in at_times:
                loop.call_later(second, act)
            run = asyncio.create_task(self.runner.run())
            _, late = await asyncio.wait([run], timeout=TOO_LONG_S)
            if late:
                self.runner.break_off()
                run.cancel()
                await asyncio.wait([run])
            assert not late, "it does not come to an end"
            return run.result()

        return run_virtual(main(), clock=self.clock)

    @property
    def job(self) -> Job:
        return self.jobs.kept[self.no].job

    @property
    def pause(self) -> Pause:
        """The only pause that there was."""
        (pause,) = self.pauses
        assert pause is not None
        return pause

    @property
    def ends(self) -> dict[int, LineState]:
        """The ends that lines have; no end stands in a spool twice."""
        kept = self.jobs.kept[self.no]
        spooled = Counter(end.n for spool in kept.spools.values() for end, _ in spool.ends)
        assert set(spooled.values()) <= {1}
        marked = {n: line.state for n, line in kept.lines.items() if line.end is not None}
        assert set(marked) == set(spooled)
        return marked

    @property
    def waiting(self) -> list[int]:
        """Lines without an end."""
        return sorted(set(self.jobs.kept[self.no].lines) - set(self.ends))

    def change(self, **what: Any) -> None:
        """Decide something about the job."""
        self.runner.change(replace(self.runner.job, **what))

    def interrupted(self, times: dict[int, int]) -> None:
        """Let lines have been with owners that died."""
        for n, count in times.items():
            self.jobs.kept[self.no].lines[n].interrupted = count


def all_done(stage: Stage) -> bool:
    return stage.ends == dict.fromkeys(range(1, stage.lines + 1), DONE)


# What goes well.


@given(st.lists(st.floats(0, 100), min_size=1, max_size=60), st.integers(1, 20))
def test_each_line_has_one_end_in_whatever_order_they_come(seconds: list[float], concurrency: int) -> None:
    """Each is asked once; never more at one time than there may be."""
    stage = Stage(len(seconds), lambda n, tries: Told(seconds[n - 1]), concurrency)
    assert stage.run()
    assert all_done(stage)
    assert sorted(one.n for one in stage.lane.asked) == sorted(stage.finished) == sorted(stage.ends)
    assert stage.lane.most <= concurrency
    assert (stage.job.done, stage.job.cash_nanos) == (stage.lines, stage.lines)
    assert stage.pauses == []


def test_a_job_without_lines_is_over() -> None:
    """At once."""
    stage = Stage(0)
    assert stage.run()
    assert stage.lane.asked == []


def test_it_begins_with_a_few_and_uses_all_that_it_may() -> None:
    """Doubling, as long as nothing pushes back."""
    stage = Stage(600, concurrency=50)
    assert stage.run()
    at_once = [
        max(one.beside + 1 for one in stage.lane.asked if int(one.at) == second) for second in range(5)
    ]
    assert at_once == [8, 16, 32, 50, 50]
    assert stage.lane.most == 50
    assert stage.runner.progress().why == "concurrency"


def test_more_lines_than_are_claimed_at_one_time() -> None:
    """Many times more."""
    stage = Stage(3_000, lambda n, tries: Told(0.01), concurrency=20)
    assert stage.run()
    assert all_done(stage)
    assert [one.n for one in stage.lane.asked] == list(range(1, 3_001))


def test_another_concurrency_holds_at_once() -> None:
    """Less as soon as some have ended; more is grown into."""
    stage = Stage(400, concurrency=20)
    assert stage.run((9.5, lambda: stage.change(concurrency=3)), (29.5, lambda: stage.change(concurrency=40)))
    beside = [(one.at, one.beside + 1) for one in stage.lane.asked]
    assert max(many for at, many in beside if 10.5 < at < 29) == 3
    assert max(many for at, many in beside if at > 30) > 20


def test_a_line_is_noted_before_it_is_asked() -> None:
    """So who takes over from the dead knows of it; when it has its end it is noted no more."""
    stage = Stage(40)
    noted = stage.jobs.kept[stage.no].begun

    def look(n: int) -> None:
        assert n in noted
        assert len(noted) == stage.lane.in_flight + 1

    stage.lane.on_ask = look
    assert stage.run()
    assert len(stage.lane.asked) == 40 and noted == []


def test_progress_says_what_is_done_now() -> None:
    """How many are asked, how many may be, what limits them, and what failed for a while."""
    stage = Stage(100, lambda n, tries: Told(1.0, throttled(5.0) if n == 3 and not tries else None))
    seen = []
    assert stage.run(
        (0.5, lambda: seen.append(stage.runner.progress())),
        (1.5, lambda: seen.append(stage.runner.progress())),
    )
    first, second = seen
    assert (first.in_flight, first.limit, first.why, first.again) == (8, 8, "starting", {})
    assert (second.why, second.again) == ("throttled", {"throttled": 1})
    assert second.in_flight == second.limit < 10


# What pushes back.


def test_throttling_narrows_and_recovers() -> None:
    """To about what a provider takes, and to all once it takes all; no line fails for it."""

    def tells(n: int, tries: int) -> Told:
        is_much = stage.lane.in_flight > 10 and stage.clock.monotonic() < 100
        return Told(0.1, throttled()) if is_much else Told(1.0)

    stage = Stage(4_000, tells, concurrency=40)
    assert stage.run()
    assert all_done(stage)
    while_narrow = [one.beside + 1 for one in stage.lane.asked if 50 < one.at < 100]
    assert max(while_narrow) <= 15
    assert sum(while_narrow) / len(while_narrow) > 5
    assert max(one.beside + 1 for one in stage.lane.asked if one.at > 150) == 40
    refused = len(stage.lane.asked) - 4_000
    assert 0 < refused < 300


@pytest.mark.parametrize("wait_s", [3.0, 20.0, 44.0])
def test_a_wait_that_was_asked_for_is_kept(wait_s: float) -> None:
    """Of each line for itself; others go on meanwhile."""

    def tells(n: int, tries: int) -> Told:
        return Told(0.5, throttled(wait_s)) if n % 7 == 0 and n < 50 and tries < 2 else Told(10.0)

    stage = Stage(300, tells)
    assert stage.run()
    assert all_done(stage)
    for n in range(7, 50, 7):
        first, second, third = stage.lane.times(n)
        assert second >= first + 0.5 + wait_s and third >= second + 0.5 + wait_s


@pytest.mark.parametrize(
    ("error", "tries", "waits"),
    [
        (UpstreamFault("down"), 5, [2, 4, 8, 16]),
        (UpstreamTimeout("slow", phase="total"), 3, [2, 4]),
        (UpstreamProtocolError("odd"), 3, [2, 4]),
        (UpstreamRejected("no", status=400), 1, []),
        (BudgetUnbounded("how much"), 1, []),
    ],
    ids=["outage", "timeout", "protocol", "its own fault", "without a bound"],
)
def test_a_line_that_fails_is_asked_so_often(error: TiergateError, tries: int, waits: list[float]) -> None:
    """Each time after a longer while; then that is its end, and others have theirs."""
    stage = Stage(300, lambda n, tries: Told(1.0, error if n == 5 else None), concurrency=4)
    assert stage.run()
    times = stage.lane.times(5)
    assert len(times) == tries
    passed = [after - before - 1.0 for before, after in pairwise(times)]
    assert all(wait <= found < wait + 2 for wait, found in zip(waits, passed, strict=True))
    assert stage.ends == {**dict.fromkeys(range(1, 301), DONE), 5: FAILED}
    assert (stage.job.done, stage.job.failed) == (299, 1)


def test_waits_are_not_all_over_at_one_moment() -> None:
    """Chance makes each up to half as long again."""
    draws = iter([0.0, 0.5, 1.0])
    stage = Stage(3, lambda n, tries: Told(1.0, None if tries else throttled(10.0)), concurrency=3)
    stage.runner._chance = lambda: next(draws)
    assert stage.run()
    assert sorted(stage.lane.times(n)[1] for n in (1, 2, 3)) == [11.0, 13.5, 16.0]


# What makes it stand still.


@pytest.mark.parametrize(
    ("error", "word"),
    [(fault(), "outage"), (throttled(), "throttled")],
)
def test_nothing_but_failures_parks_it(error: TiergateError, word: str) -> None:
    """After half a minute, with the reason and until when; its lines wait."""
    stage = Stage(100, lambda n, tries: Told(0.1, error))
    assert not stage.run()
    assert (stage.pause.halt, stage.pause.word, stage.pause.message) == (Halt.PARKED, word, str(error))
    assert stage.pause.until_ns is not None and stage.pause.until_ns > stage.clock.wall_ns()
    assert 30 <= stage.clock.monotonic() < 60
    assert DONE not in stage.ends.values()
    asked = len(stage.lane.asked)
    stage.lane.tells = well
    assert stage.anew().job.pause == stage.pause
    assert stage.run()
    assert len(stage.ends) == 100 and len(stage.lane.asked) > asked


def test_tries_are_kept_over_a_pause() -> None:
    """A line is not asked five times more after each."""
    stage = Stage(8, lambda n, tries: Told(0.0, fault()), concurrency=8)
    while not stage.run():
        assert len(stage.pauses) < 10
        stage.anew()
    assert set(stage.ends.values()) == {FAILED}
    assert {len(stage.lane.times(n)) for n in range(1, 9)} == {5}


@pytest.mark.parametrize("error", [fault(), UpstreamProtocolError("odd")], ids=["outage", "protocol"])
def test_what_is_everybodys_failure_ends_no_line(error: TiergateError) -> None:
    """However often lines are asked in vain meanwhile; afterwards each is answered."""
    stage = Stage(
        400, lambda n, tries: Told(0.1, error if len(stage.lane.asked) < 300 else None), weather=Weather()
    )
    runs = 1
    while not stage.run():
        runs += 1
        stage.anew()
    assert runs > 5
    assert all_done(stage)


def test_some_that_nobody_can_answer_do_not_make_it_bad_weather() -> None:
    """After a pause others are tried first, so that those have their answers."""
    stage = Stage(
        300,
        lambda n, tries: Told(0.1, fault() if n <= 4 or len(stage.pauses) < 2 else None),
        weather=Weather(),
    )
    while not stage.run():
        assert len(stage.pauses) < 10
        stage.anew()
    assert stage.ends == {**dict.fromkeys(range(1, 5), FAILED), **dict.fromkeys(range(5, 301), DONE)}


def test_a_long_wait_parks_it_at_once() -> None:
    """Those that are asked finish; the wait is over when they are asked again."""
    stage = Stage(100, lambda n, tries: Told(float(n), throttled(600.0) if n == 2 else None), concurrency=8)
    assert not stage.run()
    assert stage.pause.halt is Halt.PARKED
    assert stage.pause.until_ns == stage.clock.wall_ns() - int((stage.clock.monotonic() - 2 - 600) * 1e9)
    asked = [one.n for one in stage.lane.asked]
    assert sorted(stage.ends) == sorted(set(asked) - {2}) and len(asked) < 20


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (UpstreamAuthFailed("refused"), "credential"),
        (UpstreamThrottled("no funds", quota=True), "funds"),
        (InvalidKey("gone"), "key"),
    ],
)
def test_what_somebody_has_to_mend_stops_it_at_once(error: TiergateError, word: str) -> None:
    """Nothing new is asked; what is asked finishes, and the line that met it waits again."""
    stage = Stage(100, lambda n, tries: Told(1.5, error) if n == 4 else Told(2.0), concurrency=8)
    assert not stage.run()
    assert stage.pause == Pause(halt=Halt.STOPPED, word=word, message=str(error))
    assert [one.n for one in stage.lane.asked] == list(range(1, 9))
    assert sorted(stage.ends) == [1, 2, 3, 5, 6, 7, 8]
    stage.lane.tells = well
    stage.anew()
    assert stage.run()
    assert all_done(stage)


def test_many_that_meet_it_stop_it_once() -> None:
    """The first one says why."""
    stage = Stage(100, lambda n, tries: Told(1.0, UpstreamAuthFailed(f"refused {n}")), concurrency=8)
    assert not stage.run()
    assert stage.pause.message == "refused 1"
    assert stage.ends == {} and len(stage.lane.asked) == 8


# Money.


def test_money_that_others_hold_narrows_it_and_fails_nobody() -> None:
    """To what there is money for at one time."""

    def tells(n: int, tries: int) -> Told:
        return Told(0.1, BudgetBusy("held")) if stage.lane.in_flight > 3 else Told(1.0)

    stage = Stage(100, tells, concurrency=50)
    assert stage.run()
    assert all_done(stage)
    assert max(one.beside + 1 for one in stage.lane.asked if one.at > 2) <= 4
    assert len(stage.lane.asked) < 250
    assert stage.pauses == []


def test_money_that_somebody_else_holds_is_waited_for() -> None:
    """A line asks no more than once a second whether it is free."""

    def tells(n: int, tries: int) -> Told:
        return Told(0.001, BudgetBusy("held")) if stage.clock.monotonic() < 60 else Told(1.0)

    stage = Stage(20, tells, concurrency=8)
    assert stage.run()
    assert all_done(stage)
    assert len([one for one in stage.lane.asked if 1 < one.at < 60]) <= 20 * 60


def test_lines_that_a_budget_has_no_room_for_let_smaller_ones_pass() -> None:
    """Then it stops, and says by what; they wait."""

    def tells(n: int, tries: int) -> Told:
        return Told(0.1, BudgetExceeded("too much", budget="job")) if n % 10 == 0 else Told(1.0)

    stage = Stage(100, tells)
    assert not stage.run()
    assert stage.pause == Pause(halt=Halt.STOPPED, word="budget", message="too much")
    assert stage.waiting == list(range(10, 101, 10))
    assert set(stage.ends.values()) == {DONE}
    assert all(len(stage.lane.times(n)) == 1 for n in stage.waiting)


def test_twenty_lines_without_room_are_enough() -> None:
    """No more are asked for nothing."""
    stage = Stage(1_000, lambda n, tries: Told(0.1, BudgetExceeded("too much", budget="job")), concurrency=1)
    assert not stage.run()
    assert stage.pause.word == "budget"
    assert len(stage.lane.asked) == 20
    assert stage.ends == {}


def test_a_budget_that_begins_anew_parks_it_until_then() -> None:
    """It goes on by itself."""
    error = BudgetExceeded("too much", budget="daily", until_ns=1 << 61)
    stage = Stage(3, lambda n, tries: Told(0.1, error if n == 2 else None))
    assert not stage.run()
    assert stage.pause == Pause(halt=Halt.PARKED, word="budget", message="too much", until_ns=1 << 61)
    assert stage.waiting == [2]


# Lines that owners died with.


def beside(stage: Stage, n: int) -> list[int]:
    """Lines that were under way when this one was asked, or asked while it was; asking takes a second."""
    asks = [(index, one) for index, one in enumerate(stage.lane.asked) if one.n == n]
    others = [
        other.n for index, one in asks for other in stage.lane.asked[index + 1 :] if other.at < one.at + 0.9
    ]
    return others + [n for _, one in asks if one.beside]


def test_a_line_that_two_owners_died_with_is_asked_alone() -> None:
    """Nothing else is asked beside it; one that a single owner died with is like any."""
    stage = Stage(40)
    stage.interrupted({3: 2, 4: 1, 20: 4})
    # Whatever it hears of meanwhile.
    assert stage.run(*((half / 2, lambda: stage.change(concurrency=9)) for half in range(40)))
    assert all_done(stage)
    assert beside(stage, 3) == beside(stage, 20) == []
    assert any(one.n == 4 and one.beside for one in stage.lane.asked)


def test_it_does_not_wait_until_all_others_have_their_ends() -> None:
    """They make room for it as soon as it is found."""
    stage = Stage(1_000)
    stage.interrupted({40: 2})
    assert stage.run()
    assert [one.n for one in stage.lane.asked].index(40) < 60


def test_it_is_asked_alone_again_where_it_is_asked_again() -> None:
    """The first answer was to wait."""

    def tells(n: int, tries: int) -> Told:
        return Told(1.0, throttled(5.0) if n == 3 and tries < 3 else None)

    stage = Stage(200, tells)
    stage.interrupted({3: 2})
    assert stage.run()
    assert all_done(stage)
    assert len(stage.lane.times(3)) == 4
    assert beside(stage, 3) == []


def test_a_line_that_five_owners_died_with_is_not_asked() -> None:
    """It has an error for its end, and others go on."""
    stage = Stage(20)
    stage.interrupted({3: 5, 9: 7, 12: 4})
    assert stage.run()
    assert {n for n, state in stage.ends.items() if state is FAILED} == {3, 9}
    assert {one.n for one in stage.lane.asked} == set(range(1, 21)) - {3, 9}
    assert asyncio.run(stage.jobs.errors(stage.no)) == {"poison": 2}


@pytest.mark.parametrize("error", [throttled(20.0), fault(), BudgetExceeded("too much", budget="job")])
def test_a_line_that_waits_to_be_asked_again_is_with_nobody(error: TiergateError) -> None:
    """Should the owner die meanwhile, it was not interrupted: nothing of it is paid."""
    stage = Stage(20, lambda n, tries: Told(0.5, error) if n <= 5 else Told(40.0), concurrency=8)
    left: list[MemoryJobs] = []
    stage.run((2.0, lambda: left.append(stage.jobs.died())))
    (jobs,) = left
    asyncio.run(jobs.recover(stage.no))
    interrupted = {n for n, line in jobs.kept[stage.no].lines.items() if line.interrupted}
    assert not interrupted & set(range(1, 6)) and interrupted >= {6, 7, 8}


# The end of a job.


@pytest.mark.parametrize("field", ["cancel_ns", "expired_ns"])
def test_an_end_lets_finish_what_is_asked_and_gives_the_rest_its_end(field: str) -> None:
    """Nothing new is asked; lines that were to be asked again end, too."""

    def tells(n: int, tries: int) -> Told:
        return Told(1.0, throttled(30.0)) if n == 2 else Told(4.0)

    stage = Stage(2_500, tells, concurrency=8)
    assert stage.run((5.0, lambda: stage.change(**{field: 1})))
    asked = {one.n for one in stage.lane.asked}
    assert all(one.at <= 5.0 for one in stage.lane.asked)
    assert {n for n, state in stage.ends.items() if state is DONE} == asked - {2}
    cancelled = {n for n, state in stage.ends.items() if state is CANCELLED}
    assert cancelled == (set(range(1, 2_501)) - asked) | {2}
    assert stage.job.left == 0


def test_what_fails_after_the_end_was_decided_is_not_asked_again() -> None:
    """It has the end of those that were not asked."""
    stage = Stage(20, lambda n, tries: Told(4.0, throttled() if n == 1 else None), concurrency=4)
    assert stage.run((2.0, lambda: stage.change(cancel_ns=1)))
    assert stage.lane.times(1) == [0.0]
    assert stage.ends[1] is CANCELLED and stage.job.done == 3


def test_one_that_is_called_off_asks_nothing_more_and_waits_for_what_it_has_asked() -> None:
    """All else waits for the next owner."""
    stage = Stage(100, lambda n, tries: Told(4.0))
    assert not stage.run((5.0, stage.runner.call_off))
    assert all(one.at < 5.0 for one in stage.lane.asked)
    assert sorted(stage.ends) == sorted(one.n for one in stage.lane.asked)
    assert stage.clock.monotonic() < 9
    assert stage.pauses == []


def test_one_that_is_broken_off_lets_all_wait_again() -> None:
    """Also what it has asked: none of it was interrupted, and the next owner asks it."""
    stage = Stage(50, lambda n, tries: Told(2.0 if n <= 8 else 50.0))
    assert not stage.run((5.0, stage.runner.call_off), (6.0, stage.runner.break_off))
    assert stage.clock.monotonic() < 7
    assert sorted(stage.ends) == list(range(1, 9))
    stage.jobs = stage.jobs.died()
    assert asyncio.run(stage.jobs.recover(stage.no)) == []
    assert stage.job.interrupted == 0
    stage.lane.tells = well
    stage.anew()
    assert stage.run()
    assert all_done(stage)


# Trouble with the store.


def test_an_answer_that_finds_no_room_is_kept_until_there_is() -> None:
    """Each was paid, so none is asked again; its place is not free before, so no more are asked."""
    stage = Stage(100, concurrency=4)
    stage.jobs.refuses.add("spool")
    asked = []

    def mend() -> None:
        asked.append(len(stage.lane.asked))
        stage.jobs.refuses.clear()

    assert stage.run((50.0, mend))
    assert asked == [4]
    assert all_done(stage) and len(stage.lane.asked) == 100
    assert stage.pauses == []


def test_it_is_kept_also_where_not_even_the_pause_can_be_written_down() -> None:
    """After minutes of a full disk."""
    stage = Stage(100, lambda n, tries: Told(1.0, throttled(40.0) if n == 4 and not tries else None), 4)
    refused = ("spool", "finish", "claim", "change", "release")
    with suppress(StorageUnavailable):
        stage.run((0.5, lambda: stage.jobs.refuses.update(refused)), (300.0, stage.jobs.refuses.clear))
    assert sorted(stage.ends) == [1, 2, 3]
    assert stage.job.pause is not None and stage.job.pause.word == "storage"
    stage.anew()
    assert stage.run()
    assert all_done(stage) and len(stage.lane.asked) == 101


@pytest.mark.parametrize("method", ["finish", "claim"])
def test_a_store_that_refuses_for_a_while_loses_nothing(method: str) -> None:
    """No line is asked twice, and none is left."""
    stage = Stage(300, concurrency=20)
    assert stage.run(
        (2.0, lambda: stage.jobs.refuses.add(method)),
        (12.0, stage.jobs.refuses.clear),
    )
    assert all_done(stage) and len(stage.lane.asked) == 300


def test_a_last_look_that_the_store_refuses_is_no_end() -> None:
    """A line was let go meanwhile: it is found, as soon as anything is."""
    stage = Stage(4)
    kept = stage.jobs.kept[stage.no]

    def add() -> None:
        kept.lines[2].end, kept.spools[1].ends = None, [one for one in kept.spools[1].ends if one[0].n != 2]
        stage.jobs.refuses.add("claim")

    stage.tells = stage.lane.tells = lambda n, tries: Told(1.0 if n < 4 else 3.0)
    assert stage.run((2.0, add), (6.0, stage.jobs.refuses.clear))
    assert all_done(stage)
    assert len(stage.lane.times(2)) == 2


def test_a_line_that_cannot_be_noted_is_not_asked() -> None:
    """The run is over with the reason; what was asked before has its end."""
    stage = Stage(100, concurrency=4)
    with pytest.raises(StorageUnavailable):
        stage.run((3.5, lambda: stage.jobs.refuses.add("begin")))
    assert all(one.at < 3.5 for one in stage.lane.asked)
    assert sorted(stage.ends) == sorted(one.n for one in stage.lane.asked)
    stage.jobs.refuses.clear()
    stage.anew()
    assert stage.run()
    assert all_done(stage) and len(stage.lane.asked) == 100


def test_lines_that_cannot_be_let_go_leave_nothing_unmarked() -> None:
    """Whoever works the job next would ask what has its end already."""
    stage = Stage(100, concurrency=4)
    stage.jobs.refuses.add("release")
    with pytest.raises(StorageUnavailable):
        stage.run((3.001, stage.runner.call_off))
    assert len(stage.ends) == len(stage.lane.asked) > 0
    stage.jobs.refuses.clear()
    stage.anew()
    assert stage.run()
    assert all_done(stage) and len(stage.lane.asked) == 100


def test_one_that_is_called_off_does_not_wait_for_a_store_that_refuses() -> None:
    """What is spooled is marked by the next owner; also while the rest was given its end."""
    stage = Stage(100, concurrency=4)
    stage.jobs.refuses.add("finish")
    with suppress(StorageUnavailable):
        stage.run((3.2, lambda: stage.change(cancel_ns=1)), (60.0, stage.runner.call_off))
    assert stage.clock.monotonic() < 70
    stage.jobs = stage.jobs.died()
    asyncio.run(stage.jobs.recover(stage.no))
    assert 16 < len(stage.ends) < 100
    stage.anew()
    stage.change(cancel_ns=1)
    assert stage.run()
    assert (stage.job.done, stage.job.cancelled) == (16, 84)


class Broken(MemoryJobs):
    """A store with a bug."""

    async def finish(self, no: int, spooled: Sequence[Spooled]) -> None:
        raise ZeroDivisionError


def test_a_bug_where_ends_are_marked_stops_the_run() -> None:
    """It is told, and nobody waits for ever."""
    stage = Stage(10, jobs=Broken())
    with pytest.raises(ZeroDivisionError):
        stage.run()
    assert stage.clock.monotonic() < 60


class BrokenDisk(MemoryJobs):
    """A store whose disk has given an error: at once it is said of these methods that nothing can be done."""

    broken: Sequence[str] = ()

    async def spool(self, no: int, finished: Finished) -> Spooled:
        if "spool" in self.broken:
            raise StorageBroken("restart")
        return await super().spool(no, finished)

    async def finish(self, no: int, spooled: Sequence[Spooled]) -> None:
        if "finish" in self.broken:
            raise StorageBroken("restart")
        await super().finish(no, spooled)


@pytest.mark.parametrize("method", ["spool", "finish"])
def test_a_disk_that_is_broken_is_not_waited_for(method: str) -> None:
    """F30: the run is over with the reason; trying again would have the kernel say that all is well."""
    jobs = BrokenDisk()
    stage = Stage(100, concurrency=4, jobs=jobs)
    with pytest.raises(StorageBroken, match="restart"):
        stage.run((2.5, lambda: setattr(jobs, "broken", [method])))
    assert stage.clock.monotonic() < 10
    stage.jobs = jobs.died()
    asyncio.run(stage.jobs.recover(stage.no))
    stage.anew()
    assert stage.run()
    assert all_done(stage)


def test_a_bug_where_lines_are_asked_stops_the_run() -> None:
    """Those that were asked beside it finish."""

    def tells(n: int, tries: int) -> Told:
        if n == 3:
            raise ZeroDivisionError
        return Told()

    stage = Stage(100, tells, concurrency=4)
    with pytest.raises(ZeroDivisionError):
        stage.run()
    assert 3 in stage.waiting and len(stage.waiting) >= 90


# Anything.

ERRORS: list[Callable[[], TiergateError]] = [
    throttled,
    lambda: throttled(3.0),
    lambda: throttled(100.0),
    fault,
    lambda: UpstreamTimeout("slow", phase="total"),
    lambda: UpstreamProtocolError("odd"),
    lambda: UpstreamRejected("no", status=400),
    lambda: UpstreamAuthFailed("refused"),
    lambda: UpstreamThrottled("no funds", quota=True),
    lambda: BudgetBusy("held"),
    lambda: BudgetExceeded("too much", budget="b"),
    lambda: BudgetExceeded("too much", budget="b", until_ns=1),
    lambda: StorageUnavailable("full"),
    lambda: InvalidKey("gone"),
]
TOLD = st.builds(
    Told,
    after_s=st.floats(0, 20),
    error=st.none() | st.sampled_from(ERRORS).map(lambda make: make()),
)
REFUSED = st.sampled_from(["spool", "finish", "claim", "begin", "release", "change"])


@given(
    lines=st.lists(st.lists(TOLD, max_size=4), min_size=1, max_size=25),
    concurrency=st.integers(1, 8),
    deaths=st.lists(st.floats(0, 60), max_size=3),
    refused=st.lists(st.tuples(st.floats(0, 60), REFUSED), max_size=3),
    cancelled=st.none() | st.floats(0, 60),
)
def test_any_weather_comes_to_an_end(
    lines: list[list[Told]],
    concurrency: int,
    deaths: list[float],
    refused: list[tuple[float, str]],
    cancelled: float | None,
) -> None:
    """Each line has one end, however often its owners die, and whatever is mended in between."""

    def tells(n: int, tries: int) -> Told:
        told = lines[n - 1]
        return told[tries] if tries < len(told) else Told()

    stage = Stage(len(lines), tells, concurrency)

    async def live(die_after_s: float | None) -> bool:
        """Work until the end of a run, or die; True: every line has its end."""
        loop = asyncio.get_running_loop()
        for second, method in refused if die_after_s is not None else ():
            loop.call_later(second, stage.jobs.refuses.add, method)
            loop.call_later(second + 10, stage.jobs.refuses.discard, method)
        if cancelled is not None:
            loop.call_later(cancelled, lambda: stage.change(cancel_ns=1))
        run = asyncio.create_task(stage.runner.run())
        _, left = await asyncio.wait([run], timeout=die_after_s)
        if left:
            after = stage.jobs.died()
            stage.runner.break_off()
            run.cancel()
            await asyncio.gather(run, return_exceptions=True)
            stage.jobs = after
            await stage.jobs.recover(stage.no)
            return False
        stage.jobs.refuses.clear()
        try:
            return run.result() and stage.job.left <= 0
        except StorageUnavailable:
            return False

    async def lives() -> None:
        async with asyncio.timeout(100 * TOO_LONG_S):
            for die_after_s in deaths:
                if await live(die_after_s):
                    return
                stage.anew()
            while not await live(None):
                assert len(stage.pauses) < 200
                stage.anew()

    run_virtual(lives(), clock=stage.clock)
    assert len(stage.ends) == len(lines)
    assert stage.job.left == 0
    assert stage.lane.most <= concurrency
