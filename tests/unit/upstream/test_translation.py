"""Every status and every failure of a connection becomes exactly one leaf of the tree of errors."""

import errno
import re
import socket
import ssl
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiergate.core import (
    Delivery,
    Target,
    Tier,
    UpstreamAuthFailed,
    UpstreamError,
    UpstreamFault,
    UpstreamInterrupted,
    UpstreamProtocolError,
    UpstreamRejected,
    UpstreamThrottled,
    UpstreamUnreachable,
)
from tiergate.upstream import Credential, Provider, failures
from tiergate.upstream.translation import error_in_success, refusal, retry_after_s
from tiergate.wire import ErrorBody

SECRET = "sk-acme-0123456789abcdefXYZ9"
ACME = Provider(
    name="acme",
    tier=Tier.HOSTED,
    base_urls=("https://api.acme.example/v1",),
    credentials=(Credential(id="first", secret=SECRET),),
)
TARGET = Target(provider="acme", model="big-1", tier=Tier.HOSTED)


def translated(status: int, said: ErrorBody | None = None, provider: Provider = ACME, **headers: str) -> Any:
    raw = {name.replace("_", "-").encode(): value.encode("latin-1") for name, value in headers.items()}
    return refusal(status, raw, said, target=TARGET, provider=provider)


def expected(status: int) -> type[UpstreamError]:
    match status:
        case 401 | 403:
            return UpstreamAuthFailed
        case 402 | 429:
            return UpstreamThrottled
        case 404 | 408 | 409 | 425:
            return UpstreamFault
        case _ if 400 <= status < 500:
            return UpstreamRejected
        case _ if 500 <= status < 600:
            return UpstreamFault
        case _:
            return UpstreamProtocolError


EVERY_REFUSAL = [status for status in range(100, 600) if not 200 <= status < 300]


@pytest.mark.parametrize("said", [None, ErrorBody("words of theirs", "some_type", "a_field", "some_code")])
def test_every_status_is_one_leaf_with_its_facts(said: ErrorBody | None) -> None:
    """All statuses of HTTP: kind, target, status, delivery; the provider's words only in a rejection."""
    for status in EVERY_REFUSAL:
        error = translated(status, said)
        assert type(error) is expected(status), status
        assert (error.target, error.status, error.delivery) == ("acme/big-1", status, Delivery.CONFIRMED)
        assert error.elsewhere is (type(error) is not UpstreamRejected)
        shows = "words of theirs" in str(error)
        assert shows is (said is not None and type(error) is UpstreamRejected), status
        assert SECRET not in str(error)


@pytest.mark.parametrize(
    ("said", "read"), [("true", True), (" FALSE ", False), ("", None), ("1", None), ("never", None)]
)
@pytest.mark.parametrize("status", [400, 408, 429, 500, 529])
def test_what_a_provider_says_of_trying_again_is_read(status: int, said: str, read: bool | None) -> None:
    """F17: one of two words, whatever the status; anything else is as if it were not there."""
    assert translated(status, x_should_retry=said).should_retry is read


@pytest.mark.parametrize("status", [600, 999, 99, 0])
def test_a_status_that_is_none_is_a_protocol_error(status: int) -> None:
    """Three digits are not a status yet."""
    assert type(translated(status)) is UpstreamProtocolError


def test_a_success_is_no_refusal() -> None:
    """Asking is a mistake of ours."""
    for status in range(200, 300):
        with pytest.raises(AssertionError):
            translated(status)


# Keys


@pytest.mark.parametrize(
    ("status", "word", "reason"),
    [
        (401, "invalid_api_key", "does not know this key"),
        (401, "INVALID_API_KEY", "does not know this key"),
        (401, "api_key_revoked", "revoked"),
        (401, "api_key_expired", "expired"),
        (401, "account_deactivated", "not active"),
        (401, None, "did not accept the key"),
        (401, "never_heard_of", "did not accept the key"),
        (403, "insufficient_permissions", "lacks a permission"),
        (403, "unsupported_country_region_territory", "country or address"),
        (403, None, "lacks a permission"),
    ],
)
def test_a_refused_key_says_which_why_and_what_to_do(status: int, word: str | None, reason: str) -> None:
    """Provider, last four characters, reason, advice; the reason from code or type alike."""
    for said in (ErrorBody("m", None, None, word), ErrorBody("m", word, None, None)):
        error = translated(status, said)
        assert type(error) is UpstreamAuthFailed
        text = str(error)
        assert "acme" in text and "…XYZ9" in text and reason in text and "What to do" in text
        assert SECRET[:-4] not in text


def test_a_key_that_cannot_be_one_is_called_malformed() -> None:
    """Quotes that were pasted along are ours to see."""
    for secret in ('"sk-acme-0123456789abcdef"', "Bearer sk-acme-0123456789", "${ACME_KEY}"):
        provider = Provider(
            name="acme",
            tier=Tier.HOSTED,
            base_urls=("https://api.acme.example/v1",),
            credentials=(Credential(id="first", secret=secret),),
        )
        assert "malformed" in str(translated(401, provider=provider))


def test_a_missing_key_is_called_missing() -> None:
    """A server that wants a key where none is set."""
    bare = Provider(name="rack", tier=Tier.PRIVATE, base_urls=("http://rack:8000/v1",))
    text = str(translated(401, provider=bare))
    assert "none is set" in text and "api_keys" in text


def test_a_short_key_shows_nothing_of_itself() -> None:
    """Four of eight characters would be half of it."""
    assert Credential(id="x", secret="12345678").shown == "…"
    assert Credential(id="x", secret=SECRET).shown == "…XYZ9"


@pytest.mark.parametrize(
    "message", ["API key not valid. Please pass a valid API key.", "Incorrect API key provided: ab***yz."]
)
def test_a_bad_key_that_is_called_a_bad_request_is_a_bad_key(message: str) -> None:
    """Gemini and xAI answer 400; the caller could not mend that, another target can serve."""
    assert type(translated(400, ErrorBody(message))) is UpstreamAuthFailed


# Waiting


@pytest.mark.parametrize("word", ["insufficient_quota", "billing_not_active", "credit_balance_exhausted"])
def test_a_spent_quota_is_told_from_a_rate(word: str) -> None:
    """F14: by code or type; 402 always."""
    for said in (ErrorBody("m", word), ErrorBody("m", None, None, word)):
        assert translated(429, said).quota is True
    assert translated(429, ErrorBody("m", None, None, "rate_limit_exceeded")).quota is False
    assert translated(402).quota is True


NOW = "Thu, 01 Jan 2026 12:00:00 GMT"


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({}, None),
        ({"retry_after": "7"}, 7.0),
        ({"retry_after": " 7 "}, 7.0),
        ({"retry_after": "0"}, 0.0),
        ({"retry_after": "1.5"}, 1.5),
        ({"retry_after": "86400"}, 86400.0),
        ({"retry_after": "86401"}, None),
        ({"retry_after": "1000000000000"}, None),
        ({"retry_after": "99999999999999999999999999"}, None),
        ({"retry_after": "-1"}, None),
        ({"retry_after": "nan"}, None),
        ({"retry_after": "inf"}, None),
        ({"retry_after": "1e3"}, None),
        ({"retry_after": "1_0"}, None),
        ({"retry_after": "+5"}, None),
        ({"retry_after": "soon"}, None),
        ({"retry_after": ""}, None),
        ({"retry_after_ms": "250"}, 0.25),
        ({"retry_after_ms": "250", "retry_after": "7"}, 0.25),
        ({"retry_after_ms": "nan", "retry_after": "7"}, 7.0),
        ({"retry_after_ms": "-5", "retry_after": "7"}, 7.0),
        ({"retry_after_ms": "99999999999", "retry_after": "7"}, 7.0),
        ({"retry_after": "Thu, 01 Jan 2026 12:00:30 GMT", "date": NOW}, 30.0),
        ({"retry_after": "Thursday, 01-Jan-26 12:00:30 GMT", "date": NOW}, 30.0),
        ({"retry_after": "Thu Jan  1 12:00:30 2026", "date": NOW}, 30.0),
        ({"retry_after": NOW, "date": NOW}, 0.0),
        ({"retry_after": "Thu, 01 Jan 2026 11:59:59 GMT", "date": NOW}, None),
        ({"retry_after": "Thu, 01 Jan 2099 12:00:00 GMT", "date": NOW}, None),
        ({"retry_after": "Thu, 01 Jan 2026 12:00:30 GMT"}, None),
        ({"retry_after": "Thu, 01 Jan 2026 12:00:30 GMT", "date": "yesterday"}, None),
        ({"retry_after": "Thu, 99 Jan 2026 12:00:30 GMT", "date": NOW}, None),
    ],
)
def test_the_wait_is_milliseconds_then_a_number_then_a_date(
    headers: dict[str, str], wait_s: float | None
) -> None:
    """F13: by precedence, a date against the answer's own Date, nonsense as if it were not there."""
    assert translated(429, **headers).retry_after_s == wait_s


@settings(deadline=None)
@given(st.binary(max_size=60), st.binary(max_size=60), st.binary(max_size=60))
def test_no_header_breaks_the_reading_of_the_wait(milliseconds: bytes, after: bytes, date: bytes) -> None:
    """Whatever the bytes: a wait within a day, or none."""
    wait_s = retry_after_s({b"retry-after-ms": milliseconds, b"retry-after": after, b"date": date})
    assert wait_s is None or 0 <= wait_s <= 86_400


# Words that go on


def test_a_rejection_carries_message_field_and_code() -> None:
    """Without them nobody could mend the request."""
    error = translated(400, ErrorBody("temperature must be at most 2", "t", "temperature", "out_of_range"))
    assert str(error) == "acme/big-1 rejected the request: temperature must be at most 2"
    assert (error.param, error.upstream_code) == ("temperature", "out_of_range")


def test_a_rejection_without_words_says_so() -> None:
    """A page or nothing in place of an error object."""
    assert str(translated(422)) == "acme/big-1 rejected the request (422) without saying why."
    assert translated(422).param is None


def test_words_are_cut_and_cleaned() -> None:
    """At most 500 characters, on one line, nothing that a terminal obeys or that hides."""
    message = "a\x1b[31mb\r\n2026 INFO forged\x00 \u202etxt\u200b " + "x " * 5000
    text = str(translated(400, ErrorBody(message))).removeprefix("acme/big-1 rejected the request: ")
    assert len(text) == 500 and text.endswith("…")
    assert re.search(r"[\x00-\x1f\x7f-\x9f\u200b\u202e]", text) is None


@pytest.mark.parametrize(
    "leak",
    [
        SECRET,
        f"key={SECRET}!",
        "sk-proj-abcDEF123_456-xyz",
        "sk-ab****wxyz",
        "gsk_0123456789abcdefABCDEF",
        "xai-0123456789abcdef",
        "hf_abcdefghijklmnop",
        "AIzaSyA1234567890abcdefghij",
        "Bearer abc.def.ghi",
        "authorization: bearer abcdef",
        "0123456789abcdef0123456789abcdef",
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9",
    ],
)
@pytest.mark.parametrize("field", ["message", "param", "code"])
def test_what_looks_like_a_key_is_masked(leak: str, field: str) -> None:
    """I12: in every field that goes on."""
    said = ErrorBody(**{"message": "m", field: f"Bad thing {leak} here"})
    error = translated(400, said)
    shown = f"{error} {error.param} {error.upstream_code}"
    assert "[key]" in shown and "here" in shown
    assert leak.rsplit(maxsplit=1)[-1].strip("!").removeprefix("key=") not in shown


@pytest.mark.parametrize(
    "words",
    [
        "Unsupported value: 'messages[0].role' does not support 'tool' with this model.",
        "This model's maximum context length is 131072 tokens, your messages resulted in 140001 tokens.",
        "model claude-3-5-sonnet-20241022 and meta-llama/Llama-3.3-70B-Instruct-Turbo take no logit_bias",
        "Unknown parameter: 'key_metadata'. risk-averse hf-internal-testing basic_usage",
    ],
)
def test_plain_words_are_not_masked(words: str) -> None:
    """Model names, fields and numbers are what the caller needs."""
    assert str(translated(400, ErrorBody(words))).endswith(words)


def test_our_own_key_is_masked_though_it_looks_like_none() -> None:
    """I12: keys of servers of one's own are any words."""
    credential = Credential(id="first", secret="open sesame")
    provider = replace(ACME, credentials=(*ACME.credentials, credential))
    for field in ("message", "param", "code"):
        said = ErrorBody(**{"message": "m", field: "Not open sesame here"})
        error = translated(400, said, provider)
        shown = f"{error} {error.param} {error.upstream_code}"
        assert "Not [key] here" in shown and "sesame" not in shown


def test_a_key_that_is_cut_is_not_shown_in_half() -> None:
    """Masked before it is cut to length."""
    message = "x" * 480 + " " + SECRET
    assert SECRET[:8] not in str(translated(400, ErrorBody(message)))


@settings(deadline=None)
@given(st.text(max_size=3000), st.text(max_size=300), st.text(max_size=300))
def test_no_words_break_the_translation(message: str, param: str, code: str) -> None:
    """Whatever is said: bounded, on one line, without our key."""
    error = translated(400, ErrorBody(f"{message}{SECRET}", None, param, code))
    assert len(str(error)) < 600 and "\n" not in str(error)
    assert SECRET not in str(error)
    assert len(error.param or "") <= 200 and len(error.upstream_code or "") <= 100


# Errors in a success


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (ErrorBody("m", code="429"), UpstreamThrottled),
        (ErrorBody("m", code="502"), UpstreamFault),
        (ErrorBody("m", code="400"), UpstreamRejected),
        (ErrorBody("m", code="401"), UpstreamAuthFailed),
        (ErrorBody("m", code="200"), UpstreamFault),
        (ErrorBody("m", code="x429"), UpstreamFault),
        (ErrorBody("m", type="insufficient_quota"), UpstreamThrottled),
        (ErrorBody("m", code="rate_limit_exceeded"), UpstreamThrottled),
        (ErrorBody("words of theirs"), UpstreamFault),
        (ErrorBody(None), UpstreamFault),
    ],
)
def test_an_error_object_in_a_success_is_read_by_its_code(said: ErrorBody, kind: type[UpstreamError]) -> None:
    """F12: its code may be the true status; else the provider is at fault."""
    error = error_in_success(200, {}, said, target=TARGET, provider=ACME)
    assert type(error) is kind
    assert (error.target, error.delivery) == ("acme/big-1", Delivery.CONFIRMED)
    assert "words of theirs" not in str(error)


# Connections


def verification_error(message: str) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_message = message
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('10.0.0.7', 8000)"),
            "refused the connection",
        ),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "could not be resolved"),
        (UnicodeError("label empty or too long"), "could not be resolved"),
        (verification_error("certificate has expired"), "certificate has expired"),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER]"), "TLS"),
        (ConnectionResetError(errno.ECONNRESET, "reset"), "closed the connection before"),
        (ConnectionAbortedError(), "closed the connection before"),
        (OSError(errno.EHOSTUNREACH, "10.0.0.7"), "No route to host"),
        (OSError(errno.ENETUNREACH, "10.0.0.7"), "Network is unreachable"),
        (OSError(errno.EMFILE, "Too many open files"), "no file descriptor"),
        (OSError("Multiple exceptions: 10.0.0.7"), "could not be reached"),
    ],
)
def test_every_failure_to_connect_is_unreachable_and_not_delivered(
    error: OSError | UnicodeError, words: str
) -> None:
    """F01, F03: with a sentence that says why and no address."""
    got = failures.unreachable("acme", error)
    assert type(got) is UpstreamUnreachable
    assert got.delivery is Delivery.NONE
    assert words in str(got) and str(got).startswith("acme ")
    assert "10.0.0.7" not in str(got)


@pytest.mark.parametrize("phase", ["connect", "pool", "first_event", "idle", "total"])
def test_every_phase_of_a_timeout_has_its_sentence(phase: str) -> None:
    """The phases that core/errors names, each."""
    error = failures.too_slow("acme", phase, Delivery.POSSIBLE)
    assert (error.phase, error.delivery) == (phase, Delivery.POSSIBLE)
    assert str(error).startswith("acme ")


def test_a_break_says_whether_the_request_may_have_been_received() -> None:
    """What the ledger needs is in the sentence, too."""
    before = failures.interrupted("acme", Delivery.POSSIBLE)
    after = failures.interrupted("acme", Delivery.CONFIRMED, ConnectionResetError())
    assert type(before) is type(after) is UpstreamInterrupted
    assert "may have been received" in str(before)
    assert "before the answer's end" in str(after)
