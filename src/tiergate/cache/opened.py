"""Answers that were given lately, read and written already: the hundredth who asks waits for neither.

They are of answers that memory keeps, by the very bytes that it keeps: what is gone there is not found here.
"""

from collections import OrderedDict
from typing import Any, Final, NamedTuple

from tiergate.cache.answer import CachedAnswer

_GROWS: Final = 10
"""So many times as large as at rest is an answer that is read, with what is written of it."""
_BESIDE_BYTES: Final = 2_000


class Opened(NamedTuple):
    """An answer, and how it was written before, by whether it is streamed."""

    data: bytes
    answer: CachedAnswer
    forms: dict[bool, Any]


class OpenedAnswers:
    """The newest ones, up to a number of bytes that is kept to by a rough measure."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._answers: OrderedDict[bytes, Opened] = OrderedDict()

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: bytes, data: bytes) -> Opened | None:
        """Give an answer, if it was read of these bytes."""
        found = self._answers.get(key)
        return found if found is not None and found.data is data else None

    def put(self, key: bytes, data: bytes, answer: CachedAnswer) -> Opened:
        """Keep one that was read; the oldest make room."""
        found = Opened(data, answer, {})
        before = self._answers.pop(key, None)
        self._bytes += _size(found) - (0 if before is None else _size(before))
        self._answers[key] = found
        self._make_room()
        return found

    def resize(self, bytes_max: int) -> None:
        """Take another bound."""
        self._bytes_max = bytes_max
        self._make_room()

    def drop(self, key: bytes) -> None:
        """Forget one, if it is there."""
        gone = self._answers.pop(key, None)
        if gone is not None:
            self._bytes -= _size(gone)

    def _make_room(self) -> None:
        while self._bytes > self._bytes_max and self._answers:
            _, gone = self._answers.popitem(last=False)
            self._bytes -= _size(gone)


def _size(found: Opened) -> int:
    return len(found.data) * _GROWS + _BESIDE_BYTES
