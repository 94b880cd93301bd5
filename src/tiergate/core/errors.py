"""The errors that cross a room's border, one tree. `web` and `app` have a few leaves of their own besides.

    TiergateError
    ├── Refused                        the call never left: the caller can mend it
    │   ├── InvalidRequest             malformed, or a field that cannot be
    │   │   └── RequestTooLarge        over a limit of size
    │   ├── InvalidKey                 no key, or none that we know
    │   ├── RateLimited                a limit of its key is reached; carries the wait
    │   ├── ModelNotFound              no model of that name; carries the list
    │   ├── IdempotencyKeyReused       the key stands for another question
    │   ├── IdempotencyKeyInUse        another process is answering the question
    │   ├── AnswerNotKept              the question was answered, and the answer was too long to be kept
    │   └── NotCached                  it wants an answer that is kept, and there is none
    ├── UpstreamError                  a target was tried and did not answer
    │   ├── TargetFull                 our own limit for it is reached; nothing was sent
    │   │   └── TargetThrottled        it asked to be left alone; carries the wait
    │   ├── TargetResting              it has failed too often, or is isolated by hand; carries the wait
    │   ├── Unaffordable               no ceiling allows its worst case; nothing was held
    │   │   ├── BudgetExceeded         it does not fit into what is left
    │   │   ├── BudgetBusy             it does not fit while others hold money
    │   │   └── BudgetUnbounded        nobody can tell its worst case
    │   ├── UpstreamUnreachable        no connection: refused, no such name, TLS failure
    │   ├── UpstreamTimeout            connected, but too slow; says in which phase
    │   ├── UpstreamInterrupted        broke off before its end
    │   ├── UpstreamProtocolError      answered something that is no answer
    │   ├── UpstreamAuthFailed         refused our credential
    │   ├── UpstreamThrottled          429; carries the wait
    │   ├── UpstreamFault              5xx, and what another target may do better
    │   └── UpstreamRejected           any other 4xx: the request itself is at fault
    ├── NoTargetAvailable              nothing left to try; carries each target's reason
    ├── DeadlineExceeded               the caller's time is over
    ├── StorageUnavailable             the ledger cannot promise durability now
    │   └── StorageBroken              nor before the next start: nobody knows what is on the disk
    ├── SettingsError                  the settings file, with line and column
    ├── StoreOwned                     another process owns the data folder
    └── CannotStart                    anything else that stops a start, in a sentence

A leaf carries facts; only `web` knows status codes. Messages are written by us: no upstream text, no key.
"""

from typing import ClassVar

from tiergate.core.allowance import Allowances
from tiergate.core.outcome import Blame, Delivery


class TiergateError(Exception):
    """Base of all. `str()` is a sentence that says what happened and what to do."""

    blame: ClassVar[Blame] = Blame.US
    code: ClassVar[str] = "internal_error"
    """The stable word that clients may branch on."""


class Refused(TiergateError):
    """The call was refused before it left; the caller can mend it."""

    blame = Blame.CALLER


class InvalidRequest(Refused):
    """The request is malformed, or one of its fields cannot be; `param` names the field."""

    code = "invalid_request"

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class RequestTooLarge(InvalidRequest):
    """The request is over a limit of size."""

    code = "request_too_large"


class InvalidKey(Refused):
    """No key was given, or none that we know."""

    code = "invalid_api_key"


class RateLimited(Refused):
    """A limit of the caller's own key is reached.

    Attributes:
        key: the key's name.
        limit: `rpm`, `tpm` or `concurrency`.
        retry_after_s: seconds until the same call can come in, if nothing else of the key does.
    """

    code = "rate_limit_exceeded"

    def __init__(self, message: str, *, key: str, limit: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.key = key
        self.limit = limit
        self.retry_after_s = retry_after_s


class ModelNotFound(Refused):
    """No model of that name; `known` lists those that can be called."""

    code = "model_not_found"

    def __init__(self, asked: str, known: tuple[str, ...]) -> None:
        shown = ", ".join(known[:20]) + (f" and {len(known) - 20} more" if len(known) > 20 else "")
        super().__init__(
            f"There is no model {asked[:200]!r} here. Models: {shown or 'none'}. "
            f"GET /v1/models lists them with their tiers."
        )
        self.known = known


class IdempotencyKeyReused(Refused):
    """The `Idempotency-Key` was sent before, with another question."""

    code = "idempotency_key_reused"


class IdempotencyKeyInUse(Refused):
    """Another process of this gateway is answering the question now."""

    code = "idempotency_key_in_use"


class AnswerNotKept(Refused):
    """The question was answered, and charged, and its answer was too long to be kept for a second time."""

    code = "answer_not_kept"


class NotCached(Refused):
    """The caller wants an answer that is kept (`only-if-cached`), and there is none."""

    code = "not_cached"


class UpstreamError(TiergateError):
    """A target was tried and did not answer.

    Attributes:
        target: `provider/model`.
        delivery: whether the upstream can have seen the request.
        status: its HTTP status, if it gave one.
        retry_after_s: what it asked us to wait, if it said.
        should_retry: whether it wants the same request again, if it said (`x-should-retry`).
        allowances: what it said of its own limits, if it did.
        elsewhere: whether another target may do better.
        tried: (`provider/model`, sentence) of the attempts of the same call that failed before it.
    """

    blame = Blame.PROVIDER
    elsewhere: ClassVar[bool] = True

    def __init__(
        self,
        message: str,
        *,
        target: str = "",
        delivery: Delivery = Delivery.POSSIBLE,
        status: int | None = None,
    ) -> None:
        super().__init__(message)
        self.target = target
        self.delivery = delivery
        self.status = status
        self.retry_after_s: float | None = None
        self.should_retry: bool | None = None
        self.allowances: Allowances | None = None
        self.tried: tuple[tuple[str, str], ...] = ()


class TargetFull(UpstreamError):
    """Our own limit of concurrency for the target is reached; nothing was sent."""

    blame = Blame.US
    code = "rate_limit_exceeded"

    def __init__(self, message: str, *, target: str = "") -> None:
        super().__init__(message, target=target, delivery=Delivery.NONE)


class TargetThrottled(TargetFull):
    """It asked to be left alone for a while, which is not over in `retry_after_s`; nothing was sent."""

    def __init__(self, message: str, *, target: str = "", retry_after_s: float) -> None:
        super().__init__(message, target=target)
        self.retry_after_s = retry_after_s


class TargetResting(UpstreamError):
    """Its breaker is open, or it was isolated by hand (`retry_after_s` is infinite); nothing was sent."""

    code = "no_target_available"

    def __init__(self, message: str, *, target: str = "", retry_after_s: float) -> None:
        super().__init__(message, target=target, delivery=Delivery.NONE)
        self.retry_after_s = retry_after_s


class Unaffordable(UpstreamError):
    """A ceiling does not allow the worst case of this target; nothing was held and nothing was sent.

    `budget` is the ceiling's id, `until_ns` when it begins anew, nanoseconds since 1970; None: never.
    """

    blame = Blame.CALLER

    def __init__(
        self, message: str, *, target: str = "", budget: str = "", until_ns: int | None = None
    ) -> None:
        super().__init__(message, target=target, delivery=Delivery.NONE)
        self.budget = budget
        self.until_ns = until_ns


class BudgetExceeded(Unaffordable):
    """It does not fit into what is left, even when nothing else is held."""

    code = "budget_exceeded"


class BudgetBusy(Unaffordable):
    """It does not fit while others hold money, and none became free in time."""

    code = "budget_busy"


class BudgetUnbounded(Unaffordable):
    """Nobody can tell its worst case, so no ceiling can hold it."""

    code = "budget_unbounded"


class UpstreamUnreachable(UpstreamError):
    """No connection: refused, unroutable, no such name, or a certificate that does not hold."""

    code = "upstream_unreachable"


class UpstreamTimeout(UpstreamError):
    """Too slow; `phase` is `connect`, `pool`, `first_event`, `idle` or `total`."""

    code = "upstream_timeout"

    def __init__(
        self, message: str, *, phase: str, target: str = "", delivery: Delivery = Delivery.POSSIBLE
    ) -> None:
        super().__init__(message, target=target, delivery=delivery)
        self.phase = phase


class UpstreamInterrupted(UpstreamError):
    """The answer broke off before its end, or ended without saying that it was complete."""

    code = "upstream_protocol_error"


class UpstreamProtocolError(UpstreamError):
    """Answered with something that is no answer: not HTTP, not JSON, not of the dialect, too large."""

    code = "upstream_protocol_error"


class UpstreamAuthFailed(UpstreamError):
    """The provider refused our credential (401, 403)."""

    code = "upstream_auth_failed"


class UpstreamThrottled(UpstreamError):
    """429: over the provider's rate or quota; `retry_after_s` is what it asked us to wait, if it said."""

    code = "rate_limit_exceeded"

    def __init__(
        self, message: str, *, target: str = "", retry_after_s: float | None = None, quota: bool = False
    ) -> None:
        super().__init__(message, target=target, delivery=Delivery.CONFIRMED, status=429)
        self.retry_after_s = retry_after_s
        self.quota = quota


class UpstreamFault(UpstreamError):
    """The provider failed on its own side: 5xx, or a 4xx that another target need not give."""

    code = "upstream_fault"


class UpstreamRejected(UpstreamError):
    """The provider found the request itself at fault (4xx); no other target is tried.

    `detail` is what the provider said in its error object's `message`, `param` and `code` which field it
    meant: the only upstream text that reaches a caller, since without it nobody can mend the request.
    """

    blame = Blame.CALLER
    code = "invalid_request"
    elsewhere = False

    def __init__(
        self,
        message: str,
        *,
        target: str = "",
        status: int,
        param: str | None = None,
        upstream_code: str | None = None,
    ) -> None:
        super().__init__(message, target=target, delivery=Delivery.CONFIRMED, status=status)
        self.param = param
        self.upstream_code = upstream_code


class NoTargetAvailable(TiergateError):
    """Nothing left to try; `reasons` says why for each target, in order."""

    blame = Blame.PROVIDER
    code = "no_target_available"

    def __init__(self, asked: str, reasons: tuple[tuple[str, str], ...]) -> None:
        listed = "; ".join(f"{target}: {reason}" for target, reason in reasons)
        super().__init__(f"No target can serve {asked[:200]!r} now. {listed}".rstrip(" ."))
        self.reasons = reasons


class DeadlineExceeded(TiergateError):
    """The caller's time is over and no answer came."""

    blame = Blame.PROVIDER
    code = "upstream_timeout"


class StorageUnavailable(TiergateError):
    """The ledger cannot write now, so no call that can cost is started."""

    code = "storage_unavailable"


class StorageBroken(StorageUnavailable):
    """After an error of the disk nothing more is promised before the next start, which sees what is there."""


class SettingsError(TiergateError):
    """The settings are wrong; `problems` holds one sentence each, with line and column where there is one."""

    code = "invalid_settings"

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class StoreOwned(TiergateError):
    """Another process owns the data folder."""

    code = "store_owned"


class CannotStart(TiergateError):
    """The gateway cannot start; the message says what to do."""

    code = "cannot_start"
