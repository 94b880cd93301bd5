"""How long calls took, by whatever somebody asks for.

Times are counted in classes that grow by one percent, so that millions of calls take no more memory than a
few hundred: a percentile is right within one percent.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, log
from typing import Final

from tiergate.reports.ports import Past, Span, group_of

PERCENTILES: Final = (50, 95, 99)
_GROWTH: Final = 1.01
_LOG: Final = log(_GROWTH)
_LEAST_MS: Final = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """One row: what it is grouped under, and percentiles in milliseconds by their number.

    `first_event` is empty where no call was streamed. `output_tokens_per_s` is the mean over the calls' whole
    time, None where nothing was put out.
    """

    group: Mapping[str, str]
    calls: int
    streamed: int
    first_event: Mapping[int, float]
    total: Mapping[int, float]
    output_tokens_per_s: float | None


class _Times:
    def __init__(self) -> None:
        self._classes: Counter[int] = Counter()
        self.count = 0

    def add(self, ms: float) -> None:
        self._classes[int(log(max(ms, _LEAST_MS)) / _LOG // 1)] += 1
        self.count += 1

    def percentiles(self) -> dict[int, float]:
        """Give each by nearest rank, as the middle of its class."""
        found: dict[int, float] = {}
        passed = 0
        ranks = {percent: ceil(percent / 100 * self.count) for percent in PERCENTILES} if self.count else {}
        for number, calls in sorted(self._classes.items()):
            passed += calls
            for percent, rank in ranks.items():
                if percent not in found and passed >= rank:
                    found[percent] = _GROWTH ** (number + 0.5)
        return found


class _Group:
    def __init__(self) -> None:
        self.first, self.total = _Times(), _Times()
        self.tokens, self.ms = 0, 0.0


def latency(past: Past, span: Span, by: tuple[str, ...]) -> list[Latency]:
    """Tell how long successful calls took, by the groups in `by`: the most calls first, or days in order."""
    groups: dict[tuple[str, ...], _Group] = {}
    for call in past.timed(span):
        group = groups.setdefault(group_of(call.about, call.slot, by, span.zone), _Group())
        group.total.add(call.total_ms)
        group.tokens += call.output_tokens
        group.ms += call.total_ms
        if call.first_ms is not None:
            group.first.add(call.first_ms)
    rows = [
        Latency(
            group=dict(zip(by, name, strict=True)),
            calls=group.total.count,
            streamed=group.first.count,
            first_event=group.first.percentiles(),
            total=group.total.percentiles(),
            output_tokens_per_s=group.tokens / group.ms * 1e3 if group.tokens and group.ms else None,
        )
        for name, group in groups.items()
    ]
    rows.sort(key=lambda row: (-row.calls, tuple(row.group.values())))
    if by[:1] == ("day",):
        rows.sort(key=lambda row: row.group["day"])
    return rows
