"""The rates that processes share, in Redis: one small hash for each, and a sorted set of who is there.

Everything is done by two scripts, so that what is read is still so when it is written. The time is the
server's: the clocks of the processes need not agree. Commands are those of Redis 6, which Valkey and managed
services know, too.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from tiergate.core import CannotStart, derived
from tiergate.rates import Leased, PlaceWant, RatesUnavailable, Want

_ANSWER_S: Final = 0.25
"""No call waits for an answer, so this is more than a cache would be given."""
_THERE_MS: Final = 5_000
"""A process that has not asked for so long is not there any more."""
_KEPT_MS: Final = 600_000
_NOTHING: Final = 0.0, None
_PURPOSE: Final = b"tiergate names in redis v1"

_PRESENT: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return redis.call('ZCARD', KEYS[1])
"""

_LEASE: Final = """
local amount, per_s, most, part = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local kept = redis.call('HMGET', KEYS[1], 'level', 'at')
local level, at = tonumber(kept[1]) or tonumber(ARGV[6]), tonumber(kept[2]) or now
level = math.min(most, level + math.max(0, now - at) * per_s)
local granted = amount
if amount > 0 then
  granted = math.max(0, math.min(amount, level, part))
end
level = math.min(most, level - granted)
redis.call('HSET', KEYS[1], 'level', string.format('%.6f', level), 'at', string.format('%.6f', now))
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return {string.format('%.6f', granted), string.format('%.6f', level)}
"""

_PLACES: Final = """
local me, wanted, taken, limit = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local held, others_want = 0, 0
local busy = {me}
local kept = redis.call('HGETALL', KEYS[1])
for i = 1, #kept, 2 do
  local has, wants = string.match(kept[i + 1], '^(%d+) (%d+)$')
  if not has or not redis.call('ZSCORE', KEYS[2], kept[i]) then
    redis.call('HDEL', KEYS[1], kept[i])
  elseif kept[i] ~= me then
    held, others_want = held + tonumber(has), others_want + tonumber(wants)
    if tonumber(wants) > 0 then
      busy[#busy + 1] = kept[i]
    end
  end
end
table.sort(busy)
local turn = tonumber(redis.call('TIME')[1]) % #busy
local part = math.floor(limit / #busy)
for i = 1, #busy do
  if busy[i] == me and (i - 1 + turn) % #busy < limit % #busy then
    part = part + 1
  end
end
local granted = math.max(0, math.min(wanted, limit - held, math.max(part, limit - others_want)))
local has = math.max(granted, taken)
if wanted > 0 or has > 0 then
  redis.call('HSET', KEYS[1], me, has .. ' ' .. wanted)
  redis.call('PEXPIRE', KEYS[1], ARGV[5])
else
  redis.call('HDEL', KEYS[1], me)
end
return {granted, math.max(0, limit - held - has)}
"""


class RedisRateBank:
    """Fills the port `rates.RateBank`.

    Args:
        url: `redis://host:6379/0`, or `rediss://` for TLS.
        secret: the house's; only processes with the same one share anything.

    Raises:
        CannotStart: the address is none.
    """

    def __init__(self, url: str, *, secret: str) -> None:
        try:
            # A command that is not answered in time is not sent again: by default it is, and with waits.
            self._redis: Any = Redis.from_url(
                url,
                socket_timeout=_ANSWER_S,
                socket_connect_timeout=_ANSWER_S,
                retry=Retry(NoBackoff(), 0),
                decode_responses=True,
            )
        except ValueError as error:
            raise CannotStart("The setting `redis` is no address of a Redis server.") from error
        self._present = self._redis.register_script(_PRESENT)
        self._lease = self._redis.register_script(_LEASE)
        self._places = self._redis.register_script(_PLACES)
        # A name that says nothing of the secret, and that nobody else's gateway has.
        self._place = sha256(derived(secret.encode(), _PURPOSE)).hexdigest()[:16]
        self._processes = 1

    async def lease(self, process: str, wants: Sequence[Want | PlaceWant]) -> Leased:
        """Take note that a process is there, and give it what it wants and is left."""
        asked = [want for want in wants if want.is_needed]
        try:
            async with asyncio.timeout(2 * _ANSWER_S):
                there, *answers = await self._ask(process, asked)
                if isinstance(there, Exception):
                    await self._mended(there, "processes")
                    raise there
                given = {
                    want.name: await self._given(want, answer)
                    for want, answer in zip(asked, answers, strict=True)
                }
        except (RedisError, OSError, TimeoutError, ValueError) as error:
            raise RatesUnavailable(_why(error)) from error
        self._processes = int(there)
        found = [given.get(want.name, _NOTHING) for want in wants]
        return Leased([granted for granted, _ in found], [left for _, left in found], self._processes)

    async def _ask(self, process: str, wants: Sequence[Want | PlaceWant]) -> list[Any]:
        """Send everything at once; give what was answered to each, errors included."""
        async with self._redis.pipeline(transaction=False) as pipe:
            await self._present(keys=[self._name("processes")], args=[process, _THERE_MS], client=pipe)
            for want in wants:
                keys = [self._name(f"rate:{want.name}"), self._name("processes")]
                if isinstance(want, PlaceWant):
                    placed: list[str | int] = [process, want.places, want.taken, want.limit, _KEPT_MS]
                    await self._places(keys=keys, args=placed, client=pipe)
                else:
                    # Callers stand in no line: what they lack goes to whoever comes first.
                    part = want.most if want.first else max(1.0, want.most / self._processes)
                    rated = [want.amount, want.per_s, want.most, part, _KEPT_MS, want.first]
                    await self._lease(keys=keys[:1], args=rated, client=pipe)
            answers: list[Any] = await pipe.execute(raise_on_error=False)
            return answers

    async def _given(self, want: Want | PlaceWant, answer: Any) -> tuple[float, float | None]:
        """Give what was granted, and what is left."""
        if await self._mended(answer, f"rate:{want.name}"):
            return _NOTHING
        if isinstance(answer, Exception):
            raise answer
        granted, left = answer
        return float(granted), float(left)

    async def _mended(self, answer: Any, what: str) -> bool:
        """Delete what stands in our place and is something else; what was there begins anew."""
        is_wrong = isinstance(answer, ResponseError) and "WRONGTYPE" in str(answer)
        if is_wrong:
            await self._redis.delete(self._name(what))
        return is_wrong

    async def aclose(self) -> None:
        """Close the connections."""
        with suppress(RedisError, OSError):
            await self._redis.aclose()

    def _name(self, what: str) -> str:
        # One slot for all of them, where the server is a cluster.
        return f"tiergate:{{{self._place}}}:{what}"


def _why(error: BaseException) -> str:
    """Say what is wrong without an address, which may hold a password."""
    return "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__
