"""Sentences about places of a settings file."""

from dataclasses import dataclass
from typing import TypeAlias

Path: TypeAlias = tuple[str | int, ...]
"""A place in the settings: names, and numbers of list entries from 0."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Problem:
    """One sentence about one place of the file; line and column count from 1."""

    line: int
    column: int
    path: str
    sentence: str

    def text(self, name: str) -> str:
        """Write it as `tiergate.yaml:12:5: providers.rack.tier: …`."""
        return f"{name}:{self.line}:{self.column}: " + (f"{self.path}: " if self.path else "") + self.sentence


def path_text(path: Path) -> str:
    """Write a place as `providers.rack.api_keys[0]`, printable whatever the names hold."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + _printable(part)
    return text


def _printable(name: str) -> str:
    if len(name) > 64:
        return f"(a name of {len(name)} characters)"
    return name if name.isprintable() and name else ascii(name)
