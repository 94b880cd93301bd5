"""What a cache would have answered: repeats among calls that a dry run has marked.

A repeat counts where the answer of one before was there, or on its way, and young enough. Nothing was kept,
so each has its own usage and cost: that is what would not have been spent.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from tiergate.reports.ports import Marked, Past, Span, group_of

_ALWAYS_ONLY: Final = "dry-run-always"
"""The reason of calls that would be kept with `when: always` alone."""


@dataclass(slots=True, kw_only=True)
class Repeats:
    """Of calls that may be kept, those that would have been given an answer, and what that saves."""

    calls: int = 0
    hits: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    nanos: int = 0
    unpriced: int = 0
    """Hits whose cost nobody knows: they are in no amount."""

    def add(self, call: Marked, *, is_hit: bool) -> None:
        """Count a call."""
        self.calls += 1
        if is_hit:
            self.hits += 1
            self.input_tokens += call.input_tokens
            self.output_tokens += call.output_tokens
            self.nanos += call.cash_nanos or 0
            self.unpriced += call.cash_nanos is None


@dataclass(frozen=True, slots=True, kw_only=True)
class WouldHit:
    """One row: with the settings as they are, and with `when: always`."""

    group: Mapping[str, str]
    as_set: Repeats
    always: Repeats


class _Kept:
    """The answers that would be kept, by the hash of their question: until when they are given again."""

    def __init__(self, ttl_s: Callable[[str], float]) -> None:
        self._ttl_s = ttl_s
        self._until_ns: dict[bytes, int] = {}

    def answers(self, call: Marked) -> bool:
        """Tell whether a call would be given an answer; else its own is kept."""
        if call.received_ns < self._until_ns.get(call.request_hash, 0):
            return True
        if call.is_kept:
            ttl_ns = int(self._ttl_s(call.about["model"]) * 1e9)
            self._until_ns[call.request_hash] = call.ended_ns + ttl_ns
        return False


def would_hit(
    past: Past, span: Span, by: tuple[str, ...], *, ttl_s: Callable[[str], float]
) -> list[WouldHit]:
    """Count by the groups in `by`; most hits first, days in their order where they come first.

    `ttl_s`: by an asked model, for how long an answer is given again.
    """
    groups: dict[tuple[str, ...], WouldHit] = {}
    as_set, always = _Kept(ttl_s), _Kept(ttl_s)
    for call in past.marked(span):
        name = group_of(call.about, call.slot, by, span.zone)
        row = groups.get(name)
        if row is None:
            group = dict(zip(by, name, strict=True))
            row = groups[name] = WouldHit(group=group, as_set=Repeats(), always=Repeats())
        row.always.add(call, is_hit=always.answers(call))
        if call.reason != _ALWAYS_ONLY:
            row.as_set.add(call, is_hit=as_set.answers(call))
    rows = list(groups.values())
    rows.sort(key=lambda row: (-row.as_set.hits, -row.always.hits, tuple(row.group.values())))
    if by[:1] == ("day",):
        rows.sort(key=lambda row: row.group["day"])
    return rows
