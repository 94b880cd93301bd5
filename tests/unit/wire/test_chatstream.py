"""The judgement about streams: which end is the end of an answer, and which failure breaks it."""

import json

import pytest

from tiergate.core import (
    UpstreamError,
    UpstreamFault,
    UpstreamInterrupted,
    UpstreamProtocolError,
    UpstreamThrottled,
)
from tiergate.wire import ChatStream

WORD = b'data: {"choices":[{"index":0,"delta":{"content":"word"}}]}\n\n'
STOP = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
STOP_2 = STOP.replace(b'"index":0', b'"index":1')
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}\n\n'
DONE = b"data: [DONE]\n\n"


def error(name: bytes = b"", **said: object) -> bytes:
    return name + b"data: " + json.dumps({"error": said}).encode() + b"\n\n"


@pytest.mark.parametrize(
    ("stream", "choices", "warnings"),
    [
        (WORD + STOP + DONE, 1, ()),
        (WORD + STOP + USAGE + DONE, 1, ()),
        (WORD + DONE, 1, ()),
        (DONE, 1, ()),
        (WORD + STOP, 1, ("no_done_marker",)),
        (WORD + STOP + USAGE, 1, ("no_done_marker",)),
        (STOP + STOP_2, 2, ("no_done_marker",)),
        (STOP + DONE, 2, ()),
        (
            b'data: {"choices":[{"finish_reason":"stop"},{"index":1,"finish_reason":"stop"}]}\n\n',
            2,
            ("no_done_marker",),
        ),
        (b": hi\n\n" + WORD + b"data:\n\n" + STOP + b"event: ping\n\n" + DONE, 1, ()),
        (b'data: {"choices":[{"index":0,\ndata: "finish_reason":"stop"}]}\n\n', 1, ("no_done_marker",)),
    ],
)
def test_a_marker_or_every_finish_reason_makes_an_answer_complete(
    stream: bytes, choices: int, warnings: tuple[str, ...]
) -> None:
    """Without the marker it is accepted with a warning."""
    read = ChatStream(choices=choices)
    read.feed(stream)
    read.end()
    assert (read.failure, read.warnings) == (None, warnings)


@pytest.mark.parametrize(
    ("stream", "choices"),
    [
        (b"", 1),
        (WORD, 1),
        (WORD + USAGE, 1),
        (STOP, 2),
        (STOP + STOP, 2),
        (STOP + STOP + STOP, 3),
        (STOP[:-1], 1),
        (STOP[:-2], 1),
        (DONE[:-1], 1),
        (b": [DONE]\n\n", 1),
        (b"event: [DONE]\n\n", 1),
    ],
)
def test_any_other_clean_end_is_an_interruption(stream: bytes, choices: int) -> None:
    """One finish reason of two, the same one twice, an event that was cut off."""
    read = ChatStream(choices=choices)
    read.feed(stream)
    with pytest.raises(UpstreamInterrupted):
        read.end()


@pytest.mark.parametrize(
    ("event", "failure"),
    [
        (error(message="broken"), UpstreamFault),
        (error(message="slow down", type="rate_limit_error"), UpstreamThrottled),
        (error(message="slow down", code="rate_limit_exceeded"), UpstreamThrottled),
        (error(message="slow down", code=429), UpstreamThrottled),
        (error(message="pay", code="insufficient_quota"), UpstreamThrottled),
        (error(b"event: error\n", message="broken"), UpstreamFault),
        (error(b"event: error\n", message="slow down", code=429), UpstreamThrottled),
        (b"event: error\ndata: broken\n\n", UpstreamFault),
        (b'event: error\ndata: {"message":"broken"}\n\n', UpstreamFault),
        (b'data: {"error":"broken"}\n\n', UpstreamFault),
        (b'data: {"object":"error","message":"slow down","code":429}\n\n', UpstreamThrottled),
        (b"data: <html>\n\n", UpstreamProtocolError),
        (b"data: null\n\n", UpstreamProtocolError),
        (b"data: [done]\n\n", UpstreamProtocolError),
        (b"data: {\ndata: x}\n\n", UpstreamProtocolError),
        (b'data: {"x":"\xff"}\n\n', UpstreamProtocolError),
        (b'data: {"choices":[{"delta":{"content":"\xf0\x9f"}}]}\n\n', UpstreamProtocolError),
        (b"data: " + b"x" * 2000 + b"\n\n", UpstreamProtocolError),
    ],
)
def test_a_failure_keeps_what_came_before_it_and_takes_nothing_after_it(
    event: bytes, failure: type[UpstreamError]
) -> None:
    """Chunks of the same bytes are given out; neither a marker nor a finish reason mends it."""
    read = ChatStream(event_bytes_max=1000)
    given = read.feed(WORD + WORD + event + WORD + STOP + DONE)
    assert [chunk.text for chunk in given] == ["word", "word"]
    assert type(read.failure) is failure
    assert not read.done
    assert read.feed(WORD + DONE) == []
    assert not any(word in str(read.failure) for word in ("broken", "slow down", "html", "xx"))


def test_an_exhausted_quota_is_told_apart_from_a_rate() -> None:
    """Waiting does not help against it."""
    for code, quota in (("insufficient_quota", True), ("rate_limit_exceeded", False)):
        read = ChatStream()
        read.feed(error(code=code))
        assert isinstance(read.failure, UpstreamThrottled)
        assert read.failure.quota is quota


def test_nothing_is_read_after_the_marker() -> None:
    """In the same bytes or in later ones."""
    read = ChatStream()
    assert len(read.feed(WORD + DONE + WORD + error(message="late"))) == 1
    assert read.feed(WORD) == []
    read.end()
    assert read.failure is None


def test_an_event_of_several_lines_goes_on_as_one_line() -> None:
    """So that it can be written as one data line again, with the same meaning."""
    (chunk,) = ChatStream().feed(b'data: {"choices":\rdata: [{"delta":\r\ndata: {"content":"a\\nb"}}]}\n\n')
    assert chunk.text == "a\nb"
    assert b"\n" not in chunk.data and b"\r" not in chunk.data
    assert json.loads(chunk.data) == {"choices": [{"delta": {"content": "a\nb"}}]}
