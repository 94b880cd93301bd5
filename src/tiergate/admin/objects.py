"""Budgets and entries as objects of the admin plane: amounts in USD, times in RFC 3339."""

from datetime import UTC, datetime
from typing import Any

from tiergate.core import Usage, nanos_to_usd
from tiergate.ledger import AttemptEntry, Balance, Entry, HoldState
from tiergate.wire import loads


def budget_object(balance: Balance) -> dict[str, Any]:
    """Give a budget with what is spent, held and left of it."""
    ceiling = balance.ceiling
    end_ns = balance.window.end_ns
    return {
        "scope": ceiling.scope.value if not ceiling.name else f"{ceiling.scope.value}:{ceiling.name}",
        "per": ceiling.period.value,
        "usd": nanos_to_usd(ceiling.amount_nanos),
        "slack_usd": nanos_to_usd(ceiling.slack_nanos),
        "spent_usd": nanos_to_usd(balance.spent_nanos),
        "lapsed_usd": nanos_to_usd(balance.lapsed_nanos),
        "held_usd": nanos_to_usd(balance.held_nanos),
        "left_usd": nanos_to_usd(balance.left_nanos),
        # A budget without a window began before time.
        "window_start": time_text(balance.window.start_ns) if end_ns is not None else None,
        "window_end": None if end_ns is None else time_text(end_ns),
    }


def entry_object(entry: Entry) -> dict[str, Any]:
    """Give a call with its attempts, what was used, and what it cost together."""
    last = entry.attempts[-1] if entry.attempts else None
    costs = [_cost_nanos(entry, attempt) for attempt in entry.attempts]
    known = [cost for cost in costs if cost is not None]
    return {
        "id": entry.call_id,
        "cause": entry.cause,
        "key": entry.key,
        "team": entry.team,
        "tenant": entry.tenant,
        "tag": entry.tag,
        "endpoint": entry.endpoint,
        "model": entry.asked_model,
        "class": entry.call_class,
        "data_class": entry.data_class,
        "streamed": entry.streamed,
        "generation": entry.generation,
        "route": [{"target": target, "reason": reason} for target, reason in loads(entry.route.encode())],
        "received": time_text(entry.received_ns),
        "first_event": _time_or_none(entry.first_event_ns),
        "last_event": _time_or_none(entry.last_event_ns),
        "finish_reasons": entry.finish_reasons,
        "error": entry.error_code,
        "end": None if entry.end is None else entry.end.value,
        "receipt": None if entry.receipt is None else entry.receipt.value,
        "cache": _cache(entry),
        "answer_of": entry.answer_of,
        "batch": entry.job,
        "line": entry.line,
        "avoided": _avoided(entry),
        "usage": None if last is None else usage_buckets(last.usage),
        "cost_usd": nanos_to_usd(sum(known)) if len(known) == len(costs) else None,
        "attempts": [
            _attempt_object(attempt, cost) for attempt, cost in zip(entry.attempts, costs, strict=True)
        ],
        "adjustments": [
            {
                "attempt": one.n,
                "delta_usd": nanos_to_usd(one.delta_nanos),
                "reason": one.reason,
                "written": time_text(one.written_ns),
            }
            for one in entry.adjustments
        ],
    }


def usage_buckets(usage: Usage) -> dict[str, int]:
    """Give a usage by its disjoint buckets, and their sums."""
    buckets = {name: getattr(usage, name) for name in usage.__struct_fields__}
    return {
        **{name: count for name, count in buckets.items() if count},
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
    }


def time_text(ns: int) -> str:
    """Write nanoseconds since 1970 as RFC 3339 in UTC, to the millisecond."""
    moment = datetime.fromtimestamp(ns // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{moment}.{ns // 1_000_000 % 1000:03d}Z"


def _time_or_none(ns: int | None) -> str | None:
    return None if ns is None else time_text(ns)


def _cache(entry: Entry) -> dict[str, Any] | None:
    """Give what became of it at the cache."""
    looked = entry.looked
    return None if looked.outcome is None else {"outcome": looked.outcome, "reason": looked.reason}


def _avoided(entry: Entry) -> dict[str, Any] | None:
    """Give what was not used and paid a second time, where another call has paid for the answer."""
    if not entry.is_given:
        return None
    nanos = entry.avoided_nanos
    return {
        "input_tokens": entry.avoided_input,
        "output_tokens": entry.avoided_output,
        "cost_usd": None if nanos is None else nanos_to_usd(nanos),
    }


def _attempt_object(attempt: AttemptEntry, cost_nanos: int | None) -> dict[str, Any]:
    return {
        "n": attempt.n,
        "target": attempt.target,
        "tier": attempt.tier,
        "replica": attempt.replica,
        "state": attempt.state.value,
        "outcome": None if attempt.outcome is None else attempt.outcome.value,
        "blame": None if attempt.blame is None else attempt.blame.value,
        "error": attempt.error_code,
        "usage": usage_buckets(attempt.usage),
        "usage_source": attempt.usage_source.value,
        "price": attempt.price_id,
        "bound_usd": None if attempt.bound_nanos is None else nanos_to_usd(attempt.bound_nanos),
        "cost_usd": None if cost_nanos is None else nanos_to_usd(cost_nanos),
        "sent": _time_or_none(attempt.sent_ns),
        "first": _time_or_none(attempt.first_ns),
        "last": _time_or_none(attempt.last_ns),
    }


def _cost_nanos(entry: Entry, attempt: AttemptEntry) -> int | None:
    """Give what counts for an attempt: settled or worst case, with its adjustments; None: not known."""
    charged = attempt.bound_nanos if attempt.state is HoldState.LAPSED else attempt.cash_nanos
    if charged is None:
        return None
    return charged + sum(one.delta_nanos for one in entry.adjustments if one.n == attempt.n)
