"""What was spent, by whatever somebody asks for."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final

from tiergate.reports.ports import Past, Span, Sums, group_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Spend(Sums):
    """One row: what it is grouped under, and the sums."""

    group: Mapping[str, str]

    @property
    def known_nanos(self) -> int | None:
        """The amount; None where nothing of it is known, since no attempt has a price."""
        return None if self.unpriced and not self.cash_nanos else self.cash_nanos


_SUMS: Final = tuple(field.name for field in fields(Sums))


def spend(past: Past, span: Span, by: tuple[str, ...]) -> list[Spend]:
    """Add up by the groups in `by`: the dearest first, days in their order where they come first."""
    sums: dict[tuple[str, ...], list[int]] = {}
    for row in past.spent(span, slots="day" in by):
        group = sums.setdefault(group_of(row.about, row.slot, by, span.zone), [0] * len(_SUMS))
        for place, name in enumerate(_SUMS):
            group[place] += getattr(row, name)
    rows = [
        Spend(group=dict(zip(by, group, strict=True)), **dict(zip(_SUMS, added, strict=True)))
        for group, added in sums.items()
    ]
    rows.sort(key=lambda row: (-row.cash_nanos, -row.calls, tuple(row.group.values())))
    if by[:1] == ("day",):
        rows.sort(key=lambda row: row.group["day"])
    return rows
