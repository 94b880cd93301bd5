"""An answer at rest: what is kept of one for the next caller who asks the same, in bytes and back."""

from typing import Final

import msgspec

from tiergate.core import Chunk, Target, Usage, UsageSource

KEPT_BYTES_MAX: Final = 1024 * 1024
"""Longer answers are not kept: the store refuses them, too."""


class KeptAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A complete answer, and what it cost whoever paid; `cash_nanos`: None while the price is unknown."""

    target: Target
    usage: Usage
    source: UsageSource
    cash_nanos: int | None
    chunks: tuple[Chunk, ...]


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(KeptAnswer).decode


def write_kept(answer: KeptAnswer) -> bytes | None:
    """Give an answer's bytes; None: they are too many."""
    written = _encode(answer)
    return written if len(written) <= KEPT_BYTES_MAX else None


def read_kept(data: bytes) -> KeptAnswer | None:
    """Read an answer back; None: another version wrote it, in a form that this one does not know."""
    try:
        return _decode(data)
    except msgspec.MsgspecError:
        return None
