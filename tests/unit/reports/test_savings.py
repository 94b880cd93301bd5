"""Savings: three numbers that can be checked by hand, and that promise nothing they do not know."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiergate.catalog import PriceBook, PriceRecord, Rates, Tariff
from tiergate.core import Target, Tier, Usage, UsageSource
from tiergate.metering import cash_nanos
from tiergate.reports import (
    GROUPS,
    Avoided,
    Discounted,
    Marked,
    Private,
    Savings,
    Span,
    Spent,
    Timed,
    Used,
    savings,
    savings_object,
)
from tiergate.reports.ports import SLOT_NS, Sums

SPAN = Span(start_ns=0, end_ns=10**19)
DAY_NS = 86_400 * 10**9
HOSTED = Target(provider="shop", model="m", tier=Tier.HOSTED)
OTHER = Target(provider="shop", model="dear", tier=Tier.HOSTED)
BLANK = Target(provider="blank", model="m", tier=Tier.HOSTED)
OWN = Target(provider="rack", model="m", tier=Tier.PRIVATE)


class Told:
    """A past that is what it was told."""

    def __init__(self, spent: Iterable[Spent] = (), used: Iterable[Used] = ()) -> None:
        self._spent, self._used = spent, used

    def spent(self, span: Span, *, slots: bool) -> Iterable[Spent]:
        return self._spent

    def timed(self, span: Span) -> Iterator[Timed]:
        return iter(())

    def used(self, span: Span) -> Iterator[Used]:
        return iter(self._used)

    def marked(self, span: Span) -> Iterator[Marked]:
        return iter(())


def about(**names: str) -> dict[str, str]:
    return {**dict.fromkeys(GROUPS[:-1], ""), "model": "m", **names}


def spent(target: str = "", **sums: int) -> Spent:
    zeros = dict.fromkeys((field.name for field in fields(Sums)), 0)
    return Spent(about=about(target=target), slot=0, **{**zeros, **sums})


def used(target: Target = HOSTED, *, at_ns: int = DAY_NS, model: str = "m", **facts: Any) -> Used:
    source = facts.pop("source", UsageSource.REPORTED)
    return Used(
        about=about(target=target.name, tier=target.tier.value, model=model),
        slot=at_ns // SLOT_NS,
        target=target,
        usage=Usage(**facts),
        source=source,
        service_tier=None,
        sent_ns=at_ns,
        ended_ns=at_ns,
    )


def record(target: Target, since: str, **usd_per_1m: str) -> PriceRecord:
    rates = Rates(**{bucket: Decimal(usd) for bucket, usd in usd_per_1m.items()})
    return PriceRecord(
        target=target.name,
        standard=Tariff(rates=rates),
        valid_from=date.fromisoformat(since),
        source="a test",
    )


BOOK = PriceBook(
    [
        record(HOSTED, "1970-01-01", input="2", output="8", cache_read="0.5", cache_write_5m="2.5"),
        record(HOSTED, "1970-01-11", input="4", output="8", cache_read="1"),
        record(OTHER, "1970-01-01", input="10", output="20"),
    ]
)


def found(
    spent: Iterable[Spent] = (),
    used: Iterable[Used] = (),
    *,
    by: tuple[str, ...] = (),
    hosted: Sequence[Target] = (BLANK, HOSTED, OTHER),
) -> list[Savings]:
    return savings(Told(spent, used), SPAN, by, prices=BOOK, hosted_for=lambda _: hosted)


# Avoided.


def test_calls_that_were_served_without_an_attempt_are_avoided() -> None:
    """Those that failed before an attempt are not, nor are those that a target answered."""
    (row,) = found(
        [
            spent(calls=5, succeeded=3, avoided_input=300, avoided_output=30, avoided_nanos=7),
            spent("shop/m", calls=9, succeeded=9),
        ]
    )
    assert row.avoided == Avoided(calls=3, input_tokens=300, output_tokens=30, nanos=7)


def test_a_group_without_anything_to_say_has_no_row() -> None:
    """Calls that failed before they reached anybody saved nothing."""
    assert found([spent(calls=3)]) == []


# Discounted.


def test_what_was_read_from_a_cache_cost_less() -> None:
    """1,000 tokens at 0.5 in place of 2 dollars a million: 1,500,000 nano-dollars, worth 750 tokens."""
    (row,) = found(used=[used(input=200, cache_read=1_000, output=50)])
    assert row.discounted == Discounted(
        input_tokens=1_200, read_tokens=1_000, nanos=1_500_000, billed_tokens=450
    )


def test_what_was_written_to_a_cache_is_taken_off() -> None:
    """Written at 2.5 in place of 2, it costs 500 nano-dollars a token more, which can outweigh reading."""
    (row,) = found(used=[used(cache_read=100, cache_write_5m=1_000)])
    assert row.discounted.nanos == 100 * 1_500 - 1_000 * 500
    assert (row.discounted.written_tokens, row.discounted.billed_tokens) == (1_000, 1_275)


def test_the_price_is_the_one_that_was_in_force() -> None:
    """From the eleventh day on a cached token is 3 dollars a million cheaper, before 1.5."""
    early, late = used(at_ns=2 * DAY_NS, cache_read=10), used(at_ns=12 * DAY_NS, cache_read=10)
    rows = {row.group["day"]: row.discounted.nanos for row in found(used=[late, early], by=("day",))}
    assert rows == {"1970-01-03": 15_000, "1970-01-13": 30_000}


def test_tokens_without_a_known_price_are_left_out_and_counted() -> None:
    """They are neither free nor dear; where no price is known there is no amount."""
    blank, priced = used(BLANK, input=5, cache_read=7, cache_write_1h=2), used(cache_read=1_000)
    (row,) = found(used=[blank])
    assert (row.discounted.nanos, row.discounted.unpriced_tokens) == (None, 9)
    assert row.discounted.billed_tokens == 14
    (row,) = found(used=[blank, priced])
    assert (row.discounted.nanos, row.discounted.unpriced_tokens) == (1_500_000, 9)


def test_a_worst_case_that_was_charged_is_no_input() -> None:
    """Nobody knows what of it there was."""
    assert found(used=[used(input=10**6, source=UsageSource.BOUNDED)]) == []


RATE = st.decimals("0.0001", 100, places=4)
ATTEMPTS = st.lists(
    st.fixed_dictionaries(
        {name: st.integers(0, 10**6) for name in ("input", "cache_read", "cache_write_5m", "cache_write_1h")}
    ),
    max_size=20,
)


@given(ATTEMPTS, RATE, RATE, RATE, RATE)
def test_the_discount_is_what_uncached_input_would_have_cost_more(
    usages: list[dict[str, int]], fresh: Decimal, read: Decimal, write_5m: Decimal, write_1h: Decimal
) -> None:
    """Whatever the rates are, to the nano-dollar that each charge was rounded by."""
    rates = Rates(
        input=fresh, output=fresh, cache_read=read, cache_write_5m=write_5m, cache_write_1h=write_1h
    )
    row = PriceRecord(
        target="shop/m", standard=Tariff(rates=rates), valid_from=date(1970, 1, 1), source="made up"
    )
    book = PriceBook([row])
    rows = savings(
        Told(used=[used(**usage) for usage in usages]), SPAN, (), prices=book, hosted_for=lambda _: ()
    )
    price = book.find(HOSTED, DAY_NS)
    charged = sum(cash_nanos(Usage(**usage), price) or 0 for usage in usages)
    plain = sum(cash_nanos(Usage(input=Usage(**usage).input_tokens), price) or 0 for usage in usages)
    discounts = [row.discounted.nanos or 0 for row in rows]
    assert abs(sum(discounts) - (plain - charged)) <= len(usages) + 1
    # And as many uncached tokens as are said cost what was charged, within half a token.
    billed = sum(row.discounted.billed_tokens for row in rows)
    assert abs(billed * fresh * 1_000 - charged) <= fresh * 500 + len(usages) + 1


# Private.


def test_a_private_answer_is_compared_with_the_first_hosted_target_that_has_a_price() -> None:
    """100 tokens in at 2 and 10 out at 8 dollars a million; the one before it has no price."""
    (row,) = found(used=[used(OWN, input=100, output=10)])
    assert row.private == Private(
        calls=1, input_tokens=100, output_tokens=10, nanos=280_000, hosted=("shop/m",)
    )
    assert row.discounted == Discounted()


def test_cached_input_is_compared_with_cached_input() -> None:
    """The hosted target would have cached it as well, so nothing is boasted of."""
    (row,) = found(used=[used(OWN, cache_read=100)])
    assert row.private.nanos == 50_000


@pytest.mark.parametrize("hosted", [(), (BLANK,)])
def test_without_a_hosted_counterpart_there_are_tokens_and_no_money(hosted: tuple[Target, ...]) -> None:
    """None is named, or none with a known price: unknown is not zero."""
    (row,) = found(used=[used(OWN, input=100, output=10)], hosted=hosted)
    assert (row.private.nanos, row.private.unmatched_tokens, row.private.hosted) == (None, 110, ())
    assert savings_object(row)["private_cash_avoided_usd"] is None


def test_a_private_answer_of_unknown_usage_saves_nothing() -> None:
    """The most that it can have been would be said as what it was."""
    (row,) = found(used=[used(OWN, output=10**6, source=UsageSource.BOUNDED)])
    assert row.private == Private(unreported_calls=1)


def test_what_saved_most_stands_first_and_names_what_it_is_compared_with() -> None:
    """Each model with its own counterpart."""
    beside = {"small": (HOSTED,), "large": (OTHER,)}
    attempts = [used(OWN, model=model, input=1_000) for model in beside]
    rows = savings(Told(used=attempts), SPAN, ("model",), prices=BOOK, hosted_for=lambda name: beside[name])
    assert [(row.group["model"], row.private.hosted, row.private.nanos) for row in rows] == [
        ("large", ("shop/dear",), 10_000_000),
        ("small", ("shop/m",), 2_000_000),
    ]
