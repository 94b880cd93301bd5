"""Prompt templates: `Translate: {text}`, where a name in braces stands for a field of the row.

Names are looked up and nothing else: no attribute, no index, no format, whatever stands in the braces. What
is put in is not read again.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tiergate.core import CannotStart
from tiergate.wire import dumps

_MARK: Final = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_NAME_MAX: Final = 40
_NAMES_MAX: Final = 300


@dataclass(frozen=True, slots=True)
class Template:
    """A template that was read: texts and names in turns, a text first and last."""

    texts: tuple[str, ...]
    names: tuple[str, ...]

    def missing(self, fields: Mapping[str, Any]) -> str | None:
        """Give the first name that is none of the fields."""
        return next((name for name in self.names if name not in fields), None)

    def fill(self, fields: Mapping[str, Any]) -> str:
        """Put the fields in: texts as they are, null as nothing, anything else as compact JSON."""
        filled = [self.texts[0]]
        for name, text in zip(self.names, self.texts[1:], strict=True):
            filled += (_written(fields[name]), text)
        return "".join(filled)


def read_template(text: str) -> Template:
    """Read a template; `{{` and `}}` stand for braces.

    Raises:
        CannotStart: a brace that is neither, or no name at all.
    """
    texts, names = [""], []
    at = 0
    for mark in _MARK.finditer(text):
        texts[-1] += text[at : mark.start()]
        at = mark.end()
        if mark[0] in ("{{", "}}"):
            texts[-1] += mark[0][0]
        elif mark[1]:
            names.append(mark[1])
            texts.append("")
        else:
            raise CannotStart(
                f"The prompt template has a {mark[0]!r} at character {mark.start() + 1} that belongs to no "
                "name. Write {name} for a field of the rows, {{ and }} for braces."
            )
    texts[-1] += text[at:]
    if not names:
        raise CannotStart(
            "The prompt template names no field, so every row would ask the same. Write {name} where a field "
            "of the rows belongs."
        )
    return Template(tuple(texts), tuple(names))


def listed(names: Iterable[str]) -> str:
    """Write names of fields for a message, in quotes: not all of many, and of a long one its beginning."""
    shown: list[str] = []
    left = _NAMES_MAX
    names = list(names)
    for name in names:
        left -= len(name[:_NAME_MAX])
        if left < 0:
            return f"{', '.join(shown)} and {len(names) - len(shown)} more"
        shown.append(repr(name[:_NAME_MAX]))
    return ", ".join(shown) or "no fields"


def _written(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else dumps(value).decode()
