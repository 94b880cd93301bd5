"""Usage objects of the OpenAI dialect, read into disjoint buckets and written with their cost."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

import msgspec

from tiergate.core import Usage, usd_text, usd_to_nanos
from tiergate.wire.jsontext import dumps

_decode_parts: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_NULL: Final = msgspec.Raw(b"null")


class UsageReport(msgspec.Struct):
    """A `usage` object as it came, whatever dialect its fields are of; they may hold anything."""

    prompt_tokens: Any = None
    completion_tokens: Any = None
    total_tokens: Any = None
    prompt_tokens_details: Any = None
    completion_tokens_details: Any = None
    prompt_cache_hit_tokens: Any = None
    """DeepSeek: the part of `prompt_tokens` that its cache held."""
    input_tokens: Any = None
    """Anthropic: what neither came from its cache nor went into it."""
    output_tokens: Any = None
    cache_read_input_tokens: Any = None
    cache_creation_input_tokens: Any = None
    cache_creation: Any = None
    cost: Any = None
    """OpenRouter and other gateways: USD."""


def read_usage(said: UsageReport) -> Usage | None:
    """Read a report; None where it holds anything but sensible counts, or leaves a total open.

    Cached, reasoning and audio tokens are parts of the totals of this dialect; here they are taken out of
    them. A part that is larger than its total makes the whole report unusable: better bounded than wrong.
    """
    try:
        return _read(said)
    except _NonsenseError:
        return None


def read_cost_nanos(said: UsageReport) -> int | None:
    """Read what the upstream says that the call costs; None where it says nothing that can be."""
    cost = said.cost
    if type(cost) not in (int, float) or not 0 <= cost <= _COST_USD_MAX:
        return None
    return usd_to_nanos(Decimal(repr(cost)))


def _read(said: UsageReport) -> Usage | None:
    if said.prompt_tokens is None:
        return _side_by_side(said)
    read, write_5m, write_1h = _cached(said)
    if said.completion_tokens is None and said.total_tokens is None:
        return None
    prompt, completion = _count(said.prompt_tokens), _count(said.completion_tokens)
    total = _count(said.total_tokens)
    cached = read + write_5m + write_1h
    if _has_anthropic_words(said) and cached and total == prompt + completion + cached:
        prompt += cached  # they were counted beside the prompt and not in it; the total says so
    # Some providers (xAI, Gemini) leave reasoning out of `completion_tokens` and bill it: what `total_tokens`
    # holds beyond the other two came out, too.
    completion = max(completion, total - prompt)
    audio_in = _part(said.prompt_tokens_details, "audio_tokens")
    reasoning = _part(said.completion_tokens_details, "reasoning_tokens")
    audio_out = _part(said.completion_tokens_details, "audio_tokens")
    uncached, visible = prompt - cached - audio_in, completion - reasoning - audio_out
    if uncached < 0 or visible < 0:
        return None
    return Usage(
        input=uncached,
        cache_read=read,
        cache_write_5m=write_5m,
        cache_write_1h=write_1h,
        audio_in=audio_in,
        output=visible,
        reasoning=reasoning,
        audio_out=audio_out,
    )


def _has_anthropic_words(said: UsageReport) -> bool:
    return said.cache_read_input_tokens is not None or said.cache_creation_input_tokens is not None


def _side_by_side(said: UsageReport) -> Usage | None:
    """Read Anthropic's own words: the parts of the input stand beside each other, none in another."""
    if said.input_tokens is None or said.output_tokens is None:
        return None
    read, write_5m, write_1h = _cached(said)
    return Usage(
        input=_count(said.input_tokens),
        cache_read=read,
        cache_write_5m=write_5m,
        cache_write_1h=write_1h,
        output=_count(said.output_tokens),
    )


def _cached(said: UsageReport) -> tuple[int, int, int]:
    """Read what came from the provider's cache and what went into it for five minutes and for an hour."""
    details = said.prompt_tokens_details
    read = (
        _part(details, "cached_tokens")
        or _count(said.prompt_cache_hit_tokens)
        or _count(said.cache_read_input_tokens)
    )
    written = _part(details, "cache_write_tokens") or _count(said.cache_creation_input_tokens)
    for_an_hour = _part(said.cache_creation, "ephemeral_1h_input_tokens")
    if for_an_hour > written:
        raise _NonsenseError
    return read, written - for_an_hour, for_an_hour


def with_cost(data: bytes, cash_nanos: int | None, *, origin: Mapping[str, Any] | None = None) -> bytes:
    """Give a reply or chunk again with `usage.cost` in USD; null where the price is unknown.

    `origin`: where it comes from, which goes into the usage object too where no header could say it.
    Only the usage object is read and written; the bytes around it stay as they came.
    """
    try:
        parts = _decode_parts(data)
        usage = _decode_parts(parts.get("usage", _NULL))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return data
    usage["cost"] = cost_number(cash_nanos)
    usage.update(origin or {})
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


_COST_USD_MAX: Final = 100_000
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


def _part(details: object, name: str) -> int:
    return _count(details.get(name)) if isinstance(details, dict) else 0
