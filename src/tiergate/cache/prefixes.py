"""How a prompt begins, as keyed hashes: so that it can be told how much of it was there before, and not what.

A hash stands for everything up to the end of a message. Kept are that of the messages which lead the others
(system, developer), which many conversations share, and those of the last ones, where the next turn goes on.
"""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from tiergate.wire import dumps

KEPT_MAX: Final = 8
_HASH_BYTES: Final = 6
_SIZE_BYTES: Final = 2
_UNIT: Final = 64
_SIZE_MAX: Final = (1 << 8 * _SIZE_BYTES) - 1
_LEADING: Final = ("system", "developer")


class Prefix(NamedTuple):
    """A beginning of a prompt: its keyed hash, and how long it is, in bytes to the next 64 below."""

    hash: bytes
    bytes: int


def write_prefixes(body: Mapping[str, Any], entry: str, key: bytes) -> bytes | None:
    """Hash the beginnings of a prompt; None: it has no messages.

    Args:
        body: of the request.
        entry: the model: what one keeps is of no use to another.
        key: of the tenant, at most 64 bytes.
    """
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        return None
    hashed = blake2b(dumps([entry, body.get("tools")]), key=key, digest_size=_HASH_BYTES)
    size = 0
    found: list[bytes] = []
    for message in messages:
        told = dumps(message)
        size += len(told)
        hashed.update(len(told).to_bytes(8, "big") + told)
        found.append(hashed.copy().digest() + min(size // _UNIT, _SIZE_MAX).to_bytes(_SIZE_BYTES, "big"))
    return b"".join(_chosen(found, _leading(messages)))


def read_prefixes(data: bytes) -> list[Prefix]:
    """Read them back, the shortest first."""
    step = _HASH_BYTES + _SIZE_BYTES
    found = (data[at : at + step] for at in range(0, len(data) - step + 1, step))
    return [Prefix(one[:_HASH_BYTES], int.from_bytes(one[_HASH_BYTES:], "big") * _UNIT) for one in found]


def _leading(messages: Sequence[Any]) -> int:
    """Count the messages that lead the others."""
    for number, message in enumerate(messages):
        if not (isinstance(message, dict) and message.get("role") in _LEADING):
            return number
    return len(messages)


def _chosen(found: Sequence[bytes], leading: int) -> Sequence[bytes]:
    last = found[-KEPT_MAX:]
    is_beyond = 0 < leading <= len(found) - KEPT_MAX
    return [found[leading - 1], *last[1:]] if is_beyond else last
