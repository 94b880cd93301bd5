"""Tenants as the house knows them: what the hashes of their questions are keyed with, and how they go."""

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Final, NoReturn, Protocol

from tiergate.core import StorageUnavailable

_FOLLOW_S: Final = 5.0
"""So long another replica may go on with the salt of a tenant that was erased."""
_SALT_BYTES: Final = 16


class TenantStore(Protocol):
    """Keeps what belongs to tenants; `store.LedgerJournal` says more."""

    async def salts(self, wanted: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """Give the salts of all tenants, when those that are wanted and have none have these."""
        ...

    async def erase(self, tenant: str) -> int:
        """Delete the salt of a tenant and the answers of its receipts; give how many these were."""
        ...


class Tenants:
    """The salts of tenants, by their names (`team:NAME`, `key:NAME`).

    Args:
        store: keeps them.
    """

    def __init__(self, store: TenantStore) -> None:
        self._store = store
        self._gone: tuple[Callable[[str], object], ...] = ()
        self._salts: Mapping[str, bytes] = {}
        self._wanted: set[str] = set()
        self._news = asyncio.Event()
        self._one = asyncio.Lock()
        """One at a time: what was read before an erasure must not come after it."""

    def salt(self, tenant: str) -> bytes | None:
        """Give the salt of a tenant; None: it has none yet, and will in a moment."""
        found = self._salts.get(tenant)
        if found is None:
            self._wanted.add(tenant)
            self._news.set()
        return found

    def on_gone(self, *tell: Callable[[str], object]) -> None:
        """Say whom to tell of a tenant whose salt is another one now: nothing of it may be left in memory."""
        self._gone = tell

    async def open(self, tenants: Iterable[str]) -> None:
        """Read all salts, and make those of these tenants that are missing.

        Raises:
            StorageUnavailable: not now.
        """
        self._wanted.update(tenants)
        await self._refresh()

    async def run(self) -> NoReturn:
        """Make what is missing, and take over what other replicas erase, for ever."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_FOLLOW_S):
                    await self._news.wait()
            self._news.clear()
            with suppress(StorageUnavailable):  # whoever needs the ledger for more than this tells of it
                await self._refresh()

    async def erase(self, tenant: str) -> int:
        """Forget a tenant's text, and what its hashes could be told by; give how many receipts had an answer.

        Raises:
            StorageUnavailable: not now.
        """
        async with self._one:
            count = await self._store.erase(tenant)
            self._wanted.add(tenant)
            await self._refreshed()
        return count

    async def _refresh(self) -> None:
        async with self._one:
            await self._refreshed()

    async def _refreshed(self) -> None:
        wanted = {name: os.urandom(_SALT_BYTES) for name in self._wanted}
        before, self._salts = self._salts, await self._store.salts(wanted)
        self._wanted.difference_update(self._salts)
        for name, salt in before.items():
            if self._salts.get(name) != salt:
                for tell in self._gone:
                    tell(name)
