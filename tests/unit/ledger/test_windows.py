"""Windows of ceilings: every moment lies in exactly one, and days are the zone's own."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiergate.ledger import Period, window_at
from tiergate.reports.ports import SLOT_NS

ZONES = ["UTC", "Europe/Berlin", "Asia/Ho_Chi_Minh", "Asia/Kolkata", "America/New_York", "Asia/Kathmandu"]
MOMENT = st.integers(1_700_000_000, 2_200_000_000).map(lambda second: second * 10**9)


def at(text: str, zone: str = "UTC") -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()) * 10**9


@given(st.sampled_from(Period), st.sampled_from(ZONES), MOMENT)
def test_every_moment_lies_in_one_window(period: Period, zone: str, moment: int) -> None:
    """The next one begins where it ends; both begin at a quarter of an hour, as sums in the ledger do."""
    window = window_at(period, zone, moment)
    assert window.start_ns <= moment
    if period is Period.TOTAL:
        assert (window.start_ns, window.end_ns) == (0, None)
        return
    assert window.end_ns is not None and moment < window.end_ns
    assert window.start_ns % SLOT_NS == window.end_ns % SLOT_NS == 0
    assert window_at(period, zone, window.start_ns) == window
    assert window_at(period, zone, window.end_ns - 1) == window
    assert window_at(period, zone, window.end_ns).start_ns == window.end_ns
    local = datetime.fromtimestamp(window.start_ns // 10**9, ZoneInfo(zone))
    assert (local.hour, local.minute) == (0, 0)


@pytest.mark.parametrize(
    ("period", "zone", "moment", "start", "end"),
    [
        (Period.DAY, "Europe/Berlin", "2026-03-29T12:00", "2026-03-29", "2026-03-30"),
        (Period.WEEK, "UTC", "2026-11-26T10:00", "2026-11-23", "2026-11-30"),
        (Period.WEEK, "UTC", "2026-11-23T00:00", "2026-11-23", "2026-11-30"),
        (Period.MONTH, "America/New_York", "2026-12-31T23:59", "2026-12-01", "2027-01-01"),
        (Period.MONTH, "UTC", "2028-02-29T10:00", "2028-02-01", "2028-03-01"),
    ],
)
def test_windows_by_the_zones_own_calendar(
    period: Period, zone: str, moment: str, start: str, end: str
) -> None:
    """Weeks begin on Monday, months on the first."""
    window = window_at(period, zone, at(moment, zone))
    assert (window.start_ns, window.end_ns) == (at(start, zone), at(end, zone))


def test_a_day_may_have_23_hours() -> None:
    """When clocks are set forward."""
    window = window_at(Period.DAY, "Europe/Berlin", at("2026-03-29T12:00", "UTC"))
    assert window.end_ns is not None and window.end_ns - window.start_ns == 23 * 3600 * 10**9
    assert datetime.fromtimestamp(window.start_ns // 10**9, UTC).hour == 23
