"""What reports need from outside: the past, already added up by everything that it can be grouped by."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol
from zoneinfo import ZoneInfo

from tiergate.cache import Prefix
from tiergate.core import Target, Usage, UsageSource

GROUPS: Final = ("key", "team", "tag", "model", "class", "target", "tier", "day")
"""What a report can be grouped by. `model` is the one that was asked for, `target` the one that answered."""

SLOT_NS: Final = 900_000_000_000
"""A quarter of an hour: every time zone's days begin at one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """From when to when, in nanoseconds since 1970, the end not included; and the time zone of its days."""

    start_ns: int
    end_ns: int
    zone: str = "UTC"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """What some calls used and cost together, in tokens and nano-dollars.

    A call counts where its last attempt was made; an attempt counts with what was settled, and as long as its
    owner is gone without settling (lapsed) with the worst case that was held.
    """

    calls: int
    succeeded: int
    attempts: int
    unpriced: int
    """Attempts that used something and have no known price: they are in no amount."""
    input_tokens: int
    cached_tokens: int
    """Those of the input that came from the provider's cache."""
    output_tokens: int
    cash_nanos: int
    lapsed_nanos: int
    """The part of the amount that is a worst case nobody has settled."""
    bounded_nanos: int
    """The part that is the most that can have been used: the provider reported nothing that can be."""
    avoided_input: int = 0
    """Tokens that a stored or shared answer saved, and below what they would have cost."""
    avoided_output: int = 0
    avoided_nanos: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent(Sums):
    """What all calls of one kind used; `about` holds every group but `day`, `slot` the time."""

    about: Mapping[str, str]
    slot: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """How long one successful call took, in milliseconds; `first_ms` only where it was streamed."""

    about: Mapping[str, str]
    slot: int
    first_ms: float | None
    total_ms: float
    output_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """What one settled attempt used; one at a private target only where it was the call's answer."""

    about: Mapping[str, str]
    slot: int
    target: Target
    usage: Usage
    source: UsageSource
    service_tier: str | None
    sent_ns: int
    ended_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Marked:
    """One successful call that a dry run of the cache marked with the keyed hash of its question."""

    about: Mapping[str, str]
    slot: int
    received_ns: int
    ended_ns: int
    request_hash: bytes
    reason: str
    is_kept: bool
    """Its answer is one that would be kept: each choice has come to its own end."""
    input_tokens: int
    output_tokens: int
    cash_nanos: int | None
    """None: nobody knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefixed:
    """One call whose prompt's beginnings were recorded, the shortest first."""

    about: Mapping[str, str]
    slot: int
    received_ns: int
    prefixes: Sequence[Prefix]
    input_tokens: int
    read_tokens: int
    """What of the input its target says that it had kept."""


class Past(Protocol):
    """The ledger, read and never written."""

    def spent(self, span: Span, *, slots: bool) -> Iterable[Spent]:
        """Give what was spent; all of one kind together, and with `slots` apart by quarter of an hour."""
        ...

    def timed(self, span: Span) -> Iterator[Timed]:
        """Give every successful call, one by one, in no order."""
        ...

    def used(self, span: Span) -> Iterator[Used]:
        """Give every attempt that tells of savings, one by one, in no order."""
        ...

    def marked(self, span: Span) -> Iterator[Marked]:
        """Give every call that a dry run of the cache has marked, one by one, as they came."""
        ...

    def prefixed(self, span: Span) -> Iterator[Prefixed]:
        """Give every call whose prompt's beginnings were recorded, one by one, as they came."""
        ...


def group_of(about: Mapping[str, str], slot: int, by: tuple[str, ...], zone: str) -> tuple[str, ...]:
    """Give what a row is grouped under."""
    return tuple(_day(slot, zone) if name == "day" else about[name] for name in by)


def _day(slot: int, zone: str) -> str:
    moment = datetime.fromtimestamp(slot * SLOT_NS // 1_000_000_000, UTC)
    return (moment if zone == "UTC" else moment.astimezone(ZoneInfo(zone))).date().isoformat()
