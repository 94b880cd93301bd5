"""The security checklist, item by item, through raw sockets at a real gateway. Names carry the item.

Canaries are planted in everything that callers and providers can say; when a gateway of this module is left,
none of them may stand in its log, its output or its data folder.
"""

import ast
import json
import re
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import tiergate
from flow.plain_http import (
    Answer,
    Connection,
    ask,
    asking,
    bearer,
    request,
    talk,
)
from flow.recorder import Recorder, Seen, Wire, answer_well, chunk, completion, whole
from house import NO_BREAKERS, GatewayProcess, cli, environment, until
from tiergate.config import load
from tiergate.web.application import _ENDPOINTS, _HEALTH
from tiergate.wire.jsontext import DEPTH_MAX

CLIENT_KEY = "client-key-7d2f9a31c4e85b60"
# Nothing about it looks like a key, so only knowing it hides it.
PROVIDER_KEY = "acme~51ab0c7d/e93f=2468"
SPARE_KEY = "sk-spare-key-90817263544536271809"
ROOT_SECRET = "root-secret-0011223344556677889900aabbccdd"
SECRETS = (CLIENT_KEY, PROVIDER_KEY, SPARE_KEY, ROOT_SECRET)

QUESTION: Any = [{"role": "user", "content": "hello"}]
CHAT = "/v1/chat/completions"
BODY = {"model": "good", "messages": QUESTION}
SOURCES = sorted(Path(tiergate.__file__).parent.rglob("*.py"))

_planted: list[str] = []


def canary(where: str) -> str:
    """Make a word that stands nowhere else, to be looked for in every output."""
    word = f"canary-{where}-{secrets.token_hex(6)}"
    _planted.append(word)
    return word


def settings_for(recorder: Recorder, closed_port: int) -> dict[str, Any]:
    return {
        "auth": "keys",
        "secret": "${ROOT_SECRET}",
        "keys": [{"name": "ci", "secret": "${CLIENT_KEY}", "team": "web"}],
        "providers": {
            "main": {"base_url": recorder.base_url, "api_keys": ["${PROVIDER_KEY}"]},
            "spare": {"base_url": recorder.base_url, "api_keys": ["${SPARE_KEY}"]},
            "dead": {"base_url": f"http://127.0.0.1:{closed_port}/v1", "api_keys": ["${PROVIDER_KEY}2"]},
            "bare": {"base_url": recorder.base_url},
        },
        "models": {
            "good": {"targets": ["main/up"]},
            "pair": {"targets": ["dead/up", "main/up", "spare/up"]},
            "bare": {"targets": ["bare/up"]},
        },
        "limits": {"body_mb": 0.25},
        "resilience": NO_BREAKERS,
    }


def environ() -> dict[str, str]:
    return {
        "ROOT_SECRET": ROOT_SECRET,
        "CLIENT_KEY": CLIENT_KEY,
        "PROVIDER_KEY": PROVIDER_KEY,
        "SPARE_KEY": SPARE_KEY,
    }


@pytest.fixture(scope="module")
def recorder() -> Iterator[Recorder]:
    with Recorder() as upstream:
        yield upstream


@pytest.fixture
def record(recorder: Recorder) -> Iterator[Recorder]:
    recorder.seen.clear()
    yield recorder
    recorder.play = answer_well


@pytest.fixture(scope="module")
def gateway(
    recorder: Recorder, closed_port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("security")
    with GatewayProcess(folder, settings_for(recorder, closed_port), environ=environ()) as process:
        yield process
        assert_nothing_leaked(process)
        process.check_books()
        assert_nothing_leaked(process)


def assert_nothing_leaked(gateway: GatewayProcess) -> None:
    """Look for every secret and every canary in the log, the output, and each file of the data folder."""
    places = {"log": gateway.stderr.encode(), "output": gateway.stdout.encode()}
    places |= {path.name: path.read_bytes() for path in gateway.data_files()}
    assert "ledger.db" in places
    for word in (*SECRETS, *_planted):
        for name, content in places.items():
            assert word.encode() not in content, f"{word} in {name}"


def good(gateway: GatewayProcess, target: str = CHAT, body: Any = None, **more: Any) -> Answer:
    """Ask with the right key."""
    headers = [bearer(CLIENT_KEY), *more.pop("headers", ())]
    return ask(gateway.port, target, body, headers=headers, **more)


def chat(gateway: GatewayProcess, headers: Any = (), **body: Any) -> Answer:
    return good(gateway, CHAT, BODY | body, headers=headers)


# S01-S03: who may come in.

ROUTES = [
    *((method, path) for path, (method, _) in _ENDPOINTS.items()),
    ("GET", "/v1/models/good"),
    ("GET", "/v1/models/main/up"),
]
ELSEWHERE = [
    "/",
    "/v1",
    "/docs",
    "/redoc",
    "/openapi.json",
    "/metrics",
    "/admin",
    "/api/keys",
    "/debug",
    "/x",
]
BAD_CREDENTIALS = {
    "none": [],
    "another": [bearer("client-key-7d2f9a31c4e85b61")],
    "prefix": [bearer(CLIENT_KEY[:-1])],
    "longer": [bearer(CLIENT_KEY + "0")],
    "case": [bearer(CLIENT_KEY.upper())],
    "provider's": [bearer(PROVIDER_KEY)],
    "root": [bearer(ROOT_SECRET)],
    "empty": [("Authorization", "Bearer ")],
    "no-scheme": [("Authorization", CLIENT_KEY)],
    "basic": [("Authorization", f"Basic {CLIENT_KEY}")],
    "other-header": [
        ("x-api-key", CLIENT_KEY),
        ("api-key", CLIENT_KEY),
        ("x-forwarded-authorization", CLIENT_KEY),
    ],
    "cookie": [("Cookie", f"token={CLIENT_KEY}; Authorization=Bearer {CLIENT_KEY}")],
    "forged": [("X-Forwarded-For", "127.0.0.1"), ("X-Real-IP", "127.0.0.1"), ("Forwarded", "for=127.0.0.1")],
}


@pytest.mark.parametrize("how", BAD_CREDENTIALS)
@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_s01_every_route_denies_without_a_key(
    gateway: GatewayProcess, record: Recorder, method: str, path: str, how: str
) -> None:
    """S01: no route but health answers without a key that is known, and no provider hears of the call."""
    body = BODY | {"max_tokens": 5} if method == "POST" else None
    answer = ask(gateway.port, path, body, method=method, headers=BAD_CREDENTIALS[how])
    assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
    assert answer.header("www-authenticate") == "Bearer"
    assert record.seen == []


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("path", [*ELSEWHERE, *(path for _, path in ROUTES)])
def test_s01_all_other_paths_and_methods_deny_too(
    gateway: GatewayProcess, record: Recorder, method: str, path: str
) -> None:
    """S01: whatever the path and the method, without a key it is 401: not even what exists is told."""
    preflight = [("Access-Control-Request-Method", "POST")] if method == "OPTIONS" else []
    answer = ask(gateway.port, path, method=method, headers=preflight)
    assert answer.status == 401
    assert record.seen == []


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_s01_the_key_opens_every_route(gateway: GatewayProcess, method: str, path: str) -> None:
    """S01: the same routes answer to the right key, so what denies above is the key alone."""
    body = BODY | {"max_tokens": 5} if method == "POST" else None
    assert good(gateway, path, body, method=method).status == 200


@pytest.mark.parametrize("path", _HEALTH)
def test_s01_health_is_public_and_says_one_word(gateway: GatewayProcess, path: str) -> None:
    """S01, S36: health answers without a key, with one word and no version, name or count."""
    answer = ask(gateway.port, path)
    assert answer.status == 200
    assert answer.json == {"status": path.rpartition("/")[2]}
    assert {name for name, _ in answer.headers} <= {
        "content-type",
        "content-length",
        "connection",
        "date",
        "server",
    }


@pytest.mark.parametrize("path", ELSEWHERE)
def test_s36_there_are_no_other_pages(gateway: GatewayProcess, path: str) -> None:
    """S36: documentation, metrics and administration are not on the data plane, also not with a key."""
    answer = good(gateway, path)
    assert (answer.status, answer.error["code"]) == (404, "not_found")


ALIASES = [
    "/health/live/../../v1/models",
    "/health/live/%2e%2e/%2e%2e/v1/models",
    "/health/live%2f..%2f..%2fv1%2fmodels",
    "/health/live/..;/..;/v1/models",
    "/health/live;/v1/models",
    "//v1/models",
    "/v1//models",
    "/v1/models/",
    "/v1/./models",
    "/v1/models;a=b",
    "/V1/MODELS",
    "/v1/Models",
    "/v1/%6dodels",
    "/v1/%256dodels",
    "/v1/models%00",
    "/v1/models%20",
    "/v1/models%0d%0a",
    "/v1\\models",
    "/v1/mod\u00e9ls",
]


@pytest.mark.parametrize("path", ALIASES)
def test_s02_only_the_exact_path_is_a_route(gateway: GatewayProcess, path: str) -> None:
    """S02: a path in disguise is denied without a key, and is no other route with one."""
    assert ask(gateway.port, path).status in (400, 401)
    assert good(gateway, path).status in (400, 404)


@pytest.mark.parametrize(
    "path", ["/health/live?/v1/models", "/health/live?/../../v1/models", "/health/live#/v1/models"]
)
def test_s02_query_and_fragment_are_no_path(gateway: GatewayProcess, path: str) -> None:
    """S02: what follows a question mark or a number sign changes nothing about the route."""
    for answer in (ask(gateway.port, path), good(gateway, path)):
        assert answer.status in (200, 400)
        assert b"main/up" not in answer.raw
        assert answer.status == 400 or answer.json == {"status": "live"}


@pytest.mark.parametrize(
    "target",
    [
        "http://evil.example/v1/models",
        "@evil.example/v1/models",
        "evil.example/v1/models",
        "*",
        "v1/models",
        "?x=/",
    ],
)
def test_s02_targets_that_are_no_path(gateway: GatewayProcess, target: str) -> None:
    """S02: a target that is no path never serves a route without a key."""
    answer = ask(gateway.port, target)
    assert answer.status in (400, 401, 421)


@pytest.mark.parametrize("method", ["CONNECT", "TRACE", "PUT", "PATCH", "PROPFIND", "get", "G\u00cbT"])
def test_s02_methods_that_nobody_serves(gateway: GatewayProcess, record: Recorder, method: str) -> None:
    """S02: unknown methods are refused at the door, with a key too, and nothing is forwarded."""
    answer = good(gateway, CHAT, BODY, method=method)
    assert answer.status == 400
    assert record.seen == []


FOREIGN_HOSTS = [
    "evil.example",
    "evil.example:4400",
    "a/?x=",
    "a#",
    "localhost/?x=",
    "localhost#",
    "localhost@evil.example",
    "evil.example@localhost",
    "localhost.evil.example",
    "127.0.0.1.nip.io",
    "localhost.",
    "localhost:port",
    "localhost:1:2",
    "localhost, evil.example",
    "2130706433",
    "0x7f.1",
    "0.0.0.0",
    "[::1",
    "",
    " ",
]


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
@pytest.mark.parametrize("path", ["/health/live", "/v1/models"])
def test_s03_foreign_host_is_not_served(gateway: GatewayProcess, host: str, path: str) -> None:
    """S03: a Host that is not ours gets 421 before anything else, health and a good key included."""
    answer = good(gateway, path, host=host)
    assert (answer.status, answer.error["code"]) == (421, "invalid_request")


def test_s03_host_missing_or_repeated(gateway: GatewayProcess) -> None:
    """S03: no Host and two Hosts are refused, also when both are good or hidden in other headers."""
    assert good(gateway, "/v1/models", host=None).status == 421
    assert good(gateway, "/v1/models", headers=[("Host", "localhost")]).status == 421
    assert good(gateway, "/v1/models", host=None, headers=[("X-Forwarded-Host", "localhost")]).status == 421
    forged = [("X-Forwarded-Host", "evil.example"), ("X-Original-Host", "evil.example")]
    assert good(gateway, "/v1/models", headers=forged).status == 200


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9", "127.0.0.1", "[::1]:4400"])
def test_s03_names_of_loopback_are_served(gateway: GatewayProcess, host: str) -> None:
    """S03: the names of this machine are ours while none are listed."""
    assert ask(gateway.port, "/health/live", host=host).status == 200


# S11: where a call goes is the settings' business.


def test_s11_nothing_in_a_request_chooses_the_upstream(
    gateway: GatewayProcess, record: Recorder, decoy: Recorder
) -> None:
    """S11: fields, headers, queries and model names that name another server lead nowhere."""
    host = f"127.0.0.1:{decoy.port}"
    fields: list[dict[str, Any]] = [
        {name: value}
        for name in ("api_base", "base_url", "api_url", "host", "proxy", "custom_llm_provider", "deployment")
        for value in (decoy.base_url, {"url": decoy.url})
    ]
    fields += [{"extra_headers": {"Host": host, "X-Forwarded-Host": host}}, {"api_key": "sk-other"}]
    headers = [
        (name, value)
        for name in (
            "X-Forwarded-Host",
            "X-Original-URL",
            "X-Rewrite-URL",
            "X-Base-Url",
            "Helicone-Target-Url",
        )
        for value in (host, decoy.base_url)
    ]
    headers += [
        ("x-portkey-custom-host", decoy.base_url),
        ("Forwarded", f"host={host}"),
        ("Via", f"1.1 {host}"),
    ]
    for more in fields:
        assert chat(gateway, **more).status == 200
    for header in headers:
        assert chat(gateway, [header]).status == 200
    assert good(gateway, f"{CHAT}?api_base={decoy.base_url}&base_url={decoy.url}", BODY).status == 200
    assert {dict(seen.headers)["host"] for seen in record.seen} == {f"127.0.0.1:{record.port}"}
    assert {seen.request_line for seen in record.seen} == {"POST /v1/chat/completions HTTP/1.1"}
    for model in (
        decoy.url,
        f"{decoy.base_url}/x",
        f"//{host}/x",
        f"@{host}/x",
        f"main@{host}/x",
        f"{host}/x",
    ):
        assert chat(gateway, model=model).status == 404
    for model in (f"main/{decoy.url}", "main/../../x", "main/?x=", "main/x\r\nHost: evil", "main/@evil"):
        assert chat(gateway, model=model).status == 200
        assert record.last.json["model"] == model.removeprefix("main/")
        assert record.last.request_line == "POST /v1/chat/completions HTTP/1.1"
    assert decoy.connections == 0


# S14-S16: headers, both ways.

SENT_HEADERS = {
    "host",
    "accept",
    "accept-encoding",
    "content-type",
    "user-agent",
    "authorization",
    "content-length",
}


def planted_headers() -> list[tuple[str, str]]:
    names = (
        "Cookie",
        "x-api-key",
        "api-key",
        "OpenAI-Organization",
        "OpenAI-Project",
        "anthropic-version",
        "Proxy-Authorization",
        "X-Amz-Security-Token",
        "x-goog-api-key",
        "X-Secret",
        "User-Agent",
        "Referer",
        "X-Forwarded-For",
        "X-Forwarded-User",
        "Forwarded",
        "traceparent",
        "baggage",
        "x-request-id",
        "x-stainless-lang",
        "Accept-Language",
        "TE",
        "Keep-Alive",
        "Trailer",
        "If-None-Match",
        "Range",
        "X-HTTP-Method-Override",
        "x-custom-\u0021",
    )
    return [(name, canary(name.lower())) for name in names]


ASKING = [path for method, path in ROUTES if method == "POST" and path != "/v1/estimate-cost"]


def test_s14_an_estimate_asks_nobody(gateway: GatewayProcess, record: Recorder) -> None:
    """S14: it is answered from what is known here."""
    assert good(gateway, "/v1/estimate-cost", BODY | {"max_tokens": 5}).status == 200
    assert record.seen == []


@pytest.mark.parametrize("path", ASKING)
@pytest.mark.parametrize("model", ["good", "pair", "bare"])
def test_s14_no_header_of_the_caller_goes_on(
    gateway: GatewayProcess, record: Recorder, path: str, model: str
) -> None:
    """S14, S15: a provider gets exactly our headers and its own key, on every route and after failover."""
    failed = []

    def play(seen: Seen, wire: Wire) -> None:
        if model == "pair" and not failed:
            failed.append(seen)
            wire.send(whole(b"{}", status=b"500 Oh"))
        else:
            answer_well(seen, wire)

    record.play = play
    listed = ("Connection", "authorization, x-secret, content-type, x-tiergate-data")
    answer = good(gateway, path, BODY | {"model": model}, headers=[*planted_headers(), listed])
    assert answer.status == 200
    assert len(record.seen) == (2 if model == "pair" else 1)
    keys = {"good": [PROVIDER_KEY], "pair": [PROVIDER_KEY, SPARE_KEY], "bare": [None]}[model]
    for seen, key in zip(record.seen, keys, strict=True):
        sent = dict(seen.headers)
        assert len(sent) == len(seen.headers), "each header once"
        assert set(sent) == SENT_HEADERS - (set() if key else {"authorization"})
        assert sent.get("authorization") == (f"Bearer {key}" if key else None)
        for word in (*_planted, CLIENT_KEY):
            assert word.encode() not in seen.head + seen.body


UPSTREAM_HEADERS = (
    b"set-cookie: session=%(c)b\r\naccess-control-allow-origin: *\r\n"
    b"access-control-allow-credentials: true\r\nopenai-organization: %(c)b\r\nopenai-project: %(c)b\r\n"
    b"x-request-id: %(c)b\r\nserver: %(c)b\r\nvia: %(c)b\r\nx-powered-by: %(c)b\r\n"
    b"x-tiergate-target: %(c)b\r\nx-tiergate-cost-usd: 0\r\nlocation: http://%(c)b/\r\n"
    b"strict-transport-security: max-age=1\r\ncf-ray: %(c)b\r\nx-ratelimit-limit-requests: 7\r\n"
    b"x-secret: %(c)b\r\n"
    b"connection: x-secret, keep-alive\r\nlink: <%(c)b>\r\nrefresh: 0\r\netag: %(c)b\r\n"
)
OURS = {"content-type", "content-length", "transfer-encoding", "connection", "date", "server", "x-request-id"}
OF_REPLIES = OURS | {"x-tiergate-target", "x-tiergate-tier", "x-tiergate-attempts", "cache-status"}


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("status", [b"200 OK", b"500 Oh", b"400 Bad", b"429 Slow"])
def test_s16_no_header_of_the_provider_comes_back(
    gateway: GatewayProcess, record: Recorder, status: bytes, *, streamed: bool
) -> None:
    """S15, S16: callers get our headers only; cookies, CORS, organisations and banners stay out."""
    # The upstream's id of a call is kept for its support desk, so it is not among the canaries.
    word = f"header-{secrets.token_hex(6)}"
    more = UPSTREAM_HEADERS % {b"c": word.encode()}

    def play(seen: Seen, wire: Wire) -> None:
        if status != b"200 OK" or not streamed:
            wire.send(whole(completion(), status=status, more=more))
        else:
            wire.begin_stream(more)
            wire.event(chunk("hello", finish="stop"))
            wire.end_stream()

    record.play = play
    answer = chat(gateway, stream=streamed)
    assert word.encode() not in answer.raw
    assert answer.header("server") == "tiergate"
    names = {name for name, _ in answer.headers}
    if status != b"200 OK":
        assert names <= OURS | {"x-should-retry", "retry-after", "retry-after-ms"}
    elif streamed:
        assert names <= OF_REPLIES | {"cache-control", "x-accel-buffering"}
        assert answer.header("x-tiergate-target") == "main/up"
    else:
        assert names <= OF_REPLIES


# S17, S18, S20: framing and size.

SMUGGLED = request("/v1/models", headers=[bearer(CLIENT_KEY)])
HEAD = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {CLIENT_KEY}\r\n".encode()
JSON_LINE = b"Content-Type: application/json\r\n"
GOOD = json.dumps(BODY).encode()
LENGTH = b"%d" % len(GOOD)
CHUNKS = b"\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(GOOD), GOOD)
AND_GOOD = b"\r\n\r\n" + GOOD
FRAMES = {
    "two-lengths": b"Content-Length: " + LENGTH + b"\r\nContent-Length: 0" + AND_GOOD,
    "two-lengths-reversed": b"Content-Length: 0\r\nContent-Length: " + LENGTH + AND_GOOD,
    "length-list": b"Content-Length: " + LENGTH + b", " + LENGTH + AND_GOOD,
    "plus": b"Content-Length: +" + LENGTH + AND_GOOD,
    "hex": b"Content-Length: 0x%x" % len(GOOD) + AND_GOOD,
    "underscore": b"Content-Length: 0_" + LENGTH + AND_GOOD,
    "empty": b"Content-Length: " + AND_GOOD,
    "space-before-colon": b"Content-Length : " + LENGTH + AND_GOOD,
    "obs-fold": b"Transfer-Encoding:\r\n chunked" + CHUNKS,
    "nul": b"X-A: a\0b\r\nContent-Length: " + LENGTH + AND_GOOD,
    "bare-cr": b"X-A: a\rContent-Length: " + LENGTH + AND_GOOD,
    "other-digits": "Content-Length: \u0666\u0660".encode() + AND_GOOD,
    "xchunked": b"Transfer-Encoding: xchunked" + CHUNKS,
    "chunked-not-last": b"Transfer-Encoding: chunked, identity" + CHUNKS,
    "chunk-size-wraps": b"Transfer-Encoding: chunked"
    + CHUNKS.replace(b"\n%x" % len(GOOD), b"\n1%016x" % len(GOOD)),
    "chunk-size-hex": b"Transfer-Encoding: chunked"
    + CHUNKS.replace(b"\n%x" % len(GOOD), b"\n0x%x" % len(GOOD)),
    "chunk-without-end": b"Transfer-Encoding: chunked" + CHUNKS.replace(b"}\r\n0", b"}0"),
}


@pytest.mark.parametrize("frame", FRAMES)
def test_s17_doubtful_framing_hides_no_request(gateway: GatewayProcess, record: Recorder, frame: str) -> None:
    """S17: what two parsers could read in two ways is refused, and what hides behind it is not executed."""
    with Connection(gateway.port, timeout_s=3) as connection:
        connection.send(HEAD + JSON_LINE + FRAMES[frame] + SMUGGLED)
        try:
            received = connection.read_to_end()
        except TimeoutError:
            received = connection.received
    assert b"main/up" not in received
    assert b" 200 " not in received
    assert record.seen == []


def test_s17_good_framing_is_read(gateway: GatewayProcess, record: Recorder) -> None:
    """S17: the same body, framed in either of the two good ways, is answered."""
    for frame in (b"Content-Length: " + LENGTH + AND_GOOD, b"Transfer-Encoding: chunked" + CHUNKS):
        with Connection(gateway.port) as connection:
            connection.send(HEAD + JSON_LINE + frame)
            assert connection.read_answer().status == 200
    assert [seen.json["messages"] for seen in record.seen] == [QUESTION] * 2


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5",
        b"Content-Length: 0\r\nTransfer-Encoding: chunked",
    ],
)
def test_s17_length_beside_chunks_ends_the_connection(
    gateway: GatewayProcess, record: Recorder, lines: bytes
) -> None:
    """S17: the server shows chunks only, as RFC 9112 (6.3) has it; what stands behind them is not read."""
    with Connection(gateway.port) as connection:
        connection.send(HEAD + JSON_LINE + lines + CHUNKS + SMUGGLED)
        received = connection.read_to_end()
    assert received.count(b"HTTP/1.1 ") == 1
    assert b"main/up" not in received.partition(b"\r\n\r\n")[2]
    assert [seen.json["messages"] for seen in record.seen] == [QUESTION]


def test_s17_odd_framing_whose_end_is_certain(gateway: GatewayProcess, record: Recorder) -> None:
    """S17: the request behind it is one of its own, judged by its own key."""
    frame = b"Content-Length: " + LENGTH + b"\r\nContent-Length: " + LENGTH + AND_GOOD
    with Connection(gateway.port) as connection:
        connection.send(HEAD + JSON_LINE + frame + request("/v1/models"))
        assert [connection.read_answer().status for _ in range(2)] == [200, 401]
    assert len(record.seen) == 1


def test_s17_pipelined_requests_are_each_judged(gateway: GatewayProcess, record: Recorder) -> None:
    """S17: a key on one request of a connection says nothing about the next one."""
    first = request("/v1/models", headers=[bearer(CLIENT_KEY)])
    with Connection(gateway.port) as connection:
        connection.send(first + request("/v1/models") + request(CHAT, BODY) + first)
        assert [connection.read_answer().status for _ in range(4)] == [200, 401, 401, 200]
    assert record.seen == []


@pytest.mark.parametrize("over", [0, 1])
def test_s18_body_has_a_limit(gateway: GatewayProcess, record: Recorder, over: int) -> None:
    """S18: a body may have the limit's bytes and not one more."""
    limit = 256 * 1024
    frame = len(json.dumps({**BODY, "pad": ""}))
    body = json.dumps({**BODY, "pad": "x" * (limit + over - frame)}).encode()
    assert len(body) == limit + over
    answer = good(gateway, CHAT, body)
    assert answer.status == (413 if over else 200)
    if over:
        assert answer.error["code"] == "request_too_large"
        assert str(limit) in answer.error["message"]
        assert record.seen == []


@pytest.mark.parametrize("over", [0, 1])
def test_s18_depth_has_a_limit(gateway: GatewayProcess, record: Recorder, over: int) -> None:
    """S18: a body may be nested to the limit and not deeper."""
    depth = DEPTH_MAX - 1 + over
    body = b'{"model":"good","messages":[{"role":"user"}],"x":' + b"[" * depth + b"]" * depth + b"}"
    answer = good(gateway, CHAT, body)
    assert answer.status == (400 if over else 200)
    if over:
        assert str(DEPTH_MAX) in answer.error["message"]
        assert record.seen == []


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"[" * 50_000 + b"]" * 50_000,
        b'{"a":' * 40_000 + b"1" + b"}" * 40_000,
    ],
    ids=["open-lists", "open-objects", "lists", "objects"],
)
def test_s18_very_deep_bodies_are_refused(gateway: GatewayProcess, body: bytes) -> None:
    """S18: a body that would exhaust a recursive reader is a plain 400."""
    assert good(gateway, CHAT, body).status == 400


def test_s18_request_line_and_headers_have_limits(gateway: GatewayProcess) -> None:
    """S18: long targets, long headers and many headers are refused, one below each limit is not."""
    assert good(gateway, f"/v1/models?{'q' * 8000}").status == 200
    assert good(gateway, f"/v1/models?{'q' * 8200}").status == 413
    assert good(gateway, "/v1/models", headers=[("X-Long", "v" * 32_000)]).status == 200
    assert good(gateway, "/v1/models", headers=[("X-Long", "v" * 33_000)]).status == 413
    assert good(gateway, "/v1/models", headers=[(f"X-{n}", "v") for n in range(90)]).status == 200
    many = request("/v1/models", headers=[bearer(CLIENT_KEY), *((f"X-{n}", "v") for n in range(200))])
    assert b"main/up" not in talk(gateway.port, many)
    with socket.create_connection(("127.0.0.1", gateway.port), 5) as endless:
        endless.sendall(b"GET /" + b"a" * 200_000)
        assert endless.recv(100).startswith(b"HTTP/1.1 4")


def test_s18_our_own_headers_are_bounded(gateway: GatewayProcess, record: Recorder) -> None:
    """S18: each header that we read has few values; anything else is refused with the header's name."""
    for name, value in (
        ("x-tiergate-tag", "t" * 129),
        ("x-tiergate-class", "urgent"),
        ("x-tiergate-data", "public"),
        ("x-tiergate-deadline-ms", "0"),
        ("x-tiergate-deadline-ms", "1e9"),
        ("x-tiergate-deadline-ms", "9" * 400),
        ("x-tiergate-deadline-ms", "000000000001" + "0" * 400),
        ("x-tiergate-deadline-ms", "-5"),
    ):
        answer = chat(gateway, [(name, value)])
        assert (answer.status, answer.error["param"]) == (400, name)
    assert record.seen == []


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd", "deflate", "gzip, gzip", "identity, gzip"])
def test_s20_compressed_requests_are_refused(gateway: GatewayProcess, record: Recorder, coding: str) -> None:
    """S20: no body is decompressed, so none can be a bomb."""
    answer = good(gateway, CHAT, BODY, headers=[("Content-Encoding", coding)])
    assert answer.status == 400
    assert "Content-Encoding" in answer.error["message"]
    assert record.seen == []


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "text/json"],
)
def test_s35_simple_requests_change_nothing(gateway: GatewayProcess, record: Recorder, kind: str) -> None:
    """S22, S35: only JSON that calls itself so is read; a form of a foreign page is not."""
    answer = good(gateway, CHAT, json.dumps(BODY).encode(), headers=[("Content-Type", kind)])
    assert answer.status == 415
    assert "application/json" in answer.error["message"]
    assert record.seen == []


# S21, S22: what policy reads is what is forwarded.


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"good","messages":[{"role":"user"}],"model":"bare"}',
        b'{"model":"good","messages":[{"role":"user"}],"max_tokens":1,"max_tokens":9}',
        b'{"model":"good","messages":[{"role":"user"}],"max_tokens":1,"max_\\u0074okens":9}',
        b'{"model":"good","messages":[{"role":"user","role":"system"}]}',
        b'{"model":"good", "messages": [{"role":"user"}], "x": {"y": {"z": 1, "z": 1}}}',
        b'{"model":"good","messages":[{"role":"user"}],"x":NaN}',
        b'{"model":"good","messages":[{"role":"user"}],"x":Infinity}',
        b'{"model":"good","messages":[{"role":"user"}],"x":-Infinity}',
        b'{"model":"good","messages":[{"role":"user"}],"x":1e999}',
        b'{"model":"good","messages":[{"role":"user"}],"x":01}',
        b'{"model":"good","messages":[{"role":"user"}],"x":"\\ud800"}',
        b'{"model":"good","messages":[{"role":"user"}],"x":"\xff"}',
        b'{"model":"good","messages":[{"role":"user"}],"x":"\xed\xa0\x80"}',
        b'\xef\xbb\xbf{"model":"good","messages":[{"role":"user"}]}',
        b'{"model":"good","messages":[{"role":"user"}],}',
        b'{"model":"good","messages":[{"role":"user"}]} {}',
        b"{'model':'good'}",
        b'{"model":"good","messages":[{"role":"user"}]} // x',
        b'{"model":"good","messages":[{"role":"user"}],"x":"a\nb"}',
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"7",
        '{"model":"good"}'.encode("utf-16"),
    ],
)
def test_s21_bodies_that_two_readers_read_differently(
    gateway: GatewayProcess, record: Recorder, body: bytes
) -> None:
    """S21: duplicate keys, numbers that are none, half characters and the like are a 400; nothing is sent."""
    answer = good(gateway, CHAT, body)
    assert (answer.status, answer.error["code"]) == (400, "invalid_request")
    assert record.seen == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", "1e2"),
        ("max_tokens", "100.0"),
        ("max_tokens", '"100"'),
        ("max_tokens", "true"),
        ("max_tokens", "-1"),
        ("max_tokens", "0"),
        ("max_tokens", "99999999999999999999"),
        ("max_completion_tokens", "[5]"),
        ("n", "2.5"),
        ("n", '"2"'),
        ("n", "true"),
        ("stream", "1"),
        ("stream", '"true"'),
        ("stream_options", '{"include_usage":true}'),
        ("model", "[]"),
        ("model", '""'),
        ("model", "null"),
        ("messages", "{}"),
        ("messages", "[]"),
        ("messages", '["hello"]'),
    ],
)
def test_s21_fields_that_decide_cost_are_read_strictly(
    gateway: GatewayProcess, record: Recorder, field: str, value: str
) -> None:
    """S21: a field that policy must understand, written so that another may read it otherwise: 400."""
    said = {"model": '"good"', "messages": '[{"role":"user"}]', field: value}
    body = "{" + ",".join(f'"{name}":{text}' for name, text in said.items()) + "}"
    answer = good(gateway, CHAT, body.encode())
    assert (answer.status, answer.error["param"]) == (400, field)
    assert record.seen == []


SPELLINGS = [
    '{"model":"priced/m","messages":[{"role":"user"}],"max_tokens":7}',
    '{ "max_tokens" : 7 , "messages":[{"role":"user"}],\n\t"model":"priced/m" }',
    '{"model":"priced\\/m","messages":[{"role":"user"}],"max_\\u0074okens":7}',
    '{"\\u006dodel":"\\u0070riced/m","messages":[{"role":"user"}],"max_completion_tokens":7,"max_tokens":null}',
    '{"model":"priced/m","messages":[{"role":"user"}],"max_completion_tokens":7,"max_tokens":99}',
    '{"model":"priced/m","messages":[{"role":"user"}],"max_tokens":7,"MAX_TOKENS":99,"max_tokens ":99}',
    '{"model":"priced/m","messages":[{"role":"user"}],"max_tokens":7,"n":3}',
    '{"model":"priced/m","messages":[{"role":"user"}],"max_tokens":7,"n":null,"x":{"max_tokens":99}}',
]


def test_s21_policy_reads_what_is_forwarded(record: Recorder, tmp_path: Path) -> None:
    """S21, S22: the worst case that the ledger held is that of the very body that the provider received."""
    settings = {
        "providers": {"priced": {"base_url": record.base_url}, "dear": {"base_url": record.base_url}},
        "prices": [{"target": "priced/m", "usd_per_1m": {"input": 0, "output": 1}}],
    }
    with GatewayProcess(tmp_path, settings) as gateway:
        ids = []
        for spelling in SPELLINGS:
            path = f"{CHAT}?model=dear/m&max_tokens=99"
            headers = [("x-model", "dear/m"), ("openai-model", "dear/m"), ("x-tiergate-model", "dear/m")]
            answer = ask(gateway.port, path, spelling.encode(), headers=headers)
            assert answer.header("x-tiergate-target") == "priced/m"
            ids.append(answer.call_id)
        held = {entry.call_id: entry.attempts[0].bound_nanos for entry in gateway.check_books()}
    assert len(record.seen) == len(SPELLINGS)
    for spelling, seen, call_id in zip(SPELLINGS, record.seen, ids, strict=True):
        assert seen.json == json.loads(spelling) | {"model": "m"}
        # Of two limits the larger: some servers know only one of the fields.
        limit = max(seen.json.get(name) or 0 for name in ("max_completion_tokens", "max_tokens"))
        assert held[call_id] == limit * (seen.json.get("n") or 1) * 1000


# S30-S33: what is said, and where.


def test_s30_canaries_of_callers_stay_out_of_every_output(gateway: GatewayProcess, record: Recorder) -> None:
    """S30: prompts, answers, keys and headers are in no log and no file, whether a call succeeds or fails."""
    answer_word = canary("completion")

    def play(seen: Seen, wire: Wire) -> None:
        if seen.json.get("stream"):
            wire.begin_stream()
            wire.event(chunk(answer_word))
            if seen.json["messages"][0]["content"] == "cut":
                wire.event(json.dumps({"error": {"message": canary("stream-error")}}).encode())
            wire.event(chunk("", finish="stop"))
            wire.end_stream()
        else:
            wire.send(whole(completion(answer_word)))

    record.play = play
    plant = {
        "messages": [
            {"role": "system", "content": canary("system"), "name": canary("name")},
            {"role": "user", "content": [{"type": "text", "text": canary("part")}]},
            {"role": "tool", "tool_call_id": canary("tool-id"), "content": canary("tool")},
        ],
        "tools": [
            {"type": "function", "function": {"name": canary("function"), "description": canary("tools")}}
        ],
        "user": canary("user"),
        "metadata": {canary("metadata-key"): canary("metadata")},
        canary("field"): canary("value"),
        "response_format": {"type": canary("format")},
        "stop": [canary("stop")],
    }
    headers = [*planted_headers(), ("x-stainless-read-timeout", canary("read-timeout"))]
    for path in (CHAT, "/v1/chat/stream"):
        for more in ({}, {"stream": True}, {"model": "pair"}):
            good(gateway, f"{path}?api_key={canary('query')}", BODY | plant | more, headers=headers)
    assert answer_word in chat(gateway).json["choices"][0]["message"]["content"]
    assert not chat(gateway, stream=True, messages=[{"role": "user", "content": "cut"}]).whole
    with asking(
        gateway.port, CHAT, BODY | plant | {"stream": True}, headers=[bearer(CLIENT_KEY)]
    ) as connection:
        connection.read_until(answer_word.encode())
    # Refused before it became a call, in every way.
    refusals: list[tuple[str, Any, list[tuple[str, str]]]] = [
        (f"/{canary('path')}", None, []),
        (f"/v1/models/{canary('model-path')}", None, []),
        (CHAT, {"model": canary("unknown-model"), "messages": QUESTION}, []),
        (CHAT, BODY | {"max_tokens": canary("max-tokens")}, []),
        (CHAT, BODY | {"messages": canary("messages")}, []),
        (CHAT, (canary("not-json")).encode(), []),
        (CHAT, ('{"' + canary("duplicate") + '":1,"x":{"a":1,"a":2}}').encode(), []),
        (CHAT, b'{"x":"\xff' + canary("not-utf8").encode() + b'"}', []),
        (CHAT, BODY, [("x-tiergate-class", canary("class"))]),
        (CHAT, BODY, [("x-tiergate-data", canary("data"))]),
        (CHAT, BODY, [("x-tiergate-tag", canary("tag") + "\tx")]),
        (CHAT, BODY, [("x-tiergate-deadline-ms", canary("deadline"))]),
        (CHAT, BODY, [("Origin", f"https://{canary('origin')}.example")]),
        (CHAT, BODY, [("Content-Encoding", canary("encoding"))]),
        (CHAT, BODY, [("Content-Type", canary("type"))]),
        (CHAT, BODY, [("Upgrade", canary("upgrade"))]),
    ]
    for target, body, more_headers in refusals:
        assert good(gateway, target, body, headers=more_headers).status in range(400, 500)
    assert good(gateway, "/v1/models", host=f"{canary('host')}.example").status == 421
    for key in (canary("wrong-key"), f"{CLIENT_KEY}x{canary('key')}"):
        answer = ask(gateway.port, CHAT, BODY, headers=[bearer(key)])
        assert answer.status == 401
        assert key.encode() not in answer.raw
    assert_nothing_leaked(gateway)


def test_s30_log_line_of_a_call_has_these_fields_only(gateway: GatewayProcess) -> None:
    """S30: the log is an allow-list of fields; a new one is a decision, not an accident."""
    tag = f"nightly-{secrets.token_hex(6)}"
    line = gateway.log_of(chat(gateway, [("x-tiergate-tag", tag)]).call_id)
    assert set(line) == {
        "time",
        "level",
        "event",
        "call",
        "endpoint",
        "key",
        "team",
        "tag",
        "model",
        "class",
        "streamed",
        "end",
        "error",
        "target",
        "tier",
        "attempts",
        "ttft_ms",
        "total_ms",
        "input_tokens",
        "output_tokens",
        "usage_source",
        "cost_usd",
        "generation",
        "cache",
    }
    assert line["tag"] == tag
    # What is meant to be kept is found by the same search that finds no canary.
    files = gateway.data_files()
    until(lambda: any(tag.encode() in path.read_bytes() for path in files), what="the tag in the ledger")


@pytest.mark.parametrize(
    "evil",
    [
        'x\r\n{"event":"forged"}',
        "x\n",
        "\x1b[31mred\x1b[0m\x1b]0;title\x07",
        "x\x85y\u2028z\u2029",
        "x\x7f\x9b31m",
        '"},{"event":"forged',
        "\u202egnp.exe",
        "x" * 240,
    ],
)
def test_s31_no_field_breaks_out_of_its_line(gateway: GatewayProcess, record: Recorder, evil: str) -> None:
    """S31: whatever a model is called, one record is one line of printable ASCII, and so is each header."""
    answer = chat(gateway, model=f"main/{evil}")
    assert answer.status == 200
    assert record.last.json["model"] == evil
    target = answer.header("x-tiergate-target")
    assert target is not None
    assert target.isascii() and target.isprintable()
    line = gateway.log_of(answer.call_id)
    assert line["model"] == f"main/{evil}"[:200]
    assert not [line for line in gateway.log() if line["event"] == "forged"]
    assert all(text.isascii() and text.isprintable() for text in gateway.stderr.splitlines())
    missing = chat(gateway, model=f"none-{evil}")
    assert missing.status == 404
    assert missing.error["message"].startswith("There is no model")


def test_s31_the_log_is_json_lines_only(gateway: GatewayProcess) -> None:
    """S31: everything on standard error is a record; no library writes there in its own way."""
    good(gateway, "/nothing")
    talk(gateway.port, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
    assert all(isinstance(json.loads(text), dict) for text in gateway.stderr.splitlines())


def test_s32_of_a_refusal_three_fields_pass(gateway: GatewayProcess, record: Recorder) -> None:
    """S32: of a provider's error only message, field and code of a rejected request pass."""
    kept = {"message": "Too hot.", "param": "temperature", "code": "bad_value"}
    error = kept | {
        "type": canary("type"),
        "internal": canary("internal"),
        "inner": {"trace": canary("trace")},
    }
    said = json.dumps(
        {"error": error, "debug": canary("debug"), "request": {"headers": PROVIDER_KEY}}
    ).encode()
    record.play = lambda seen, wire: wire.send(whole(said, status=b"400 Bad Request"))
    answer = chat(gateway)
    assert answer.error == {
        "message": "main/up rejected the request: Too hot.",
        "type": "invalid_request_error",
        "param": "temperature",
        "code": "bad_value",
    }


@pytest.mark.parametrize("status", [b"400 Bad", b"401 No", b"404 None", b"422 Odd", b"429 Slow", b"500 Oh"])
def test_s32_provider_that_repeats_our_key(gateway: GatewayProcess, record: Recorder, status: bytes) -> None:
    """S32, I12: a provider that quotes our credential back does not get it to the caller."""
    text = f"Key {PROVIDER_KEY} (Bearer {PROVIDER_KEY}) is wrong; {SPARE_KEY}; line\r\nbreak \x1b[31m\u202e"
    said = json.dumps({"error": {"message": text, "param": PROVIDER_KEY, "code": PROVIDER_KEY}}).encode()
    record.play = lambda seen, wire: wire.send(whole(said, status=status))
    answer = chat(gateway)
    for secret in SECRETS:
        assert secret.encode() not in answer.raw
    assert answer.error["message"].isprintable()


def test_s32_canaries_of_providers_stay_with_them(gateway: GatewayProcess, record: Recorder) -> None:
    """S32: what a provider says beside an answer or a rejection reaches no caller, log or file."""
    for status in (b"401 No", b"403 No", b"404 None", b"429 Slow", b"500 Oh", b"503 Busy", b"302 Found"):
        word = canary("upstream-body")
        said = json.dumps({"error": {"message": word, "code": word, "param": word}}).encode()
        more = b"location: /" + word.encode() + b"\r\n"
        for body in (said, word.encode(), b"<html>" + word.encode()):
            sent = whole(body, status=status, more=more)
            record.play = lambda seen, wire, sent=sent: wire.send(sent)  # type: ignore[misc]  # bound now
            for streamed in (False, True):
                answer = chat(gateway, stream=streamed)
                assert answer.status >= 400
                assert word.encode() not in answer.raw
    assert_nothing_leaked(gateway)


def test_s33_secrets_are_in_no_description(gateway: GatewayProcess) -> None:
    """S33: settings show no secret, however they are printed, dumped or listed."""
    loaded = load(gateway.settings_file, environ())
    settings = loaded.settings
    provider = settings.providers["main"]
    assert provider.api_keys[0].reveal() == PROVIDER_KEY
    shown = [
        repr(loaded),
        str(loaded),
        repr(settings),
        str(settings),
        f"{settings:}",
        repr(provider),
        repr(settings.keys),
        str(settings.model_dump()),
        settings.model_dump_json(),
        str(settings.model_dump(mode="json")),
        repr(vars(settings)),
        str(provider.api_keys[0]),
        good(gateway, "/v1/models").body.decode(),
        good(gateway, "/v1/models/good").body.decode(),
        cli(
            "models", "--json", "-c", str(gateway.settings_file), folder=gateway.folder, environ=environ()
        ).stdout,
        cli(
            "check", "--json", "-c", str(gateway.settings_file), folder=gateway.folder, environ=environ()
        ).stdout,
    ]
    for text in shown:
        assert text
        for secret in SECRETS:
            assert secret not in text


def test_s33_secrets_are_not_in_the_process_list(gateway: GatewayProcess) -> None:
    """S33: nothing that other users of the machine can see of the process holds a secret."""
    process = Path(f"/proc/{gateway.pid}")
    for name in ("cmdline", "comm", "status"):
        text = (process / name).read_text()
        assert text
        for secret in (*SECRETS, gateway.token):
            assert secret not in text


def test_s33_data_folder_is_for_its_owner_only(gateway: GatewayProcess) -> None:
    """S33: the folder and what lies in it can be read by its owner only."""
    assert gateway.data_dir.stat().st_mode & 0o077 == 0
    for path in gateway.data_dir.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path.name


def test_s33_the_machines_own_token_is_not_for_others(gateway: GatewayProcess) -> None:
    """S33: the token that lets this machine's command line in is said nowhere but in its own file."""
    assert len(gateway.token) >= 32
    assert ask(gateway.port, "/v1/models", headers=[bearer(gateway.token)]).status == 200
    assert gateway.token not in gateway.stderr + gateway.stdout
    for path in gateway.data_files():
        assert (gateway.token.encode() in path.read_bytes()) is (path.name == "owner.json")


@pytest.mark.parametrize(
    "change",
    [
        {"secret": CLIENT_KEY * 2, "keys": [{"name": "a", "secret": CLIENT_KEY * 2}]},
        {"keys": [{"name": "a", "secret": PROVIDER_KEY}]},
        {"keys": [{"name": "a", "secret": CLIENT_KEY}, {"name": "b", "secret": CLIENT_KEY}]},
        {"secret": ROOT_SECRET, "admin": {"token": ROOT_SECRET}},
    ],
    ids=["root-is-a-key", "provider's-is-a-key", "two-callers", "root-is-admin's"],
)
def test_s34_a_secret_has_one_use(tmp_path: Path, change: dict[str, Any]) -> None:
    """S34: equal secrets for two purposes stop the start, and the message does not show them."""
    settings = {"providers": {"main": {"base_url": "http://127.0.0.1:9/v1", "api_keys": [PROVIDER_KEY]}}}
    (tmp_path / "tiergate.yaml").write_text(json.dumps(settings | change))
    ended = cli("serve", folder=tmp_path)
    assert ended.returncode == 1
    assert "every secret needs a value of its own" in ended.stderr
    for secret in SECRETS:
        assert secret not in ended.stderr + ended.stdout


# S35: browsers.


@dataclass(frozen=True)
class Page:
    """A page's origin, and whether it may call."""

    origin: str
    allowed: bool = False


PAGES = [
    Page("https://app.example", allowed=True),
    Page("http://app.example"),
    Page("https://app.example:8443"),
    Page("https://app.example.evil.example"),
    Page("https://evil-app.example"),
    Page("https://evil.example/https://app.example"),
    Page("https://APP.example"),
    Page("https://app.example/"),
    Page("https://app.example, https://evil.example"),
    Page("null"),
    Page("*"),
    Page("http://localhost"),
    Page("http://127.0.0.1:4400"),
    Page("file://"),
]


@pytest.fixture(scope="module")
def for_pages(recorder: Recorder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    settings = {
        "auth": "keys",
        "keys": [{"name": "ci", "secret": CLIENT_KEY}],
        "hosts": ["gateway.example"],
        "cors": ["https://app.example"],
        "providers": {"main": {"base_url": recorder.base_url}},
        "models": {"good": {"targets": ["main/up"]}},
    }
    with GatewayProcess(tmp_path_factory.mktemp("pages"), settings) as process:
        yield process


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.origin)
def test_s35_preflight(for_pages: GatewayProcess, page: Page) -> None:
    """S35: only an origin of the list is told that it may call, by its exact name and without credentials."""
    headers = [
        ("Origin", page.origin),
        ("Access-Control-Request-Method", "POST"),
        (
            "Access-Control-Request-Headers",
            "Authorization, x-stainless-os, x-tiergate-tag, cookie, x-api-key",
        ),
    ]
    answer = ask(for_pages.port, CHAT, method="OPTIONS", headers=headers, host="gateway.example")
    assert answer.status == (204 if page.allowed else 403)
    assert answer.header("access-control-allow-origin") == (page.origin if page.allowed else None)
    assert answer.header("access-control-allow-credentials") is None
    if page.allowed:
        assert answer.header("vary") == "origin"
        assert answer.header("access-control-allow-methods") == "GET, POST, DELETE"
        allowed = answer.header("access-control-allow-headers")
        assert allowed == "authorization, x-stainless-os, x-tiergate-tag", (
            "what means something here, no more"
        )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.origin)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_s35_call_of_a_page(
    for_pages: GatewayProcess, record: Recorder, page: Page, *, streamed: bool
) -> None:
    """S35: a page of another origin is refused before it costs anything, though its key is good."""
    headers = [bearer(CLIENT_KEY), ("Origin", page.origin)]
    answer = ask(for_pages.port, CHAT, BODY | {"stream": streamed}, headers=headers, host="gateway.example")
    assert answer.status == (200 if page.allowed else 403)
    assert answer.header("access-control-allow-origin") == (page.origin if page.allowed else None)
    assert len(record.seen) == int(page.allowed)


def test_s35_errors_are_readable_for_a_page_of_the_list(for_pages: GatewayProcess) -> None:
    """S35: a page that may call also reads why it was refused."""
    answer = ask(
        for_pages.port, CHAT, BODY, headers=[("Origin", "https://app.example")], host="gateway.example"
    )
    assert answer.status == 401
    assert answer.header("access-control-allow-origin") == "https://app.example"


@pytest.mark.parametrize("origins", [["https://a.example", "https://b.example"], ["https://\xe9.example"]])
def test_s35_an_origin_that_cannot_be_read_is_an_error_of_ours(
    for_pages: GatewayProcess, origins: list[str]
) -> None:
    """S35, S16: refused in the OpenAI shape, and not by the server underneath."""
    headers = [("Origin", origin) for origin in origins]
    answer = ask(for_pages.port, CHAT, BODY, headers=headers, host="gateway.example")
    assert (answer.status, answer.error["code"]) == (400, "invalid_request")
    assert answer.header("access-control-allow-origin") is None


@pytest.mark.parametrize("origin", ["https://app.example", "null", "http://localhost:3000"])
def test_s35_cors_is_off_by_default(gateway: GatewayProcess, record: Recorder, origin: str) -> None:
    """S35: without a list no page may call at all."""
    headers = [("Origin", origin), ("Access-Control-Request-Method", "POST")]
    assert ask(gateway.port, CHAT, method="OPTIONS", headers=headers).status == 403
    answer = chat(gateway, [("Origin", origin)])
    assert answer.status == 403
    assert not [name for name, _ in answer.headers if name.startswith("access-control")]
    assert record.seen == []


def test_s03_listed_hosts_and_this_machine(for_pages: GatewayProcess) -> None:
    """S03: with a list, its names and those of this machine are served, so that local probes still work."""
    for host in ("gateway.example", "Gateway.Example:443", "localhost", "127.0.0.1:4400"):
        assert ask(for_pages.port, "/health/live", host=host).status == 200
    for host in ("evil.example", "gateway.example.evil.example", "x.gateway.example"):
        assert ask(for_pages.port, "/health/live", host=host).status == 421


# S38, S39: what the code never does.


def calls_in(path: Path) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield node


def name_of(call: ast.Call) -> str:
    return ast.unparse(call.func)


def test_s38_no_code_is_made_from_data() -> None:
    """S38: no eval, pickle, unsafe YAML, template engine or shell in the sources."""
    banned = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load", "yaml.load_all",
              "yaml.full_load", "yaml.unsafe_load"}  # fmt: skip
    modules = {"pickle", "marshal", "shelve", "jinja2", "mako", "dill", "cloudpickle", "code"}
    assert len(SOURCES) > 50
    for path in SOURCES:
        for call in calls_in(path):
            assert name_of(call) not in banned, f"{name_of(call)} in {path}"
            shell = [word for word in call.keywords if word.arg == "shell"]
            assert not shell, f"shell in {path}"
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.partition(".")[0] for name in names} & modules, path


@pytest.mark.parametrize(
    "corpus", ["{{7*7}}", "${7*7}", "<%= 7*7 %>", "#{7*7}", "{0.__class__}", "%(x)s", "$(id)", "`id`"]
)
def test_s38_templates_are_text(gateway: GatewayProcess, record: Recorder, corpus: str) -> None:
    """S38: what looks like a template is forwarded and answered as the text that it is."""
    chat(gateway, messages=[{"role": "user", "content": corpus}])
    assert record.last.json["messages"][0]["content"] == corpus
    message = chat(gateway, model=corpus).error["message"]
    assert corpus in message
    assert "49" not in message


def test_s38_settings_are_plain_yaml(tmp_path: Path) -> None:
    """S38: a tag in the settings is refused, with its place, and does nothing."""
    tags = ("!!python/object/apply:os.system ['touch pwned']", "!!python/name:os.system", "!include /etc/x")
    providers = [f"  p{n}:\n    base_url: {tag}\n" for n, tag in enumerate(tags)]
    (tmp_path / "tiergate.yaml").write_text("providers:\n" + "".join(providers))
    ended = cli("check", folder=tmp_path)
    assert ended.returncode == 1
    assert re.findall(r"tiergate\.yaml:(\d):15:.*YAML tag", ended.stderr) == ["3", "5", "7"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiergate.yaml"]


def test_s39_sql_is_never_put_together() -> None:
    """S39: statements are constants; no call that executes SQL builds its text."""
    executing = 0
    for path in SOURCES:
        for call in calls_in(path):
            if (
                name_of(call).rpartition(".")[2] not in ("execute", "executemany", "executescript")
                or not call.args
            ):
                continue
            executing += 1
            built = [
                node
                for node in ast.walk(call.args[0])
                if isinstance(node, ast.JoinedStr | ast.BinOp)
                or (isinstance(node, ast.Call) and name_of(node).endswith((".format", ".join", ".replace")))
            ]
            assert not built or _is_pragma(call), f"{path}:{call.lineno}"
    assert executing > 5


def _is_pragma(call: ast.Call) -> bool:
    # SQLite takes no parameters in a PRAGMA; ours are numbers of our own.
    return ast.unparse(call.args[0]).lower().lstrip("f'\"").startswith("pragma ")


INJECTIONS = [
    "'; DROP TABLE call; --",
    '"; --',
    "' OR '1'='1",
    "%' --",
    '{"a": {"$gt": ""}}',
    "?1",
    ":id",
    "\\'; --",
]


def test_s39_values_are_bound(record: Recorder, tmp_path: Path) -> None:
    """S39: quotes and JSON in every field that is stored come back as they were said."""
    record.play = lambda seen, wire: wire.send(
        whole(completion(), more=b"x-request-id: '; DROP TABLE attempt; --\r\n")
    )
    settings = {"providers": {"main": {"base_url": record.base_url}}}
    with GatewayProcess(tmp_path, settings) as gateway:
        for evil in INJECTIONS:
            body = {"model": f"main/{evil}", "messages": QUESTION, "user": evil}
            assert ask(gateway.port, CHAT, body, headers=[("x-tiergate-tag", evil)]).status == 200
        entries = gateway.check_books()
    assert [entry.tag for entry in entries] == INJECTIONS
    assert [entry.asked_model for entry in entries] == [f"main/{evil}" for evil in INJECTIONS]


def test_s41_importing_opens_nothing() -> None:
    """S41: importing the package and its command line opens no socket and starts no process."""
    program = """
import socket, subprocess, sys
def refuse(*_, **__):
    raise AssertionError("opened")
socket.socket.connect = socket.socket.bind = socket.getaddrinfo = refuse
subprocess.Popen.__init__ = refuse
import tiergate, tiergate.app.cli, tiergate.app.serving, tiergate.app.gateway
"""
    done = subprocess.run([sys.executable, "-c", program], env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout + done.stderr == ""
