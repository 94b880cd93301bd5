"""An answer at rest: what is kept of one for the next caller who asks the same, in bytes and back."""

from typing import Final

import msgspec

from tiergate.core import AnswerNotKept, CacheSaid, Chunk, Target, Usage, UsageSource
from tiergate.ledger import Answered
from tiergate.metering import Account

KEPT_BYTES_MAX: Final = 1024 * 1024
"""Longer answers are not kept: the store refuses them, too."""


class KeptAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A complete answer, and what it cost whoever paid; `cash_nanos`: None while the price is unknown."""

    target: Target
    usage: Usage
    source: UsageSource
    cash_nanos: int | None
    chunks: tuple[Chunk, ...]


class Recalled(msgspec.Struct, frozen=True, kw_only=True):
    """An answer that was there before: nothing was asked for it."""

    call_id: str
    """Of the call that paid."""
    created_ns: int
    """When that was asked, or its answer kept: nanoseconds since 1970."""
    target: Target
    account: Account
    chunks: tuple[Chunk, ...]
    said: CacheSaid | None = None
    """Where it comes from the cache; None: by a receipt."""


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(KeptAnswer).decode


def write_kept(answer: KeptAnswer) -> bytes | None:
    """Give an answer's bytes; None: they are too many."""
    written = _encode(answer)
    return written if len(written) <= KEPT_BYTES_MAX else None


def read_answered(found: Answered) -> Recalled:
    """Read back what a receipt says was answered.

    Raises:
        AnswerNotKept: it cannot be read any more.
    """
    kept = read_kept(found.reply)
    if kept is None:
        raise AnswerNotKept(
            f"This question was answered, as call {found.call_id}, and that answer cannot be read any "
            "more. Send another Idempotency-Key to ask, and to pay, again."
        )
    return Recalled(
        call_id=found.call_id,
        created_ns=found.created_ns,
        target=kept.target,
        account=Account(usage=kept.usage, source=kept.source, cash_nanos=kept.cash_nanos),
        chunks=kept.chunks,
    )


def read_kept(data: bytes) -> KeptAnswer | None:
    """Read an answer back; None: another version wrote it, in a form that this one does not know."""
    try:
        return _decode(data)
    except msgspec.MsgspecError:
        return None
