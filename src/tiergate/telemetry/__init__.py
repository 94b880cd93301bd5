"""Turns events into logs, metrics and traces; never decides anything."""

from tiergate.telemetry.delay import BOUNDS_S, LoopDelay
from tiergate.telemetry.log import LineLog, LogStatistics, line_of
from tiergate.telemetry.metrics import Family, Metrics, gauge, histogram

__all__ = [
    "BOUNDS_S",
    "Family",
    "LineLog",
    "LogStatistics",
    "LoopDelay",
    "Metrics",
    "gauge",
    "histogram",
    "line_of",
]
