"""Usage objects of the OpenAI dialect, read into disjoint buckets and written with their cost."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from tiergate.core import Usage
from tiergate.wire.jsontext import dumps, loads


def read_usage(reported: object) -> Usage | None:
    """Read a `usage` object; None where it is absent, null, or holds anything but sensible counts.

    Cached, reasoning and audio tokens are parts of the totals in this dialect; here they are taken out of
    them. A part that is larger than its total makes the whole report unusable: better bounded than wrong.
    Some providers (xAI, Gemini) leave reasoning out of `completion_tokens` and bill it: what `total_tokens`
    holds beyond the other two came out, too.
    """
    if not isinstance(reported, Mapping):
        return None
    if reported.get("prompt_tokens") is None:
        return None
    if reported.get("completion_tokens") is None and reported.get("total_tokens") is None:
        return None
    prompt = _count(reported, "prompt_tokens")
    completion = _count(reported, "completion_tokens")
    total = _count(reported, "total_tokens")
    if prompt is None or completion is None or total is None:
        return None
    completion = max(completion, total - prompt)
    prompt_parts = _details(reported, "prompt_tokens_details")
    completion_parts = _details(reported, "completion_tokens_details")
    cached = _count(prompt_parts, "cached_tokens")
    audio_in = _count(prompt_parts, "audio_tokens")
    reasoning = _count(completion_parts, "reasoning_tokens")
    audio_out = _count(completion_parts, "audio_tokens")
    if cached is None or audio_in is None or reasoning is None or audio_out is None:
        return None
    uncached = prompt - cached - audio_in
    visible = completion - reasoning - audio_out
    if uncached < 0 or visible < 0:
        return None
    return Usage(
        input=uncached,
        cache_read=cached,
        audio_in=audio_in,
        output=visible,
        reasoning=reasoning,
        audio_out=audio_out,
    )


def with_cost(data: bytes, cost_usd: Decimal | None) -> bytes:
    """Give a reply or chunk again with `usage.cost` in USD; null where the price is unknown.

    One without a usage object, or that only a lenient reader can read, is given back as it is.
    """
    try:
        reply = loads(data)
    except ValueError:
        return data
    usage = reply.get("usage") if isinstance(reply, dict) else None
    if not isinstance(usage, dict):
        return data
    usage["cost"] = cost_usd
    return dumps(reply)


def usage_object(usage: Usage) -> dict[str, Any]:
    """Say a usage in the words of the OpenAI dialect."""
    said: dict[str, Any] = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
    }
    if usage.cache_read:
        said["prompt_tokens_details"] = {"cached_tokens": usage.cache_read}
    if usage.reasoning:
        said["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning}
    return said


_COUNT_MAX = 10**9
"""More tokens than any call can have; a larger number is a provider's mistake."""


def _count(counts: Mapping[str, Any], name: str) -> int | None:
    """Read a count; absent and null are 0, nonsense is None."""
    value = counts.get(name)
    if value is None:
        return 0
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int or not 0 <= value <= _COUNT_MAX:
        return None
    return value


def _details(reported: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = reported.get(name)
    return value if isinstance(value, Mapping) else {}
