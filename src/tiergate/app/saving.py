"""`tiergate report savings`: what was not spent, and what that does not say."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from tiergate.app.listing import counted
from tiergate.app.moments import zoned_text
from tiergate.app.reporting import asked, group_cells, print_csv, print_report, say, usd_cell
from tiergate.app.table import plain_table
from tiergate.config import Loaded, fill
from tiergate.core import ModelNotFound, Target, Tier, nanos_to_usd
from tiergate.reports import (
    Repeats,
    Savings,
    Span,
    WouldHit,
    moment_text,
    savings,
    savings_object,
    span_object,
    would_hit,
    would_hit_object,
)
from tiergate.serve import Rules, find_model
from tiergate.wire import dumps

NOT_A_PROFIT: Final = (
    "What private targets answered is compared with the cash that a hosted target would have cost. The "
    "GPU-hours that it took are not subtracted, so this is no profit."
)
_COLUMNS: Final = (
    "avoided_calls", "avoided_input_tokens", "avoided_output_tokens", "avoided_usd", "hosted_input_tokens",
    "cache_read_tokens", "cache_write_tokens", "billed_equivalent_tokens", "discount_usd",
    "unpriced_cache_tokens",
    "private_calls", "private_input_tokens", "private_output_tokens", "private_cash_avoided_usd",
    "hosted_counterparts", "unmatched_private_tokens", "unreported_private_calls",
)  # fmt: skip
_DRY_COLUMNS: Final = tuple(
    f"{how}_{what}"
    for how in ("as_set", "always")
    for what in ("calls", "hits", "input_tokens", "output_tokens", "usd", "unpriced_hits")
)


def report_savings(loaded: Loaded, *, by: str, begin: str, end: str | None, form: str) -> None:
    """Print what was not spent; `form` is `table`, `json` or `csv`."""
    names, span, past = asked(loaded, by, begin, end)
    rules = fill.rules(loaded.settings, generation=1)
    rows = savings(past, span, names, prices=rules.prices, hosted_for=_hosted_for(rules))
    said = [savings_object(row) for row in rows]
    kept_ns = past.calls_from_ns()
    if form == "json":
        told = {**span_object(span), "calls_kept_from": moment_text(kept_ns), "note": NOT_A_PROFIT}
        print(dumps({**told, **_totals(rows), "rows": said}).decode())
    elif form == "csv":
        flat = [{**row, "hosted_counterparts": " ".join(row["hosted_counterparts"])} for row in said]
        print_csv(names, _COLUMNS, flat)
    else:
        _print_savings(names, rows, span)
        if span.start_ns < kept_ns:
            kept = zoned_text(kept_ns, span.zone)
            say(f"Of calls before {kept}, which are kept no longer, only avoided answers are in it.")


def report_dry_run(loaded: Loaded, *, by: str, begin: str, end: str | None, form: str) -> None:
    """Print what a cache would have answered; `form` is `table`, `json` or `csv`."""
    names, span, past = asked(loaded, by, begin, end)
    rows = would_hit(past, span, names, ttl_s=_ttl_for(loaded))
    said = [would_hit_object(row) for row in rows]
    if form == "json":
        calls = sum(row.calls for row in past.spent(span, slots=False))
        print(dumps({**span_object(span), "calls": calls, "rows": said}).decode())
    elif form == "csv":
        print_csv(names, _DRY_COLUMNS, said)
    else:
        _print_would_hit(names, rows, span, all_calls=sum(row.calls for row in past.spent(span, slots=False)))


def _ttl_for(loaded: Loaded) -> Callable[[str], float]:
    """Give what tells for how long an answer of an asked model is given again."""
    models, default = loaded.settings.models, fill.cache_policy(loaded.settings)

    def find(asked_model: str) -> float:
        entry = models.get(asked_model)
        return (default if entry is None else fill.cache_policy(loaded.settings, entry.cache)).ttl_s

    return find


def _print_would_hit(by: Sequence[str], rows: Sequence[WouldHit], span: Span, *, all_calls: int) -> None:
    table = plain_table(
        *by, right=("marked", "hits", "avoided", "always: marked", "always: hits", "always: avoided")
    )
    for row in rows:
        cells = (
            cell
            for found in (row.as_set, row.always)
            for cell in (f"{found.calls:,}", f"{found.hits:,}", _amount(found.nanos, found.unpriced))
        )
        table.add_row(*group_cells(row.group), *cells)
    print_report(table, span)
    if not rows:
        say(
            "No call of that time was marked. Set `cache: {dry_run: true}`, let calls come, and ask again. "
            "What a cache that runs has avoided says `tiergate report savings`."
        )
        return
    as_set = [row.as_set for row in rows]
    say(_would_hit_said("With the settings as they are", as_set, all_calls))
    say(_would_hit_said("With `when: always`", [row.always for row in rows], all_calls))


def _would_hit_said(how: str, found: Sequence[Repeats], all_calls: int) -> str:
    hits = sum(one.hits for one in found)
    tokens = sum(one.input_tokens + one.output_tokens for one in found)
    amount = _amount(sum(one.nanos for one in found), sum(one.unpriced for one in found))
    share = f"{100 * hits / all_calls:.1f} % of all {counted(all_calls, 'call')}"
    return f"{how}: {counted(hits, 'call')} given again ({share}), {counted(tokens, 'token')}, {amount}."


def _hosted_for(rules: Rules) -> Callable[[str], Sequence[Target]]:
    """Give what finds the hosted targets of an asked model; none where it is not in the settings any more."""

    def find(asked_model: str) -> Sequence[Target]:
        try:
            targets = find_model(asked_model, rules).targets
        except ModelNotFound:
            return ()
        return [target for target in targets if target.tier is Tier.HOSTED]

    return find


def _totals(rows: Sequence[Savings]) -> dict[str, Any]:
    return {
        "avoided_tokens": sum(row.avoided.input_tokens + row.avoided.output_tokens for row in rows),
        "discounted_tokens": sum(row.discounted.read_tokens for row in rows),
        "billed_equivalent_tokens": sum(row.discounted.billed_tokens for row in rows),
        "avoided_usd": nanos_to_usd(sum(row.avoided.nanos for row in rows)),
        "discount_usd": nanos_to_usd(sum(row.discounted.nanos or 0 for row in rows)),
        "private_cash_avoided_usd": nanos_to_usd(sum(row.private.nanos or 0 for row in rows)),
    }


def _print_savings(by: Sequence[str], rows: Sequence[Savings], span: Span) -> None:
    table = plain_table(
        *by,
        right=("avoided calls", "avoided", "cached tokens", "discount", "private tokens", "elsewhere"),
    )
    table.add_column("at", no_wrap=True)
    for row in rows:
        discounted, private = row.discounted, row.private
        tokens = private.input_tokens + private.output_tokens
        table.add_row(
            *group_cells(row.group),
            f"{row.avoided.calls:,}",
            usd_cell(row.avoided.nanos),
            f"{discounted.read_tokens:,}",
            _amount(discounted.nanos, discounted.unpriced_tokens),
            f"{tokens:,}",
            _amount(private.nanos, private.unmatched_tokens),
            ", ".join(private.hosted) or ("no hosted counterpart" if tokens else "-"),
        )
    print_report(table, span)
    if rows:
        say(*_avoided_said(rows), *_discounted_said(rows), *_private_said(rows))


def _amount(nanos: int | None, left_out: int) -> str:
    return "unknown" if nanos is None else usd_cell(nanos) + "?" * bool(left_out)


def _avoided_said(rows: Sequence[Savings]) -> list[str]:
    found = [row.avoided for row in rows]
    calls, usd = sum(one.calls for one in found), usd_cell(sum(one.nanos for one in found))
    tokens = sum(one.input_tokens + one.output_tokens for one in found)
    served = f"{counted(calls, 'call')} that a stored or shared answer served"
    return [f"Avoided: {served}, {counted(tokens, 'token')}, {usd}."]


def _discounted_said(rows: Sequence[Savings]) -> list[str]:
    found = [row.discounted for row in rows]
    read, all_in = sum(one.read_tokens for one in found), sum(one.input_tokens for one in found)
    usd, billed = usd_cell(sum(one.nanos or 0 for one in found)), sum(one.billed_tokens for one in found)
    said = [
        f"Discounted: {read:,} of {counted(all_in, 'token')} into hosted targets came from their caches.",
        f"  {usd} less than uncached input, cache writes taken off; billed like {billed:,} uncached tokens.",
    ]
    if unpriced := sum(one.unpriced_tokens for one in found):
        left_out = counted(unpriced, "token")
        said.append(f"? {left_out} read from or written to caches have no known price; see `prices`.")
    return said


def _private_said(rows: Sequence[Savings]) -> list[str]:
    found = [row.private for row in rows]
    calls = sum(one.calls for one in found)
    unmatched = sum(one.unmatched_tokens for one in found)
    said = []
    if calls:
        tokens = counted(sum(one.input_tokens + one.output_tokens for one in found), "token")
        usd = _amount(sum(one.nanos or 0 for one in found), unmatched)
        said += [f"Private: {counted(calls, 'call')}, {tokens}; elsewhere {usd}.", NOT_A_PROFIT]
    if unmatched:
        left_out = counted(unmatched, "private token")
        said.append(f"? {left_out} are in no amount: `models` has no hosted target with a price for them.")
    if unreported := sum(one.unreported_calls for one in found):
        said.append(f"? {counted(unreported, 'private answer')} reported no usage and are in no number.")
    return said
