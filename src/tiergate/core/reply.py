"""Replies and chunks: what came back, as the provider wrote it and as we read it."""

from decimal import Decimal

import msgspec

from tiergate.core.caching import CacheSaid
from tiergate.core.call import ReceiptUse
from tiergate.core.money import nanos_to_usd
from tiergate.core.target import Target, Tier
from tiergate.core.usage import Usage


class Chunk(msgspec.Struct, frozen=True, gc=False):
    """One event of a streamed reply, or the whole of one that is not streamed."""

    data: bytes
    """The JSON exactly as the upstream sent it."""
    content: bool = False
    """Carries text, reasoning, a tool call, a refusal or a finish reason: after it the target is fixed."""
    text: str = ""
    """Visible text of the first choice."""
    finish: tuple[str, ...] = ()
    """Finish reasons of the choices that end here."""
    usage: Usage | None = None
    odd_usage: bool = False
    """There is a usage report, and it cannot be; what was reported before it no longer counts."""
    bare_usage: bool = False
    """Usage and nothing else; withheld from a client that did not ask for it."""
    cost_nanos: int | None = None
    """What the upstream says that the call costs, in nano-dollars."""
    service_tier: str | None = None
    """The one that the upstream says it has used."""


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where a reply came from and how many attempts it took.

    `receipt`: where the call brought an `Idempotency-Key`, what that came to; `cache`: what became of it at
    the cache; `age_s`: of an answer that was there before, the seconds since then.
    """

    call_id: str
    target: Target
    attempts: int
    receipt: ReceiptUse | None = None
    cache: CacheSaid | None = None
    age_s: int | None = None

    @property
    def tier(self) -> Tier:
        """The tier that answered; the cache where the answer was there already."""
        is_kept = self.cache is not None and self.cache.forwarded is None
        return Tier.CACHE if is_kept or self.receipt is ReceiptUse.REPLAYED else self.target.tier


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """A complete answer.

    `cash_nanos` is what the provider will invoice, in nano-dollars; None while the price is unknown.
    `with_cost`: `data` with that in its usage, where it has been written before; None: not yet.
    """

    origin: Origin
    data: bytes
    text: str
    finish: tuple[str, ...]
    usage: Usage
    cash_nanos: int | None
    with_cost: bytes | None = None

    @property
    def cost_usd(self) -> Decimal | None:
        """What the provider will invoice, in USD; None while the price is unknown."""
        return None if self.cash_nanos is None else nanos_to_usd(self.cash_nanos)

    @property
    def target(self) -> str:
        """`provider/model` that answered."""
        return self.origin.target.name

    @property
    def tier(self) -> str:
        """The tier that answered; `cache` where the answer was there already."""
        return self.origin.tier.value
