"""Usage objects: what providers report, read into disjoint buckets, and written with their cost."""

import json
from typing import Any

import pytest

from tiergate.core import Usage
from tiergate.wire import dumps, read_reply, usage_object, with_cost, write_done, write_piece


def read_usage(said: object) -> Usage | None:
    return read_reply(dumps({"choices": [{"index": 0}], "usage": said})).usage


def reported(prompt: Any, completion: Any, total: Any = None, **details: Any) -> dict[str, Any]:
    usage = {"prompt_tokens": prompt, "completion_tokens": completion}
    if total is not None:
        usage["total_tokens"] = total
    parts = {
        "prompt_tokens_details": {"cached_tokens": "cached", "audio_tokens": "audio_in"},
        "completion_tokens_details": {"reasoning_tokens": "reasoning", "audio_tokens": "audio_out"},
    }
    for name, fields in parts.items():
        usage[name] = {field: details[key] for field, key in fields.items() if key in details}
    return usage


GOLDEN: list[tuple[object, Usage | None]] = [
    # As the dialect says it.
    (reported(10, 5, 15), Usage(input=10, output=5)),
    (reported(10, 5), Usage(input=10, output=5)),
    (reported(10, 5, 15, cached=4), Usage(input=6, cache_read=4, output=5)),
    (reported(10, 5, 15, reasoning=3), Usage(input=10, output=2, reasoning=3)),
    (
        reported(10, 9, 19, cached=4, audio_in=2, reasoning=3, audio_out=1),
        Usage(input=4, cache_read=4, audio_in=2, output=5, reasoning=3, audio_out=1),
    ),
    (reported(10, 5, 15, cached=10, reasoning=5), Usage(cache_read=10, reasoning=5)),
    (reported(0, 0, 0), Usage()),
    ({"prompt_tokens": 8, "total_tokens": 8}, Usage(input=8)),
    ({"prompt_tokens": 8, "completion_tokens": None, "total_tokens": 8}, Usage(input=8)),
    # Floats that are whole numbers; details that are null or odd.
    (reported(10.0, 5.0), Usage(input=10, output=5)),
    (reported(10, 5, cached=None, reasoning=None), Usage(input=10, output=5)),
    (
        {**reported(10, 5), "prompt_tokens_details": None, "completion_tokens_details": []},
        Usage(input=10, output=5),
    ),
    # Reasoning beside completion_tokens (xAI), also where no part says so (Gemini): generated, and billed.
    (reported(32, 9, 135, reasoning=94), Usage(input=32, output=9, reasoning=94)),
    (
        reported(10120, 1499, 14428, cached=128, reasoning=2809),
        Usage(input=9992, cache_read=128, output=1499, reasoning=2809),
    ),
    (reported(20, 198, 623), Usage(input=20, output=603)),
    # A total that is too small is a server's slip; the parts count.
    (reported(10, 5, 0), Usage(input=10, output=5)),
    (reported(10, 5, 12), Usage(input=10, output=5)),
    # Absent.
    (None, None),
    ({}, None),
    ([], None),
    ("12", None),
    (12, None),
    ({"total_tokens": 12}, None),
    ({"prompt_tokens": 12}, None),
    ({"completion_tokens": 12}, None),
    ({"prompt_tokens": None, "completion_tokens": None, "total_tokens": None}, None),
    # Nonsense: better bounded than wrong.
    (reported(-1, 5), None),
    (reported(10, -5), None),
    (reported(10**12, 5), None),
    (reported(10, 10**30), None),
    (reported(True, 5), None),
    (reported(10, "5"), None),
    (reported(10.5, 5), None),
    (reported(10, 5, -15), None),
    (reported(10, 5, 10**12), None),
    (reported(10, 5, cached=-1), None),
    (reported(10, 5, cached="4"), None),
    (reported(10, 5, cached=11), None),
    (reported(10, 5, cached=6, audio_in=5), None),
    (reported(10, 5, reasoning=6), None),
    (reported(10, 5, reasoning=3, audio_out=3), None),
]


@pytest.mark.parametrize(("said", "read"), GOLDEN)
def test_what_a_provider_reports(said: object, read: Usage | None) -> None:
    """The golden table: every token in one bucket, absent and absurd reports are none."""
    assert read_usage(said) == read


def test_usage_is_said_again_in_the_words_of_the_dialect() -> None:
    """What we write, we read back equal, where the dialect has a word for it."""
    usage = Usage(input=6, cache_read=4, output=2, reasoning=3)
    assert usage_object(usage) == {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "total_tokens": 15,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }
    for said in (usage, Usage(), Usage(input=1, output=1)):
        assert read_usage(usage_object(said)) == said


@pytest.mark.parametrize(("cash_nanos", "written"), [(42_001, b"0.000042001"), (0, b"0"), (None, b"null")])
def test_the_cost_stands_in_the_usage(cash_nanos: int | None, written: bytes) -> None:
    """A number with up to nine decimals; null while the price is unknown, never zero; the rest as it came."""
    data = b'{"x":[1.0,null],"usage":{"total_tokens":1,"y":{}},"z":""}'
    expected = b'{"x":[1.0,null],"usage":{"total_tokens":1,"y":{},"cost":' + written + b'},"z":""}'
    assert with_cost(data, cash_nanos) == expected


def test_an_upstreams_own_cost_is_replaced_by_ours() -> None:
    """One word, one meaning."""
    assert with_cost(b'{"usage":{"cost":9}}', 500_000_000) == b'{"usage":{"cost":0.5}}'


@pytest.mark.parametrize("data", [b'{"a": 1}', b'{"usage": null}', b'{"usage": []}', b"[]", b"<html>"])
def test_where_there_is_no_usage_nothing_is_changed(data: bytes) -> None:
    """Not one byte, whatever it is."""
    assert with_cost(data, 1_000_000_000) == data


def test_the_plain_stream_ends_with_the_account() -> None:
    """One `content` per piece, then `done`; unknown cost and usage are null."""
    assert write_piece('a"\n') == b'data: {"content":"a\\"\\n"}\n\n'
    written = write_done(
        usage=Usage(input=1, output=2), ttft_ms=1.23456, latency_ms=10, cash_nanos=250_000_000
    )
    assert json.loads(written.removeprefix(b"data: ")) == {
        "done": True,
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
        "ttft_ms": 1.235,
        "latency_ms": 10,
        "cost_usd": 0.25,
    }
    unknown = json.loads(
        write_done(usage=None, ttft_ms=0, latency_ms=0, cash_nanos=None).removeprefix(b"data: ")
    )
    assert (unknown["usage"], unknown["cost_usd"]) == (None, None)
