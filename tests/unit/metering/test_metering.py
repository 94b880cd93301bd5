"""Usage into money, the bound before the fact, and the meter of one attempt."""

from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from tiergate.catalog import OWNED, REFERENCE_PRICES, UNKNOWN, Price, PriceRecord, PriceState, Rates, Tariff
from tiergate.core import Chunk, Usage, UsageSource
from tiergate.metering import TOKENS_PER_S_MAX, Account, Bound, Meter, bound, bounded_usage, cash_nanos


def usd(amount: str) -> int:
    return int(Decimal(amount) * 10**9)


def price(**usd_per_1m: str) -> Price:
    rates = Rates(**{bucket: Decimal(amount) for bucket, amount in usd_per_1m.items()})
    record = PriceRecord(
        target="p/m", standard=Tariff(rates=rates), valid_from=date(2026, 1, 1), source="a test"
    )
    return Price(state=PriceState.KNOWN, record=record)


SHEET = {
    record.target.partition("/")[2]: Price(state=PriceState.KNOWN, record=record)
    for record in REFERENCE_PRICES
}
DEEPSEEK = SHEET["deepseek-v3.2"]


# Cash.


@pytest.mark.parametrize(
    ("model", "tokens_in", "tokens_out", "cost_usd"),
    [
        ("deepseek-v3.2", 1_000_000, 0, "0.14"),
        ("deepseek-v3.2", 0, 1_000_000, "0.28"),
        ("deepseek-v3.2", 1_000_000, 1_000_000, "0.42"),
        ("deepseek-v3.2", 500_000, 500_000, "0.21"),
        ("gpt-4.1", 10_000_000, 10_000_000, "100"),
        ("claude-sonnet-4.5", 1_000, 500, "0.0105"),
        ("gemini-2.5-flash", 1, 1, "0.0000028"),
        ("gemini-2.5-flash", 0, 0, "0"),
    ],
)
def test_input_and_output_are_priced_apart(
    model: str, tokens_in: int, tokens_out: int, cost_usd: str
) -> None:
    """0.14 in and 0.28 out is not 0.42 on average: only a million of each costs that."""
    assert cash_nanos(Usage(input=tokens_in, output=tokens_out), SHEET[model]) == usd(cost_usd)


def test_a_bucket_with_a_rate_of_its_own_is_billed_by_it() -> None:
    """A million tokens in each bucket, each at another price."""
    priced = price(
        input="1",
        output="2",
        cache_read="0.1",
        cache_write_5m="1.25",
        cache_write_1h="3",
        reasoning="5",
        audio_in="10",
        audio_out="20",
    )
    assert priced.record is not None
    for bucket in ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h", "reasoning"):
        rate = getattr(priced.record.rates, bucket)
        assert cash_nanos(Usage(**{bucket: 10**6}), priced) == usd(str(rate))
    everything = Usage(**{name: 10**6 for name in Usage.__struct_fields__ if name != "images"})
    assert cash_nanos(everything, priced) == usd("42.35")


def test_a_bucket_without_a_rate_is_billed_as_what_it_is_a_part_of() -> None:
    """Cached input as input, reasoning as output: never cheaper than the provider might."""
    plain = price(input="1", output="2")
    for bucket in ("cache_read", "cache_write_5m", "cache_write_1h"):
        assert cash_nanos(Usage(**{bucket: 10**6}), plain) == usd("1")
    assert cash_nanos(Usage(reasoning=10**6), plain) == usd("2")


def test_audio_and_images_without_a_rate_cannot_be_priced() -> None:
    """Unknown, not zero and not the price of text."""
    plain = price(input="1", output="2")
    for bucket in ("audio_in", "audio_out", "images"):
        assert cash_nanos(Usage(input=1, **{bucket: 1}), plain) is None
    with_audio = price(input="1", output="2", audio_in="3")
    assert cash_nanos(Usage(audio_in=10**6), with_audio) == usd("3")
    assert cash_nanos(Usage(audio_out=1), with_audio) is None


def test_an_unknown_price_is_an_unknown_cost_and_our_own_servers_invoice_nothing() -> None:
    """Also for no tokens at all; a free price is known and zero."""
    for usage in (Usage(), Usage(input=5, output=5, images=1)):
        assert cash_nanos(usage, UNKNOWN) is None
        assert cash_nanos(usage, OWNED) == 0
    assert cash_nanos(Usage(input=5), price(input="0", output="0")) == 0


@pytest.mark.parametrize(("tokens", "nanos"), [(4, 0), (5, 1), (14, 1), (15, 2), (25, 3)])
def test_cost_is_rounded_half_up_once_over_all_buckets(tokens: int, nanos: int) -> None:
    """At 0.0001 USD per 1M a token is a tenth of a nano-dollar; two buckets of 0.5 make one, not two."""
    cheap = price(input="0.0001", output="0.0001")
    assert cash_nanos(Usage(input=tokens), cheap) == nanos
    assert cash_nanos(Usage(input=tokens // 2, output=tokens - tokens // 2), cheap) == nanos


# The bound.

QUESTION = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}


def test_the_bound_counts_bytes_and_what_templates_add() -> None:
    """Bytes, 16 for each message, 64 for the call; output for every choice."""
    worst = bound(QUESTION, prompt_bytes=100, output_tokens=500, choices=3, price=DEEPSEEK)
    assert worst == Bound(input_tokens=100 + 2 * 16 + 64, output_tokens=1500, nanos=196 * 140 + 1500 * 280)


@pytest.mark.parametrize(
    ("rates", "rate_in", "rate_out"),
    [
        ({}, "1", "2"),
        ({"cache_write_5m": "1.25", "cache_write_1h": "2"}, "2", "2"),
        ({"cache_read": "0.1"}, "1", "2"),
        ({"audio_in": "40", "audio_out": "80"}, "40", "80"),
        ({"reasoning": "6"}, "1", "6"),
    ],
)
def test_the_bound_takes_the_dearest_rate_that_can_apply(
    rates: dict[str, str], rate_in: str, rate_out: str
) -> None:
    """Cache writes, reasoning and audio may be dearer than plain tokens; cached reads are not hoped for."""
    worst = bound(
        {}, prompt_bytes=0, output_tokens=10**6, choices=1, price=price(input="1", output="2", **rates)
    )
    assert worst.nanos == usd(rate_out) + usd(rate_in) * worst.input_tokens // 10**6


@pytest.mark.parametrize(
    ("priced", "nanos"),
    [
        (DEEPSEEK, None),
        (UNKNOWN, None),
        (OWNED, 0),
        (price(input="0", output="0"), 0),
        (price(input="0.0001", output="0.0001"), None),
        (price(input="0", output="0", reasoning="1"), None),
        (price(input="10", output="0"), 80 * 10_000),
    ],
)
def test_without_a_limit_of_output_only_what_is_free_can_be_bounded(priced: Price, nanos: int | None) -> None:
    """A price of a fraction of a nano-dollar a token is not free."""
    worst = bound({}, prompt_bytes=0, output_tokens=None, choices=1, price=priced)
    assert (worst.output_tokens, worst.nanos) == (None, nanos)


def test_an_unknown_price_has_no_bound_in_money_but_one_in_tokens() -> None:
    """Tokens are bounded whatever they cost."""
    worst = bound({}, prompt_bytes=20, output_tokens=7, choices=2, price=UNKNOWN)
    assert worst == Bound(input_tokens=100, output_tokens=14, nanos=None)


@pytest.mark.parametrize("messages", [None, "text", 5, {"a": 1}])
def test_odd_messages_count_as_one(messages: object) -> None:
    """The bound never fails."""
    worst = bound({"messages": messages}, prompt_bytes=10, output_tokens=1, choices=1, price=OWNED)
    assert worst.input_tokens == 10 + 16 + 64


@pytest.mark.parametrize(
    ("elapsed_s", "choices", "limit", "output"),
    [
        (0.0, 1, None, TOKENS_PER_S_MAX),
        (0.5, 1, None, TOKENS_PER_S_MAX * 3 // 2),
        (1.0, 3, None, 6 * TOKENS_PER_S_MAX),
        (0.0, 1, 12, 12),
        (60.0, 1, 10**9, 61 * TOKENS_PER_S_MAX),
    ],
)
def test_a_cut_stream_has_generated_no_more_than_the_fastest_could(
    elapsed_s: float, choices: int, limit: int | None, output: int
) -> None:
    """The time and one second more, for each choice; and never above the bound."""
    worst = Bound(input_tokens=5, output_tokens=limit, nanos=None)
    assert bounded_usage(worst, elapsed_s=elapsed_s, choices=choices) == Usage(input=5, output=output)


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "assistant", "audio": {"id": "audio_1"}}]},
        {"messages": [{"role": "user", "content": "hi"}], "web_search_options": {}},
        {"messages": [{"role": "user", "content": "hi"}], "plugins": [{"id": "web"}]},
        {"messages": [{"role": "user", "content": "hi"}], "tools": [{"type": "web_search_preview"}]},
    ],
)
def test_what_bytes_do_not_tell_has_no_bound(body: dict[str, object]) -> None:
    """Sounds of earlier answers, and pages that the provider looks up."""
    assert bound(body, prompt_bytes=50, output_tokens=1, choices=1, price=DEEPSEEK).input_tokens is None


def test_tools_bring_instructions_of_the_providers_along() -> None:
    """Which are in no byte of the question."""
    plain = bound({"messages": []}, prompt_bytes=50, output_tokens=1, choices=1, price=DEEPSEEK)
    tools = bound(
        {"messages": [], "tools": [{}]}, prompt_bytes=50, output_tokens=1, choices=1, price=DEEPSEEK
    )
    assert plain.input_tokens is not None and tools.input_tokens is not None
    assert tools.input_tokens >= plain.input_tokens + 530


def test_a_cut_answer_is_never_charged_above_its_hold() -> None:
    """The service tier that was asked for decides about both."""
    tiered = Price(
        state=PriceState.KNOWN,
        record=PriceRecord(
            target="p/m",
            standard=Tariff(rates=Rates(input=Decimal(2), output=Decimal(8))),
            service_tiers={"priority": Tariff(rates=Rates(input=Decimal(4), output=Decimal(16)))},
            valid_from=date(2026, 1, 1),
            source="test",
        ),
    )
    for tier in (None, "default", "priority", "auto"):
        body = {"messages": [], "service_tier": tier}
        worst = bound(body, prompt_bytes=100, output_tokens=1000, choices=1, price=tiered)
        cut = Meter(bound=worst, price=tiered, choices=1).cut(elapsed_s=10).cash_nanos
        assert cut is not None and worst.nanos is not None and cut <= worst.nanos


# The meter.

WORST = bound({}, prompt_bytes=320, output_tokens=1000, choices=1, price=DEEPSEEK)
SAID = Usage(input=10, output=5)
WORD, STOP = Chunk(b"", True, "words"), Chunk(b"", True, "", ("stop",))
REPORT = Chunk(b"", usage=SAID)


def meter(*chunks: Chunk, priced: Price = DEEPSEEK, choices: int = 1) -> Meter:
    made = Meter(bound=WORST, price=priced, choices=choices)
    for chunk in chunks:
        made.take(chunk)
    return made


REPORTED = Account(usage=SAID, source=UsageSource.REPORTED, cash_nanos=10 * 140 + 5 * 280)
BOUNDED = Account(
    usage=Usage(input=400, output=1000), source=UsageSource.BOUNDED, cash_nanos=400 * 140 + 1000 * 280
)


@pytest.mark.parametrize(
    ("chunks", "delivered", "cut"),
    [
        ((), BOUNDED, BOUNDED),
        ((WORD,), BOUNDED, BOUNDED),
        ((WORD, STOP), BOUNDED, BOUNDED),
        ((WORD, STOP, REPORT), REPORTED, REPORTED),
        ((WORD, replace(STOP, usage=SAID)), REPORTED, REPORTED),
        # More of the answer came after the report: it told of a part.
        ((REPORT, WORD, STOP), BOUNDED, BOUNDED),
        ((WORD, REPORT, STOP), REPORTED, BOUNDED),
        # A last report that cannot be takes back the one before it.
        ((REPORT, WORD, STOP, Chunk(b"", odd_usage=True)), BOUNDED, BOUNDED),
        ((WORD, STOP, REPORT, Chunk(b"", odd_usage=True)), BOUNDED, BOUNDED),
        ((REPORT,), REPORTED, BOUNDED),
        ((WORD, REPORT), REPORTED, BOUNDED),
        ((Chunk(b"", usage=Usage(input=99)), WORD, STOP, REPORT), REPORTED, REPORTED),
    ],
)
def test_the_account_of_a_delivered_and_of_a_cut_answer(
    chunks: tuple[Chunk, ...], delivered: Account, cut: Account
) -> None:
    """A report counts for a complete answer; for a cut one only beside the finish reason."""
    assert meter(*chunks).delivered(elapsed_s=1) == delivered
    assert meter(*chunks).cut(elapsed_s=1) == cut


def test_an_answer_of_several_choices_is_cut_until_all_have_finished() -> None:
    """One finish reason of two does not make a report the last word."""
    assert meter(STOP, REPORT, choices=2).cut(elapsed_s=1).source is UsageSource.BOUNDED
    assert meter(STOP, STOP, REPORT, choices=2).cut(elapsed_s=1).source is UsageSource.REPORTED


def test_an_explicit_zero_stays_zero() -> None:
    """The provider said so."""
    account = meter(STOP, Chunk(b"", usage=Usage())).delivered(elapsed_s=1)
    assert account == Account(usage=Usage(), source=UsageSource.REPORTED, cash_nanos=0)


def test_what_never_arrived_costs_nothing() -> None:
    """Whatever was reported, and also where the price is unknown."""
    for priced in (DEEPSEEK, UNKNOWN, OWNED):
        account = meter(REPORT, priced=priced).undelivered()
        assert account == Account(usage=Usage(), source=UsageSource.NONE, cash_nanos=0)


def test_on_our_own_servers_an_answer_without_a_report_is_estimated_from_its_bytes() -> None:
    """Four bytes a token, rounded up; cut ones are bounded as everywhere; neither costs cash."""
    account = meter(WORD, WORD, STOP, priced=OWNED).delivered(elapsed_s=1)
    assert account == Account(usage=Usage(input=100, output=3), source=UsageSource.ESTIMATED, cash_nanos=0)
    chinese = meter(Chunk(b"", True, "私有部署"), STOP, priced=OWNED).delivered(elapsed_s=1)
    assert chinese.usage.output == 3
    assert meter(WORD, priced=OWNED).cut(elapsed_s=1).cash_nanos == 0


def test_a_charge_without_a_report_is_made_at_the_dearest_rate() -> None:
    """The provider may bill all of it as reasoning and cache writes."""
    priced = price(input="1", output="2", cache_write_1h="2", reasoning="6")
    worst = bound({}, prompt_bytes=0, output_tokens=100, choices=1, price=priced)
    account = Meter(bound=worst, price=priced, choices=1).cut(elapsed_s=1)
    assert account.cash_nanos == worst.nanos == 80 * 2000 + 100 * 6000


def test_the_cost_so_far_is_the_cost_of_the_last_report() -> None:
    """None before there is one."""
    made = meter(WORD)
    assert made.reported_cash_nanos(elapsed_s=1) is None
    made.take(REPORT)
    assert made.reported_cash_nanos(elapsed_s=1) == 2800
    assert made.finish == ()
    made.take(STOP)
    assert made.finish == ("stop",)


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "https://a.example/b.png"}},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "file", "file": {"file_id": "file-1"}},
        "odd",
    ],
)
def test_what_is_not_text_has_no_bound(part: object) -> None:
    """Bytes say nothing about what an image, a sound or a file costs: no number is better than a low one."""
    text = {"type": "text", "text": "What is this?"}
    record = PriceRecord(
        target="up/m",
        standard=Tariff(rates=Rates(input=Decimal(1), output=Decimal(2))),
        valid_from=date(2026, 1, 1),
        source="a test",
    )
    price = Price(state=PriceState.KNOWN, record=record)
    asked = {"prompt_bytes": 100, "output_tokens": 10, "choices": 1, "price": price}
    plain = bound({"messages": [{"role": "user", "content": [text]}]}, **asked)
    assert plain.nanos is not None
    mixed = bound({"messages": [{"role": "user", "content": [text, part]}]}, **asked)
    assert (mixed.input_tokens, mixed.nanos) == (None, None)
    meter = Meter(bound=mixed, price=price, choices=1)
    assert meter.cut(elapsed_s=1).cash_nanos is None
    spoken = bound(
        {"messages": [{"role": "user", "content": "hi"}], "modalities": ["text", "audio"]}, **asked
    )
    assert (spoken.output_tokens, spoken.nanos) == (None, None)


# Conditions.

CHEAP, DEAR = (Tariff(rates=Rates(input=Decimal(usd), output=Decimal(usd))) for usd in (1, 3))


def conditional(**fields: Any) -> Price:
    row = {"target": "p/m", "standard": CHEAP, "valid_from": date(2026, 1, 1), "source": "a test"}
    return Price(state=PriceState.KNOWN, record=PriceRecord(**{**row, **fields}))


def test_a_long_input_counts_with_all_that_went_in() -> None:
    """Cached tokens make an input long, too."""
    long = conditional(standard=Tariff(rates=CHEAP.rates, above=((1000, DEAR.rates),)))
    assert cash_nanos(Usage(input=600, cache_read=400), long) == 1000 * 1000
    assert cash_nanos(Usage(input=601, cache_read=400, output=1), long) == 1002 * 3000


def test_a_service_tier_is_billed_at_its_own_rates_and_an_unknown_one_at_none() -> None:
    """Better unknown than the standard price by accident."""
    tiers = conditional(service_tiers={"priority": DEAR})
    assert cash_nanos(Usage(input=10), tiers, service_tier="default") == 10_000
    assert cash_nanos(Usage(input=10), tiers, service_tier="priority") == 30_000
    assert cash_nanos(Usage(input=10), tiers, service_tier="scale") is None


def test_a_fee_is_added_once_per_call() -> None:
    """Also to the bound."""
    fee = conditional(usd_per_request=Decimal("0.005"))
    assert cash_nanos(Usage(input=10), fee) == 5_010_000
    worst = bound({}, prompt_bytes=0, output_tokens=0, choices=1, price=fee)
    assert worst.nanos == 5_000_000 + 80 * 1000


def test_what_the_vendor_says_it_invoices_is_what_is_charged() -> None:
    """Where its row says so; elsewhere its word is only kept."""
    chunk = Chunk(b"", usage=SAID, finish=("stop",), cost_nanos=77)
    reported = Price(state=DEEPSEEK.state, record=DEEPSEEK.record, cost_is_reported=True)
    for priced, cash in ((reported, 77), (DEEPSEEK, 2800)):
        made = meter(chunk, priced=priced)
        assert made.delivered(elapsed_s=1).cash_nanos == cash
        assert made.upstream_cost_nanos == 77
    unknown = Price(state=PriceState.UNKNOWN, cost_is_reported=True)
    assert meter(chunk, priced=unknown).delivered(elapsed_s=1).cash_nanos == 77


def test_no_bound_is_larger_than_what_can_be_added_up() -> None:
    """Both of these numbers are allowed, and their product at a high price has more than 64 bits."""
    worst = bound(QUESTION, prompt_bytes=1, output_tokens=10**7, choices=10**7, price=DEEPSEEK)
    assert worst.nanos == 10**15
    cut = Meter(bound=worst, price=DEEPSEEK, choices=10**7).cut(elapsed_s=1e6)
    assert cut.cash_nanos == 10**15
