"""The cache of a house: memory, and behind it the shelf that the settings ask for."""

import asyncio
from contextlib import AsyncExitStack
from typing import Final, NoReturn

from tiergate.cache import Cache, CacheKeys, GuardedShelf, MemoryShelf, Shelf
from tiergate.config import Settings, fill
from tiergate.core import CannotStart, Clock, Emit
from tiergate.store import CACHE_FILE, SqliteShelf

_MISSING: Final = (
    "`cache: {exact: {keep: store}}` with `redis` needs its driver, which is not installed: "
    "pip install 'tiergate[redis]'"
)
_SWEEP_S: Final = 5.0


def open_cache(
    stack: AsyncExitStack,
    settings: Settings,
    keys: CacheKeys,
    secret: str,
    *,
    clock: Clock,
    tell: Emit,
) -> Cache:
    """Open the cache, until the stack closes. A Redis that cannot be reached stops no start.

    Raises:
        CannotStart: its driver is missing, or its address is none; or the file cannot be made.
    """
    shelf = _shelf(stack, settings, secret) if settings.cache.exact.keep == "store" else None
    guarded = None if shelf is None else GuardedShelf(shelf, monotonic=clock.monotonic, emit=tell)
    return Cache(
        keys,
        MemoryShelf(fill.cache_bytes(settings)),
        wall_ns=clock.wall_ns,
        shelf=guarded,
        is_dry=settings.cache.dry_run,
        records_prefixes=settings.cache.prefixes,
    )


async def sweep(cache: Cache) -> NoReturn:
    """Delete what is too old, a little at a time, for ever."""
    while True:
        await asyncio.sleep(_SWEEP_S)
        await cache.sweep()


def _shelf(stack: AsyncExitStack, settings: Settings, secret: str) -> Shelf:
    if settings.redis is None:
        on_disk = SqliteShelf(settings.data_dir / CACHE_FILE, bytes_max=fill.cache_bytes(settings))
        stack.callback(on_disk.close)
        return on_disk
    try:
        # The driver is no part of an installation without extras.
        from tiergate.store.redis import RedisShelf
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "redis":
            raise
        raise CannotStart(_MISSING) from None
    shared = RedisShelf(settings.redis.reveal(), secret=secret)
    stack.push_async_callback(shared.aclose)
    return shared
