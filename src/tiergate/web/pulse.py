"""Heartbeats: a comment in a stream that has been silent, so that nobody on the way takes it for dead.

It begins before the first content. Headers then leave with the first heartbeat, and the target of the call
may still change: a comment says nothing, and every client of the format passes over it.
"""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Final

from tiergate.serve import CallerLeft
from tiergate.web.visit import Headers, Visit

COMMENT: Final = b": waiting\n\n"


class Pulse:
    """A context around a streamed answer; whoever writes to the visit says so, and waits for its rest.

    Args:
        visit: the way to the client.
        every_s: the silence after which a heartbeat is sent; None: none is.
        headers: gives those of the answer, where the first heartbeat begins it.
    """

    __slots__ = ("_every_s", "_headers", "_loop", "_owner", "_task", "_timer", "_visit", "error", "written")

    def __init__(self, visit: Visit, *, every_s: float | None, headers: Callable[[], Headers]) -> None:
        self._visit = visit
        self._every_s = every_s
        self._headers = headers
        self._loop = asyncio.get_running_loop()
        self._owner = asyncio.current_task()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self.written = self._loop.time()
        """When something was sent last, on the loop's clock."""
        self.error: BaseException | None = None
        """Why a heartbeat could not be sent; the owner was cancelled for it."""

    def mark_written(self) -> None:
        """Note that something was sent."""
        self.written = self._loop.time()

    @property
    def is_beating(self) -> bool:
        """Whether a heartbeat is being sent."""
        return self._task is not None and not self._task.done()

    async def rest(self) -> None:
        """Wait until a heartbeat that is being sent has gone: two must not write at one time."""
        if self._task is not None and not self._task.done():
            await asyncio.wait({self._task})

    def __enter__(self) -> "Pulse":
        if self._every_s is not None:
            self._timer = self._loop.call_later(self._every_s, self._look, self._every_s)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _look(self, every_s: float) -> None:
        # One timer for the whole stream: it is moved on when it fires, not with every event.
        silent_s = self._loop.time() - self.written
        if silent_s >= every_s:
            self._task = self._loop.create_task(self._beat())
            silent_s = 0.0
        self._timer = self._loop.call_later(every_s - silent_s, self._look, every_s)

    async def _beat(self) -> None:
        visit = self._visit
        try:
            if not visit.started:
                await visit.start(200, self._headers())
            await visit.write(COMMENT)
            self.mark_written()
        except CallerLeft as error:
            self.error = error
            if self._owner is not None:
                self._owner.cancel()
