"""SQL out of `.sql` files: named statements, read once from the package."""

import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Final

_NAME: Final = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_ROW: Final = re.compile(r"(?<=\bVALUES )\((?:[^()]|\([^()]*\))*\)")
_COMMENT: Final = re.compile(r"^\s*--.*$", re.MULTILINE)


@cache
def statements(file: str, package: str = "tiergate.store") -> Mapping[str, str]:
    """Give the statements of a package's `sql/<file>.sql` by their names; none where there is no such file.

    A statement begins after a line `-- name: word` and ends with a semicolon; other comments are dropped.
    """
    found = resources.files(package).joinpath("sql", f"{file}.sql")
    return MappingProxyType(parse(found.read_text(encoding="utf-8")) if found.is_file() else {})


@cache
def of_rows(statement: str, count: int) -> str | None:
    """Give a statement of one row of VALUES as one of so many; None: it has no such row.

    >>> of_rows("INSERT INTO a VALUES (?, zeroblob(9)) ON CONFLICT DO NOTHING", 2)
    'INSERT INTO a VALUES (?, zeroblob(9)), (?, zeroblob(9)) ON CONFLICT DO NOTHING'
    """
    row = _ROW.search(statement)
    if row is None:
        return None
    return statement[: row.start()] + ", ".join([row[0]] * count) + statement[row.end() :]


def parse(text: str) -> dict[str, str]:
    r"""Split a file of named statements.

    >>> parse("-- name: one\nSELECT 1;\n")
    {'one': 'SELECT 1'}
    """
    _, *parts = _NAME.split(text)
    found: dict[str, str] = {}
    for name, body in zip(parts[::2], parts[1::2], strict=True):
        statement, semicolon, rest = _COMMENT.sub("", body).strip().partition(";")
        assert semicolon and statement, f"the statement {name!r} does not end with a semicolon"
        assert not rest.strip(), f"more than one statement under the name {name!r}"
        assert name not in found, f"two statements are named {name!r}"
        found[name] = statement
    return found
