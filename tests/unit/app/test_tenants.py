"""Salts of tenants: made once, the same for all replicas, and another one after an erasure."""

import asyncio
from collections.abc import Mapping

from tiergate.app.tenants import Tenants
from tiergate.core import StorageUnavailable
from tiergate.testing import run_virtual


class Store:
    """A ledger's tenants, as several replicas share them."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.is_down = False

    async def salts(self, wanted: Mapping[str, bytes]) -> Mapping[str, bytes]:
        if self.is_down:
            raise StorageUnavailable("down")
        self.kept = {**wanted, **self.kept}
        return dict(self.kept)

    async def erase(self, tenant: str) -> int:
        self.kept.pop(tenant, None)
        return 2


def test_known_tenants_have_a_salt_from_the_start() -> None:
    """The same one after a restart, and at every replica."""

    async def test() -> None:
        store = Store()
        one, other = Tenants(store), Tenants(store)
        await one.open(["team:x", "key:y"])
        await other.open(["team:x"])
        assert one.salt("team:x") == other.salt("team:x") is not None
        assert one.salt("team:x") != one.salt("key:y")

    run_virtual(test())


def test_one_that_was_not_known_has_one_in_a_moment() -> None:
    """And while the ledger is away it waits."""

    async def test() -> None:
        store = Store()
        tenants = Tenants(store)
        running = asyncio.create_task(tenants.run())
        store.is_down = True
        assert tenants.salt("key:new") is None
        await asyncio.sleep(12)
        assert tenants.salt("key:new") is None
        store.is_down = False
        await asyncio.sleep(6)
        assert tenants.salt("key:new") is not None
        running.cancel()

    run_virtual(test())


def test_after_an_erasure_the_salt_is_another_one_everywhere() -> None:
    """Within five seconds; whoever has something in memory is told to forget it."""

    async def test() -> None:
        store = Store()
        gone: list[tuple[str, str]] = []
        one, other = Tenants(store), Tenants(store)
        one.on_gone(lambda tenant: gone.append(("one", tenant)))
        other.on_gone(lambda tenant: gone.append(("other", tenant)))
        for tenants in (one, other):
            await tenants.open(["team:x", "key:y"])
        before = one.salt("team:x"), one.salt("key:y")
        running = asyncio.create_task(other.run())
        assert await one.erase("team:x") == 2
        assert one.salt("team:x") not in (before[0], None)
        assert gone == [("one", "team:x")]
        await asyncio.sleep(5.1)
        assert gone == [("one", "team:x"), ("other", "team:x")]
        assert other.salt("team:x") == one.salt("team:x")
        assert other.salt("key:y") == before[1]
        running.cancel()

    run_virtual(test())


def test_what_was_read_before_an_erasure_does_not_come_after_it() -> None:
    """A look that is on its way brings no old salt back."""

    class Slow(Store):
        async def salts(self, wanted: Mapping[str, bytes]) -> Mapping[str, bytes]:
            found = await super().salts(wanted)
            await asyncio.sleep(1)
            return found

    async def test() -> None:
        tenants = Tenants(Slow())
        await tenants.open(["team:x"])
        before = tenants.salt("team:x")
        running = asyncio.create_task(tenants.run())
        await asyncio.sleep(5.5)  # in the middle of a look
        await tenants.erase("team:x")
        await asyncio.sleep(0.9)
        assert tenants.salt("team:x") != before
        running.cancel()

    run_virtual(test())
