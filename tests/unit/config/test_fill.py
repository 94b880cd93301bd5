"""What the rooms get from the settings."""

from datetime import UTC, date, datetime
from decimal import Decimal
from textwrap import dedent

import pytest

from tiergate.admission import KeyBudget, VirtualKey
from tiergate.catalog import BilledBy, PriceRecord, PriceState
from tiergate.config import fill, load_text
from tiergate.core import Target, Tier


@pytest.mark.parametrize(
    ("limits", "connections"),
    [("{}", 1024), ("{concurrency: 8}", 1024), ("{concurrency: 1024}", 1024), ("{concurrency: 5000}", 5000)],
)
def test_every_permit_has_a_connection(limits: str, connections: int) -> None:
    """The pool never holds back calls that `limits.concurrency` lets through."""
    settings = load_text(f"providers: {{a: {{base_url: http://a, limits: {limits}}}}}", {}).settings
    assert fill.providers(settings)["a"].max_connections == connections


PROVIDERS = """
providers:
  ours: {base_url: https://api.openai.com/v1}
  proxy: {base_url: https://proxy.example/openai/v1}
  openai: {base_url: https://proxy.example/v1}
  eu: {base_url: https://api.mistral.ai/v1}
"""
NOON = int(datetime(2026, 11, 26, 12, tzinfo=UTC).timestamp()) * 10**9


def priced(prices: str, target: str = "proxy/m") -> tuple[PriceState, PriceRecord | None]:
    settings = load_text(PROVIDERS + dedent(prices), {}).settings
    provider, _, model = target.partition("/")
    rules = fill.rules(settings, generation=1)
    found = rules.prices.find(Target(provider=provider, model=model, tier=Tier.HOSTED), NOON)
    return found.state, found.record


def test_a_price_says_everything_that_a_provider_can_bill_by() -> None:
    """Each condition names only what differs from the standard price."""
    _, record = priced(
        """
        prices:
        - target: proxy/m
          per_1m: {input: 2, output: 8, cache_read: 0.5}
          currency: CNY
          usd_per_currency: 0.125
          from: 2026-01-01
          until: 2027-01-01
          above: [{input_tokens: 1000, per_1m: {input: 4}}]
          hours: [{days: mon-fri, from: "09:00", to: "12:00", zone: Asia/Shanghai, per_1m: {output: 16}}]
          service_tiers: {batch: {input: 1, output: 4}}
          per_request: 0.8
          billed_by: received
          checked: 2026-11-01
          source: a page
        """
    )
    assert record is not None
    eighth = Decimal("0.125")
    assert record.rates.named() == {"input": 2 * eighth, "output": 1, "cache_read": eighth / 2}
    assert record.standard.for_input(1001).named() == {
        "input": 4 * eighth,
        "output": 1,
        "cache_read": eighth / 2,
    }
    (peak,) = record.hours
    assert str(peak) == "mon,tue,wed,thu,fri 09:00-12:00 Asia/Shanghai"
    assert peak.tariff.rates.named() == {"input": 2 * eighth, "output": 2, "cache_read": eighth / 2}
    batch = record.service_tiers["batch"].rates
    assert (batch.input, batch.output, batch.cache_read) == (eighth, eighth * 4, eighth / 2)
    assert record.usd_per_request == Decimal("0.1")
    assert (record.until, record.checked) == (date(2027, 1, 1), date(2026, 11, 1))
    assert record.billed_by is BilledBy.RECEIVED
    assert record.source == "a page; 1 CNY = 0.125 USD"


def test_the_users_price_wins_and_a_known_vendor_needs_none() -> None:
    """Whose API it is, its address says: a provider called openai at another address is not OpenAI."""
    mine = "prices: [{target: ours/gpt-4.1, usd_per_1m: {input: 9, output: 9}, from: 2026-11-01}]"
    for prices, target, usd_in in (
        ("", "ours/gpt-4.1", 2),
        (mine, "ours/gpt-4.1", 9),
        (mine.replace("2026-11-01", "2026-12-01"), "ours/gpt-4.1", 2),
        ("", "proxy/gpt-4.1", None),
        ("", "openai/gpt-4.1", None),
    ):
        state, record = priced(prices, target)
        assert (None if record is None else record.rates.input) == usd_in, (prices, target)
        assert (state is PriceState.UNKNOWN) is (usd_in is None)


def test_a_price_that_has_ended_without_a_successor_is_unknown() -> None:
    """It is not charged for ever."""
    ended = "prices: [{target: proxy/m, usd_per_1m: {input: 1, output: 1}, until: 2026-11-26}]"
    assert priced(ended) == (PriceState.UNKNOWN, None)


def test_a_vendor_that_refuses_stream_options_is_not_sent_any() -> None:
    """Mistral answers 422 to them; the row of the catalog says so."""
    made = fill.providers(load_text(PROVIDERS, {}).settings)
    assert {name for name, provider in made.items() if not provider.takes_stream_options} == {"eu"}


def test_of_two_budgets_for_one_key_the_lower_amounts_hold() -> None:
    """Those of the settings and of a virtual key; the settings say what passes without a bound."""
    loaded = load_text(
        "providers: {cloud: {base_url: https://api.example/v1}}\n"
        "budgets: [{scope: 'key:web', usd: 10, per: total, slack_usd: 2, unbounded: allow}]\n",
        {},
    )
    budget = KeyBudget(amount_nanos=9_000_000_000, per="total", slack_nanos=100_000_000_000)
    key = VirtualKey(name="web", digest=b"", hint="", created_ns=0, budget=budget)
    (ceiling,) = fill.ceilings(loaded.settings, [key])
    assert (ceiling.amount_nanos, ceiling.slack_nanos) == (9_000_000_000, 2_000_000_000)
    assert ceiling.allows_unbounded
