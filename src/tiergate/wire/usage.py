"""Usage objects of the OpenAI dialect, read into disjoint buckets and written with their cost."""

from typing import Any, Final

import msgspec

from tiergate.core import Usage, usd_text
from tiergate.wire.jsontext import dumps

_decode_parts: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_NULL: Final = msgspec.Raw(b"null")


class UsageReport(msgspec.Struct):
    """A `usage` object as it came; its fields may hold anything."""

    prompt_tokens: Any = None
    completion_tokens: Any = None
    total_tokens: Any = None
    prompt_tokens_details: Any = None
    completion_tokens_details: Any = None


def read_usage(said: UsageReport) -> Usage | None:
    """Read a report; None where it holds anything but sensible counts, or leaves a total open.

    Cached, reasoning and audio tokens are parts of the totals in this dialect; here they are taken out of
    them. A part that is larger than its total makes the whole report unusable: better bounded than wrong.
    """
    if said.prompt_tokens is None or (said.completion_tokens is None and said.total_tokens is None):
        return None
    try:
        prompt, completion = _count(said.prompt_tokens), _count(said.completion_tokens)
        # Some providers (xAI, Gemini) leave reasoning out of `completion_tokens` and bill it: what
        # `total_tokens` holds beyond the other two came out, too.
        completion = max(completion, _count(said.total_tokens) - prompt)
        cached, audio_in = _parts(said.prompt_tokens_details, "cached_tokens", "audio_tokens")
        reasoning, audio_out = _parts(said.completion_tokens_details, "reasoning_tokens", "audio_tokens")
    except _NonsenseError:
        return None
    uncached, visible = prompt - cached - audio_in, completion - reasoning - audio_out
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


def with_cost(data: bytes, cash_nanos: int | None) -> bytes:
    """Give a reply or chunk again with `usage.cost` in USD; null where the price is unknown.

    Only the usage object is read and written; the bytes around it stay as they came.
    """
    try:
        parts = _decode_parts(data)
        usage = _decode_parts(parts.get("usage", _NULL))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return data
    usage["cost"] = cost_number(cash_nanos)
    parts["usage"] = msgspec.Raw(dumps(usage))
    return dumps(parts)


def cost_number(cash_nanos: int | None) -> msgspec.Raw:
    """Write an amount of nano-dollars as a JSON number of USD; null where it is unknown."""
    return _NULL if cash_nanos is None else msgspec.Raw(usd_text(cash_nanos).encode())


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


class _NonsenseError(Exception):
    """Stands where a count should."""


def _count(value: object) -> int:
    """Read a count; absent and null are 0."""
    if value is None:
        return 0
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int or not 0 <= value <= _COUNT_MAX:
        raise _NonsenseError
    return value


def _parts(details: object, one: str, other: str) -> tuple[int, int]:
    if not isinstance(details, dict):
        return 0, 0
    return _count(details.get(one)), _count(details.get(other))
