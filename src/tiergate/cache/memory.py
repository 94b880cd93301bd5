"""Answers in the memory of this process: the newest ones, up to a number of bytes."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple, TypeVar

_BESIDE_BYTES: Final = 400
"""What an answer takes beside its own bytes: its key, its place, its times."""
_SHARE_MAX: Final = 8
"""No answer takes more than this part of the whole: it would put out all others."""
_SLOT_NS: Final = 60_000_000_000

Name = TypeVar("Name")


class _Place(NamedTuple):
    value: bytes
    expires_ns: int
    tenant: str
    entry: str


class MemoryShelf:
    """Keeps answers by their keys. Times are nanoseconds of the clock that the caller reads.

    Args:
        bytes_max: of all answers together.
    """

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.on_drop: Callable[[bytes], object] = _nothing
        """Is told the key of each answer that is kept no longer."""
        self.bytes = 0
        self.evicted = 0
        """Answers that had to make room for others."""
        self._places: OrderedDict[bytes, _Place] = OrderedDict()
        self._of_tenant: dict[str, set[bytes]] = {}
        self._of_slot: dict[int, set[bytes]] = {}
        """Keys by when they are too old, so that nobody looks at those that are not."""

    def __len__(self) -> int:
        return len(self._places)

    def get(self, key: bytes, now_ns: int) -> bytes | None:
        """Give an answer that is kept, and fresh."""
        place = self._places.get(key)
        if place is None:
            return None
        if place.expires_ns <= now_ns:
            self._drop(key)
            return None
        self._places.move_to_end(key)
        return place.value

    def put(self, key: bytes, value: bytes, *, tenant: str, entry: str, expires_ns: int) -> bool:
        """Keep an answer; False: it is too large. Those that nobody has asked for longest make room."""
        if key in self._places:
            self._drop(key)
        size = len(value) + _BESIDE_BYTES
        if size > self.bytes_max // _SHARE_MAX:
            return False
        self._places[key] = _Place(value, expires_ns, tenant, entry)
        self._of_tenant.setdefault(tenant, set()).add(key)
        self._of_slot.setdefault(expires_ns // _SLOT_NS, set()).add(key)
        self.bytes += size
        self._make_room()
        return True

    def resize(self, bytes_max: int) -> None:
        """Take another bound."""
        self.bytes_max = bytes_max
        self._make_room()

    def purge(self, tenant: str | None = None, entry: str | None = None) -> int:
        """Delete what is kept of a tenant, of a model, or of both together; give how many answers."""
        keys = self._places if tenant is None else self._of_tenant.get(tenant, ())
        gone = [key for key in keys if entry is None or self._places[key].entry == entry]
        for key in gone:
            self._drop(key)
        return len(gone)

    def sweep(self, now_ns: int) -> int:
        """Delete what is too old to be given; give how many answers."""
        past = [slot for slot in self._of_slot if slot <= now_ns // _SLOT_NS]
        gone = [key for slot in past for key in self._of_slot[slot] if self._places[key].expires_ns <= now_ns]
        for key in gone:
            self._drop(key)
        return len(gone)

    def _make_room(self) -> None:
        while self.bytes > self.bytes_max:
            self._drop(next(iter(self._places)))
            self.evicted += 1

    def _drop(self, key: bytes) -> None:
        place = self._places.pop(key)
        self.on_drop(key)
        self.bytes -= len(place.value) + _BESIDE_BYTES
        _forget(self._of_tenant, place.tenant, key)
        _forget(self._of_slot, place.expires_ns // _SLOT_NS, key)


def _nothing(key: bytes) -> None:
    """Nobody is told."""


def _forget(groups: dict[Name, set[bytes]], name: Name, key: bytes) -> None:
    keys = groups[name]
    keys.discard(key)
    if not keys:
        del groups[name]
