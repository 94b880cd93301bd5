"""JSON in and out: one parse and one dump for each body, and no two readings of the same bytes.

msgspec does both (docs/decisions/0003-json.md). What it accepts is stricter than JSON needs to be in four
ways: no duplicate keys, no NaN or infinity, no lone surrogates, and bounded depth.
"""

import json
from typing import Any, Final

import msgspec

from tiergate.core import InvalidRequest

DEPTH_MAX: Final = 64
"""Deepest nesting of a request. Tool schemas of real clients stay under 20."""

_decode: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder(decimal_format="number").encode
_encode_sorted: Final = msgspec.json.Encoder(decimal_format="number", order="deterministic").encode
_BAD_JSON: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def dumps(value: object) -> bytes:
    """Write a value as compact JSON; Decimals as numbers."""
    return _encode(value)


def canonical(value: object) -> bytes:
    """Write a value as compact JSON in one way only: the same whatever order its keys came in.

    >>> canonical({"b": 1, "a": 2})
    b'{"a":2,"b":1}'
    """
    return _encode_sorted(value)


def verbatim(data: bytes) -> msgspec.Raw:
    """Give JSON that is written as it is, where it stands in a larger value."""
    return msgspec.Raw(data)


def loads(data: bytes) -> Any:
    """Read JSON that somebody else wrote.

    Raises:
        ValueError: it is not JSON.
    """
    try:
        return _decode(data)
    except _BAD_JSON as error:
        raise ValueError(str(error)) from error


def read_object(data: bytes) -> dict[str, Any]:
    """Read a request body: one JSON object, each key once in its object, at most `DEPTH_MAX` deep.

    Raises:
        InvalidRequest: says what is wrong with it.
    """
    try:
        value = _decode(data)
    except RecursionError as error:
        raise _too_deep() from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"The body is not valid JSON: {_reason(error)}.") from error
    if not isinstance(value, dict):
        raise InvalidRequest("The body must be a JSON object.")
    if data.count(b"{") + data.count(b"[") > DEPTH_MAX and _depth(value) > DEPTH_MAX:
        raise _too_deep()
    if _encode(value) != data:
        _refuse_duplicates(data)
    return value


def _refuse_duplicates(data: bytes) -> None:
    # A body that we would write the same way has no duplicate key, and most clients write as we do. Any
    # other spelling is parsed once more, by a parser that shows every pair.
    json.loads(data, object_pairs_hook=_object_without_duplicates)


def _object_without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise InvalidRequest(f"The key {key[:100]!r} stands twice in the same object; send it once.")
        found[key] = value
    return found


def _depth(value: object) -> int:
    deepest = 0
    waiting = [(value, 1)]
    while waiting:
        item, depth = waiting.pop()
        deepest = max(deepest, depth)
        inner = item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
        waiting.extend((child, depth + 1) for child in inner if isinstance(child, dict | list))
    return deepest


def _too_deep() -> InvalidRequest:
    return InvalidRequest(f"The body is nested deeper than {DEPTH_MAX} levels.")


def _reason(error: Exception) -> str:
    # msgspec's sentences name positions, never the text of the body; a Unicode error would quote it, and
    # counts from the beginning of the string that it stands in.
    if isinstance(error, UnicodeDecodeError):
        return "it holds bytes that are not UTF-8"
    return str(error).rstrip(".")
