"""A shelf in memory: what `cache.Shelf` asks for, with purges that others see."""

import asyncio
import os

from tiergate.cache import Found, Place, ShelfUnavailable


class FakeShelf:
    """Fills the port `cache.Shelf`; `delay_s` and `is_gone` make it slow, or fail."""

    name = "fake"

    def __init__(self, *, is_shared: bool = True) -> None:
        self.is_shared = is_shared
        self.delay_s = 0.0
        self.is_gone = False
        self.asked = 0
        self._answers: dict[bytes, tuple[Place, bytes, bytes, int]] = {}
        self._stamps: dict[tuple[str, str | None], bytes] = {}

    async def get(self, place: Place, now_ns: int) -> Found:
        """Look for an answer; see `cache.Shelf`."""
        await self._wait()
        ticket = self._ticket(place)
        _, value, put_with, expires_ns = self._answers.get(place.key, (place, b"", b"", 0))
        is_good = put_with == ticket and expires_ns > now_ns
        return Found(value if is_good else None, ticket)

    async def put(self, place: Place, value: bytes, *, ticket: bytes, now_ns: int, expires_ns: int) -> bool:
        """Put an answer there; see `cache.Shelf`."""
        await self._wait()
        self._answers[place.key] = (place, value, ticket, expires_ns)
        return True

    async def purge(self, tenant: str | None, entry: str | None) -> None:
        """Set other stamps; see `cache.Shelf`."""
        await self._wait()
        for place, kept_entry in list(self._stamps):
            if tenant in (None, place) and kept_entry == entry:
                self._stamps[place, kept_entry] = os.urandom(16)

    def resize(self, bytes_max: int) -> None:
        """Do nothing: it keeps everything; see `cache.Shelf`."""

    async def sweep(self, now_ns: int) -> None:
        """Delete what is too old; see `cache.Shelf`."""
        await self._wait()
        self._answers = {key: found for key, found in self._answers.items() if found[3] > now_ns}

    def _ticket(self, place: Place) -> bytes:
        names = ((place.tenant, None), (place.tenant, place.entry))
        return b"".join([self._stamps.setdefault(name, os.urandom(16)) for name in names])

    async def _wait(self) -> None:
        self.asked += 1
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        if self.is_gone:
            raise ShelfUnavailable("it is gone")
