"""Limits, time-outs and doubtful messages: what the door refuses, and that a refusal harms nobody else."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

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
from tiergate.core import InvalidRequest, RequestTooLarge
from tiergate.web.visit import HostNotServed, UploadTooSlow, Visit, VisitLimits, check_host

BODY_BYTES_MAX = 100_000
LOOPBACK: frozenset[str] = frozenset()


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


class Echo:
    """Answers with the body's length and remembers which paths were executed."""

    def __init__(self, *, body_timeout_s: float = 5.0) -> None:
        self.executed: list[str] = []
        self.refused: list[InvalidRequest] = []
        self._body_timeout_s = body_timeout_s

    async def __call__(self, visit: Visit) -> None:
        try:
            visit.check()
            check_host(visit, LOOPBACK)
            body = await visit.read_body(bytes_max=BODY_BYTES_MAX, timeout_s=self._body_timeout_s)
        except InvalidRequest as error:
            self.refused.append(error)
            await visit.answer(400, JSON, b"refused")
        else:
            self.executed.append(visit.path)
            await visit.answer(200, JSON, b"%s got %d" % (visit.path.encode(), len(body)))


def chunked(body: bytes) -> bytes:
    """Write a request with a chunked body."""
    head = b"POST /chunked HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


@pytest.mark.parametrize("write", [lambda body: request("/plain", body), chunked], ids=["length", "chunked"])
def test_a_body_may_have_the_limit_and_not_one_byte_more(write: Any) -> None:
    """The refusal is an answer."""
    echo = Echo()

    async def main() -> None:
        async with listening(echo) as listener:
            await exchange(listener.port, write(b"x" * BODY_BYTES_MAX), marker=b"got 100000")
            await exchange(listener.port, write(b"x" * (BODY_BYTES_MAX + 1)), marker=b"refused")
            assert isinstance(echo.refused[0], RequestTooLarge)

    run(main)


def test_a_connection_survives_a_body_that_is_too_large() -> None:
    """Its length says where the next request begins."""
    echo = Echo()

    async def main() -> None:
        async with listening(echo) as listener:
            client = Client(listener.port)
            await client.send(request(body=b"x" * (BODY_BYTES_MAX + 1)))
            assert await client.read_until(b"refused")
            await client.send(request("/next"))
            assert await client.read_until(b"/next got 0")

    run(main)


def test_a_connection_ends_with_a_body_in_chunks() -> None:
    """The answer says so, and a request that stands behind the chunks is not executed."""
    echo = Echo()

    async def main() -> None:
        async with listening(echo) as listener:
            answer = await exchange(listener.port, chunked(b"defg") + request("/next"))
            assert b"\r\nconnection: close\r\n" in answer and answer.endswith(b"/chunked got 4")
            assert echo.executed == ["/chunked"]

    run(main)


def test_a_connection_ends_with_a_stream_for_a_body_in_chunks() -> None:
    """A stream says so too, and its last chunk is the last of all."""

    async def application(visit: Visit) -> None:
        await visit.read_body(bytes_max=BODY_BYTES_MAX, timeout_s=5)
        await visit.start(200, STREAM)
        await visit.write(b"data: 1\n\n")
        await visit.end()

    async def main() -> None:
        async with listening(application) as listener:
            answer = await exchange(listener.port, chunked(b"defg") + request("/next"))
            assert b"\r\nconnection: close\r\n" in answer
            assert answer.count(b"HTTP/1.1 ") == 1 and answer.endswith(LAST_CHUNK)

    run(main)


def test_an_upload_that_nobody_wants_does_not_hide_its_refusal() -> None:
    """A client that sends 8 MiB before it reads finds the answer, and no reset."""

    async def application(visit: Visit) -> None:
        await visit.answer(401, JSON, b"no key")

    def send_then_read(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            client.sendall(request("/", b"x" * 8 * 1024 * 1024))
            return client.recv(1024)

    async def main() -> None:
        async with listening(application) as listener:
            for _ in range(5):
                answer = await asyncio.to_thread(send_then_read, listener.port)
                assert answer.startswith(b"HTTP/1.1 401 ")

    run(main)


def test_a_client_that_waits_for_permission_is_refused_before_it_sends() -> None:
    """With `Expect: 100-continue` a body that is announced too large is never asked for."""
    echo = Echo()

    async def main() -> None:
        async with listening(echo) as listener:
            asks = request(body=b"x" * (BODY_BYTES_MAX + 1), more=b"Expect: 100-continue\r\n")
            answer = await exchange(listener.port, asks[: asks.index(b"\r\n\r\n") + 4])
            assert answer.startswith(b"HTTP/1.1 400 ")
            assert b"100 Continue" not in answer

    run(main)


@pytest.mark.parametrize("over", [0, 1])
def test_targets_and_headers_have_limits(over: int) -> None:
    """Each at its limit passes, and one byte more is refused."""
    echo = Echo()
    limits = VisitLimits(target_bytes_max=8192, header_bytes_max=32768)

    async def main() -> None:
        async with listening(echo, visit=limits) as listener:
            target = "/" + "a" * (8192 - len("/q=1") + over) + "?q=1"
            field = b"x-long: %s\r\n" % (b"a" * (32768 - len("hostlocalhostx-long") + over))
            for data in (request(target), request(more=field)):
                answer = await exchange(listener.port, data, marker=b"got 0" if not over else b"refused")
                assert answer.startswith(b"HTTP/1.1 400 " if over else b"HTTP/1.1 200 ")
            assert all(isinstance(error, RequestTooLarge) for error in echo.refused)
            assert len(echo.refused) == 2 * over

    run(main)


def test_the_server_itself_refuses_a_hundred_and_one_headers_and_an_endless_line() -> None:
    """granian's own limits answer without the application: 431 and 414, with an empty body."""
    echo = Echo()

    async def main() -> None:
        async with listening(echo) as listener:
            fields = b"".join(b"x-%d: a\r\n" % number for number in range(99))
            assert b"got 0" in await exchange(listener.port, request(more=fields), marker=b"got 0")
            answer = await exchange(listener.port, request(more=fields + b"x-one-more: a\r\n"))
            assert answer.startswith(b"HTTP/1.1 431 ")
            endless = await exchange(listener.port, b"GET /" + b"a" * 300_000)
            assert endless.startswith((b"HTTP/1.1 414 ", b"HTTP/1.1 431 ", b""))
            assert echo.executed == ["/"]

    run(main)


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([], id="silent"),
        pytest.param([b"GET / HTTP/1.1\r\nHost: lo"], id="half a header"),
        pytest.param([bytes([byte]) for byte in b"GET / HTTP/1.1\r\nHost: localhost\r\n"], id="byte by byte"),
        pytest.param([request()], id="idle after an answer"),
    ],
)
def test_slow_headers_and_idle_connections_end_in_time(pieces: list[bytes]) -> None:
    """Silence, half a header, a byte every 50 ms and idle keep-alive all end after the header time."""

    async def main() -> None:
        async with listening(Echo(), header_read_s=0.4) as listener:
            client = Client(listener.port)

            async def dribble() -> None:
                with contextlib.suppress(ConnectionError):
                    for piece in pieces:
                        await client.send(piece)
                        await asyncio.sleep(0.05)

            sending = asyncio.create_task(dribble())
            assert 0.3 < await finished(client.read_to_end(), timeout_s=2) < 1.2
            sending.cancel()

    run(main)


def test_a_slow_body_ends_in_time() -> None:
    """A byte every 50 ms is not enough: the time-out is for the whole body. The client is told."""
    echo = Echo(body_timeout_s=0.3)

    async def main() -> None:
        async with listening(echo) as listener:
            client = Client(listener.port)
            await client.send(request(body=b"x" * 50)[:-50])

            async def dribble() -> None:
                with contextlib.suppress(ConnectionError):
                    while True:
                        await client.send(b"x")
                        await asyncio.sleep(0.05)

            sending = asyncio.create_task(dribble())
            assert 0.2 < await finished(client.read_until(b"refused"), timeout_s=2) < 1.2
            assert isinstance(echo.refused[0], UploadTooSlow)
            await client.read_to_end(timeout_s=0.5)
            sending.cancel()

    run(main)


def test_an_upload_that_never_ends_holds_no_connection() -> None:
    """Told that it was too slow, a client that says nothing more is hung up on: no time-out would look."""

    async def main() -> None:
        async with listening(Echo(body_timeout_s=0.2)) as listener:
            client = Client(listener.port)
            await client.send(request(body=b"x" * 50)[:-50])
            await client.read_until(b"refused")
            await client.read_to_end(timeout_s=1)

    run(main)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(request(body=b"x" * 30)[:-10], id="shorter than its length"),
        pytest.param(chunked(b"x" * 30)[:-20], id="chunk cut short"),
        pytest.param(chunked(b"x" * 30)[:-5], id="last chunk missing"),
    ],
)
def test_a_truncated_body_is_never_executed(data: bytes) -> None:
    """granian ends the iteration silently; here it is an error."""
    echo = Echo()

    async def main() -> None:
        async with listening(echo) as listener:
            client = Client(listener.port)
            await client.send(data)
            await asyncio.sleep(0.05)
            client.stop_sending()
            await client.read_to_end()
            await until(lambda: len(echo.refused) == 1)
            assert echo.executed == []

    run(main)


def test_malformed_chunks_are_refused_with_an_answer() -> None:
    """The client is still there, so it is told."""
    echo = Echo()

    async def main() -> None:
        async with listening(echo) as listener:
            head = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
            assert b"refused" in await exchange(listener.port, head + b"nonsense\r\n")
            assert echo.executed == []

    run(main)


def test_a_connection_serves_several_requests_and_pipelined_ones_in_order() -> None:
    """Two requests one after the other, then three at once; all answers come, in order."""
    echo = Echo()

    async def main() -> None:
        async with listening(echo) as listener:
            client = Client(listener.port)
            await client.send(request("/1", b"{}"))
            await client.read_until(b"/1 got 2")
            await client.send(request("/2"))
            await client.read_until(b"/2 got 0")
            await client.send(request("/3", b"abc") + request("/4", b"defg") + request("/5"))
            await client.read_until(b"/5 got 0")
            places = [client.received.index(mark) for mark in (b"/3 got 3", b"/4 got 4", b"/5 got 0")]
            assert places == sorted(places)

    run(main)


HEAD = b"POST /first HTTP/1.1\r\nHost: localhost\r\n"
CANARY = b"GET /canary HTTP/1.1\r\nHost: localhost\r\n\r\n"
SMUGGLING = {
    "length and chunks": HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + CANARY,
    "chunks and length": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + CANARY,
    "two lengths": HEAD + b"Content-Length: 0\r\nContent-Length: 42\r\n\r\n" + CANARY,
    "two lengths the other way": HEAD + b"Content-Length: 42\r\nContent-Length: 0\r\n\r\n" + CANARY,
    "list of lengths": HEAD + b"Content-Length: 0, 0\r\n\r\n" + CANARY,
    "plus sign": HEAD + b"Content-Length: +0\r\n\r\n" + CANARY,
    "minus sign": HEAD + b"Content-Length: -0\r\n\r\n" + CANARY,
    "hexadecimal": HEAD + b"Content-Length: 0x0\r\n\r\n" + CANARY,
    "underscore": HEAD + b"Content-Length: 0_0\r\n\r\n" + CANARY,
    "empty length": HEAD + b"Content-Length: \r\n\r\n" + CANARY,
    "huge length": HEAD + b"Content-Length: 18446744073709551616\r\n\r\n" + CANARY,
    "digits of another script": HEAD + "Content-Length: \u0660\r\n\r\n".encode() + CANARY,
    "space before the colon": HEAD + b"Content-Length : 0\r\n\r\n" + CANARY,
    "tab before the colon": HEAD + b"Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n" + CANARY,
    "folded header": HEAD + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + CANARY,
    "folded first header": b"POST /first HTTP/1.1\r\n Host: localhost\r\n\r\n" + CANARY,
    "NUL in a value": HEAD + b"X-A: a\0b\r\n\r\n" + CANARY,
    "NUL in a name": HEAD + b"X\0A: a\r\n\r\n" + CANARY,
    "bare CR in a value": HEAD + b"X-A: a\rContent-Length: 0\r\n\r\n" + CANARY,
    "name without a colon": HEAD + b"Content-Length\r\n\r\n" + CANARY,
    "unknown coding": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + CANARY,
    "chunked is not last": HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + CANARY,
    "coding before chunked": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\nzz\r\n" + CANARY,
    "coding twice": HEAD
    + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n"
    + CANARY,
    "chunk size with a plus": HEAD + b"Transfer-Encoding: chunked\r\n\r\n+0\r\n\r\n" + CANARY,
    "chunk size with 0x": HEAD + b"Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n" + CANARY,
    "chunk size too long": HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1" * 17 + b"\r\n" + CANARY,
    "chunk size that wraps": HEAD + b"Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n\r\n" + CANARY,
    "chunk without its line end": HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\nab0\r\n\r\n" + CANARY,
    "chunk ended by a bare line feed": HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\na\n0\n\n" + CANARY,
    "version of another age": b"GET /first HTTP/0.9\r\n\r\n" + CANARY,
    "version that is none": b"GET /first HTTP/1.11\r\nHost: localhost\r\n\r\n" + CANARY,
    "space in the target": b"GET /first /second HTTP/1.1\r\nHost: localhost\r\n\r\n" + CANARY,
    "NUL in the target": b"GET /first\0 HTTP/1.1\r\nHost: localhost\r\n\r\n" + CANARY,
    "another protocol": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + CANARY,
}


@pytest.mark.parametrize("data", SMUGGLING.values(), ids=SMUGGLING.keys())
def test_a_message_that_two_readers_could_read_differently_ends_its_connection(data: bytes) -> None:
    """Refused, or read one way; in both cases the request hidden behind it is never executed."""
    echo = Echo()

    async def main() -> None:
        async with listening(echo) as listener:
            client = Client(listener.port)
            await client.send(data)
            await client.read_for(0.15)
            assert client.ended or client.received.startswith(b"HTTP/1.1 400 ")
            assert "/canary" not in echo.executed
            assert b"canary" not in client.received

    run(main)


UNUSUAL = {
    "CONNECT": b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "TRACE": request(method="TRACE"),
    "a method that nobody knows": request(method="FOO"),
    "a method in lower case": request(method="get"),
    "asterisk": request("*", method="OPTIONS"),
    "no slash": request("@localhost"),
    "Host missing": b"GET / HTTP/1.1\r\n\r\n",
    "Host missing in HTTP/1.0": b"GET / HTTP/1.0\r\n\r\n",
    "Host empty": b"GET / HTTP/1.1\r\nHost: \r\n\r\n",
    "Host twice": request(more=b"Host: localhost\r\n"),
    "Host of another": b"GET / HTTP/1.1\r\nHost: gateway.example.com\r\n\r\n",
    "Host of another in the target": b"GET http://gateway.example.com/ HTTP/1.1\r\n\r\n",
    "Host with a path": b"GET / HTTP/1.1\r\nHost: localhost/?x=\r\n\r\n",
    "Host with a user": b"GET / HTTP/1.1\r\nHost: localhost@example.com\r\n\r\n",
    "WebSocket": request(more=b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"),
    "several upgrades": request(more=b"Connection: Upgrade\r\nUpgrade: h2c, websocket\r\n"),
    "a coding before chunked": chunked(b"{}").replace(b"chunked\r\n", b"gzip, chunked\r\n", 1),
    "compressed": request(body=b"{}", more=b"Content-Encoding: gzip\r\n"),
    "compressed twice": request(body=b"{}", more=b"Content-Encoding: gzip, br\r\n"),
}


@pytest.mark.parametrize("data", UNUSUAL.values(), ids=UNUSUAL.keys())
def test_what_the_server_lets_through_is_refused_at_the_door(data: bytes) -> None:
    """granian shows all of these to the application; each gets a refusal and none is executed."""
    echo = Echo()

    async def main() -> None:
        async with listening(echo) as listener:
            client = Client(listener.port)
            await client.send(data)
            assert await client.read_until(b"\r\n\r\n")
            assert client.received.partition(b" ")[2].startswith(b"400 ")
            assert len(echo.refused) == 1
            assert echo.executed == []

    run(main)


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/v1//models", "/v1//models"),
        ("/v1/%6dodels", "/v1/%6dodels"),
        ("/v1/%2e%2e/admin", "/v1/%2e%2e/admin"),
        ("/v1/../admin", "/v1/../admin"),
        ("/v1;a=b/models", "/v1;a=b/models"),
        ("/v1/models/", "/v1/models/"),
        ("/V1/models", "/V1/models"),
        ("/v1/mod\xc3\xa9ls", "/v1/mod\xc3\xa9ls"),
        ("http://localhost/v1/models", "/v1/models"),
    ],
)
def test_the_path_is_the_one_that_was_sent(target: str, path: str) -> None:
    """Nothing is decoded or tidied, so that nothing but an exact path can match an endpoint."""
    echo = Echo()

    async def main() -> None:
        async with listening(echo) as listener:
            await exchange(listener.port, request(target), marker=b"got 0")
            assert echo.executed == [path]

    run(main)


def test_a_client_that_offers_h2c_is_served_in_plain_http() -> None:
    """Java's HTTP client offers it with its first request and does not insist."""

    async def main() -> None:
        async with listening(Echo()) as listener:
            offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
            assert b"200 OK" in await exchange(listener.port, request(more=offer), marker=b"got 0")

    run(main)


def visit_with(*headers: tuple[bytes, bytes]) -> Visit:
    """Make a request with these headers that came from nowhere and whose answer goes nowhere."""
    scope = {
        "method": "GET",
        "raw_path": b"/",
        "query_string": b"",
        "client": ("", ""),
        "headers": [*headers],
    }
    return Visit(scope, lambda: None, lambda _message: None, VisitLimits())


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        (b"localhost", ()),
        (b"LOCALHOST:4400", ()),
        (b"127.0.0.1:1", ()),
        (b"[::1]:4400", ()),
        (b"gateway.example.com", ("gateway.example.com",)),
        (b"gateway.example.com:443", ("gateway.example.com",)),
        (b"gateway.example.com:443", ("gateway.example.com:443",)),
    ],
)
def test_hosts_in_the_list_are_served(host: bytes, allowed: tuple[str, ...]) -> None:
    """A name allows every port, a name with a port only that one; no list means loopback's names."""
    check_host(visit_with((b"host", host)), frozenset(allowed))


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        (b"gateway.example.com", ()),
        (b"127.0.0.1.example.com", ()),
        (b"localhost.", ()),
        (b"localhost:", ()),
        (b"localhost:80:80", ()),
        (b"localhost:port", ()),
        (b"localhost, localhost", ()),
        (b"[::1", ()),
        (b"::1", ()),
        (b"localhost", ("gateway.example.com",)),
        (b"gateway.example.com:80", ("gateway.example.com:443",)),
        (b"gateway.example.com\xff", ("gateway.example.com",)),
    ],
)
def test_hosts_outside_the_list_are_not_served(host: bytes, allowed: tuple[str, ...]) -> None:
    """Against DNS rebinding: a page of another name cannot speak to this gateway."""
    with pytest.raises(HostNotServed):
        check_host(visit_with((b"host", host)), frozenset(allowed))


def test_a_header_that_somebody_reads_may_come_once() -> None:
    """Two keys would let two readers see two callers; headers that nobody reads may repeat."""
    visit = visit_with((b"authorization", b"Bearer a"), (b"accept", b"a"), (b"authorization", b"Bearer b"))
    with pytest.raises(InvalidRequest, match="authorization came more than once"):
        visit.header(b"authorization")
    assert visit.header(b"accept") == "a"
    assert visit.header(b"x-api-key") is None


def test_a_header_that_somebody_reads_is_ascii() -> None:
    """Readers of different encodings cannot disagree about it."""
    with pytest.raises(InvalidRequest, match="not ASCII"):
        visit_with((b"x-tiergate-tag", b"caf\xe9")).header(b"x-tiergate-tag")


@pytest.mark.parametrize("status", [0, 99, 100, 101, 199, 600, 1000])
def test_a_status_that_is_none_never_reaches_the_server(status: int) -> None:
    """granian ends the whole process on a status below 100."""
    with pytest.raises(ValueError, match="no status"):
        asyncio.run(visit_with().start(status, JSON))


@pytest.mark.parametrize(
    "header",
    [
        (b"x-a", b"a\r\nset-cookie: b"),
        (b"x-a", b"a\nb"),
        (b"x-a", b"a\0b"),
        (b"x-a", b"caf\xc3\xa9"),
        (b"X-Upper", b"a"),
        (b"x a", b"a"),
        (b"", b"a"),
        (b"content-length", b"3"),
        (b"transfer-encoding", b"chunked"),
        (b"connection", b"close"),
    ],
)
def test_headers_of_an_answer_cannot_break_its_frame(header: tuple[bytes, bytes]) -> None:
    """Neither by their bytes nor by contradicting what the server sets."""
    with pytest.raises(ValueError, match="header"):
        asyncio.run(visit_with().answer(200, (header,), b""))
