"""Where a script is played: a request comes in, a scene comes out, and its end is written down."""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from tiergate.capacity import EngineStatistics, Entrance
from tiergate.core import Clock, InvalidRequest, SettingsError, SystemClock
from tiergate.testing.answer import Answer, compose
from tiergate.testing.ask import TOKENS_MAX, Ask
from tiergate.testing.behaviour import Behaviour
from tiergate.testing.engine import EnginePace, EngineRunner
from tiergate.testing.limits import Allowing
from tiergate.testing.log import Ended, LogEntry, MockStatistics, RequestLog
from tiergate.testing.pace import Pace, TimedPace
from tiergate.testing.performance import perform
from tiergate.testing.player import Cue, Player, Visit
from tiergate.testing.replay import Replays, in_ids
from tiergate.testing.script import Script
from tiergate.testing.steps import Step

_WINDOW_S: Final = 60.0


class Stage:
    """Plays one script for one server, in one event loop."""

    def __init__(self, script: Script, loop: asyncio.AbstractEventLoop, clock: Clock | None = None) -> None:
        self.script = script
        self.log = RequestLog()
        self._loop = loop
        self._clock = clock or SystemClock()
        self._player = Player(script)
        self._runner = None if script.engine is None else EngineRunner(script.engine, loop)
        self._rate = None if script.rpm is None else _Rate(script.rpm)
        self._allowing = None if script.limits is None else Allowing(script.limits)
        self._number = 0
        self._replays = Replays(self._clock) if _is_steady(script) else None

    def open(
        self,
        read: Callable[[], Ask],
        *,
        path: str,
        headers: Mapping[str, str],
        body_bytes: int = 0,
        connection: int = 0,
    ) -> "Scene":
        """Begin the answer to a chat completion. `read` may raise `InvalidRequest`, which is answered 400."""
        self._number += 1
        entry = LogEntry(
            number=self._number,
            at_s=self._clock.wall_ns() / 1e9,
            started=self._loop.time(),
            path=path,
            raw_headers=headers,
            body_bytes=body_bytes,
            connection=connection,
        )
        behaviour, answer, pace = self._decide(read, entry)
        self.log.open(entry)
        return Scene(self, entry, behaviour, answer, pace)

    def open_other(self, *, path: str, headers: Mapping[str, str], connection: int) -> "Scene | None":
        """Begin the answer to another path, if a rule breaks it; None: the server answers as it is."""
        cue = self._player.rule_for(path, headers)
        if cue is None or cue.behaviour.answers:
            return None
        self._number += 1
        entry = LogEntry(
            number=self._number,
            at_s=self._clock.wall_ns() / 1e9,
            started=self._loop.time(),
            path=path,
            raw_headers=headers,
            body_bytes=0,
            connection=connection,
        )
        self.log.open(entry)
        return Scene(self, entry, cue.behaviour, None, None)

    def replay(self, request: bytes, connection: int) -> bytes | None:
        """Give the reply to a request whose bytes came before, if it is certain to be the same."""
        found = None if self._replays is None else self._replays.find(request)
        if found is None:
            return None
        before, parts = found
        self._number += 1
        entry = LogEntry(
            number=self._number,
            at_s=self._clock.wall_ns() / 1e9,
            started=before.started,
            path=before.path,
            raw_headers=before.raw_headers,
            body_bytes=before.body_bytes,
            connection=connection,
            model=before.model,
            streamed=before.streamed,
            prompt_tokens=before.prompt_tokens,
            status=before.status,
        )
        self.log.open(entry)
        self.log.close(entry, before.ended, tokens=before.tokens, now=before.started)
        return in_ids(self._number).encode().join(parts)

    def keep(self, scene: "Scene", request: bytes, reply: bytes) -> None:
        """Take in the bytes of a whole request and of its whole reply."""
        if self._replays is not None and scene.behaviour is self.script.default:
            self._replays.keep(request, scene.entry, reply)

    def statistics(self) -> MockStatistics:
        """Count what happened so far."""
        return self.log.statistics()

    def engine_statistics(self) -> EngineStatistics | None:
        """Count what the engine holds; None without one."""
        return None if self._runner is None else self._runner.statistics()

    def now(self) -> float:
        """Seconds on the event loop's clock."""
        return self._loop.time()

    def _decide(
        self, read: Callable[[], Ask], entry: LogEntry
    ) -> tuple[Behaviour, Answer | None, Pace | None]:
        try:
            ask = read()
        except InvalidRequest as error:
            return _refusal(400, str(error), param=error.param), None, None
        entry.model, entry.streamed, entry.prompt_tokens = ask.model, ask.streamed, ask.prompt_tokens
        visit = Visit(
            path=entry.path,
            headers=entry.raw_headers,
            model=ask.model,
            streamed=ask.streamed,
            wish=ask.wish,
        )
        try:
            cue = self._player.choose(visit)
        except SettingsError as error:
            return _refusal(400, str(error), code="mock_script"), None, None
        if self.script.models and ask.model not in self.script.models:
            return _refusal(404, f"The model {ask.model!r} does not exist."), None, None
        if self._rate is not None and (wait_s := self._rate.wait_s(self._loop.time())) > 0:
            return _throttled(wait_s), None, None
        return self._answer(ask, cue)

    def _answer(self, ask: Ask, cue: Cue) -> tuple[Behaviour, Answer | None, Pace | None]:
        behaviour = cue.behaviour
        answer = compose(
            ask,
            behaviour,
            seed=self.script.seed,
            id=f"chatcmpl-{in_ids(self._number)}",
            created=self._clock.wall_ns() // 1_000_000_000,
        )
        if self._allowing is not None:
            granted = self._allowing.ask(ask.model, _tokens_counted(ask, answer), self._loop.time())
            if granted.wait_s:
                return _with_headers(_throttled(granted.wait_s), granted.headers), None, None
            behaviour = _with_headers(behaviour, granted.headers)
        if not behaviour.answers:
            return behaviour, answer, None
        tokens = [choice.tokens for choice in answer.choices]
        if self._runner is None:
            timed = TimedPace(self._loop, ttft_s=cue.ttft_s, gap_s=cue.gap_s, tokens=tokens)
            return behaviour, answer, timed
        given = self._runner.submit(ask.prompt_tokens, tokens)
        if isinstance(given, EnginePace):
            return behaviour, answer, given
        return _engine_refusal(given), None, None


@dataclass(slots=True)
class Scene:
    """One answer on its way. Whoever plays its steps says how it ended, once."""

    stage: Stage
    entry: LogEntry
    behaviour: Behaviour
    answer: Answer | None
    pace: Pace | None

    def steps(self) -> Iterator[Step]:
        """Give what is to be done, step by step."""
        return perform(self.behaviour, self.answer, f"req-{in_ids(self.entry.number)}")

    def finish(self, how: Ended) -> None:
        """Write down how it ended; the engine is freed. Later calls change nothing."""
        if self.entry.ended is not Ended.IN_FLIGHT:
            return
        tokens = 0
        if self.pace is not None:
            complete = how is Ended.COMPLETED and self.answer is not None
            tokens = self.answer.tokens if complete and self.answer is not None else self.pace.given()
            self.pace.cancel()
        self.stage.log.close(self.entry, how, tokens=tokens, now=self.stage.now())


class _Rate:
    """At most so many requests in any 60 seconds."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._times: deque[float] = deque()

    def wait_s(self, now: float) -> float:
        """Let a request in and give 0, or give the seconds until one can come in."""
        while self._times and self._times[0] <= now - _WINDOW_S:
            self._times.popleft()
        if len(self._times) < self._per_minute:
            self._times.append(now)
            return 0.0
        return self._times[0] + _WINDOW_S - now if self._times else _WINDOW_S


def _is_steady(script: Script) -> bool:
    """Whether the same request is always answered the same way, its number in plain sight."""
    default = script.default
    drawn = default.error_rate or default.truncate_rate
    hidden = default.encode or default.one_byte_chunks
    return not (script.rules or script.rpm or script.limits or script.engine or drawn or hidden)


def _tokens_counted(ask: Ask, answer: Answer) -> int:
    """Give what a request counts before it is answered: what it allows of output, not what it gets."""
    output = answer.tokens if ask.tokens_max == TOKENS_MAX else ask.tokens_max * ask.choices
    return ask.prompt_tokens + output


def _with_headers(behaviour: Behaviour, headers: Mapping[str, str]) -> Behaviour:
    return replace(behaviour, headers={**headers, **behaviour.headers})


def _refusal(status: int, message: str, **more: str | None) -> Behaviour:
    return Behaviour(status=status, error={"message": message, **more})


def _throttled(wait_s: float) -> Behaviour:
    return replace(
        _refusal(429, "Rate limit of the mock reached."),
        headers={"retry-after": math.ceil(wait_s), "retry-after-ms": math.ceil(wait_s * 1_000)},
    )


def _engine_refusal(entrance: Entrance) -> Behaviour:
    if entrance is Entrance.TOO_LONG:
        return _refusal(
            400,
            "Prompt and output are longer than the engine's cache.",
            param="messages",
            code="context_length_exceeded",
        )
    full = _refusal(503, "The engine's queue is full.", code="queue_full")
    return replace(full, headers={"retry-after": 1})
