"""The log: one line for each event whatever stands in it, and calls go on when it cannot be written."""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tiergate.core import (
    AttemptFailed,
    BreakerChanged,
    BudgetReached,
    CallClass,
    CallEnded,
    EndState,
    Event,
    Notice,
    Refusal,
    SpendingFast,
    Target,
    Tier,
    Usage,
    UsageDoubt,
    UsageDoubted,
    UsageSource,
)
from tiergate.telemetry import LineLog, LogStatistics, line_of
from tiergate.telemetry.repeats import Repeats

NOW_NS = 1_767_225_600_123_456_789
"""2026-01-01T00:00:00.123Z and a bit."""
NOW = "2026-01-01T00:00:00.123Z"
TARGET = Target(provider="rack", model="deepseek-ai/DeepSeek-V3.2", tier=Tier.PRIVATE)
CALL = CallEnded(
    call_id="01call",
    wall_ns=NOW_NS,
    endpoint="chat/completions",
    key="ci",
    team="web",
    tag="nightly",
    asked_model="deepseek-v3.2",
    call_class=CallClass.BATCH,
    streamed=True,
    end=EndState.SUCCESS,
    error_code=None,
    target=TARGET,
    attempts=2,
    ttft_ms=12.34567,
    total_ms=1000.00049,
    usage=Usage(input=7, cache_read=3, output=4, reasoning=1),
    usage_source=UsageSource.REPORTED,
    cash_nanos=42_001,
    generation=3,
)
FAILED = AttemptFailed(
    call_id="01call", n=1, target=TARGET, error_code="upstream_timeout", status=None, elapsed_ms=7.0
)
REFUSED = Refusal(endpoint="chat/completions", code="invalid_api_key", status=401)
NOTICE = Notice(word="reloaded", message="Settings were read again.")
DOUBTED = UsageDoubted(
    call_id="01call",
    n=1,
    target=TARGET,
    doubt=UsageDoubt.COST_DIFFERS,
    cash_nanos=2_000_000,
    bound_nanos=None,
    upstream_cost_nanos=1_000_000,
)
REACHED = BudgetReached(
    budget="key:web per month",
    share=0.8,
    spent_nanos=40_100_000_000,
    held_nanos=1_000_000,
    amount_nanos=50_000_000_000,
    window_start_ns=NOW_NS,
    window_end_ns=None,
)
FAST = SpendingFast(key="web", spent_nanos=21_500_000_000, limit_nanos=20_000_000_000)
CHANGED = BreakerChanged(
    target="main/m", part="model", state="open", wait_s=31.5, because="main failed on its own side (503)."
)
EVENTS: tuple[Event, ...] = (CALL, FAILED, DOUBTED, REACHED, FAST, REFUSED, CHANGED, NOTICE)


@dataclass
class Sink:
    """Where lines go: kept, or refused with an error; `hold` stops it until it is let go."""

    error: Exception | None = None
    written: list[bytes] = field(default_factory=list)
    entered: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.go_on.set()

    def __call__(self, data: bytes) -> None:
        self.entered.set()
        assert self.go_on.wait(5)
        if self.error is not None:
            raise self.error
        self.written.append(data)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in b"".join(self.written).splitlines()]


def logged(*events: Event) -> bytes:
    """What the log writes for these events."""
    sink = Sink()
    log = LineLog(sink, wall_ns=lambda: NOW_NS)
    for event in events:
        log(event)
    log.close(wait_s=5)
    return b"".join(sink.written)


def test_a_call_is_one_line_of_names_and_counts() -> None:
    """Every field of the interface, durations in milliseconds, money with all its digits."""
    assert json.loads(logged(CALL), parse_float=str) == {
        "time": NOW,
        "level": "info",
        "event": "call",
        "call": "01call",
        "endpoint": "chat/completions",
        "key": "ci",
        "team": "web",
        "tag": "nightly",
        "model": "deepseek-v3.2",
        "class": "batch",
        "streamed": True,
        "end": "success",
        "error": None,
        "target": "rack/deepseek-ai/DeepSeek-V3.2",
        "tier": "private",
        "attempts": 2,
        "ttft_ms": "12.346",
        "total_ms": "1000.0",
        "input_tokens": 10,
        "output_tokens": 5,
        "usage_source": "reported",
        "cost_usd": "0.000042001",
        "generation": 3,
    }


def test_what_is_not_known_is_null() -> None:
    """A call that reached no target has no times, tokens or cost; an unknown price is no zero."""
    line = json.loads(logged(replace(CALL, target=None, ttft_ms=None, usage=None, cash_nanos=None)))
    names = ("target", "tier", "ttft_ms", "input_tokens", "output_tokens", "cost_usd")
    assert {line[name] for name in names} == {None}


def test_the_other_events_say_what_happened() -> None:
    """At the time and level that they have."""
    lines = [
        json.loads(line)
        for line in logged(FAILED, REFUSED, NOTICE, replace(NOTICE, severe=True)).splitlines()
    ]
    assert [(line["level"], line["event"]) for line in lines] == [
        ("warning", "attempt_failed"),
        ("info", "refused"),
        ("info", "reloaded"),
        ("error", "reloaded"),
    ]
    assert {line["time"] for line in lines} == {NOW}
    assert (lines[0]["target"], lines[0]["error"], lines[0]["attempt"]) == (
        TARGET.name,
        "upstream_timeout",
        1,
    )
    assert (lines[1]["status"], lines[1]["error"]) == (401, "invalid_api_key")
    assert lines[2]["message"] == "Settings were read again."


def test_a_doubt_says_what_to_look_at_and_is_not_said_again_and_again() -> None:
    """Once for each target and kind; ten minutes later again, with how often it was left out."""
    other = replace(DOUBTED, doubt=UsageDoubt.UNREPORTED)
    lines = [json.loads(line) for line in logged(*[DOUBTED] * 5, other).splitlines()]
    assert [(line["doubt"], line["left_out"]) for line in lines] == [("cost_differs", 0), ("unreported", 0)]
    assert lines[0]["level"] == "warning" and "price" in lines[0]["message"]
    assert (lines[0]["cost_usd"], lines[0]["bound_usd"]) == (0.002, None)
    repeats = Repeats()
    minute_ns = 60_000_000_000
    said = [repeats.left_out(DOUBTED, NOW_NS + minute * minute_ns) for minute in (0, 1, 9, 10, 11)]
    assert said == [0, None, None, 2, None]
    # A clock that was set back does not silence anything for long.
    assert repeats.left_out(DOUBTED, NOW_NS - 60 * minute_ns) == 1


def test_refusals_at_the_admin_plane_do_not_fill_the_log() -> None:
    """One in ten minutes of each kind, with how many were left out; those at the data plane are all there."""
    wrong, foreign = (Refusal(endpoint="admin", code=code, status=401) for code in ("invalid_api_key", "x"))
    data = Refusal(endpoint="chat", code="invalid_api_key", status=401)
    lines = [json.loads(line) for line in logged(*[wrong, data] * 5, foreign).splitlines()]
    assert [line["endpoint"] for line in lines] == ["admin", *["chat"] * 5, "admin"]
    repeats = Repeats()
    said = [repeats.left_out(wrong, NOW_NS + minute * 60_000_000_000) for minute in (0, 1, 9, 10)]
    assert said == [0, None, None, 2]


def test_a_refusal_by_a_limit_says_whose_and_which() -> None:
    """Others say neither."""
    limited = Refusal(endpoint="chat", code="rate_limit_exceeded", status=429, key="ci", limit="rpm")
    unknown = Refusal(endpoint="chat", code="invalid_api_key", status=401)
    said, other = [json.loads(line) for line in logged(limited, unknown).splitlines()]
    assert (said["event"], said["key"], said["limit"]) == ("refused", "ci", "rpm")
    assert not {"key", "limit"} & set(other)


def test_a_budget_that_is_reached_is_told_with_its_amounts() -> None:
    """Which one, how far, until when."""
    line = json.loads(logged(REACHED))
    assert (line["level"], line["event"], line["budget"], line["share"]) == (
        "warning",
        "budget_reached",
        "key:web per month",
        0.8,
    )
    assert (line["spent_usd"], line["held_usd"], line["usd"], line["window_end"]) == (40.1, 0.001, 50, None)


def test_a_key_that_spends_fast_is_told_with_its_amounts() -> None:
    """A warning: whose, how much, against what."""
    assert json.loads(logged(FAST)) == {
        "time": NOW,
        "level": "warning",
        "event": "spending_fast",
        "key": "web",
        "spent_usd": 21.5,
        "usd_per_hour": 20,
    }


def test_what_is_remembered_of_doubts_is_bounded() -> None:
    """Callers choose model names."""
    repeats = Repeats()
    for number in range(3_000):
        target = Target(provider="rack", model=f"m{number}", tier=Tier.PRIVATE)
        assert repeats.left_out(replace(DOUBTED, target=target), NOW_NS) == 0
    assert len(repeats._said) <= 1_000


def test_every_kind_of_event_has_a_line() -> None:
    """A new kind is not forgotten."""
    assert {type(event) for event in EVENTS} == set(get_args(Event))
    for event in EVENTS:
        assert {"time", "level", "event"} <= line_of(event, NOW_NS).keys()


def poisoned(event: Event, text: str) -> Event:
    """The event with this text in every field that holds a text."""
    fields: dict[str, Any] = {}
    for name in event.__struct_fields__:
        value = getattr(event, name)
        if type(value) is str:
            fields[name] = text
        elif isinstance(value, Target):
            fields[name] = Target(provider=text, model=text, tier=value.tier)
    assert fields
    return replace(event, **fields)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
@given(st.text(min_size=1, max_size=6))
def test_one_record_is_one_line_of_printable_ascii(event: Event, text: str) -> None:
    """No text in any field ends the line, moves a cursor or colours a terminal; what it was can be read."""
    _is_one_clean_line(event, text)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
@pytest.mark.parametrize(
    "text",
    [
        "\r\n",
        "\n",
        "\x00",
        "\x1b[31m",
        "\x7f",
        "\x85",
        "\x9b31m",
        "\u2028",
        "\u2029",
        "\u202e",
        '"}\n{"x":"',
        "😀",
        "\ud800",
    ],
)
def test_no_injection(event: Event, text: str) -> None:
    """Line ends of all kinds, NUL, ANSI in 7 and 8 bits, direction marks, half a surrogate pair."""
    _is_one_clean_line(event, text)


def _is_one_clean_line(event: Event, text: str) -> None:
    written = logged(poisoned(event, f"a{text}b"))
    assert written.endswith(b"\n") and written.count(b"\n") == 1
    assert set(written[:-1]) <= set(range(0x20, 0x7F))
    line = json.loads(written)
    readable = f"a{text}b".encode("utf-8", "backslashreplace").decode()
    assert readable in [
        line.get(name) for name in ("call", "endpoint", "message", "budget", "key", "because")
    ]


def test_a_long_name_is_cut() -> None:
    """A caller may make up models of any length."""
    assert len(logged(replace(CALL, asked_model="m" * 100_000))) < 2_000


def test_lines_that_come_together_are_written_together() -> None:
    """In order; one write for all that waited."""
    sink = Sink()
    sink.go_on.clear()
    log = LineLog(sink, wall_ns=lambda: NOW_NS)
    log(replace(NOTICE, word="first"))
    assert sink.entered.wait(5)
    for number in range(10):
        log(replace(NOTICE, word=f"n{number}"))
    sink.go_on.set()
    log.close(wait_s=5)
    assert [line["event"] for line in sink.lines] == ["first", *(f"n{number}" for number in range(10))]
    assert len(sink.written) == 2
    assert log.statistics() == LogStatistics(written=11, dropped=0)


def test_what_does_not_fit_is_dropped_counted_and_said() -> None:
    """A writer that stands still never stops a call; the next line written tells how many are missing."""
    sink = Sink()
    sink.go_on.clear()
    log = LineLog(sink, wall_ns=lambda: NOW_NS, lines_max=3)
    log(NOTICE)
    assert sink.entered.wait(5)
    for _ in range(5):
        log(NOTICE)
    assert log.statistics() == LogStatistics(written=0, dropped=2)
    sink.go_on.set()
    log.close(wait_s=5)
    assert [line["event"] for line in sink.lines] == ["reloaded"] * 4 + ["log_lines_dropped"]
    assert sink.lines[-1]["message"] == "2 log lines were dropped."
    assert sink.lines[-1]["level"] == "error"
    assert log.statistics() == LogStatistics(written=5, dropped=2)


def until(true: Callable[[], bool]) -> None:
    """Wait for the log's thread, at most 5 s."""
    pause = threading.Event()
    assert any(true() or pause.wait(0.002) for _ in range(2500))


@pytest.mark.parametrize(
    "error", [BrokenPipeError(), OSError(28, "No space left on device"), ValueError("write to closed file")]
)
def test_a_log_that_cannot_be_written_is_counted_and_tried_again(error: Exception) -> None:
    """A closed pipe, a full disk, a closed file: no event raises, and when there is room again it is said."""
    sink = Sink(error=error)
    log = LineLog(sink, wall_ns=lambda: NOW_NS)
    log(CALL)
    until(lambda: log.statistics().dropped == 1)
    sink.error = None
    log(NOTICE)
    log.close(wait_s=5)
    assert [line["event"] for line in sink.lines] == ["reloaded", "log_lines_dropped"]
    assert log.statistics() == LogStatistics(written=2, dropped=1)


def test_closing_writes_what_waits_and_ends_the_thread() -> None:
    """Also when nothing waits."""
    before = threading.active_count()
    assert logged() == b""
    told = [event for event in EVENTS if event is not DOUBTED]
    assert logged(*told * 50).count(b"\n") == 50 * len(told)
    assert threading.active_count() == before


def test_closing_does_not_wait_for_a_writer_that_stands_still() -> None:
    """A stop is never held up by its log for longer than it says."""
    sink = Sink()
    sink.go_on.clear()
    log = LineLog(sink, wall_ns=lambda: NOW_NS)
    log(NOTICE)
    assert sink.entered.wait(5)
    log.close(wait_s=0.01)
    assert sink.written == []
    sink.go_on.set()
    until(lambda: len(sink.written) == 1)
