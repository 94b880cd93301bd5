"""Every error that the data plane can give, each really provoked: its status, its code, and what to do."""

import json
import resource
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from flow.plain_http import Answer, Connection, ask, asking, bearer, read_answer, request
from flow.recorder import Recorder, Seen, Wire, answer_well, chunk
from house import NO_BREAKERS, GatewayProcess, until
from tiergate.core import errors
from tiergate.testing import MockProcess
from tiergate.web import statuses, visit

KEY = "errors-client-key-0123456789"
CHAT = "/v1/chat/completions"
QUESTION: Any = [{"role": "user", "content": "hello"}]

SCRIPT = """
rules:
  - {when: {model: throttles}, then: {status: 429}}
  - {when: {model: refuses-key}, then: {status: 401}}
  - {when: {model: fails}, then: {status: 500}}
  - {when: {model: no-json}, then: {html: true}}
  - {when: {model: breaks}, then: {reset_after: 0}}
  - {when: {model: hangs}, then: {hang: true}}
  - when: {model: rejects}
    then: {status: 422, error: {message: Too many stops., param: stop, code: bad_stop}}
  - {when: {model: moves}, then: {redirect: "http://127.0.0.1:9/"}}
"""


@dataclass(frozen=True)
class Case:
    """How an error is provoked, and what is said: status, code, field, and words of the sentence."""

    status: int
    code: str
    says: tuple[str, ...]
    model: str = "good"
    body: dict[str, Any] = field(default_factory=dict)
    path: str = CHAT
    method: str = "POST"
    headers: tuple[tuple[str, str], ...] = ()
    key: str | None = KEY
    host: str = "localhost"
    param: str | None = None
    retry: bool | None = None
    """False: `x-should-retry: false`; True: a wait; None: neither."""


CASES = {
    "bad-field": Case(
        400, "invalid_request", ("max_tokens", "at least 1"), body={"max_tokens": 0}, param="max_tokens"
    ),
    "bad-header": Case(
        400,
        "invalid_request",
        ("interactive or batch",),
        headers=(("x-tiergate-class", "now"),),
        param="x-tiergate-class",
    ),
    "rejected": Case(
        422, "bad_stop", ("main/rejects", "Too many stops"), model="main/rejects", param="stop", retry=False
    ),
    "no-key": Case(401, "invalid_api_key", ("Authorization: Bearer",), key=None),
    "bad-key": Case(401, "invalid_api_key", ("not known", "ask for a new one"), key="wrong"),
    "over-budget": Case(
        402,
        "budget_exceeded",
        ("model:capped in total is $0.001", "$0 spent", "could cost up to", "raise it"),
        model="capped",
        body={"max_tokens": 1000},
        retry=False,
    ),
    "no-bound": Case(
        402, "budget_unbounded", ("model:blank", "max_tokens", "price"), model="blank", retry=False
    ),
    "foreign-page": Case(403, "invalid_request", ("cors",), headers=(("Origin", "https://evil.example"),)),
    "no-model": Case(404, "model_not_found", ("'gone'", "good", "GET /v1/models"), model="gone"),
    "no-endpoint": Case(404, "not_found", ("POST /v1/chat/completions",), path="/v1/nothing"),
    "wrong-method": Case(405, "not_found", ("POST only",), method="GET"),
    "health-method": Case(405, "not_found", ("with GET",), path="/health/live", method="DELETE"),
    "too-large": Case(413, "request_too_large", ("104857 bytes",), body={"x": "y" * 200_000}),
    "not-json": Case(
        415, "invalid_request", ("application/json",), headers=(("Content-Type", "text/plain"),)
    ),
    "foreign-host": Case(421, "invalid_request", ("evil.example", "hosts"), host="evil.example"),
    "throttled": Case(
        429, "rate_limit_exceeded", ("main throttles us",), model="main/throttles", retry=False
    ),
    "key-refused": Case(
        502,
        "upstream_auth_failed",
        ("main", "…MAIN", "set a valid key", "api_keys"),
        model="main/refuses-key",
        retry=False,
    ),
    "unreachable": Case(
        502, "upstream_unreachable", ("dead", "nothing listens there"), model="dead/x", retry=False
    ),
    "no-answer": Case(
        502, "upstream_protocol_error", ("main/no-json", "not JSON"), model="main/no-json", retry=False
    ),
    "moved": Case(
        502, "upstream_protocol_error", ("redirect", "Correct its base_url"), model="main/moves", retry=False
    ),
    "broken": Case(502, "upstream_protocol_error", ("main", "connection"), model="main/breaks", retry=False),
    "failed": Case(502, "upstream_fault", ("main", "its own side (500)"), model="main/fails", retry=False),
    "no-private-target": Case(
        400,
        "invalid_request",
        ("'good' has no private target",),
        headers=(("x-tiergate-data", "private-only"),),
        param="model",
    ),
    "too-slow": Case(
        504,
        "upstream_timeout",
        ("main", "in time"),
        model="main/hangs",
        body={"stream": True},
        retry=False,
    ),
    "deadline": Case(
        504,
        "upstream_timeout",
        ("main", "before the deadline"),
        model="main/hangs",
        headers=(("x-tiergate-deadline-ms", "200"),),
        retry=False,
    ),
}


@pytest.fixture(scope="module")
def upstream() -> Iterator[Recorder]:
    with Recorder() as recorder:
        yield recorder


@pytest.fixture(scope="module")
def gateway(upstream: Recorder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with MockProcess(SCRIPT) as scripted:
        settings = {
            "auth": "keys",
            "keys": [{"name": "errors", "secret": KEY}],
            "limits": {"body_mb": 0.1},
            "resilience": {**NO_BREAKERS, "first_event_s": 0.4},
            "providers": {
                "main": {"base_url": scripted.base_url, "api_keys": ["sk-provider-0123456789-MAIN"]},
                "dead": {"base_url": "http://127.0.0.1:9/v1"},
                "one": {"base_url": upstream.base_url, "limits": {"concurrency": 1}},
            },
            "models": {
                "good": {"targets": ["main/good"]},
                "capped": {"targets": ["main/capped"]},
                "blank": {"targets": ["main/blank"]},
            },
            "prices": [{"target": "main/capped", "usd_per_1m": {"input": 1, "output": 2}}],
            "budgets": [{"scope": f"model:{name}", "usd": 0.001} for name in ("capped", "blank")],
        }
        with GatewayProcess(tmp_path_factory.mktemp("errors"), settings) as process:
            yield process
            process.check_books()


def provoke(gateway: GatewayProcess, case: Case) -> Answer:
    return ask(
        gateway.port,
        case.path,
        {"model": case.model, "messages": QUESTION, **case.body} if case.method == "POST" else None,
        method=case.method,
        headers=[*case.headers, *([bearer(case.key)] if case.key else [])],
        host=case.host,
    )


def check(answer: Answer, case: Case) -> None:
    error = answer.error
    assert (answer.status, error["code"], error["param"]) == (case.status, case.code, case.param)
    assert answer.header("content-type") == "application/json"
    assert answer.header("x-request-id")
    assert error["type"].endswith("_error")
    for words in case.says:
        assert words in error["message"], error["message"]
    assert len(error["message"].split()) >= 4, "a sentence"
    assert answer.header("x-should-retry") == ("false" if case.retry is False else None)
    assert (answer.header("retry-after") is not None) is (case.retry is True)


@pytest.mark.parametrize("name", CASES)
def test_error(gateway: GatewayProcess, name: str) -> None:
    """Each error has its status, the OpenAI shape, a stable code, and a sentence that one can act on."""
    check(provoke(gateway, CASES[name]), CASES[name])


def test_our_own_limit_is_429_and_may_be_retried(gateway: GatewayProcess, upstream: Recorder) -> None:
    """A target of which we allow one call at a time: the second waits in vain, then may try again."""
    go_on = threading.Event()

    def play(seen: Seen, wire: Wire) -> None:
        wire.begin_stream()
        wire.event(chunk("word"))
        if go_on.wait(10):
            wire.event(chunk("", finish="stop"))
            wire.end_stream()

    upstream.play = play
    body = {"model": "one/x", "messages": QUESTION, "stream": True}
    with asking(gateway.port, CHAT, body, headers=[bearer(KEY)]) as connection:
        connection.read_until(b'"word"')
        # A quarter of the time that is left is waited for a place.
        hurry = (("x-tiergate-deadline-ms", "800"),)
        answer = provoke(gateway, Case(429, "", (), model="one/x", headers=hurry))
        go_on.set()
        connection.read_until(b"[DONE]")
    upstream.play = answer_well
    check(answer, Case(429, "rate_limit_exceeded", ("at one are taken", "limits.concurrency"), retry=True))


def test_body_that_ends_too_early_is_refused(gateway: GatewayProcess, upstream: Recorder) -> None:
    """A body shorter than its length is no request; nothing of it is executed."""
    head = request(CHAT, b"", headers=[bearer(KEY)]).replace(b"Content-Length: 0", b"Content-Length: 50")
    before = len(upstream.seen)
    with Connection(gateway.port) as connection:
        connection.send(head + b'{"model":"one/x","messages":[{}]}')
        connection.stop_sending()
        received = connection.read_to_end()
    assert not received or read_answer(received).status == 400
    assert len(upstream.seen) == before


def test_stopping_is_503_and_may_be_retried(upstream: Recorder, tmp_path: Path) -> None:
    """A call that the gateway cannot finish because it goes down: 503, try again."""
    held = threading.Event()
    upstream.play = lambda seen, wire: held.wait(10) and None
    settings = {"providers": {"up": {"base_url": upstream.base_url}}}
    with GatewayProcess(tmp_path, settings, drain_s=0.1) as process, ThreadPoolExecutor() as pool:
        before = len(upstream.seen)
        asked = pool.submit(ask, process.port, CHAT, {"model": "up/x", "messages": QUESTION})
        until(lambda: len(upstream.seen) > before, what="the call")
        process.signal(signal.SIGTERM)
        answer = asked.result(10)
        held.set()
    upstream.play = answer_well
    check(answer, Case(503, "shutting_down", ("going down", "try again"), retry=True))


def test_ledger_that_cannot_be_written_is_503(upstream: Recorder, tmp_path: Path) -> None:
    """When the ledger cannot promise to keep a call, nothing is sent; health and models still answer."""
    settings = {"providers": {"up": {"base_url": upstream.base_url}}}
    with GatewayProcess(tmp_path, settings) as process:
        body = {"model": "up/x", "messages": QUESTION}
        assert ask(process.port, CHAT, body).status == 200
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
        before = len(upstream.seen)
        answer = ask(process.port, CHAT, body)
        assert ask(process.port, "/health/live").status == 200
        assert ask(process.port, "/v1/models").status == 200
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    check(answer, Case(503, "storage_unavailable", ("ledger",), retry=True))
    assert len(upstream.seen) == before


def test_every_error_of_the_tree_is_known_at_the_door() -> None:
    """No error that a call can end with falls through to `internal_error`; each code is provoked above."""
    # No policy leaves out every target yet: a private-only call without a private one is refused before.
    elsewhere = {"shutting_down", "storage_unavailable", "budget_busy", "no_target_available"}
    # tests/flow/test_receipts.py
    elsewhere |= {"idempotency_key_reused", "idempotency_key_in_use", "answer_not_kept"}
    # tests/flow/test_cache.py
    elsewhere |= {"not_cached"}
    here = {case.code for case in CASES.values()} | elsewhere
    not_of_calls = {"internal_error", "invalid_settings", "store_owned", "cannot_start"}
    pending = [errors.TiergateError]
    while pending:
        kind = pending.pop()
        pending += [sub for sub in kind.__subclasses__() if sub.__module__ == errors.__name__]
        if kind.code not in not_of_calls:
            assert any(issubclass(kind, known) for known, _, _ in statuses._STATUSES) or issubclass(
                kind, errors.UpstreamRejected
            )
            assert kind.code in here
    assert issubclass(visit.HostNotServed, errors.InvalidRequest)


def test_error_in_a_stream_has_the_same_shape(gateway: GatewayProcess, upstream: Recorder) -> None:
    """What goes wrong after the first word is said in the stream, in the same four fields."""

    def play(seen: Seen, wire: Wire) -> None:
        wire.begin_stream()
        wire.event(chunk("word"))
        wire.event(b"<html>")

    upstream.play = play
    answer = provoke(gateway, Case(200, "", (), model="one/x", body={"stream": True}))
    upstream.play = answer_well
    error = json.loads(answer.events[-1])["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == "upstream_protocol_error"
    assert error["message"] == "one/x sent an event that is not JSON."
