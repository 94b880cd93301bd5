"""Token prices as dated rows, and the book that finds the row in force.

A price that nobody wrote down is unknown: never zero, never another model's. A target of our own has no
price; what it costs is GPU-hours, which are not counted per call.
"""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Final

from tiergate.core import Target, Tier


class PriceState(StrEnum):
    """What is known about a target's price."""

    KNOWN = "known"
    OWNED = "owned"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """USD per 1M tokens by bucket.

    None: billed as the bucket that it is a part of, never cheaper; audio without a rate cannot be priced.
    """

    input: Decimal
    output: Decimal
    cache_read: Decimal | None = None
    cache_write_5m: Decimal | None = None
    cache_write_1h: Decimal | None = None
    reasoning: Decimal | None = None
    audio_in: Decimal | None = None
    audio_out: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceRecord:
    """One dated row: what a target costs from a day on, and who says so. `target` is `provider/model`."""

    target: str
    rates: Rates
    valid_from: date
    source: str
    checked: date | None = None

    @property
    def id(self) -> str:
        """The name that a charge carries."""
        return f"{self.target}@{self.valid_from.isoformat()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What is known about a target's price at one moment."""

    state: PriceState
    record: PriceRecord | None = None


UNKNOWN: Final = Price(state=PriceState.UNKNOWN)
OWNED: Final = Price(state=PriceState.OWNED)


class PriceBook:
    """Finds the price record in force for a target at a time."""

    def __init__(self, records: Iterable[PriceRecord]) -> None:
        rows: dict[str, list[PriceRecord]] = {}
        for record in records:
            rows.setdefault(record.target, []).append(record)
        for listed in rows.values():
            listed.sort(key=lambda record: record.valid_from)
        self._prices = {
            target: [Price(state=PriceState.KNOWN, record=record) for record in listed]
            for target, listed in rows.items()
        }
        self._starts_ns = {
            target: [_midnight_ns(record.valid_from) for record in listed] for target, listed in rows.items()
        }

    def find(self, target: Target, wall_ns: int) -> Price:
        """Give the price of a target at a time (nanoseconds since 1970)."""
        if target.tier is Tier.PRIVATE:
            return OWNED
        starts = self._starts_ns.get(target.name)
        if starts is None:
            return UNKNOWN
        at = bisect_right(starts, wall_ns)
        return self._prices[target.name][at - 1] if at else UNKNOWN


def _midnight_ns(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1_000_000_000
