"""From a request to a call: what the headers say about one, checked and bounded."""

from collections.abc import Callable
from math import isfinite
from typing import TypeVar

from tiergate.core import Call, CallClass, Caller, DataClass, InvalidRequest, checked_idempotency_key
from tiergate.wire import ChatQuestion

_TAG_MAX = 128
_DEADLINE_MS_MAX = 7 * 86_400_000

Word = TypeVar("Word", CallClass, DataClass)
Header = Callable[[bytes], str | None]
"""Gives a header's value by its lower-case name; None where it is absent."""


def call_of(
    question: ChatQuestion,
    *,
    call_id: str,
    caller: Caller,
    endpoint: str,
    header: Header,
    cache_control: str | None,
    body_bytes: int,
    wall_ns: int,
    monotonic: float,
) -> Call:
    """Put a question, its caller and its headers together.

    Raises:
        InvalidRequest: a header of ours has a value that cannot be; `param` is the header's name.
    """
    read_timeout_s = _stainless_read_timeout_s(header(b"x-stainless-read-timeout"))
    deadline_s = _deadline_s(header(b"x-tiergate-deadline-ms"))
    return Call(
        id=call_id,
        caller=caller,
        endpoint=endpoint,
        asked_model=question.model,
        body=question.body,
        prompt_bytes=body_bytes,
        streamed=question.streamed,
        received_ns=wall_ns,
        received=monotonic,
        call_class=_word(header, b"x-tiergate-class", CallClass, CallClass.INTERACTIVE),
        # A header only tightens what the key says.
        data_class=_word(header, b"x-tiergate-data", DataClass, DataClass.ANY).stricter(caller.data_class),
        time_limit_s=_shortest(deadline_s, None if question.streamed else read_timeout_s),
        first_event_limit_s=read_timeout_s if question.streamed else None,
        tag=_tag(header(b"x-tiergate-tag")),
        is_sent_again=header(b"x-stainless-retry-count") not in (None, "0"),
        cache_control=cache_control,
        idempotency_key=checked_idempotency_key(header(b"idempotency-key")),
    )


def _word(header: Header, name: bytes, words: type[Word], default: Word) -> Word:
    value = header(name)
    if value is None:
        return default
    try:
        return words(value.strip().lower())
    except ValueError as error:
        allowed = " or ".join(word.value for word in words)
        raise InvalidRequest(f"The header {name.decode()} must be {allowed}.", param=name.decode()) from error


def _deadline_s(value: str | None) -> float | None:
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and len(value) <= 12 and 1 <= int(value) <= _DEADLINE_MS_MAX):
        raise InvalidRequest(
            "The header x-tiergate-deadline-ms must be a whole number of milliseconds, at least 1.",
            param="x-tiergate-deadline-ms",
        )
    return int(value) / 1000


def _stainless_read_timeout_s(value: str | None) -> float | None:
    """Read how long an official client waits, less a second for the way back; nonsense is no limit."""
    try:
        seconds = float(value) if value is not None else None
    except ValueError:
        return None
    return seconds - 1 if seconds is not None and isfinite(seconds) and seconds > 1 else None


def _shortest(*limits_s: float | None) -> float | None:
    return min([limit for limit in limits_s if limit is not None], default=None)


def _tag(value: str | None) -> str | None:
    if value is None:
        return None
    if not (1 <= len(value) <= _TAG_MAX and value.isascii() and value.isprintable()):
        raise InvalidRequest(
            f"The header x-tiergate-tag must be 1 to {_TAG_MAX} printable ASCII characters.",
            param="x-tiergate-tag",
        )
    return value
