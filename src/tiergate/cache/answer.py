"""An answer at rest: what is kept of one, in bytes that say of what they are the answer, and back."""

import zlib
from hashlib import blake2b
from typing import Final

import msgspec

from tiergate.core import Target, Usage, UsageSource
from tiergate.wire import FoldedAnswer

BYTES_MAX: Final = 1024 * 1024
"""Longer answers are not kept."""
_VERSION: Final = b"\x01"
_DIGEST_BYTES: Final = 8
_INFLATED_MAX: Final = 16 * 1024 * 1024
_LEVEL: Final = 1
"""Of compression: text shrinks to a third at once, and to little less with patience."""


class CachedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A complete answer, whose it is, and what it cost whoever paid."""

    key: bytes
    """Of the question that it answers."""
    entry: str
    """The model, as the settings know it."""
    call_id: str
    """Of the call that paid."""
    target: Target
    """Who gave it."""
    answer: FoldedAnswer
    usage: Usage
    source: UsageSource
    cash_nanos: int | None
    """None: nobody knows."""
    kept_ns: int
    """Wall time when it was complete, in nanoseconds since 1970."""

    def age_s(self, now_ns: int) -> float:
        """Give how old it is; a clock that was put back makes nothing younger than new."""
        return max(0.0, (now_ns - self.kept_ns) / 1e9)


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(CachedAnswer).decode


def write_cached(answer: CachedAnswer) -> bytes | None:
    """Give its bytes: version, checksum, compressed record; None: they are too many, or cannot be written."""
    try:
        packed = zlib.compress(_encode(answer), _LEVEL)
    except (msgspec.MsgspecError, OverflowError, RecursionError, ValueError):
        # A number of more than 64 bits, say, in a field that nobody has heard of.
        return None
    written = _VERSION + _checksum(packed) + packed
    return written if len(written) <= BYTES_MAX else None


def read_cached(data: bytes, key: bytes) -> CachedAnswer | None:
    """Read it back; None: it is not what it should be, or not the answer to this question."""
    at = len(_VERSION) + _DIGEST_BYTES
    packed = data[at:]
    if data[: len(_VERSION)] != _VERSION or data[len(_VERSION) : at] != _checksum(packed):
        return None
    try:
        unpacker = zlib.decompressobj()
        plain = unpacker.decompress(packed, _INFLATED_MAX)
        if not unpacker.eof:
            return None
        answer = _decode(plain)
    except (zlib.error, msgspec.MsgspecError):
        return None
    return answer if answer.key == key else None


def _checksum(packed: bytes) -> bytes:
    return blake2b(packed, digest_size=_DIGEST_BYTES).digest()
