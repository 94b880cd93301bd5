"""Metrics for Prometheus: events are counted as they come, and written down when somebody looks.

Counting happens in the event loop for every call, so it is additions to a few numbers; names and texts of the
format are made for a page only. Callers choose names of models, so of many labels the rest is counted
together, under `other`.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from tiergate.core import (
    NANOS_PER_USD,
    AttemptFailed,
    BreakerChanged,
    BudgetReached,
    CallClass,
    CallEnded,
    EndState,
    Event,
    Goal,
    Notice,
    Refusal,
    SpendingFast,
    Usage,
    UsageDoubted,
)

Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily

_LABELS_MAX: Final = 1_000
_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640)
"""Bounds of the histograms, as the semantic conventions for generative AI suggest, a little wider."""
_OTHER: Final = "other"

Labels = tuple[str, ...]

_NO_GOALS: Final[Mapping[CallClass, Goal]] = {}
_WHENEVER: Final = Goal(total_s=float("inf"))


class _Calls:
    """What calls of one kind add up to."""

    __slots__ = (
        "cost_nanos",
        "count",
        "duration_sum",
        "durations",
        "first_sum",
        "firsts",
        "in_time",
        "late",
        "tokens",
        "unpriced",
    )

    def __init__(self) -> None:
        self.count = 0
        self.durations = [0] * (len(_SECONDS) + 1)
        self.duration_sum = 0.0
        self.firsts = [0] * (len(_SECONDS) + 1)
        self.first_sum = 0.0
        self.tokens = [0, 0, 0, 0]
        """Uncached input, cached input, output, reasoning."""
        self.cost_nanos = 0
        self.unpriced = 0
        self.in_time = 0
        self.late = 0

    def take(self, event: CallEnded, goal: Goal) -> None:
        self.count += 1
        if event.is_in_time(goal):
            self.in_time += 1
        else:
            self.late += 1
        seconds = event.total_ms / 1e3
        self.durations[bisect_left(_SECONDS, seconds)] += 1
        self.duration_sum += seconds
        if event.streamed and event.ttft_ms is not None:
            first = event.ttft_ms / 1e3
            self.firsts[bisect_left(_SECONDS, first)] += 1
            self.first_sum += first
        usage = event.usage
        if usage is not None:
            tokens = self.tokens
            tokens[0] += usage.input_tokens - usage.cache_read
            tokens[1] += usage.cache_read
            tokens[2] += usage.output + usage.audio_out
            tokens[3] += usage.reasoning
        if event.cash_nanos is None:
            self.unpriced += usage is not None
        else:
            self.cost_nanos += event.cash_nanos


class Metrics:
    """A sink for events, and the page that they make.

    `goals`: what "in time" means, by class; calls of a class without one are in time when they are answered.
    """

    def __init__(self, goals: Mapping[CallClass, Goal] = _NO_GOALS) -> None:
        self.goals = goals
        self._calls: dict[Labels, _Calls] = {}
        self._counts: dict[str, dict[Labels, int]] = {name: {} for name in _COUNTERS}
        self._avoided = [0, 0, 0]
        """Input tokens, output tokens, nano-dollars."""

    def __call__(self, event: Event) -> None:
        """Count an event. Returns at once."""
        match event:
            case CallEnded():
                self._of(event).take(event, self.goals.get(event.call_class, _WHENEVER))
                if event.cache is not None:
                    self._count("cache_calls", (event.cache, event.cache_reason or ""))
                if event.avoided is not None:
                    self._avoid(event.avoided, event.avoided_nanos)
                if event.receipt is not None:
                    self._count("receipts", (event.receipt.value,))
                if event.end is not EndState.SUCCESS:
                    self._count("failed_calls", (event.endpoint, event.error_code or "", event.end.value))
            case AttemptFailed():
                self._count("failed_attempts", (event.target.name, event.error_code))
            case UsageDoubted():
                self._count("usage_doubts", (event.target.name, event.doubt.value))
            case BudgetReached():
                self._count("budget_alerts", (event.budget, f"{event.share:g}"))
            case SpendingFast():
                self._count("spending_alerts", ())
            case Refusal():
                self._count("refusals", (event.endpoint, event.code))
                if event.limit is not None:
                    self._count("limit_refusals", (event.endpoint, event.limit))
            case BreakerChanged():
                self._count("breaker_changes", (event.target, event.part, event.state))
            case Notice():
                self._count("notices", (event.word, "error" if event.severe else "info"))

    def page(self, gauges: Iterable[Family]) -> bytes:
        """Write everything in the format of Prometheus, `gauges` included."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Once([*self._families(), *gauges]))
        return generate_latest(registry)

    def _of(self, event: CallEnded) -> _Calls:
        target = event.target
        labels = (
            event.endpoint,
            "" if target is None else target.name,
            event.tier or "",
            event.call_class,
            event.end,
        )
        found = self._calls.get(labels)
        if found is None:
            if len(self._calls) >= _LABELS_MAX:
                labels = (labels[0], _OTHER, *labels[2:])
                found = self._calls.get(labels)
            if found is None:
                found = self._calls[labels] = _Calls()
        return found

    def counted(self, name: str) -> Mapping[Labels, int]:
        """Give what was counted under a name of `_COUNTERS`, by labels."""
        return self._counts[name]

    def _avoid(self, usage: Usage, cash_nanos: int | None) -> None:
        avoided = self._avoided
        avoided[0] += usage.input_tokens
        avoided[1] += usage.output_tokens
        avoided[2] += cash_nanos or 0

    def _count(self, name: str, labels: Labels) -> None:
        counts = self._counts[name]
        if labels not in counts and len(counts) >= _LABELS_MAX:
            labels = (_OTHER, *labels[1:])
        counts[labels] = counts.get(labels, 0) + 1

    def _families(self) -> Iterator[Family]:
        names = ("endpoint", "target", "tier", "class", "end")
        calls = CounterMetricFamily("tiergate_calls", "Calls that ended.", labels=names)
        seconds = HistogramMetricFamily(
            "tiergate_call_duration_seconds", "From a call to its end.", labels=names
        )
        firsts = HistogramMetricFamily(
            "tiergate_time_to_first_token_seconds", "From a streamed call to its first content.", labels=names
        )
        tokens = CounterMetricFamily("tiergate_tokens", "Tokens by kind.", labels=(*names, "kind"))
        cost = CounterMetricFamily("tiergate_cost_usd", "What providers will invoice.", labels=names)
        unpriced = CounterMetricFamily(
            "tiergate_unpriced_calls", "Calls whose cost is not known.", labels=names
        )
        for labels, found in self._calls.items():
            calls.add_metric(labels, found.count)
            seconds.add_metric(labels, _buckets(_SECONDS, found.durations), found.duration_sum)
            if any(found.firsts):
                firsts.add_metric(labels, _buckets(_SECONDS, found.firsts), found.first_sum)
            for kind, count in zip(_KINDS, found.tokens, strict=True):
                if count:
                    tokens.add_metric((*labels, kind), count)
            cost.add_metric(labels, found.cost_nanos / NANOS_PER_USD)
            if found.unpriced:
                unpriced.add_metric(labels, found.unpriced)
        yield from (calls, seconds, firsts, tokens, cost, unpriced)
        yield self._timed()
        yield from self._of_avoided()
        for name, (text, label_names) in _COUNTERS.items():
            family = CounterMetricFamily(f"tiergate_{name}", text, labels=label_names)
            for labels, count in self._counts[name].items():
                family.add_metric(labels, count)
            yield family

    def _timed(self) -> Family:
        """Count by whether calls were answered in time; of those that their callers left nobody can say."""
        counts: dict[Labels, int] = {}
        for (*_, call_class, end), found in self._calls.items():
            if end != EndState.CLIENT_CLOSED:
                for said, count in (("true", found.in_time), ("false", found.late)):
                    if count:
                        counts[call_class, said] = counts.get((call_class, said), 0) + count
        text = "Calls by whether they were answered by their deadline, or by the goal of their class."
        family = CounterMetricFamily("tiergate_timed_calls", text, labels=("class", "in_time"))
        for labels, count in counts.items():
            family.add_metric(labels, count)
        return family

    def _of_avoided(self) -> Iterator[Family]:
        tokens_in, tokens_out, nanos = self._avoided
        tokens = CounterMetricFamily(
            "tiergate_avoided_tokens", "Tokens of answers that were kept or shared.", labels=("kind",)
        )
        tokens.add_metric(("input",), tokens_in)
        tokens.add_metric(("output",), tokens_out)
        cost = CounterMetricFamily("tiergate_avoided_cost_usd", "What those had cost whoever paid.")
        cost.add_metric((), nanos / NANOS_PER_USD)
        yield from (tokens, cost)


def gauge(name: str, text: str, labels: Sequence[str], values: Iterable[tuple[Labels, float]]) -> Family:
    """Make a gauge of values by their labels; `tiergate_` is put before its name."""
    family = GaugeMetricFamily(f"tiergate_{name}", text, labels=labels)
    for place, value in values:
        family.add_metric(place, value)
    return family


def histogram(
    name: str, text: str, *, bounds: Sequence[float], counts: Sequence[int], total: float
) -> Family:
    """Make a histogram without labels; `counts` has one for each bound and one beyond."""
    family = HistogramMetricFamily(f"tiergate_{name}", text)
    family.add_metric((), _buckets(bounds, counts), total)
    return family


_KINDS: Final = ("input", "cached_input", "output", "reasoning")
_COUNTERS: Final = {
    "failed_calls": (
        "Calls without success, by the code of their error.",
        ("endpoint", "error", "end"),
    ),
    "failed_attempts": ("Attempts that did not carry their call.", ("target", "error")),
    "usage_doubts": ("Attempts whose usage or cost is odd.", ("target", "doubt")),
    "budget_alerts": ("Shares of budgets that were reached.", ("budget", "share")),
    "spending_alerts": ("Times that a key spent faster than `alerts.usd_per_hour`.", ()),
    "cache_calls": ("Calls by what became of them at the cache.", ("outcome", "reason")),
    "receipts": ("Calls with an Idempotency-Key, by what it came to.", ("use",)),
    "refusals": ("Requests refused before they became calls.", ("endpoint", "error")),
    "limit_refusals": ("Calls refused by a limit of their key.", ("endpoint", "limit")),
    "breaker_changes": ("Breakers that changed their state.", ("target", "part", "state")),
    "notices": ("What an operator should know.", ("word", "level")),
}


class _Once(Collector):
    def __init__(self, families: Sequence[Family]) -> None:
        self._families = families

    def collect(self) -> Iterable[Family]:
        return self._families


def _buckets(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    total = 0
    found: list[tuple[str, float]] = []
    for bound, count in zip((*map(str, bounds), "+Inf"), counts, strict=True):
        total += count
        found.append((bound, total))
    return found
