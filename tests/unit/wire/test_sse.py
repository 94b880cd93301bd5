"""Server-sent events: the corners of the format, the bound, and the work that small pieces cost."""

from itertools import chain, repeat

import pytest

from tiergate.core import UpstreamProtocolError
from tiergate.wire import EVENT_BYTES_MAX, ServerSentEvent, SseParser

Event = ServerSentEvent


def events(*pieces: bytes, event_bytes_max: int = EVENT_BYTES_MAX) -> list[ServerSentEvent]:
    parser = SseParser(event_bytes_max=event_bytes_max)
    return [event for piece in pieces for event in parser.feed(piece)]


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"data: a\n\n", [Event(b"a")]),
        (b"data: a\r\n\r\ndata: b\r\rdata: c\n\n", [Event(b"a"), Event(b"b"), Event(b"c")]),
        (b"data: a\ndata: b\n\n", [Event(b"a\nb")]),
        (b"data: a\r\ndata: b\r\n\r\n", [Event(b"a\nb")]),
        (b"data\n\ndata\ndata\n\ndata:", [Event(b""), Event(b"\n")]),
        (b"data:test\n\ndata: test\n\n", [Event(b"test"), Event(b"test")]),
        (
            b": test stream\n\ndata: first\nid: 1\n\ndata:second\nid\n\ndata:  third",
            [Event(b"first"), Event(b"second")],
        ),
        (b"data: YHOO\ndata: +2\ndata: 10\n\n", [Event(b"YHOO\n+2\n10")]),
        (b"\xef\xbb\xbfdata: a\n\n", [Event(b"a")]),
        (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n", []),
        (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [Event(b"a")]),
        (b"event: error\ndata: a\n\ndata: b\n\n", [Event(b"a", b"error"), Event(b"b")]),
        (b"event: error\n\ndata: b\n\n", [Event(b"b")]),
        (b"retry: 10\nnonsense\n\n", []),
        (b"data: a\n", []),
        (b"data: \x00\n\n", [Event(b"\x00")]),
        (b"", []),
    ],
)
def test_the_examples_of_the_standard_and_its_corners(stream: bytes, expected: list[ServerSentEvent]) -> None:
    """Whole, and byte by byte; an event that the end of the stream cuts off is dropped."""
    assert events(stream) == expected
    assert events(*(bytes([byte]) for byte in stream)) == expected


def test_an_event_leaves_when_it_is_complete_and_not_later() -> None:
    """A CR ends a line at once: the parser does not wait to see whether an LF follows."""
    parser = SseParser()
    assert list(parser.feed(b"data: a\r")) == []
    assert list(parser.feed(b"\r")) == [Event(b"a")]
    assert list(parser.feed(b"\ndata: b\n\n")) == [Event(b"b")]


def test_an_event_of_the_bound_passes_and_one_byte_more_does_not() -> None:
    """The events before the one that is too large are given out."""
    assert events(b"data: 4567\n\n", event_bytes_max=10) == [Event(b"4567")]
    parser = SseParser(event_bytes_max=10)
    given = iter(parser.feed(b"data: a\n\ndata: 45678\n\n"))
    assert next(given) == Event(b"a")
    with pytest.raises(UpstreamProtocolError, match="more than 10 bytes"):
        next(given)


@pytest.mark.parametrize("line", [b"data: x\n", b"data: " + b"x" * 90, b": comment " + b"x" * 90])
def test_a_stream_without_an_end_of_event_is_given_up(line: bytes) -> None:
    """Many lines, one long line or a long comment: what waits is bounded by the event's bound."""
    parser = SseParser(event_bytes_max=1000)
    with pytest.raises(UpstreamProtocolError):
        list(chain.from_iterable(map(parser.feed, repeat(line, 1000))))
    assert len(parser._data) + len(parser._rest) <= 1000 + len(line)


def test_comments_and_other_fields_may_go_on_for_ever() -> None:
    """Heartbeats of hours are no event that grows."""
    parser = SseParser(event_bytes_max=100)
    for _ in range(1000):
        assert list(parser.feed(b": heartbeat\n\nid: 1\nretry: 5\n")) == []


@pytest.mark.parametrize("piece", [b"x", b"data: x\n"])
def test_a_hundred_thousand_small_pieces_cost_no_more_than_one_large_one(piece: bytes) -> None:
    """Counted by the bytes that growing buffers can have moved, not by the clock: linear, not quadratic."""
    parser = SseParser(event_bytes_max=2_000_000)
    list(parser.feed(b"data: "))
    moved, room = 0, [0, 0]
    for _ in range(100_000):
        list(parser.feed(piece))
        for which, buffer in enumerate((parser._rest, parser._data)):
            if buffer.__alloc__() != room[which]:
                room[which] = buffer.__alloc__()
                moved += len(buffer)
    (event,) = parser.feed(b"\n\n")
    assert len(event.data) >= 100_000
    assert moved <= 20 * len(event.data)
