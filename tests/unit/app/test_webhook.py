"""Alerts by webhook, to a real server: delivered, tried again, given up with a line that names no address."""

import asyncio
import json
from collections.abc import Callable

import pytest

from flow.recorder import Play, Recorder, Seen, Wire, whole
from tiergate.app import webhook as module
from tiergate.app.webhook import Webhook
from tiergate.core import BudgetReached, Event, Notice, SpendingFast
from tiergate.upstream import open_transport

EVENT = BudgetReached(
    budget="key:web per month",
    share=0.8,
    spent_nanos=40_100_000_000,
    held_nanos=0,
    amount_nanos=50_000_000_000,
    window_start_ns=1_767_225_600_000_000_000,
    window_end_ns=1_769_904_000_000_000_000,
)
FAST = SpendingFast(key="web", spent_nanos=21_500_000_000, limit_nanos=20_000_000_000)
SECRET = "/services/T000/canary-token?x=1"


def answering(*statuses: bytes) -> tuple[Play, list[Seen]]:
    seen: list[Seen] = []

    def play(asked: Seen, wire: Wire) -> None:
        seen.append(asked)
        status = statuses[min(len(seen), len(statuses)) - 1]
        wire.send(whole(b"ok", status=status, more=b"location: http://127.0.0.1:1/decoy\r\n"))

    return play, seen


def posted(url: str, is_over: Callable[[list[Event]], bool], alert: Event = EVENT) -> list[Event]:
    told: list[Event] = []

    async def test() -> None:
        transport = open_transport()
        hook = Webhook(url, transport=transport, emit=told.append)
        running = asyncio.create_task(hook.run())
        hook(alert)
        hook(Notice(word="other", message="is not posted"))
        async with asyncio.timeout(20):
            while not is_over(told):
                await asyncio.sleep(0.01)
        running.cancel()
        await transport.aclose()

    asyncio.run(test())
    return told


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WAITS_S", (0.01, 0.01))


def test_an_alert_is_posted_with_its_amounts() -> None:
    """As JSON, with a sentence for people."""
    play, seen = answering(b"200 OK")
    with Recorder(play) as server:
        assert posted(server.url + SECRET, lambda told: len(seen) == 1) == []
    assert seen[0].request_line == f"POST {SECRET} HTTP/1.1"
    body = json.loads(json.dumps(seen[0].json))
    assert (body["budget"], body["share"], body["spent_usd"], body["usd"]) == (
        "key:web per month",
        0.8,
        40.1,
        50,
    )
    assert body["text"].startswith("Tiergate: 80% of the budget key:web per month is spent, $40.1 of $50.")
    assert (body["window_start"], body["window_end"]) == ("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z")


def test_fast_spending_is_posted_too() -> None:
    """With the key, and against what; where it cannot be delivered the line names the key."""
    play, seen = answering(b"200 OK")
    with Recorder(play) as server:
        assert posted(server.url + SECRET, lambda told: len(seen) == 1, FAST) == []
    assert seen[0].json == {
        "text": "Tiergate: the calls of the key web cost $21.5 within an hour, more than the $20 of "
        "`alerts.usd_per_hour`.",
        "event": "spending_fast",
        "key": "web",
        "spent_usd": 21.5,
        "usd_per_hour": 20,
    }
    (notice,) = posted("http://127.0.0.1:9" + SECRET, bool, FAST)
    assert isinstance(notice, Notice) and "the spending of web" in notice.message


def test_it_is_tried_again_and_then_given_up() -> None:
    """The line says why, and not where to."""
    play, seen = answering(b"500 Oops", b"200 OK")
    with Recorder(play) as server:
        assert posted(server.url + SECRET, lambda told: len(seen) == 2) == []
    play, seen = answering(b"503 Busy")
    with Recorder(play) as server:
        (notice,) = posted(server.url + SECRET, bool)
    assert isinstance(notice, Notice) and notice.severe and len(seen) == 3
    assert "it answered 503" in notice.message and "canary" not in notice.message


def test_redirects_are_not_followed_and_nobody_there_is_told() -> None:
    """S12: an answer cannot send it elsewhere."""
    play, seen = answering(b"302 Found")
    with Recorder(play) as server:
        (notice,) = posted(server.url + SECRET, bool)
    assert isinstance(notice, Notice) and "it answered 302" in notice.message and len(seen) == 3
    (notice,) = posted("http://127.0.0.1:9" + SECRET, bool)
    assert isinstance(notice, Notice) and "canary" not in notice.message
