"""Turns events into logs, metrics and traces; never decides anything."""

from tiergate.telemetry.log import LineLog, LogStatistics, line_of
from tiergate.telemetry.metrics import Metrics, gauge

__all__ = ["LineLog", "LogStatistics", "Metrics", "gauge", "line_of"]
