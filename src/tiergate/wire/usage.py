"""Usage objects of the OpenAI dialect, read into disjoint buckets and written with their cost."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

import msgspec

from tiergate.core import Usage
from tiergate.wire.jsontext import dumps, loads

_decode_parts: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_NULL: Final = msgspec.Raw(b"null")


def read_usage(reported: object) -> Usage | None:
    """Read a `usage` object; None where it is absent, null, or holds anything but sensible counts.

    Cached, reasoning and audio tokens are parts of the totals in this dialect; here they are taken out of
    them. A part that is larger than its total makes the whole report unusable: better bounded than wrong.
    """
    if not isinstance(reported, Mapping):
        return None
    totals = _totals(reported)
    parts_in = _counts(_details(reported, "prompt_tokens_details"), "cached_tokens", "audio_tokens")
    parts_out = _counts(_details(reported, "completion_tokens_details"), "reasoning_tokens", "audio_tokens")
    if totals is None or parts_in is None or parts_out is None:
        return None
    uncached, visible = totals[0] - sum(parts_in), totals[1] - sum(parts_out)
    if uncached < 0 or visible < 0:
        return None
    (cached, audio_in), (reasoning, audio_out) = parts_in, parts_out
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

    Only the usage object is read and written; the bytes around it stay as they came.
    """
    try:
        parts = _decode_parts(data)
        usage = loads(parts.get("usage", _NULL))
    except (msgspec.MsgspecError, ValueError):
        return data
    if not isinstance(usage, dict):
        return data
    usage["cost"] = cost_usd
    parts["usage"] = msgspec.Raw(dumps(usage))
    return dumps(parts)


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


def _totals(reported: Mapping[str, Any]) -> tuple[int, int] | None:
    """Read how many tokens went in and came out; None where a report leaves one of them open.

    Some providers (xAI, Gemini) leave reasoning out of `completion_tokens` and bill it: what `total_tokens`
    holds beyond the other two came out, too.
    """
    counts = _counts(reported, "prompt_tokens", "completion_tokens", "total_tokens")
    said = {name for name, count in reported.items() if count is not None}
    if counts is None or "prompt_tokens" not in said or not said & {"completion_tokens", "total_tokens"}:
        return None
    prompt, completion, total = counts
    return prompt, max(completion, total - prompt)


def _counts(reported: Mapping[str, Any], *names: str) -> tuple[int, ...] | None:
    """Read some counts; None where one of them is nonsense."""
    counts = tuple(count for name in names if (count := _count(reported.get(name))) is not None)
    return counts if len(counts) == len(names) else None


def _count(value: object) -> int | None:
    """Read a count; absent and null are 0, nonsense is None."""
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
