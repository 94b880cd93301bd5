"""Reports as objects for machines: the same from the command line and from the admin plane."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from tiergate.core import nanos_to_usd
from tiergate.reports.beginnings import Beginnings
from tiergate.reports.latency import PERCENTILES, Latency
from tiergate.reports.ports import Span
from tiergate.reports.repeats import Repeats, WouldHit
from tiergate.reports.savings import Savings
from tiergate.reports.spend import Spend


def spend_object(row: Spend) -> dict[str, Any]:
    """Give a row of spending; amounts are USD, null where no price is known."""
    return {
        **row.group,
        "calls": row.calls,
        "succeeded": row.succeeded,
        "attempts": row.attempts,
        "input_tokens": row.input_tokens,
        "cached_tokens": row.cached_tokens,
        "output_tokens": row.output_tokens,
        "cost_usd": None if row.known_nanos is None else nanos_to_usd(row.known_nanos),
        "lapsed_usd": nanos_to_usd(row.lapsed_nanos),
        "bounded_usd": nanos_to_usd(row.bounded_nanos),
        "unpriced_attempts": row.unpriced,
    }


def latency_object(row: Latency) -> dict[str, Any]:
    """Give a row of latencies; times are milliseconds."""
    rate = row.output_tokens_per_s
    return {
        **row.group,
        "calls": row.calls,
        "streamed": row.streamed,
        **{f"ttft_ms_p{percent}": _rounded(row.first_event.get(percent)) for percent in PERCENTILES},
        **{f"total_ms_p{percent}": _rounded(row.total.get(percent)) for percent in PERCENTILES},
        "output_tokens_per_s": _rounded(rate),
    }


def savings_object(row: Savings) -> dict[str, Any]:
    """Give a row of savings; amounts are USD, null where nothing is known."""
    avoided, discounted, private = row.avoided, row.discounted, row.private
    return {
        **row.group,
        "avoided_calls": avoided.calls,
        "avoided_input_tokens": avoided.input_tokens,
        "avoided_output_tokens": avoided.output_tokens,
        "avoided_usd": nanos_to_usd(avoided.nanos),
        "hosted_input_tokens": discounted.input_tokens,
        "cache_read_tokens": discounted.read_tokens,
        "cache_write_tokens": discounted.written_tokens,
        "billed_equivalent_tokens": discounted.billed_tokens,
        "discount_usd": _usd(discounted.nanos),
        "unpriced_cache_tokens": discounted.unpriced_tokens,
        "private_calls": private.calls,
        "private_input_tokens": private.input_tokens,
        "private_output_tokens": private.output_tokens,
        "private_cash_avoided_usd": _usd(private.nanos),
        "hosted_counterparts": list(private.hosted),
        "unmatched_private_tokens": private.unmatched_tokens,
        "unreported_private_calls": private.unreported_calls,
    }


def beginnings_object(row: Beginnings) -> dict[str, Any]:
    """Give a row of how much of prompts had been sent before; null where there was nothing."""
    return {
        **row.group,
        "calls": row.calls,
        "message_bytes": row.bytes,
        "repeated_bytes": row.repeated_bytes,
        "repeated_share": round(row.repeated_bytes / row.bytes, 4) if row.bytes else None,
        "input_tokens": row.input_tokens,
        "cache_read_tokens": row.read_tokens,
    }


def would_hit_object(row: WouldHit) -> dict[str, Any]:
    """Give a row of what a cache would have answered; amounts are USD."""
    return {**row.group, **_repeats("as_set", row.as_set), **_repeats("always", row.always)}


def _repeats(how: str, found: Repeats) -> dict[str, Any]:
    return {
        f"{how}_calls": found.calls,
        f"{how}_hits": found.hits,
        f"{how}_input_tokens": found.input_tokens,
        f"{how}_output_tokens": found.output_tokens,
        f"{how}_usd": nanos_to_usd(found.nanos),
        f"{how}_unpriced_hits": found.unpriced,
    }


def _usd(nanos: int | None) -> Decimal | None:
    return None if nanos is None else nanos_to_usd(nanos)


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 1)


def span_object(span: Span) -> dict[str, str]:
    """Give a span of time."""
    return {"from": moment_text(span.start_ns), "to": moment_text(span.end_ns), "timezone": span.zone}


def moment_text(ns: int) -> str:
    """Write nanoseconds since 1970 as RFC 3339 in UTC."""
    return datetime.fromtimestamp(ns // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
