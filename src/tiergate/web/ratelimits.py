"""What is left of a key's limits, as headers of the OpenAI kind and as an object."""

from dataclasses import asdict
from math import ceil
from typing import Any, Final

from tiergate.admission import Allowance, KeyLimits, RateLeft

Headers = tuple[tuple[bytes, bytes], ...]
RATE_HEADERS: Final = tuple(
    f"x-ratelimit-{part}-{what}"
    for part in ("limit", "remaining", "reset")
    for what in ("requests", "tokens")
)


def rate_headers(allowance: Allowance | None) -> Headers:
    """Give the headers of a key's rates; of one without rates there are none."""
    if allowance is None:
        return ()
    return (*_of(b"requests", allowance.calls), *_of(b"tokens", allowance.tokens))


def limits_object(allowance: Allowance | None) -> dict[str, Any]:
    """Give `limits`, and `limits_left` at this moment; null where there is no limit."""
    limits = KeyLimits() if allowance is None else allowance.limits
    calls, tokens, places = (
        (None, None, None) if allowance is None else (allowance.calls, allowance.tokens, allowance.places)
    )
    given = asdict(limits)
    del given["without_redis"]  # that is the operator's
    return {
        "limits": given,
        "limits_left": {
            "rpm": None if calls is None else calls.left,
            "tpm": None if tokens is None else tokens.left,
            "concurrency": places,
        },
    }


def duration_text(seconds: float) -> str:
    """Write a length of time as OpenAI's headers have it, rounded up to a millisecond.

    >>> duration_text(0.12), duration_text(1), duration_text(7.66), duration_text(360), duration_text(0)
    ('120ms', '1s', '7.66s', '6m0s', '0s')
    """
    # Parts of a millisecond that a float adds would round a whole number up.
    ms = ceil(seconds * 1e3 - 1e-6)
    if 0 < ms < 1_000:
        return f"{ms}ms"
    minutes, ms = divmod(ms, 60_000)
    shown = f"{ms / 1e3:g}s"
    return shown if not minutes else f"{minutes}m{shown}" if minutes < 60 else _hours(minutes, shown)


def _hours(minutes: int, shown: str) -> str:
    return f"{minutes // 60}h{minutes % 60}m{shown}"


def _of(what: bytes, left: RateLeft | None) -> Headers:
    if left is None:
        return ()
    return (
        (b"x-ratelimit-limit-" + what, b"%d" % left.limit),
        (b"x-ratelimit-remaining-" + what, b"%d" % left.left),
        (b"x-ratelimit-reset-" + what, duration_text(left.full_in_s).encode()),
    )
