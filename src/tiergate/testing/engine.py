"""The engine of `capacity` at work in an event loop: its steps happen at their times, on any loop's clock."""

import asyncio
from collections.abc import Callable, Sequence

from tiergate.capacity import Arrival, Engine, EngineModel, EngineStatistics, Entrance
from tiergate.testing.steps import Token


class EngineRunner:
    """One engine for many answers. A timer waits for the end of each step while there is work."""

    def __init__(self, model: EngineModel, loop: asyncio.AbstractEventLoop) -> None:
        self._engine = Engine(model)
        self._loop = loop
        self._owners: dict[int, tuple[EnginePace, int]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._next_id = 0

    def submit(self, prompt_tokens: int, tokens: Sequence[int]) -> "EnginePace | Entrance":
        """Let an answer in, one sequence for each choice; or say why it cannot come in."""
        now = self._loop.time()
        self._step(now)
        pace = EnginePace(self, self._loop, len(tokens))
        for choice, wanted in enumerate(tokens):
            self._next_id += 1
            entrance = self._engine.submit(Arrival(self._next_id, now, prompt_tokens, max(1, wanted)))
            if entrance is not Entrance.ACCEPTED:
                pace.cancel()
                return entrance
            self._owners[self._next_id] = (pace, choice)
            pace.ids.append(self._next_id)
        self._wind()
        return pace

    def cancel(self, ids: Sequence[int]) -> None:
        """Take sequences out; their slots go to those who wait."""
        for each in ids:
            if self._owners.pop(each, None) is not None:
                self._engine.cancel(each)

    def statistics(self) -> EngineStatistics:
        """Count what the engine holds now."""
        self._step(self._loop.time())
        return self._engine.statistics()

    def _tick(self) -> None:
        self._timer = None
        self._step(self._loop.time())
        self._wind()

    def _step(self, now: float) -> None:
        for token in self._engine.advance(now):
            owner = self._owners.get(token.id)
            if owner is not None:
                pace, choice = owner
                pace.note(choice, token.number)
                if token.last:
                    del self._owners[token.id]

    def _wind(self) -> None:
        if self._timer is None and (at := self._engine.next_step_at) is not None:
            self._timer = self._loop.call_at(at, self._tick)


class EnginePace:
    """The tokens of one answer, as the engine gives them."""

    def __init__(self, runner: EngineRunner, loop: asyncio.AbstractEventLoop, choices: int) -> None:
        self.ids: list[int] = []
        self._runner = runner
        self._loop = loop
        self._given = [0] * choices
        self._wait: tuple[Token, Callable[[], None]] | None = None
        self._waking: asyncio.Handle | None = None

    def note(self, choice: int, number: int) -> None:
        """Take a token from the engine, and wake whoever waits for it."""
        self._given[choice] = number
        if self._wait is not None and self.reached(self._wait[0]):
            # Soon, not now: whoever wakes may cancel or submit, and the engine is still giving out tokens.
            self._waking = self._loop.call_soon(self._wait[1])
            self._wait = None

    def reached(self, token: Token) -> bool:
        """Say whether the token has left."""
        return self._given[token.choice] >= token.number

    def when(self, token: Token, resume: Callable[[], None]) -> None:
        """Call `resume` when the token has left."""
        self._wait = (token, resume)

    def given(self) -> int:
        """Count the tokens that have left."""
        return sum(self._given)

    def cancel(self) -> None:
        """Leave the engine."""
        self._wait = None
        if self._waking is not None:
            self._waking.cancel()
        self._runner.cancel(self.ids)
