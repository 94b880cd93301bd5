"""The rates of keys that several processes share: leased a little ahead, so that few calls wait for a lease.

What a key has used is known to the bank alone. A call that needs more than was leased here asks the bank by
the way, and only where the bank is thought to have it; so a caller who has used up its rate is told at once.
While the bank does not answer, each process takes the share that the limit says.
"""

from collections.abc import Callable, Container, Iterator
from typing import Final

from tiergate.admission.limits import (
    Allowance,
    Hit,
    KeyLimits,
    RateLeft,
    Slip,
    hit_of_places,
    worst,
)
from tiergate.rates import A_LEASE_S, LeasedBucket, SharedRate, Sharing

_BURST_S: Final = 60.0
"""A key may use a minute's amount at once."""
_LEASES: Final = 20
"""So often a call asks for more: the bank gives each process no more than its part at a time."""


class _Rate:
    """One rate of a key: its bucket, and what calls wait for just now."""

    __slots__ = ("bucket", "waiting")

    def __init__(self, per_minute: int, now: float) -> None:
        self.bucket = LeasedBucket(per_minute, now=now, burst_s=_BURST_S, begins_full=True)
        self.waiting = 0

    def share(self, amount: int) -> int:
        """Give what is taken for an amount: never more than a minute's."""
        return min(amount, self.bucket.per_minute)


class SharedRates:
    """What keys may use of their shared rates.

    Args:
        now_ns: reads a clock that never goes back.
        inside: the names of keys that have calls inside: they are never forgotten.
        sharing: whom to ask for more.
    """

    def __init__(self, now_ns: Callable[[], int], inside: Container[str], sharing: Sharing) -> None:
        self._now_ns = now_ns
        self._inside = inside
        self._sharing = sharing
        self._rates: dict[str, dict[str, _Rate]] = {}
        self._limits: dict[str, KeyLimits] = {}

    async def bring(self, key: str, limits: KeyLimits, tokens: int) -> None:
        """Lease what a call needs and is not here, if the bank may have it; otherwise nothing happens."""
        for _ in range(_LEASES):
            now = self._now()
            short = [
                (rate, amount)
                for _, rate, amount in self._asked(key, limits, tokens)
                if 0 < rate.bucket.wait_s(amount, now) <= A_LEASE_S
            ]
            if not short:
                return
            for rate, amount in short:
                rate.waiting += amount
                rate.bucket.expect(rate.waiting)
            try:
                is_answered = await self._sharing.ask()
            finally:
                for rate, amount in short:
                    rate.waiting -= amount
            if not is_answered:
                for rate, _ in short:
                    rate.bucket.lend(self._sharing.share(limits.without))
                return

    def take(self, key: str, limits: KeyLimits, *, inside: int, tokens: int) -> Slip | Hit | None:
        """Take a call and its tokens, or tell which limit keeps it out; then nothing is counted."""
        now = self._now()
        asked = self._asked(key, limits, tokens)
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
        found = worst(hits) or hit_of_places(limits, inside)
        if found is not None:
            return found
        slip = None
        for name, rate, amount in asked:
            rate.bucket.take(amount, now)
            if name == "tpm":
                slip = Slip(taken_to=0, took=amount)
        return slip

    def settle(self, key: str, slip: Slip, used: int) -> None:
        """Correct what a call took to what it used."""
        rate = self._rates.get(key, {}).get("tpm")
        if rate is not None:
            rate.bucket.correct(took=slip.took, used=used)

    def allowance(self, key: str, limits: KeyLimits, *, inside: int) -> Allowance:
        """Tell what is left of a key's limits, as far as it is known here."""
        now = self._now()
        left = {name: _left(rate.bucket, now) for name, rate, _ in self._asked(key, limits, 0)}
        return Allowance(
            limits=limits,
            calls=left.get("rpm"),
            tokens=left.get("tpm"),
            places=None if limits.concurrency is None else max(0, limits.concurrency - inside),
        )

    def shared(self) -> Iterator[SharedRate]:
        """Give the rates that are leased; what is at rest is forgotten first."""
        for key, rates in tuple(self._rates.items()):
            if key not in self._inside and all(rate.bucket.at_rest for rate in rates.values()):
                del self._rates[key], self._limits[key]
                continue
            for name, rate in rates.items():
                yield SharedRate(f"key:{key}:{name}", rate.bucket, self._limits[key].without)

    def look_again(self) -> None:
        """Nobody stands in a line here: whoever asked is answered by `Sharing`."""

    def _asked(self, key: str, limits: KeyLimits, tokens: int) -> list[tuple[str, _Rate, int]]:
        """Give the rates of a key under these limits, and what a call takes of each."""
        if self._limits.get(key) != limits:
            self._change(key, limits)
        amounts = {"rpm": 1, "tpm": tokens}
        return [(name, rate, rate.share(amounts[name])) for name, rate in self._rates[key].items()]

    def _change(self, key: str, limits: KeyLimits) -> None:
        """Take other limits; what is owed stays owed."""
        now = self._now()
        self._limits[key] = limits
        rates = self._rates.setdefault(key, {})
        for name, per_minute in (("rpm", limits.rpm), ("tpm", limits.tpm)):
            if per_minute is None:
                rates.pop(name, None)
            elif name not in rates:
                rates[name] = _Rate(per_minute, now)
            elif rates[name].bucket.per_minute != per_minute:
                rates[name].bucket.change(per_minute, now)

    def _now(self) -> float:
        return self._now_ns() / 1e9


def _left(bucket: LeasedBucket, now: float) -> RateLeft:
    left = min(bucket.most, bucket.left_for_all(now))
    full_in_s = (bucket.most - left) * 60 / bucket.per_minute
    return RateLeft(limit=bucket.per_minute, left=max(0, int(left)), full_in_s=full_in_s)
