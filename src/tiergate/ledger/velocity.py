"""How fast keys spend: what each has cost within the last hour, and when somebody should hear of it. Pure.

Costs are put into buckets of five minutes. The last hour is the bucket of now and the eleven before it: what
is counted was spent within 60 minutes for certain, and what was spent in the first five of those may be left
out. So an alarm is never false, and a burst that only just passes the limit may go unheard.
"""

from collections import OrderedDict, deque
from typing import Final

BUCKET_S: Final = 300
HOUR_S: Final = 3_600
KEYS_MAX: Final = 10_000
_BUCKETS: Final = HOUR_S // BUCKET_S


class _Spending:
    """What one key has spent: buckets with their numbers, the oldest first, and their sum."""

    __slots__ = ("buckets", "told_s", "total_nanos")

    def __init__(self) -> None:
        self.buckets: deque[tuple[int, int]] = deque()
        self.total_nanos = 0
        self.told_s: float | None = None

    def add(self, nanos: int, bucket: int) -> None:
        while self.buckets and self.buckets[0][0] <= bucket - _BUCKETS:
            self.total_nanos -= self.buckets.popleft()[1]
        self.total_nanos += nanos
        if self.buckets and self.buckets[-1][0] == bucket:
            nanos += self.buckets.pop()[1]
        self.buckets.append((bucket, nanos))


class Velocity:
    """Adds up what keys spend. Moments are seconds on a clock that never goes back.

    Of more than `keys_max` keys that spent within an hour, those are forgotten that have not spent for the
    longest time.
    """

    def __init__(self, *, keys_max: int = KEYS_MAX) -> None:
        self._keys_max = keys_max
        self._keys: OrderedDict[str, _Spending] = OrderedDict()

    def add(self, key: str, nanos: int, *, now_s: float, limit_nanos: int) -> int | None:
        """Add what a call has cost.

        Returns what its key has spent within the last hour, where that is more than the limit and was not
        said within an hour; None: nothing has to be said.
        """
        bucket = int(now_s // BUCKET_S)
        spending = self._keys.get(key)
        if spending is None:
            spending = self._keys[key] = _Spending()
        self._keys.move_to_end(key)
        spending.add(nanos, bucket)
        self._forget(bucket)
        was_told = spending.told_s is not None and now_s - spending.told_s < HOUR_S
        if was_told or spending.total_nanos <= limit_nanos:
            return None
        spending.told_s = now_s
        return spending.total_nanos

    def __len__(self) -> int:
        """Keys that are remembered."""
        return len(self._keys)

    def _forget(self, bucket: int) -> None:
        """Forget keys at the front that rest, or are too many; the one that has just spent is at the end."""
        while True:
            name, spending = next(iter(self._keys.items()))
            rests = spending.buckets[-1][0] < bucket - _BUCKETS
            if not rests and len(self._keys) <= self._keys_max:
                return
            del self._keys[name]
