"""Receipts: what an `Idempotency-Key` stands for, so that a question asked twice is paid for once.

A receipt belongs to one key of the gateway and one endpoint. It is kept as keyed hashes, and under it the
answer, for a day. `judge` says what a call that brings a receipt may do; what calls in flight share is the
business of `serve`.
"""

import hmac
from hashlib import blake2b
from typing import Final

import msgspec

from tiergate.core import (
    AnswerNotKept,
    Call,
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    derived,
)
from tiergate.ledger.states import ReceiptState

_PURPOSE: Final = b"tiergate receipts 1"
_SEPARATOR: Final = b"\x00"


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """Names a question: `key`, `endpoint` and `hash` say which receipt, `fingerprint` says of what."""

    tenant: str
    key: str
    endpoint: str
    hash: bytes
    """Of the tenant and its `Idempotency-Key`, 32 bytes: a key that changes its team begins anew."""
    fingerprint: bytes
    """Of the question, 32 bytes."""
    since_ns: int
    """A receipt of an earlier call is over."""

    @property
    def scope(self) -> tuple[str, str, bytes]:
        """What no two questions may share."""
        return self.key, self.endpoint, self.hash


class ReceiptEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A receipt as read back from the store."""

    state: ReceiptState
    fingerprint: bytes
    call_id: str
    """The call that paid, or pays."""
    created_ns: int
    reply: bytes | None
    """The answer, where it was kept."""


class Fresh(msgspec.Struct, frozen=True):
    """Ask. `resent_of`: the call that asked before and lapsed, if there is one."""

    resent_of: str | None = None


class Answered(msgspec.Struct, frozen=True):
    """Do not ask: here is the answer, and the call that paid for it."""

    call_id: str
    created_ns: int
    reply: bytes


class ReceiptMaker:
    """Makes receipts. `secret`: the house's; hashes of different houses have nothing in common."""

    def __init__(self, secret: str) -> None:
        self._key = derived(secret.encode(), _PURPOSE)

    def receipt(self, call: Call, question: bytes, *, kept_s: float) -> Receipt:
        """Make the receipt of a call that brings an `Idempotency-Key`.

        `kept_s`: for how long one is good. `question`: its body, written in one way only. Class and data
        class count too: what was asked for in private must not be answered by what was not.
        """
        assert call.idempotency_key is not None
        tenant = call.caller.partition
        told = _SEPARATOR.join((call.data_class.encode(), call.call_class.encode(), question))
        return Receipt(
            tenant=tenant,
            key=call.caller.key,
            endpoint=call.endpoint,
            hash=self._hash(b"key", _SEPARATOR.join((tenant.encode(), call.idempotency_key.encode()))),
            fingerprint=self._hash(b"question", told),
            since_ns=call.received_ns - int(kept_s * 1e9),
        )

    def _hash(self, what: bytes, data: bytes) -> bytes:
        return blake2b(data, key=self._key, digest_size=32, person=what).digest()


def judge(receipt: Receipt, found: ReceiptEntry | None) -> Fresh | Answered:
    """Say what a call may do whose receipt was looked up.

    Raises:
        IdempotencyKeyReused: the receipt is of another question.
        AnswerNotKept: there was an answer, and it is gone.
        IdempotencyKeyInUse: somebody is asking.
    """
    if found is None or found.state is ReceiptState.FREED:
        return Fresh()
    compare(receipt, found.fingerprint)
    match found.state:
        case ReceiptState.UNKNOWN:
            return Fresh(resent_of=found.call_id)
        case ReceiptState.RUNNING:
            raise IdempotencyKeyInUse(
                "Another process of this gateway is answering this question now. Send it again shortly, with "
                "the same Idempotency-Key, for its answer."
            )
        case ReceiptState.DONE:
            if found.reply is None:
                raise AnswerNotKept(
                    f"This question was answered, as call {found.call_id}, and the answer was too long to be "
                    "kept. Send another Idempotency-Key to ask, and to pay, again."
                )
            return Answered(call_id=found.call_id, created_ns=found.created_ns, reply=found.reply)


def compare(receipt: Receipt, fingerprint: bytes) -> None:
    """Check that a receipt is of the same question.

    Raises:
        IdempotencyKeyReused: it is not.
    """
    if not hmac.compare_digest(receipt.fingerprint, fingerprint):
        raise IdempotencyKeyReused(
            "This Idempotency-Key was sent before with another question. Send a new key with each new "
            "question, and the same key only to ask the very same again."
        )
