"""Nano-dollars: rounded once, half up, and back to USD exactly."""

from decimal import Decimal

import pytest

from tiergate.core import nanos_to_usd, usd_to_nanos


@pytest.mark.parametrize(
    ("usd", "nanos"),
    [
        ("0", 0),
        ("1", 1_000_000_000),
        ("0.000000001", 1),
        ("0.0000000004", 0),
        ("0.0000000005", 1),
        ("0.0000000015", 2),
        ("0.0000000025", 3),
        ("-0.0000000005", -1),
        ("909.60", 909_600_000_000),
        ("181500", 181_500_000_000_000),
    ],
)
def test_usd_are_rounded_half_up(usd: str, nanos: int) -> None:
    """Half goes away from zero, never to the even neighbour."""
    assert usd_to_nanos(Decimal(usd)) == nanos


@pytest.mark.parametrize(
    ("nanos", "usd"),
    [
        (0, "0"),
        (42_000, "0.000042"),
        (1_000_000_000, "1"),
        (50_400_000_000_000, "50400"),
        (-1_500_000_000, "-1.5"),
        (1, "0.000000001"),
    ],
)
def test_nano_dollars_are_shown_without_trailing_zeros(nanos: int, usd: str) -> None:
    """And without an exponent once they are formatted as a plain number."""
    assert format(nanos_to_usd(nanos), "f") == usd
