"""Writes the catalog's `data/prices.json` from the pinned release of genai-prices; `make prices` runs it.

Only the vendors of the catalog, and of each model only what a chat call can be billed by: tokens by bucket,
dearer rates for long inputs, service tiers, from which day. A model without a price for input tokens is left
out.
"""

import json
import sys
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from genai_prices import types
from genai_prices.data import providers

from tiergate.catalog.vendors import VENDORS

TARGET: Final = Path(__file__).resolve().parents[1] / "src/tiergate/catalog/data/prices.json"
CHECKED: Final = {"0.2.3": date(2026, 11, 9)}
"""The last day on which somebody looked, as far as a release shows: that of its youngest price, without those
that were announced for a later day than the one on which it was taken (2026-11-26)."""

BUCKETS: Final = {
    "input_mtok": "input",
    "output_mtok": "output",
    "cache_read_mtok": "cache_read",
    "cache_write_mtok": "cache_write_5m",
    "cache_write_1h_mtok": "cache_write_1h",
    "output_reasoning_mtok": "reasoning",
    "input_audio_mtok": "audio_in",
    "output_audio_mtok": "audio_out",
}
SINCE_EVER: Final = date.min


def document() -> dict[str, Any]:
    """Give the whole file."""
    release = version("genai-prices")
    names = {vendor.prices for vendor in VENDORS if vendor.prices}
    found = {provider.id: provider for provider in providers if provider.id in names}
    assert names == set(found), names - set(found)
    return {
        "source": f"genai-prices {release}",
        "checked": CHECKED[release].isoformat(),
        "vendors": {
            name: [row for model in found[name].models if (row := _model(model)) is not None]
            for name in sorted(names)
        },
    }


def written() -> bytes:
    """Give the bytes of the file: one line for each model, so that a change can be read."""
    whole = document()
    vendors = whole.pop("vendors")
    lines = [json.dumps(whole)[:-1] + ', "vendors": {']
    for number, (name, models) in enumerate(vendors.items(), start=1):
        lines.append(f"{json.dumps(name)}: [")
        lines.append(",\n".join(json.dumps(model, separators=(",", ":")) for model in models))
        lines.append("]" + ("," if number < len(vendors) else ""))
    return ("\n".join([*lines, "}}"]) + "\n").encode()


def _model(model: types.ModelInfo) -> dict[str, Any] | None:
    rows = [row for since in _days(model) if (row := _row(model, since)) is not None]
    if not rows:
        return None
    said: dict[str, Any] = {"id": model.id, "match": _match(model.match), "rows": rows}
    if model.context_window:
        said["context"] = model.context_window
    return said


def _days(model: types.ModelInfo) -> list[date]:
    """Give the days on which something about the price changes. Hours of the day are left to our own rows."""
    starts = {SINCE_EVER}
    conditions = list(model.price_variants or ())
    conditional = [] if isinstance(model.prices, types.ModelPrice) else model.prices
    for constraint in (one.constraint for one in [*conditions, *conditional]):
        if isinstance(constraint, types.StartDateConstraint):
            starts.add(constraint.start_date)
    return sorted(starts)


def _row(model: types.ModelInfo, since: date) -> dict[str, Any] | None:
    standard = _standard(model, since)
    said = _rates(standard)
    if said is None:
        return None
    if since != SINCE_EVER:
        said["since"] = since.isoformat()
    tiers: dict[str, Any] = {}
    for name, prices in _variants(model, since):
        merged = types.ModelPrice(**{**standard.__dict__, **_given(prices)})
        row = _rates(merged)
        if row is not None and row != _rates(standard):
            tiers.setdefault(name, row)
    if tiers:
        said["tiers"] = tiers
    return said


def _standard(model: types.ModelInfo, since: date) -> types.ModelPrice:
    if isinstance(model.prices, types.ModelPrice):
        return model.prices
    found = model.prices[0].prices
    for one in model.prices:
        if isinstance(one.constraint, types.StartDateConstraint) and one.constraint.start_date <= since:
            found = one.prices
    return found


def _variants(model: types.ModelInfo, since: date) -> Iterator[tuple[str, types.ModelPrice]]:
    for variant in model.price_variants or ():
        begun = variant.constraint is None or (
            isinstance(variant.constraint, types.StartDateConstraint)
            and variant.constraint.start_date <= since
        )
        if begun and variant.when == {"processing": "batch"}:
            yield "batch", variant.prices
        elif begun and set(variant.when) == {"service_tier"}:
            yield variant.when["service_tier"], variant.prices


def _given(prices: types.ModelPrice) -> dict[str, Any]:
    return {name: price for name, price in prices.__dict__.items() if price is not None}


def _rates(prices: types.ModelPrice) -> dict[str, Any] | None:
    given = {BUCKETS[name]: price for name, price in _given(prices).items() if name in BUCKETS}
    if "input" not in given:
        return None
    given.setdefault("output", Decimal(0))  # embeddings put nothing out
    thresholds = sorted(
        {
            tier.start
            for price in given.values()
            if isinstance(price, types.TieredPrices)
            for tier in price.tiers
        }
    )
    said: dict[str, Any] = {"rates": {bucket: _at(price, 0) for bucket, price in given.items()}}
    if thresholds:
        said["above"] = [
            [tokens, {bucket: _at(price, tokens + 1) for bucket, price in given.items()}]
            for tokens in thresholds
        ]
    return said


def _at(price: Decimal | types.TieredPrices, tokens: int) -> str:
    if isinstance(price, Decimal):
        return format(price, "f")
    found = price.base
    for tier in price.tiers:
        if tokens > tier.start:
            found = tier.price
    return format(found, "f")


def _match(clause: types.MatchLogic) -> list[Any]:
    match clause:
        case types.ClauseEquals(equals=text):
            return ["is", text.lower()]
        case types.ClauseStartsWith(starts_with=text):
            return ["starts", text.lower()]
        case types.ClauseEndsWith(ends_with=text):
            return ["ends", text.lower()]
        case types.ClauseContains(contains=text):
            return ["has", text.lower()]
        case types.ClauseRegex(regex=pattern):
            return ["re", pattern]
        case types.ClauseOr(or_=clauses):
            return ["or", *map(_match, clauses)]
        case types.ClauseAnd(and_=clauses):
            return ["and", *map(_match, clauses)]


if __name__ == "__main__":
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_bytes(written())
    print(f"{TARGET.name}: {TARGET.stat().st_size // 1024} KiB", file=sys.stderr)
