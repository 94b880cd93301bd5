"""Composes a settings text into YAML nodes, bounded in depth and aliases, or says where it is no YAML."""

import re
from typing import Any, Final

from yaml import MarkedYAMLError, Node, YAMLError
from yaml.composer import Composer
from yaml.error import Mark
from yaml.events import AliasEvent
from yaml.parser import Parser
from yaml.reader import Reader, ReaderError
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

from tiergate.config.problems import Problem

DEEPEST: Final = 32
MOST_ALIASES: Final = 64
NULL: Final = "tag:yaml.org,2002:null"


def compose(text: str) -> Node | Problem | None:
    """Give the root node of a text, None where it is empty, or why it is no YAML."""
    try:
        composer = _Composer(text)
    except ReaderError as error:
        line, column = line_column(text, error.position)
        return Problem(
            line=line, column=column, path="", sentence="holds a character that YAML does not allow"
        )
    try:
        return composer.get_single_node()
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark or composer.get_mark()
        return _syntax(text, mark, error.problem or "is no YAML")
    except (YAMLError, ValueError, OverflowError):  # chr() of an escape such as "\UFFFFFFFF" is not guarded
        return _syntax(text, composer.get_mark(), "is no YAML: look for a wrong escape")
    finally:
        composer.dispose()


class _Composer(Reader, Scanner, Parser, Composer, BaseResolver):
    """PyYAML without its constructors: it cannot make anything but nodes, and only so deep."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        BaseResolver.__init__(self)
        self._depth = 0
        self._aliases = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        if self.check_event(AliasEvent):
            self._aliases += 1
        self._depth += 1
        if self._depth > DEEPEST or self._aliases > MOST_ALIASES:
            what = (
                "is nested too deep" if self._depth > DEEPEST else f"holds more than {MOST_ALIASES} aliases"
            )
            raise MarkedYAMLError(problem=what, problem_mark=self.get_mark())
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


_Composer.add_implicit_resolver(NULL, re.compile(r"(?:~|null|Null|NULL|)\Z"), ["~", "n", "N", ""])


_QUOTED: Final = re.compile(r"'([^']*)'|\"([^\"]*)\"")


def _without_text(match: re.Match[str]) -> str:
    """Keep what PyYAML quotes of its own words and single characters, drop pieces of the file."""
    quoted = match[1] or match[2] or ""
    return match[0] if len(quoted) <= 1 or quoted.startswith(("<", "\\")) else "…"


def _syntax(text: str, mark: Mark, said: str) -> Problem:
    """Say what PyYAML said, without the piece of text that it quotes: it may be a secret."""
    without = _QUOTED.sub(_without_text, said).replace("\n", " ")
    shown = without if without.isprintable() else "is no YAML"
    lines = text.splitlines()
    around = "\n".join(lines[max(0, mark.line - 1) : mark.line + 1])
    return Problem(line=mark.line + 1, column=mark.column + 1, path="", sentence=shown + _hint(around, said))


_HINTS: Final = (
    ("document", "a settings file is one document, without --- in the middle"),
    ("cannot start any token", "put a value that begins with a special character in quotes"),
    ("alias", "put a value that begins with * in quotes"),
    ("anchor", "put a value that begins with & in quotes"),
    ("alphabetic or numeric character", "put a value that begins with * or & in quotes"),
    ("mapping values", "look at the indentation, and put a value that holds a colon and a space in quotes"),
    ("could not find expected ':'", "a line here is `name: value`"),
    ("<block end>", "look at the indentation of this line"),
    ("end of stream", "a quote that was opened is never closed"),
)


def _hint(around: str, said: str) -> str:
    """Add what usually mends it; PyYAML speaks of tokens."""
    if "\\t" in said or "\t" in around:
        return "; indent with spaces, not with tabs"
    if "expected ','" in said and "${" in around:
        return '; inside [ ] and { } a variable needs quotes: "${NAME}"'
    return next((f"; {hint}" for words, hint in _HINTS if words in said), "")


def line_column(text: str, index: int) -> tuple[int, int]:
    """Give line and column, from 1, of a place in a text."""
    before = text[:index]
    return before.count("\n") + 1, index - (before.rfind("\n") + 1) + 1
