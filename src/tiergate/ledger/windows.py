"""The windows of ceilings: days, weeks and months of a time zone, as spans of time."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from enum import StrEnum
from functools import lru_cache
from zoneinfo import ZoneInfo


class Period(StrEnum):
    """How long a ceiling's amount lasts."""

    TOTAL = "total"
    DAY = "day"
    WEEK = "week"
    """From Monday to Sunday."""
    MONTH = "month"


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """From when to when, in nanoseconds since 1970, the end not included; None: for ever."""

    start_ns: int
    end_ns: int | None

    def holds(self, at_ns: int) -> bool:
        """Tell whether a moment lies in it."""
        return self.start_ns <= at_ns and (self.end_ns is None or at_ns < self.end_ns)


EVER = Window(start_ns=0, end_ns=None)


def window_at(period: Period, zone: str, at_ns: int) -> Window:
    """Give the window that a moment lies in.

    Days begin at midnight by the zone's own clock, so one may have 23 or 25 hours.

    >>> window_at(Period.DAY, "UTC", 1_767_225_600_000_000_000)
    Window(start_ns=1767225600000000000, end_ns=1767312000000000000)
    """
    if period is Period.TOTAL:
        return EVER
    return _window(period, zone, datetime.fromtimestamp(max(0, at_ns) // 1_000_000_000, _clock(zone)).date())


@lru_cache(maxsize=256)
def _window(period: Period, zone: str, day: date) -> Window:
    match period:
        case Period.DAY:
            first, following = day, day + timedelta(days=1)
        case Period.WEEK:
            first = day - timedelta(days=day.weekday())
            following = first + timedelta(days=7)
        case _:
            first = day.replace(day=1)
            following = (first + timedelta(days=31)).replace(day=1)
    return Window(start_ns=_midnight_ns(first, zone), end_ns=_midnight_ns(following, zone))


def _midnight_ns(day: date, zone: str) -> int:
    return int(datetime.combine(day, time(), _clock(zone)).timestamp()) * 1_000_000_000


def _clock(zone: str) -> tzinfo:
    return UTC if zone == "UTC" else ZoneInfo(zone)
