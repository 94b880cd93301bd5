"""What a caller is told of its key's limits: headers, the object, and a refusal with when to come again."""

import pytest

from tiergate.admission import Allowance, KeyLimits, RateLeft
from tiergate.core import RateLimited
from tiergate.web.ratelimits import duration_text, limits_object, rate_headers
from tiergate.web.statuses import answer_to

CALLS = RateLeft(limit=60, left=59, full_in_s=1.0)
TOKENS = RateLeft(limit=100_000, left=12, full_in_s=59.9928)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.12, "120ms"),
        (0.0000001, "1ms"),
        (0.9999, "1s"),
        (1.0, "1s"),
        (1.0000000001, "1s"),
        (7.66, "7.66s"),
        (59.9928, "59.993s"),
        (60, "1m0s"),
        (360, "6m0s"),
        (3_725.5, "1h2m5.5s"),
    ],
)
def test_a_length_of_time_is_written_as_openai_does(seconds: float, text: str) -> None:
    """Rounded up, so that whoever waits so long has waited long enough."""
    assert duration_text(seconds) == text


def test_headers_are_of_the_rates_that_a_key_has() -> None:
    """None for a key without rates, be it limited in places or not."""
    both = Allowance(limits=KeyLimits(rpm=60, tpm=100_000), calls=CALLS, tokens=TOKENS)
    assert dict(rate_headers(both)) == {
        b"x-ratelimit-limit-requests": b"60",
        b"x-ratelimit-remaining-requests": b"59",
        b"x-ratelimit-reset-requests": b"1s",
        b"x-ratelimit-limit-tokens": b"100000",
        b"x-ratelimit-remaining-tokens": b"12",
        b"x-ratelimit-reset-tokens": b"59.993s",
    }
    one = Allowance(limits=KeyLimits(rpm=60), calls=CALLS)
    assert {name.rpartition(b"-")[2] for name, _ in rate_headers(one)} == {b"requests"}
    assert rate_headers(Allowance(limits=KeyLimits(concurrency=3), places=1)) == rate_headers(None) == ()


def test_the_object_names_limits_as_the_settings_do() -> None:
    """With what is left of each."""
    limits = KeyLimits(rpm=60, concurrency=3, max_choices=4, max_reasoning_effort="low")
    found = limits_object(Allowance(limits=limits, calls=CALLS, places=1))
    assert found == {
        "limits": {
            "rpm": 60,
            "tpm": None,
            "concurrency": 3,
            "max_output_tokens": None,
            "max_choices": 4,
            "max_images": None,
            "max_reasoning_effort": "low",
        },
        "limits_left": {"rpm": 59, "tpm": None, "concurrency": 1},
    }
    assert set(limits_object(None)["limits"].values()) == {None}


@pytest.mark.parametrize(
    ("wait_s", "seconds", "milliseconds"),
    [
        (0.0001, b"1", b"1"),
        (0.5, b"1", b"500"),
        (1.0, b"1", b"1000"),
        (1.2, b"2", b"1200"),
        (900, b"60", b"60000"),
    ],
)
def test_a_refusal_says_when_to_come_again(wait_s: float, seconds: bytes, milliseconds: bytes) -> None:
    """Rounded up, at most a minute, and nothing keeps a client from trying again."""
    answer = answer_to(RateLimited("…", key="ci", limit="tpm", retry_after_s=wait_s))
    assert (answer.status, answer.code) == (429, "rate_limit_exceeded")
    assert b'"type":"rate_limit_error"' in answer.body
    assert dict(answer.headers) == {b"retry-after": seconds, b"retry-after-ms": milliseconds}
