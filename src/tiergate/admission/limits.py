"""Limits of a key: calls and tokens per minute, calls inside at one time, and what one call may ask for.

Pure; whoever asks brings the time.

A bucket is a queue. What a call takes is put at its end, and time takes away from its front, a minute's
amount in each minute. A call gets in while what stands there and what it asks for are together no more than
a minute's amount. An empty queue saves nothing up: after a pause of any length, also of a stopped process,
there is one minute's amount and no more.

A call takes what it may use and gives back at its end what it did not. It gets back only what still stands
in the queue: what time took away of it has made room for others already, and would be given twice. With
that, what calls used is within the limit over every span of time, not only on the average.

One that asks for more than a minute's amount takes a whole minute's amount. So it gets in when nothing
stands in the queue. It could be refused instead, but what is asked is a limit and seldom what is used, and
clients ask for the longest answer that a model has.

All amounts inside are whole numbers: a call or a token has so many parts that each nanosecond takes away
`per_minute` of them, and nothing is lost by rounding.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec
from msgspec.structs import replace

from tiergate.core import REASONING_EFFORTS, Caps
from tiergate.rates import WithoutBank

Choice = TypeVar("Choice", bound=str)
RPM_MAX: Final = 10_000_000
TPM_MAX: Final = 100_000_000_000
CONCURRENCY_MAX: Final = 100_000
OUTPUT_TOKENS_MAX: Final = 10_000_000
CHOICES_MAX: Final = 1_000
IMAGES_MAX: Final = 10_000

_PARTS: Final = 60_000_000_000
"""Of a call or a token: the nanoseconds of a minute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyLimits:
    """What a key may do: calls per minute, tokens per minute, calls inside at one time. None: no limit.

    `max_…` are caps: the most that one call may ask for. `without_redis` says what the rates let in while
    gateways that share them cannot ask each other.
    """

    rpm: int | None = None
    tpm: int | None = None
    concurrency: int | None = None
    max_output_tokens: int | None = None
    max_choices: int | None = None
    max_images: int | None = None
    max_reasoning_effort: str | None = None
    without_redis: WithoutBank | None = None

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "KeyLimits":
        """Give them as they were written down, by name."""
        without = given.get("without_redis")
        return cls(**{**given, "without_redis": None if without is None else WithoutBank(without)})

    @property
    def without(self) -> WithoutBank:
        """What the rates let in while nobody can be asked."""
        return self.without_redis or WithoutBank.SHARE

    @property
    def caps(self) -> Caps | None:
        """What one call may ask for; None: nothing is capped."""
        caps = Caps(
            output_tokens=self.max_output_tokens,
            choices=self.max_choices,
            images=self.max_images,
            reasoning_effort=self.max_reasoning_effort,
        )
        return None if caps == _NO_CAPS else caps

    def lower(self, other: "KeyLimits") -> "KeyLimits":
        """Give the lower of each."""
        return KeyLimits(
            rpm=_lower(self.rpm, other.rpm),
            tpm=_lower(self.tpm, other.tpm),
            concurrency=_lower(self.concurrency, other.concurrency),
            max_output_tokens=_lower(self.max_output_tokens, other.max_output_tokens),
            max_choices=_lower(self.max_choices, other.max_choices),
            max_images=_lower(self.max_images, other.max_images),
            max_reasoning_effort=_less(
                REASONING_EFFORTS, self.max_reasoning_effort, other.max_reasoning_effort
            ),
            without_redis=_less(_STRICTEST_FIRST, self.without_redis, other.without_redis),
        )


_STRICTEST_FIRST: Final = (WithoutBank.CLOSED, WithoutBank.SHARE, WithoutBank.OPEN)
_NO_CAPS: Final = Caps()
NO_LIMITS: Final = KeyLimits()


class Bucket(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What stands in the queue: the parts that ever came, less those that are gone."""

    per_minute: int
    at_ns: int
    """The moment that it was last looked at, on a clock that never goes back."""
    came: int = 0
    gone: int = 0

    @property
    def left(self) -> int:
        """Whole calls or tokens that could be taken now."""
        return max(0, self.per_minute - -(-(self.came - self.gone) // _PARTS))

    @property
    def full_in_ns(self) -> int:
        """Time until nothing stands in it."""
        return -(-(self.came - self.gone) // self.per_minute)

    def wait_ns(self, amount: int) -> int:
        """Give the time until so much can be taken; 0: now."""
        over = self.came - self.gone + (self.share(amount) - self.per_minute) * _PARTS
        return max(0, -(-over // self.per_minute))

    def share(self, amount: int) -> int:
        """Give what is taken for an amount: never more than a minute's."""
        return min(amount, self.per_minute)

    def at(self, now_ns: int) -> "Bucket":
        """Give it as it is at a moment. One before the last changes nothing."""
        if now_ns <= self.at_ns:
            return self
        gone = min(self.came, self.gone + self.per_minute * (now_ns - self.at_ns))
        return replace(self, at_ns=now_ns, gone=gone)

    def take(self, amount: int) -> "Bucket":
        """Put an amount at the end of the queue, whatever stands there."""
        return replace(self, came=self.came + self.share(amount) * _PARTS)

    def settle(self, *, taken_to: int, took: int, used: int) -> "Bucket":
        """Correct what a call took to what it used. It may have used more: then less than nothing is left.

        `taken_to` is `came` as it was right after the call took `took`.
        """
        if used >= took:
            return replace(self, came=self.came + (used - took) * _PARTS)
        standing = min(took * _PARTS, max(0, taken_to - self.gone))
        # Taken from the front, where others may stand by now: they get back less for it, never more.
        return replace(self, gone=self.gone + min((took - used) * _PARTS, standing))

    def changed(self, per_minute: int) -> "Bucket":
        """Give it under another limit. What was used stays used, as far as the lower limit reaches.

        Of 1,000 calls none is left; under a limit of 1 that would be a wait of 16 hours. So what stands is
        cut to what takes no longer to go away than it did, or a minute.
        """
        standing = self.came - self.gone
        most = max(per_minute * _PARTS, standing * per_minute // self.per_minute)
        return replace(self, per_minute=per_minute, gone=self.gone + max(0, standing - most))


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """What a key has used of its limits per minute. None: nothing that counts."""

    calls: Bucket | None = None
    tokens: Bucket | None = None

    def at(self, limits: KeyLimits, now_ns: int) -> "Rates":
        """Give them as they are at a moment, under limits that may have changed since."""
        return Rates(
            calls=_bucket_at(self.calls, limits.rpm, now_ns),
            tokens=_bucket_at(self.tokens, limits.tpm, now_ns),
        )

    @property
    def at_rest(self) -> bool:
        """Tell whether there is nothing to remember."""
        return all(bucket is None or bucket.came == bucket.gone for bucket in (self.calls, self.tokens))


NOTHING_USED: Final = Rates()


class Hit(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A limit that keeps a call out: `rpm`, `tpm` or `concurrency`, what it allows and what is left of it."""

    limit: str
    allowed: int
    left: int = 0
    wait_ns: int | None = None
    """Until it lets the call in; None: nobody knows."""


def hit(limits: KeyLimits, rates: Rates, *, inside: int, tokens: int) -> Hit | None:
    """Tell which limit keeps a call out; None: none does. Of two rates the one that lasts longer.

    Args:
        limits: of its key.
        rates: what the key has used, at this moment.
        inside: calls of the key that are inside.
        tokens: what the call may use.
    """
    found = [
        Hit(limit=name, allowed=bucket.per_minute, left=bucket.left, wait_ns=wait_ns)
        for name, limit, bucket, amount in (
            ("rpm", limits.rpm, rates.calls, 1),
            ("tpm", limits.tpm, rates.tokens, tokens),
        )
        if limit is not None and bucket is not None and (wait_ns := bucket.wait_ns(amount))
    ]
    if not found and limits.concurrency is not None and inside >= limits.concurrency:
        return Hit(limit="concurrency", allowed=limits.concurrency)
    return worst(found)


def worst(hits: Sequence[Hit]) -> Hit | None:
    """Give the one that lasts longest, if there is any."""
    return max(hits, key=lambda one: one.wait_ns or 0, default=None)


class Slip(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a call took of its key's tokens, and up to where: it is corrected by this when the call ends."""

    taken_to: int = 0
    took: int | None = None
    """None: its key's tokens were not limited."""


class RateLeft(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What is left of a rate, and seconds until all of it is there again."""

    limit: int
    left: int
    full_in_s: float


class Allowance(msgspec.Struct, frozen=True, kw_only=True):
    """What a key may do, and what is left of it now. None: no limit."""

    limits: KeyLimits
    calls: RateLeft | None = None
    tokens: RateLeft | None = None
    places: int | None = None
    """Calls that may still come in at this moment."""


def allowance(limits: KeyLimits, rates: Rates, *, inside: int) -> Allowance:
    """Tell what is left of a key's limits; `rates` are of this moment."""
    return Allowance(
        limits=limits,
        calls=None if limits.rpm is None else _left(rates.calls),
        tokens=None if limits.tpm is None else _left(rates.tokens),
        places=None if limits.concurrency is None else max(0, limits.concurrency - inside),
    )


def _left(bucket: Bucket | None) -> RateLeft | None:
    if bucket is None:
        return None
    return RateLeft(limit=bucket.per_minute, left=bucket.left, full_in_s=bucket.full_in_ns / 1e9)


def _bucket_at(bucket: Bucket | None, per_minute: int | None, now_ns: int) -> Bucket | None:
    if bucket is None:
        return None if per_minute is None else Bucket(per_minute=per_minute, at_ns=now_ns)
    # Up to now by the limit that was, since a change is no matter of the past; without one it is remembered.
    bucket = bucket.at(now_ns)
    return bucket if per_minute in (None, bucket.per_minute) else bucket.changed(per_minute)


def _lower(one: int | None, other: int | None) -> int | None:
    return min([limit for limit in (one, other) if limit is not None], default=None)


def _less(order: Sequence[Choice], one: Choice | None, other: Choice | None) -> Choice | None:
    """Give whichever stands first."""
    return min([choice for choice in (one, other) if choice is not None], key=order.index, default=None)
