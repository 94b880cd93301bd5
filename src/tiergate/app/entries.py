"""`tiergate entries` and `tiergate report budgets`: the ledger call by call, and what may still be spent."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tiergate.app.administering import administered
from tiergate.app.moments import clock_text, zoned_text
from tiergate.app.table import plain_table, print_table, shown
from tiergate.config import Loaded
from tiergate.wire import dumps


async def list_entries(
    loaded: Loaded, environ: Mapping[str, str], filters: Mapping[str, Any], *, as_json: bool
) -> None:
    """Print calls, newest first."""
    asked = {name: value for name, value in filters.items() if value is not None}
    async with administered(loaded, environ) as ask:
        answer = await ask(f"/api/entries?{urlencode(asked)}", None)
    if as_json:
        print(dumps(answer).decode())
        return
    zone = loaded.settings.timezone
    names = ("call", f"received ({zone})", "key", "model", "target", "end")
    table = plain_table(*names, right=("tokens in", "out", "cost"))
    for entry in answer["data"]:
        table.add_row(*_row(entry, zone))
    _print(table, "No calls.")
    if answer["next"] is not None:
        print(f"There are more: --after {answer['next']}")


async def show_entry(loaded: Loaded, environ: Mapping[str, str], call_id: str, *, as_json: bool) -> None:
    """Print one call with its attempts."""
    async with administered(loaded, environ) as ask:
        entry = await ask(f"/api/entries/{quote(call_id, safe='')}", None)
    _show(entry, loaded.settings.timezone, as_json=as_json)


async def change_entry(
    loaded: Loaded,
    environ: Mapping[str, str],
    call_id: str,
    how: str,
    body: Mapping[str, Any],
    *,
    as_json: bool,
) -> None:
    """Resolve or adjust an attempt, and print the call as it is now; `how` is `resolve` or `adjust`."""
    async with administered(loaded, environ) as ask:
        entry = await ask(f"/api/entries/{quote(call_id, safe='')}/{how}", body)
    _show(entry, loaded.settings.timezone, as_json=as_json)


async def report_budgets(loaded: Loaded, environ: Mapping[str, str], *, as_json: bool) -> None:
    """Print every budget in its window of now."""
    async with administered(loaded, environ) as ask:
        answer = await ask("/api/budgets", None)
    if as_json:
        print(dumps(answer).decode())
        return
    table = plain_table("budget", right=("ceiling", "spent", "of it lapsed", "held", "left"))
    zone = loaded.settings.timezone
    table.add_column(f"until ({zone})", no_wrap=True)
    for budget in answer["data"]:
        amounts = [_usd(budget[name]) for name in ("usd", "spent_usd", "lapsed_usd", "held_usd", "left_usd")]
        per = "in total" if budget["per"] == "total" else f"per {budget['per']}"
        end = budget["window_end"]
        until = "for ever" if end is None else clock_text(end, zone)
        table.add_row(shown(f"{budget['scope']} {per}"), *amounts, until)
    _print(table, "The settings have no budgets. docs/budgets.md says how to write one.")


def _show(entry: Mapping[str, Any], zone: str, *, as_json: bool) -> None:
    if as_json:
        print(dumps(entry).decode())
        return
    console = Console(highlight=False, soft_wrap=True)
    told = {**entry, "received": zoned_text(entry["received"], zone)}
    for name in ("id", "received", "key", "team", "tag", "endpoint", "model", "class", "end", "error"):
        if told[name] is not None:
            console.print(Text(f"{name:10}"), shown(str(told[name])))
    if entry["receipt"] is not None:
        of = entry["answer_of"]
        console.print(Text(f"{'receipt':10}"), shown(entry["receipt"] + ("" if of is None else f", of {of}")))
    if entry["batch"] is not None:
        console.print(Text(f"{'batch':10}"), shown(f"{entry['batch']}, line {entry['line']:,}"))
    for step in entry["route"]:
        console.print(Text(f"{'route':10}"), shown(f"{step['target']}: {step['reason']}"))
    console.print(Text(f"{'cost':10}"), _usd(entry["cost_usd"]))
    for attempt in entry["attempts"]:
        usage, error = attempt["usage"], attempt["error"]
        said = (
            f"attempt {attempt['n']}  {attempt['target']} ({attempt['tier']}): {attempt['state']}"
            f"{'' if error is None else f', {error}'}; {usage['input_tokens']:,} tokens in, "
            f"{usage['output_tokens']:,} out ({attempt['usage_source']}); {_usd(attempt['cost_usd'])}"
            f", at most {_usd(attempt['bound_usd'])}"
        )
        console.print(shown(said))
    for adjustment in entry["adjustments"]:
        said = f"adjusted   attempt {adjustment['attempt']} by {_usd(adjustment['delta_usd'])}: "
        console.print(shown(said + adjustment["reason"]))


def _row(entry: Mapping[str, Any], zone: str) -> list[Any]:
    last = entry["attempts"][-1] if entry["attempts"] else None
    usage = entry["usage"] or {"input_tokens": 0, "output_tokens": 0}
    lapsed = any(attempt["state"] == "lapsed" for attempt in entry["attempts"])
    return [
        entry["id"],
        clock_text(entry["received"], zone),
        shown(entry["key"]),
        shown(entry["model"]),
        shown("-" if last is None else last["target"]),
        (entry["end"] or "running") + ("" if entry["error"] is None else f" ({entry['error']})"),
        f"{usage['input_tokens']:,}",
        f"{usage['output_tokens']:,}",
        _usd(entry["cost_usd"]) + "*" * lapsed,
    ]


def _usd(amount: Any) -> str:
    if amount is None:
        return "unknown"
    text = f"{abs(amount):,.9f}".rstrip("0").rstrip(".")
    return f"{'-' if amount < 0 else ''}${text}"


def _print(table: Table, nothing: str) -> None:
    if not table.row_count:
        print(nothing)
        return
    print_table(table)
