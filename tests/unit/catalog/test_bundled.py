"""The bundled price data: it is the library's, looked up strictly, with what we know better above it."""

import re
import sys
from datetime import UTC, datetime
from decimal import Decimal
from importlib import resources
from pathlib import Path

import pytest

from tiergate.catalog import VENDORS, Catalog, PriceBook, PriceState, Rates, vendor_named
from tiergate.catalog.bundled import bundled_data, bundled_records, find_model
from tiergate.core import Target, Tier

ROOT = Path(__file__).resolve().parents[3]


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 10**9


def book() -> PriceBook:
    vendors = {vendor.name: vendor for vendor in VENDORS}
    return PriceBook([], catalog=Catalog(vendors))


def find(target: str, moment: str = "2026-11-26T12:00:00") -> tuple[PriceState, Rates | None]:
    provider, _, model = target.partition("/")
    price = book().find(Target(provider=provider, model=model, tier=Tier.HOSTED), at(moment))
    return price.state, None if price.record is None else price.record.rates


def test_the_file_holds_what_the_pinned_release_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """`make prices` would write the same bytes, so nobody has edited them by hand."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    try:
        import make_prices
    finally:
        sys.modules.pop("make_prices", None)
    file = resources.files("tiergate.catalog").joinpath("data", "prices.json")
    assert file.read_bytes() == make_prices.written()


def test_every_vendor_with_prices_has_them() -> None:
    """And each of the models that its row suggests can be priced."""
    for vendor in VENDORS:
        if vendor.prices is None:
            continue
        assert bundled_data().vendors[vendor.prices], vendor.name
        for model in vendor.models:
            state, rates = find(f"{vendor.name}/{model}")
            assert (vendor.name, model, state) == (vendor.name, model, PriceState.KNOWN)
            assert rates is not None and rates.input > 0


@pytest.mark.parametrize(
    "target",
    [
        "google/gemini-2.5-flash-image",
        "google/gemini-3-pro-image-preview-1",
        "openai/gpt-image-1",
        "openai/gpt-5-image",
    ],
)
def test_a_model_that_draws_has_no_price(target: str) -> None:
    """Its images cost ten times what its words cost, and the data has only the words."""
    assert find(target) == (PriceState.UNKNOWN, None)


@pytest.mark.parametrize(
    ("target", "usd_in", "usd_out"),
    [
        ("openai/gpt-4.1", "2", "8"),
        ("openai/GPT-4.1-mini-2025-04-14", "0.4", "1.6"),
        ("anthropic/claude-sonnet-4-5-20250929", "3", "15"),
        ("google/gemini-2.5-flash", "0.3", "2.5"),
        ("xai/grok-4", "3", "15"),
    ],
)
def test_prices_of_well_known_models(target: str, usd_in: str, usd_out: str) -> None:
    """As their makers publish them; also under a dated name."""
    state, rates = find(target)
    assert state is PriceState.KNOWN
    assert rates is not None
    assert (rates.input, rates.output) == (Decimal(usd_in), Decimal(usd_out))


@pytest.mark.parametrize(
    "target",
    [
        "openai/gpt-9000",
        "openai/claude-sonnet-4-5",
        "azure/gpt-4.1",
        "google/gpt-4.1",
        "holysheep/gpt-4.1",
        "vllm/gpt-4.1",
        "somebody/gpt-4.1",
        "openai/",
    ],
)
def test_a_model_that_its_vendor_does_not_list_has_no_price(target: str) -> None:
    """Never another vendor's: the library would take OpenAI's for Azure."""
    assert find(target) == (PriceState.UNKNOWN, None)


@pytest.mark.parametrize("model", ["deepseek-v3.2", "deepseek-chat", "deepseek-reasoner"])
def test_rows_that_are_known_to_be_wrong_are_not_used(model: str) -> None:
    """The data holds them; unknown is better than wrong."""
    assert any(one.id == model for one in bundled_data().vendors["deepseek"])
    assert find_model("deepseek", model) is None
    assert find(f"deepseek/{model}") == (PriceState.UNKNOWN, None)


@pytest.mark.parametrize(
    ("moment", "peak"),
    [
        ("2026-11-26T02:00:00", True),  # a Thursday, 10:00 in Beijing
        ("2026-11-26T05:00:00", False),
        ("2026-11-26T06:00:00", True),
        ("2026-11-26T12:00:00", False),
        ("2026-11-28T02:00:00", False),  # a Saturday
    ],
)
def test_deepseeks_peak_hours_are_none_on_weekends(moment: str, peak: bool) -> None:
    """The library knows hours of the day and no days of the week."""
    target = Target(provider="deepseek", model="deepseek-flash", tier=Tier.HOSTED)
    record = book().find(target, at(moment)).record
    assert record is not None
    (tariff, again) = record.tariffs(None, received_ns=at(moment), completed_ns=at(moment))
    assert tariff == again
    assert tariff.rates.input == Decimal("0.30" if peak else "0.15")


def test_a_price_depends_on_the_day_of_the_call_and_never_on_todays() -> None:
    """A batch price that began on a day is not there the day before."""
    target = Target(provider="openai", model="gpt-4.1", tier=Tier.HOSTED)
    for moment, tiers in (("2026-10-01T00:00:00", set()), ("2026-10-14T00:00:00", {"batch", "priority"})):
        record = book().find(target, at(moment)).record
        assert record is not None
        assert tiers <= set(record.service_tiers)
        assert bool(record.service_tiers) is bool(tiers)


def test_service_tiers_are_the_vendors_own_and_verified() -> None:
    """Half price for a batch; a long input of Gemini costs twice as much, in a batch as well."""
    gpt, gemini = (
        list(bundled_records(vendor, model, target="t/m"))[-1]
        for vendor, model in (("openai", "gpt-4.1"), ("google", "gemini-2.5-pro"))
    )
    assert gpt.service_tiers["batch"].rates.input == 1
    assert gpt.service_tiers["batch"].rates.cache_read == Decimal("0.5")  # what it leaves out is as standard
    assert gemini.standard.for_input(200_001).input == Decimal("2.5")
    assert gemini.service_tiers["batch"].for_input(200_001).input == Decimal("1.25")


def test_prices_that_nobody_has_looked_at_for_half_a_year_are_stale() -> None:
    """They are charged, and say so."""
    assert find("openai/gpt-4.1", "2027-06-01T00:00:00")[0] is PriceState.STALE


def test_every_charge_can_name_where_its_price_is_from() -> None:
    """Release, vendor, model and day."""
    (*_, record) = bundled_records("openai", "gpt-4.1", target="mine/gpt-4.1")
    assert re.fullmatch(r"genai-prices [0-9.]+:openai/gpt-4.1@2026-10-14", record.id)
    assert record.target == "mine/gpt-4.1"


def test_a_cost_that_the_vendor_reports_is_what_it_invoices() -> None:
    """OpenRouter's is, whether its price is known or not."""
    assert vendor_named("openrouter") is not None
    for model in ("openai/gpt-4.1-mini", "nobody/knows"):
        target = Target(provider="openrouter", model=model, tier=Tier.HOSTED)
        assert book().find(target, at("2026-11-26T12:00:00")).cost_is_reported
