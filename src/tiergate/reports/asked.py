"""What a report is asked for: by what to group, from when to when."""

import re
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Final
from zoneinfo import ZoneInfo

from tiergate.core import InvalidRequest
from tiergate.reports.ports import GROUPS, Span

_AGO: Final = re.compile(r"([0-9]{1,5})([smhdwy])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800, "y": 31_536_000}


def groups_of(text: str) -> tuple[str, ...]:
    """Read what to group by: names with commas between.

    Raises:
        InvalidRequest: a group that there is none of, or twice the same.
    """
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    wrong = [name for name in names if name not in GROUPS]
    if wrong or len(set(names)) != len(names):
        what = f"{wrong[0]!r} is no group" if wrong else "A group stands twice"
        raise InvalidRequest(
            f"{what}. `by` takes some of {', '.join(GROUPS)}, with commas between.", param="by"
        )
    return names


def span_of(begin: str, end: str | None, *, zone: str, now_ns: int) -> Span:
    """Read a span: a day, a moment, or how long ago, such as 7d; the last day is included.

    Raises:
        InvalidRequest: they are neither, or the wrong way round.
    """
    clock: tzinfo = UTC if zone == "UTC" else ZoneInfo(zone)
    start_ns = _moment_ns(begin, clock, now_ns, is_end=False)
    end_ns = now_ns if end is None else _moment_ns(end, clock, now_ns, is_end=True)
    if end is None and start_ns >= now_ns:
        raise InvalidRequest("`from` is not in the past: nothing was called since.", param="from")
    if end_ns <= start_ns:
        raise InvalidRequest("`to` must be later than `from`.", param="to")
    return Span(start_ns=start_ns, end_ns=end_ns, zone=zone)


def seconds_of(text: str, *, param: str) -> float:
    """Read a length of time, such as 10m.

    Raises:
        InvalidRequest: it is none.
    """
    found = _AGO.fullmatch(text)
    if found is None:
        raise InvalidRequest(f"{text!r} is no length of time. Give one such as 10m, 1h or 7d.", param=param)
    return float(int(found[1]) * _SECONDS[found[2]])


def _moment_ns(text: str, clock: tzinfo, now_ns: int, *, is_end: bool) -> int:
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return max(0, now_ns - int(ago[1]) * _SECONDS[ago[2]] * 1_000_000_000)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidRequest(
            f"{text!r} is no time. Give a day such as 2026-11-01, a moment such as 2026-11-01T12:00, "
            "or how long ago, such as 7d.",
            param="from",
        ) from None
    if not 1970 < moment.year < 2200:
        raise InvalidRequest(f"{text!r} is before 1971 or after 2199.", param="from")
    if is_end and _is_day(text):
        moment += timedelta(days=1)  # by the calendar: not every day has 24 hours
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=clock)
    return int(moment.timestamp()) * 1_000_000_000


def _is_day(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True
