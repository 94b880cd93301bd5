"""Heartbeats by themselves: when a comment is sent, and that it never gets between two pieces."""

import asyncio
from typing import Any

import pytest

from tiergate.serve import CallerLeft
from tiergate.testing import FakeClock, run_virtual
from tiergate.web.pulse import COMMENT, Pulse
from tiergate.web.visit import Headers, Visit, VisitLimits

EVERY_S = 15.0


class Client:
    """Keeps what it is sent, each piece with its time; taking a piece takes `takes_s`."""

    def __init__(self, *, takes_s: float = 0.0) -> None:
        self.clock = FakeClock()
        self.got: list[tuple[float, bytes]] = []
        self.is_busy = False
        self._takes_s = takes_s

    def visit(self) -> Visit:
        scope = {
            "method": "POST",
            "raw_path": b"/v1/chat/completions",
            "query_string": b"",
            "client": ("127.0.0.1", "1"),
            "headers": [],
        }
        return Visit(scope, self._receive, self._send, VisitLimits())

    def pulse(self, visit: Visit, *, every_s: float | None = EVERY_S) -> Pulse:
        return Pulse(visit, every_s=every_s, headers=_headers)

    def comments(self) -> list[float]:
        return [at for at, piece in self.got if piece == COMMENT]

    def _receive(self) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().create_future()

    async def _send(self, message: dict[str, Any]) -> None:
        assert not self.is_busy, "two write at one time"
        self.is_busy = True
        await asyncio.sleep(self._takes_s)
        self.is_busy = False
        if message["type"] == "http.response.body":
            self.got.append((self.clock.monotonic(), message["body"]))


def _headers() -> Headers:
    return ((b"content-type", b"text/event-stream"),)


def test_f04_a_silent_stream_has_a_comment_each_time() -> None:
    """F04: from its beginning to its end, and none after that."""
    client = Client()

    async def main() -> None:
        visit = client.visit()
        with client.pulse(visit):
            await asyncio.sleep(50)
        assert visit.started
        await asyncio.sleep(100)

    run_virtual(main(), clock=client.clock)
    assert client.comments() == [15, 30, 45]


def test_f04_a_stream_that_is_never_silent_for_so_long_has_no_comment() -> None:
    """F04: however long it takes; and where it rests, the silence counts from its last piece."""
    client = Client()

    async def main() -> None:
        visit = client.visit()
        with client.pulse(visit) as pulse:
            await visit.start(200, _headers())
            for _ in range(20):
                await asyncio.sleep(14)
                await visit.write(b"data: {}\n\n")
                pulse.mark_written()
            assert client.comments() == []
            await asyncio.sleep(16)
            assert client.comments() == [20 * 14 + 15]

    run_virtual(main(), clock=client.clock)


def test_switched_off_there_are_none() -> None:
    """`heartbeat_s: null`; nothing begins the answer either."""
    client = Client()

    async def main() -> None:
        visit = client.visit()
        with client.pulse(visit, every_s=None):
            await asyncio.sleep(1_000)
        assert not visit.started

    run_virtual(main(), clock=client.clock)
    assert client.got == []


def test_who_waits_for_its_rest_writes_when_the_comment_has_gone() -> None:
    """A client that takes long to read a comment gets it whole before the next piece."""
    client = Client(takes_s=2)

    async def main() -> None:
        visit = client.visit()
        with client.pulse(visit) as pulse:
            await asyncio.sleep(EVERY_S + 1)
            assert client.is_busy
            await pulse.rest()
            await visit.write(b"data: {}\n\n")

    run_virtual(main(), clock=client.clock)
    assert [piece for _, piece in client.got] == [COMMENT, b"data: {}\n\n"]


def test_f22_a_client_that_is_gone_ends_the_wait_for_an_answer() -> None:
    """F22: the heartbeat finds out, and whoever waits for the answer is told why it is cancelled."""
    client = Client()

    async def main() -> None:
        visit = client.visit()
        with client.pulse(visit) as pulse:
            await visit.start(200, _headers())
            visit.gone = True
            with pytest.raises(asyncio.CancelledError):
                await asyncio.sleep(1_000)
            assert isinstance(pulse.error, CallerLeft)
        assert client.clock.monotonic() == EVERY_S

    run_virtual(main(), clock=client.clock)
