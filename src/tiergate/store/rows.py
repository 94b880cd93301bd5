"""Records of the ledger to rows and back; pure, and in step with the column order of `sql/ledger.sql`.

What is written when a hold settles or a call ends must fit into the room that its row was born with, so texts
from outside are cut to the lengths below.
"""

from collections.abc import Iterable
from typing import Any, Final

from tiergate.core import Blame, EndState, Outcome, ReceiptUse, Usage, UsageSource, new_id
from tiergate.ledger import (
    Adjustment,
    AttemptEntry,
    CallClosed,
    CallOpened,
    Counted,
    Entry,
    Held,
    HoldState,
    Looked,
    Receipt,
    ReceiptEntry,
    ReceiptState,
    Settled,
    Slice,
    Window,
)

Row = tuple[Any, ...]

REPLICA_CHARS: Final = 80
ERROR_CODE_CHARS: Final = 40
REQUEST_ID_CHARS: Final = 64
SERVICE_TIER_CHARS: Final = 16
FINISH_REASONS_CHARS: Final = 64

_NO_RANDOMNESS: Final = bytes(10)
_OF_NO_JOB: Final = (None, None)
_INTEGER_MAX: Final = 2**63 - 1


def call_row(opened: CallOpened, epoch: int, looked: Looked | None = None) -> Row:
    """Give the row of `open_call`: what is known of a call when it is admitted.

    `_value_` and not `value`: the property is six times as slow, and this runs twice for each call.
    """
    call, looked = opened.call, looked or opened.looked
    caller = call.caller
    return (
        call.id,
        call.parent,
        call.cause._value_,
        caller.key,
        caller.team,
        caller.tenant,
        call.tag,
        call.endpoint,
        call.asked_model,
        call.call_class._value_,
        call.data_class._value_,
        call.streamed,
        opened.generation,
        call.received_ns,
        opened.deadline_ns,
        call.prompt_bytes,
        opened.route,
        looked.request_hash,
        looked.prefixes,
        looked.outcome,
        looked.reason,
        epoch,
        *(_OF_NO_JOB if call.line is None else (call.line.job, call.line.n)),
        None if opened.receipt is None else opened.receipt_use,
        opened.resent_of,
    )


def hold_row(held: Held, epoch: int) -> Row:
    """Give the row of `hold`."""
    target = held.target
    return (
        held.opened.call.id,
        held.n,
        target.provider,
        target.model,
        target.tier._value_,
        held.credential_id,
        held.queued_ns,
        held.permit_ns,
        held.in_flight,
        held.price_id,
        epoch,
        held.bound_nanos,
        None if held.shape is None else ",".join(map(str, held.shape)),
    )


def settle_row(settled: Settled, epoch: int) -> Row:
    """Give the row of `settle`."""
    usage = settled.usage
    return (
        settled.state._value_,
        _short(settled.replica, REPLICA_CHARS),
        settled.sent_ns,
        settled.first_ns,
        settled.last_ns,
        settled.outcome._value_,
        None if settled.blame is None else settled.blame._value_,
        _short(settled.error_code, ERROR_CODE_CHARS),
        settled.status,
        usage.input,
        usage.cache_read,
        usage.cache_write_5m,
        usage.cache_write_1h,
        usage.output,
        usage.reasoning,
        usage.audio_in,
        usage.audio_out,
        usage.images,
        settled.usage_source._value_,
        settled.cash_nanos,
        settled.upstream_cost_nanos,
        _short(settled.upstream_request_id, REQUEST_ID_CHARS),
        _short(settled.service_tier, SERVICE_TIER_CHARS),
        settled.gpu_ms,
        settled.call_id,
        settled.n,
        epoch,
    )


def released_row(hold: Row) -> Row:
    """Give the row of `settle` that releases a hold, given as its row: nothing was sent under it."""
    released = Settled(
        call_id=hold[0],
        n=hold[1],
        state=HoldState.RELEASED,
        outcome=Outcome.DROPPED,
        blame=Blame.US,
        error_code="storage_unavailable",
        status=None,
        sent_ns=hold[7],
        first_ns=None,
        last_ns=hold[7],
        usage=Usage(),
        usage_source=UsageSource.NONE,
        cash_nanos=0,
    )
    return settle_row(released, hold[10])


def settled_call_id(row: Row) -> str:
    """Give the call that a row of `settle` belongs to."""
    call_id: str = row[-3]
    return call_id


def place_of(row: Row) -> tuple[str, int]:
    """Give the call and the number of the attempt that a row of `hold` is of."""
    return row[0], row[1]


def receipt_call_id(row: Row) -> str:
    """Give the call that a row opens a receipt for."""
    call_id: str = row[5]
    return call_id


def settled_place(row: Row) -> tuple[str, int]:
    """Give the call and the number of the attempt that a row of `settle` is of."""
    return row[-3], row[-2]


def close_row(closed: CallClosed, epoch: int) -> Row:
    """Give the row of `close_call`: the whole call and its end."""
    opened, shared = call_row(closed.opened, epoch, closed.looked), closed.shared
    return (
        *(opened if shared is None else (*opened[:-2], shared.use, shared.of)),
        None if shared is None else shared.usage.input_tokens,
        None if shared is None else shared.usage.output_tokens,
        None if shared is None else shared.cash_nanos,
        closed.first_event_ns,
        closed.last_event_ns,
        _joined(closed.finish_reasons),
        _short(closed.error_code, ERROR_CODE_CHARS),
        closed.end._value_,
    )


def receipt_row(opened: CallOpened, receipt: Receipt, epoch: int) -> Row:
    """Give the row that a receipt is opened with, by `drop` and `open`."""
    call = opened.call
    return (
        *receipt.scope,
        receipt.tenant,
        receipt.fingerprint,
        call.id,
        epoch,
        call.received_ns,
        receipt.since_ns,
    )


def drop_row(row: Row) -> Row:
    """Give the row of `drop`."""
    return (*row[:3], row[-1])


def open_row(row: Row) -> Row:
    """Give the row of `open`."""
    return row[:-1]


def kept_row(settled: Settled, epoch: int) -> Row | None:
    """Give the row of `finish`; None: the settlement brings no answer to a receipt."""
    if settled.kept is None:
        return None
    return settled.last_ns, settled.kept.reply, settled.call_id, epoch


def kept_without_reply(row: Row) -> Row:
    """Give a row of `finish` again without the answer itself."""
    ended_ns, _, *rest = row
    return ended_ns, None, *rest


def freed_row(closed: CallClosed, epoch: int) -> Row | None:
    """Give the row of `free`; None: the call has none, or its receipt is done."""
    has_own_answer = closed.end is EndState.SUCCESS and closed.shared is None
    if closed.opened.receipt is None or has_own_answer:
        return None
    return closed.last_event_ns, closed.opened.call.id, epoch


def receipt_of(row: Row) -> ReceiptEntry:
    """Read a receipt back from a row of `read`."""
    state, fingerprint, call_id, created_ns, reply = row
    return ReceiptEntry(
        state=ReceiptState(state),
        fingerprint=fingerprint,
        call_id=call_id,
        created_ns=created_ns,
        reply=reply,
    )


def slice_row(found: Slice) -> Row:
    """Give the part of `draw`'s row that says what is drawn."""
    window = found.window
    return found.ceiling, window.start_ns, window.end_ns, found.amount_nanos


def slice_of(row: Row) -> Slice:
    """Read a slice back from a row of `dead`."""
    ceiling, start_ns, end_ns, amount_nanos = row
    return Slice(ceiling, Window(start_ns=start_ns, end_ns=end_ns), amount_nanos)


def tame(row: Row) -> Row:
    """Make a row that was refused writable: numbers to what can be added up, text to Unicode."""
    return tuple(_tamed(value) for value in row)


def entry_of(call: Row, attempts: Iterable[Row]) -> Entry:
    """Read a call back from the rows of `read_call` and `read_attempts`."""
    return Entry(
        call_id=call[0],
        cause=call[1],
        key=call[2],
        team=call[3],
        tenant=call[4],
        tag=call[5],
        endpoint=call[6],
        asked_model=call[7],
        call_class=call[8],
        data_class=call[9],
        streamed=bool(call[10]),
        generation=call[11],
        received_ns=call[12],
        first_event_ns=call[13],
        last_event_ns=call[14],
        prompt_bytes=call[15],
        route=call[16],
        finish_reasons=tuple(call[17].split(",")) if call[17] else (),
        error_code=call[18],
        end=None if call[19] is None else EndState(call[19]),
        receipt=None if call[20] is None else ReceiptUse(call[20]),
        answer_of=call[21],
        avoided_input=call[22] or 0,
        avoided_output=call[23] or 0,
        avoided_nanos=call[24],
        looked=Looked(request_hash=call[25], outcome=call[26], reason=call[27]),
        job=call[28],
        line=call[29],
        attempts=tuple(_attempt_of(row) for row in attempts),
    )


def entries_of(calls: Iterable[Row], attempts: Iterable[Row]) -> list[Entry]:
    """Read calls back, in their order, each with its attempts in theirs."""
    by_call: dict[str, list[Row]] = {}
    for row in attempts:
        by_call.setdefault(row[0], []).append(row)
    return [entry_of(call, by_call.get(call[0], ())) for call in calls]


def adjustment_of(row: Row) -> Adjustment:
    """Read an adjustment back from a row of `find_adjustments`."""
    n, delta_nanos, reason, written_ns = row
    return Adjustment(n=n, delta_nanos=delta_nanos, reason=reason, written_ns=written_ns)


def first_id(time_ns: int) -> str:
    """Give the id before every id that was made at a moment or later."""
    return new_id(max(0, time_ns), _NO_RANDOMNESS)


def counted_of(row: Row) -> Counted:
    """Read what estimates learn from back from a row of `read_counted`."""
    provider, model, shape, input_tokens = row
    return Counted(
        target=f"{provider}/{model}", shape=tuple(map(int, shape.split(","))), input_tokens=input_tokens
    )


def _attempt_of(row: Row) -> AttemptEntry:
    _, n, provider, model, tier, replica, state, outcome, blame, error_code, bound_nanos, *rest = row
    *tokens, usage_source, price_id, cash_nanos, sent_ns, first_ns, last_ns = rest
    return AttemptEntry(
        n=n,
        target=f"{provider}/{model}",
        tier=tier,
        replica=replica,
        state=HoldState(state),
        outcome=None if outcome is None else Outcome(outcome),
        blame=None if blame is None else Blame(blame),
        error_code=error_code,
        bound_nanos=bound_nanos,
        usage=Usage(**dict(zip(_BUCKETS, tokens, strict=True))),
        usage_source=UsageSource(usage_source),
        price_id=price_id,
        cash_nanos=cash_nanos,
        sent_ns=sent_ns,
        first_ns=first_ns,
        last_ns=last_ns,
    )


_BUCKETS: Final = (
    "input",
    "cache_read",
    "cache_write_5m",
    "cache_write_1h",
    "output",
    "reasoning",
    "audio_in",
    "audio_out",
    "images",
)


def _short(text: str | None, chars: int) -> str | None:
    if text is None or (len(text) <= chars and text.isascii()):
        return text
    return text.encode("ascii", "backslashreplace")[:chars].decode("ascii")


def _joined(reasons: tuple[str, ...]) -> str | None:
    """Join finish reasons; of very many, as a call with n = 128 has, those that differ."""
    if not reasons:
        return None
    joined = ",".join(reasons)
    if len(joined) > FINISH_REASONS_CHARS:
        joined = ",".join(dict.fromkeys(reasons))
    return _short(joined, FINISH_REASONS_CHARS)


_FORCED: Final = 10**15
"""Stands for a number of more than 64 bits: in money a million dollars, and a sum has room for many of it."""


def _tamed(value: Any) -> Any:
    if isinstance(value, int):
        return max(value, 0) if value <= _INTEGER_MAX else _FORCED
    if isinstance(value, str):
        # PostgreSQL keeps no NUL characters.
        return value.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")
    return value
