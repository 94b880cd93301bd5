"""Limits and abilities: as the data says, less what an endpoint takes away, and null where nobody says."""

import pytest

from tiergate.catalog import NOTHING_KNOWN, VENDORS, Ability, Catalog, ModelFacts, Vendor, vendor_named
from tiergate.core import Target, Tier

CATALOG = Catalog({vendor.name: vendor for vendor in VENDORS})


def facts(name: str) -> ModelFacts:
    provider, _, model = name.partition("/")
    return CATALOG.facts(Target(provider=provider, model=model, tier=Tier.HOSTED))


@pytest.mark.parametrize("vendor", [vendor for vendor in VENDORS if vendor.prices], ids=lambda one: one.name)
def test_of_every_vendor_with_prices_something_is_known(vendor: Vendor) -> None:
    """A vendor whose models are all blank has a row under a wrong name."""
    from tiergate.catalog.models import _data

    known = _data().vendors[vendor.name]
    assert sum(row.context is not None and row.output is not None for row in known.values()) > len(known) / 2


def test_the_users_own_word_on_the_longest_answer_wins() -> None:
    """Of a model that the data knows, and of one that it does not; the rest is as known as before."""
    vendors = {vendor.name: vendor for vendor in VENDORS}
    catalog = Catalog(vendors, longest={"openai/gpt-4.1-nano": 100, "shop/m": 8_192})
    known = catalog.facts(Target(provider="openai", model="gpt-4.1-nano", tier=Tier.HOSTED))
    assert (known.output_tokens, known.context_tokens) == (100, 1_047_576)
    assert catalog.facts(Target(provider="shop", model="m", tier=Tier.HOSTED)) == ModelFacts(
        output_tokens=8_192
    )
    assert catalog.facts(Target(provider="shop", model="n", tier=Tier.HOSTED)) is NOTHING_KNOWN


@pytest.mark.parametrize(
    ("name", "context", "output"),
    [
        ("openai/gpt-4.1-nano", 1_047_576, 32_768),
        ("openai/gpt-4.1-nano-2025-04-14", 1_047_576, 32_768),
        ("anthropic/claude-haiku-4-5", 200_000, 64_000),
        ("deepseek/deepseek-v4-pro", 1_000_000, 384_000),
        ("openrouter/openai/gpt-4.1-mini", 1_047_576, 32_768),
        ("openai/never-heard-of", None, None),
        ("holysheep/gpt-4.1", None, None),
        ("nobody/gpt-4.1", None, None),
    ],
)
def test_limits(name: str, context: int | None, output: int | None) -> None:
    """By the exact name, or by that of the price row; never by another vendor's model of that name."""
    found = facts(name)
    assert (found.context_tokens, found.output_tokens) == (context, output)


def test_abilities() -> None:
    """Yes, no, and nothing."""
    nano = facts("openai/gpt-4.1-nano").abilities
    assert nano[Ability.TOOLS] and nano[Ability.IMAGES] and not nano[Ability.REASONING]
    assert facts("openai/never-heard-of").abilities == {} and facts("nobody/x") is NOTHING_KNOWN


def test_an_endpoint_takes_abilities_away() -> None:
    """Claude answers by a schema, but not through the endpoint that ignores `response_format`."""
    vendor = vendor_named("anthropic")
    assert vendor is not None and "response_format" in vendor.unsupported
    claude = facts("anthropic/claude-haiku-4-5")
    assert claude.abilities[Ability.JSON_SCHEMA] is False and claude.abilities[Ability.TOOLS] is True
    assert facts("anthropic/never-heard-of").abilities[Ability.JSON_SCHEMA] is False
    assert "n" in facts("groq/llama-3.1-8b-instant").unsupported


def test_what_is_remembered_of_names_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Callers choose model names."""
    monkeypatch.setattr("tiergate.catalog.known._FACTS_MAX", 3)
    catalog = Catalog({vendor.name: vendor for vendor in VENDORS})
    for number in range(10):
        catalog.facts(Target(provider="openai", model=f"m{number}", tier=Tier.HOSTED))
    assert len(catalog._facts) <= 3
