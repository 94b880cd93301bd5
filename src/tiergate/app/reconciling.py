"""`tiergate report reconcile`: an invoice against the ledger, and what lapsed settled by it."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode
from zoneinfo import ZoneInfo, available_timezones

from tiergate.app.administering import Ask, administered
from tiergate.app.ledgers import ledger_place
from tiergate.app.table import plain_table, print_table, shown
from tiergate.config import Loaded
from tiergate.core import CannotStart, InvalidRequest, nanos_to_usd, usd_to_nanos
from tiergate.reports import SAID, Difference, Finding, Span, read_invoice, reconcile, shares, spend
from tiergate.wire import dumps

_BY: Final = ("day", "target")


async def report_reconcile(
    loaded: Loaded,
    environ: Mapping[str, str],
    file: Path,
    *,
    provider: str | None,
    zone: str,
    settle: bool,
    today_too: bool,
    as_json: bool,
) -> bool:
    """Print what differs; tell whether nothing does.

    `settle`: settle what lapsed by the invoice, too, where it has a row and the day is over (or `today_too`):
    all else may be billed yet.

    Raises:
        CannotStart: the file cannot be read.
        InvalidRequest: it is no invoice; says the line.
    """
    _check(loaded, provider, zone)
    invoice = read_invoice(await asyncio.to_thread(_lines, file), provider=provider)
    if not invoice:
        raise CannotStart(f"{file} has no rows.")
    span = _span([day for day, _ in invoice], zone)
    past = ledger_place(loaded.settings).past()
    found = reconcile(invoice, await asyncio.to_thread(spend, past, span, _BY))
    today = None if today_too else datetime.now(ZoneInfo(zone)).date().isoformat()
    left = [one for one in found if one.lapsed_nanos and (not settle or _may_be_billed_yet(one, today))]
    settled: list[dict[str, Any]] = []
    if settle:
        async with administered(loaded, environ) as ask:
            for one in found:
                if one.lapsed_nanos and one not in left:
                    settled += await _settle(ask, one, zone)
    if as_json:
        print(dumps({"rows": [_object(one) for one in found], "settled": settled}).decode())
    else:
        _print(found, settled, left, settle=settle)
    return all(one.finding is Finding.AGREES for one in found)


def _check(loaded: Loaded, provider: str | None, zone: str) -> None:
    if zone not in available_timezones():
        raise InvalidRequest(
            f"{zone[:64]!r} is no time zone. Give one such as UTC or Europe/Berlin.", param="zone"
        )
    if provider is not None and provider not in loaded.settings.providers and loaded.path is not None:
        known = ", ".join(loaded.settings.providers)
        raise InvalidRequest(
            f"There is no provider {provider[:64]!r} in the settings. Known: {known}.", param="provider"
        )


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise CannotStart(f"There is no file {file}.") from None
    except (OSError, UnicodeError) as error:
        raise CannotStart(f"{file} cannot be read as text in UTF-8 ({type(error).__name__}).") from error


async def _settle(ask: Ask, one: Difference, zone: str) -> list[dict[str, Any]]:
    """Settle the lapsed attempts of a day and target: together by what the invoice leaves for them."""
    lapsed = [found async for found in _lapsed(ask, one, zone)]
    parts = shares(one.lapsed_cost_nanos, [usd_to_nanos(Decimal(str(bound or 0))) for _, _, bound in lapsed])
    done = []
    for (call_id, n, _), nanos in zip(lapsed, parts, strict=True):
        body = {"attempt": n, "cost_usd": str(nanos_to_usd(nanos))}
        await ask(f"/api/entries/{call_id}/resolve", body)
        done.append({"call": call_id, "attempt": n, "cost_usd": nanos_to_usd(nanos)})
    return done


async def _lapsed(ask: Ask, one: Difference, zone: str) -> AsyncIterator[tuple[str, int, Any]]:
    span = _span([one.day], zone)
    begin = datetime.fromtimestamp(span.start_ns // 1_000_000_000, ZoneInfo("UTC")).isoformat()
    after = None
    while True:
        query = {"state": "lapsed", "from": begin, "limit": 1000} | ({"after": after} if after else {})
        page = await ask(f"/api/entries?{urlencode(query)}", None)
        for entry in page["data"]:
            received = datetime.fromisoformat(entry["received"]).timestamp() * 1e9
            if not span.start_ns <= received < span.end_ns:
                continue
            for attempt in entry["attempts"]:
                if attempt["state"] == "lapsed" and attempt["target"] == one.target:
                    yield entry["id"], attempt["n"], attempt["bound_usd"]
        after = page["next"]
        if after is None:
            return


def _may_be_billed_yet(one: Difference, today: str | None) -> bool:
    return one.finding is Finding.NOT_BILLED or (today is not None and one.day >= today)


def _span(days: list[str], zone: str) -> Span:
    """Give the span of whole days, from the first to the last."""
    clock = ZoneInfo(zone)

    def midnight_ns(day: date) -> int:
        return int(datetime(day.year, day.month, day.day, tzinfo=clock).timestamp()) * 1_000_000_000

    first, last = date.fromisoformat(min(days)), date.fromisoformat(max(days))
    return Span(start_ns=midnight_ns(first), end_ns=midnight_ns(last + timedelta(days=1)), zone=zone)


def _object(one: Difference) -> dict[str, Any]:
    return {
        "day": one.day,
        "target": one.target,
        "billed_usd": nanos_to_usd(one.billed_nanos),
        "ledger_usd": nanos_to_usd(one.ledger_nanos),
        "lapsed_usd": nanos_to_usd(one.lapsed_nanos),
        "difference_usd": nanos_to_usd(one.difference_nanos),
        "finding": one.finding.value,
        "says": SAID[one.finding],
    }


def _print(
    found: list[Difference], settled: list[dict[str, Any]], left: list[Difference], *, settle: bool
) -> None:
    table = plain_table("day", "target", right=("billed", "ledger", "of it lapsed", "difference"))
    table.add_column("finding", no_wrap=True)
    for one in found:
        amounts = (one.billed_nanos, one.ledger_nanos, one.lapsed_nanos, one.difference_nanos)
        table.add_row(one.day, shown(one.target), *map(_usd, amounts), SAID[one.finding])
    print_table(table)
    billed, ledger = sum(one.billed_nanos for one in found), sum(one.ledger_nanos for one in found)
    print(f"{_usd(billed)} were billed and {_usd(ledger)} are in the ledger.")
    for done in settled:
        print(f"{done['call']}: attempt {done['attempt']} lapsed; now settled at ${done['cost_usd']:,.4f}.")
    lapsed = _usd(sum(one.lapsed_nanos for one in left))
    if left and settle:
        print(
            f"{lapsed} stays lapsed: of a day that is not over (--today-too), or of a target that the "
            "invoice does not name, so that it may be billed yet."
        )
    elif left:
        print(f"{lapsed} lapsed; --settle-lapsed settles it by this invoice.")


def _usd(nanos: int) -> str:
    usd = nanos_to_usd(abs(nanos))
    return f"{'-' if nanos < 0 else ''}${usd:,.4f}"
