"""Commands that only look: `models`, `check` and `schema`."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from tiergate.app.checking import doubts
from tiergate.config import Loaded, fill, json_schema, load, reference_markdown
from tiergate.core import SettingsError, SystemClock
from tiergate.web import models_list
from tiergate.wire import dumps


def list_models(loaded: Loaded, *, as_json: bool) -> None:
    """Print the models of the settings."""
    rules = fill.rules(loaded.settings, generation=1)
    listed = models_list(rules, wall_ns=SystemClock().wall_ns())
    if as_json:
        print(dumps(listed).decode())
        return
    rows = [_row(model, target) for model in listed["data"] for target in model["targets"]]
    if rules.any_model:
        rows.extend(
            ("(any other)", f"{provider}/…", rules.providers[provider].value, "")
            for provider in rules.any_model
        )
    if not rows:
        print("No models are named in the settings; provider/upstream-name is always a valid model name.")
    widths = [max(len(row[column]) for row in rows) for column in range(3)] if rows else []
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, (*widths, 0), strict=True)).rstrip())


def check_settings(config: Path | None, *, as_json: bool) -> bool:
    """Print whether the settings are right, and every problem if not."""
    try:
        loaded = load(config, os.environ)
    except SettingsError as error:
        if as_json:
            print(dumps({"ok": False, "problems": error.problems}).decode())
        else:
            print(error, file=sys.stderr)
        return False
    notices = [*loaded.notices, *doubts(loaded, wall_ns=SystemClock().wall_ns())]
    if as_json:
        print(dumps({"ok": True, "path": str(loaded.path), "notices": notices}).decode())
        return True
    for notice in notices:
        print(f"note: {notice}")
    print(
        f"{loaded.path} is right: {counted(len(loaded.settings.providers), 'provider')}, "
        f"{counted(len(loaded.settings.models), 'model')}."
    )
    return True


def print_schema(*, markdown: bool) -> None:
    """Print the JSON Schema of the settings, or their reference page."""
    if markdown:
        print(reference_markdown(), end="")
        return
    print(json.dumps(json_schema(), indent=2))


def counted(number: int, noun: str) -> str:
    """Say how many.

    >>> counted(1, "call"), counted(2000, "call")
    ('1 call', '2,000 calls')
    """
    return f"{number:,} {noun}" + "s" * (number != 1)


def _row(model: dict[str, Any], target: dict[str, Any]) -> tuple[str, str, str, str]:
    return model["id"], target["target"], target["tier"], price_line(target)


def price_line(target: dict[str, Any]) -> str:
    """Say the price of a target of the list of models in one line."""
    rates = target.get("usd_per_1m")
    if rates is None:
        return f"price {target['price']}"
    stale = " (stale: looked at long ago)" if target["price"] == "stale" else ""
    return f"${rates['input']} in, ${rates['output']} out per 1M tokens{stale}"
