"""Odd usage is told to the operator, and charged as the account says."""

from datetime import date
from decimal import Decimal

import pytest

from tiergate.catalog import Price, PriceRecord, PriceState, Rates, Tariff
from tiergate.core import Chunk, Usage, UsageDoubt
from tiergate.metering import Bound, Meter, doubts

RECORD = PriceRecord(
    target="shop/m",
    standard=Tariff(rates=Rates(input=Decimal(1), output=Decimal(2))),
    valid_from=date(2026, 1, 1),
    source="test",
)
KNOWN = Price(state=PriceState.KNOWN, record=RECORD)
REPORTS_COST = Price(state=PriceState.KNOWN, record=RECORD, cost_is_reported=True)
UNKNOWN = Price(state=PriceState.UNKNOWN)
OWNED = Price(state=PriceState.OWNED)
BOUND = Bound(input_tokens=100, output_tokens=50, nanos=200_000)
TEXT = Chunk(data=b"{}", content=True, text="hello")
STOP = Chunk(data=b"{}", content=True, finish=("stop",))
ODD = Chunk(data=b"{}", odd_usage=True)


def report(tokens_in: int, tokens_out: int, cost_nanos: int | None = None) -> Chunk:
    return Chunk(data=b"{}", usage=Usage(input=tokens_in, output=tokens_out), cost_nanos=cost_nanos)


def told(*chunks: Chunk, price: Price = KNOWN, complete: bool = True) -> list[UsageDoubt]:
    meter = Meter(bound=BOUND, price=price, choices=1)
    for chunk in chunks:
        meter.take(chunk)
    account = meter.delivered(elapsed_s=1) if complete else meter.cut(elapsed_s=1)
    return list(doubts(account, meter, BOUND, is_complete=complete, elapsed_s=1))


@pytest.mark.parametrize(
    ("chunks", "price", "expected"),
    [
        ((TEXT, STOP, report(100, 50)), KNOWN, []),
        ((TEXT, STOP), KNOWN, [UsageDoubt.UNREPORTED]),
        ((TEXT, STOP), UNKNOWN, [UsageDoubt.UNREPORTED]),
        ((TEXT, STOP), OWNED, []),  # estimated, and nothing is invoiced
        ((TEXT, STOP, ODD), KNOWN, [UsageDoubt.UNREADABLE]),
        ((TEXT, STOP, report(1, 1), ODD), KNOWN, [UsageDoubt.UNREADABLE]),
        ((TEXT, STOP, ODD, report(1, 1)), KNOWN, []),  # the last word counts
        ((TEXT, STOP, ODD), OWNED, [UsageDoubt.UNREADABLE]),
        ((TEXT, STOP, report(101, 1)), KNOWN, [UsageDoubt.ABOVE_BOUND]),
        ((TEXT, STOP, report(1, 51)), OWNED, [UsageDoubt.ABOVE_BOUND]),
        ((TEXT, STOP, report(100, 50, 200_000)), REPORTS_COST, []),
        ((TEXT, STOP, report(100, 50, 201_000)), REPORTS_COST, []),
        ((TEXT, STOP, report(100, 50, 300_000)), REPORTS_COST, [UsageDoubt.COST_DIFFERS]),
        ((TEXT, STOP, report(100, 50, 0)), KNOWN, [UsageDoubt.COST_DIFFERS]),
        ((TEXT, STOP, report(100, 50, 300_000)), UNKNOWN, []),
    ],
)
def test_what_is_odd_about_a_complete_answer(
    chunks: tuple[Chunk, ...], price: Price, expected: list[UsageDoubt]
) -> None:
    """Nothing where all is well."""
    assert told(*chunks, price=price) == expected


def test_an_answer_that_was_cut_reports_nothing_and_that_is_not_odd() -> None:
    """Unless it reported what cannot be."""
    assert told(TEXT, complete=False) == []
    assert told(TEXT, ODD, complete=False) == [UsageDoubt.UNREADABLE]
