"""What a batch looks like while it is worked: a panel on a terminal, lines elsewhere."""

from collections import deque
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

_WINDOW_S: Final = 20.0
"""What a rate is told from."""

Batch = Mapping[str, Any]


class Speed:
    """How fast lines come to their end, by those of the last seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int, int]] = deque()

    def see(self, batch: Batch, now: float) -> None:
        """Take a look at a batch."""
        self._seen.append((now, ended(batch), batch["usage"]["total_tokens"]))
        while len(self._seen) > 2 and now - self._seen[0][0] > _WINDOW_S:
            self._seen.popleft()

    @property
    def lines_per_s(self) -> float:
        """Lines that came to their end, a second."""
        return self._per_s(1)

    @property
    def tokens_per_s(self) -> float:
        """Tokens that were used, in and out, a second."""
        return self._per_s(2)

    def left_s(self, batch: Batch) -> float | None:
        """Tell how long the rest will take at this speed; None: nobody can tell."""
        left = total(batch) - ended(batch)
        return left / self.lines_per_s if self.lines_per_s > 0 else None

    def _per_s(self, column: int) -> float:
        if len(self._seen) < 2:
            return 0.0
        first, last = self._seen[0], self._seen[-1]
        return (last[column] - first[column]) / max(1e-9, last[0] - first[0])


def total(batch: Batch) -> int:
    """Give how many lines a batch has."""
    return int(batch["request_counts"]["total"])


def ended(batch: Batch) -> int:
    """Give how many lines of it have come to their end."""
    counts = batch["request_counts"]
    return int(counts["completed"] + counts["failed"] + batch["tiergate"]["cancelled"])


def panel(batch: Batch, speed: Speed) -> RenderableType:
    """Give the panel of the moment."""
    ours, counts = batch["tiergate"], batch["request_counts"]
    head = Text.assemble(
        (f" {batch['id']} ", "bold reverse"),
        f"  {ours['state']}",
        (f"   {_where(batch)}" if ours["reason"] else "", "yellow"),
    )
    bar = Table.grid(padding=(0, 1), expand=True)
    bar.add_column(ratio=1)
    bar.add_column(no_wrap=True)
    done, of = ended(batch), max(1, total(batch))
    bar.add_row(ProgressBar(total=of, completed=done), f"{done:,} of {total(batch):,} ({done / of:.1%})")
    facts = Table.grid(padding=(0, 3))
    facts.add_row("rate", _rate(batch, speed))
    facts.add_row("money", _money(ours))
    facts.add_row("asked now", _asked(ours))
    if counts["failed"] or ours["asked_again"]:
        facts.add_row("failed", _failed(batch))
    return Group(head, bar, facts)


def line(batch: Batch, speed: Speed) -> str:
    """Say the moment in one line."""
    ours = batch["tiergate"]
    failed = f", {batch['request_counts']['failed']:,} failed" if batch["request_counts"]["failed"] else ""
    why = f", {ours['reason']}" if ours["reason"] else ""
    return (
        f"{ours['state']}{why}: {ended(batch):,} of {total(batch):,} lines{failed}; {_rate(batch, speed)}; "
        f"{_money(ours)}"
    )


def clock(seconds: float) -> str:
    """Write a time as hours, minutes and seconds."""
    return str(timedelta(seconds=round(seconds)))


def _where(batch: Batch) -> str:
    ours = batch["tiergate"]
    until = f" until {ours['until']}" if ours["until"] else ""
    return f"{ours['reason']}{until}: {ours['message']}"


def _rate(batch: Batch, speed: Speed) -> str:
    left_s = speed.left_s(batch)
    ends = "" if left_s is None else f", {clock(left_s)} left"
    return f"{speed.lines_per_s:,.1f} lines/s, {speed.tokens_per_s:,.0f} tokens/s{ends}"


def _money(ours: Mapping[str, Any]) -> str:
    of = "" if ours["budget_usd"] is None else f" of ${ours['budget_usd']:g}"
    held = "" if ours["held_usd"] is None else f", ${ours['held_usd']:.4f} held"
    projected = ours["projected_usd"]
    whole = (
        ""
        if projected is None
        else f", in the end ${projected['middle']:.4f} (${projected['low']:.4f} to ${projected['high']:.4f})"
    )
    return f"${ours['spent_usd']:.4f}{of} spent{held}{whole}"


def _asked(ours: Mapping[str, Any]) -> str:
    if ours["limit"] is None:
        return "nothing"
    return f"{ours['in_flight']:,} of {ours['limit']:,} at one time, limited by {ours['limited_by']}"


def _failed(batch: Batch) -> str:
    ours = batch["tiergate"]
    errors = ", ".join(f"{count:,} {code}" for code, count in ours["errors"].items())
    again = ", ".join(f"{count:,} {word}" for word, count in ours["asked_again"].items())
    return f"{errors or 'none'}" + (f"; asked again: {again}" if again else "")
