"""An invoice against the ledger: what is read, what is found, and how what lapsed is divided."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiergate.core import InvalidRequest
from tiergate.reports import Finding, Spend, read_invoice, reconcile, shares

USD = 1_000_000_000
HEAD = "day,model,cost_usd,input_tokens,output_tokens"


def row(day: str, target: str, usd: float, **more: int) -> Spend:
    sums = {
        "calls": 10,
        "succeeded": 10,
        "attempts": 10,
        "unpriced": 0,
        "input_tokens": 1000,
        "cached_tokens": 0,
        "output_tokens": 500,
        "cash_nanos": int(usd * USD),
        "lapsed_nanos": 0,
        "bounded_nanos": 0,
    }
    return Spend(group={"day": day, "target": target}, **{**sums, **more})


def finding(line: str, here: Spend | None) -> Finding:
    (found,) = reconcile(read_invoice([HEAD, line], provider="shop"), [] if here is None else [here])
    return found.finding


D, T = "2026-11-26", "shop/m"


@pytest.mark.parametrize(
    ("line", "here", "expected"),
    [
        (f"{D},m,1.00,1000,500", row(D, T, 1), Finding.AGREES),
        (f"{D},m,1.005,,", row(D, T, 1), Finding.AGREES),
        (f"{D},m,0.0004,,", row(D, T, 0), Finding.AGREES),
        (f"{D},m,1.00,,", None, Finding.NOT_HERE),
        (f"{D},m,0,,", None, Finding.AGREES),
        (f"{D},m,2,1000,500", row(D, T, 1, unpriced=3), Finding.UNPRICED),
        (f"{D},m,1,1000,500", row(D, T, 1.5, lapsed_nanos=USD // 2), Finding.WORST_CASE),
        (f"{D},m,1,1000,500", row(D, T, 1.5, bounded_nanos=USD), Finding.WORST_CASE),
        (f"{D},m,2,1000,500", row(D, T, 1), Finding.PRICE),
        (f"{D},m,2,5000,500", row(D, T, 1), Finding.PAST_US),
        (f"{D},m,0.5,100,50", row(D, T, 1), Finding.FEWER),
        (f"{D},m,2,,", row(D, T, 1), Finding.OTHER),
    ],
)
def test_what_differs_and_why(line: str, here: Spend | None, expected: Finding) -> None:
    """As far as the numbers tell; a cent in a dollar is no difference."""
    assert finding(line, here) is expected


def test_what_is_only_in_the_ledger_is_named_for_the_days_and_provider_of_the_invoice() -> None:
    """Other providers, and days that the invoice does not speak of, are not."""
    invoice = read_invoice([HEAD, f"{D},m,1,,", "2026-11-28,m,1,,"], provider="shop")
    ledger = [
        row(D, T, 1),
        row("2026-11-27", "shop/other", 2),
        row("2026-11-29", T, 2),
        row("2026-11-27", "rival/m", 2),
    ]
    found = {(one.day, one.target): one.finding for one in reconcile(invoice, ledger)}
    assert found == {
        (D, T): Finding.AGREES,
        ("2026-11-27", "shop/other"): Finding.NOT_BILLED,
        ("2026-11-28", T): Finding.NOT_HERE,
    }


def test_an_invoice_is_read_as_people_export_it() -> None:
    """Columns in any order and case, amounts with signs and commas, times for days, rows that repeat."""
    lines = [
        "Model,Provider,DAY,Cost_USD,requests,input_tokens",
        'gpt,openai,2026-11-26T00:00:00Z,"$1,000.50",7,"1,000"',
        "gpt,openai,2026-11-26,0.25,1,24",
    ]
    ((place, billed),) = read_invoice(lines, provider=None).items()
    assert place == ("2026-11-26", "openai/gpt")
    assert billed.cost_nanos == 1_000_750_000_000
    assert (billed.input_tokens, billed.output_tokens) == (1_024, None)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["day,model", "x,y"], "Missing: cost_usd"),
        ([], "Missing: day, model, cost_usd"),
        (["day,model,cost_usd", "2026-11-26,m,1"], "--provider"),
        ([HEAD, "yesterday,m,1,,"], "Line 2: 'yesterday' is no day"),
        ([HEAD, f"{D},m,1,,", f"{D},m,lots,,"], "Line 3: 'lots' is no amount"),
        ([HEAD, f"{D},m,-1,,"], "is no amount"),
        ([HEAD, f"{D},m,nan,,"], "is no amount"),
        ([HEAD, f"{D},,1,,"], "must not be empty"),
        ([HEAD, f"{D},m,1,1.5,"], "is no number of tokens"),
    ],
)
def test_what_is_no_invoice_is_refused_with_the_line(lines: list[str], said: str) -> None:
    """And with what is wrong there."""
    with pytest.raises(InvalidRequest) as caught:
        read_invoice(lines, provider=None if "provider" in said else "shop")
    assert said in str(caught.value)


@given(st.integers(0, 10**12), st.lists(st.integers(0, 10**12), min_size=1, max_size=20))
def test_shares_add_up(total: int, bounds: list[int]) -> None:
    """To the nano-dollar, and none is negative."""
    parts = shares(total, bounds)
    assert sum(parts) == total and min(parts) >= 0 and len(parts) == len(bounds)
