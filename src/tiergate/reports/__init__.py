"""Answers questions about the past: spend, savings and latency, by key, model, tier and day."""

from tiergate.reports.asked import groups_of, seconds_of, span_of
from tiergate.reports.beginnings import Beginnings, beginnings
from tiergate.reports.latency import PERCENTILES, Latency, latency
from tiergate.reports.objects import (
    beginnings_object,
    latency_object,
    moment_text,
    savings_object,
    span_object,
    spend_object,
    would_hit_object,
)
from tiergate.reports.ports import GROUPS, Marked, Past, Prefixed, Span, Spent, Timed, Used
from tiergate.reports.reconcile import SAID, Difference, Finding, read_invoice, reconcile, shares
from tiergate.reports.repeats import Repeats, WouldHit, would_hit
from tiergate.reports.savings import Avoided, Discounted, Private, Savings, savings
from tiergate.reports.spend import Spend, spend

__all__ = [
    "GROUPS",
    "PERCENTILES",
    "SAID",
    "Avoided",
    "Beginnings",
    "Difference",
    "Discounted",
    "Finding",
    "Latency",
    "Marked",
    "Past",
    "Prefixed",
    "Private",
    "Repeats",
    "Savings",
    "Span",
    "Spend",
    "Spent",
    "Timed",
    "Used",
    "WouldHit",
    "beginnings",
    "beginnings_object",
    "groups_of",
    "latency",
    "latency_object",
    "moment_text",
    "read_invoice",
    "reconcile",
    "savings",
    "savings_object",
    "seconds_of",
    "shares",
    "span_object",
    "span_of",
    "spend",
    "spend_object",
    "would_hit",
    "would_hit_object",
]
