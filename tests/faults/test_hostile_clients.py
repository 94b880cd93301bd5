"""Clients that mean no good: slow by the thousand, with forged addresses, upgrades, links and long tales."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from contract.raw_http import Client, exchange, run, until
from contract.raw_http import request as raw_request
from faults.impatient import PATIENCE_S
from flow.plain_http import ask, bearer, request
from flow.recorder import Recorder, Seen, Wire, completion, whole
from house import GatewayProcess
from tiergate.admin import AdminListener
from tiergate.admin.guard import Receive, Scope, Send

KEY = "hostile-key-1f84a6c0d27b93e5"
CHAT = "/v1/chat/completions"
BODY = {"model": "good", "messages": [{"role": "user", "content": "hello"}]}
PROGRAM = (str(Path(__file__).with_name("impatient.py")),)
MANY = 1000
TICK_S = 0.3


def answer_at_length(seen: Seen, wire: Wire) -> None:
    """Answer more than the kernel takes for a client that does not read, where the target is called so."""
    wire.send(whole(completion("x" * (150_000 if seen.json["model"] == "long" else 5))))


@pytest.fixture(scope="module")
def recorder() -> Iterator[Recorder]:
    with Recorder(answer_at_length) as upstream:
        yield upstream


# S19: slow clients. That they end is asserted, and that others are answered; how fast is only printed.


@dataclass(frozen=True, slots=True, kw_only=True)
class Slow:
    """A client that takes its time.

    Attributes:
        first: what it sends at once.
        drip: what it adds at every tick.
        sip: how many bytes it reads at every tick; None: all that come.
    """

    first: bytes = b""
    drip: bytes = b""
    sip: int | None = None


HALF_A_HEAD = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n"
WITH_KEY = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n".encode()
JSON_LINE = b"Content-Type: application/json\r\n"
LONG = request(CHAT, BODY | {"model": "long"}, headers=[bearer(KEY)])
SLOW = {
    "silent": Slow(),
    "slow headers": Slow(first=HALF_A_HEAD, drip=b"X-A: 1\r\n"),
    "slow body": Slow(first=WITH_KEY + JSON_LINE + b"Content-Length: 9999\r\n\r\n{", drip=b" "),
    "slow chunks": Slow(
        first=WITH_KEY + JSON_LINE + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n", drip=b"1\r\n \r\n"
    ),
    "idle after an answer": Slow(first=request("/health/live")),
    "reads nothing": Slow(first=LONG, sip=0),
    "reads a little": Slow(first=LONG, sip=256),
}


@pytest.fixture(scope="module")
def impatient(recorder: Recorder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    settings = {
        "auth": "keys",
        "keys": [{"name": "ci", "secret": KEY}],
        "providers": {"main": {"base_url": recorder.base_url}},
        "models": {"good": {"targets": ["main/up"]}, "long": {"targets": ["main/long"]}},
    }
    with GatewayProcess(tmp_path_factory.mktemp("impatient"), settings, program=PROGRAM) as process:
        yield process


@contextmanager
def many(port: int, kind: Slow, count: int) -> Iterator[list[socket.socket]]:
    """Open connections of one kind."""
    with ExitStack() as stack:
        clients = []
        for _ in range(count):
            client = stack.enter_context(socket.socket())
            if kind.sip is not None:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.settimeout(10)
            client.connect(("127.0.0.1", port))
            client.sendall(kind.first)
            if kind.sip is not None:
                # One after the other: a provider has a hundred places.
                assert client.recv(1)
            client.setblocking(False)
            clients.append(client)
        yield clients


def connections_of(gateway: GatewayProcess) -> int:
    """How many descriptors it holds: a client of which the kernel gave up is not told."""
    return len(list(Path(f"/proc/{gateway.pid}/fd").iterdir()))


def go_on_slowly(kind: Slow, clients: list[socket.socket]) -> None:
    """Send and read what one tick allows."""
    time.sleep(TICK_S)
    for client in clients:
        with suppress(OSError):
            if kind.drip:
                client.send(kind.drip)
            if kind.sip:
                client.recv(kind.sip)


@contextmanager
def healthy_traffic(port: int) -> Iterator[list[tuple[int, float]]]:
    """Ask well and again while the block runs; give status and seconds of each call."""
    calls: list[tuple[int, float]] = []
    done = threading.Event()

    def go_on() -> None:
        while not done.is_set():
            began = time.perf_counter()
            status = ask(port, CHAT, BODY, headers=[bearer(KEY)]).status
            calls.append((status, time.perf_counter() - began))
            done.wait(0.01)

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield calls
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize("kind", SLOW.values(), ids=SLOW)
def test_s19_a_thousand_slow_clients_are_hung_up_on(impatient: GatewayProcess, kind: Slow) -> None:
    """S19: all of them in time, while every call of the others is answered."""
    before = connections_of(impatient)
    with healthy_traffic(impatient.port) as calls, many(impatient.port, kind, MANY) as clients:
        held = connections_of(impatient) - before
        began = time.monotonic()
        while connections_of(impatient) > before + MANY // 50:
            assert time.monotonic() < began + PATIENCE_S + 20, connections_of(impatient) - before
            go_on_slowly(kind, clients)
        seconds = time.monotonic() - began
    waits = sorted(wait for _, wait in calls)
    said = f"{len(calls)} calls, median {waits[len(waits) // 2]:.4f} s, most {waits[-1]:.4f} s"
    print(f"\nended in {seconds:.1f} s; the others meanwhile: {said}")
    # Those of a kind that takes long to come have ended before the last is there.
    assert held > MANY // 4
    assert len(calls) > 10 and {status for status, _ in calls} == {200}


# The admin plane is slower to fill, and held by the same means.

ADMIN_SLOW = {
    "silent": Slow(),
    "slow headers": Slow(first=b"GET / HTTP/1.1\r\nHost: localhost\r\n", drip=b"X-A: 1\r\n"),
    "slow second headers": Slow(first=raw_request() + b"GET / HTTP/1.1\r\n", drip=b"X-A: 1\r\n"),
    "slow body": Slow(first=b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n", drip=b" "),
    "reads nothing": Slow(first=raw_request("/long"), sip=0),
    "reads a little": Slow(first=raw_request("/long"), sip=256),
}


async def plain_admin(scope: Scope, receive: Receive, send: Send) -> None:
    """Read the body and answer, at length where the path says so."""
    while (await receive()).get("more_body"):
        pass
    body = b"x" * (8 << 20 if scope["path"] == "/long" else 5)
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": body})


@pytest.mark.parametrize("kind", ADMIN_SLOW.values(), ids=ADMIN_SLOW)
def test_s19_the_admin_plane_hangs_up_on_slow_clients(kind: Slow) -> None:
    """S19: on each that an operator's server would wait for; others are answered after them."""

    async def main() -> None:
        listener = AdminListener(plain_admin, host="127.0.0.1", port=0, exchange_s=0.5)
        await listener.start()
        client = Client(listener.port, receive_buffer=4096)
        await client.send(kind.first)
        await until(lambda: listener.connections == 1)
        while listener.connections:
            await asyncio.sleep(0.05)
            with suppress(ConnectionError, BlockingIOError):
                await client.send(kind.drip)
                if kind.sip:
                    client.sip(kind.sip)
        assert b"200 OK" in await exchange(listener.port, raw_request(), marker=b"xxxxx")
        await listener.stop()

    run(main)
