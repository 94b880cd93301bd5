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
from tiergate.cache.guarded import GuardedShelf
from tiergate.cache.hints import Hint, hints
from tiergate.cache.keepable import NotKept, why_not_kept
from tiergate.cache.key import Asked, CacheKeys
from tiergate.cache.memory import MemoryShelf
from tiergate.cache.opened import Opened, OpenedAnswers
from tiergate.cache.ports import Place
from tiergate.cache.prefixes import write_prefixes
from tiergate.core import CacheSaid, Forwarded, NotCached, Target, Usage, UsageSource
from tiergate.wire import fold

LEVEL: Final = "memory"
KEPT: Final = "kept"
DRY_RUN: Final = "dry-run"
_HASH_BYTES: Final = 16
_PREFIXES: Final = b"prefixes"
_OPENED_SHARE: Final = 8
"""The part of the memory for answers that are read and written already; it comes to the rest."""
_SHARED_NS: Final = 5_000_000_000
"""So long after a purge at another process an answer may be given here."""
_NOTHING_TO_TAKE: Final = "none is kept that it would take"


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What the cache says of a call."""

    said: CacheSaid
    key: bytes | None = None
    """What its answer is kept under; None: the cache has nothing to do with it."""
    request_hash: bytes | None = None
    """The beginning of that key, for the ledger."""
    prefixes: bytes | None = None
    """How its prompt begins, for the ledger; None: that is not recorded."""
    asked: Asked | None = None
    policy: CachePolicy | None = None
    answer: CachedAnswer | None = None
    """Given instead of asking anybody."""
    forms: dict[bool, Any] | None = None
    """How that was written before, by whether it is streamed; None: nobody will ask for it in a moment."""
    last_resort: CachedAnswer | None = None
    """Too old; given if every target fails."""
    joins: bool = True
    """Whether somebody's same question that is being answered now will do."""
    wish: Control = SAYS_NOTHING
    ticket: bytes | None = None
    """What the shelf gave along, for the answer; None: it was not asked, or did not answer."""
    purges: int = 0
    """How many there had been: what was asked before one is not kept after it."""


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
        shelf: keeps them, too, for after a restart or for others; None: nobody does.
        is_dry: nothing is kept or given; whether it could have been is told.
        records_prefixes: how prompts begin is told for the ledger.
    """

    def __init__(
        self,
        keys: CacheKeys,
        memory: MemoryShelf,
        *,
        wall_ns: Callable[[], int],
        shelf: GuardedShelf | None = None,
        is_dry: bool = False,
        records_prefixes: bool = False,
    ) -> None:
        self._keys = keys
        self._memory = memory
        self._opened = OpenedAnswers(memory.bytes_max // _OPENED_SHARE)
        memory.on_drop = self._opened.drop
        self._shelf = shelf
        self._purges = 0
        self._wall_ns = wall_ns
        self.is_dry = is_dry
        self.records_prefixes = records_prefixes
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
        found = self._looked(asked, body, policy, control, allowed)
        if not self.records_prefixes:
            return found
        key = self._keys.keyed(asked.tenant, _PREFIXES)
        prefixes = None if key is None else write_prefixes(body, asked.entry, key)
        return msgspec.structs.replace(found, prefixes=prefixes)

    def _looked(
        self,
        asked: Asked,
        body: Mapping[str, Any],
        policy: CachePolicy,
        control: str | None,
        allowed: Collection[Target],
    ) -> Look:
        wish = SAYS_NOTHING if control is None else read_control(control)
        why = bypass(body, policy, wish)
        if self.is_dry:
            return self._look_dry(asked, body, policy, why, wish)
        if why is not None:
            if wish.only_if_cached:
                raise _not_cached(f"its answer is not kept ({why.value})")
            return _BYPASSED[why]
        key = self._keys.key(asked, body)
        if key is None:
            found = _BYPASSED[Bypass.NEW_TENANT]
        else:
            found = self._look_up(key, asked, policy, wish, allowed)
        if wish.only_if_cached and found.answer is None and (key is None or self._shelf is None):
            raise _not_cached(_NOTHING_TO_TAKE)
        return found

    async def recall(self, look: Look, *, allowed: Collection[Target]) -> Look:
        """Look up where that takes a moment, when memory has nothing to give.

        Raises:
            NotCached: the caller wants nothing else, and there is nothing there either.
        """
        if look.key is None or look.answer is not None or self._shelf is None:
            return look
        place, now_ns = _place(look), self._wall_ns()
        found = await self._shelf.get(place, now_ns)
        if found is not None:
            answer = None if found.value is None else read_cached(found.value, look.key)
            judged = self._judged(look, answer, self._shelf.name, now_ns, allowed)
            look = msgspec.structs.replace(judged, ticket=found.ticket)
            is_kept = look.answer is not None and look.purges == self._purges
            if look.answer is not None and is_kept and found.value is not None:
                assert look.policy is not None
                self._remember(place, found.value, look.answer.kept_ns + _life_ns(look.policy), now_ns)
        if look.wish.only_if_cached and look.answer is None:
            raise _not_cached(_NOTHING_TO_TAKE)
        return look

    async def keep(
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
        kept = await self._keep(look, events, choices, target, call_id, usage, source, cash_nanos)
        self.kept[KEPT if kept.why_not is None else kept.why_not.value] += 1
        return kept

    async def _keep(
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
        if self.is_dry:
            return Kept(None, NotKept.DRY_RUN)
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
        if data is None:
            return Kept(None, NotKept.TOO_LONG)
        if look.purges != self._purges:
            return Kept(None, NotKept.PURGED)
        place, expires_ns = _place(look), now_ns + _life_ns(look.policy)
        is_kept = self._remember(place, data, expires_ns, now_ns)
        if self._shelf is not None and look.ticket is not None:
            ticket = look.ticket
            is_there = await self._shelf.put(place, data, ticket=ticket, now_ns=now_ns, expires_ns=expires_ns)
            is_kept = is_kept or is_there
        return Kept(look.policy.ttl_s) if is_kept else Kept(None, NotKept.TOO_LONG)

    def _remember(self, place: Place, data: bytes, expires_ns: int, now_ns: int) -> bool:
        """Keep an answer in memory; what others may purge, for a moment only."""
        if self._shelf is not None and self._shelf.is_shared:
            expires_ns = min(expires_ns, now_ns + _SHARED_NS)
        return self._memory.put(
            place.key, data, tenant=place.tenant, entry=place.entry, expires_ns=expires_ns
        )

    def hints(self, tenant: str, body: Mapping[str, Any], wanted: frozenset[Hint]) -> dict[str, str]:
        """Give what a provider is told beside a request, where it may be."""
        return hints(body, wanted, lambda told: self._keys.keyed(tenant, told))

    async def purge(self, tenant: str | None = None, entry: str | None = None) -> int:
        """Delete what is kept of a tenant (`team:NAME` or `key:NAME`), of a model, of both together, or all.

        Gives how many answers were in memory. What is being answered now is not kept either.

        Raises:
            ShelfUnavailable: memory has nothing of it any more, and elsewhere it may still be.
        """
        count = self.forget(tenant, entry)
        if self._shelf is not None:
            await self._shelf.purge(tenant, entry)
            # What was looked up meanwhile may have come from before.
            self.forget(tenant, entry)
        return count

    def forget(self, tenant: str | None = None, entry: str | None = None) -> int:
        """Delete what memory keeps of them, and give how many answers it were."""
        self._purges += 1
        self._keys.forget()
        return self._memory.purge(tenant, entry)

    async def sweep(self) -> None:
        """Delete some of what is too old to be given to anybody."""
        now_ns = self._wall_ns()
        self._memory.sweep(now_ns)
        if self._shelf is not None:
            await self._shelf.sweep(now_ns)

    def use(self, *, bytes_max: int, is_dry: bool, records_prefixes: bool) -> None:
        """Take other settings."""
        self.is_dry = is_dry
        self.records_prefixes = records_prefixes
        self._memory.resize(bytes_max)
        self._opened.resize(bytes_max // _OPENED_SHARE)
        if self._shelf is not None:
            self._shelf.resize(bytes_max)

    def held(self) -> Held:
        """Give what is kept now."""
        memory = self._memory
        return Held(len(memory), memory.bytes, memory.bytes_max, memory.evicted)

    # Inside.

    def _look_up(
        self, key: bytes, asked: Asked, policy: CachePolicy, wish: Control, allowed: Collection[Target]
    ) -> Look:
        """Look into memory."""
        look = Look(
            said=_MISS,
            key=key,
            request_hash=key[:_HASH_BYTES],
            asked=asked,
            policy=policy,
            joins=not (wish.no_cache or wish.only_if_cached),
            wish=wish,
            purges=self._purges,
        )
        data = self._memory.get(key, now_ns := self._wall_ns())
        opened = None if data is None else self._open(key, data)
        if opened is None:
            return self._judged(look, None, LEVEL, now_ns, allowed)
        found = self._judged(look, opened.answer, LEVEL, now_ns, allowed)
        return found if found.answer is None else msgspec.structs.replace(found, forms=opened.forms)

    def _open(self, key: bytes, data: bytes) -> Opened | None:
        """Read an answer that memory keeps; None: it is damaged."""
        opened = self._opened.get(key, data)
        if opened is None:
            answer = read_cached(data, key)
            opened = None if answer is None else self._opened.put(key, data, answer)
        return opened

    def _judged(
        self, look: Look, answer: CachedAnswer | None, level: str, now_ns: int, allowed: Collection[Target]
    ) -> Look:
        """Say what is to be done with what was found, by its age and by what the caller wants."""
        assert look.policy is not None
        wish, ttl_s = look.wish, look.policy.ttl_s
        if answer is not None and answer.target not in allowed:
            # Nobody is told what another key of the team was given from where this one may not ask.
            answer = None
        if wish.no_cache:
            forwarded = Forwarded.MISS if answer is None else Forwarded.REQUEST
            return msgspec.structs.replace(look, said=CacheSaid(forwarded=forwarded, detail="no-cache"))
        if answer is None:
            return look
        age_s = answer.age_s(now_ns)
        left_s = ttl_s - age_s
        if left_s <= 0 and -left_s > (wish.max_stale_s or 0):
            stale = CacheSaid(forwarded=Forwarded.STALE)
            return msgspec.structs.replace(look, said=stale, last_resort=answer)
        is_old = wish.max_age_s is not None and age_s > wish.max_age_s
        if is_old or (wish.min_fresh_s is not None and left_s < wish.min_fresh_s):
            unwanted = CacheSaid(forwarded=Forwarded.REQUEST, detail="max-age" if is_old else "min-fresh")
            return msgspec.structs.replace(look, said=unwanted, last_resort=answer)
        said = CacheSaid(ttl_s=left_s, detail=level)
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
        key = self._keys.key(asked, body)
        if key is None:
            return _BYPASSED[Bypass.NEW_TENANT]
        said = CacheSaid(forwarded=Forwarded.BYPASS, detail=detail)
        return Look(said=said, request_hash=key[:_HASH_BYTES])


def _place(look: Look) -> Place:
    assert look.key is not None and look.asked is not None
    return Place(look.key, look.asked.tenant, look.asked.entry)


def _life_ns(policy: CachePolicy) -> int:
    """Give how long an answer is of any use."""
    return int((policy.ttl_s + policy.stale_if_error_s) * 1e9)


_MISS: Final = CacheSaid(forwarded=Forwarded.MISS)
_BYPASSED: Final = {why: Look(said=CacheSaid(forwarded=Forwarded.BYPASS, detail=why.value)) for why in Bypass}


def _not_cached(why: str) -> NotCached:
    return NotCached(f"The call wants an answer that is kept (`only-if-cached`), and {why}.")
