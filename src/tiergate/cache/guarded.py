"""A shelf that may be slow or gone: calls wait a little for it once, and then for a while not at all.

THERE ──too slow, or failed──► AWAY ──its time is over──► one call tries ──well──► THERE
▲                            │
└──────twice as long─────────┘
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from tiergate.cache.ports import Found, Place, Shelf, ShelfUnavailable
from tiergate.core import Emit, Notice

ANSWER_S: Final = 0.05
"""So long a call waits."""
_AWAY_S: Final = 1.0
_AWAY_MAX_S: Final = 30.0

Told = TypeVar("Told")


class GuardedShelf:
    """Uses a shelf while that answers; a call is never worse off than without it by more than `ANSWER_S`.

    Args:
        shelf: the one behind.
        monotonic: seconds.
        emit: is told when it goes and when it is back.
    """

    def __init__(self, shelf: Shelf, *, monotonic: Callable[[], float], emit: Emit) -> None:
        self._shelf = shelf
        self._monotonic = monotonic
        self._emit = emit
        self.name = shelf.name
        self.is_shared = shelf.is_shared
        self._until = 0.0
        self._away_s = 0.0
        """For how long it is left alone; 0: it is there."""

    @property
    def is_there(self) -> bool:
        """Whether it has answered the last time."""
        return not self._away_s

    async def get(self, place: Place, now_ns: int) -> Found | None:
        """Look for an answer; None: nobody knows whether there is one."""
        return await self._try(lambda: self._shelf.get(place, now_ns))

    async def put(self, place: Place, value: bytes, *, ticket: bytes, now_ns: int, expires_ns: int) -> bool:
        """Put an answer there; False: there is no room, or nobody knows."""
        told = await self._try(
            lambda: self._shelf.put(place, value, ticket=ticket, now_ns=now_ns, expires_ns=expires_ns)
        )
        return told or False

    async def purge(self, tenant: str | None, entry: str | None) -> None:
        """Make sure that nothing of them is found again; tried whatever was before.

        Raises:
            ShelfUnavailable: it may still be.
        """
        await self._shelf.purge(tenant, entry)

    def resize(self, bytes_max: int) -> None:
        """Keep so many bytes at most from now on."""
        self._shelf.resize(bytes_max)

    async def sweep(self, now_ns: int) -> None:
        """Delete some of what is too old, or too much, while it is there: that tells nothing else."""
        if not self.is_there:
            return

        async def sweep() -> bool:
            await self._shelf.sweep(now_ns)
            return True

        await self._try(sweep)

    async def _try(self, use: Callable[[], Awaitable[Told]]) -> Told | None:
        now, was_there = self._monotonic(), self.is_there
        if not was_there:
            if now < self._until:
                return None
            # Whoever comes while this one tries goes without.
            self._until = now + self._away_s
        try:
            async with asyncio.timeout(ANSWER_S):
                told = await use()
        except (ShelfUnavailable, TimeoutError) as error:
            # Of several that waited together, one tells.
            if was_there == self.is_there:
                self._failed(error)
            return None
        if not self.is_there:
            self._away_s = 0.0
            self._emit(Notice(word="cache_back", message=f"Answers are kept on {self.name} again."))
        return told

    def _failed(self, error: Exception) -> None:
        was_there = not self._away_s
        self._away_s = min(_AWAY_MAX_S, 2 * self._away_s) if self._away_s else _AWAY_S
        self._until = self._monotonic() + self._away_s
        if was_there:
            why = "no answer in time" if isinstance(error, TimeoutError) else str(error)
            message = f"Answers cannot be kept on {self.name} now ({why}); calls go on without."
            self._emit(Notice(word="cache_gone", message=message, severe=True))
