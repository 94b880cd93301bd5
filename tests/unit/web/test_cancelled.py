"""A streamed call through the data plane with heartbeats, cancelled at every await: nothing is left of it."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from tiergate.core import EndState
from tiergate.resilience import ProviderLimits
from tiergate.web import DataPlane, DoorPolicy
from tiergate.web.visit import ClientGone, ConnectionBroken, Visit, VisitLimits
from unit.serve.stage import (
    ONE,
    ROLE,
    STOP,
    TWO,
    USAGE,
    Answer,
    House,
    broken,
    interrupted,
    run,
    turn,
    unreachable,
)

BODY = json.dumps(
    {"model": "model", "messages": [{"role": "user", "content": "hi"}], "stream": True}
).encode()
BEAT_S = 0.375
"""As all times here it is a sum of halves of halves: a timer that is due is then due, whatever is added."""
LATE = Answer((1.0, [ROLE], [ONE], 1.5, [TWO, STOP], [USAGE]))
ANSWERS: Mapping[str, Mapping[str, Answer]] = {
    "late, and slow": {"a": LATE},
    "somebody else answers late": {"a": Answer((0.875, [ROLE], broken())), "b": LATE},
    "nobody answers": {"a": Answer(refusal=unreachable()), "b": Answer((0.875, broken("b/m")))},
    "it breaks off": {"a": Answer((0.875, [ROLE], [ONE], 0.875, broken()))},
}


class Client:
    """The server's side of one request: what is received, and what was sent."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self._body = [BODY]
        scope = {
            "method": "POST",
            "raw_path": b"/v1/chat/completions",
            "query_string": b"",
            "client": ("127.0.0.1", "1"),
            "headers": [
                (b"host", b"localhost"),
                (b"content-type", b"application/json"),
                (b"content-length", str(len(BODY)).encode()),
            ],
        }
        self.visit = Visit(scope, self._receive, self._send, VisitLimits())

    def _receive(self) -> "asyncio.Future[dict[str, Any]]":
        message = asyncio.get_running_loop().create_future()
        if self._body:
            message.set_result({"type": "http.request", "body": self._body.pop(), "more_body": False})
        return message

    async def _send(self, message: dict[str, Any]) -> None:
        await turn()
        self.sent.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    def check(self) -> None:
        """One beginning; heartbeats between events and never in one; an end only where it is complete."""
        assert [message["type"] for message in self.sent].count("http.response.start") <= 1
        for block in self.body.split(b"\n\n"):
            assert block.count(b": waiting") == block.startswith(b": waiting") or b"error" in block
        is_stream = self.sent and dict(self.sent[0]["headers"]).get(b"content-type") == b"text/event-stream"
        if is_stream:
            has_ended = any(message.get("more_body") is False for message in self.sent)
            assert has_ended <= (b"[DONE]" in self.body)


async def visited(house: House, client: Client, *, at: int, as_it_wakes: bool, gone_s: float | None) -> bool:
    """Let a client be served, cancelled at the nth await or gone after a while; False: it came too late."""
    plane = DataPlane(
        house.rooms, policy=DoorPolicy(heartbeat_s=BEAT_S), randomness=lambda size: b"\0" * size
    )

    async def task() -> None:
        await interrupted(plane(client.visit), at=at, as_it_wakes=as_it_wakes)

    served = asyncio.create_task(task())
    if gone_s is not None:
        asyncio.get_running_loop().call_later(gone_s, setattr, client.visit, "gone", True)
    await asyncio.wait({served})
    is_cancelled = served.cancelled() or served.exception() is not None
    assert served.cancelled() or isinstance(served.exception(), ClientGone | ConnectionBroken | None)
    client.visit.leave()
    count = len(client.sent)
    await asyncio.sleep(5)
    assert len(client.sent) == count, "a heartbeat came after the end"
    assert len(asyncio.all_tasks()) == 1
    return is_cancelled or b'"shutting_down"' in client.body


@pytest.mark.parametrize("as_it_wakes", [False, True], ids=["while it waits", "as it wakes"])
@pytest.mark.parametrize("name", ANSWERS)
def test_cancelled_at_any_await_with_heartbeats_nothing_is_left(name: str, as_it_wakes: bool) -> None:
    """Books, places, trials and tasks, whatever was about to be written; and never an end that was none."""
    reached = 0
    for at in range(1, 200):
        house = House(ANSWERS[name], limits={"a": ProviderLimits(concurrency=1)})
        client = Client()
        run(house, visited(house, client, at=at, as_it_wakes=as_it_wakes, gone_s=None))
        client.check()
        if house.journal.order:
            house.check()
        reached += b": waiting" in client.body
        if b'"shutting_down"' not in client.body and at > 3:
            break
    else:
        raise AssertionError("it never came to its end")
    assert reached, "no heartbeat was ever sent"


@pytest.mark.parametrize("gone_s", [0.25, 0.5, 1.25, 1.875, 2.25])
def test_a_client_that_is_found_gone_by_a_heartbeat_leaves_nothing(gone_s: float) -> None:
    """Before the first content and after it; its call is closed as its own leaving."""
    house, client = House(ANSWERS["late, and slow"]), Client()
    assert run(house, visited(house, client, at=0, as_it_wakes=False, gone_s=gone_s))
    house.check()
    assert house.ended.end is EndState.CLIENT_CLOSED
