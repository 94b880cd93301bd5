"""Holding an invoice against the ledger: per day and target, what differs and why it probably does.

An invoice is a table of a provider's own usage: a day, a model, what it cost, and tokens where they are told.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Final

from tiergate.core import InvalidRequest, usd_to_nanos
from tiergate.reports.spend import Spend

REQUIRED: Final = ("day", "model", "cost_usd")
OPTIONAL: Final = ("provider", "input_tokens", "output_tokens")
_TOLERANCE: Final = 0.01
_TOLERANCE_NANOS: Final = 1_000_000
"""A provider rounds each row to cents or less: a tenth of a cent is no difference."""
_USD_MAX: Final = Decimal(1_000_000_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Billed:
    """One row of an invoice; tokens are None where it does not tell them."""

    cost_nanos: int
    input_tokens: int | None = None
    output_tokens: int | None = None


Place = tuple[str, str]
"""A day and a target."""


class Finding(StrEnum):
    """Why an invoice and the ledger differ, as far as the numbers tell."""

    AGREES = "agrees"
    NOT_HERE = "not_here"
    """It was billed, and no call of that day and target is in the ledger: somebody calls past the gateway."""
    NOT_BILLED = "not_billed"
    """Calls are in the ledger, and the invoice has none: another day or account, or not billed yet."""
    UNPRICED = "unpriced"
    """Attempts without a known price: give the target one."""
    WORST_CASE = "worst_case"
    """The ledger charges worst cases that were not billed in full: lapsed, or not reported."""
    PRICE = "price"
    """The same tokens at another price: look at the target's price."""
    PAST_US = "past_us"
    """More tokens were billed than went through here."""
    FEWER = "fewer"
    """Fewer tokens were billed than went through here."""
    OTHER = "other"


SAID: Final = {
    Finding.AGREES: "agrees",
    Finding.NOT_HERE: "billed, and no call of it is here: somebody calls past the gateway",
    Finding.NOT_BILLED: "called from here, and not billed: another day or account, or not billed yet",
    Finding.UNPRICED: "attempts here have no known price: give the target one",
    Finding.WORST_CASE: "worst cases are charged here that were not billed in full",
    Finding.PRICE: "the same tokens at another price: look at the price of the target",
    Finding.PAST_US: "more tokens were billed than went through here",
    Finding.FEWER: "fewer tokens were billed than went through here",
    Finding.OTHER: "differs, and the numbers do not tell why",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One day and target: what was billed, what the ledger says, and a finding. Nano-dollars."""

    day: str
    target: str
    billed_nanos: int
    ledger_nanos: int
    lapsed_nanos: int
    """The part of the ledger's that nobody has settled."""
    finding: Finding

    @property
    def difference_nanos(self) -> int:
        """What was billed more than the ledger says."""
        return self.billed_nanos - self.ledger_nanos

    @property
    def lapsed_cost_nanos(self) -> int:
        """What the lapsed attempts have cost together, if the invoice is right about everything else."""
        return max(0, self.billed_nanos - (self.ledger_nanos - self.lapsed_nanos))


def read_invoice(lines: Iterable[str], *, provider: str | None) -> dict[Place, Billed]:
    """Read an invoice: CSV with a header; rows of the same day and target are added up.

    Args:
        lines: of the file.
        provider: whose invoice it is, by its name in the settings; None: a column says it.

    Raises:
        InvalidRequest: with the line and what is wrong there.
    """
    reader = csv.DictReader(lines)
    names = {name.strip().lower(): name for name in reader.fieldnames or ()}
    missing = [name for name in REQUIRED if name not in names]
    if provider is None and "provider" not in names:
        missing.append("provider (or say whose it is with --provider)")
    if missing:
        raise InvalidRequest(
            f"The first line must name the columns {', '.join(REQUIRED)}, and may name "
            f"{', '.join(OPTIONAL)}. Missing: {', '.join(missing)}."
        )
    found: dict[Place, Billed] = {}
    for row in reader:
        cells = {name: (row.get(column) or "").strip() for name, column in names.items()}
        try:
            place, billed = _row(cells, provider)
        except ValueError as error:
            raise InvalidRequest(f"Line {reader.line_num}: {error}.") from None
        found[place] = _sum(found.get(place), billed)
    return found


def reconcile(invoice: Mapping[Place, Billed], ledger: Sequence[Spend]) -> list[Difference]:
    """Hold an invoice against the ledger's spending by day and target; each of either comes once."""
    here = {(row.group["day"], row.group["target"]): row for row in ledger}
    providers = {target.partition("/")[0] for _, target in invoice}
    days = [day for day, _ in invoice]
    return [
        _difference(place, invoice.get(place), here.get(place))
        for place in sorted({*invoice, *here})
        if place in invoice
        or (place[1].partition("/")[0] in providers and min(days) <= place[0] <= max(days))
    ]


def shares(total_nanos: int, bounds: Sequence[int]) -> list[int]:
    """Divide an amount among attempts by their worst cases; the parts add up to it.

    >>> shares(100, [1, 1, 1])
    [34, 33, 33]
    """
    whole = sum(bounds) or len(bounds)
    weights = list(bounds) if sum(bounds) else [1] * len(bounds)
    parts = [total_nanos * weight // whole for weight in weights]
    for place in range(total_nanos - sum(parts)):
        parts[place] += 1
    return parts


def _row(cells: Mapping[str, str], provider: str | None) -> tuple[Place, Billed]:
    try:
        day = date.fromisoformat(cells["day"][:10])
    except ValueError:
        raise ValueError(f"{cells['day'][:40]!r} is no day such as 2026-11-26") from None
    whose = cells.get("provider") or provider
    if not cells["model"] or not whose:
        raise ValueError("model and provider must not be empty")
    try:
        usd = Decimal(cells["cost_usd"].lstrip("$").replace(",", ""))
    except InvalidOperation:
        usd = Decimal("NaN")
    if not usd.is_finite() or not 0 <= usd <= _USD_MAX:
        raise ValueError(f"{cells['cost_usd'][:40]!r} is no amount in USD")
    billed = Billed(
        cost_nanos=usd_to_nanos(usd),
        input_tokens=_tokens(cells.get("input_tokens", "")),
        output_tokens=_tokens(cells.get("output_tokens", "")),
    )
    return (day.isoformat(), f"{whose}/{cells['model']}"), billed


def _tokens(text: str) -> int | None:
    if not text:
        return None
    plain = text.replace(",", "")
    if not plain.isascii() or not plain.isdecimal():
        raise ValueError(f"{text[:40]!r} is no number of tokens")
    return int(plain)


def _sum(one: Billed | None, other: Billed) -> Billed:
    if one is None:
        return other

    def both(a: int | None, b: int | None) -> int | None:
        return None if a is None or b is None else a + b

    return Billed(
        cost_nanos=one.cost_nanos + other.cost_nanos,
        input_tokens=both(one.input_tokens, other.input_tokens),
        output_tokens=both(one.output_tokens, other.output_tokens),
    )


def _difference(place: Place, billed: Billed | None, row: Spend | None) -> Difference:
    day, target = place
    return Difference(
        day=day,
        target=target,
        billed_nanos=0 if billed is None else billed.cost_nanos,
        ledger_nanos=0 if row is None else row.cash_nanos,
        lapsed_nanos=0 if row is None else row.lapsed_nanos,
        finding=_finding(billed, row),
    )


def _finding(billed: Billed | None, row: Spend | None) -> Finding:
    if row is None or not row.attempts:
        return Finding.NOT_HERE if billed is not None and billed.cost_nanos else Finding.AGREES
    if billed is None:
        return Finding.NOT_BILLED if row.cash_nanos or row.unpriced else Finding.AGREES
    more = billed.cost_nanos - row.cash_nanos
    if abs(more) <= max(_TOLERANCE_NANOS, int(_TOLERANCE * max(billed.cost_nanos, row.cash_nanos))):
        return Finding.AGREES
    if row.unpriced and more > 0:
        return Finding.UNPRICED
    if more < 0 and -more <= row.lapsed_nanos + row.bounded_nanos:
        return Finding.WORST_CASE
    if billed.input_tokens is None or billed.output_tokens is None:
        return Finding.OTHER
    theirs, ours = billed.input_tokens + billed.output_tokens, row.input_tokens + row.output_tokens
    if abs(theirs - ours) <= _TOLERANCE * max(theirs, ours):
        return Finding.PRICE
    return Finding.PAST_US if theirs > ours else Finding.FEWER
