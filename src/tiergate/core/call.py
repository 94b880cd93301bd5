"""Calls and callers: one question by one caller, as every room sees it."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

import msgspec

from tiergate.core.errors import InvalidRequest


class Cause(StrEnum):
    """Why a call exists; side work is a child call with its own cause."""

    CLIENT = "client"
    BATCH = "batch"
    REPLAY = "replay"
    SHADOW = "shadow"
    REFRESH = "refresh"
    EMBED = "embed"
    PROBE = "probe"


class Goal(msgspec.Struct, frozen=True, kw_only=True):
    """What "in time" means for a class of calls, in seconds."""

    total_s: float
    first_event_s: float | None = None
    """Of a stream; None: whenever."""


class CallClass(StrEnum):
    """How urgent a call is."""

    INTERACTIVE = "interactive"
    BATCH = "batch"


class DataClass(StrEnum):
    """Where a call's text may go; the strictest of header, key, model and rule wins."""

    ANY = "any"
    PRIVATE_ONLY = "private-only"

    def stricter(self, other: "DataClass") -> "DataClass":
        """Give the stricter of the two."""
        return DataClass.PRIVATE_ONLY if DataClass.PRIVATE_ONLY in (self, other) else DataClass.ANY


class EndState(StrEnum):
    """How a call ended; exactly one per admitted call."""

    SUCCESS = "success"
    """The caller was given a complete answer."""
    FAILED = "failed"
    """No target gave an answer before the first content event."""
    INTERRUPTED = "interrupted"
    """The answer broke off after content had been sent; the caller was told so."""
    CLIENT_CLOSED = "client_closed"
    """The caller left before the end."""
    LAPSED = "lapsed"
    """The owner died with the call in flight; found by the next one."""


class ReceiptUse(StrEnum):
    """What the `Idempotency-Key` of a call came to."""

    NEW = "new"
    """The first with it; it pays."""
    RESENT = "resent"
    """Asked again, since the process died that asked before; it pays, and the first stays charged."""
    JOINED = "joined"
    """Given the answer that another call was waiting for; free."""
    REPLAYED = "replayed"
    """Given the answer that another call was given; free."""


REASONING_EFFORTS: Final = ("none", "minimal", "low", "medium", "high", "xhigh")
"""Words for how long a model thinks, as `reasoning_effort` has them, the least first."""


class Caps(msgspec.Struct, frozen=True, kw_only=True):
    """The most that one call may ask for of what multiplies its cost. None: no cap.

    `output_tokens` is of one choice, `images` of all messages together, `reasoning_effort` a word of
    `REASONING_EFFORTS`.
    """

    output_tokens: int | None = None
    choices: int | None = None
    images: int | None = None
    reasoning_effort: str | None = None


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who is calling: a key, known by its name, and the team that it belongs to.

    `models`: names that it may ask for, one that ends with `*` for all that begin so; None: every one.
    `tiers`: those that may answer it; None: every one. `data_class`: the least that its calls have.
    `expires_ns`: when the key opens no longer, nanoseconds since 1970; None: never. `caps`: the most that one
    of its calls may ask for; None: nothing is capped.
    """

    key: str
    team: str | None = None
    models: tuple[str, ...] | None = None
    tiers: tuple[str, ...] | None = None
    data_class: DataClass = DataClass.ANY
    expires_ns: int | None = None
    caps: Caps | None = None

    @property
    def tenant(self) -> str:
        """The unit of separation: the key's team, else the key. Nothing crosses it."""
        return self.team if self.team is not None else self.key

    @property
    def partition(self) -> str:
        """The tenant under a name that no other has: a key may be named like somebody's team."""
        return f"key:{self.key}" if self.team is None else f"team:{self.team}"

    def may_ask_for(self, model: str) -> bool:
        """Tell whether a model's name is one of those that it may ask for."""
        return self.models is None or any(
            model == name or (name.endswith("*") and model.startswith(name[:-1])) for name in self.models
        )


LOCAL = Caller(key="local")
"""The caller in open mode."""


class JobLine(msgspec.Struct, frozen=True, kw_only=True):
    """Which line of which job a call answers; the two together are its idempotency key.

    `resent_of`: the call that asked the same before, whose end nobody saw; None: there is none.
    """

    job: str
    n: int
    resent_of: str | None = None


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One question by one caller, read and checked, before anything was decided about it.

    `body` is the object that policy looks at and the object that is forwarded; nobody changes it.
    `received` is monotonic seconds, `received_ns` wall-clock nanoseconds since 1970: both of one moment, of
    which `id` is made, too.
    """

    id: str
    caller: Caller
    endpoint: str
    asked_model: str
    body: Mapping[str, Any]
    prompt_bytes: int
    streamed: bool
    received_ns: int
    received: float
    parent: str | None = None
    cause: Cause = Cause.CLIENT
    call_class: CallClass = CallClass.INTERACTIVE
    data_class: DataClass = DataClass.ANY
    time_limit_s: float | None = None
    """What the caller allows in all, counted from `received`; None: no limit of its own."""
    first_event_limit_s: float | None = None
    """What the caller allows until the first event of a stream; None: no limit of its own."""
    tag: str | None = None
    is_sent_again: bool = False
    """An official client has sent it before, and tries again by itself."""
    cache_control: str | None = None
    """What its caller says of caching, as `Cache-Control` came; None: nothing."""
    idempotency_key: str | None = None
    """Calls of one key with the same one, and the same body, are one question; None: each is its own."""
    line: JobLine | None = None
    """The line of a job that it answers; None: it is of no job."""


_IDEMPOTENCY_KEY_MAX: Final = 255


def checked_idempotency_key(value: str | None) -> str | None:
    """Give an `Idempotency-Key` as it came, if it can be one.

    Raises:
        InvalidRequest: it cannot.
    """
    if value is not None and not (
        1 <= len(value) <= _IDEMPOTENCY_KEY_MAX and value.isascii() and value.isprintable()
    ):
        raise InvalidRequest(
            f"An Idempotency-Key is 1 to {_IDEMPOTENCY_KEY_MAX} printable ASCII characters, such as a UUID.",
            param="Idempotency-Key",
        )
    return value
