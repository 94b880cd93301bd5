"""What the demo plays: the providers, the settings, and calls with the shape of real traffic.

Prompts are real questions and arrivals are a real service's (data/README.md). Answers are generated words of
the length that the real service gave, bounded, so what is shown is the gateway's work and not a model's.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from importlib.resources import files
from typing import Any, Final

from tiergate.catalog import REFERENCE_PRICES, REFERENCE_PROVIDER

HOSTED: Final = REFERENCE_PROVIDER
PRIVATE: Final = "rack"

OUTPUT_TOKENS_MAX: Final = 150
_REPEAT_EVERY: Final = 12
_LATE: Final = 60
_SOON: Final = 5
"""So many calls later a question is asked again: when it has been answered, or while it is."""
_BATCH_EVERY: Final = 4

_INTERACTIVE_MODELS: Final = (
    "deepseek-v3.2",
    "deepseek-v3.2",
    "gemini-2.5-flash",
    "deepseek-v3.2",
    "gpt-4.1",
    "deepseek-v3.2",
    "claude-sonnet-4.5",
)
"""Dealt in turn: most traffic goes where a private server can take it, the rest asks for hosted models."""

# An answer is as long as the real one was, which is what its call allows; it ends there by itself.
HOSTED_SCRIPT: Final = """
seed: 7
default:
  {words: 1000, finish_reason: stop, ttft_ms: 180, ttft_spread: 0.35, tokens_per_s: 160, rate_spread: 0.2}
"""
# One private answer in thirty fails, so that going on elsewhere can be seen.
PRIVATE_SCRIPT: Final = """
seed: 11
engine: {slots: 8, base_ms: 6, per_sequence_ms: 0.4, prefill_tokens_per_s: 8000}
default: {words: 1000, finish_reason: stop, error_rate: 0.033}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCall:
    """One call of the demo: when it arrives, in seconds from the start, and what it asks."""

    at_s: float
    call_class: str
    streamed: bool
    repeated: bool
    body: Mapping[str, Any]


def planned_calls(seconds: float) -> list[PlannedCall]:
    """Give the calls, the real arrivals squeezed into so many seconds."""
    data = files("tiergate.app.demo") / "data"
    prompts = [
        json.loads(line)["prompt"] for line in (data / "prompts.jsonl").read_text("utf-8").splitlines()
    ]
    rows = list(csv.DictReader((data / "trace.csv").read_text("utf-8").splitlines()))
    squeeze = seconds / float(rows[-1]["offset_s"])
    calls: list[PlannedCall] = []
    fresh = iter(prompts)
    for number, row in enumerate(rows):
        repeated = number % _REPEAT_EVERY == _REPEAT_EVERY - 1
        batch = number % _BATCH_EVERY == _BATCH_EVERY - 1
        before = _repeated(calls, number).body if repeated else None
        model = "deepseek-v3.2" if batch else _INTERACTIVE_MODELS[number % len(_INTERACTIVE_MODELS)]
        body = {
            "model": model if before is None else before["model"],
            "messages": [{"role": "user", "content": next(fresh)}] if before is None else before["messages"],
            "temperature": 0,
            "max_tokens": min(int(row["generated_tokens"]), OUTPUT_TOKENS_MAX)
            if before is None
            else before["max_tokens"],
            "stream": not batch,
        }
        if not batch:
            body["stream_options"] = {"include_usage": True}
        calls.append(
            PlannedCall(
                at_s=float(row["offset_s"]) * squeeze,
                call_class="batch" if batch else "interactive",
                streamed=not batch,
                repeated=repeated,
                body=body,
            )
        )
    return calls


def _repeated(calls: Sequence[PlannedCall], number: int) -> PlannedCall:
    is_late = number % (2 * _REPEAT_EVERY) == _REPEAT_EVERY - 1 and number >= _LATE
    return calls[number - (_LATE if is_late else _SOON)]


def settings(*, hosted_url: str, private_url: str, data_dir: str) -> Mapping[str, Any]:
    """Give the settings that the demo's gateway runs with, as they would stand in a file."""
    return {
        "listen": "127.0.0.1:0",
        "admin": {"listen": "127.0.0.1:0"},
        "data_dir": data_dir,
        "providers": {
            PRIVATE: {
                "base_url": f"{private_url}/v1",
                "tier": "private",
                "limits": {"concurrency": 8},
            },
            HOSTED: {
                "base_url": f"{hosted_url}/v1",
                "api_keys": ["demo-key-that-opens-nothing"],
                "reseller": True,
            },
        },
        "models": {
            "deepseek-v3.2": {"targets": [f"{PRIVATE}/deepseek-v3.2", f"{HOSTED}/deepseek-v3.2"]},
            **{name: {"targets": [f"{HOSTED}/{name}"]} for name in _hosted_only()},
        },
        "prices": [
            {
                "target": record.target,
                "usd_per_1m": {"input": float(record.rates.input), "output": float(record.rates.output)},
                "from": record.valid_from.isoformat(),
                "source": record.source,
            }
            for record in REFERENCE_PRICES
        ],
    }


def cost_elsewhere(input_tokens: int, output_tokens: int) -> dict[str, Decimal]:
    """Give what so many tokens cost at each row of the reference sheet, in USD."""
    return {
        record.target.partition("/")[2]: (
            input_tokens * record.rates.input + output_tokens * record.rates.output
        )
        / 1_000_000
        for record in REFERENCE_PRICES
    }


def _hosted_only() -> list[str]:
    return sorted(set(_INTERACTIVE_MODELS) - {"deepseek-v3.2"})
