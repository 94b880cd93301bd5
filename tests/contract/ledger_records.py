"""Records of the ledger to test with, told apart by a number."""

from typing import Any

from tiergate.core import (
    Blame,
    Call,
    Caller,
    EndState,
    Outcome,
    Target,
    Tier,
    Usage,
    UsageSource,
    new_id,
)
from tiergate.ledger import CallClosed, CallOpened, Held, HoldState, Settled

BEGAN_NS = 1_767_225_600_000_000_000
CANARY = "canary-7f3a9c-the-text-of-a-prompt"
HOSTED = Target(provider="deepseek", model="deepseek-chat", tier=Tier.HOSTED)
PRIVATE = Target(provider="rack", model="qwen/qwen3-32b", tier=Tier.PRIVATE)


def opened(number: int, **changes: Any) -> CallOpened:
    """Make the beginning of call `number`; ids sort by it."""
    facts: dict[str, Any] = {
        "id": new_id(BEGAN_NS + number * 1_000_000, number.to_bytes(10, "big")),
        "caller": Caller(key="alice", team="blue"),
        "endpoint": "/v1/chat/completions",
        "asked_model": "deepseek-v3.2",
        "body": {"messages": [{"role": "user", "content": CANARY}]},
        "prompt_bytes": 1_234,
        "streamed": True,
        "received_ns": BEGAN_NS + number * 1_000_000,
        "received": 0.0,
        "tag": "nightly",
    }
    return CallOpened(
        call=Call(**(facts | changes)),
        generation=3,
        deadline_ns=BEGAN_NS + 600_000_000_000,
        route='[["deepseek/deepseek-chat","first in order"]]',
    )


def held(number: int, n: int = 1, **changes: Any) -> Held:
    """Make the hold of attempt `n` of call `number`."""
    facts: dict[str, Any] = {
        "opened": opened(number),
        "n": n,
        "target": HOSTED,
        "bound_nanos": 5_000_000,
        "price_id": "deepseek/deepseek-chat@2025-12-01",
        "queued_ns": BEGAN_NS + 1,
        "permit_ns": BEGAN_NS + 2,
        "in_flight": 4,
        "credential_id": "deepseek-1",
    }
    return Held(**(facts | changes))


def settled(number: int, n: int = 1, **changes: Any) -> Settled:
    """Make the settlement of attempt `n` of call `number`."""
    facts: dict[str, Any] = {
        "call_id": opened(number).call.id,
        "n": n,
        "state": HoldState.SETTLED,
        "outcome": Outcome.SUCCESS,
        "blame": None,
        "error_code": None,
        "status": 200,
        "sent_ns": BEGAN_NS + 3,
        "first_ns": BEGAN_NS + 4,
        "last_ns": BEGAN_NS + 5,
        "usage": Usage(input=1_000, cache_read=200, output=300, reasoning=40),
        "usage_source": UsageSource.REPORTED,
        "cash_nanos": 1_234_567,
        "upstream_cost_nanos": 1_234_000,
        "replica": "api.deepseek.com:443",
        "upstream_request_id": "req-0123456789",
        "service_tier": "default",
    }
    return Settled(**(facts | changes))


def released(number: int, n: int = 1) -> Settled:
    """Make the release of attempt `n` of call `number`, which was never delivered."""
    return settled(
        number,
        n,
        state=HoldState.RELEASED,
        outcome=Outcome.DROPPED,
        blame=Blame.PROVIDER,
        error_code="upstream_unreachable",
        status=None,
        first_ns=None,
        usage=Usage(),
        usage_source=UsageSource.NONE,
        cash_nanos=0,
        upstream_cost_nanos=None,
    )


def closed(number: int, **changes: Any) -> CallClosed:
    """Make the end of call `number`."""
    facts: dict[str, Any] = {
        "opened": opened(number),
        "end": EndState.SUCCESS,
        "error_code": None,
        "first_event_ns": BEGAN_NS + 6,
        "last_event_ns": BEGAN_NS + 7,
        "finish_reasons": ("stop",),
        "attempts": 1,
    }
    return CallClosed(**(facts | changes))
