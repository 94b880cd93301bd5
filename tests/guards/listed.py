"""The list of guards: what each keeps out, how it is taken away, and the test that notices.

One file for each room that holds guards, in TOML. A guard is a piece of source text of that room; its
mutant is what stands there without it.
"""

import ast
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
SOURCES: Final = "src/tiergate"
_FOLDER: Final = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """One guard. Texts of several lines are written without the indentation that their first line has."""

    row: str
    """Rows of the fault matrix, of the security checklist or invariants; a word where none fits."""
    what: str
    """A sentence: what holds as long as the guard stands."""
    file: str
    """Below `src/tiergate`."""
    source: str
    mutant: str
    test: str
    """The pytest id; without a case in brackets, all cases of the function."""

    @property
    def path(self) -> str:
        """The file, from the root of the repository."""
        return f"{SOURCES}/{self.file}"

    def places_in(self, text: str) -> list[int]:
        """Give where the source text begins in a file's text."""
        first = self.source.partition("\n")[0]
        starts = []
        start = text.find(first)
        while start >= 0:
            if text.startswith(_indented(self.source, _indentation(text, start)), start):
                starts.append(start)
            start = text.find(first, start + 1)
        return starts

    def taken_from(self, text: str) -> str:
        """Give a file's text without the guard, which must stand in it once."""
        (start,) = self.places_in(text)
        indentation = _indentation(text, start)
        rest = text[start + len(_indented(self.source, indentation)) :]
        return text[:start] + _indented(self.mutant, indentation) + rest


def guards() -> list[Guard]:
    """Read the whole list, room by room."""
    return [
        Guard(**{field: text.strip("\n") for field, text in entry.items()})
        for path in sorted(_FOLDER.glob("*.toml"))
        for entry in tomllib.loads(path.read_text())["guard"]
    ]


def names_of_tests(source: str) -> Iterator[str]:
    """Give the names of the test functions of a file."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield node.name


def _indentation(text: str, at: int) -> str:
    line = text[text.rfind("\n", 0, at) + 1 :]
    return line[: len(line) - len(line.lstrip(" "))]


def _indented(text: str, indentation: str) -> str:
    first, *others = text.split("\n")
    return "\n".join([first, *(indentation + line if line else line for line in others)])
