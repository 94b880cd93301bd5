"""Moments for people: by the clock of the settings' time zone, which is named beside them."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo


def clock_text(moment: str | int, zone: str) -> str:
    """Write a moment, RFC 3339 or nanoseconds since 1970, as a zone's clock shows it.

    >>> clock_text("2026-11-26T23:30:00.123Z", "Asia/Kolkata")
    '2026-11-27 05:00:00'
    """
    return _moment(moment).astimezone(ZoneInfo(zone)).strftime("%Y-%m-%d %H:%M:%S")


def zoned_text(moment: str | int, zone: str) -> str:
    """Write a moment with its zone.

    >>> zoned_text(1_767_225_600_000_000_000, "UTC")
    '2026-01-01 00:00:00 (UTC)'
    """
    return f"{clock_text(moment, zone)} ({zone})"


def _moment(moment: str | int) -> datetime:
    if isinstance(moment, str):
        return datetime.fromisoformat(moment)
    return datetime.fromtimestamp(moment // 1_000_000_000, UTC)
