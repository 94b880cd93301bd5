"""When each token of an answer leaves, seen from the one who waits for it."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from tiergate.testing.steps import Token


class Pace(Protocol):
    """The tokens of one answer, leaving one by one. At most one wait at a time."""

    def reached(self, token: Token) -> bool:
        """Say whether the token has left."""
        ...

    def when(self, token: Token, resume: Callable[[], None]) -> None:
        """Call `resume` once, when the token has left."""
        ...

    def given(self) -> int:
        """Count the tokens that have left, of all choices."""
        ...

    def cancel(self) -> None:
        """Stop: nobody waits any more, and nothing more is generated."""
        ...


class TimedPace:
    """The pace of a hosted API: a first token, then one in every gap, whatever the load. Times in seconds."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, *, ttft_s: float, gap_s: float, tokens: Sequence[int]
    ) -> None:
        self._loop = loop
        self._first_at = loop.time() + ttft_s
        self._gap_s = gap_s
        self._tokens = tokens
        self._at_once = ttft_s == 0 and gap_s == 0
        self._timer: asyncio.TimerHandle | None = None

    def reached(self, token: Token) -> bool:
        """Say whether the token is due, to the millisecond: event loops do not wake more exactly."""
        return self._at_once or self._due_at(token) <= self._loop.time() + 0.001

    def when(self, token: Token, resume: Callable[[], None]) -> None:
        """Call `resume` at the token's time, which does not shift when earlier ones were late."""
        self._timer = self._loop.call_at(self._due_at(token), resume)

    def given(self) -> int:
        """Count the tokens whose time has come."""
        since = self._loop.time() - self._first_at
        if since < 0:
            return 0
        due = int(since / self._gap_s) + 1 if self._gap_s else max(self._tokens, default=0)
        return sum(min(tokens, due) for tokens in self._tokens)

    def cancel(self) -> None:
        """Drop the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def _due_at(self, token: Token) -> float:
        return self._first_at + (token.number - 1) * self._gap_s
