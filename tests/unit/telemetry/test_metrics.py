"""Metrics: what is counted, under which names, and that callers cannot make labels without end."""

from typing import Any

import pytest
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families

from tiergate.core import (
    AttemptFailed,
    BudgetReached,
    CallClass,
    CallEnded,
    EndState,
    Goal,
    Notice,
    Refusal,
    SpendingFast,
    Target,
    Tier,
    Usage,
    UsageSource,
)
from tiergate.telemetry import Metrics, gauge

TARGET = Target(provider="shop", model="m", tier=Tier.HOSTED)
CALL = CallEnded(
    call_id="01call",
    wall_ns=0,
    endpoint="chat",
    key="ci",
    team=None,
    tag=None,
    asked_model="m",
    call_class=CallClass.INTERACTIVE,
    streamed=True,
    end=EndState.SUCCESS,
    error_code=None,
    target=TARGET,
    attempts=1,
    ttft_ms=200.0,
    total_ms=1_500.0,
    usage=Usage(input=100, cache_read=50, output=30, reasoning=7),
    usage_source=UsageSource.REPORTED,
    cash_nanos=2_500_000,
    generation=1,
)
LABELS = {"endpoint": "chat", "target": "shop/m", "tier": "hosted", "class": "interactive", "end": "success"}


def samples(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """The page, read by the official parser."""
    found = {}
    for family in text_string_to_metric_families(metrics.page([]).decode()):
        for sample in family.samples:
            found[sample.name, frozenset(sample.labels.items())] = sample.value
    return found


def at(name: str, **more: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset({**LABELS, **more}.items())


@pytest.mark.parametrize(
    ("changes", "in_time"),
    [
        ({}, "true"),
        ({"ttft_ms": 2_001.0}, "false"),
        ({"ttft_ms": 2_001.0, "streamed": False}, "true"),
        ({"total_ms": 120_001.0}, "false"),
        ({"total_ms": 120_001.0, "time_limit_s": 200.0}, "true"),
        ({"time_limit_s": 1.0}, "false"),
        ({"call_class": CallClass.BATCH, "total_ms": 9e9}, "true"),
        ({"end": EndState.FAILED}, "false"),
        ({"end": EndState.INTERRUPTED}, "false"),
        ({"end": EndState.CLIENT_CLOSED}, None),
    ],
)
def test_calls_are_in_time_by_their_deadline_or_the_goal_of_their_class(
    changes: dict[str, Any], in_time: str | None
) -> None:
    """Of a call that its caller left nobody can say."""
    metrics = Metrics({CallClass.INTERACTIVE: Goal(total_s=120, first_event_s=2)})
    event = replace(CALL, **changes)
    metrics(event)
    found = {
        dict(labels)["in_time"]: value
        for (name, labels), value in samples(metrics).items()
        if name == "tiergate_timed_calls_total"
    }
    assert found == ({} if in_time is None else {in_time: 1.0})


def test_alerts_of_budgets_are_counted_by_budget_and_share() -> None:
    """Whoever watches the page learns of them without a webhook."""
    metrics = Metrics()
    for share in (0.5, 0.8, 0.8):
        metrics(
            BudgetReached(
                budget="key:web per day",
                share=share,
                spent_nanos=5,
                held_nanos=0,
                amount_nanos=10,
                window_start_ns=0,
                window_end_ns=None,
            )
        )
    found = {
        (dict(labels)["budget"], dict(labels)["share"]): value
        for (name, labels), value in samples(metrics).items()
        if name == "tiergate_budget_alerts_total"
    }
    assert found == {("key:web per day", "0.5"): 1, ("key:web per day", "0.8"): 2}


def test_calls_tokens_money_and_times() -> None:
    """In the base units of Prometheus: seconds, tokens, USD."""
    metrics = Metrics()
    for _ in range(3):
        metrics(CALL)
    metrics(replace(CALL, streamed=False, cash_nanos=None, total_ms=70_000.0))
    page = samples(metrics)
    assert page[at("tiergate_calls_total")] == 4
    assert page[at("tiergate_cost_usd_total")] == pytest.approx(0.0075)
    assert page[at("tiergate_unpriced_calls_total")] == 1
    kinds = ("input", "cached_input", "output", "reasoning")
    assert [page[at("tiergate_tokens_total", kind=kind)] for kind in kinds] == [400, 200, 120, 28]
    assert page[at("tiergate_call_duration_seconds_bucket", le="1")] == 0
    assert page[at("tiergate_call_duration_seconds_bucket", le="2.5")] == 3
    assert page[at("tiergate_call_duration_seconds_count")] == 4
    assert page[at("tiergate_call_duration_seconds_sum")] == pytest.approx(74.5)
    assert page[at("tiergate_time_to_first_token_seconds_count")] == 3


def test_calls_that_failed_are_counted_by_their_error() -> None:
    """A budget that refuses is told apart from a provider that is down; who left has no error."""
    metrics = Metrics()
    metrics(CALL)
    for _ in range(2):
        metrics(replace(CALL, end=EndState.FAILED, error_code="budget_exceeded", target=None))
    metrics(replace(CALL, end=EndState.INTERRUPTED, error_code="upstream_timeout"))
    metrics(replace(CALL, end=EndState.CLIENT_CLOSED))
    found = {
        (dict(labels)["error"], dict(labels)["end"]): value
        for (name, labels), value in samples(metrics).items()
        if name == "tiergate_failed_calls_total"
    }
    assert found == {
        ("budget_exceeded", "failed"): 2,
        ("upstream_timeout", "interrupted"): 1,
        ("", "client_closed"): 1,
    }


def test_the_other_events_are_counted_by_their_words() -> None:
    """What failed, what was refused, what an operator should know."""
    metrics = Metrics()
    metrics(
        AttemptFailed(
            call_id="1", n=1, target=TARGET, error_code="upstream_fault", status=503, elapsed_ms=1.0
        )
    )
    metrics(Refusal(endpoint="chat", code="invalid_api_key", status=401))
    metrics(Refusal(endpoint="chat", code="rate_limit_exceeded", status=429, key="ci", limit="tpm"))
    metrics(Notice(word="ledger_full", message="…", severe=True))
    metrics(SpendingFast(key="ci", spent_nanos=2, limit_nanos=1))
    page = samples(metrics)
    expected = {
        ("tiergate_failed_attempts_total", (("error", "upstream_fault"), ("target", "shop/m"))),
        ("tiergate_refusals_total", (("endpoint", "chat"), ("error", "invalid_api_key"))),
        ("tiergate_refusals_total", (("endpoint", "chat"), ("error", "rate_limit_exceeded"))),
        ("tiergate_limit_refusals_total", (("endpoint", "chat"), ("limit", "tpm"))),
        ("tiergate_spending_alerts_total", ()),
        ("tiergate_notices_total", (("level", "error"), ("word", "ledger_full"))),
    }
    assert {page[name, frozenset(labels)] for name, labels in expected} == {1}
    assert sum(name == "tiergate_limit_refusals_total" for name, _ in page) == 1


def test_callers_cannot_make_labels_without_end() -> None:
    """Names of models are theirs to choose; what is too many is counted together."""
    metrics = Metrics()
    for number in range(3_000):
        target = Target(provider="shop", model=f"m{number}", tier=Tier.HOSTED)
        metrics(replace(CALL, target=target))
        metrics(AttemptFailed(call_id="1", n=1, target=target, error_code="x", status=None, elapsed_ms=1.0))
    page = samples(metrics)
    calls = [value for (name, _), value in page.items() if name == "tiergate_calls_total"]
    assert len(calls) == 1_001 and sum(calls) == 3_000
    assert page[at("tiergate_calls_total", target="other")] == 2_000
    failed = [value for (name, _), value in page.items() if name == "tiergate_failed_attempts_total"]
    assert len(failed) == 1_001 and sum(failed) == 3_000


def test_a_label_cannot_break_the_page() -> None:
    """Whatever stands in a name."""
    metrics = Metrics()
    evil = 'm"} 1\nforged_total 5\n# {x="\\'
    metrics(replace(CALL, target=Target(provider="shop", model=evil, tier=Tier.HOSTED)))
    names = {name for name, _ in samples(metrics)}
    assert "forged_total" not in names and at("tiergate_calls_total", target=f"shop/{evil}") in samples(
        metrics
    )


def test_gauges_stand_on_the_same_page() -> None:
    """What is true now, as whoever asks says it."""
    page = Metrics().page([gauge("budget_usd", "x", ("budget",), [(("all per month",), 5.0)])]).decode()
    assert 'tiergate_budget_usd{budget="all per month"} 5.0' in page
