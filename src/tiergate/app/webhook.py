"""Alerts by webhook: what somebody has to look at is posted, beside the log.

That is a budget of which much is spent, a key that spends fast, and a provider that refuses our key.

An alert waits in a short queue, is tried three times, and what cannot be delivered is said in the log and
dropped. The address is a secret, since such addresses hold tokens: no message names it.
"""

import asyncio
from collections import deque
from contextlib import closing
from time import monotonic
from typing import Any, Final, assert_never
from urllib.parse import urlsplit

from tiergate.core import (
    VERSION,
    BreakerChanged,
    BudgetReached,
    Emit,
    Event,
    Notice,
    SpendingFast,
    UpstreamError,
    nanos_to_usd,
)
from tiergate.reports import moment_text
from tiergate.upstream import Endpoint, Origin, Timing, Transport
from tiergate.wire import dumps

_TIMEOUT_S: Final = 5.0
_WAITS_S: Final = (1.0, 10.0)
"""Between three tries."""
_WAITING_MAX: Final = 100
_PORTS: Final = {"http": 80, "https": 443}

Alert = BudgetReached | SpendingFast | BreakerChanged


class Webhook:
    """A sink for events that posts those that somebody has to look at.

    Args:
        url: where to; None: nowhere.
        transport: sends requests, follows no redirect; TLS is verified.
        emit: hears of what could not be delivered.
    """

    def __init__(self, url: str | None, *, transport: Transport, emit: Emit) -> None:
        self._transport = transport
        self._emit = emit
        self._waiting: deque[Alert] = deque(maxlen=_WAITING_MAX)
        self._wake = asyncio.Event()
        self.use(url)

    def use(self, url: str | None) -> None:
        """Take another address."""
        self._endpoint = None if url is None else _endpoint(url)

    def __call__(self, event: Event) -> None:
        """Take an event. Returns at once."""
        if isinstance(event, Alert) and _is_for_somebody(event) and self._endpoint is not None:
            self._waiting.append(event)
            self._wake.set()

    async def run(self) -> None:
        """Post what comes until it is cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                await self._deliver(self._waiting.popleft())

    async def _deliver(self, event: Alert) -> None:
        body = dumps(alert_object(event))
        why = ""
        for wait_s in (0.0, *_WAITS_S):
            await asyncio.sleep(wait_s)
            endpoint = self._endpoint
            if endpoint is None:
                return
            why = await self._post(endpoint, body)
            if not why:
                return
        message = f"The alert about the {_what(event)} was not delivered: {why}. See `alerts.webhook`."
        self._emit(Notice(word="alert_not_delivered", message=message, severe=True))

    async def _post(self, endpoint: Endpoint, body: bytes) -> str:
        """Post once; give why it failed, or nothing."""
        try:
            response = await self._transport.send(endpoint, body, timing=Timing(monotonic() + _TIMEOUT_S))
            with closing(response):
                return "" if 200 <= response.status < 300 else f"it answered {response.status}"
        except UpstreamError as error:
            return str(error).rstrip(".")


def alert_object(event: Alert) -> dict[str, Any]:
    """Give what is posted. `text` says it in a sentence, as chat services show it."""
    match event:
        case BudgetReached():
            return _budget_object(event)
        case SpendingFast():
            return _spending_object(event)
        case BreakerChanged():
            return _blocked_object(event)
        case _:
            assert_never(event)


def _is_for_somebody(event: Alert) -> bool:
    """Tell whether it passes by itself: of breakers only that of a key of ours that is refused does not."""
    return not isinstance(event, BreakerChanged) or (event.part, event.state) == ("credential", "open")


def _what(event: Alert) -> str:
    match event:
        case BudgetReached():
            return f"budget {event.budget}"
        case SpendingFast():
            return f"spending of {event.key}"
        case BreakerChanged():
            return f"credential of {event.target}"
        case _:
            assert_never(event)


def _blocked_object(event: BreakerChanged) -> dict[str, Any]:
    return {
        "text": f"Tiergate: our credential at {event.target} is blocked. {event.because}",
        "event": "credential_blocked",
        "provider": event.target,
        "because": event.because,
        "asked_again_in_s": round(event.wait_s),
    }


def _spending_object(event: SpendingFast) -> dict[str, Any]:
    spent, limit = nanos_to_usd(event.spent_nanos), nanos_to_usd(event.limit_nanos)
    return {
        "text": f"Tiergate: the calls of the key {event.key} cost ${spent:f} within an hour, more than the "
        f"${limit:f} of `alerts.usd_per_hour`.",
        "event": "spending_fast",
        "key": event.key,
        "spent_usd": spent,
        "usd_per_hour": limit,
    }


def _budget_object(event: BudgetReached) -> dict[str, Any]:
    spent, amount = nanos_to_usd(event.spent_nanos), nanos_to_usd(event.amount_nanos)
    end_ns = event.window_end_ns
    until = "" if end_ns is None else f" It begins anew at {moment_text(end_ns)}."
    return {
        "text": f"Tiergate: {event.share:.0%} of the budget {event.budget} is spent, ${spent:f} of "
        f"${amount:f}.{until}",
        "event": "budget_reached",
        "budget": event.budget,
        "share": event.share,
        "spent_usd": spent,
        "held_usd": nanos_to_usd(event.held_nanos),
        "usd": amount,
        "window_start": moment_text(event.window_start_ns),
        "window_end": None if end_ns is None else moment_text(end_ns),
    }


def _endpoint(url: str) -> Endpoint:
    parts = urlsplit(url)
    assert parts.scheme in ("http", "https")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Endpoint(
        label="the webhook",
        origin=Origin(
            scheme="https" if parts.scheme == "https" else "http",
            host=parts.hostname or "",
            port=parts.port or _PORTS[parts.scheme],
        ),
        path=path,
        headers=(("content-type", "application/json"), ("user-agent", f"tiergate/{VERSION}")),
    )
