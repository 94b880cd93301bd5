"""Facts as dated rows: providers, models, abilities, token prices, GPU prices, published measurements."""

from tiergate.catalog.known import Catalog, data_problems, price_count
from tiergate.catalog.models import NOTHING_KNOWN, Ability, ModelFacts
from tiergate.catalog.prices import (
    OWNED,
    UNKNOWN,
    BilledBy,
    Price,
    PriceBook,
    PriceRecord,
    PriceSource,
    PriceState,
)
from tiergate.catalog.rates import BUCKETS, Hours, Rates, Tariff
from tiergate.catalog.reference import REFERENCE_PRICES, REFERENCE_PROVIDER
from tiergate.catalog.vendors import VENDORS, Vendor, vendor_at, vendor_named

__all__ = [
    "BUCKETS",
    "NOTHING_KNOWN",
    "OWNED",
    "REFERENCE_PRICES",
    "REFERENCE_PROVIDER",
    "UNKNOWN",
    "VENDORS",
    "Ability",
    "BilledBy",
    "Catalog",
    "Hours",
    "ModelFacts",
    "Price",
    "PriceBook",
    "PriceRecord",
    "PriceSource",
    "PriceState",
    "Rates",
    "Tariff",
    "Vendor",
    "data_problems",
    "price_count",
    "vendor_at",
    "vendor_named",
]
