"""Moments as the data plane writes them."""

from datetime import UTC, datetime


def time_text(ns: int) -> str:
    """Write nanoseconds since 1970 as RFC 3339, in UTC, in whole seconds."""
    return datetime.fromtimestamp(ns // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
