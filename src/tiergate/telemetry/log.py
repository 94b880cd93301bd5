"""The log: one JSON line for each event, written beside the event loop.

A log that cannot be written must not stop a call, so lines wait in a bounded queue and a thread writes them;
what does not fit is counted and said in the next line that is written. Values are names and counts; lines
are printable ASCII, everything else in them is escaped, so one record is always one line and no terminal
obeys it.
"""

import re
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from math import isfinite
from typing import Any, Final, assert_never

from tiergate.core import (
    AttemptFailed,
    BreakerChanged,
    BudgetReached,
    CallEnded,
    EndState,
    Event,
    Notice,
    Refusal,
    SpendingFast,
    UsageDoubt,
    UsageDoubted,
)
from tiergate.telemetry.repeats import Repeats
from tiergate.wire import cost_number, dumps

_NAME_MAX = 200
_LINGER_S = 0.02
_NOT_PRINTABLE_ASCII = re.compile(r"[^ -~]")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogStatistics:
    """Lines written, and lines dropped because they could not be written, or not fast enough."""

    written: int
    dropped: int


class LineLog:
    """A sink for events. Call it from the event loop; `close` writes what waits."""

    def __init__(
        self, write: Callable[[bytes], object], *, wall_ns: Callable[[], int], lines_max: int = 20_000
    ) -> None:
        self._write = write
        self._wall_ns = wall_ns
        self._lines_max = lines_max
        self._waiting: deque[Event] = deque()
        self._wake = threading.Event()
        self._written = 0
        self._unqueued = 0
        self._unwritten = 0
        self._dropped_said = 0
        self._closing = False
        self._repeats = Repeats()
        self._thread = threading.Thread(target=self._work, name="tiergate-log", daemon=True)
        self._thread.start()

    def __call__(self, event: Event) -> None:
        """Take an event. Returns at once.

        A line of a job that was answered is left out: there may be millions, and the ledger has each.
        """
        if isinstance(event, CallEnded) and event.job is not None and event.end is EndState.SUCCESS:
            return
        if len(self._waiting) >= self._lines_max:
            self._unqueued += 1
            return
        self._waiting.append(event)
        if not self._wake.is_set():
            self._wake.set()

    def close(self, *, wait_s: float = 2) -> None:
        """Write what waits, for at most `wait_s`."""
        self._closing = True
        self._wake.set()
        self._thread.join(wait_s)

    def statistics(self) -> LogStatistics:
        """What was written and dropped."""
        return LogStatistics(written=self._written, dropped=self._dropped)

    @property
    def _dropped(self) -> int:
        # Two counters, since two threads count.
        return self._unqueued + self._unwritten

    def _work(self) -> None:
        while True:
            self._wake.wait()
            if not self._closing:
                # More lines come in the meantime: waking a thread costs a busy loop more than writing a line.
                time.sleep(_LINGER_S)
            self._wake.clear()
            self._write_waiting()
            if self._closing and not self._waiting:
                return

    def _write_waiting(self) -> None:
        lines = []
        while self._waiting:
            event, now_ns = self._waiting.popleft(), self._wall_ns()
            line = line_of(event, now_ns)
            left_out = self._repeats.left_out(event, now_ns)
            if left_out is None:
                continue
            if left_out or isinstance(event, UsageDoubted):
                line["left_out"] = left_out
            lines.append(_written_line(line))
        events, lost = len(lines), self._dropped - self._dropped_said
        if lost:
            notice = Notice(word="log_lines_dropped", message=f"{lost} log lines were dropped.", severe=True)
            lines.append(_written_line(line_of(notice, self._wall_ns())))
        if not lines:
            return
        try:
            self._write(b"\n".join(lines) + b"\n")
        except (OSError, ValueError):
            # Nobody reads our log any more (a closed pipe or file, a full disk). Calls go on without it.
            self._unwritten += events
            return
        self._dropped_said += lost
        self._written += len(lines)


def line_of(event: Event, wall_ns: int) -> dict[str, Any]:
    """Say an event as the fields of a log line. Times are RFC 3339 in UTC, durations milliseconds."""
    match event:
        case CallEnded():
            return _call_line(event)
        case AttemptFailed():
            return {
                "time": _time(wall_ns),
                "level": "warning",
                "event": "attempt_failed",
                "call": event.call_id,
                "attempt": event.n,
                "target": event.target.name[:_NAME_MAX],
                "error": event.error_code,
                "status": event.status,
                "elapsed_ms": round(event.elapsed_ms, 3),
            }
        case UsageDoubted():
            return _doubt_line(event, wall_ns)
        case BudgetReached():
            return _budget_line(event, wall_ns)
        case SpendingFast():
            return _spending_line(event, wall_ns)
        case Refusal():
            return _refusal_line(event, wall_ns)
        case BreakerChanged():
            return _breaker_line(event, wall_ns)
        case Notice():
            return {
                "time": _time(wall_ns),
                "level": "error" if event.severe else "info",
                "event": event.word,
                "message": event.message,
            }
        case _:
            assert_never(event)


_DOUBTED: Final = {
    UsageDoubt.UNREADABLE: "The provider reported a usage that cannot be; charged at the bound.",
    UsageDoubt.UNREPORTED: "The provider reported no usage; charged at the most that can have been used.",
    UsageDoubt.ABOVE_BOUND: "It used more than was held for it; charged as reported. Look at its report.",
    UsageDoubt.COST_DIFFERS: "The provider says another cost than the price book. Look at its price.",
}


def _doubt_line(event: UsageDoubted, wall_ns: int) -> dict[str, Any]:
    return {
        "time": _time(wall_ns),
        "level": "warning",
        "event": "usage_doubt",
        "doubt": event.doubt,
        "message": _DOUBTED[event.doubt],
        "call": event.call_id,
        "attempt": event.n,
        "target": event.target.name[:_NAME_MAX],
        "cost_usd": cost_number(event.cash_nanos),
        "bound_usd": cost_number(event.bound_nanos),
        "upstream_cost_usd": cost_number(event.upstream_cost_nanos),
    }


def _refusal_line(event: Refusal, wall_ns: int) -> dict[str, Any]:
    line = {
        "time": _time(wall_ns),
        "level": "info",
        "event": "refused",
        "endpoint": event.endpoint,
        "error": event.code,
        "status": event.status,
    }
    return line if event.limit is None else {**line, "key": event.key, "limit": event.limit}


def _budget_line(event: BudgetReached, wall_ns: int) -> dict[str, Any]:
    end_ns = event.window_end_ns
    return {
        "time": _time(wall_ns),
        "level": "warning",
        "event": "budget_reached",
        "budget": event.budget,
        "share": event.share,
        "spent_usd": cost_number(event.spent_nanos),
        "held_usd": cost_number(event.held_nanos),
        "usd": cost_number(event.amount_nanos),
        "window_start": _time(event.window_start_ns),
        "window_end": None if end_ns is None else _time(end_ns),
    }


def _spending_line(event: SpendingFast, wall_ns: int) -> dict[str, Any]:
    return {
        "time": _time(wall_ns),
        "level": "warning",
        "event": "spending_fast",
        "key": event.key,
        "spent_usd": cost_number(event.spent_nanos),
        "usd_per_hour": cost_number(event.limit_nanos),
    }


def _breaker_line(event: BreakerChanged, wall_ns: int) -> dict[str, Any]:
    return {
        "time": _time(wall_ns),
        "level": "info" if event.state in ("closed", "half_open") else "warning",
        "event": "breaker",
        "target": event.target[:_NAME_MAX],
        "part": event.part,
        "state": event.state,
        "wait_s": round(event.wait_s, 3) if isfinite(event.wait_s) else None,
        "because": event.because or None,
    }


def _call_line(event: CallEnded) -> dict[str, Any]:
    usage, target = event.usage, event.target
    line = {
        "time": _time(event.wall_ns),
        "level": "info",
        "event": "call",
        "call": event.call_id,
        "endpoint": event.endpoint,
        "key": event.key,
        "team": event.team,
        "tag": event.tag,
        "model": event.asked_model[:_NAME_MAX],
        "class": event.call_class,
        "streamed": event.streamed,
        "end": event.end,
        "error": event.error_code,
        "target": None if target is None else target.name[:_NAME_MAX],
        "tier": event.tier,
        "attempts": event.attempts,
        "ttft_ms": None if event.ttft_ms is None else round(event.ttft_ms, 3),
        "total_ms": round(event.total_ms, 3),
        "input_tokens": None if usage is None else usage.input_tokens,
        "output_tokens": None if usage is None else usage.output_tokens,
        "usage_source": event.usage_source,
        "cost_usd": cost_number(event.cash_nanos),
        "generation": event.generation,
    }
    if event.receipt is not None:
        line["receipt"] = event.receipt
    if event.cache is not None:
        line["cache"] = event.cache if event.cache_reason is None else f"{event.cache}: {event.cache_reason}"
    if event.avoided is not None:
        line["avoided_tokens"] = event.avoided.total_tokens
        line["avoided_usd"] = cost_number(event.avoided_nanos)
    return line


def _written_line(fields: dict[str, Any]) -> bytes:
    """Write a line in printable ASCII; JSON itself would leave C1 controls and Unicode line ends in it."""
    try:
        line = dumps(fields)
    except UnicodeEncodeError:  # half a surrogate pair: a file name that is not UTF-8, say
        line = dumps({name: _encodable(value) for name, value in fields.items()})
    if line.isascii() and b"\x7f" not in line:
        return line
    return _NOT_PRINTABLE_ASCII.sub(_escaped, line.decode()).encode()


def _encodable(value: object) -> object:
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _escaped(character: re.Match[str]) -> str:
    units = character[0].encode("utf-16-be")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def _time(wall_ns: int) -> str:
    return f"{_second(wall_ns // 1_000_000_000)}.{wall_ns // 1_000_000 % 1000:03d}Z"


# Under load thousands of lines have the same second, and writing it costs as much as the rest of a line.
@lru_cache(maxsize=8)
def _second(wall_s: int) -> str:
    return datetime.fromtimestamp(wall_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")
