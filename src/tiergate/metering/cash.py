"""Usage into money: what a provider will invoice, rounded once."""

from decimal import Decimal

from tiergate.catalog import Price, PriceState, Rates
from tiergate.core import Usage, usd_to_nanos

_MILLION = Decimal(1_000_000)
_NEVER = Decimal("NaN")
"""Stands where a rate must be there; it would spoil the sum visibly."""


def cash_nanos(usage: Usage, price: Price) -> int | None:
    """Give what the provider will invoice for a usage, in nano-dollars; None while the price is unknown.

    A target of our own invoices nothing. A bucket without a rate of its own is billed as the bucket that it
    is a part of: cached input as input, reasoning as output. Audio without a rate cannot be priced.
    """
    if price.state is PriceState.OWNED:
        return 0
    if price.record is None:
        return None
    rates = price.record.rates
    if (usage.audio_in and rates.audio_in is None) or (usage.audio_out and rates.audio_out is None):
        return None
    if usage.images:
        return None
    return usd_to_nanos(_weighted(usage, rates) / _MILLION)


def dearest_nanos(tokens_in: int | None, tokens_out: int | None, price: Price) -> int | None:
    """Give the most that a provider can invoice for so many tokens, whichever buckets they fall into.

    None: the price is unknown, or nothing limits (None) tokens that cost.
    """
    if price.state is PriceState.OWNED:
        return 0
    if price.record is None:
        return None
    rates = price.record.rates
    rate_in = _dearest(
        rates.input, rates.cache_read, rates.cache_write_5m, rates.cache_write_1h, rates.audio_in
    )
    rate_out = _dearest(rates.output, rates.reasoning, rates.audio_out)
    if (tokens_in is None and rate_in) or (tokens_out is None and rate_out):
        return None
    return usd_to_nanos(((tokens_in or 0) * rate_in + (tokens_out or 0) * rate_out) / _MILLION)


def _dearest(*rates: Decimal | None) -> Decimal:
    return max(rate for rate in rates if rate is not None)


def _weighted(usage: Usage, rates: Rates) -> Decimal:
    total = usage.input * rates.input + usage.output * rates.output
    for tokens, rate, whole in (
        (usage.cache_read, rates.cache_read, rates.input),
        (usage.cache_write_5m, rates.cache_write_5m, rates.input),
        (usage.cache_write_1h, rates.cache_write_1h, rates.input),
        (usage.reasoning, rates.reasoning, rates.output),
        (usage.audio_in, rates.audio_in, _NEVER),
        (usage.audio_out, rates.audio_out, _NEVER),
    ):
        if tokens:
            total += tokens * (whole if rate is None else rate)
    return total
