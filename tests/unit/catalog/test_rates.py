"""What a token costs under which condition: long inputs, hours of the week, service tiers."""

from datetime import UTC, date, datetime, time
from decimal import Decimal

import pytest

from tiergate.catalog import BilledBy, Hours, PriceRecord, Rates, Tariff


def rates(usd_in: str, usd_out: str = "1") -> Rates:
    return Rates(input=Decimal(usd_in), output=Decimal(usd_out))


def at(text: str) -> int:
    """Nanoseconds since 1970 of a moment in UTC."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 10**9


CHEAP, DEAR, NIGHT, BATCH, FAST = (Tariff(rates=rates(usd)) for usd in ("1", "2", "3", "4", "5"))


@pytest.mark.parametrize(
    ("usd", "scaled", "scale"),
    [("0.14", 140, 1), ("2", 2000, 1), ("0", 0, 1), ("0.0028", 28, 10), ("0.003625", 3625, 1000)],
)
def test_a_rate_is_a_whole_number_of_parts_of_a_nano_dollar(usd: str, scaled: int, scale: int) -> None:
    """However many decimals it has: money is added without a fraction."""
    made = rates(usd, "1")
    assert (made.scaled[0], made.scale) == (scaled, scale)
    assert made.scaled[4] == 1000 * scale


def test_a_cache_write_for_an_hour_is_never_cheaper_than_one_for_minutes() -> None:
    """Where only the shorter has a rate."""
    made = Rates(input=Decimal(1), output=Decimal(1), cache_write_5m=Decimal("1.25"))
    assert made.scaled[:4] == (1000, 1000, 1250, 1250)


def test_a_longer_input_has_other_rates_for_all_of_its_tokens() -> None:
    """The tier begins with the token after the limit, as providers have it."""
    tariff = Tariff(rates=rates("1"), above=((100, rates("2")), (200, rates("3"))))
    assert [tariff.for_input(tokens).input for tokens in (0, 100, 101, 200, 201)] == [1, 1, 2, 2, 3]
    assert [len(tariff.up_to(tokens)) for tokens in (100, 101, 201, None)] == [1, 2, 3, 3]


@pytest.mark.parametrize(
    ("moment", "inside"),
    [
        ("2026-11-23T00:59:59", False),  # a Monday
        ("2026-11-23T01:00:00", True),
        ("2026-11-23T03:59:59", True),
        ("2026-11-23T04:00:00", False),
        ("2026-11-27T01:00:00", True),
        ("2026-11-28T01:00:00", False),
        ("2026-11-29T03:00:00", False),
    ],
)
def test_hours_of_the_week_are_those_of_the_providers_clock(moment: str, inside: bool) -> None:
    """9 to 12 in Beijing, Monday to Friday; a weekend has none of them."""
    peak = Hours(days=frozenset(range(5)), start=time(9), end=time(12), zone="Asia/Shanghai", tariff=DEAR)
    assert peak.hold(at(moment)) is inside


@pytest.mark.parametrize(
    ("moment", "inside"),
    [
        ("2026-11-22T23:30:00", False),  # a Sunday
        ("2026-11-23T23:30:00", True),
        ("2026-11-24T00:29:00", True),
        ("2026-11-24T00:30:00", False),
        ("2026-11-24T23:30:00", False),
    ],
)
def test_hours_that_end_before_they_start_go_on_past_midnight(moment: str, inside: bool) -> None:
    """They belong to the day on which they begin."""
    night = Hours(days=frozenset({0}), start=time(23), end=time(0, 30), zone="UTC", tariff=NIGHT)
    assert night.hold(at(moment)) is inside
    assert str(night) == "mon 23:00-00:30 UTC"


def record(billed_by: BilledBy = BilledBy.UNKNOWN) -> PriceRecord:
    peak = Hours(days=frozenset(range(7)), start=time(9), end=time(12), zone="UTC", tariff=DEAR)
    return PriceRecord(
        target="p/m",
        standard=CHEAP,
        hours=(peak,),
        service_tiers={"batch": BATCH, "fast": FAST},
        valid_from=date(2026, 1, 1),
        billed_by=billed_by,
        source="a test",
    )


@pytest.mark.parametrize(
    ("billed_by", "found"),
    [(BilledBy.RECEIVED, [CHEAP]), (BilledBy.COMPLETED, [DEAR]), (BilledBy.UNKNOWN, [CHEAP, DEAR])],
)
def test_the_moment_that_counts_is_the_one_that_the_row_names(
    billed_by: BilledBy, found: list[Tariff]
) -> None:
    """A call that begins before the peak and ends in it; where nobody says, the dearer is taken."""
    moments = {"received_ns": at("2026-11-26T08:59:59"), "completed_ns": at("2026-11-26T09:00:01")}
    assert list(record(billed_by).tariffs(None, **moments)) == found


@pytest.mark.parametrize("word", [None, "", "default", "standard", "on_demand"])
def test_the_usual_words_for_the_standard_tier_mean_it(word: str | None) -> None:
    """OpenAI's, Anthropic's and Groq's."""
    noon = at("2026-11-26T12:00:00")
    assert list(record().tariffs(word, received_ns=noon, completed_ns=noon)) == [CHEAP, CHEAP]


def test_a_service_tier_without_a_row_has_no_price() -> None:
    """An unrecognised name must not silently get the standard price."""
    noon = at("2026-11-26T12:00:00")
    assert list(record().tariffs("scale", received_ns=noon, completed_ns=noon)) == []
    assert list(record().tariffs("batch", received_ns=noon, completed_ns=noon)) == [BATCH]


@pytest.mark.parametrize(
    ("asked", "possible"),
    [
        (None, [CHEAP, DEAR, FAST]),
        ("auto", [CHEAP, DEAR, FAST]),
        ("default", [CHEAP, DEAR]),
        ("batch", [CHEAP, DEAR, BATCH]),
        ("scale", [CHEAP, DEAR]),
    ],
)
def test_what_a_call_can_end_up_with(asked: str | None, possible: list[Tariff]) -> None:
    """Any hour, the tier that it asks for, the standard one; and what an account may have as its default."""
    assert list(record().possible_tariffs(asked)) == possible
