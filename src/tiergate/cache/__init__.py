"""Have we answered this before: which questions, under which key, how fresh, and where it is kept."""

from tiergate.cache.answer import CachedAnswer
from tiergate.cache.cache import DRY_RUN, Cache, Held, Kept, Look
from tiergate.cache.eligible import DEFAULT_POLICY, CachePolicy, When
from tiergate.cache.guarded import GuardedShelf
from tiergate.cache.hints import Hint
from tiergate.cache.keepable import NotKept
from tiergate.cache.key import Asked, CacheKeys
from tiergate.cache.memory import MemoryShelf
from tiergate.cache.ports import Found, Place, Shelf, ShelfUnavailable
from tiergate.cache.prefixes import Prefix, read_prefixes
from tiergate.cache.status import read_status, write_status

__all__ = [
    "DEFAULT_POLICY",
    "DRY_RUN",
    "Asked",
    "Cache",
    "CacheKeys",
    "CachePolicy",
    "CachedAnswer",
    "Found",
    "GuardedShelf",
    "Held",
    "Hint",
    "Kept",
    "Look",
    "MemoryShelf",
    "NotKept",
    "Place",
    "Prefix",
    "Shelf",
    "ShelfUnavailable",
    "When",
    "read_prefixes",
    "read_status",
    "write_status",
]
