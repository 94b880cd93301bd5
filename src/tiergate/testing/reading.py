"""Reading mappings into the fields of a dataclass, with errors that name the key."""

from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, get_type_hints

import msgspec

from tiergate.core import SettingsError


def read_fields(kind: type, given: object, where: str, *, lenient: bool = False) -> dict[str, Any]:
    """Give the values for the fields of `kind`, each of the type that the field has.

    Args:
        kind: a dataclass.
        given: what the file holds; anything but a mapping is an error.
        where: what the mapping is called in error messages.
        lenient: take `"3"` for a number, as one that was typed into a message.

    Raises:
        SettingsError: one sentence for each key that is unknown or wrong.
    """
    if not isinstance(given, Mapping):
        raise SettingsError((f"{where}: must hold keys and values, not {_named(given)}",))
    types = _types(kind)
    values: dict[str, Any] = {}
    problems: list[str] = []
    for key, value in given.items():
        if key not in types:
            problems.append(f"{where}: unknown key {str(key)!r}{_nearest(str(key), list(types))}")
            continue
        try:
            values[key] = msgspec.convert(value, types[key], strict=not lenient)
        except msgspec.ValidationError as error:
            problems.append(f"{where}.{key}: {error}")
    if problems:
        raise SettingsError(tuple(problems))
    return values


def _nearest(key: str, known: list[str]) -> str:
    found = get_close_matches(key, known, n=1)
    return f"; did you mean {found[0]!r}?" if found else f"; known keys: {', '.join(known)}"


def _named(value: object) -> str:
    return "nothing" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"


@lru_cache(maxsize=16)
def _types(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in fields(kind)}
