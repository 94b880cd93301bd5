"""The records of the ledger as values: what is written when money is held, settled and a call ends.

Times are nanoseconds since 1970 (`_ns`), amounts nano-dollars (`_nanos`). No record holds text of a prompt
or an answer, a key or a credential.
"""

from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec

from tiergate.core import NOTHING, Blame, Call, EndState, Outcome, ReceiptUse, Target, Usage, UsageSource
from tiergate.ledger.receipts import Receipt
from tiergate.ledger.states import HoldState


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The process that serves a store. Its epoch is larger than that of every owner before it."""

    id: str
    epoch: int


class Looked(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a call at the cache."""

    outcome: str | None = None
    """`hit`, `stale`, `collapsed`, or why it went on to a target; None: the cache was not asked."""
    reason: str | None = None
    request_hash: bytes | None = None
    """Of the whole question, keyed with a secret of its tenant; None: its answer may not be kept."""
    prefixes: bytes | None = None
    """Of the beginnings of its prompt, keyed so, too; None: they are not recorded."""


NOT_LOOKED: Final = Looked()


class CallOpened(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a call's record that is known when it is admitted."""

    call: Call
    generation: int
    """Of the settings that it was resolved under."""
    deadline_ns: int
    route: str
    """The route's targets and reasons, as compact JSON."""
    receipt: Receipt | None = None
    """Of a call that pays for an answer that others may be given, too."""
    resent_of: str | None = None
    """The call that asked the same before and lapsed."""
    looked: Looked = NOT_LOOKED

    @property
    def receipt_use(self) -> ReceiptUse | None:
        """What the receipt came to; None: there is none, or somebody else pays."""
        if self.receipt is None:
            return None
        return ReceiptUse.NEW if self.resent_of is None else ReceiptUse.RESENT


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """A hold, placed before an attempt's first upstream byte."""

    opened: CallOpened
    n: int
    """Number of the attempt in its call, from 1."""
    target: Target
    bound_nanos: int | None
    """The worst case of this target; None where it cannot be bounded (no price, no output limit)."""
    price_id: str | None
    queued_ns: int
    permit_ns: int
    in_flight: int
    """Attempts in flight at this target's provider when it got its permit, itself included."""
    credential_id: str | None = None
    shape: tuple[int, ...] | None = None
    """The shape of the question (`metering.shape_of`), where it was taken."""

    @property
    def call_id(self) -> str:
        """The call that the attempt belongs to."""
        return self.opened.call.id


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """The truth about one attempt. `state` is SETTLED, or RELEASED on proven non-delivery."""

    call_id: str
    n: int
    state: HoldState
    outcome: Outcome
    blame: Blame | None
    error_code: str | None
    status: int | None
    sent_ns: int
    first_ns: int | None
    last_ns: int
    usage: Usage
    usage_source: UsageSource
    cash_nanos: int | None
    """None: the price is unknown."""
    upstream_cost_nanos: int | None = None
    """What the upstream itself said it costs, where it says so."""
    replica: str | None = None
    upstream_request_id: str | None = None
    service_tier: str | None = None
    gpu_ms: int | None = None
    kept: "Kept | None" = None
    """The answer to the call's receipt, which is then done; None: it has none, or goes on."""


def not_sent(held: Held) -> Settled:
    """Give the settlement of a hold for which nothing was sent, whatever the journal makes of it."""
    return Settled(
        call_id=held.call_id,
        n=held.n,
        state=HoldState.RELEASED,
        outcome=Outcome.IGNORE,
        blame=None,
        error_code=None,
        status=None,
        sent_ns=held.permit_ns,
        first_ns=None,
        last_ns=held.permit_ns,
        usage=NOTHING,
        usage_source=UsageSource.NONE,
        cash_nanos=0,
    )


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """An answer for the next one who asks the same."""

    reply: bytes | None
    """As `serve` reads it back; None: it is too long to be kept."""


class Shared(msgspec.Struct, frozen=True, kw_only=True):
    """An answer that another call has paid for, as the call that was given it records it."""

    use: ReceiptUse | None = None
    """What its receipt came to; None: it has none."""
    of: str
    """The call that paid."""
    usage: Usage
    """What was not used a second time, and
    cash_nanos: what that would have cost; None: the price is unknown."""
    cash_nanos: int | None


class CallClosed(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a call; written exactly once for each admitted call."""

    opened: CallOpened
    end: EndState
    error_code: str | None
    first_event_ns: int | None
    last_event_ns: int
    finish_reasons: tuple[str, ...]
    attempts: int
    """Holds that were asked for, refused ones too; 0 says that it cannot have cost anything."""
    shared: Shared | None = None
    looked: Looked | None = None
    """What became of it at the cache, where that is another thing than at its beginning."""


class LapsedLine(NamedTuple):
    """An attempt for a line of a job that a dead owner left, and nobody has settled since."""

    line: int
    call_id: str
    n: int


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """The shape of a question and the input tokens that its target reported: what estimates learn from."""

    target: str
    shape: tuple[int, ...]
    input_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptEntry:
    """One attempt as read back from the store."""

    n: int
    target: str
    tier: str
    replica: str | None
    state: HoldState
    outcome: Outcome | None
    blame: Blame | None
    error_code: str | None
    bound_nanos: int | None
    usage: Usage
    usage_source: UsageSource
    price_id: str | None
    cash_nanos: int | None
    sent_ns: int | None
    first_ns: int | None
    last_ns: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjustment:
    """What was learned about an attempt after it was settled; it stands beside it."""

    n: int
    delta_nanos: int
    reason: str
    written_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryQuery:
    """Which entries are wanted, newest first; None: any.

    `before`: those older than a call's id; `since_ns`: those received at a moment or later; `is_lapsed`:
    those with an attempt that a dead owner left and nobody has settled.
    """

    before: str | None = None
    since_ns: int = 0
    limit: int = 100
    key: str | None = None
    team: str | None = None
    tag: str | None = None
    model: str | None = None
    is_lapsed: bool = False
    job: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One call as read back from the store, with its attempts."""

    call_id: str
    cause: str
    key: str
    team: str | None
    tenant: str
    tag: str | None
    endpoint: str
    asked_model: str
    call_class: str
    data_class: str
    streamed: bool
    generation: int
    received_ns: int
    first_event_ns: int | None
    last_event_ns: int | None
    prompt_bytes: int
    route: str
    finish_reasons: tuple[str, ...]
    error_code: str | None
    end: EndState | None
    """None while it is in flight."""
    receipt: ReceiptUse | None = None
    """What its `Idempotency-Key` came to; None: it brought none."""
    answer_of: str | None = None
    """The call whose answer it was given, or that it asked again for."""
    avoided_input: int = 0
    """Tokens that were not used a second time, and
    avoided_output: those of the answer."""
    avoided_output: int = 0
    avoided_nanos: int | None = None
    looked: Looked = NOT_LOOKED
    job: str | None = None
    """The job that it answers a line of, and
    line: the number of that line."""
    line: int | None = None
    attempts: tuple[AttemptEntry, ...] = field(default=())
    adjustments: tuple[Adjustment, ...] = field(default=())
    """Read with `Journal.find` only."""

    @property
    def is_given(self) -> bool:
        """Whether it was given an answer that another call has paid for."""
        given = self.looked.outcome in _GIVEN
        return given or self.receipt in (ReceiptUse.JOINED, ReceiptUse.REPLAYED)


_GIVEN: Final = ("hit", "stale", "collapsed")
