"""SQL for PostgreSQL: its own statements, and where it has none those of the SQLite store."""

import re
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Final

from tiergate.store import statements as shared

_BY_NAME: Final = re.compile(r"(?<![:\w]):([a-z_][a-z0-9_]*)\b")


@cache
def statements(file: str) -> Mapping[str, bytes]:
    """Give the statements of a file by their names, with the placeholders of psycopg."""
    found = {**shared.statements(file), **shared.statements(file, "tiergate.store.postgres")}
    return MappingProxyType({name: translated(text).encode() for name, text in found.items()})


def translated(text: str) -> str:
    """Give a statement with the placeholders of psycopg.

    >>> translated("SELECT a::text, 7 % 2 FROM b WHERE c = :c AND d = ?")
    'SELECT a::text, 7 %% 2 FROM b WHERE c = %(c)s AND d = %s'
    """
    return _BY_NAME.sub(r"%(\1)s", text.replace("%", "%%")).replace("?", "%s")
