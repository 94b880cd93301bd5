"""What a batch looks like while it is worked: on a terminal, and line by line elsewhere."""

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from tiergate.app.jobs.panel import Speed, line, panel


def batch(done: int = 540, failed: int = 3, *, total: int = 1_000, **ours: Any) -> dict[str, Any]:
    known = {
        "state": "running",
        "reason": None,
        "message": None,
        "until": None,
        "cancelled": 0,
        "budget_usd": None,
        "held_usd": None,
        "spent_usd": 1.5,
        "projected_usd": None,
        "limit": 64,
        "in_flight": 61,
        "limited_by": "concurrency",
        "errors": {},
        "asked_again": {},
    }
    return {
        "id": "batch_1",
        "usage": {"total_tokens": 100 * done},
        "request_counts": {"total": total, "completed": done, "failed": failed},
        "tiergate": {**known, **ours},
    }


def seen(*dones: int) -> Speed:
    """Looks at a batch, each ten seconds after the one before."""
    speed = Speed()
    for number, done in enumerate(dones):
        speed.see(batch(done, 0), 10.0 * number)
    return speed


def shown(found: dict[str, Any], speed: Speed) -> str:
    console = Console(width=120, force_terminal=True, color_system=None, record=True, file=StringIO())
    console.print(panel(found, speed))
    return console.export_text()


def test_the_panel_says_how_far_it_is_how_fast_and_what_it_costs() -> None:
    """With what is left, what limits it, what failed and what is asked again."""
    found = batch(
        budget_usd=5.0,
        held_usd=0.25,
        projected_usd={"low": 2.0, "middle": 2.5, "high": 3.0},
        errors={"upstream_timeout": 2, "invalid_line": 1},
        asked_again={"throttled": 40},
    )
    text = shown(found, seen(340, 440, 540))
    for said in (
        "batch_1",
        "running",
        "543 of 1,000 (54.3%)",
        "10.0 lines/s, 1,000 tokens/s, 0:00:46 left",
        "$1.5000 of $5 spent, $0.2500 held, in the end $2.5000 ($2.0000 to $3.0000)",
        "61 of 64 at one time, limited by concurrency",
        "2 upstream_timeout, 1 invalid_line; asked again: 40 throttled",
    ):
        assert said in text, said


@pytest.mark.parametrize("how", ["panel", "line"])
def test_what_stands_still_says_why(how: str) -> None:
    """Until when, on a terminal; and that nothing is asked."""
    why = {"state": "parked", "reason": "throttled", "message": "429 again.", "until": "2026-11-27T09:00:00Z"}
    found = batch(0, 0, limit=None, in_flight=0, limited_by=None, **why)
    text = shown(found, seen(0)) if how == "panel" else line(found, seen(0))
    assert "parked" in text and "throttled" in text and "0.0 lines/s" in text
    if how == "panel":
        assert "throttled until 2026-11-27T09:00:00Z: 429 again." in text and "nothing" in text


def test_a_line_says_the_same_in_short() -> None:
    """And names failures only where there are some."""
    assert line(batch(500, 0), seen(0, 500)) == (
        "running: 500 of 1,000 lines; 50.0 lines/s, 5,000 tokens/s, 0:00:10 left; $1.5000 spent"
    )
    assert "lines, 3 failed; " in line(batch(500), seen(0, 500))


def test_a_speed_is_that_of_the_last_seconds() -> None:
    """What was long ago says nothing of now."""
    assert seen(0, 10_000, 10_100, 10_200).lines_per_s == 10.0
    assert seen(0).left_s(batch()) is None
