"""Time in the hand of a test: a clock that only moves when told, and an event loop that lives on it."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

_T = TypeVar("_T")
_START_NS: Final = 1_767_225_600_000_000_000
"""2026-01-01 00:00:00 UTC."""
_PATIENCE_S: Final = 1.0
"""Real seconds to wait for a thread before a coroutine is called stuck."""


class FakeClock:
    """A `Clock` that stands still until it is moved. Wall time may also jump on its own, as real clocks do.

    >>> clock = FakeClock()
    >>> clock.advance(1.5)
    >>> clock.jump_wall(-3600)
    >>> clock.monotonic()
    1.5
    """

    def __init__(self, *, wall_ns: int = _START_NS) -> None:
        self._monotonic = 0.0
        self._wall_start_ns = wall_ns

    def monotonic(self) -> float:
        """Seconds since the clock was made."""
        return self._monotonic

    def wall_ns(self) -> int:
        """Nanoseconds since 1970; starts at the beginning of 2026 unless told otherwise."""
        return self._wall_start_ns + round(self._monotonic * 1e9)

    def advance(self, seconds: float) -> None:
        """Let time pass, on both clocks."""
        if not seconds >= 0:
            raise ValueError("monotonic time never goes back; jump_wall does")
        self._monotonic += seconds

    def jump_wall(self, seconds: float) -> None:
        """Set the wall clock forward or back; no time passes."""
        self._wall_start_ns += round(seconds * 1e9)


class NothingWillHappen(Exception):
    """The coroutine waits, and there is no timer that could ever wake it."""


def run_virtual(main: Coroutine[Any, Any, _T], *, clock: FakeClock | None = None) -> _T:
    """Run a coroutine like `asyncio.run`, in virtual time: an hour of sleep takes no time at all.

    The loop's time is the clock's. Whenever every task waits, the clock jumps to the next timer, so sleeps,
    time-outs and deadlines happen in their order and at exactly their time. Sockets and threads live in real
    time and do not belong in here: while they work, the clock would run ahead of them.

    Raises:
        NothingWillHappen: every task waits and no timer is set.

    >>> clock = FakeClock()
    >>> run_virtual(asyncio.sleep(3600), clock=clock)
    >>> clock.monotonic()
    3600.0
    """
    with asyncio.Runner(loop_factory=lambda: _VirtualLoop(clock or FakeClock())) as runner:
        return runner.run(main)


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        super().__init__(_JumpingSelector(clock))

    def time(self) -> float:
        return self._clock.monotonic()


class _JumpingSelector(selectors.DefaultSelector):
    """Waits by moving the clock. The loop asks it to wait until the next timer, and for nothing longer."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready:
            return ready
        if timeout is None:
            # No timer: only another thread can still wake the loop (asyncio.to_thread, say).
            ready = super().select(_PATIENCE_S)
            if not ready:
                raise NothingWillHappen("every task waits, and no timer will ever wake one")
        elif timeout > 0:
            self._clock.advance(timeout)
        return ready
