"""Spans of a report as people write them, and names as callers chose them."""

import pytest

from tiergate.app.table import shown
from tiergate.core import InvalidRequest
from tiergate.reports import span_of

NOW_NS = 1_790_000_000_000_000_000


@pytest.mark.parametrize(
    ("day", "hours"), [("2026-10-25", 25), ("2026-03-29", 23), ("2026-05-01", 24), ("20261025", 25)]
)
def test_a_day_has_the_hours_that_it_has(day: str, hours: int) -> None:
    """Where clocks change, too."""
    span = span_of(day, day, zone="Europe/Berlin", now_ns=NOW_NS)
    assert span.end_ns - span.start_ns == hours * 3_600 * 10**9


@pytest.mark.parametrize("text", ["1969-12-31", "0001-01-01", "9999-12-31", "soon", "2026-13-01", ""])
def test_a_time_that_cannot_be_is_refused(text: str) -> None:
    """With a sentence."""
    with pytest.raises(InvalidRequest):
        span_of(text, None, zone="UTC", now_ns=NOW_NS)


@pytest.mark.parametrize("name", ["[/b]", "[red]x", "a\x1b]0;title\x07b", "rack/model"])
def test_a_name_is_shown_as_it_is(name: str) -> None:
    """No markup of ours, and nothing that a terminal would obey."""
    plain = shown(name).plain
    assert "\x1b" not in plain and "\x07" not in plain
    assert len(plain) == len(name) and plain.count("[") == name.count("[")
