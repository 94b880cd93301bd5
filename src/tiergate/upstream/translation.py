"""A provider's refusal in our words: every status becomes one leaf of the tree of errors.

Of what the provider wrote only one thing goes on: the message, field and code of a rejected request's
error object, because nobody could mend the request without it.
"""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from tiergate.core import (
    Delivery,
    Target,
    UpstreamAuthFailed,
    UpstreamError,
    UpstreamFault,
    UpstreamProtocolError,
    UpstreamRejected,
    UpstreamThrottled,
)
from tiergate.upstream.allowances import read_allowances
from tiergate.upstream.provider import Credential, Provider
from tiergate.wire import ErrorBody

DETAIL_CHARACTERS_MAX: Final = 500
RETRY_AFTER_S_MAX: Final = 86_400.0
"""A longer wait is taken for nonsense; a day is the longest window of any quota."""

_QUOTA_WORDS: Final = frozenset(
    {"insufficient_quota", "billing_not_active", "billing_hard_limit_reached", "credit_balance_exhausted"}
)
_THROTTLE_WORDS: Final = frozenset({"rate_limit_exceeded", "rate_limit_error", "rate_limit_reached"})

_UNKNOWN_KEY: Final = (
    "it does not know this key: mistyped, revoked or of another account",
    "set a valid key",
)
_REVOKED: Final = ("the key was revoked", "make a new one at the provider")
_EXPIRED: Final = ("the key has expired", "make a new one at the provider")
_NOT_ACTIVE: Final = ("the key or its account is not active", "activate it at the provider")
_NO_PERMISSION: Final = ("the key lacks a permission that this call needs", "grant it at the provider")
_WRONG_PLACE: Final = ("it does not serve the country or address that we call from", "ask the provider")

_AUTH_REASONS: Final = {
    "invalid_api_key": _UNKNOWN_KEY,
    "incorrect_api_key": _UNKNOWN_KEY,
    "api_key_invalid": _UNKNOWN_KEY,
    "authentication_error": _UNKNOWN_KEY,
    "invalid_authentication": _UNKNOWN_KEY,
    "invalid_organization": _UNKNOWN_KEY,
    "invalid_token": _UNKNOWN_KEY,
    "unauthorized": _UNKNOWN_KEY,
    "api_key_revoked": _REVOKED,
    "key_revoked": _REVOKED,
    "token_revoked": _REVOKED,
    "api_key_expired": _EXPIRED,
    "expired_api_key": _EXPIRED,
    "token_expired": _EXPIRED,
    "account_deactivated": _NOT_ACTIVE,
    "account_suspended": _NOT_ACTIVE,
    "api_key_disabled": _NOT_ACTIVE,
    "billing_not_active": _NOT_ACTIVE,
    "inactive_api_key": _NOT_ACTIVE,
    "organization_deactivated": _NOT_ACTIVE,
    "access_denied": _NO_PERMISSION,
    "insufficient_permissions": _NO_PERMISSION,
    "missing_scope": _NO_PERMISSION,
    "permission_denied": _NO_PERMISSION,
    "permission_error": _NO_PERMISSION,
    "ip_not_authorized": _WRONG_PLACE,
    "unsupported_country_region_territory": _WRONG_PLACE,
}
_KEY_NOT_ACCEPTED: Final = (
    "it did not accept the key: mistyped, revoked or not yet active",
    "set a valid key",
)

_BAD_KEY_MESSAGES: Final = ("API key not valid", "Incorrect API key provided")
"""Gemini and xAI say of a bad key that the request is bad (400), and only the message tells."""

_WELL_FORMED_KEY: Final = re.compile(r"[0-9A-Za-z._~+/=:|-]{4,}")
_LOOKS_LIKE_A_KEY: Final = re.compile(
    r"\b(?:sk-|pk-|rk-|csk-|xai-|nvapi-|gsk_|hf_|tgp_|fw_)[0-9A-Za-z_*.-]{6,}"
    r"|\bAIza[0-9A-Za-z_-]{10,}"
    r"|\b(?:[Bb]earer|[Bb]asic)\s+\S+"
    r"|\b(?=[A-Za-z]*[0-9])(?=[0-9]*[A-Za-z])[0-9A-Za-z]{32,}"
)
_UNSEEN: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]+")
_SHOULD_RETRY: Final = {b"true": True, b"false": False}
_NUMBER: Final = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,12})?", re.ASCII)


def refusal(
    status: int,
    headers: Mapping[bytes, bytes],
    said: ErrorBody | None,
    *,
    target: Target,
    provider: Provider,
) -> UpstreamError:
    """Translate an answer that is not a success.

    Args:
        status: anything but 200 to 299.
        headers: the answer's, names in lower case.
        said: its error object, if it had one that could be read.
        target: what was asked.
        provider: who was asked.
    """
    assert not 200 <= status < 300
    error = _leaf(status, headers, said or ErrorBody(None), target, provider)
    error.target = target.name
    error.delivery = Delivery.CONFIRMED
    error.status = status
    error.allowances = read_allowances(headers)
    error.should_retry = _SHOULD_RETRY.get(headers.get(b"x-should-retry", b"").strip().lower())
    if isinstance(error, UpstreamFault) and status >= 500:
        error.retry_after_s = retry_after_s(headers)
    return error


def error_in_success(
    status: int,
    headers: Mapping[bytes, bytes],
    said: ErrorBody,
    *,
    target: Target,
    provider: Provider,
) -> UpstreamError:
    """Translate an error object that came with a status of success; its code may hold the true status."""
    if said.code is not None and re.fullmatch("[45][0-9]{2}", said.code, re.ASCII):
        return refusal(int(said.code), headers, said, target=target, provider=provider)
    if {said.code, said.type} & (_QUOTA_WORDS | _THROTTLE_WORDS):
        return refusal(429, headers, said, target=target, provider=provider)
    return UpstreamFault(
        f"{provider.name} reported an error in place of an answer.",
        target=target.name,
        delivery=Delivery.CONFIRMED,
        status=status,
    )


def retry_after_s(headers: Mapping[bytes, bytes]) -> float | None:
    """Read how long the provider asks us to wait: `retry-after-ms`, else a number, else a date.

    A date is measured against the same answer's own Date, since no two clocks agree. What cannot be meant
    (negative, not a number, more than a day, past) is as if it were not there.
    """
    milliseconds = _number(headers.get(b"retry-after-ms"))
    if milliseconds is not None and milliseconds / 1000 <= RETRY_AFTER_S_MAX:
        return milliseconds / 1000
    said = headers.get(b"retry-after")
    seconds = _number(said)
    if seconds is None:
        at, now = _date(said), _date(headers.get(b"date"))
        seconds = (at - now).total_seconds() if at is not None and now is not None else None
    return seconds if seconds is not None and 0 <= seconds <= RETRY_AFTER_S_MAX else None


def _leaf(
    status: int, headers: Mapping[bytes, bytes], said: ErrorBody, target: Target, provider: Provider
) -> UpstreamError:
    name, words = provider.name, {_word(said.code), _word(said.type)}
    match status:
        case 401 | 403:
            return UpstreamAuthFailed(_auth_sentence(status, words, provider))
        case 402:
            return _out_of_quota(status, headers, name)
        case 429:
            if words & _QUOTA_WORDS:
                return _out_of_quota(status, headers, name)
            wait_s = retry_after_s(headers)
            after = f" and asks to wait {wait_s:g} s" if wait_s is not None else ""
            return UpstreamThrottled(f"{name} throttles us (429){after}.", retry_after_s=wait_s)
        case 404:
            return UpstreamFault(
                f"{name} has no model {target.model!r}, or not at this address (404); "
                f"check the model's targets and the provider's base_url."
            )
        case 408 | 409 | 425:
            return UpstreamFault(f"{name} could not carry out the request now ({status}).")
        case _ if 500 <= status < 600:
            return UpstreamFault(f"{name} failed on its own side ({status}).")
        case 400 if (said.message or "").startswith(_BAD_KEY_MESSAGES):
            return UpstreamAuthFailed(_auth_sentence(status, {"invalid_api_key"}, provider))
        case _ if 400 <= status < 500:
            return _rejected(status, said, target, provider)
        case _ if 300 <= status < 400:
            return UpstreamProtocolError(
                f"{name} answered with a redirect ({status}), which is refused: "
                f"a credential goes only where the settings say. Correct its base_url."
            )
        case _:
            return UpstreamProtocolError(f"{name} answered with status {status}, which is no answer.")


def _auth_sentence(status: int, words: set[str], provider: Provider) -> str:
    credential = provider.credential
    if credential is None:
        return (
            f"{provider.name} wants a key and none is set ({status}). "
            f"Set api_keys of provider {provider.name}."
        )
    why, advice = _auth_reason(status, words, credential)
    return (
        f"{provider.name} refused our key {credential.shown} ({status}): {why}. "
        f"What to do: {advice} (api_keys of provider {provider.name})."
    )


def _auth_reason(status: int, words: set[str], credential: Credential) -> tuple[str, str]:
    if not _WELL_FORMED_KEY.fullmatch(credential.secret):
        return "the key is malformed: it has characters that no key has", "set the key alone, without quotes"
    for word in sorted(words):
        if word in _AUTH_REASONS:
            return _AUTH_REASONS[word]
    return _NO_PERMISSION if status == 403 else _KEY_NOT_ACCEPTED


def _out_of_quota(status: int, headers: Mapping[bytes, bytes], name: str) -> UpstreamThrottled:
    return UpstreamThrottled(
        f"{name} says that our quota or credit there is used up ({status}); raise it at the provider.",
        retry_after_s=retry_after_s(headers),
        quota=True,
    )


def _rejected(status: int, said: ErrorBody, target: Target, provider: Provider) -> UpstreamRejected:
    detail = _shown(said.message, provider, DETAIL_CHARACTERS_MAX)
    why = f": {detail}" if detail else f" ({status}) without saying why."
    return UpstreamRejected(
        f"{target.name} rejected the request{why}",
        status=status,
        param=_shown(said.param, provider, 200),
        upstream_code=_shown(said.code, provider, 100),
    )


def _shown(text: str | None, provider: Provider, characters_max: int) -> str | None:
    """Make a provider's words fit to be passed on: one line, short, nothing that could be a key."""
    if text is None:
        return None
    # Cut first, with room for the last word: masking takes time by length, and an upstream sets the length.
    text = text[: 4 * characters_max]
    for credential in provider.credentials:
        text = text.replace(credential.secret, "[key]")
    text = _LOOKS_LIKE_A_KEY.sub("[key]", _UNSEEN.sub(" ", text)).strip()
    return text if len(text) <= characters_max else f"{text[: characters_max - 1]}…"


def _word(text: str | None) -> str:
    return (text or "")[:100].lower()


def _number(value: bytes | None) -> float | None:
    text = (value or b"").decode("latin-1").strip()
    if not _NUMBER.fullmatch(text):
        return None
    number = float(text)
    return number if math.isfinite(number) else None


def _date(value: bytes | None) -> datetime | None:
    try:
        date = parsedate_to_datetime((value or b"").decode("latin-1"))
    except (ValueError, IndexError, OverflowError):
        return None
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)
