"""Kept answers in Redis: one round trip for a look, and a purge that costs the same however much there is.

Each answer lies beside two stamps, one of its tenant and one of the model at that tenant, under one hash tag,
so that a cluster has them in one place. It begins with the stamps of the time when it was asked for, and is
good only while they are the same: a purge sets another stamp, and what was put under the old one is never
found again and goes with its time. Plain commands only: those of Redis 6, Valkey and managed services.
"""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from functools import partial
from hashlib import sha256
from hmac import digest
from typing import Any, Final, NamedTuple

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import OutOfMemoryError, RedisError

from tiergate.cache import Found, Place, ShelfUnavailable
from tiergate.core import CannotStart, derived
from tiergate.store.redis.gathered import Gathered

_ANSWER_S: Final = 0.25
"""Whoever looks waits less; a purge waits for this."""
_STAMP_BYTES: Final = 16
_PURPOSE: Final = b"tiergate answers in redis v1"
_AT_ONCE: Final = 100
_CONNECTIONS: Final = 16


class _Names(NamedTuple):
    """Where an answer lies, and the stamps that it must bear."""

    answer: str
    tenant: str
    model: str


class RedisShelf:
    """Fills the port `cache.Shelf`.

    Args:
        url: `redis://host:6379/0`, or `rediss://` for TLS.
        secret: the house's; only processes with the same one find each other's answers.

    Raises:
        CannotStart: the address is none.
    """

    name = "redis"
    is_shared = True

    def __init__(self, url: str, *, secret: str) -> None:
        try:
            # Who comes when all connections are taken waits for one: a crowd is no failure of the server.
            pool = BlockingConnectionPool.from_url(
                url,
                max_connections=_CONNECTIONS,
                timeout=_ANSWER_S,
                socket_timeout=_ANSWER_S,
                socket_connect_timeout=_ANSWER_S,
                retry=Retry(NoBackoff(), 0),
            )
            self._redis: Any = Redis.from_pool(pool)
            self._gathered = Gathered(self._redis)
        except ValueError as error:
            raise CannotStart("The setting `redis` is no address of a Redis server.") from error
        # Names of tenants and models say something to whoever reads the keys; these do not.
        self._secret = derived(secret.encode(), _PURPOSE)
        self._house = sha256(self._secret).hexdigest()[:12]

    async def get(self, place: Place, now_ns: int) -> Found:
        """Look for an answer; see `cache.Shelf`."""
        names = self._names(place)
        try:
            value, *stamps = await self._gathered.ask(lambda pipe: pipe.mget(names))
            if not _are_stamps(stamps):
                return Found(None, await self._stamped(names))
        except (RedisError, OSError, TimeoutError) as error:
            raise ShelfUnavailable(_why(error)) from error
        ticket = b"".join(stamps)
        is_good = value is not None and value[: len(ticket)] == ticket
        return Found(value[len(ticket) :] if is_good else None, ticket)

    async def put(self, place: Place, value: bytes, *, ticket: bytes, now_ns: int, expires_ns: int) -> bool:
        """Put an answer there; see `cache.Shelf`."""
        life_ms = (expires_ns - now_ns) // 1_000_000
        if life_ms <= 0 or len(ticket) != 2 * _STAMP_BYTES:
            return False
        try:
            name, data = self._names(place).answer, ticket + value
            await self._gathered.ask(lambda pipe: pipe.set(name, data, px=life_ms))
        except OutOfMemoryError:
            return False
        except (RedisError, OSError, TimeoutError) as error:
            raise ShelfUnavailable(_why(error)) from error
        return True

    async def purge(self, tenant: str | None, entry: str | None) -> None:
        """Set other stamps; see `cache.Shelf`."""
        try:
            if tenant is not None:
                await self._stamp([self._tag(tenant)], entry)
                return
            async for tags in self._tags():
                await self._stamp(tags, entry)
        except (RedisError, OSError, TimeoutError) as error:
            raise ShelfUnavailable(_why(error)) from error

    def resize(self, bytes_max: int) -> None:
        """Do nothing: how much Redis keeps is said to Redis (`maxmemory`)."""

    async def sweep(self, now_ns: int) -> None:
        """Do nothing: Redis deletes what is too old by itself."""

    async def aclose(self) -> None:
        """Close the connections."""
        await self._gathered.aclose()
        with suppress(RedisError, OSError):
            await self._redis.aclose()

    # Inside.

    async def _stamped(self, names: _Names) -> bytes:
        """Make the stamps that are missing; whoever comes first makes them for all."""
        both = [names.tenant, names.model]
        for _ in range(2):
            for name in both:
                await self._gathered.ask(partial(_set_stamp, name=name))
            stamps = await self._gathered.ask(lambda pipe: pipe.mget(both))
            if _are_stamps(stamps):
                return b"".join(stamps)
            # Something else lies in their place.
            await self._redis.unlink(*both)
        raise ShelfUnavailable("its stamps cannot be set")

    async def _stamp(self, tags: Sequence[str], entry: str | None) -> None:
        async with self._redis.pipeline(transaction=False) as pipe:
            for tag in tags:
                name = f"{tag}:tenant" if entry is None else f"{tag}:model:{self._hash(entry)}"
                pipe.set(name, os.urandom(_STAMP_BYTES))
            await pipe.execute()

    async def _tags(self) -> AsyncIterator[list[str]]:
        """Give the tags of all tenants of this house that have answers."""
        ending = ":tenant"
        cursor = 0
        while True:
            pattern = f"tiergate:{{{self._house}-*}}{ending}"
            cursor, names = await self._redis.scan(cursor, match=pattern, count=_AT_ONCE)
            if names:
                yield [name.decode().removesuffix(ending) for name in names]
            if not cursor:
                return

    def _names(self, place: Place) -> _Names:
        tag = self._tag(place.tenant)
        return _Names(
            f"{tag}:answer:{place.key.hex()}", f"{tag}:tenant", f"{tag}:model:{self._hash(place.entry)}"
        )

    def _tag(self, tenant: str) -> str:
        return f"tiergate:{{{self._house}-{self._hash(tenant)}}}"

    def _hash(self, name: str) -> str:
        return digest(self._secret, name.encode(), "sha256").hex()[:24]


def _set_stamp(pipe: Any, *, name: str) -> None:
    pipe.set(name, os.urandom(_STAMP_BYTES), nx=True)


def _are_stamps(found: Sequence[bytes | None]) -> bool:
    return all(stamp is not None and len(stamp) == _STAMP_BYTES for stamp in found)


def _why(error: BaseException) -> str:
    """Say what is wrong without an address, which may hold a password."""
    return "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__
