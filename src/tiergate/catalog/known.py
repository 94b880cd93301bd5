"""What is known about a target from outside: whose it is, its dated prices, its limits and abilities."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from tiergate.catalog.bundled import bundled_data, bundled_records, find_model, model_count
from tiergate.catalog.models import NOTHING_KNOWN, Ability, ModelFacts, model_facts
from tiergate.catalog.prices import PriceRecord
from tiergate.catalog.reading import found_problems
from tiergate.catalog.vendor_prices import VENDOR_PRICES
from tiergate.catalog.vendors import Vendor
from tiergate.core import Target


class Catalog:
    """Facts about the targets of a settings file, found by whose API each of its providers is.

    `vendors`: by the provider's name; a provider that is nobody's has no entry, and nothing is known of it.
    `longest`: the user's own word on the longest answer of a target, by its name; it wins.
    """

    def __init__(
        self, vendors: Mapping[str, Vendor], *, longest: Mapping[str, int] = MappingProxyType({})
    ) -> None:
        self._vendors = vendors
        self._longest = longest
        self._facts: dict[str, ModelFacts] = {}

    def vendor(self, target: Target) -> Vendor | None:
        """Tell whose a target is."""
        return self._vendors.get(target.provider)

    def records(self, target: Target) -> Iterable[PriceRecord]:
        """Give its dated prices: those that we looked up, else those of the bundled data."""
        vendor = self.vendor(target)
        if vendor is None or vendor.prices is None:
            return ()
        looked_up = _LOOKED_UP.get(f"{vendor.prices}/{target.model}")
        if looked_up is not None:
            return [replace(record, target=target.name) for record in looked_up]
        return bundled_records(vendor.prices, target.model, target=target.name)

    def reports_cost(self, target: Target) -> bool:
        """Tell whether the cost in a target's replies is what will be invoiced."""
        vendor = self.vendor(target)
        return vendor is not None and vendor.reports_cost

    def facts(self, target: Target) -> ModelFacts:
        """Give its limits, and its abilities as far as its vendor's endpoint lets them through."""
        vendor, longest = self.vendor(target), self._longest.get(target.name)
        if vendor is None and longest is None:
            return NOTHING_KNOWN
        facts = self._facts.get(target.name)
        if facts is None:
            if len(self._facts) >= _FACTS_MAX:
                self._facts.clear()
            facts = NOTHING_KNOWN if vendor is None else _facts(vendor, target.model)
            if longest is not None:
                facts = replace(facts, output_tokens=longest)
            self._facts[target.name] = facts
        return facts


_FACTS_MAX: Final = 10_000
"""Callers choose model names, so what is remembered of them is bounded."""

_ASKED_BY: Final = {Ability.TOOLS: "tools", Ability.JSON_SCHEMA: "response_format", Ability.AUDIO: "audio"}
"""The field of a question that asks for an ability; an endpoint that does not take the field lacks it."""


def _facts(vendor: Vendor, name: str) -> ModelFacts:
    """Look a model up by its name, else by that of its price row: a dated name is the same model."""
    priced = None if vendor.prices is None else find_model(vendor.prices, name)
    facts = model_facts(vendor.name, name)
    if facts is None and priced is not None:
        facts = model_facts(vendor.name, priced.id)
    if facts is None:
        facts = NOTHING_KNOWN
    missing = {ability: False for ability, asked in _ASKED_BY.items() if asked in vendor.unsupported}
    context = facts.context_tokens
    if context is None and priced is not None:
        context = priced.context
    return replace(
        facts,
        context_tokens=context,
        abilities=MappingProxyType({**facts.abilities, **missing}),
        unsupported=vendor.unsupported,
    )


def data_problems() -> list[str]:
    """Read what comes with the package, and tell what is wrong with it, a sentence for each file."""
    bundled_data()
    model_facts("", "")
    return found_problems()


def price_count(vendor: Vendor) -> int:
    """Tell how many of a vendor's models have a price without the user's doing."""
    if vendor.prices is None:
        return 0
    looked_up = [target for target in _LOOKED_UP if target.startswith(f"{vendor.prices}/")]
    new = [target for target in looked_up if find_model(vendor.prices, target.partition("/")[2]) is None]
    return model_count(vendor.prices) + len(new)


def _by_target(records: Iterable[PriceRecord]) -> dict[str, list[PriceRecord]]:
    found: dict[str, list[PriceRecord]] = {}
    for record in records:
        found.setdefault(record.target, []).append(record)
    return found


_LOOKED_UP: Final = _by_target(VENDOR_PRICES)
