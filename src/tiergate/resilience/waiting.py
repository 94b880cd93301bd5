"""Who waits for a place at a provider: interactive calls before batch, the newest first when it is late."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from tiergate.core import CallClass
from tiergate.resilience.learned import Entered

_LATE: Final = 0.5
"""Who has waited so much of the time that it allows shows that not everybody will be served in time."""


@dataclass(slots=True, eq=False, kw_only=True)
class Waiter:
    """One that waits, until a moment; `place` is done when it has got one, or was sent away."""

    model: str
    tokens: int
    call_class: CallClass
    since: float
    until: float
    place: asyncio.Future[Entered] = field(repr=False)


class WaitingLine:
    """The line in front of one provider."""

    __slots__ = ("_batch", "_interactive", "_lines")

    def __init__(self) -> None:
        self._interactive: list[Waiter] = []
        self._batch: list[Waiter] = []
        self._lines = {CallClass.INTERACTIVE: self._interactive, CallClass.BATCH: self._batch}
        """In the order in which they are served."""

    def __bool__(self) -> bool:
        # Asked for by every call; how many they are is asked for only where there are some.
        return bool(self._interactive or self._batch)

    def __len__(self) -> int:
        return sum([not waiter.place.done() for line in self._lines.values() for waiter in line])

    def tokens(self) -> int:
        """Give what all of them together may use."""
        return sum(waiter.tokens for line in self._lines.values() for waiter in line)

    def stands_before(self, call_class: CallClass) -> bool:
        """Tell whether anybody waits who goes before one of this class that comes now."""
        return bool(self._interactive or (call_class is not CallClass.INTERACTIVE and self._batch))

    def join(self, waiter: Waiter) -> None:
        """Stand at the end of the line of one's class."""
        self._lines[waiter.call_class].append(waiter)

    def leave(self, waiter: Waiter) -> bool:
        """Go out of the line; False: it was not in it any more."""
        line = self._lines[waiter.call_class]
        if waiter not in line:
            return False
        line.remove(waiter)
        return True

    def youngest_batch(self) -> Waiter | None:
        """Give the batch call that came last: it goes where there is no room for an interactive one."""
        waiting = (waiter for waiter in reversed(self._batch) if not waiter.place.done())
        return next(waiting, None)

    def in_order(self, now: float) -> Iterator[Waiter]:
        """Give those that may still be served, in the order in which places are given.

        One whose time is over is left out: after a pause of this process its own timer may come later.
        """
        for line in self._lines.values():
            standing = [waiter for waiter in line if now <= waiter.until and not waiter.place.done()]
            # When the first will hardly be served in time, serving the newest loses one and not all of them.
            is_late = bool(standing) and now - standing[0].since > _LATE * (
                standing[0].until - standing[0].since
            )
            yield from reversed(standing) if is_late else standing
