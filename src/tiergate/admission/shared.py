"""Limits of keys that several processes share: leased a little ahead, so that few calls wait for a lease.

What a key has used is known to the bank alone. A call that needs more than was leased here asks the bank by
the way, and only where the bank is thought to have it; so a caller who has used up its rate is told at once.
While the bank does not answer, each process takes the share that the limit says.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

from tiergate.admission.limits import Allowance, Hit, KeyLimits, RateLeft, Slip, worst
from tiergate.rates import A_LEASE_S, ASKED_S, LeasedBucket, LeasedPlaces, SharedLimit, Sharing

_BURST_S: Final = 60.0
"""A key may use a minute's amount at once."""
_RESTING_MAX: Final = 1_000


class _Rate:
    """One rate of a key: its bucket, and what calls wait for just now."""

    __slots__ = ("bucket", "waiting")

    def __init__(self, per_minute: int, now: float) -> None:
        self.bucket = LeasedBucket(per_minute, now=now, burst_s=_BURST_S, begins_full=True)
        self.waiting = 0

    def is_short(self, amount: int, now: float) -> bool:
        """Tell whether a lease may bring what is missing."""
        return 0 < self.bucket.wait_s(self.share(amount), now) <= A_LEASE_S

    def wait_for(self, amount: int) -> None:
        """Take note that a call waits for so much; less than nothing: it waits no longer."""
        self.waiting += amount
        if amount > 0:
            self.bucket.expect(self.waiting)

    def share(self, amount: int) -> int:
        """Give what is taken for an amount: never more than a minute's."""
        return min(amount, self.bucket.per_minute)


class _Parts:
    """What is here of the limits of a key."""

    __slots__ = ("for_places", "inside", "limits", "places", "rates")

    def __init__(self) -> None:
        self.limits: KeyLimits | None = None
        self.rates: dict[str, _Rate] = {}
        self.places: LeasedPlaces | None = None
        self.inside = 0
        self.for_places = 0
        """Calls that ask for a place just now."""

    @property
    def at_rest(self) -> bool:
        """Tell whether there is nothing to remember."""
        is_used = self.inside or (self.places is not None and not self.places.at_rest)
        return not is_used and all(rate.bucket.at_rest for rate in self.rates.values())

    def use(self, limits: KeyLimits, now: float) -> None:
        """Take other limits; what is owed stays owed."""
        self.limits = limits
        for name, per_minute in (("rpm", limits.rpm), ("tpm", limits.tpm)):
            if per_minute is None:
                self.rates.pop(name, None)
            elif name not in self.rates:
                self.rates[name] = _Rate(per_minute, now)
            elif self.rates[name].bucket.per_minute != per_minute:
                self.rates[name].bucket.change(per_minute, now)
        if self.places is not None:
            self.places.change(limits.concurrency)
        elif limits.concurrency is not None:
            self.places = LeasedPlaces(limits.concurrency, taken=self.inside)

    def asked(self, tokens: int) -> list[tuple[str, _Rate, int]]:
        """Give the rates, and what a call takes of each."""
        amounts = {"rpm": 1, "tpm": tokens}
        return [(name, rate, rate.share(amounts[name])) for name, rate in self.rates.items()]

    def is_full(self, now: float) -> bool:
        """Tell whether no place is here."""
        return self.places is not None and not self.places.has_room(now)

    def rest(self, now: float) -> None:
        """Forget what was in force while nobody answered."""
        for rate in self.rates.values():
            rate.bucket.rest(now)
        if self.places is not None:
            self.places.rest(now)


class SharedLimits:
    """What keys may use of their shared limits, by name.

    Args:
        now_ns: reads a clock that never goes back.
        sharing: whom to ask for more.
    """

    def __init__(self, now_ns: Callable[[], int], sharing: Sharing) -> None:
        self._now_ns = now_ns
        self._sharing = sharing
        self._parts: dict[str, _Parts] = {}
        self._resting: dict[str, _Parts] = {}
        """What was used last and is not leased any more: what is left of it is still roughly known."""
        self._waiting: Counter[str] = Counter()
        """Calls that wait for a lease, by key."""

    async def bring(self, key: str, limits: KeyLimits, tokens: int) -> None:
        """Lease what a call needs and is not here, if the bank may have it; otherwise nothing happens.

        It waits a bounded time, however often it has to ask; if settings change meanwhile it asks no more.
        """
        parts = self._parts_of(key, limits)
        until = self._now() + ASKED_S
        while (now := self._now()) < until and parts.limits == limits and self._parts.get(key) is parts:
            short = [(rate, amount) for _, rate, amount in parts.asked(tokens) if rate.is_short(amount, now)]
            places = parts.places if parts.is_full(now) else None
            if places is not None and not places.may_be_leased():
                return
            if not short and places is None:
                return
            if not await self._ask(key, parts, short, places, until - now):
                share = self._sharing.share(limits.without)
                for rate, _ in short:
                    rate.bucket.lend(share)
                if places is not None:
                    places.lend(share)
                return

    async def _ask(
        self,
        key: str,
        parts: _Parts,
        short: list[tuple[_Rate, int]],
        places: LeasedPlaces | None,
        wait_s: float,
    ) -> bool:
        """Ask the bank for what a call lacks, together with all that wait for the same."""
        for rate, amount in short:
            rate.wait_for(amount)
        if places is not None:
            parts.for_places += 1
            places.expect(parts.for_places)
        self._waiting[key] += 1
        try:
            return await self._sharing.ask(wait_s)
        finally:
            self._waiting[key] -= 1
            if not self._waiting[key]:
                del self._waiting[key]
            for rate, amount in short:
                rate.wait_for(-amount)
            if places is not None:
                parts.for_places -= 1

    def take(self, key: str, limits: KeyLimits, tokens: int) -> Slip | Hit:
        """Take a call and its tokens, or tell which limit keeps it out; then nothing is counted."""
        parts, now = self._parts_of(key, limits), self._now()
        asked = parts.asked(tokens)
        hits = [
            Hit(
                limit=name,
                allowed=rate.bucket.per_minute,
                left=max(0, int(rate.bucket.left_for_all(now))),
                wait_ns=int(wait_s * 1e9),
            )
            for name, rate, amount in asked
            if (wait_s := rate.bucket.wait_s(amount, now))
        ]
        if not hits and parts.is_full(now):
            assert limits.concurrency is not None
            hits = [Hit(limit="concurrency", allowed=limits.concurrency)]
        found = worst(hits)
        if found is not None:
            for _, rate, _ in asked:
                rate.bucket.look_again()
            return found
        slip = Slip()
        for name, rate, amount in asked:
            rate.bucket.take(amount, now)
            if name == "tpm":
                slip = Slip(took=amount)
        parts.inside += 1
        if parts.places is not None:
            parts.places.take()
        return slip

    def settle(self, key: str, slip: Slip, used: int) -> None:
        """Correct what a call took to what it used, and give its place back."""
        parts = self._parts[key]
        rate = parts.rates.get("tpm")
        if slip.took is not None and rate is not None:
            rate.bucket.correct(took=slip.took, used=used)
        parts.inside -= 1
        if parts.places is not None:
            parts.places.give_back()

    def allowance(self, key: str, limits: KeyLimits) -> Allowance:
        """Tell what is left of a key's limits, as far as it is known here."""
        parts, now = self._parts_of(key, limits), self._now()
        left = {name: _left(rate.bucket, now) for name, rate in parts.rates.items()}
        return Allowance(
            limits=limits,
            calls=left.get("rpm"),
            tokens=left.get("tpm"),
            places=None if limits.concurrency is None or parts.places is None else parts.places.left,
        )

    def shared(self, *, urgent: bool) -> Iterator[SharedLimit]:
        """Give what is leased, or only what calls wait for; not what is at rest."""
        for key in tuple(self._waiting if urgent else self._parts):
            parts = self._parts[key]
            if parts.at_rest and key not in self._waiting:
                self._rest(key)
                continue
            assert parts.limits is not None
            without = parts.limits.without
            for name, rate in parts.rates.items():
                yield SharedLimit(f"key:{key}:{name}", rate.bucket, without)
            if parts.places is not None:
                yield SharedLimit(f"key:{key}:concurrency", parts.places, without)

    def look_again(self) -> None:
        """Nobody stands in a line here: whoever asked is answered by `Sharing`."""

    def _rest(self, key: str) -> None:
        """Lease no more for a key; of those that rest a few are remembered."""
        parts = self._resting[key] = self._parts.pop(key)
        parts.rest(self._now())
        if len(self._resting) > _RESTING_MAX:
            del self._resting[next(iter(self._resting))]

    def _parts_of(self, key: str, limits: KeyLimits) -> _Parts:
        parts = self._parts.get(key)
        if parts is None:
            resting = self._resting.pop(key, None)
            parts = self._parts[key] = _Parts() if resting is None else resting
        if parts.limits != limits:
            parts.use(limits, self._now())
        return parts

    def _now(self) -> float:
        return self._now_ns() / 1e9


def _left(bucket: LeasedBucket, now: float) -> RateLeft:
    left = min(bucket.most, bucket.left_for_all(now))
    full_in_s = (bucket.most - left) * 60 / bucket.per_minute
    return RateLeft(limit=bucket.per_minute, left=max(0, int(left)), full_in_s=full_in_s)
