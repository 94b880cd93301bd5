"""Money, whatever was used: sums, order, and the bound that a hold rests on."""

from datetime import date, time
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from tiergate.catalog import OWNED, Hours, Price, PriceRecord, PriceState, Rates, Tariff
from tiergate.core import Chunk, Usage, UsageSource, nanos_to_usd, usd_to_nanos
from tiergate.metering import Meter, bound, bounded_usage, cash_nanos
from tiergate.wire import dumps

TOKENS = st.integers(0, 10**7)
USD_PER_1M = st.decimals(0, 200, places=4)
RATES = st.builds(
    Rates,
    input=USD_PER_1M,
    output=USD_PER_1M,
    cache_read=st.none() | USD_PER_1M,
    cache_write_5m=st.none() | USD_PER_1M,
    cache_write_1h=st.none() | USD_PER_1M,
    reasoning=st.none() | USD_PER_1M,
    audio_in=USD_PER_1M,
    audio_out=USD_PER_1M,
)


def _priced(standard: Rates, long: Rates | None, peak: Rates | None, tier: Rates | None) -> Price:
    """Whatever a row can say: dearer or cheaper long inputs, hours of the week, a service tier."""
    tariff = Tariff(rates=standard, above=() if long is None else ((10**6, long),))
    hours = Hours(
        days=frozenset(range(7)),
        start=time(0),
        end=time(23, 59),
        zone="UTC",
        tariff=Tariff(rates=peak or standard),
    )
    return Price(
        state=PriceState.KNOWN,
        record=PriceRecord(
            target="p/m",
            standard=tariff,
            hours=() if peak is None else (hours,),
            service_tiers={} if tier is None else {"flex": Tariff(rates=tier)},
            valid_from=date(2026, 1, 1),
            source="made up",
        ),
    )


PRICES = st.builds(_priced, RATES, st.none(), st.none(), st.none())
ANY_PRICES = st.builds(_priced, RATES, *[st.none() | RATES] * 3)
TIERS = st.sampled_from([None, "default", "flex"])
BUCKETS = [bucket for bucket in Usage.__struct_fields__ if bucket != "images"]
USAGES = st.builds(Usage, **dict.fromkeys(BUCKETS, TOKENS))


def plus(one: Usage, other: Usage) -> Usage:
    return Usage(**{name: getattr(one, name) + getattr(other, name) for name in BUCKETS})


def cash(usage: Usage, price: Price) -> int:
    nanos = cash_nanos(usage, price)
    assert nanos is not None
    return nanos


@given(USAGES, USAGES, PRICES)
def test_the_cost_of_a_sum_is_the_sum_of_the_costs_but_for_one_rounding(
    one: Usage, other: Usage, price: Price
) -> None:
    """Each amount is rounded once, to a nano-dollar: two halves can differ from the whole by one."""
    assert abs(cash(plus(one, other), price) - cash(one, price) - cash(other, price)) <= 1


@given(USAGES, st.sampled_from(BUCKETS), TOKENS, PRICES)
def test_more_tokens_never_cost_less(usage: Usage, bucket: str, more: int, price: Price) -> None:
    """Monotone in every bucket."""
    assert cash(plus(usage, Usage(**{bucket: more})), price) >= cash(usage, price) >= 0


@given(USAGES, ANY_PRICES, st.integers(0, 10**6), st.integers(0, 10**6), TIERS)
def test_no_usage_within_the_bound_costs_more_than_the_bound(
    usage: Usage, price: Price, spare_in: int, spare_out: int, tier: str | None
) -> None:
    """Whatever buckets the tokens fall into, whichever hour it is and whichever tier it was served in."""
    worst = bound(
        {"messages": [], "service_tier": tier},
        prompt_bytes=usage.input_tokens + spare_in,
        output_tokens=usage.output_tokens + spare_out,
        choices=1,
        price=price,
    )
    assert worst.nanos is not None
    spent = cash_nanos(usage, price, service_tier=tier, sent_ns=0, ended_ns=10**18)
    assert spent is None or spent <= worst.nanos


@given(USAGES, PRICES, st.floats(0, 100))
def test_an_answer_cut_without_report_is_charged_no_less_than_any_report_could_have_said(
    usage: Usage, price: Price, elapsed_s: float
) -> None:
    """What the bound let through by the time of the cut, at the dearest rates; and no more than was held."""
    worst = bound(
        {"messages": []},
        prompt_bytes=usage.input_tokens,
        output_tokens=usage.output_tokens,
        choices=1,
        price=price,
    )
    account = Meter(bound=worst, price=price, choices=1).cut(elapsed_s=elapsed_s)
    assert account.source is UsageSource.BOUNDED
    assert account.cash_nanos is not None and worst.nanos is not None
    assert account.cash_nanos <= worst.nanos
    if usage.output_tokens <= bounded_usage(worst, elapsed_s=elapsed_s, choices=1).output:
        assert cash(usage, price) <= account.cash_nanos


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=5))
def test_the_bound_of_the_input_covers_any_text_in_any_byte_level_tokenizer(texts: list[str]) -> None:
    """No tokenizer makes more tokens than bytes, and JSON never writes a text in fewer bytes than it has."""
    body = {"model": "m", "messages": [{"role": "user", "content": text} for text in texts]}
    worst = bound(body, prompt_bytes=len(dumps(body)), output_tokens=1, choices=1, price=OWNED)
    byte_tokens = sum(len(text.encode()) for text in texts)
    template_tokens = 16 * len(texts) + 64
    assert worst.input_tokens >= byte_tokens + template_tokens


@given(st.integers(-(10**25), 10**25))
def test_nano_dollars_go_to_usd_and_back_unchanged(nanos: int) -> None:
    """Exact in both directions, with at most nine decimals and no zero at their end."""
    usd = nanos_to_usd(nanos)
    assert usd_to_nanos(usd) == nanos
    whole, _, decimals = format(usd, "f").partition(".")
    assert whole and len(decimals) <= 9 and not decimals.endswith("0")


@given(st.decimals(-(10**9), 10**9, allow_nan=False, allow_infinity=False, places=12))
def test_usd_are_rounded_to_the_nearest_nano_dollar(usd: Decimal) -> None:
    """Off by half a nano-dollar at most."""
    assert abs(usd * 10**9 - usd_to_nanos(usd)) <= Decimal("0.5")


@given(st.lists(st.none() | USAGES, max_size=5), st.text(max_size=20))
def test_the_last_report_counts(reports: list[Usage | None], text: str) -> None:
    """Reports are cumulative: a later one replaces an earlier one, unless more text came after it."""
    worst = bound({}, prompt_bytes=10, output_tokens=10, choices=1, price=OWNED)
    meter = Meter(bound=worst, price=OWNED, choices=1)
    for report in reports:
        meter.take(Chunk(b"", text=text, usage=report))
    account = meter.delivered(elapsed_s=1)
    said = [report for report in reports if report is not None]
    counts = bool(said) and (reports[-1] is not None or not text)
    assert account.source is (UsageSource.REPORTED if counts else UsageSource.ESTIMATED)
    if counts:
        assert account.usage == said[-1]
