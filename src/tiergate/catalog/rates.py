"""What a token costs: rates by bucket, dearer ones for long inputs, and the hours in which they hold."""

from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, time
from decimal import Decimal
from typing import Final
from zoneinfo import ZoneInfo

_NANOS_PER_TOKEN: Final = 1_000
"""A dollar per million tokens, in nano-dollars per token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """USD per 1M tokens by bucket.

    None: billed as the bucket that it is a part of, never cheaper; audio without a rate cannot be priced.

    `scaled` says the same in whole numbers, for arithmetic: nano-dollars per token times `scale`, in the
    order input, cache_read, cache_write_5m, cache_write_1h, output, reasoning, audio_in, audio_out.
    """

    input: Decimal
    output: Decimal
    cache_read: Decimal | None = None
    cache_write_5m: Decimal | None = None
    cache_write_1h: Decimal | None = None
    reasoning: Decimal | None = None
    audio_in: Decimal | None = None
    audio_out: Decimal | None = None
    scaled: tuple[int | None, ...] = field(init=False, repr=False, compare=False)
    scale: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        write_5m = self.input if self.cache_write_5m is None else self.cache_write_5m
        in_order = (
            self.input,
            self.input if self.cache_read is None else self.cache_read,
            write_5m,
            write_5m if self.cache_write_1h is None else self.cache_write_1h,
            self.output,
            self.output if self.reasoning is None else self.reasoning,
            self.audio_in,
            self.audio_out,
        )
        places = max(_places(rate) for rate in in_order if rate is not None)
        scale = 10 ** max(0, places - 3)
        scaled = tuple(None if rate is None else int(rate * _NANOS_PER_TOKEN * scale) for rate in in_order)
        object.__setattr__(self, "scaled", scaled)
        object.__setattr__(self, "scale", scale)

    def named(self) -> dict[str, Decimal]:
        """Give the rates that are written down, by bucket."""
        found = ((bucket, getattr(self, bucket)) for bucket in BUCKETS)
        return {bucket: rate for bucket, rate in found if rate is not None}


def _places(rate: Decimal) -> int:
    exponent = rate.as_tuple().exponent
    assert isinstance(exponent, int), "a rate is finite"
    return max(0, -exponent)


BUCKETS: Final = tuple(one.name for one in fields(Rates) if one.init)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tariff:
    """The rates under one condition. A longer input has other rates for all of its call's tokens.

    `above` lists them: (more than so many input tokens, rates), shortest first.
    """

    rates: Rates
    above: tuple[tuple[int, Rates], ...] = ()

    def for_input(self, tokens: int) -> Rates:
        """Give the rates of a call with so many input tokens."""
        found = self.rates
        for more_than, rates in self.above:
            if tokens > more_than:
                found = rates
        return found

    def up_to(self, tokens: int | None) -> tuple[Rates, ...]:
        """Give all rates that a call with at most so many input tokens can have; None: with any number."""
        return (
            self.rates,
            *(rates for more_than, rates in self.above if tokens is None or tokens > more_than),
        )


_WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hours:
    """Hours of the week in which another tariff holds, as the provider's own clock shows them.

    `days` are 0 (Monday) to 6; a span that ends before it starts goes on past midnight.
    """

    days: frozenset[int]
    start: time
    end: time
    zone: str
    tariff: Tariff

    def hold(self, wall_ns: int) -> bool:
        """Tell whether they hold at a moment, in nanoseconds since 1970."""
        zone = UTC if self.zone == "UTC" else ZoneInfo(self.zone)
        moment = datetime.fromtimestamp(wall_ns // 1_000_000_000, zone)
        now, today = moment.time(), moment.weekday()
        if self.start < self.end:
            return today in self.days and self.start <= now < self.end
        yesterday = (today - 1) % 7
        return (today in self.days and now >= self.start) or (yesterday in self.days and now < self.end)

    def __str__(self) -> str:
        days = ",".join(_WEEKDAYS[day] for day in sorted(self.days))
        return f"{days} {self.start:%H:%M}-{self.end:%H:%M} {self.zone}"
