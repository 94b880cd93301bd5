"""Facts as dated rows: providers, models, abilities, token prices, GPU prices, published measurements."""

from tiergate.catalog.known import Catalog, price_count
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
    "OWNED",
    "REFERENCE_PRICES",
    "REFERENCE_PROVIDER",
    "UNKNOWN",
    "VENDORS",
    "BilledBy",
    "Catalog",
    "Hours",
    "Price",
    "PriceBook",
    "PriceRecord",
    "PriceSource",
    "PriceState",
    "Rates",
    "Tariff",
    "Vendor",
    "price_count",
    "vendor_at",
    "vendor_named",
]
