"""Clients that mean no good: slow by the thousand, with forged addresses, upgrades, links and long tales."""

import asyncio
import json
import re
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from contract.raw_http import Client, exchange, run, until
from contract.raw_http import request as raw_request
from contract.raw_server import RawServer, answers, reply
from faults.impatient import PATIENCE_S
from flow.plain_http import Connection, ask, bearer, request, talk
from flow.recorder import JSON, Recorder, Seen, Wire, answer_well, chunk, completion, whole
from house import GatewayProcess, cli
from house import until as until_true
from tiergate.admin import AdminListener
from tiergate.admin.guard import Receive, Scope, Send
from tiergate.core import UpstreamUnreachable
from tiergate.store import find_owner
from tiergate.upstream import Endpoint, Origin, Timing
from tiergate.upstream.http1 import Http1Transport
from tiergate.web.application import _ENDPOINTS, _HEALTH
from unit.admin.test_plane import ROUTES

KEY = "hostile-key-1f84a6c0d27b93e5"
CHAT = "/v1/chat/completions"
BODY = {"model": "good", "messages": [{"role": "user", "content": "hello"}]}
PROGRAM = (str(Path(__file__).with_name("impatient.py")),)
CERTIFICATES = Path(__file__).parents[1] / "contract" / "certificates"
MANY = 1000
TICK_S = 0.3


def answer_at_length(seen: Seen, wire: Wire) -> None:
    """Answer more than the kernel takes for a client that does not read, where the target is called so."""
    if b'"model":"long"' in seen.body:
        wire.send(whole(completion("x" * 220_000)))
    else:
        answer_well(seen, wire)


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
    "half a body": Slow(first=WITH_KEY + JSON_LINE + b"Content-Length: 9999\r\n\r\n{"),
    "slow chunks": Slow(
        first=WITH_KEY + JSON_LINE + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n", drip=b"1\r\n \r\n"
    ),
    "idle after an answer": Slow(first=request("/health/live")),
    "reads nothing": Slow(first=LONG, sip=0),
    # Often enough for the kernel, which tells of room only where there is much of it.
    "reads a little": Slow(first=LONG, sip=2048),
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
            assert time.monotonic() < began + PATIENCE_S + 15, connections_of(impatient) - before
            go_on_slowly(kind, clients)
        seconds = time.monotonic() - began
    waits = sorted(wait for _, wait in calls)
    said = f"{len(calls)} calls, median {waits[len(waits) // 2]:.4f} s, most {waits[-1]:.4f} s"
    print(f"\nended in {seconds:.1f} s; the others meanwhile: {said}")
    # Those of a kind that takes long to come have ended before the last is there.
    assert held > MANY // 20
    assert len(calls) > 10 and {status for status, _ in calls} == {200}


# The admin plane is slower to fill, and held by the same means.

ADMIN_SLOW = {
    "silent": Slow(),
    "slow headers": Slow(first=b"GET / HTTP/1.1\r\nHost: localhost\r\n", drip=b"X-A: 1\r\n"),
    "slow second headers": Slow(first=raw_request() + b"GET / HTTP/1.1\r\n", drip=b"X-A: 1\r\n"),
    "slow body": Slow(first=b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\n", drip=b" "),
    "reads nothing": Slow(first=raw_request("/long"), sip=0),
    "reads a little": Slow(first=raw_request("/long"), sip=256),
}


async def plain_admin(scope: Scope, receive: Receive, send: Send) -> None:
    """Read the body and answer, at length where the path says so."""
    while (await receive()).get("more_body"):
        pass
    body = b"x" * (8 << 20) if scope["path"] == "/long" else str(scope["client"][0]).encode()
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": body})


def administered(body: Callable[[AdminListener], Awaitable[None]]) -> None:
    """Run a test's body with a listener of the admin plane that has little patience."""

    async def main() -> None:
        listener = AdminListener(plain_admin, host="127.0.0.1", port=0, exchange_s=0.5)
        await listener.start()
        try:
            await body(listener)
        finally:
            await listener.stop()

    run(main)


@pytest.mark.parametrize("kind", ADMIN_SLOW.values(), ids=ADMIN_SLOW)
def test_s19_the_admin_plane_hangs_up_on_slow_clients(kind: Slow) -> None:
    """S19: on each that an operator's server would wait for; others are answered after them."""

    async def main(listener: AdminListener) -> None:
        client = Client(listener.port, receive_buffer=4096)
        await client.send(kind.first)
        await until(lambda: listener.connections == 1)
        async with asyncio.timeout(8):
            while listener.connections:
                await asyncio.sleep(0.05)
                with suppress(ConnectionError, BlockingIOError):
                    await client.send(kind.drip)
                    if kind.sip:
                        client.sip(kind.sip)
        assert b"200 OK" in await exchange(listener.port, raw_request(), marker=b"127.0.0.1")

    administered(main)


# S47: one protocol.

WEBSOCKET = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "x3JJHMbDL1EzLkh9GBhXDw=="),
]
H2C = [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABkAAQAAP__")]
UPGRADES = {
    "websocket": WEBSOCKET,
    "websocket in capitals": [
        ("Connection", "keep-alive, UPGRADE"),
        ("Upgrade", "WebSocket"),
        *WEBSOCKET[2:],
    ],
    "websocket, unannounced": WEBSOCKET[1:],
    "websocket or h2c": [("Connection", "Upgrade"), ("Upgrade", "h2c, websocket")],
    "h2c and websocket": [*H2C, ("Upgrade", "websocket")],
    "tls": [("Connection", "Upgrade"), ("Upgrade", "TLS/1.3")],
}
FRAME = b"\x81\x85\0\0\0\0hello"
"""A text frame of a WebSocket client."""
ADMIN_ROUTES = [(method, path) for method, paths in ROUTES.items() for path in paths]
DATA_ROUTES = [
    *((method, path) for path, (method, _) in _ENDPOINTS.items()),
    ("GET", "/v1/models/good"),
    *(("GET", path) for path in _HEALTH),
]


@pytest.fixture(scope="module")
def gateway(
    recorder: Recorder, decoy: Recorder, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    proxy = f"http://127.0.0.1:{decoy.port}"
    folder = tmp_path_factory.mktemp("hostile")
    names = ("http_proxy", "https_proxy", "all_proxy", "ftp_proxy", "ws_proxy", "socks_proxy")
    surroundings = {name: proxy for lower in names for name in (lower, lower.upper())}
    surroundings |= {"no_proxy": "", "NO_PROXY": "", "SSLKEYLOGFILE": str(folder / "keys.log")}
    surroundings |= {"REQUESTS_CA_BUNDLE": "/none", "CURL_CA_BUNDLE": "/none", "OPENAI_BASE_URL": proxy}
    settings = {
        "auth": "keys",
        "keys": [
            {"name": "ci", "secret": KEY},
            *({"name": name, "secret": key_of(name), "limits": {"rpm": 2}} for name in ("one", "two")),
        ],
        "providers": {"main": {"base_url": recorder.base_url}},
        "models": {"good": {"targets": ["main/up"]}},
    }
    with GatewayProcess(folder, settings, environ=surroundings) as process:
        yield process
        process.check_books()
        assert all(isinstance(json.loads(line), dict) for line in process.stderr.splitlines())


def key_of(name: str) -> str:
    return f"hostile-key-{name}-0123456789abcdef"


@pytest.fixture
def record(recorder: Recorder) -> Iterator[Recorder]:
    recorder.seen.clear()
    yield recorder
    recorder.play = answer_at_length


def admin_of(gateway: GatewayProcess) -> tuple[int, str]:
    """Give the port and the token of the admin plane."""
    owner = find_owner(gateway.data_dir)
    assert owner is not None and owner.admin is not None and owner.admin_token is not None
    return int(owner.admin.rpartition(":")[2]), owner.admin_token


def statuses_of(port: int, sent: bytes) -> list[int]:
    """Send bytes and a request that says it is the last; give the statuses until the connection ends."""
    received = talk(port, sent + request("/health/live", headers=[("Connection", "close")]))
    assert b"upgrade:" not in received.lower() and b"sec-websocket" not in received.lower()
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3})", received)]


@pytest.mark.parametrize("upgrade", UPGRADES.values(), ids=UPGRADES)
@pytest.mark.parametrize(("method", "path"), DATA_ROUTES)
def test_s47_no_route_is_upgraded(
    gateway: GatewayProcess, record: Recorder, method: str, path: str, upgrade: list[tuple[str, str]]
) -> None:
    """S47: neither with a key nor without; what follows is no frame, and the provider hears nothing."""
    for key in ([bearer(KEY)], []):
        sent = request(path, BODY if method == "POST" else None, method=method, headers=[*key, *upgrade])
        assert statuses_of(gateway.port, sent) == [400, 200]
        assert statuses_of(gateway.port, sent + FRAME)[0] == 400
    assert record.seen == []


@pytest.mark.parametrize(("method", "path"), DATA_ROUTES)
def test_s47_an_offer_of_http2_is_not_taken(gateway: GatewayProcess, method: str, path: str) -> None:
    """S47: the answer is one of HTTP/1.1, to the same key as ever, and so is the next one."""
    body = BODY | {"max_tokens": 5} if method == "POST" else None
    assert statuses_of(gateway.port, request(path, body, method=method, headers=[bearer(KEY), *H2C])) == [
        200,
        200,
    ]
    answer = ask(gateway.port, path, body, method=method, headers=H2C)
    assert answer.status == (200 if path in _HEALTH else 401)


@pytest.mark.parametrize(("method", "path"), [*DATA_ROUTES, ("CONNECT", "127.0.0.1:80")])
def test_s47_nothing_is_tunnelled(gateway: GatewayProcess, record: Recorder, method: str, path: str) -> None:
    """S47: CONNECT is refused whatever it names; what follows it is a request of ours or none."""
    assert statuses_of(gateway.port, request(path, method="CONNECT", headers=[bearer(KEY)])) == [400, 200]
    assert record.seen == []


@pytest.mark.parametrize("upgrade", [*UPGRADES.values(), H2C], ids=[*UPGRADES, "h2c"])
@pytest.mark.parametrize(("method", "path"), ADMIN_ROUTES)
def test_s47_no_route_of_the_admin_plane_is_upgraded(
    gateway: GatewayProcess, method: str, path: str, upgrade: list[tuple[str, str]]
) -> None:
    """S47: with its token and without, and the connection ends."""
    port, token = admin_of(gateway)
    for key in ([bearer(token)], []):
        assert statuses_of(port, request(path, method=method, headers=[*key, *upgrade])) == [400]


@pytest.mark.parametrize("path", ["/api/budgets", "/api/config", "/metrics", "127.0.0.1:80"])
def test_s47_the_admin_plane_tunnels_nothing(gateway: GatewayProcess, path: str) -> None:
    """S47: CONNECT is none of its methods."""
    port, token = admin_of(gateway)
    assert ask(port, path, method="CONNECT", headers=[bearer(token)]).status in (400, 404, 405)


# S23: a limit is of a key.

ELSEWHERE = "203.0.113.77"
FORGED = [
    [("X-Forwarded-For", ELSEWHERE)],
    [("X-Forwarded-For", f"{ELSEWHERE}, 127.0.0.1")],
    [("X-Real-IP", ELSEWHERE)],
    [("Forwarded", f"for={ELSEWHERE};proto=https;host=evil.example")],
    [("X-Client-IP", ELSEWHERE), ("True-Client-IP", ELSEWHERE), ("CF-Connecting-IP", ELSEWHERE)],
    [("X-Forwarded-User", "admin"), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Port", "443")],
]


def test_s23_a_limit_is_of_a_key_and_of_no_address(gateway: GatewayProcess, record: Recorder) -> None:
    """S23: whatever addresses a key claims, it has its two calls; another one at this address has its own."""
    statuses = {
        name: [
            ask(gateway.port, CHAT, BODY, headers=[bearer(key_of(name)), *forged]).status for forged in FORGED
        ]
        for name in ("one", "two")
    }
    assert statuses == {name: [200] * 2 + [429] * (len(FORGED) - 2) for name in ("one", "two")}
    assert len(record.seen) == 4
    assert ELSEWHERE not in gateway.stderr


@pytest.mark.parametrize("auth", ["open", "keys"])
def test_s23_a_forged_address_changes_nothing(recorder: Recorder, tmp_path: Path, auth: str) -> None:
    """S23: neither who is asked for, nor the log, nor the books, nor who is let in."""
    keys = [{"name": "ci", "secret": KEY}] if auth == "keys" else []
    settings = {
        "auth": auth,
        "keys": keys,
        "providers": {"main": {"base_url": recorder.base_url}},
        "models": {"good": {"targets": ["main/up"]}},
    }
    key = [bearer(KEY)] if keys else []
    with GatewayProcess(tmp_path, settings) as gateway:
        answers = [ask(gateway.port, CHAT, BODY, headers=[*key, *forged]) for forged in ([], *FORGED)]
        lines = [gateway.log_of(answer.call_id) for answer in answers]
        for forged in FORGED:
            assert ask(gateway.port, "/v1/models", host="evil.example", headers=[*key, *forged]).status == 421
            port, _ = admin_of(gateway)
            assert ask(port, "/api/budgets", headers=forged).status == 401
        gateway.check_books()
    told = [{name: line[name] for name in line if name not in OF_A_MOMENT} for line in lines]
    assert told == [told[0]] * len(lines)
    assert told[0]["key"] == ("ci" if keys else "local")
    for path in (*gateway.data_files(), tmp_path / "gateway.err", tmp_path / "gateway.out"):
        assert ELSEWHERE.encode() not in path.read_bytes(), path.name


OF_A_MOMENT = {"time", "call", "ttft_ms", "total_ms"}


@pytest.mark.parametrize("forged", FORGED, ids=lambda forged: forged[0][0])
def test_s23_the_admin_plane_believes_the_socket(forged: list[tuple[str, str]]) -> None:
    """S23: who a client is, no header says."""

    async def main(listener: AdminListener) -> None:
        last = ("Connection", "close")
        answer = await exchange(listener.port, request("/", headers=[*forged, last]))
        assert answer.endswith(b"\r\n\r\n127.0.0.1")

    administered(main)


# S12, S13: where the gateway goes.


def links_to(decoy: Recorder) -> list[str]:
    """Write the decoy's address in the ways that somebody might fetch."""
    port = decoy.port
    hosts = ("127.0.0.1", "localhost", "2130706433", "0x7f.1", "017700000001", "[::ffff:127.0.0.1]", "127.1")
    return [
        *(f"http://{host}:{port}/x.png" for host in hosts),
        f"https://127.0.0.1:{port}/x",
        f"//127.0.0.1:{port}/x",
        f"ftp://127.0.0.1:{port}/x",
        f"file://127.0.0.1:{port}/etc/passwd",
        "file:///etc/passwd",
    ]


def parts_with(link: str) -> list[dict[str, Any]]:
    """Put a link wherever a message may have one."""
    return [
        {"type": "text", "text": f"Look at {link} and ![this]({link})"},
        {"type": "image_url", "image_url": {"url": link, "detail": "high"}},
        {"type": "input_image", "image_url": link},
        {"type": "file", "file": {"file_data": link, "file_url": link, "filename": link}},
        {"type": "input_audio", "input_audio": {"data": link, "format": "wav"}},
        {"type": "video_url", "video_url": {"url": link}},
    ]


def test_s13_no_link_of_a_request_is_fetched(
    gateway: GatewayProcess, record: Recorder, decoy: Recorder
) -> None:
    """S13: they go on as they are, whatever they lead to; the gateway asks nobody but the provider."""
    for link in links_to(decoy):
        more = {
            "messages": [{"role": "user", "content": parts_with(link)}],
            "tools": [{"type": "mcp", "server_label": "x", "server_url": link}],
            "metadata": {"callback": link},
            "callback_url": link,
            "webhook": {"url": link},
            "alerts": {"webhook": link},
            "response_format": {"type": "json_schema", "json_schema": {"schema": {"$ref": link}}},
        }
        headers = [bearer(KEY), *((name, link) for name in ("x-callback-url", "x-webhook-url", "referer"))]
        for path in (CHAT, "/v1/estimate-cost"):
            asked = BODY | more | {"max_tokens": 5}
            assert ask(gateway.port, path, asked, headers=headers).status == 200
        assert {name: record.last.json[name] for name in more} == more
    assert len(record.seen) == len(links_to(decoy))
    assert decoy.connections == 0


def test_s12_no_proxy_of_the_environment_is_used(
    gateway: GatewayProcess, record: Recorder, decoy: Recorder
) -> None:
    """S12: with every such variable set to the decoy, calls, streams and our own commands go straight."""
    assert ask(gateway.port, CHAT, BODY, headers=[bearer(KEY)]).status == 200
    said = cli("chat", "hello", "-m", "good", folder=gateway.folder, environ=gateway.environ)
    assert said.returncode == 0, said.stderr
    listed = cli("entries", "list", folder=gateway.folder, environ=gateway.environ)
    assert listed.returncode == 0 and "main/up" in listed.stdout
    assert cli("doctor", folder=gateway.folder, environ=gateway.environ).stdout
    assert len(record.seen) >= 2
    assert decoy.connections == 0


def test_s12_secrets_of_tls_are_written_nowhere(decoy: Recorder, tmp_path: Path) -> None:
    """S12: SSLKEYLOGFILE opens no connection of ours, and a webhook is posted to its own address."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(CERTIFICATES / "good.pem")
    log = tmp_path / "keys.log"
    with Recorder(tls=tls) as provider, Recorder(lambda seen, wire: wire.send(whole(b"{}"))) as hook:
        settings = {
            "providers": {
                "main": {"base_url": provider.base_url, "ca_file": str(CERTIFICATES / "issuer.pem")}
            },
            "models": {"good": {"targets": ["main/up"]}},
            "prices": [{"target": "main/up", "usd_per_1m": {"input": 1_000_000, "output": 1_000_000}}],
            "alerts": {"webhook": f"{hook.url}/alert", "usd_per_hour": 1},
        }
        proxy = f"http://127.0.0.1:{decoy.port}"
        surroundings = {
            "SSLKEYLOGFILE": str(log),
            "HTTP_PROXY": proxy,
            "HTTPS_PROXY": proxy,
            "ALL_PROXY": proxy,
        }
        with GatewayProcess(tmp_path, settings, environ=surroundings) as gateway:
            body = BODY | {"webhook": f"{decoy.url}/x", "max_tokens": 5}
            assert ask(gateway.port, CHAT, body).status == 200
            until_true(lambda: hook.seen, what="the alert")
        assert hook.last.request_line == "POST /alert HTTP/1.1"
    written = log.read_text().splitlines() if log.exists() else []
    assert not [line for line in written if not line.startswith("#")]
    assert decoy.connections == 0


def test_s12_a_name_is_resolved_once_for_a_connection() -> None:
    """S12: what the resolver said is what is connected to; it is asked again only for another connection."""
    asked: list[str] = []

    async def rebinding(origin: Origin) -> list[tuple[int, str]]:
        asked.append(origin.host)
        return [(socket.AF_INET, "127.0.0.1" if len(asked) == 1 else "127.0.0.3")]

    with RawServer(answers(reply(b"one"), reply(b"two"))) as server, ExitStack() as stack:
        other = stack.enter_context(socket.create_server(("127.0.0.3", server.port)))
        other.setblocking(False)

        async def main() -> None:
            transport = Http1Transport(resolve=rebinding)
            origin = Origin(scheme="http", host="models.example", port=server.port)
            where = Endpoint(label="acme", origin=origin, path="/")
            for expected in (b"one", b"two"):
                response = await transport.send(where, b"{}", timing=Timing(time.monotonic() + 5))
                assert await response.next_piece() == expected
                assert await response.next_piece() is None
            await transport.aclose()

        run(main)
        with pytest.raises(BlockingIOError):
            other.accept()
    assert asked == ["models.example"]


def test_s12_a_name_that_moves_must_still_prove_itself() -> None:
    """S12: at another address the certificate is asked for the same name, and nothing is sent before."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(CERTIFICATES / "good.pem")

    async def moved(_: Origin) -> list[tuple[int, str]]:
        return [(socket.AF_INET, "127.0.0.1")]

    with RawServer(answers(reply(b"never")), tls=tls) as server:

        async def main() -> None:
            transport = Http1Transport(resolve=moved)
            # The certificate is good for the address that the name leads to, and not for the name.
            origin = Origin(
                scheme="https",
                host="models.example",
                port=server.port,
                ca_file=str(CERTIFICATES / "issuer.pem"),
            )
            where = Endpoint(label="acme", origin=origin, path="/")
            with pytest.raises(UpstreamUnreachable, match=r"models\.example"):
                await transport.send(where, b"{}", timing=Timing(time.monotonic() + 5))
            await transport.aclose()

        run(main)
        assert server.requests == []


# S30, I12: what a log says when things go wrong.


class Plant:
    """Words that stand nowhere else, to be looked for in everything that the gateway leaves behind."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def __call__(self, where: str) -> str:
        word = f"canary-{where}-{secrets.token_hex(6)}"
        self.words.append(word)
        return word

    def bytes(self, where: str) -> bytes:
        return self(where).encode()


def whole_faults(plant: Plant) -> dict[str, Callable[[Wire], None]]:
    """Ways of a provider to fail, with a canary in whatever it says meanwhile."""

    def refuse(status: bytes) -> Callable[[Wire], None]:
        def play(wire: Wire) -> None:
            more = b"x-a: %b\r\nset-cookie: %b\r\n" % (plant.bytes("header"), plant.bytes("cookie"))
            error = {"error": {"message": plant("message"), "type": plant("type"), "param": plant("param")}}
            wire.send(whole(json.dumps(error).encode(), status=status + plant.bytes("reason"), more=more))

        return play

    def say(sent: Callable[[], bytes]) -> Callable[[Wire], None]:
        return lambda wire: wire.send(sent())

    def break_off(wire: Wire) -> None:
        wire.send(b"HTTP/1.1 200 OK\r\n" + JSON + b"content-length: 999\r\n\r\n" + plant.bytes("begun"))
        raise ConnectionError

    def stream(*pieces: bytes, ends: bool = True) -> Callable[[Wire], None]:
        def play(wire: Wire) -> None:
            wire.begin_stream(b"x-a: " + plant.bytes("header") + b"\r\n")
            wire.event(chunk(plant("delta")))
            for piece in pieces:
                wire.event(piece % plant.bytes("event") if b"%" in piece else piece)
            if ends:
                raise ConnectionError
            wire.has_left(5)

        return play

    def silent(wire: Wire) -> None:
        wire.has_left(5)

    ok = b"HTTP/1.1 200 OK\r\n"
    return {
        "bad": refuse(b"400 Bad "),
        "unauthorized": refuse(b"401 No "),
        "throttled": refuse(b"429 Slow "),
        "failing": refuse(b"500 Oh "),
        "overloaded": refuse(b"503 Busy "),
        "moved": refuse(b"302 Found "),
        "page": say(lambda: whole(b"<html>%b</html>" % plant.bytes("page"))),
        "not-json": say(lambda: whole(b'{"choices": [%b' % plant.bytes("json"))),
        "not-http": say(lambda: b"SSH-2.0-%b\r\n\r\n" % plant.bytes("banner")),
        "odd-header": say(lambda: ok + b"content-length: %b\r\n\r\n" % plant.bytes("length")),
        "odd-chunk": say(
            lambda: ok + JSON + b"transfer-encoding: chunked\r\n\r\nx%b\r\n" % plant.bytes("chunk")
        ),
        "odd-name": say(lambda: ok + b"%b\x00: a\r\n\r\n" % plant.bytes("name")),
        "error-in-200": say(lambda: whole(json.dumps({"error": {"message": plant("error")}}).encode())),
        "odd-usage": say(
            lambda: whole(completion(plant("text")).replace(b"3,", b'"%b",' % plant.bytes("usage")))
        ),
        "cut": break_off,
        "silent": silent,
        "cut-stream": stream(),
        "stalled-stream": stream(ends=False),
        "odd-stream": stream(b"{%b"),
        "error-in-stream": stream(b'{"error": {"message": "%b"}}'),
        "text-in-stream": stream(b"\xff%b"),
    }


def test_s30_faults_leave_no_words_of_anybody(closed_port: int, tmp_path: Path) -> None:
    """S30, I12: prompts, answers, keys and headers are in no log, file or admin page, however calls end."""
    plant = Plant()
    faults = whole_faults(plant)
    keys = {name: f"acme~{name}/{secrets.token_hex(8)}" for name in (*faults, "dead", "left")}

    def play(seen: Seen, wire: Wire) -> None:
        name = seen.json["model"]
        if name == "left":
            wire.begin_stream()
            while True:
                wire.event(chunk(plant("delta")))
                time.sleep(0.05)
        faults[name](wire)

    with Recorder(play) as provider:
        urls = dict.fromkeys(keys, provider.base_url) | {"dead": f"http://127.0.0.1:{closed_port}/v1"}
        settings = {
            "auth": "keys",
            "keys": [{"name": "ci", "secret": KEY}],
            "providers": {name: {"base_url": urls[name], "api_keys": [key]} for name, key in keys.items()},
            "resilience": {"first_event_s": 0.4, "idle_s": 0.4, "total_s": 0.6, "stream_total_s": 1},
            "admin": {"listen": "127.0.0.1:0", "token": "admin-token-0123456789abcdef0123456789"},
        }
        with GatewayProcess(tmp_path, settings) as gateway:
            for name in keys:
                for streamed in (False, True):
                    fail(gateway, plant, name, streamed=streamed)
            refuse_all(gateway, plant)
            pages = b"".join(pages_of(gateway))
            entries = gateway.check_books()
    assert {entry.end.value for entry in entries if entry.end} >= {"failed", "interrupted", "client_closed"}
    ends = {line["error"] for line in gateway.log() if line["event"] == "call"}
    assert ends >= {"upstream_fault", "upstream_timeout", "upstream_protocol_error", "upstream_unreachable"}
    left = {path.name: path.read_bytes() for path in gateway.data_files()}
    left |= {"log": gateway.stderr.encode(), "output": gateway.stdout.encode(), "pages": pages}
    assert len(plant.words) > 100
    for name, content in left.items():
        for word in (*plant.words, *keys.values(), KEY, "canary"):
            # The token of the admin plane is the owner's to read.
            assert word.encode() not in content, f"{word} in {name}"


def fail(gateway: GatewayProcess, plant: Plant, name: str, *, streamed: bool) -> None:
    """Ask a provider that fails, with canaries in what is asked; do not hear `left` out."""
    body = {
        "model": f"{name}/{name}",
        "messages": [{"role": "user", "content": plant("prompt"), "name": plant("name")}],
        "stream": streamed,
        "metadata": {plant("key"): plant("value")},
        plant("field"): plant("value"),
    }
    headers = [bearer(KEY), ("Cookie", plant("cookie")), ("X-Secret", plant("header"))]
    if name == "left":
        with Connection(gateway.port) as connection:
            connection.send(request(CHAT, body | {"stream": True}, headers=headers))
            connection.read_until(b"canary-delta")
        until_true(lambda: gateway.log("client_closed"), what="the end")
        return
    answer = ask(gateway.port, CHAT, body, headers=headers)
    gateway.log_of(answer.call_id)


def refuse_all(gateway: GatewayProcess, plant: Plant) -> None:
    """Send what neither door takes, with canaries in it."""
    _, token = admin_of(gateway)
    for port in (gateway.port, admin_of(gateway)[0]):
        for sent in (
            b"GET /%b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % plant.bytes("path"),
            b"GET /%b HTTP/9.9\r\n\r\n" % plant.bytes("version"),
            b"%b / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % plant.bytes("method"),
            b"GET / HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % plant.bytes("host"),
            b"GET / HTTP/1.1\r\nHost: localhost\r\n%b\0: a\r\n\r\n" % plant.bytes("name"),
            b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %b\r\n\r\n" % plant.bytes("length"),
            b"\x16\x03\x01\x02%b\r\n\r\n" % plant.bytes("tls"),
        ):
            talk(port, sent)
        for path in (CHAT, "/api/keys", "/api/keys/x/revoke", "/api/entries/x/adjust", "/api/reload"):
            for key in (token, KEY, plant("wrong-key")):
                odd: list[Any] = [{"name": plant("name"), plant("field"): 1}, plant.bytes("not-json")]
                for body in odd:
                    ask(port, f"{path}?a={plant('query')}", body, headers=[bearer(key)])


def pages_of(gateway: GatewayProcess) -> Iterator[bytes]:
    """Read every page of the admin plane."""
    port, token = admin_of(gateway)
    for path in (
        "/metrics",
        "/api/entries",
        "/api/usage",
        "/api/targets",
        "/api/config",
        "/api/keys",
        "/api/budgets",
    ):
        answer = ask(port, path, headers=[bearer(token)])
        assert answer.status == 200
        yield answer.body
