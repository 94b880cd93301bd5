"""Money as integers of nano-dollars: exact to add, exact to store, read and shown as Decimal USD."""

from decimal import ROUND_HALF_UP, Decimal
from typing import Final

NANOS_PER_USD: Final = 1_000_000_000

_ONE: Final = Decimal(1)


def usd_to_nanos(usd: Decimal) -> int:
    """Round an amount in USD to whole nano-dollars, half up, once."""
    return int((usd * NANOS_PER_USD).quantize(_ONE, rounding=ROUND_HALF_UP))


def nanos_to_usd(nanos: int) -> Decimal:
    """Give an amount of nano-dollars as USD, exact, without trailing zeros.

    To show it there is `usd_text`: `str` writes amounts below a micro-dollar with an exponent.
    """
    return Decimal(usd_text(nanos))


def usd_text(nanos: int) -> str:
    """Write an amount of nano-dollars as USD in plain digits, which is a JSON number too.

    >>> usd_text(42)
    '0.000000042'
    """
    if nanos < 0:
        return f"-{usd_text(-nanos)}"
    whole, part = divmod(nanos, NANOS_PER_USD)
    return f"{whole}.{part:09d}".rstrip("0") if part else str(whole)
