"""Prices that we looked up ourselves, because the bundled data cannot say them or says them wrong.

Each row has its page and the day on which it was read. Rows with hours of the week need the calendar that the
bundled data does not have.
"""

from datetime import date, time
from decimal import Decimal
from typing import Final

from tiergate.catalog.prices import BilledBy, PriceRecord
from tiergate.catalog.rates import Hours, Rates, Tariff

_DEEPSEEK_PAGE: Final = "https://api-docs.deepseek.com/quick_start/pricing"
_DEEPSEEK_READ: Final = date(2026, 11, 26)
_WORKDAYS: Final = frozenset(range(5))


def _deepseek(model: str, valid_from: date, *, off_peak: tuple[str, str, str]) -> PriceRecord:
    """Peak hours cost twice as much: Monday to Friday 9 to 12 and 14 to 18 by Beijing's clock.

    Chinese public holidays are off-peak too; no calendar of them is kept here, so on those days the charge is
    the peak rate, which is more than will be invoiced. Which moment of a call counts, the page does not say.
    """
    cache_read, uncached, output = (Decimal(usd) for usd in off_peak)
    peak = Tariff(rates=Rates(input=2 * uncached, output=2 * output, cache_read=2 * cache_read))

    def hours(start: int, end: int) -> Hours:
        return Hours(days=_WORKDAYS, start=time(start), end=time(end), zone="Asia/Shanghai", tariff=peak)

    return PriceRecord(
        target=f"deepseek/{model}",
        standard=Tariff(rates=Rates(input=uncached, output=output, cache_read=cache_read)),
        hours=(hours(9, 12), hours(14, 18)),
        valid_from=valid_from,
        billed_by=BilledBy.UNKNOWN,
        source=_DEEPSEEK_PAGE,
        checked=_DEEPSEEK_READ,
    )


VENDOR_PRICES: Final = (
    _deepseek("deepseek-flash", date(2026, 9, 10), off_peak=("0.003", "0.15", "0.60")),
    # A legacy name; since that day its calls are served by deepseek-flash.
    _deepseek("deepseek-v4-flash", date(2026, 9, 10), off_peak=("0.003", "0.15", "0.60")),
    _deepseek("deepseek-v4-pro", date(2026, 8, 23), off_peak=("0.022", "0.66", "1.98")),
)
"""By `vendor/model`."""
