"""The stream contract of the server: raw sockets against a real listener, as ADR 0001 asks."""

import asyncio
import logging
import socket
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from contract.raw_http import (
    JSON,
    LAST_CHUNK,
    STREAM,
    Client,
    exchange,
    finished,
    listening,
    request,
    run,
    until,
)
from tiergate.core import CannotStart, InvalidRequest
from tiergate.web.listener import Listener, ListenerLimits
from tiergate.web.visit import ClientGone, ClientStalled, Visit

FAILURE = b'data: {"error": {"code": "shutting_down"}}\n\n'


@pytest.fixture(autouse=True)
def _nothing_is_printed(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> Iterator[None]:
    """In none of these tests does the server print or log a word: tracebacks could hold secrets."""
    yield
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err == ""
    assert caplog.get_records("call") == []


async def stream_forever(visit: Visit) -> None:
    """Send an event every 20 ms; tell the client when cancelled, as the gateway does when it stops."""
    await visit.start(200, STREAM)
    try:
        while True:
            await visit.write(b"data: event\n\n")
            await asyncio.sleep(0.02)
    except asyncio.CancelledError:
        await visit.write(FAILURE)
        visit.abort()


def test_each_event_leaves_when_it_arrives() -> None:
    """Of five events 50 ms apart, each reaches the client before the next one is written."""
    written: list[float] = []

    async def application(visit: Visit) -> None:
        await visit.start(200, STREAM)
        for number in range(5):
            written.append(time.monotonic())
            await visit.write(b"data: %d\n\n" % number)
            await asyncio.sleep(0.05)
        await visit.end()

    async def main() -> None:
        async with listening(application) as listener:
            client = Client(listener.port)
            await client.send(request())
            assert await client.read_until(LAST_CHUNK)
            for number, after in enumerate([*written[1:], float("inf")]):
                arrived = next(at for at, data in client.arrivals if b"data: %d\n" % number in data)
                assert written[number] <= arrived < after

    run(main)


def test_headers_of_a_stream_leave_before_its_first_event() -> None:
    """A client sees status 200 while the application still waits for its first event."""

    async def main() -> None:
        go_on = asyncio.Event()

        async def application(visit: Visit) -> None:
            await visit.start(200, STREAM)
            await go_on.wait()
            await visit.end()

        async with listening(application) as listener:
            client = Client(listener.port)
            await client.send(request())
            assert await client.read_until(b"\r\n\r\n")
            assert client.received.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"server: tiergate\r\n" in client.received
            go_on.set()
            assert await client.read_until(LAST_CHUNK[2:])

    run(main)


@pytest.mark.parametrize("piece_bytes", [4096, 1024 * 1024])
def test_a_client_that_reads_nothing_holds_the_writer_back(piece_bytes: int) -> None:
    """Each of sixteen stalled readers stops its writer and costs less than 256 KiB, the kernel's included."""
    piece = b"x" * piece_bytes
    taken: dict[tuple[str, str], int] = {}

    async def application(visit: Visit) -> None:
        await visit.start(200, STREAM)
        while True:
            await visit.write(piece)
            taken[visit.client] = taken.get(visit.client, 0) + piece_bytes

    async def main() -> None:
        async with listening(application) as listener:
            await exchange(listener.port, request(), marker=b"x")  # what is allocated once is allocated now
            await until(lambda: listener.visits == 0)
            taken.clear()
            before = resident_bytes()
            clients = [Client(listener.port, receive_buffer=4096) for _ in range(16)]
            for client in clients:
                await client.send(request())
            await until(lambda: listener.visits == 16)
            await asyncio.sleep(0.4)
            stopped_at = dict(taken)
            await asyncio.sleep(0.2)
            assert taken == stopped_at
            assert all(count < 256 * 1024 for count in taken.values())
            if piece_bytes == 4096:
                assert len(taken) == 16
            assert (resident_bytes() - before) / 16 < 256 * 1024
            for client in clients:
                client.close()

    run(main)


def resident_bytes() -> int:
    """Resident memory of this process: the listener's and, since they share it, the clients'."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_a_stalled_stream_is_cut_after_the_write_idle_time() -> None:
    """The application learns that its client stalled, and the connection is gone."""
    ends: list[BaseException] = []

    async def application(visit: Visit) -> None:
        await visit.start(200, STREAM)
        try:
            while True:
                await visit.write(b"x" * 4096)
        except ClientStalled as end:
            ends.append(end)
            raise

    async def main() -> None:
        async with listening(application, write_idle_s=0.4) as listener:
            client = Client(listener.port, receive_buffer=4096)
            await client.send(request())
            await until(lambda: bool(ends), timeout_s=1.5)
            await until(lambda: listener.visits == 0)
            assert LAST_CHUNK not in await client.read_to_end()

    run(main)


def test_a_client_that_trickles_cannot_keep_a_stalled_connection() -> None:
    """A reader of 1 KiB every 50 ms satisfies the kernel, yet its connection ends with the application."""

    async def application(visit: Visit) -> None:
        await visit.start(200, STREAM)
        while True:
            await visit.write(b"x" * 1024 * 1024)

    async def main() -> None:
        async with listening(application, write_idle_s=0.5) as listener:
            client = Client(listener.port, receive_buffer=4096)
            await client.send(request())
            await until(lambda: listener.visits == 1)
            trickle = asyncio.create_task(client.trickle(bytes_each=1024, every_s=0.05))
            await until(lambda: listener.visits == 0, timeout_s=4)
            assert await finished(trickle, timeout_s=1) < 0.5

    run(main)


def test_a_whole_answer_that_nobody_reads_does_not_hold_its_connection() -> None:
    """The application has ended long ago; the kernel ends the connection after the write-idle time."""

    async def application(visit: Visit) -> None:
        await visit.answer(200, JSON, b"x" * 4 * 1024 * 1024)

    async def main() -> None:
        async with listening(application, write_idle_s=0.4) as listener:
            client = Client(listener.port, receive_buffer=4096)
            await client.send(request())
            await until(lambda: listener.visits == 0)
            await asyncio.sleep(1.5)
            assert len(await client.read_to_end()) < 4 * 1024 * 1024

    run(main)


def test_a_whole_answer_that_is_sipped_does_not_hold_its_connection() -> None:
    """Often enough for the kernel, and too slow for the rate that a long answer must be read at."""

    async def application(visit: Visit) -> None:
        await visit.answer(200, JSON, b"x" * 4 * 1024 * 1024)

    async def main() -> None:
        async with listening(application, write_idle_s=0.6, read_bytes_per_s=1 << 26) as listener:
            client = Client(listener.port, receive_buffer=4096)
            await client.send(request())
            trickle = asyncio.create_task(client.trickle(bytes_each=2048, every_s=0.05))
            await finished(trickle, timeout_s=6)

    run(main)


async def abort(visit: Visit) -> None:
    visit.abort()


async def return_early(_visit: Visit) -> None:
    return


async def fail(_visit: Visit) -> None:
    raise KeyError("sk-secret")


async def be_cancelled(_visit: Visit) -> None:
    raise asyncio.CancelledError


@pytest.mark.parametrize("ending", [abort, return_early, fail, be_cancelled])
def test_a_failure_after_the_first_event_ends_the_connection_without_its_last_chunk(ending) -> None:  # type: ignore[no-untyped-def]  # one of four coroutine functions
    """The failure event arrives, then the connection ends, and no reader can take the part for the whole."""

    async def application(visit: Visit) -> None:
        await visit.start(200, STREAM)
        await visit.write(b"data: event\n\n")
        await visit.write(FAILURE)
        await ending(visit)

    async def main() -> None:
        async with listening(application) as listener:
            answers = await asyncio.gather(*[exchange(listener.port, request()) for _ in range(40)])
            for answer in answers:
                assert FAILURE in answer
                assert LAST_CHUNK not in answer

    run(main)


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("half", [True, False], ids=["closes its sending side", "closes"])
def test_a_client_that_leaves_is_noticed_within_a_second(streamed: bool, half: bool) -> None:
    """Streamed or not, while nothing is written; and writing afterwards says so."""
    noticed: list[float] = []
    refused: list[bool] = []

    async def application(visit: Visit) -> None:
        await visit.read_body(bytes_max=100, timeout_s=1)
        if streamed:
            await visit.start(200, STREAM)
            await visit.write(b"data: event\n\n")
        gone = asyncio.Event()
        visit.when_gone(gone.set)
        await gone.wait()
        noticed.append(time.monotonic())
        if streamed:
            with pytest.raises(ClientGone):
                await visit.write(b"data: event\n\n")
            refused.append(True)

    async def main() -> None:
        async with listening(application) as listener:
            client = Client(listener.port)
            await client.send(request(body=b"{}"))
            await until(lambda: listener.visits == 1)
            await asyncio.sleep(0.3)
            left = time.monotonic()
            client.stop_sending() if half else client.close()
            await until(lambda: listener.visits == 0, timeout_s=1.0)
            assert 0 < noticed[0] - left < 1.0
            assert refused == ([True] if streamed else [])

    run(main)


def test_a_client_that_leaves_at_once_is_noticed_too() -> None:
    """Leaving before the watch begins changes nothing."""

    async def application(visit: Visit) -> None:
        await visit.read_body(bytes_max=100, timeout_s=1)
        gone = asyncio.Event()
        visit.when_gone(gone.set)
        await gone.wait()

    async def main() -> None:
        async with listening(application) as listener:
            client = Client(listener.port)
            await client.send(request(body=b"{}"))
            await until(lambda: listener.visits == 1)
            client.close()
            await until(lambda: listener.visits == 0, timeout_s=1.0)

    run(main)


def test_a_client_that_sent_too_much_and_left_is_noticed_by_the_next_event() -> None:
    """Bytes behind the request hide the leaving from granian until something is written to the client."""

    async def application(visit: Visit) -> None:
        await visit.read_body(bytes_max=100, timeout_s=1)
        await stream_forever(visit)

    async def main() -> None:
        async with listening(application) as listener:
            client = Client(listener.port)
            await client.send(request(body=b"{}") + b"X")
            await client.read_until(b"data: event")
            await asyncio.sleep(0.3)
            client.close()
            await until(lambda: listener.visits == 0, timeout_s=1.0)

    run(main)


def test_a_client_that_leaves_while_it_uploads_is_noticed_within_a_second() -> None:
    """The body breaks off; the application is not left waiting for its time-out."""
    ends: list[InvalidRequest] = []

    async def application(visit: Visit) -> None:
        try:
            await visit.read_body(bytes_max=100, timeout_s=10)
        except InvalidRequest as end:
            ends.append(end)

    async def main() -> None:
        async with listening(application) as listener:
            client = Client(listener.port)
            await client.send(request(body=b"x" * 50)[:-20])
            await until(lambda: listener.visits == 1)
            client.close()
            await until(lambda: bool(ends), timeout_s=1.0)

    run(main)


def test_a_normal_end_is_not_taken_for_leaving() -> None:
    """The callback stays silent when the answer has ended, even if the client closes right after it."""
    calls: list[str] = []

    async def application(visit: Visit) -> None:
        await visit.read_body(bytes_max=100, timeout_s=1)
        visit.when_gone(lambda: calls.append("gone"))
        await asyncio.sleep(0.3)
        await visit.start(200, STREAM)
        await visit.write(b"data: event\n\n")
        await visit.end()
        await asyncio.sleep(0.1)

    async def main() -> None:
        async with listening(application) as listener:
            answer = await exchange(listener.port, request(body=b"{}"), marker=LAST_CHUNK)
            assert b"data: event" in answer
            await until(lambda: listener.visits == 0)
            assert calls == []

    run(main)


def test_stopping_lets_a_running_stream_finish_and_takes_no_new_connection() -> None:
    """The stream reaches its last chunk; an idle connection is closed and a new one refused meanwhile."""

    async def main() -> None:
        finish = asyncio.Event()

        async def application(visit: Visit) -> None:
            await visit.start(200, STREAM)
            while not finish.is_set():
                await visit.write(b"data: event\n\n")
                await asyncio.sleep(0.02)
            await visit.end()

        async with listening(application) as listener:
            idle = Client(listener.port)
            client = Client(listener.port)
            await client.send(request())
            await client.read_until(b"data: event")
            stopping = asyncio.create_task(listener.stop(drain_s=5))
            await idle.read_to_end(timeout_s=0.5)
            with pytest.raises(ConnectionRefusedError):
                Client(listener.port)
            assert not stopping.done()
            finish.set()
            assert LAST_CHUNK in await client.read_to_end()
            assert await finished(stopping, timeout_s=1) < 1
            assert listener.visits == 0

    run(main)


def test_a_stream_that_outlasts_the_drain_is_ended_with_a_failure_event() -> None:
    """The application is cancelled, tells its client, and the connection ends without its last chunk."""

    async def main() -> None:
        async with listening(stream_forever) as listener:
            clients = [Client(listener.port) for _ in range(5)]
            for client in clients:
                await client.send(request())
                await client.read_until(b"data: event")
            assert 0.2 <= await finished(listener.stop(drain_s=0.2), timeout_s=2) < 1
            for client in clients:
                answer = await client.read_to_end()
                assert FAILURE in answer
                assert LAST_CHUNK not in answer

    run(main)


def test_stopping_does_not_wait_for_clients_that_read_nothing() -> None:
    """Stalled readers of streams and of whole answers are cut; the reader beside them gets its event."""

    async def application(visit: Visit) -> None:
        if visit.path == "/whole":
            await visit.answer(200, JSON, b"x" * 4 * 1024 * 1024)
        elif visit.path == "/stalled":
            await visit.start(200, STREAM)
            while True:
                await visit.write(b"x" * 65536)
        else:
            await stream_forever(visit)

    async def main() -> None:
        async with listening(application, write_idle_s=60) as listener:
            reader = Client(listener.port)
            await reader.send(request())
            await reader.read_until(b"data: event")
            stalled = [Client(listener.port, receive_buffer=4096) for _ in range(4)]
            for number, client in enumerate(stalled):
                await client.send(request("/whole" if number % 2 else "/stalled"))
            await until(lambda: listener.visits == 3)
            await asyncio.sleep(0.1)
            assert await finished(listener.stop(drain_s=0.1), timeout_s=3) < 2.5
            assert listener.visits == 0
            assert FAILURE in await reader.read_to_end()
            for client in stalled:
                received = await client.read_to_end()
                assert LAST_CHUNK not in received
                assert len(received) < 1024 * 1024

    run(main)


def test_a_second_stop_is_fast() -> None:
    """It ends the first one's patience; streams still get their failure event."""

    async def main() -> None:
        async with listening(stream_forever) as listener:
            client = Client(listener.port)
            await client.send(request())
            await client.read_until(b"data: event")
            first = asyncio.create_task(listener.stop(drain_s=600))
            await asyncio.sleep(0.1)
            assert not first.done()
            assert await finished(listener.stop(drain_s=600), timeout_s=2) < 1
            assert await finished(first, timeout_s=1) < 0.5
            assert FAILURE in await client.read_to_end()

    run(main)


def test_a_port_that_is_taken_stops_the_start() -> None:
    """A second listener on the port is refused with a sentence, and the first one goes on."""

    async def application(visit: Visit) -> None:
        await visit.answer(200, JSON, b"first")

    async def main() -> None:
        async with listening(application) as listener:
            second = Listener(application, host="127.0.0.1", port=listener.port, limits=ListenerLimits())
            with pytest.raises(CannotStart, match=f"Port {listener.port} on 127.0.0.1 is taken"):
                await second.start()
            await second.stop(drain_s=0)
            assert (await exchange(listener.port, request(), marker=b"first")).endswith(b"first")

    run(main)


def test_nobody_can_share_the_port() -> None:
    """Even a socket that asks to share it, as granian's own would, cannot take half of the calls."""

    async def main() -> None:
        async with listening(stream_forever) as listener:
            with socket.socket() as other:
                other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                with pytest.raises(OSError, match="in use"):
                    other.bind(("127.0.0.1", listener.port))

    run(main)


def test_the_port_is_free_again_after_a_stop() -> None:
    """A restart is not held up by what the kernel keeps of the old connections."""

    async def main() -> None:
        async with listening(stream_forever) as listener:
            client = Client(listener.port)
            await client.send(request())
            await client.read_until(b"data: event")
            await listener.stop(drain_s=0)
            again = Listener(stream_forever, host="localhost", port=listener.port, limits=ListenerLimits())
            await again.start()
            assert b"data: event" in await exchange(again.port, request(), marker=b"data: event")
            await again.stop(drain_s=0)

    run(main)


@pytest.mark.parametrize(
    ("host", "sentence"),
    [("gateway.example.com", "give an IP address"), ("192.0.2.1", "no address 192.0.2.1")],
)
def test_an_address_that_cannot_be_bound_is_explained(host: str, sentence: str) -> None:
    """Names other than localhost, and addresses of other machines."""

    async def main() -> None:
        listener = Listener(stream_forever, host=host, port=0, limits=ListenerLimits())
        with pytest.raises(CannotStart, match=sentence):
            await listener.start()

    run(main)


def test_connections_above_the_limit_wait_for_a_place() -> None:
    """They are neither refused nor answered until one of those inside closes."""

    async def application(visit: Visit) -> None:
        await visit.answer(200, JSON, b"hello")

    async def main() -> None:
        async with listening(application, connections=2) as listener:
            inside = [Client(listener.port) for _ in range(2)]
            for client in inside:
                await client.send(request())
                assert await client.read_until(b"hello")
            outside = Client(listener.port)
            await outside.send(request())
            assert await outside.read_for(0.2) == b""
            inside[0].close()
            assert await outside.read_until(b"hello")

    run(main)


def test_starting_leaves_the_logging_of_others_alone() -> None:
    """granian's own configuration would close every handler of the process."""

    class Watched(logging.Handler):
        closed = False

        def close(self) -> None:
            self.closed = True
            super().close()

    handler = Watched()

    async def main() -> None:
        async with listening(stream_forever):
            assert not handler.closed

    run(main)


def test_many_streams_at_once_each_get_their_own_events() -> None:
    """Fifty streams side by side: complete, in order, none mixed with another."""

    async def application(visit: Visit) -> None:
        await visit.start(200, STREAM)
        for number in range(20):
            await visit.write(b"data: %s %d\n\n" % (visit.path.encode(), number))
            await asyncio.sleep(0.005)
        await visit.end()

    async def main() -> None:
        async with listening(application) as listener:
            answers = await asyncio.gather(
                *[exchange(listener.port, request(f"/{name}"), marker=LAST_CHUNK) for name in range(50)]
            )
            for name, answer in enumerate(answers):
                places = [answer.index(b"data: /%d %d\n" % (name, number)) for number in range(20)]
                assert all(one < other for one, other in pairwise(places))
                assert answer.count(b"data: ") == 20

    run(main)
