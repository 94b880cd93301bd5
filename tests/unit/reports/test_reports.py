"""Reports: sums that add up however they are grouped, percentiles within one percent, days by a time zone."""

import math
import random
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tiergate.reports import GROUPS, Span, Spent, Timed, Used, latency, spend
from tiergate.reports.ports import SLOT_NS

SPAN = Span(start_ns=0, end_ns=10**19)
ABOUT = GROUPS[:-1]
SUMS = ("calls", "succeeded", "attempts", "unpriced", "input_tokens", "cached_tokens", "output_tokens")
AMOUNTS = ("cash_nanos", "lapsed_nanos", "bounded_nanos")


class Told:
    """A past that is what it was told."""

    def __init__(self, spent: Iterable[Spent] = (), timed: Iterable[Timed] = ()) -> None:
        self._spent, self._timed = spent, timed

    def spent(self, span: Span, *, slots: bool) -> Iterable[Spent]:
        return self._spent

    def timed(self, span: Span) -> Iterator[Timed]:
        return iter(self._timed)

    def used(self, span: Span) -> Iterator[Used]:
        return iter(())


def about(**names: str) -> dict[str, str]:
    return {**dict.fromkeys(ABOUT, ""), **names}


def spent(slot: int = 0, **fields: Any) -> Spent:
    names = {name: fields.pop(name) for name in list(fields) if name in ABOUT}
    return Spent(about=about(**names), slot=slot, **{**dict.fromkeys((*SUMS, *AMOUNTS), 0), **fields})


def slot_of(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 10**9 // SLOT_NS


ROWS = st.lists(
    st.builds(
        spent,
        slot=st.integers(0, 200_000),
        key=st.sampled_from("ab"),
        model=st.sampled_from("mn"),
        tier=st.sampled_from(["private", "hosted"]),
        calls=st.integers(0, 100),
        input_tokens=st.integers(0, 10**9),
        cash_nanos=st.integers(0, 10**15),
    ),
    max_size=30,
)


@given(ROWS, st.permutations(GROUPS), st.integers(0, len(GROUPS)))
def test_however_they_are_grouped_the_sums_are_the_whole(
    rows: list[Spent], groups: list[str], count: int
) -> None:
    """Nothing is lost, and nothing counted twice."""
    by = tuple(groups[:count])
    found = spend(Told(rows), SPAN, by)
    for name in ("calls", "input_tokens", "cash_nanos"):
        assert sum(getattr(row, name) for row in found) == sum(getattr(row, name) for row in rows)
    assert len({tuple(row.group.values()) for row in found}) == len(found)
    assert all(tuple(row.group) == by for row in found)


def test_the_dearest_stands_first_and_days_in_their_order() -> None:
    """Days only where they are the first group."""
    rows = [
        spent(slot_of("2026-11-02T00:00"), key="a", cash_nanos=1),
        spent(slot_of("2026-11-01T23:45"), key="b", cash_nanos=3),
        spent(slot_of("2026-11-02T00:15"), key="c", cash_nanos=2),
    ]
    assert [row.group["key"] for row in spend(Told(rows), SPAN, ("key",))] == ["b", "c", "a"]
    by_day = spend(Told(rows), SPAN, ("day", "key"))
    assert [tuple(row.group.values()) for row in by_day] == [
        ("2026-11-01", "b"),
        ("2026-11-02", "c"),
        ("2026-11-02", "a"),
    ]


def test_a_day_is_one_of_the_time_zone() -> None:
    """Also where the zone is half an hour off, and on the day that the clocks change."""
    rows = [
        spent(slot_of(text), calls=1) for text in ("2026-10-24T18:30", "2026-10-24T22:00", "2026-10-25T22:45")
    ]
    for zone, days in (
        ("UTC", {"2026-10-24": 2, "2026-10-25": 1}),
        ("Asia/Kolkata", {"2026-10-25": 2, "2026-10-26": 1}),
        ("Europe/Berlin", {"2026-10-24": 1, "2026-10-25": 2}),
    ):
        span = Span(start_ns=0, end_ns=10**19, zone=zone)
        assert {row.group["day"]: row.calls for row in spend(Told(rows), span, ("day",))} == days


def timed(total_ms: float, first_ms: float | None = None, **names: str) -> Timed:
    return Timed(about=about(**names), slot=0, first_ms=first_ms, total_ms=total_ms, output_tokens=10)


@given(st.lists(st.floats(0.02, 10**7), min_size=1, max_size=300))
def test_a_percentile_is_the_one_by_nearest_rank_within_a_percent(times: list[float]) -> None:
    """Whatever the times are."""
    (row,) = latency(Told(timed=map(timed, times)), SPAN, ())
    for percent, found in row.total.items():
        exact = sorted(times)[math.ceil(percent / 100 * len(times)) - 1]
        assert abs(found - exact) <= 0.01 * exact


def test_first_tokens_are_counted_where_there_were_streams() -> None:
    """A whole reply has none, and does not stand for a slow or a fast one."""
    calls = [timed(100, 10, target="a/m"), timed(200, None, target="a/m"), timed(50, None, target="b/m")]
    streamed, whole = latency(Told(timed=calls), SPAN, ("target",))
    assert (streamed.group, streamed.calls, streamed.streamed) == ({"target": "a/m"}, 2, 1)
    assert abs(streamed.first_event[50] - 10) < 0.1
    assert (whole.calls, whole.streamed, whole.first_event) == (1, 0, {})
    assert streamed.output_tokens_per_s is not None
    assert abs(streamed.output_tokens_per_s - 20 / 0.3) < 1e-9


def test_a_million_calls_take_no_more_memory_than_their_classes() -> None:
    """Some thousand classes hold any time from 10 µs to a day."""
    chance = random.Random(5)
    calls = (timed(chance.lognormvariate(6, 2)) for _ in range(50_000))
    (row,) = latency(Told(timed=calls), SPAN, ())
    assert row.calls == 50_000
    assert row.total[50] < row.total[95] < row.total[99]
