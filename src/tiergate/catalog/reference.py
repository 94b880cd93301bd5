"""The reference price sheet of the demo: figures of a published comparison, not verified.

They are kept as they were printed, for a demo that anyone can recompute. No call outside the demo is
charged by them.
"""

from datetime import date
from decimal import Decimal
from typing import Final

from tiergate.catalog.prices import PriceRecord
from tiergate.catalog.rates import Rates, Tariff

REFERENCE_PROVIDER: Final = "holysheep"
"""A reseller; the comparison quotes its prices."""

_SOURCE: Final = "reference figures of a published comparison, not verified"
_FROM: Final = date(2026, 1, 1)


def _row(model: str, usd_input: str, usd_output: str) -> PriceRecord:
    return PriceRecord(
        target=f"{REFERENCE_PROVIDER}/{model}",
        standard=Tariff(rates=Rates(input=Decimal(usd_input), output=Decimal(usd_output))),
        valid_from=_FROM,
        source=_SOURCE,
    )


REFERENCE_PRICES: Final = (
    _row("deepseek-v3.2", "0.14", "0.28"),
    _row("gpt-4.1", "2.00", "8.00"),
    _row("claude-sonnet-4.5", "3.00", "15.00"),
    _row("gemini-2.5-flash", "0.30", "2.50"),
)
