"""Answers questions about the past: spend and latency, by key, model, tier and day."""

from tiergate.reports.latency import PERCENTILES, Latency, latency
from tiergate.reports.ports import GROUPS, Past, Span, Spent, Timed
from tiergate.reports.spend import Spend, spend

__all__ = ["GROUPS", "PERCENTILES", "Latency", "Past", "Span", "Spend", "Spent", "Timed", "latency", "spend"]
