"""The price book: dated rows, and what is not known stays unknown."""

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from tiergate.catalog import (
    OWNED,
    REFERENCE_PRICES,
    REFERENCE_PROVIDER,
    UNKNOWN,
    PriceBook,
    PriceRecord,
    PriceState,
    Rates,
    Tariff,
)
from tiergate.core import Target, Tier

HOSTED = Target(provider="p", model="m", tier=Tier.HOSTED)
PRIVATE = Target(provider="p", model="m", tier=Tier.PRIVATE)
MAY, JULY = date(2026, 5, 1), date(2026, 7, 1)


def row(valid_from: date, usd: int, target: str = "p/m") -> PriceRecord:
    rates = Rates(input=Decimal(usd), output=Decimal(usd))
    return PriceRecord(target=target, standard=Tariff(rates=rates), valid_from=valid_from, source="a test")


def at(*moment: int) -> int:
    """Nanoseconds since 1970 of a moment in UTC."""
    return int(datetime(*moment, tzinfo=UTC).timestamp()) * 1_000_000_000


BOOK = PriceBook([row(JULY, 2), row(MAY, 1), row(MAY, 9, "p/other")])


@pytest.mark.parametrize(
    ("wall_ns", "valid_from"),
    [
        (at(2026, 4, 30, 23, 59, 59), None),
        (at(2026, 5, 1) - 1, None),
        (at(2026, 5, 1), MAY),
        (at(2026, 6, 15, 12), MAY),
        (at(2026, 7, 1) - 1, MAY),
        (at(2026, 7, 1), JULY),
        (at(2036, 1, 1), JULY),
    ],
)
def test_a_row_is_in_force_from_midnight_utc_of_its_day_until_the_next(
    wall_ns: int, valid_from: date | None
) -> None:
    """To the nanosecond; before the first row the price is unknown, whatever the order of the rows."""
    price = BOOK.find(HOSTED, wall_ns)
    assert (price.record.valid_from if price.record else None) == valid_from
    assert price.state is (PriceState.KNOWN if valid_from else PriceState.UNKNOWN)


@pytest.mark.parametrize("model", ["M", "m2", "", "other/m"])
def test_a_target_without_a_row_has_no_price(model: str) -> None:
    """Never another model's, however alike the names are."""
    assert BOOK.find(Target(provider="p", model=model, tier=Tier.HOSTED), at(2026, 6, 1)) is UNKNOWN
    assert PriceBook([]).find(HOSTED, at(2026, 6, 1)) is UNKNOWN


def test_a_target_of_our_own_has_no_price_even_if_a_row_names_it() -> None:
    """What it costs is GPU-hours."""
    assert BOOK.find(PRIVATE, at(2026, 6, 1)) is OWNED


def test_of_two_rows_for_the_same_day_the_later_listed_counts() -> None:
    """So a settings file put behind the bundled rows wins over them."""
    book = PriceBook([row(MAY, 1), row(MAY, 2)])
    record = book.find(HOSTED, at(2026, 5, 2)).record
    assert record is not None and record.rates.input == 2


def test_a_charge_can_name_its_row() -> None:
    """By target and day."""
    assert row(MAY, 1).id == "p/m@2026-05-01"


def test_the_reference_sheet_is_the_published_one() -> None:
    """USD per 1M tokens, in and out, each row with its source."""
    sheet = {
        record.target.removeprefix(f"{REFERENCE_PROVIDER}/"): (record.rates.input, record.rates.output)
        for record in REFERENCE_PRICES
    }
    assert sheet == {
        "deepseek-v3.2": (Decimal("0.14"), Decimal("0.28")),
        "gpt-4.1": (Decimal("2.00"), Decimal("8.00")),
        "claude-sonnet-4.5": (Decimal("3.00"), Decimal("15.00")),
        "gemini-2.5-flash": (Decimal("0.30"), Decimal("2.50")),
    }
    assert all("not verified" in record.source for record in REFERENCE_PRICES)
