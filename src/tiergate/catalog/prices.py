"""Dated price rows, and the book that finds the row in force.

A price that nobody wrote down is unknown: never zero, never another model's. A target of our own has no
price; what it costs is GPU-hours, which are not counted per call.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Protocol

from tiergate.catalog.rates import Hours, Rates, Tariff
from tiergate.core import Target, Tier

STALE_AFTER: Final = timedelta(days=180)
"""A price that nobody has looked at for so long may have changed."""

STANDARD_TIERS: Final = frozenset({"", "default", "standard", "on_demand"})
"""How providers call the service tier that has the standard price."""
_CHOSEN_BY_PROVIDER: Final = frozenset({"", "auto"})
BATCH: Final = "batch"


class PriceState(StrEnum):
    """What is known about a target's price."""

    KNOWN = "known"
    OWNED = "owned"
    STALE = "stale"
    """Known, and looked at too long ago; charged all the same."""
    UNKNOWN = "unknown"


class BilledBy(StrEnum):
    """Which moment of a call decides about hours and dates."""

    RECEIVED = "received"
    COMPLETED = "completed"
    UNKNOWN = "unknown"
    """The provider does not say: the dearer of the two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceRecord:
    """One dated row: what a target costs from a day on (UTC), and who says so. `target` is `provider/model`.

    `service_tiers` holds the tariffs of batch, flex, priority and the like. `until` is the first day on which
    the row no longer holds. `id` is the name that a charge carries.
    """

    target: str
    standard: Tariff
    valid_from: date
    source: str
    until: date | None = None
    hours: tuple[Hours, ...] = ()
    service_tiers: Mapping[str, Tariff] = field(default_factory=lambda: MappingProxyType({}))
    usd_per_request: Decimal = Decimal(0)
    billed_by: BilledBy = BilledBy.UNKNOWN
    checked: date | None = None
    id: str = ""

    def __post_init__(self) -> None:
        if not self.id:
            object.__setattr__(self, "id", f"{self.target}@{self.valid_from.isoformat()}")

    @property
    def rates(self) -> Rates:
        """The standard rates of a short input, as price lists show them."""
        return self.standard.rates

    def tariffs(self, service_tier: str | None, *, received_ns: int, completed_ns: int) -> Sequence[Tariff]:
        """Give the tariffs that can hold for a call; where there are several, the dearest counts.

        `service_tier` is what the provider says it has used. None of ours for it: there is no tariff.
        """
        word = service_tier or ""
        tier = self.service_tiers.get(word)
        if tier is None and word not in STANDARD_TIERS:
            return ()
        if not self.hours:
            return (tier or self.standard,)
        found = [tier] if tier is not None else []
        for moment_ns in self._moments(received_ns, completed_ns):
            inside = [hours.tariff for hours in self.hours if hours.hold(moment_ns)]
            found += inside or ([] if tier is not None else [self.standard])
        return found

    def possible_tariffs(self, service_tier: str | None) -> Sequence[Tariff]:
        """Give every tariff that a call can end up with which asks for a service tier, or (None) for none.

        The standard one is among them, since providers fall back to it. Where the choice is the provider's,
        a default of the account can be any that is not batch.
        """
        word = service_tier or ""
        found = [self.standard, *(hours.tariff for hours in self.hours)]
        if word in _CHOSEN_BY_PROVIDER:
            return found + [tariff for name, tariff in self.service_tiers.items() if name != BATCH]
        tier = self.service_tiers.get(word)
        return found if tier is None else [*found, tier]

    def _moments(self, received_ns: int, completed_ns: int) -> tuple[int, ...]:
        match self.billed_by:
            case BilledBy.RECEIVED:
                return (received_ns,)
            case BilledBy.COMPLETED:
                return (completed_ns,)
            case BilledBy.UNKNOWN:
                return (received_ns, completed_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What is known about a target's price at one moment.

    `cost_is_reported`: what the provider says in its reply that a call costs is what it will invoice.
    """

    state: PriceState
    record: PriceRecord | None = None
    cost_is_reported: bool = False


UNKNOWN: Final = Price(state=PriceState.UNKNOWN)
OWNED: Final = Price(state=PriceState.OWNED)


class PriceSource(Protocol):
    """Where the book looks for targets that the user gave no price."""

    def records(self, target: Target) -> Iterable[PriceRecord]:
        """Give the dated rows of a target; none where nothing is known."""
        ...

    def reports_cost(self, target: Target) -> bool:
        """Tell whether the cost in a target's replies is what will be invoiced."""
        ...


class PriceBook:
    """Finds the price record in force for a target at a time.

    Args:
        records: the user's own; where one is in force it wins.
        catalog: knows the rows of everything else.
    """

    def __init__(self, records: Iterable[PriceRecord], *, catalog: PriceSource | None = None) -> None:
        rows: dict[str, list[PriceRecord]] = {}
        for record in records:
            rows.setdefault(record.target, []).append(record)
        self._own = {target: _Shelf(listed) for target, listed in rows.items()}
        self._catalog = catalog
        self._found: dict[str, _Shelf] = {}

    def find(self, target: Target, wall_ns: int) -> Price:
        """Give the price of a target at a time (nanoseconds since 1970)."""
        if target.tier is Tier.PRIVATE:
            return OWNED
        name = target.name
        own = self._own.get(name)
        if own is not None:
            price = own.at(wall_ns)
            if price is not UNKNOWN:
                return price
        if self._catalog is None:
            return UNKNOWN
        shelf = self._found.get(name)
        if shelf is None:
            if len(self._found) >= _FOUND_MAX:
                self._found.clear()
            reported = self._catalog.reports_cost(target)
            shelf = self._found[name] = _Shelf(self._catalog.records(target), cost_is_reported=reported)
        return shelf.at(wall_ns)


_FOUND_MAX: Final = 10_000
"""Callers choose model names, so what is remembered of them is bounded."""


class _Shelf:
    """The rows of one target, in order of their days."""

    def __init__(self, records: Iterable[PriceRecord], *, cost_is_reported: bool = False) -> None:
        listed = sorted(records, key=lambda record: record.valid_from)
        self._starts_ns = [_midnight_ns(record.valid_from) for record in listed]
        self._rows = [_Row(record, cost_is_reported) for record in listed]
        self._before = _unknown(cost_is_reported)

    def at(self, wall_ns: int) -> Price:
        at = bisect_right(self._starts_ns, wall_ns)
        return self._rows[at - 1].at(wall_ns) if at else self._before


class _Row:
    __slots__ = ("_after", "_ends_ns", "_known", "_stale", "_stale_from_ns")

    def __init__(self, record: PriceRecord, cost_is_reported: bool) -> None:
        self._known = Price(state=PriceState.KNOWN, record=record, cost_is_reported=cost_is_reported)
        self._stale = Price(state=PriceState.STALE, record=record, cost_is_reported=cost_is_reported)
        self._after = _unknown(cost_is_reported)
        self._ends_ns = None if record.until is None else _midnight_ns(record.until)
        self._stale_from_ns = None if record.checked is None else _midnight_ns(record.checked + STALE_AFTER)

    def at(self, wall_ns: int) -> Price:
        if self._ends_ns is not None and wall_ns >= self._ends_ns:
            return self._after
        if self._stale_from_ns is not None and wall_ns >= self._stale_from_ns:
            return self._stale
        return self._known


def _unknown(cost_is_reported: bool) -> Price:
    return Price(state=PriceState.UNKNOWN, cost_is_reported=True) if cost_is_reported else UNKNOWN


def _midnight_ns(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1_000_000_000
