"""What the event loop hands to the writing thread, and the bell that wakes it."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from tiergate.ledger import Ask
from tiergate.store.books import Books
from tiergate.store.rows import Row

Answer = asyncio.Future[None]
Work = Callable[[Books], object]


class HoldMessage(NamedTuple):
    """A hold with its call's row; refused when it is not committed by `until` (monotonic seconds)."""

    call: Row
    hold: Row
    answer: Answer
    until: float
    receipt: Row | None = None
    ask: Ask | None = None
    """What it counts against, where the store says whether it fits."""


class SettleMessage(NamedTuple):
    """A settlement; `kept`: what becomes of the call's receipt, where this brings the answer to it."""

    row: Row
    kept: Row | None = None


class EndMessage(NamedTuple):
    """The end of a call; `freed`: what becomes of its receipt, where it brought no answer."""

    row: Row
    freed: Row | None = None


class FlushMessage(NamedTuple):
    """Wants an answer when everything before it is committed."""

    answer: Answer


class WorkMessage(NamedTuple):
    """Something else to do with the books, in transactions of its own."""

    work: Work
    answer: Answer


class StopMessage(NamedTuple):
    """No message follows; what waits is written until `by` (monotonic seconds)."""

    by: float


Message = HoldMessage | SettleMessage | EndMessage | FlushMessage | WorkMessage | StopMessage


class Inbox:
    """Messages in order, from any thread to the one that waits.

    Somebody awaits a hold, so it wakes the thread at once. Nobody awaits a settlement: the first one wakes
    the thread, which then lingers for a hold to share the commit with; the others do not wake it again.
    """

    def __init__(self) -> None:
        self._messages: deque[Message] = deque()
        self._bell = _Bell()
        self._awaited = False

    def put(self, message: Message) -> None:
        """Hand in a message that nobody awaits."""
        self._messages.append(message)
        if len(self._messages) == 1:
            self._bell.ring()

    def put_awaited(self, message: Message) -> None:
        """Hand in a message that somebody awaits."""
        self._messages.append(message)
        self._awaited = True
        self._bell.ring()

    def take(self, *, wait_s: float, linger_s: float) -> list[Message]:
        """Wait for messages, at most so long, and take them all; may be none."""
        if self._bell.wait(wait_s) and not self._awaited:
            self._bell.wait(linger_s)
        # In this order: a message that comes in between is taken now and rings for nothing later.
        self._awaited = False
        return [self._messages.popleft() for _ in range(len(self._messages))]


class _Bell:
    """Any thread rings, one waits; ringing before the wait is not lost, ringing twice counts as once.

    A bare lock that is held while the bell is silent. `threading.Event` makes a lock for each wait, and its
    `set` costs several times as much on the side of the event loop.
    """

    def __init__(self) -> None:
        self._silence = threading.Lock()
        self._silence.acquire()

    def ring(self) -> None:
        if self._silence.locked():
            try:
                self._silence.release()
            except RuntimeError:
                return  # another thread rang in between

    def wait(self, timeout_s: float) -> bool:
        return self._silence.acquire(timeout=timeout_s)
