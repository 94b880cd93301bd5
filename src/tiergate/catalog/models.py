"""What models can do and how long their texts may be, as bundled data says.

`data/models.json` is written by `scripts/make_models.py` from the data of models.dev (MIT; NOTICE). What it
leaves out is unknown: nothing is guessed from a name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from functools import cache
from types import MappingProxyType
from typing import Final

import msgspec

from tiergate.catalog.reading import read_data


class Ability(StrEnum):
    """Something that a question can ask of a model beyond text in and text out."""

    TOOLS = "tools"
    """It calls functions that the question describes."""
    JSON_SCHEMA = "json_schema"
    """It answers by a schema, as `response_format` asks for it."""
    REASONING = "reasoning"
    """It thinks before it answers; such tokens are billed as output."""
    IMAGES = "images"
    """It takes images."""
    AUDIO = "audio"
    """It takes sound."""
    FILES = "files"
    """It takes PDF files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What is known of a model at a vendor; None and missing abilities: nobody says.

    `context_tokens`: the most of question and answer together; `output_tokens`: the longest answer;
    `unsupported`: fields of a question that the vendor's documentation says are ignored or refused.
    """

    context_tokens: int | None = None
    output_tokens: int | None = None
    abilities: Mapping[Ability, bool] = field(default_factory=lambda: MappingProxyType({}))
    unsupported: tuple[str, ...] = ()


NOTHING_KNOWN: Final = ModelFacts()


class _Row(msgspec.Struct, frozen=True):
    context: int | None = None
    output: int | None = None
    has: list[Ability] = []
    lacks: list[Ability] = []


class _Data(msgspec.Struct, frozen=True):
    source: str
    checked: date
    vendors: dict[str, dict[str, _Row]]


def model_facts(vendor: str, name: str) -> ModelFacts | None:
    """Give what is known of a vendor's model under exactly this name, whatever its case."""
    row = _data().vendors.get(vendor, {}).get(name.lower())
    if row is None:
        return None
    abilities = dict.fromkeys(row.has, True) | dict.fromkeys(row.lacks, False)
    return ModelFacts(
        context_tokens=row.context, output_tokens=row.output, abilities=MappingProxyType(abilities)
    )


@cache
def _data() -> _Data:
    """Read the data; 3 ms, once."""
    nothing = _Data(source="", checked=date(1970, 1, 1), vendors={})
    return read_data("models.json", _Data, otherwise=nothing, check=lambda _: None)
