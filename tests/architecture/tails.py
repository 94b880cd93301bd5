"""The tails of the house: its ten longest functions and files, and the list that they are held against.

Beauty is lost in the tails first. Run `python tests/architecture/tails.py` to write `tails.txt` anew after a
change that was meant; the diff then shows it to whoever reviews.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
LISTED = Path(__file__).with_name("tails.txt")
LENGTH = 10
GROWTH_MAX = 1.25

Tail = dict[str, int]
"""Lines by name, longest first: `serve/handle.py` for a file, `serve/handle.py:handle` for a function."""


def measured() -> tuple[Tail, Tail]:
    """The longest functions and files as they are now, `LENGTH` of each."""
    functions: Tail = {}
    files: Tail = {}
    for path in sorted((ROOT / "src" / "tiergate").rglob("*.py")):
        name = path.relative_to(ROOT / "src" / "tiergate").as_posix()
        source = path.read_text()
        files[name] = len(source.splitlines())
        functions |= {f"{name}:{function}": lines for function, lines in _functions(ast.parse(source))}
    return _longest(functions), _longest(files)


def listed() -> tuple[Tail, Tail]:
    """The longest functions and files as they were when the list was written."""
    tails: tuple[Tail, Tail] = ({}, {})
    for line in LISTED.read_text().splitlines():
        if line and not line.startswith("#"):
            lines, name = line.split()
            tails[":" not in name][name] = int(lines)
    return tails


def grown(now: Tail, before: Tail) -> list[str]:
    """What has grown by more than a quarter, or is new and longer than the shortest listed by as much."""
    shortest = min(before.values())
    return [
        f"{name}: {lines} lines, allowed {int(allowed)}"
        for name, lines in now.items()
        if lines > (allowed := before.get(name, shortest) * GROWTH_MAX)
    ]


def _functions(tree: ast.AST, outer: str = "") -> Iterator[tuple[str, int]]:
    for node in ast.iter_child_nodes(tree):
        name = outer
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = f"{outer}.{node.name}".lstrip(".")
            if not isinstance(node, ast.ClassDef):
                assert node.end_lineno is not None
                yield name, node.end_lineno - node.lineno + 1
        yield from _functions(node, name)


def _longest(lines: Tail) -> Tail:
    order = sorted(lines.items(), key=lambda item: (-item[1], item[0]))
    return dict(order[:LENGTH])


def _write() -> None:
    functions, files = measured()
    rows = [f"{lines:4} {name}" for tail in (functions, files) for name, lines in tail.items()]
    LISTED.write_text(
        "# The longest functions and files, in lines. Written by tests/architecture/tails.py.\n"
        + "\n".join(rows)
        + "\n"
    )


if __name__ == "__main__":
    _write()
