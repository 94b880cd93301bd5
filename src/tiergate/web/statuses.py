"""Errors as answers: the only place that knows status codes. Every answer has the OpenAI shape."""

from dataclasses import dataclass
from math import ceil
from random import random
from typing import Final

from tiergate.batch import NoSuchBatch
from tiergate.core import (
    AnswerNotKept,
    BudgetBusy,
    DeadlineExceeded,
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    InvalidKey,
    InvalidRequest,
    ModelNotFound,
    NoTargetAvailable,
    NotCached,
    RateLimited,
    Refusal,
    RequestTooLarge,
    StorageUnavailable,
    StoreOwned,
    TargetFull,
    TargetResting,
    TargetThrottled,
    TiergateError,
    Unaffordable,
    UpstreamAuthFailed,
    UpstreamError,
    UpstreamFault,
    UpstreamInterrupted,
    UpstreamProtocolError,
    UpstreamRejected,
    UpstreamThrottled,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from tiergate.serve import Stopping
from tiergate.web.visit import HostNotServed, UploadTooSlow
from tiergate.wire import write_error

RETRY_AFTER_S_MAX: Final = 60
"""Official clients give up, or sleep for all of it, on anything longer."""

_SPREAD: Final = 0.1
"""So much later at most is who was not let in told to come again: not all of them at one moment."""

_NAMELESS: Final = "The upstream"


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorAnswer:
    """An error ready to be sent: status, headers and the JSON object."""

    status: int
    code: str
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


class Unroutable(TiergateError):
    """No such endpoint, or not with this method; known only here, at the door."""

    code = "not_found"

    def __init__(self, message: str, *, status: int, allow: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.allow = allow


class DoorRefused(TiergateError):
    """The request line or a header is not acceptable: Host, Origin, content type, upgrade."""

    code = "invalid_request"

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


_STATUSES: Final[tuple[tuple[type[TiergateError], int, str], ...]] = (
    (HostNotServed, 421, "invalid_request_error"),
    (UploadTooSlow, 408, "invalid_request_error"),
    (RequestTooLarge, 413, "invalid_request_error"),
    (InvalidRequest, 400, "invalid_request_error"),
    (InvalidKey, 401, "authentication_error"),
    (IdempotencyKeyReused, 422, "invalid_request_error"),
    (IdempotencyKeyInUse, 409, "invalid_request_error"),
    (AnswerNotKept, 409, "invalid_request_error"),
    (ModelNotFound, 404, "invalid_request_error"),
    (NoSuchBatch, 404, "invalid_request_error"),
    (RateLimited, 429, "rate_limit_error"),
    (TargetFull, 429, "rate_limit_error"),
    (TargetResting, 503, "upstream_error"),
    (Unaffordable, 402, "budget_error"),
    (UpstreamThrottled, 429, "rate_limit_error"),
    (UpstreamTimeout, 504, "upstream_error"),
    (UpstreamAuthFailed, 502, "upstream_error"),
    (UpstreamUnreachable, 502, "upstream_error"),
    (UpstreamInterrupted, 502, "upstream_error"),
    (UpstreamProtocolError, 502, "upstream_error"),
    (UpstreamFault, 502, "upstream_error"),
    (NoTargetAvailable, 503, "upstream_error"),
    (DeadlineExceeded, 504, "upstream_error"),
    (NotCached, 504, "invalid_request_error"),
    (StorageUnavailable, 503, "server_error"),
    (StoreOwned, 503, "server_error"),
    (Stopping, 503, "server_error"),
)
"""First match wins, so a class stands before its base."""


def answer_to(error: TiergateError) -> ErrorAnswer:
    """Turn an error into what the caller is told."""
    status, kind = _status(error)
    code = error.code
    param = error.param if isinstance(error, InvalidRequest | UpstreamRejected) else None
    if isinstance(error, UpstreamRejected) and error.upstream_code:
        code = error.upstream_code
    return ErrorAnswer(
        status=status,
        code=code,
        headers=tuple(_headers(error, status)),
        body=write_error(sentence_of(error), type=kind, code=code, param=param),
    )


def event_of(error: TiergateError) -> bytes:
    """Give the error object that stands in a stream after content has been sent."""
    return answer_to(error).body


def refusal_of(error: TiergateError, answer: ErrorAnswer, endpoint: str) -> Refusal:
    """Give the event of a request that was refused before it became a call."""
    key, limit = (error.key, error.limit) if isinstance(error, RateLimited) else (None, None)
    return Refusal(endpoint=endpoint, code=answer.code, status=answer.status, key=key, limit=limit)


def _status(error: TiergateError) -> tuple[int, str]:
    if isinstance(error, Unroutable | DoorRefused):
        return error.status, "invalid_request_error"
    if isinstance(error, UpstreamRejected):
        # The provider's own 4xx: the official clients raise the class that belongs to it.
        return error.status or 400, "invalid_request_error"
    for kind, status, name in _STATUSES:
        if isinstance(error, kind):
            return status, name
    return 500, "server_error"


def sentence_of(error: TiergateError) -> str:
    """Say what happened and what to do, with what happened at the targets before."""
    if not isinstance(error, UpstreamError):
        return str(error)
    said = _named(str(error), error.target)
    earlier = "; ".join(f"{target}: {sentence}" for target, sentence in error.tried)
    return f"{said} Tried before: {earlier}" if earlier else said


def _named(sentence: str, target: str) -> str:
    """Put the target's name into a sentence by whoever reads bytes and does not know whose they are."""
    if not target or not sentence.startswith(_NAMELESS):
        return sentence
    return target + sentence.removeprefix(_NAMELESS)


def _headers(error: TiergateError, status: int) -> list[tuple[bytes, bytes]]:
    headers = []
    if isinstance(error, Unroutable) and error.allow:
        headers.append((b"allow", error.allow.encode()))
    if isinstance(error, NotCached):
        headers.append((b"cache-status", b"tiergate; detail=not-cached"))
    if isinstance(error, InvalidKey):
        headers.append((b"www-authenticate", b"Bearer"))
    wait_s = _wait_s(error)
    if wait_s is not None:
        is_ours = isinstance(error, TargetFull | TargetResting)
        later = 1 + _SPREAD * random() if is_ours else 1.0  # noqa: S311 - spreads clients, nothing to guess
        headers.append((b"retry-after", str(max(1, ceil(wait_s))).encode()))
        headers.append((b"retry-after-ms", str(ceil(wait_s * later * 1000)).encode()))
    should_retry = _should_retry(error, wait_s)
    if should_retry is not None:
        headers.append((b"x-should-retry", b"true" if should_retry else b"false"))
    return headers


def _wait_s(error: TiergateError) -> float | None:
    """Give after how many seconds the same call may be answered; None: nobody knows, or it is too long."""
    match error:
        case RateLimited():
            # Never later than clients take it, though the tokens that a key owes may take longer to go away.
            return min(error.retry_after_s, RETRY_AFTER_S_MAX)
        case UpstreamThrottled() | TargetThrottled() | TargetResting():
            wait_s = error.retry_after_s
        case TargetFull() | BudgetBusy() | IdempotencyKeyInUse() | Stopping() | StorageUnavailable():
            return 1.0
        case _:
            return None
    return wait_s if wait_s is not None and wait_s <= RETRY_AFTER_S_MAX else None


def _should_retry(error: TiergateError, wait_s: float | None) -> bool | None:
    """Tell whether a client should try again by itself; None: as its status suggests."""
    match error:
        case BudgetBusy() | IdempotencyKeyInUse():
            return True
        case NotCached():
            # Its status is one that clients try again on, and nobody was asked because nobody was to be.
            return False
        case TargetFull() | TargetResting() if wait_s is not None:
            # Nobody was asked.
            return None
        case AnswerNotKept():
            # The official clients take every 409 for something that passes.
            return False
        case UpstreamError() | NoTargetAvailable() | DeadlineExceeded():
            # Our own attempts are spent; a client that retries on its own would multiply them.
            return False
        case _:
            return None
