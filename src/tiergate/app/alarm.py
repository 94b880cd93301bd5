"""The alarm of fast spending: hears what each call has cost, and says when a key spends more than it should.

It counts what this process sees, from its start: each replica counts for itself, and a restart begins anew.
"""

from collections.abc import Callable

from tiergate.core import CallEnded, Emit, Event, SpendingFast
from tiergate.ledger import Velocity


class SpendAlarm:
    """A sink for events that tells of keys that spend fast.

    Args:
        limit_nanos: what one may spend within an hour; None: as much as it likes.
        monotonic: seconds.
        emit: hears of it.
    """

    def __init__(self, limit_nanos: int | None, *, monotonic: Callable[[], float], emit: Emit) -> None:
        self._limit_nanos = limit_nanos
        self._monotonic = monotonic
        self._emit = emit
        self._velocity = Velocity()

    def use(self, limit_nanos: int | None) -> None:
        """Take another limit; what was spent stays counted, unless there was none."""
        self._limit_nanos = limit_nanos

    def __call__(self, event: Event) -> None:
        """Take an event. Returns at once."""
        limit_nanos = self._limit_nanos
        if limit_nanos is None or not isinstance(event, CallEnded) or not event.cash_nanos:
            return
        spent_nanos = self._velocity.add(
            event.key, event.cash_nanos, now_s=self._monotonic(), limit_nanos=limit_nanos
        )
        if spent_nanos is not None:
            self._emit(SpendingFast(key=event.key, spent_nanos=spent_nanos, limit_nanos=limit_nanos))
