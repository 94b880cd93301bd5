"""What is known about a target from outside: whose it is, its dated prices, its context."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from tiergate.catalog.bundled import bundled_records, find_model, model_count
from tiergate.catalog.prices import PriceRecord
from tiergate.catalog.vendor_prices import VENDOR_PRICES
from tiergate.catalog.vendors import Vendor
from tiergate.core import Target


class Catalog:
    """Facts about the targets of a settings file, found by whose API each of its providers is.

    `vendors`: by the provider's name; a provider that is nobody's has no entry, and nothing is known of it.
    """

    def __init__(self, vendors: Mapping[str, Vendor]) -> None:
        self._vendors = vendors

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

    def context_tokens(self, target: Target) -> int | None:
        """Give the most tokens of question and answer together."""
        vendor = self.vendor(target)
        if vendor is None or vendor.prices is None:
            return None
        model = find_model(vendor.prices, target.model)
        return None if model is None else model.context


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
