"""The plain stream of `POST /v1/chat/stream`: one `content` per piece, then `done` with the account."""

from collections.abc import Mapping
from typing import Any

from tiergate.core import Usage
from tiergate.wire.jsontext import dumps
from tiergate.wire.sse import write_event
from tiergate.wire.usage import cost_number, usage_object


def write_piece(text: str) -> bytes:
    """Write one piece of text as an event."""
    return write_event(dumps({"content": text}))


def write_done(
    *,
    usage: Usage | None,
    ttft_ms: float,
    latency_ms: float,
    cash_nanos: int | None,
    origin: Mapping[str, Any] | None = None,
) -> bytes:
    """Write the last event. Times are milliseconds since the call was received; unknown cost is null.

    `origin`: where the answer comes from, where no header could say it.
    """
    return write_event(
        dumps(
            {
                "done": True,
                "usage": None if usage is None else usage_object(usage),
                "ttft_ms": round(ttft_ms, 3),
                "latency_ms": round(latency_ms, 3),
                "cost_usd": cost_number(cash_nanos),
                **(origin or {}),
            }
        )
    )
