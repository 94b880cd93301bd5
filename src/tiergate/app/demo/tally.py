"""What the demo counts: the gateway's own log lines, one for each call, and nothing else."""

from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from math import ceil
from typing import Any

from tiergate.app.demo.scenario import cost_elsewhere


class Tally:
    """Folds log lines of the gateway into what the table and the summary show."""

    def __init__(self) -> None:
        self.calls: list[Mapping[str, Any]] = []
        self.failed_attempts = 0

    def take(self, line: Mapping[str, Any]) -> None:
        """Count one line."""
        if line.get("event") == "call":
            self.calls.append(line)
        elif line.get("event") == "attempt_failed":
            self.failed_attempts += 1

    @property
    def spent_usd(self) -> Decimal:
        """What the providers will invoice."""
        return sum((_usd(call) for call in self.calls), Decimal(0))

    def tiers(self) -> dict[str, dict[str, Any]]:
        """Give one row for each tier that answered."""
        rows = {tier: _row(calls) for tier, calls in self._by("tier").items() if tier is not None}
        return dict(sorted(rows.items()))

    def avoided(self) -> dict[str, Any]:
        """Give the calls that were given an answer that another one had paid for, and what that saved."""
        given = [call for call in self.calls if "avoided_tokens" in call]
        return {
            "calls": len(given),
            "tokens": sum(call["avoided_tokens"] for call in given),
            "usd": sum((Decimal(str(call["avoided_usd"] or 0)) for call in given), Decimal(0)),
        }

    def models(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Give for each model that was asked for the targets that answered, with calls and spend."""
        rows: dict[str, dict[str, dict[str, Any]]] = {}
        for call in sorted(self.calls, key=lambda call: (call["model"], call["target"] or "")):
            answered_by = call["target"] or call["tier"] or "none"
            row = rows.setdefault(call["model"], {}).setdefault(
                answered_by, {"calls": 0, "spent_usd": Decimal(0)}
            )
            row["calls"] += 1
            row["spent_usd"] += _usd(call)
        return rows

    def summary(self, *, ledger_usd: Decimal, planned: int, repeated: int) -> dict[str, Any]:
        """Give everything that the summary says. `ledger_usd` is read from the ledger, not from the log."""
        tokens_in = sum(call["input_tokens"] or 0 for call in self.calls)
        tokens_out = sum(call["output_tokens"] or 0 for call in self.calls)
        return {
            "calls": {
                "planned": planned,
                "repeated": repeated,
                "ended": dict(Counter(call["end"] for call in self.calls)),
            },
            "failovers": sum(call["attempts"] > 1 for call in self.calls if call["end"] == "success"),
            "failed_attempts": self.failed_attempts,
            "tiers": self.tiers(),
            "models": self.models(),
            "input_tokens": tokens_in,
            "output_tokens": tokens_out,
            "spent_usd": self.spent_usd,
            "avoided": self.avoided(),
            "ledger_usd": ledger_usd,
            "elsewhere_usd": cost_elsewhere(tokens_in, tokens_out),
        }

    def _by(self, field: str) -> dict[Any, list[Mapping[str, Any]]]:
        groups: dict[Any, list[Mapping[str, Any]]] = {}
        for call in self.calls:
            groups.setdefault(call[field], []).append(call)
        return groups


def percentile(values: Sequence[float], share: float) -> float | None:
    """Give the value at a share of the sorted values, by nearest rank; None of no values."""
    if not values:
        return None
    return sorted(values)[max(0, ceil(share * len(values)) - 1)]


def _row(calls: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    ttft = [call["ttft_ms"] for call in calls if call["streamed"] and call["ttft_ms"] is not None]
    total = [call["total_ms"] for call in calls]
    return {
        "calls": len(calls),
        "ttft_ms": {f"p{round(share * 100)}": percentile(ttft, share) for share in (0.5, 0.95, 0.99)},
        "total_ms": {f"p{round(share * 100)}": percentile(total, share) for share in (0.5, 0.95, 0.99)},
        "input_tokens": sum(call["input_tokens"] or 0 for call in calls),
        "output_tokens": sum(call["output_tokens"] or 0 for call in calls),
        "spent_usd": sum((_usd(call) for call in calls), Decimal(0)),
    }


def _usd(call: Mapping[str, Any]) -> Decimal:
    cost = call["cost_usd"]
    return Decimal(0) if cost is None else Decimal(str(cost))
