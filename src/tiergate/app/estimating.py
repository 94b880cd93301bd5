"""`tiergate estimate`: what so many tokens cost, side by side, from the shell."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tiergate.app.client import GatewayClient
from tiergate.app.listing import counted
from tiergate.app.starting import file_or_found
from tiergate.app.table import print_table
from tiergate.catalog import VENDORS
from tiergate.config import Loaded, fill, load_text
from tiergate.core import CannotStart, SystemClock, Tier
from tiergate.metering import Lines
from tiergate.store import find_owner
from tiergate.web import estimate
from tiergate.wire import dumps


def show_estimate(
    config: Path | None, environ: Mapping[str, str], body: Mapping[str, Any], *, as_json: bool
) -> None:
    """Print an estimate. A running gateway answers it, since it knows what was learned; else its settings do.

    Without settings the vendors' well-known models are compared, so that nobody needs a key to see prices.

    Raises:
        InvalidRequest, ModelNotFound: as `web.estimate`.
    """
    answer = _answer(_settings(config, environ), body)
    if as_json:
        print(dumps(answer).decode())
        return
    _print_table(answer)


def _settings(config: Path | None, environ: Mapping[str, str]) -> Loaded:
    try:
        return file_or_found(config, environ)
    except CannotStart:
        return load_text(_price_list(), {}, name="the vendors that are known")


def _price_list() -> str:
    hosted = [vendor for vendor in VENDORS if vendor.tier is Tier.HOSTED and vendor.prices and vendor.models]
    providers = [f"  {vendor.name}: {{base_url: {vendor.base_url}}}" for vendor in hosted]
    models = [
        f"  {vendor.name}/{model}: {{targets: [{vendor.name}/{model}]}}"
        for vendor in hosted
        for model in vendor.models
    ]
    return "\n".join(["providers:", *providers, "models:", *models])


def _answer(loaded: Loaded, body: Mapping[str, Any]) -> Any:
    owner = None if loaded.path is None else find_owner(loaded.settings.data_dir)
    if owner is not None and owner.address is not None:
        return asyncio.run(_ask(GatewayClient(owner.address, token=owner.token, pid=owner.pid), body))
    rules = fill.rules(loaded.settings, generation=1)
    return estimate(body, rules, Lines(), wall_ns=SystemClock().wall_ns())


async def _ask(client: GatewayClient, body: Mapping[str, Any]) -> Any:
    try:
        return await client.post("/v1/estimate-cost", body)
    finally:
        await client.aclose()


def _print_table(answer: Mapping[str, Any]) -> None:
    against = answer["against"]
    parts = {"input": "input_usd", "cached": "cached_input_usd", "output": "output_usd", "fee": "fee_usd"}
    shown = {title: name for title, name in parts.items() if any(row[name] for row in answer["data"])}
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("model", no_wrap=True)
    for title in ("tokens in", *shown, "together"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("price")
    if against is not None:
        table.add_column(f"against {against['model']}", justify="right", no_wrap=True)
    rows = _by_target(answer["data"])
    for row in rows:
        cells = [
            _name(row),
            _tokens(row),
            *[_usd(row[name]) for name in shown.values()],
            _usd(row["cost_usd"]),
        ]
        cells.append(_price(row))
        if against is not None:
            cells.append(_against(row["saving_usd"]))
        table.add_row(*cells)
    print_table(table)
    Console(highlight=False).print(
        f"{counted(answer['completion_tokens'], 'token')} out. Private targets invoice nothing per call. "
        "An unknown price is not zero: name it under `prices` in the settings.",
        soft_wrap=True,
    )


def _by_target(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Give one row for each target, with the names of all models that it stands behind."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        names = found.setdefault(row["target"], {**row, "names": []})["names"]
        if row["model"] != row["target"]:
            names.append(row["model"])
    return list(found.values())


def _name(row: Mapping[str, Any]) -> str:
    """Give the target, with the names of the models that it stands behind."""
    target, names = str(row["target"]), ", ".join(row["names"])
    return f"{target} ({names})" if names else target


def _price(row: Mapping[str, Any]) -> str:
    """Give the state of the price, and what else decides about it than the tokens."""
    depends = {"hours": "usd_per_1m_hours", "long inputs": "usd_per_1m_above"}
    said = [word for word, name in depends.items() if row.get(name)]
    return str(row["price"]) + (f", by {' and '.join(said)}" if said else "")


def _tokens(row: Mapping[str, Any]) -> str:
    if row["prompt_tokens_source"] == "given":
        return f"{row['prompt_tokens']:,}"
    return f"~{row['prompt_tokens']:,}" + ("" if row["error"] is None else f" ±{row['error'] * 100:.0f}%")


def _usd(amount: Any) -> str:
    return "unknown" if amount is None else f"${amount:,.6f}".rstrip("0").rstrip(".") if amount else "$0"


def _against(saving: Any) -> str:
    if saving is None:
        return "-"
    if not saving:
        return "the same"
    return f"{_usd(abs(saving))} {'less' if saving > 0 else 'more'}"
