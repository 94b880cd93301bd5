"""Columns of rows as array literals of PostgreSQL; the driver's own way to write them costs far more."""

from collections.abc import Iterable
from typing import Any


def array(column: Iterable[Any]) -> str:
    r"""Write numbers, truth values, texts, bytes and None as one array.

    >>> print(array([1, None, True]), array(['a "b" \\', "NULL"]), array([b"ab"]))
    {1,NULL,True} {"a \"b\" \\","NULL"} {"\\x6162"}
    """
    return "{" + ",".join([_element(value) for value in column]) + "}"


def _element(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return f'"\\\\x{value.hex()}"'
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    assert isinstance(value, int), "rows of the ledger hold nothing else"
    return str(value)
