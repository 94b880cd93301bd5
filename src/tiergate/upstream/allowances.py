"""What an answer's headers say of the provider's own limits.

Read are OpenAI's names (`x-ratelimit-remaining-requests`; of OpenAI, Azure, Groq and others), Anthropic's
(`anthropic-ratelimit-requests-remaining`; both as documented in 2026-11), and the plain
`x-ratelimit-remaining` and `ratelimit-remaining` (draft-ietf-httpapi-ratelimit-headers-03). Nobody says what
the plain ones count, so they are taken for requests, and only where all three fields are there and fit each
other. What cannot be meant is as if it were not there, field by field.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Final, NamedTuple

from tiergate.core import Allowance, Allowances

RESET_S_MAX: Final = 86_400.0
"""A day is the longest window of any quota; a longer one is nonsense, or a date in disguise."""

_NUMBER: Final = re.compile(rb"[0-9]{1,12}(?:\.[0-9]{1,9})?")
_SPAN: Final = re.compile(
    rb"(?:([0-9]{1,3})d)?(?:([0-9]{1,5})h)?(?:([0-9]{1,6})m)?(?:([0-9]{1,6}(?:\.[0-9]{1,9})?)s)?"
    rb"(?:([0-9]{1,9}(?:\.[0-9]{1,9})?)ms)?"
)
_PARTS_S: Final = (86_400.0, 3_600.0, 60.0, 1.0, 0.001)
_LENGTH_MAX: Final = 64

Headers = Mapping[bytes, bytes]


class _Names(NamedTuple):
    """Of the three fields of one rate."""

    limit: bytes
    remaining: bytes
    reset: bytes


def _openai_names(what: str) -> _Names:
    return _Names(*(f"x-ratelimit-{field}-{what}".encode() for field in _Names._fields))


def _anthropic_names(what: str) -> _Names:
    return _Names(*(f"anthropic-ratelimit-{what}-{field}".encode() for field in _Names._fields))


_REQUESTS: Final = _openai_names("requests")
_TOKENS: Final = _openai_names("tokens")
_A_REQUESTS: Final = _anthropic_names("requests")
_A_TOKENS: Final = _anthropic_names("tokens")
_A_INPUT: Final = _anthropic_names("input-tokens")
_A_OUTPUT: Final = _anthropic_names("output-tokens")
_PLAIN: Final = _Names(b"x-ratelimit-limit", b"x-ratelimit-remaining", b"x-ratelimit-reset")
_DRAFT: Final = _Names(b"ratelimit-limit", b"ratelimit-remaining", b"ratelimit-reset")
# Which words there are is looked up for every answer, and most have none of them.
_REMAINING, _TOKENS_REMAINING = _REQUESTS.remaining, _TOKENS.remaining
_A_REMAINING, _A_TOKENS_REMAINING = _A_REQUESTS.remaining, _A_TOKENS.remaining
_PLAIN_REMAINING, _DRAFT_REMAINING = _PLAIN.remaining, _DRAFT.remaining


def read_allowances(headers: Headers) -> Allowances | None:
    """Read what an answer says; None: nothing that can be used. Names of headers are in lower case.

    Anthropic's resets are moments; they are measured against the same answer's own Date, since no two clocks
    agree.
    """
    if _REMAINING in headers or _TOKENS_REMAINING in headers:
        return _said(requests=_counted(headers, _REQUESTS), tokens=_counted(headers, _TOKENS))
    if _A_REMAINING in headers or _A_TOKENS_REMAINING in headers:
        return _said(
            requests=_dated(headers, _A_REQUESTS),
            tokens=_dated(headers, _A_TOKENS),
            input_tokens=_dated(headers, _A_INPUT),
            output_tokens=_dated(headers, _A_OUTPUT),
        )
    if _PLAIN_REMAINING in headers:
        return _said(requests=_plain(headers, _PLAIN))
    if _DRAFT_REMAINING in headers:
        return _said(requests=_plain(headers, _DRAFT))
    return None


def _said(**rates: Allowance | None) -> Allowances | None:
    return Allowances(**rates) if any(rates.values()) else None


def _counted(headers: Headers, names: _Names) -> Allowance | None:
    return _allowance(headers, names, _span_s((headers.get(names.reset) or b"")[:_LENGTH_MAX]))


def _dated(headers: Headers, names: _Names) -> Allowance | None:
    at, now = _moment(headers.get(names.reset)), _date((headers.get(b"date") or b"")[:_LENGTH_MAX])
    seconds = None if at is None or now is None else at - now
    is_sound = seconds is not None and 0 <= seconds <= RESET_S_MAX
    return _allowance(headers, names, seconds if is_sound else None)


def _plain(headers: Headers, names: _Names) -> Allowance | None:
    limit, remaining, reset_s = (_number(headers.get(name)) for name in names)
    if not limit or remaining is None or reset_s is None or remaining > limit or reset_s > RESET_S_MAX:
        return None
    return Allowance(limit, remaining, reset_s, comes_at_once=True)


def _allowance(headers: Headers, names: _Names, reset_s: float | None) -> Allowance | None:
    # Servers that have no limit say 0.
    limit = _number(headers.get(names.limit)) or None
    remaining = _number(headers.get(names.remaining))
    if limit is None and remaining is None:
        return None
    return Allowance(limit, remaining, reset_s)


def _number(value: bytes | None) -> float | None:
    if value is None or _NUMBER.fullmatch(value := value.strip()) is None:
        return None
    return float(value)


@lru_cache(maxsize=256)
def _span_s(value: bytes) -> float | None:
    """Read `6m0s`, `1h2m3.5s`, `20ms`, or plain seconds."""
    value = value.strip()
    seconds = _number(value)
    if seconds is None:
        found = _SPAN.fullmatch(value)
        if found is None or not value:
            return None
        seconds = sum(
            float(part) * part_s for part, part_s in zip(found.groups(), _PARTS_S, strict=True) if part
        )
    return seconds if seconds <= RESET_S_MAX else None


def _moment(value: bytes | None) -> float | None:
    """Read a moment of RFC 3339 into seconds since 1970; one without an offset is none."""
    try:
        at = datetime.fromisoformat((value or b"").strip().decode("ascii"))
    except ValueError:
        return None
    return at.timestamp() if at.tzinfo is not None else None


@lru_cache(maxsize=64)
def _date(value: bytes) -> float | None:
    # Kept, since all answers of one second say the same, and it takes longer than everything else here.
    try:
        at = parsedate_to_datetime(value.decode("latin-1"))
    except (ValueError, IndexError, OverflowError):
        return None
    return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()
