"""How much of prompts had been sent before: what a provider's or an engine's prompt cache could keep."""

from collections.abc import Mapping
from dataclasses import dataclass

from tiergate.reports.ports import Past, Prefixed, Span, group_of


@dataclass(slots=True, kw_only=True)
class Beginnings:
    """One row: calls whose beginnings were recorded, the bytes of their messages, and those sent before.

    `read_tokens`: what of the input providers say that they had kept.
    """

    group: Mapping[str, str]
    calls: int = 0
    bytes: int = 0
    repeated_bytes: int = 0
    input_tokens: int = 0
    read_tokens: int = 0

    def add(self, call: Prefixed, repeated_bytes: int) -> None:
        """Count a call."""
        self.calls += 1
        self.bytes += call.prefixes[-1].bytes if call.prefixes else 0
        self.repeated_bytes += repeated_bytes
        self.input_tokens += call.input_tokens
        self.read_tokens += call.read_tokens


def beginnings(past: Past, span: Span, by: tuple[str, ...], *, within_s: float) -> list[Beginnings]:
    """Add up by the groups in `by`: most repeated bytes first, days in their order where they come first.

    `within_s`: how long ago the same beginning may have been sent.
    """
    groups: dict[tuple[str, ...], Beginnings] = {}
    seen_ns: dict[bytes, int] = {}
    within_ns = int(within_s * 1e9)
    for call in past.prefixed(span):
        name = group_of(call.about, call.slot, by, span.zone)
        row = groups.get(name)
        if row is None:
            row = groups[name] = Beginnings(group=dict(zip(by, name, strict=True)))
        long_ago_ns = call.received_ns - within_ns - 1
        known = (
            prefix.bytes for prefix in call.prefixes if seen_ns.get(prefix.hash, long_ago_ns) > long_ago_ns
        )
        row.add(call, max(known, default=0))
        seen_ns.update((prefix.hash, call.received_ns) for prefix in call.prefixes)
    rows = list(groups.values())
    rows.sort(key=lambda row: (-row.repeated_bytes, tuple(row.group.values())))
    if by[:1] == ("day",):
        rows.sort(key=lambda row: row.group["day"])
    return rows
