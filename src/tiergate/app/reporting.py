"""`tiergate report`: the ledger, answered, as a table, as JSON or as CSV."""

import csv
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tiergate.app.ledgers import ledger_place
from tiergate.app.listing import counted
from tiergate.app.moments import clock_text, zoned_text
from tiergate.app.table import plain_table, print_table, shown
from tiergate.config import Loaded
from tiergate.core import CannotStart, nanos_to_usd
from tiergate.reports import (
    PERCENTILES,
    Beginnings,
    Latency,
    Span,
    Spend,
    beginnings,
    beginnings_object,
    groups_of,
    latency,
    latency_object,
    moment_text,
    seconds_of,
    span_object,
    span_of,
    spend,
    spend_object,
)
from tiergate.store import LedgerPast, back_up, restore
from tiergate.wire import dumps

DEFAULT_FROM: Final = "30d"


def report_spend(loaded: Loaded, *, by: str, begin: str, end: str | None, form: str) -> None:
    """Print what was spent; `form` is `table`, `json` or `csv`."""
    names, span, past = asked(loaded, by, begin, end)
    rows = spend(past, span, names)
    said = [spend_object(row) for row in rows]
    if form == "json":
        total = {
            "total_usd": nanos_to_usd(sum(row.cash_nanos for row in rows)),
            "unpriced_attempts": sum(row.unpriced for row in rows),
        }
        print(dumps({**span_object(span), **total, "rows": said}).decode())
    elif form == "csv":
        print_csv(names, _SPEND, said)
    else:
        _print_spend(names, rows, span)


def report_latency(loaded: Loaded, *, by: str, begin: str, end: str | None, form: str) -> None:
    """Print how long successful calls took; `form` is `table`, `json` or `csv`."""
    names, span, past = asked(loaded, by, begin, end)
    rows = latency(past, span, names)
    said = [latency_object(row) for row in rows]
    kept_ns = past.calls_from_ns()
    if form == "json":
        print(dumps({**span_object(span), "calls_kept_from": moment_text(kept_ns), "rows": said}).decode())
    elif form == "csv":
        print_csv(names, _LATENCY, said)
    else:
        _print_latency(names, rows, span)
        if span.start_ns < kept_ns:
            kept = zoned_text(kept_ns, span.zone)
            say(f"Calls before {kept} are kept no longer (`retention.calls`) and are not in it.")


def report_prefixes(loaded: Loaded, *, by: str, begin: str, end: str | None, within: str, form: str) -> None:
    """Print how much of prompts had been sent before; `form` is `table`, `json` or `csv`.

    Raises:
        InvalidRequest: `within` is no length of time.
    """
    names, span, past = asked(loaded, by, begin, end)
    within_s = seconds_of(within, param="within")
    rows = beginnings(past, span, names, within_s=within_s)
    said = [beginnings_object(row) for row in rows]
    if form == "json":
        print(dumps({**span_object(span), "within_s": within_s, "rows": said}).decode())
    elif form == "csv":
        print_csv(names, _PREFIXES, said)
    else:
        _print_prefixes(names, rows, span, within)


def run_backup(loaded: Loaded, target: Path) -> None:
    """Copy the databases of the data folder while they may be written, with progress on a terminal.

    Raises:
        CannotStart: the ledger is not in the folder.
    """
    _only_in_files(loaded)
    console = Console(stderr=True)

    def show(name: str, done: int, total: int) -> None:
        if console.is_terminal and total:
            console.print(f"{name}: {100 * done // total} %", end="\r")

    for copy in back_up(loaded.settings.data_dir, target, progress=show):
        print(f"{copy} ({copy.stat().st_size / 1e6:.1f} MB), checked")


def run_restore(loaded: Loaded, backup: Path) -> None:
    """Put a backup in the place of the data folder's databases, and say where those are now."""
    _only_in_files(loaded)
    data_dir = loaded.settings.data_dir
    kept = restore(backup, data_dir)
    print(f"{data_dir} holds what {backup} held." + ("" if kept is None else f" What it held is in {kept}."))


def _only_in_files(loaded: Loaded) -> None:
    if loaded.settings.store is not None:
        raise CannotStart(
            "The ledger is in PostgreSQL (the setting `store`), which has its own tools: back it up with "
            "pg_dump and restore it with pg_restore. docs/how-to/postgresql.md shows how."
        )


def asked(loaded: Loaded, by: str, begin: str, end: str | None) -> tuple[tuple[str, ...], Span, LedgerPast]:
    """Give the groups, the span and the past that a report was asked for.

    Raises:
        InvalidRequest: as `groups_of` and `span_of`.
        CannotStart: there is no ledger.
    """
    names = groups_of(by)
    span = span_of(begin, end, zone=loaded.settings.timezone, now_ns=time.time_ns())
    return names, span, ledger_place(loaded.settings).past()


_SPEND: Final = (
    "calls", "succeeded", "attempts", "input_tokens", "cached_tokens", "output_tokens", "cost_usd",
    "lapsed_usd", "bounded_usd", "unpriced_attempts",
)  # fmt: skip
_PREFIXES: Final = (
    "calls", "message_bytes", "repeated_bytes", "repeated_share", "input_tokens", "cache_read_tokens",
)  # fmt: skip
_LATENCY: Final = (
    "calls", "streamed", *(f"{what}_ms_p{percent}" for what in ("ttft", "total") for percent in PERCENTILES),
    "output_tokens_per_s",
)  # fmt: skip


def _print_prefixes(by: Sequence[str], rows: Sequence[Beginnings], span: Span, within: str) -> None:
    table = plain_table(*by, right=("calls", "sent before", "kept by providers"))
    for row in rows:
        shares = _share(row.repeated_bytes, row.bytes), _share(row.read_tokens, row.input_tokens)
        table.add_row(*group_cells(row.group), f"{row.calls:,}", *shares)
    print_report(table, span)
    if rows:
        sent, before = sum(row.bytes for row in rows), sum(row.repeated_bytes for row in rows)
        say(
            f"{_share(before, sent)} of {sent:,} bytes in messages had been sent to the same model by the "
            f"same tenant within {within} before: at most so much can a prompt cache keep."
        )
    else:
        say("No beginnings were recorded. Set `cache: {prefixes: true}`, let calls come, and ask again.")


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def print_csv(by: Sequence[str], columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows for a spreadsheet."""
    writer = csv.DictWriter(sys.stdout, [*by, *columns], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _cell(value) for name, value in row.items()})


def _cell(value: Any) -> Any:
    """Write a value so that no spreadsheet takes a name for a formula, and no amount gets an exponent."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t"):
        return f"'{value}"
    return format(value, "f") if type(value).__name__ == "Decimal" else value


def _print_spend(by: Sequence[str], rows: Sequence[Spend], span: Span) -> None:
    table = plain_table(*by, right=("calls", "tokens in", "cached", "tokens out", "cost"))
    for row in rows:
        table.add_row(
            *group_cells(row.group),
            f"{row.calls:,}",
            f"{row.input_tokens:,}",
            f"{row.cached_tokens:,}",
            f"{row.output_tokens:,}",
            _cost(row),
        )
    print_report(table, span)
    if not rows:
        return
    total, lapsed = sum(row.cash_nanos for row in rows), sum(row.lapsed_nanos for row in rows)
    bounded = sum(row.bounded_nanos for row in rows)
    unpriced = sum(row.unpriced for row in rows)
    calls, succeeded = sum(row.calls for row in rows), sum(row.succeeded for row in rows)
    said = [f"{counted(calls, 'call')}, {succeeded:,} of them successful; {usd_cell(total)} in all."]
    if lapsed:
        said.append(
            f"* {usd_cell(lapsed)} of it is the worst case of attempts that a dead process left unsettled."
        )
    if bounded:
        said.append(
            f"* {usd_cell(bounded)} of it is the most that can have been used: the provider reported "
            "nothing, or the answer was cut."
        )
    if unpriced:
        said.append(f"? {unpriced:,} attempts have no known price and are in no amount; see `prices`.")
    say(*said)


def _cost(row: Spend) -> str:
    if row.known_nanos is None:
        return "unknown"
    worst_case = row.lapsed_nanos or row.bounded_nanos
    return usd_cell(row.cash_nanos) + "*" * bool(worst_case) + "?" * bool(row.unpriced)


def _print_latency(by: Sequence[str], rows: Sequence[Latency], span: Span) -> None:
    table = plain_table(
        *by,
        right=("calls", "first token p50 / p95 / p99, ms", "whole answer p50 / p95 / p99, ms", "tokens/s"),
    )
    for row in rows:
        rate = row.output_tokens_per_s
        cells = (_three(row.first_event), _three(row.total), "-" if rate is None else f"{rate:,.1f}")
        table.add_row(*group_cells(row.group), f"{row.calls:,}", *cells)
    print_report(table, span)
    if not rows:
        return
    say(
        "Successful calls. A percentile is right within one percent; P99 of fewer than 500 calls says little."
    )


def print_report(table: Table, span: Span) -> None:
    """Print the span and the rows, or that there are none."""
    begin, end = clock_text(span.start_ns, span.zone), clock_text(span.end_ns, span.zone)
    say(f"From {begin} to {end}; times and days in {span.zone}.")
    if not table.row_count:
        say("No calls.")
        return
    print_table(table)


def say(*lines: str) -> None:
    """Print sentences."""
    for line in lines:
        print(line)


def group_cells(group: Mapping[str, str]) -> list[Text]:
    """Give the cells of what a row is grouped under."""
    return [shown(name or "none") for name in group.values()]


def _three(percentiles: Mapping[int, float]) -> str:
    return " / ".join(f"{ms:,.0f}" for ms in percentiles.values()) or "-"


def usd_cell(nanos: int) -> str:
    """Write an amount for a table."""
    usd, sign = nanos_to_usd(abs(nanos)), "-" * (nanos < 0)
    # Four decimals; a smaller amount with all of them, so that it is not taken for nothing.
    text = f"${usd:,.4f}" if not nanos or abs(nanos) >= 100_000 else f"${usd:.9f}".rstrip("0")
    return sign + text
