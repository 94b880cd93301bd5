"""The cache: what is kept of answers, and who is given it.

A call is looked up before anything else is asked; what it is told is a `Look`. Where that holds an answer,
nobody has to be asked. Else the look goes with the call, and is what its answer is kept under.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, Final, NamedTuple

import msgspec

from tiergate.cache.answer import CachedAnswer, read_cached, write_cached
from tiergate.cache.control import SAYS_NOTHING, Control, read_control
from tiergate.cache.eligible import Bypass, CachePolicy, When, bypass
from tiergate.cache.keepable import NotKept, why_not_kept
from tiergate.cache.key import Asked, CacheKeys
from tiergate.cache.memory import MemoryShelf
from tiergate.core import CacheSaid, Forwarded, NotCached, Target, Usage, UsageSource
from tiergate.wire import fold

LEVEL: Final = "memory"
KEPT: Final = "kept"
DRY_RUN: Final = "dry-run"
_HASH_BYTES: Final = 16


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What the cache says of a call."""

    said: CacheSaid
    key: bytes | None = None
    """What its answer is kept under; None: the cache has nothing to do with it."""
    request_hash: bytes | None = None
    """The beginning of that key, for the ledger."""
    asked: Asked | None = None
    policy: CachePolicy | None = None
    answer: CachedAnswer | None = None
    """Given instead of asking anybody."""
    last_resort: CachedAnswer | None = None
    """Too old; given if every target fails."""
    joins: bool = True
    """Whether somebody's same question that is being answered now will do."""


class Kept(NamedTuple):
    """What became of an answer: for how many seconds it is fresh, or why it is not kept."""

    ttl_s: float | None
    why_not: NotKept | None = None


class Held(NamedTuple):
    """What the cache holds now."""

    answers: int
    bytes: int
    bytes_max: int
    evicted: int
    """Since the start."""


class Cache:
    """The cache of this house.

    Args:
        keys: makes the keys of answers.
        memory: keeps the answers.
        wall_ns: nanoseconds since 1970.
        is_dry: nothing is kept or given; whether it could have been is told.
    """

    def __init__(
        self, keys: CacheKeys, memory: MemoryShelf, *, wall_ns: Callable[[], int], is_dry: bool = False
    ) -> None:
        self._keys = keys
        self._memory = memory
        self._wall_ns = wall_ns
        self.is_dry = is_dry
        self.kept: Counter[str] = Counter()
        """Complete answers by what became of them: `kept`, or why not."""

    def look(
        self,
        asked: Asked,
        body: Mapping[str, Any],
        *,
        policy: CachePolicy,
        control: str | None,
        allowed: Collection[Target],
    ) -> Look:
        """Look up a call.

        Args:
            asked: who asks for which model.
            body: of the request.
            policy: of the model.
            control: the caller's `Cache-Control`.
            allowed: those that may answer this call.

        Raises:
            NotCached: the caller wants nothing else.
        """
        wish = SAYS_NOTHING if control is None else read_control(control)
        why = bypass(body, policy, wish)
        if self.is_dry:
            return self._look_dry(asked, body, policy, why, wish)
        if why is not None:
            if wish.only_if_cached:
                raise _not_cached(f"its answer is not kept ({why.value})")
            return _BYPASSED[why]
        key = self._keys.key(asked, body)
        found = self._look_up(key, asked, policy, wish, allowed)
        if wish.only_if_cached and found.answer is None:
            raise _not_cached("none is kept that it would take")
        return found

    def keep(
        self,
        look: Look,
        events: Collection[bytes],
        *,
        choices: int,
        target: Target,
        call_id: str,
        usage: Usage,
        source: UsageSource,
        cash_nanos: int | None,
    ) -> Kept:
        """Keep a complete answer under the question that it answers, if it is one to be given again.

        `events`: the one body of a whole reply, or all events of a stream. `choices`: asked for.
        """
        kept = self._keep(look, events, choices, target, call_id, usage, source, cash_nanos)
        self.kept[KEPT if kept.why_not is None else kept.why_not.value] += 1
        return kept

    def _keep(
        self,
        look: Look,
        events: Collection[bytes],
        choices: int,
        target: Target,
        call_id: str,
        usage: Usage,
        source: UsageSource,
        cash_nanos: int | None,
    ) -> Kept:
        assert look.key is not None and look.asked is not None and look.policy is not None
        folded = fold(tuple(events))
        if folded is None:
            return Kept(None, NotKept.UNKNOWN)
        why = why_not_kept(folded, choices=choices, policy=look.policy)
        if why is not None:
            return Kept(None, why)
        now_ns = self._wall_ns()
        answer = CachedAnswer(
            key=look.key,
            entry=look.asked.entry,
            call_id=call_id,
            target=target,
            answer=folded,
            usage=usage,
            source=source,
            cash_nanos=cash_nanos,
            kept_ns=now_ns,
        )
        data = write_cached(answer)
        life_ns = int((look.policy.ttl_s + look.policy.stale_if_error_s) * 1e9)
        is_kept = data is not None and self._memory.put(
            look.key, data, tenant=look.asked.tenant, entry=look.asked.entry, expires_ns=now_ns + life_ns
        )
        return Kept(look.policy.ttl_s) if is_kept else Kept(None, NotKept.TOO_LONG)

    def purge(self, tenant: str | None = None, entry: str | None = None) -> int:
        """Delete what is kept of a tenant (`team:NAME` or `key:NAME`), of a model, of both together, or all.

        Gives how many answers are gone.
        """
        return self._memory.purge(tenant, entry)

    def sweep(self) -> int:
        """Delete what is too old to be given to anybody; give how many answers."""
        return self._memory.sweep(self._wall_ns())

    def use(self, *, bytes_max: int, is_dry: bool) -> None:
        """Take other limits."""
        self.is_dry = is_dry
        self._memory.resize(bytes_max)

    def held(self) -> Held:
        """Give what is kept now."""
        memory = self._memory
        return Held(len(memory), memory.bytes, memory.bytes_max, memory.evicted)

    # Inside.

    def _look_up(
        self, key: bytes, asked: Asked, policy: CachePolicy, wish: Control, allowed: Collection[Target]
    ) -> Look:
        look = Look(said=_MISS, key=key, request_hash=key[:_HASH_BYTES], asked=asked, policy=policy)
        data = self._memory.get(key, now_ns := self._wall_ns())
        answer = None if data is None else read_cached(data, key)
        if wish.no_cache:
            forwarded = Forwarded.MISS if answer is None else Forwarded.REQUEST
            said = CacheSaid(forwarded=forwarded, detail="no-cache")
            return msgspec.structs.replace(look, said=said, joins=False)
        if answer is None:
            return look
        if answer.target not in allowed:
            # Nobody is told what another key of the team was given from where this one may not ask.
            return look
        left_s = policy.ttl_s - answer.age_s(now_ns)
        if left_s <= 0 and -left_s > (wish.max_stale_s or 0):
            return msgspec.structs.replace(
                look, said=CacheSaid(forwarded=Forwarded.STALE), last_resort=answer
            )
        is_old = wish.max_age_s is not None and answer.age_s(now_ns) > wish.max_age_s
        if is_old or (wish.min_fresh_s is not None and left_s < wish.min_fresh_s):
            return msgspec.structs.replace(
                look, said=CacheSaid(forwarded=Forwarded.REQUEST), last_resort=answer, joins=not is_old
            )
        said = CacheSaid(ttl_s=left_s, detail=LEVEL)
        return msgspec.structs.replace(look, said=said, answer=answer)

    def _look_dry(
        self,
        asked: Asked,
        body: Mapping[str, Any],
        policy: CachePolicy,
        why: Bypass | None,
        wish: Control,
    ) -> Look:
        """Tell whether it could be answered, and note its key, whatever temperature it has."""
        if wish.only_if_cached:
            raise _not_cached("the cache runs dry")
        if why in (Bypass.OFF, Bypass.TEMPERATURE):
            why = bypass(body, replace(policy, when=When.ALWAYS), wish)
            detail = f"{DRY_RUN}-{When.ALWAYS.value}"
        else:
            detail = DRY_RUN
        if why is not None:
            return _BYPASSED[why]
        said = CacheSaid(forwarded=Forwarded.BYPASS, detail=detail)
        return Look(said=said, request_hash=self._keys.key(asked, body)[:_HASH_BYTES])


_MISS: Final = CacheSaid(forwarded=Forwarded.MISS)
_BYPASSED: Final = {why: Look(said=CacheSaid(forwarded=Forwarded.BYPASS, detail=why.value)) for why in Bypass}


def _not_cached(why: str) -> NotCached:
    return NotCached(f"The call wants an answer that is kept (`only-if-cached`), and {why}.")
