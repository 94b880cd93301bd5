"""The bundled price data: the public prices of the large vendors, as they were known when it was made.

`data/prices.json` is written by `make prices` from a pinned release of genai-prices (MIT; NOTICE), whose data
it holds and nothing of its code: that package takes a third of a second to import and brings an HTTP client.
What we know better stands in `vendor_prices.py` and wins.
"""

import re
from collections.abc import Iterable
from datetime import date
from decimal import Decimal
from functools import cache
from types import MappingProxyType
from typing import Any, Final

import msgspec

from tiergate.catalog.prices import PriceRecord
from tiergate.catalog.rates import BUCKETS, Rates, Tariff
from tiergate.catalog.reading import read_data


class Model(msgspec.Struct, frozen=True):
    """One model of the data: how it is recognised, its context, its dated rates.

    `match` is a test of a name in lower case, as a list: `["is", text]`, `["starts", text]`,
    `["ends", text]`, `["has", text]`, `["re", pattern]`, `["or", …]`, `["and", …]`.
    """

    id: str
    match: list[Any]
    rows: list["Row"]
    context: int | None = None


class Row(msgspec.Struct, frozen=True, omit_defaults=True):
    """The rates of a model from a day on (None: since ever), in USD per 1M tokens."""

    rates: dict[str, Decimal]
    since: date | None = None
    above: list[tuple[int, dict[str, Decimal]]] = []
    tiers: dict[str, "Row"] = {}


class Data(msgspec.Struct, frozen=True):
    """The whole file: where it is from, when it was checked, models by vendor."""

    source: str
    checked: date
    vendors: dict[str, list[Model]]


SINCE_EVER: Final = date(1970, 1, 1)
PRICES_FILE: Final = "prices.json"

_BUCKETS: Final = frozenset(BUCKETS)
_NEEDED: Final = frozenset({"input", "output"})
_WORDS: Final = frozenset({"is", "starts", "ends", "has"})
_RATE_MAX: Final = 100_000
"""USD per 1M tokens. The dearest rate of the data is 600."""

_MISTAKEN: Final = frozenset(
    {
        # DeepSeek sells no such names any more; the rows are a reseller's prices, or hours that ended in 2025
        # (https://api-docs.deepseek.com/quick_start/pricing, read 2026-11-26).
        ("deepseek", "deepseek-chat"),
        ("deepseek", "deepseek-reasoner"),
        ("deepseek", "deepseek-v3.1-terminus"),
        ("deepseek", "deepseek-v3.2"),
        ("deepseek", "deepseek-v3.2-exp"),
    }
)
"""What the data holds and is wrong: such a price is unknown, rather than another's."""

_DRAWS: Final = re.compile(r"(?:^|[-/])image(?:-|$)")
"""Models that answer with images. The data has their rate for text alone, often a tenth of that for images,
and replies count both as output: such a price is unknown, too."""


@cache
def bundled_data() -> Data:
    """Read the data; 12 ms, once."""
    nothing = Data(source="", checked=SINCE_EVER, vendors={})
    return read_data(PRICES_FILE, Data, otherwise=nothing, check=_check)


def _check(data: Data) -> None:
    for models in data.vendors.values():
        for model in models:
            _check_match(model.match)
            for row in model.rows:
                for one in (row, *row.tiers.values()):
                    _check_rates(one.rates, *(rates for _, rates in one.above))


def _check_match(test: list[Any]) -> None:
    word, *rest = test
    if word in ("or", "and"):
        for one in rest:
            _check_match(one)
    elif word == "re":
        re.compile(rest[0])
    elif word not in _WORDS or not isinstance(rest[0], str):
        raise ValueError("no such test of a name")


def _check_rates(*found: dict[str, Decimal]) -> None:
    for rates in found:
        is_whole = _NEEDED <= rates.keys() <= _BUCKETS
        if not is_whole or not all(0 <= rate < _RATE_MAX for rate in rates.values()):
            raise ValueError("rates that cannot be")


def find_model(vendor: str, name: str) -> Model | None:
    """Find a model among a vendor's own: no other vendor's price is ever taken for it."""
    lowered = name.lower()
    for model in bundled_data().vendors.get(vendor, ()):
        if _matches(model.match, lowered):
            return model if _is_right(vendor, model) else None
    return None


def model_count(vendor: str) -> int:
    """Tell how many of a vendor's models have a price."""
    models = bundled_data().vendors.get(vendor, ())
    return sum(_is_right(vendor, model) for model in models)


def _is_right(vendor: str, model: Model) -> bool:
    return (vendor, model.id) not in _MISTAKEN and not _DRAWS.search(model.id)


def bundled_records(vendor: str, name: str, *, target: str) -> Iterable[PriceRecord]:
    """Give the dated rows of a vendor's model, under the name of a target; none where it is not known."""
    model = find_model(vendor, name)
    if model is None:
        return
    data = bundled_data()
    for row in model.rows:
        since = row.since or SINCE_EVER
        yield PriceRecord(
            target=target,
            standard=_tariff(row),
            service_tiers=MappingProxyType({tier: _tariff(one) for tier, one in row.tiers.items()}),
            valid_from=since,
            source=data.source,
            checked=data.checked,
            id=f"{data.source}:{vendor}/{model.id}@{since.isoformat()}",
        )


def _tariff(row: Row) -> Tariff:
    return Tariff(
        rates=Rates(**row.rates), above=tuple((tokens, Rates(**rates)) for tokens, rates in row.above)
    )


def _matches(test: list[Any], name: str) -> bool:
    word, *rest = test
    match word:
        case "is":
            return bool(name == rest[0])
        case "starts":
            return name.startswith(rest[0])
        case "ends":
            return name.endswith(rest[0])
        case "has":
            return rest[0] in name
        case "re":
            return re.search(rest[0], name) is not None
        case "or":
            return any(_matches(one, name) for one in rest)
        case "and":
            return all(_matches(one, name) for one in rest)
        case _:
            raise AssertionError(f"no such test of a name: {word!r}")
