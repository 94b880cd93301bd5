"""A settings text as a tree of YAML in which every value keeps its line and column.

Only plain YAML is read: no tags, one document, few aliases, bounded in size and depth. All scalars stay
text; what they mean is for the settings to say.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from yaml import MappingNode, Node, ScalarNode, SequenceNode
from yaml.error import Mark

from tiergate.config.compose import DEEPEST, NULL, compose, line_column
from tiergate.config.environment import fill, is_unicode
from tiergate.config.problems import Path, Problem, path_text
from tiergate.core import SettingsError

LARGEST_BYTES: Final = 1_048_576
MOST_VALUES: Final = 100_000

_PLAIN_TAGS: Final = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("null", "str", "seq", "map"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Filling:
    """The data of a document with its variables filled in.

    Attributes:
        data: mappings, lists, texts and None. Where something was wrong it holds a stand-in.
        problems: what was wrong.
        unfilled: where variables are missing; what else is said about these places means nothing.
    """

    data: dict[str, Any]
    problems: tuple[Problem, ...]
    unfilled: tuple[Path, ...]


class Document:
    """A settings text, read."""

    def __init__(self, text: str, root: Node | None) -> None:
        self._text = text
        self._root = root

    def fill(self, environ: Mapping[str, str]) -> Filling:
        """Give the data, each value with its variables filled in."""
        if self._root is None:
            return Filling(data={}, problems=(), unfilled=())
        walk = _Walk(self._text, environ)
        data = walk.data(self._root, (), 0)
        if not isinstance(data, dict):
            walk.say(self._root.start_mark, (), "the file needs to hold settings as `name: value` lines")
            return Filling(data={}, problems=tuple(walk.problems), unfilled=((),))
        return Filling(data=data, problems=tuple(walk.problems), unfilled=tuple(walk.unfilled))

    def problem(self, path: Path, sentence: str, *, at_key: bool = False) -> Problem:
        """Place a sentence: at the value of a path, at its name, or at the nearest that is there."""
        mark = self._mark(path, at_key=at_key)
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        return Problem(line=line, column=column, path=path_text(path), sentence=sentence)

    def written(self, path: Path) -> str | None:
        """Give a value as the file has it, variables not filled in; None where it is no text."""
        _, node, rest = self._find(path)
        return node.value if isinstance(node, ScalarNode) and not rest and not _is_null(node) else None

    def _find(self, path: Path) -> tuple[Node | None, Node | None, Path]:
        """Follow a path; give the name and the value reached, and what is left of the path."""
        key, node = None, self._root
        for done, part in enumerate(path):
            step = _step(node, part)
            if step is None:
                return key, node, path[done:]
            key, node = step
        return key, node, ()

    def _mark(self, path: Path, *, at_key: bool) -> Mark | None:
        key, node, rest = self._find(path)
        whole = not isinstance(node, ScalarNode)  # A mapping or a list is pointed at by its name.
        if (at_key or rest or whole) and key is not None:
            return key.start_mark
        return node.start_mark if node is not None and path else None


def read(text: str, name: str) -> Document:
    """Read a settings text.

    Args:
        text: YAML.
        name: how messages call it.

    Raises:
        SettingsError: it is no plain YAML; names line and column and shows nothing of the text.
    """
    if len(text) > LARGEST_BYTES or len(text.encode(errors="surrogatepass")) > LARGEST_BYTES:
        raise SettingsError((f"{name}: is larger than 1 MiB, which no settings file needs to be",))
    found = compose(text)
    if isinstance(found, Problem):
        raise SettingsError((found.text(name),))
    return Document(text, found)


# --- from nodes to data ---------------------------------------------------------------------------------


class _Walk:
    """One pass over the tree: makes the data and collects everything that is wrong on the way."""

    def __init__(self, text: str, environ: Mapping[str, str]) -> None:
        self.problems: list[Problem] = []
        self.unfilled: list[Path] = []
        self._text = text
        self._environ = environ
        self._values = 0
        self._overgrown = False

    def say(self, mark: Mark, path: Path, sentence: str) -> None:
        self.problems.append(
            Problem(line=mark.line + 1, column=mark.column + 1, path=path_text(path), sentence=sentence)
        )

    def data(self, node: Node, path: Path, depth: int) -> Any:
        self._values += 1
        if depth > DEEPEST or self._values > MOST_VALUES:
            if not self._overgrown:
                self.say(node.start_mark, path, "is nested too deep, or the file holds too many values")
            self._overgrown = True
            return None
        if node.tag not in _PLAIN_TAGS:
            self.say(
                node.start_mark, path, "has a YAML tag (!…): tags are not allowed; remove it, or use quotes"
            )
            self.unfilled.append(path)
            return None
        if isinstance(node, MappingNode):
            return {
                name: self.data(value, (*path, name), depth + 1) for name, value in self._names(node, path)
            }
        if isinstance(node, SequenceNode):
            return [self.data(value, (*path, index), depth + 1) for index, value in enumerate(node.value)]
        assert isinstance(node, ScalarNode)
        return None if _is_null(node) else self._filled(node, path)

    def _names(self, node: MappingNode, path: Path) -> Iterator[tuple[str, Node]]:
        seen: dict[str, Mark] = {}
        for key, value in node.value:
            mark = key.start_mark
            if not isinstance(key, ScalarNode) or key.tag not in _PLAIN_TAGS or not is_unicode(key.value):
                self.say(mark, path, "has a name that is not plain text")
            elif key.value == "<<":
                self.say(mark, path, "merges with <<: write the settings out")
            elif key.value in seen:
                first = seen[key.value].line + 1
                self.say(mark, (*path, key.value), f"is given twice, first in line {first}: remove one")
            else:
                seen[key.value] = mark
                yield key.value, value

    def _filled(self, node: ScalarNode, path: Path) -> str:
        written = _paired(node.value)
        filled = fill(written, self._environ)
        for index, sentence in filled.faults:
            self._say_inside(node, path, index, sentence)
        if not is_unicode(written):
            self.say(node.start_mark, path, "holds half of a surrogate pair, which is no character")
            self.unfilled.append(path)
            return ""
        if filled.faults:
            self.unfilled.append(path)
            return written
        return filled.text

    def _say_inside(self, node: ScalarNode, path: Path, index: int, sentence: str) -> None:
        """Point at the reference itself: the n-th `${` of the value is the n-th `${` of the source."""
        nth = node.value.count("${", 0, index + 2)
        start, end = node.start_mark.index, node.end_mark.index
        found = start - 1
        for _ in range(nth):
            found = self._text.find("${", found + 1, end)
            if found < 0:  # Written with escapes, so that the source does not show it.
                return self.say(node.start_mark, path, sentence)
        line, column = line_column(self._text, found)
        self.problems.append(Problem(line=line, column=column, path=path_text(path), sentence=sentence))
        return None


def _step(node: Node | None, part: str | int) -> tuple[Node | None, Node] | None:
    if isinstance(node, MappingNode):
        return next(((key, value) for key, value in node.value if key.value == part), None)
    if isinstance(node, SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part]
    return None


def _paired(text: str) -> str:
    """Join surrogate pairs: JSON escapes characters above U+FFFF as two halves, PyYAML leaves them so."""
    if is_unicode(text):
        return text
    return text.encode("utf-16-le", errors="surrogatepass").decode("utf-16-le", errors="surrogatepass")


def _is_null(node: ScalarNode) -> bool:
    return node.tag == NULL and node.style is None and node.value in ("", "~", "null", "Null", "NULL")
