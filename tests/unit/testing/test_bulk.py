"""Bulk: as much as was asked for, in pieces, with a place for others in between."""

import re
from collections.abc import Callable, Iterable, Iterator

import pytest

from tiergate.testing.bulk import PIECE_BYTES, blanks, flood, garbage, header_lines
from tiergate.testing.steps import Pause, Step
from tiergate.wire.sse import SseParser

SIZES = [*range(80), PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3_000_000]


def joined(steps: Iterable[Step]) -> bytes:
    return b"".join(step for step in steps if isinstance(step, bytes))


@pytest.mark.parametrize("make", [blanks, flood, garbage])
def test_there_is_as_much_as_was_asked_for(make: Callable[[int], Iterator[Step]]) -> None:
    """To the byte, in pieces that are never large."""
    for size in SIZES:
        steps = list(make(size))
        assert len(joined(steps)) == size
        assert all(len(step) <= PIECE_BYTES for step in steps if isinstance(step, bytes))


def test_others_get_a_turn_in_each_mebibyte() -> None:
    """Three million bytes have two pauses, which take no time."""
    assert [step for step in blanks(3_000_000) if isinstance(step, Pause)] == [Pause(0.0), Pause(0.0)]


def test_a_flood_holds_no_event_and_spoils_none() -> None:
    """Wherever it is cut, the event after it is read, and no other is."""
    for size in SIZES:
        parser = SseParser()
        found = [*parser.feed(joined(flood(size))), *parser.feed(b"data: yes\n\n")]
        assert [event.data for event in found] == [b"yes"], size


def test_a_flood_has_each_line_end_twice_in_a_row() -> None:
    """LF, CR and CR LF, and NUL and a byte order mark in lines."""
    ends = set(re.findall(rb"(?:\r\n|\n|\r){2}", joined(flood(200))))
    assert {b"\r\r", b"\n\n", b"\r\n\r\n"} <= ends
    assert b"\0" in joined(flood(200)) and b"\xef\xbb\xbf" in joined(flood(200))


def test_header_lines_are_whole_lines() -> None:
    """One large and two small ones, or none; many come in pieces, and others get their turn."""
    many = list(header_lines(size=0, count=5_000))
    assert joined(many).count(b"\r\n") == 5_000 and joined(many).endswith(b"x-many-4999: 1\r\n")
    assert many.count(Pause(0.0)) == 2
    assert joined(header_lines(size=3, count=2)) == b"x-large: aaa\r\nx-many-0: 1\r\nx-many-1: 1\r\n"
    assert joined(header_lines(size=0, count=0)) == b""
