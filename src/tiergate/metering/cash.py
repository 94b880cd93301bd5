"""Usage into money: what a provider will invoice, in whole nano-dollars, rounded once."""

from tiergate.catalog import Price, PriceRecord, PriceState, Rates
from tiergate.core import Usage, usd_to_nanos


def cash_nanos(
    usage: Usage, price: Price, *, service_tier: str | None = None, sent_ns: int = 0, ended_ns: int = 0
) -> int | None:
    """Give what the provider will invoice for a usage, in nano-dollars; None while that is not known.

    A target of our own invoices nothing. A bucket without a rate of its own is billed as the bucket that it
    is a part of: cached input as input, reasoning as output. Audio and images without a rate cannot be
    priced.

    Args:
        usage: what was used.
        price: of the target when the call was sent.
        service_tier: the one that the provider says it has used; one without a price makes the cost unknown.
        sent_ns: when the call was sent, and
        ended_ns: when it ended, in nanoseconds since 1970: where hours of the week decide, the dearer counts
            unless the price says which.
    """
    if price.state is PriceState.OWNED:
        return 0
    record = price.record
    if record is None:
        return None
    input_tokens = usage.input_tokens
    dearest = None
    for tariff in record.tariffs(service_tier, received_ns=sent_ns, completed_ns=ended_ns):
        nanos = nanos_at(usage, tariff.for_input(input_tokens))
        if nanos is None:
            return None
        if dearest is None or nanos > dearest:
            dearest = nanos
    return None if dearest is None else dearest + _fee(record)


def dearest_nanos(
    tokens_in: int | None, tokens_out: int | None, price: Price, *, service_tier: str | None = None
) -> int | None:
    """Give the most that a provider can invoice for so many tokens, whichever buckets they fall into.

    Whatever hour it is, however long the input turns out to be, and whichever service tier it ends up with
    after asking for `service_tier`.

    None: the price is unknown, or nothing limits (None) tokens that cost.
    """
    if price.state is PriceState.OWNED:
        return 0
    record = price.record
    if record is None:
        return None
    dearest = 0
    for tariff in record.possible_tariffs(service_tier):
        for rates in tariff.up_to(tokens_in):
            nanos = _most(tokens_in, tokens_out, rates)
            if nanos is None:
                return None
            dearest = max(dearest, nanos)
    return dearest + _fee(record)


def _fee(record: PriceRecord) -> int:
    return usd_to_nanos(record.usd_per_request) if record.usd_per_request else 0


def nanos_at(usage: Usage, rates: Rates) -> int | None:
    """Give what a usage costs at these rates, without a fee; None: one of its buckets has no rate."""
    uncached, read, write_5m, write_1h, output, reasoning, audio_in, audio_out = rates.scaled
    if usage.images or (usage.audio_in and audio_in is None) or (usage.audio_out and audio_out is None):
        return None
    assert uncached is not None and read is not None and write_5m is not None and write_1h is not None
    assert output is not None and reasoning is not None
    total = usage.input * uncached + usage.output * output
    total += usage.cache_read * read + usage.cache_write_5m * write_5m + usage.cache_write_1h * write_1h
    total += usage.reasoning * reasoning
    total += usage.audio_in * (audio_in or 0) + usage.audio_out * (audio_out or 0)
    return _rounded(total, rates.scale)


def _most(tokens_in: int | None, tokens_out: int | None, rates: Rates) -> int | None:
    uncached, read, write_5m, write_1h, output, reasoning, audio_in, audio_out = rates.scaled
    rate_in = max(rate for rate in (uncached, read, write_5m, write_1h, audio_in) if rate is not None)
    rate_out = max(rate for rate in (output, reasoning, audio_out) if rate is not None)
    if (tokens_in is None and rate_in) or (tokens_out is None and rate_out):
        return None
    return _rounded((tokens_in or 0) * rate_in + (tokens_out or 0) * rate_out, rates.scale)


def _rounded(scaled: int, scale: int) -> int:
    """Round half up."""
    return (2 * scaled + scale) // (2 * scale)
