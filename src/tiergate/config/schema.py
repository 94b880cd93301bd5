"""The settings described: JSON Schema for editors, a reference for people, a view without secrets."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from tiergate.config import walk
from tiergate.config.pending import rows_for
from tiergate.config.scalar import Scalar
from tiergate.config.settings import Settings
from tiergate.config.values import Duration, duration_text

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_DURATION = walk.bare(Duration)[1]
_HEAD = """# Settings

Everything that `tiergate.yaml` may hold. This file is made from the code: `tiergate schema --markdown >
docs/reference/settings.md`. `tiergate schema` prints the JSON Schema for editors.

The file is found by `--config`, then `TIERGATE_CONFIG`, then `./tiergate.yaml`. A `.env` beside it is read;
the environment wins over it. Inside a value `${NAME}` and `${NAME:-default}` are filled in, `$${` is a plain
`${`; inside `[ ]` and `{ }` put such a value in quotes. A setting marked *not yet* is understood and not
honoured by this version: the start is refused, or a notice says so.

A *time* is `90d`, `24h`, `15m`, `30s` (also `w` and `y`) or a number of seconds. A *day* is `2026-01-31`. A
*secret* is hidden in every output. Where a setting may be left out, an empty text counts as left out.

| setting | kind | default | |
|---|---|---|---|
"""


def json_schema() -> dict[str, Any]:
    """Describe the settings file as JSON Schema 2020-12; point an editor at it."""
    schema = Settings.model_json_schema(schema_generator=_Generator)
    return {"$schema": _DIALECT, **schema, "title": "Tiergate settings"}


def hidden(settings: Settings) -> dict[str, Any]:
    """Give the settings as JSON data, every secret as `…last4`, or `…` where it is short."""
    return settings.model_dump(mode="json")


def reference_markdown() -> str:
    """Write the reference page: one table row for each setting."""
    return _HEAD + "".join(_row(path, field) for path, field in _fields(Settings, ()))


def _row(path: tuple[str, ...], field: FieldInfo) -> str:
    cells = (f"`{'.'.join(path)}`", _kind(field), _default(field), _said(path, field))
    return "| " + " | ".join(_escaped(cell) for cell in cells) + " |\n"


class _Generator(GenerateJsonSchema):
    """Writes defaults as the file would have them, and no titles, which would only repeat the names."""

    def encode_default(self, dft: Any) -> Any:
        match dft:
            case str() | Path():
                return str(dft)
            case Decimal():
                return float(dft)
            case _:
                return super().encode_default(dft)

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        """Refuse names that do not fit the pattern; pydantic would let them hold anything."""
        written = super().dict_schema(schema)
        for pattern, inner in written.pop("patternProperties", {}).items():
            written |= {"propertyNames": {"pattern": pattern}, "additionalProperties": inner}
        return written

    def field_title_should_be_set(self, schema: object) -> bool:
        return False


def _fields(model: type[BaseModel], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    for name, field in walk.names(model).items():
        annotation, _ = walk.of_field(field)
        section, suffix = _section(annotation)
        yield (*path, name), field
        if section is not None:
            yield from _fields(section, (*path, name + suffix[0], *suffix[1:]))


def _section(annotation: Any) -> tuple[type[BaseModel] | None, tuple[str, ...]]:
    """Give the section inside a field, and how a path goes on to it."""
    inner = walk.items(annotation)
    if inner is None:
        return walk.model_of(annotation), ("",)
    section = walk.model_of(walk.bare(inner)[0])
    return section, ("[]",) if walk.is_list(annotation) else ("", "NAME")


def _kind(field: FieldInfo) -> str:
    annotation, scalar = walk.of_field(field)
    if scalar is not None:
        return scalar.label
    inner = walk.items(annotation)
    if inner is None:
        return " | ".join(walk.choices(annotation)) or "section"
    return ("list of " if walk.is_list(annotation) else "by name: ") + _inner_kind(inner)


def _inner_kind(annotation: Any) -> str:
    inner, scalar = walk.bare(annotation)
    return scalar.label if scalar is not None else "sections" if walk.model_of(inner) else str(inner)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "*required*"
    _, scalar = walk.of_field(field)
    return _shown(field.get_default(call_default_factory=True), scalar)


def _shown(value: Any, scalar: Scalar | None) -> str:
    match value:
        case None:
            return "none"
        case BaseModel():
            return ""
        case bool():
            return f"`{str(value).lower()}`"
        case float():
            return f"`{duration_text(value)}`" if scalar is _DURATION else f"`{value:g}`"
        case tuple():
            return f"`[{', '.join(f'{item:g}' for item in value)}]`"
        case dict():
            return "`{}`"
        case Path():
            return f"`./{value}`"
        case _:
            return f"`{value}`"


def _said(path: tuple[str, ...], field: FieldInfo) -> str:
    rows = rows_for(tuple("*" if name == "NAME" else name for name in path))
    return " ".join([field.description or "", *(f"*Not yet:* {row.sentence}." for row in rows)])


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
