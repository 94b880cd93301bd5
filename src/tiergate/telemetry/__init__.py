"""Turns events into logs, metrics and traces; never decides anything."""

from tiergate.telemetry.log import LineLog, LogStatistics, line_of

__all__ = ["LineLog", "LogStatistics", "line_of"]
