"""What a call would cost, part by part: before it is made, and to compare prices."""

from dataclasses import dataclass

from tiergate.catalog import Price, PriceState, Rates
from tiergate.core import Usage, usd_to_nanos
from tiergate.metering.cash import cash_nanos, nanos_at


@dataclass(frozen=True, slots=True, kw_only=True)
class CostParts:
    """The parts of a cost in nano-dollars; their sum is what `cash_nanos` gives."""

    input_nanos: int
    """What no cache of the provider held."""
    cached_nanos: int
    output_nanos: int
    fee_nanos: int
    """For the call itself."""

    @property
    def total_nanos(self) -> int:
        """All together."""
        return self.input_nanos + self.cached_nanos + self.output_nanos + self.fee_nanos


def cost_parts(
    usage: Usage, price: Price, *, at_ns: int, service_tier: str | None = None
) -> CostParts | None:
    """Give the cost of a usage at a moment (nanoseconds since 1970); None: unknown.

    `service_tier` is the one that was asked for; None: the standard one.
    """
    if price.state is PriceState.OWNED:
        return CostParts(input_nanos=0, cached_nanos=0, output_nanos=0, fee_nanos=0)
    total, record = (
        cash_nanos(usage, price, service_tier=service_tier, sent_ns=at_ns, ended_ns=at_ns),
        price.record,
    )
    if total is None or record is None:
        return None
    fee = usd_to_nanos(record.usd_per_request)
    rates = charged_rates(usage, price, service_tier=service_tier, sent_ns=at_ns, ended_ns=at_ns)
    assert rates is not None, "what has a cost has rates"
    fresh, cached = _part(rates, 0, usage.input), _part(rates, 1, usage.cache_read)
    return CostParts(
        input_nanos=fresh, cached_nanos=cached, output_nanos=total - fee - fresh - cached, fee_nanos=fee
    )


def charged_rates(
    usage: Usage, price: Price, *, service_tier: str | None, sent_ns: int, ended_ns: int
) -> Rates | None:
    """Give the rates that `cash_nanos` charges a usage by; None: it has no known price."""
    if price.record is None:
        return None
    tariffs = price.record.tariffs(service_tier, received_ns=sent_ns, completed_ns=ended_ns)
    dearest, found = -1, None
    for tariff in tariffs:
        rates = tariff.for_input(usage.input_tokens)
        nanos = nanos_at(usage, rates)
        if nanos is None:
            return None
        if nanos > dearest:
            dearest, found = nanos, rates
    return found


def _part(rates: Rates, place: int, tokens: int) -> int:
    rate = rates.scaled[place]
    assert rate is not None
    return tokens * rate // rates.scale
