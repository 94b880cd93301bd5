"""Facts as dated rows: providers, models, abilities, token prices, GPU prices, published measurements."""

from tiergate.catalog.prices import OWNED, UNKNOWN, Price, PriceBook, PriceRecord, PriceState, Rates
from tiergate.catalog.reference import REFERENCE_PRICES, REFERENCE_PROVIDER

__all__ = [
    "OWNED",
    "REFERENCE_PRICES",
    "REFERENCE_PROVIDER",
    "UNKNOWN",
    "Price",
    "PriceBook",
    "PriceRecord",
    "PriceState",
    "Rates",
]
