"""Faults of upstreams, callers and operators, through real sockets: what must survive, what must be said.

Names carry the row of the fault matrix. When a gateway of this module is left, its ledger must hold exactly
one closed row for each call and nothing held.
"""

import json
import signal
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from flow.plain_http import Answer, ask, asking, read_answer
from flow.recorder import (
    JSON,
    Recorder,
    Seen,
    Wire,
    answer_well,
    chunk,
    completion,
    whole,
)
from house import NO_BREAKERS, GatewayProcess, calls_of, until
from tiergate.core import EndState, UsageSource
from tiergate.ledger import Entry, HoldState
from tiergate.testing import MockProcess

QUESTION: Any = [{"role": "user", "content": "What is a lease?"}]
MAIN_KEY = "sk-provider-main-0123456789-MAIN"
SPARE_KEY = "sk-provider-spare-0123456789-SPAR"
CERTIFICATES = Path(__file__).parents[1] / "contract" / "certificates"


@dataclass(frozen=True)
class Fault:
    """One way in which a target fails, and what a caller with no other target is told."""

    then: dict[str, Any]
    code: str
    status: int = 502
    only: bool | None = None
    """Only streamed (True), or only whole (False) answers can fail like this."""
    other: bool = True
    """Another target is tried."""


BEFORE = {
    "refuse": Fault({"refuse": True}, "upstream_protocol_error"),
    "html": Fault({"html": True}, "upstream_protocol_error"),
    "empty": Fault({"empty": True}, "upstream_protocol_error"),
    "null": Fault({"body": "null"}, "upstream_protocol_error"),
    "a-list": Fault({"body": "[]"}, "upstream_protocol_error"),
    "no-choices": Fault({"body": '{"id":"c"}'}, "upstream_protocol_error"),
    "truncated": Fault({"truncate_json": True}, "upstream_protocol_error", only=False),
    "too-long": Fault({"wrong_length": 9}, "upstream_protocol_error", only=False),
    "cut-at-once": Fault({"clean_cut_after": 0}, "upstream_protocol_error"),
    "cut-after-role": Fault({"clean_cut_after": 1}, "upstream_protocol_error"),
    "reset-after-role": Fault({"reset_after": 1}, "upstream_protocol_error"),
    "reset-in-headers": Fault({"reset_after_bytes": 0}, "upstream_protocol_error"),
    "error-first": Fault({"error_in_stream": 0, "error": "canary-upstream-text"}, "upstream_fault"),
    "error-after-role": Fault({"error_in_stream": 1, "error": "canary-upstream-text"}, "upstream_fault"),
    "fails": Fault({"status": 500, "error": "canary-upstream-text"}, "upstream_fault"),
    "down": Fault({"status": 503, "html": True}, "upstream_fault"),
    "overloaded": Fault({"status": 529}, "upstream_fault"),
    "no-model": Fault({"status": 404}, "upstream_fault"),
    "throttled": Fault({"status": 429, "headers": {"retry-after": 9}}, "rate_limit_exceeded", status=429),
    "out-of-quota": Fault(
        {"status": 429, "error": {"code": "insufficient_quota"}}, "rate_limit_exceeded", status=429
    ),
    "bad-key": Fault(
        {"status": 401, "error": {"message": f"No such key {MAIN_KEY}"}}, "upstream_auth_failed"
    ),
    "forbidden": Fault({"status": 403}, "upstream_auth_failed"),
    "moved": Fault({"redirect": "DECOY"}, "upstream_protocol_error"),
    "moved-for-good": Fault({"redirect": "DECOY", "status": 301}, "upstream_protocol_error"),
    "odd-status": Fault({"status": 304}, "upstream_protocol_error"),
    "rejected": Fault({"status": 400, "error": "Too hot."}, "invalid_request", status=400, other=False),
    "too-large": Fault({"status": 413, "error": "Too big."}, "invalid_request", status=413, other=False),
}

AFTER = {
    "late-cut": {"clean_cut_after": 5},
    "late-reset": {"reset_after": 5},
    "late-error": {"error_in_stream": 5, "error": "canary-upstream-text"},
    "late-garble": {"truncate_json": True},
    "before-finish": {"clean_cut_after": 999},
    "never-ends": {"reset_after_bytes": 1200},
}

KINDS = [
    pytest.param(name, streamed, id=f"{name}-{'stream' if streamed else 'whole'}")
    for name, fault in BEFORE.items()
    for streamed in (False, True)
    if fault.only in (None, streamed)
]


@pytest.fixture(scope="module")
def mock(decoy: Recorder) -> Iterator[MockProcess]:
    rules = [{"when": {"model": name}, "then": fault.then} for name, fault in BEFORE.items()]
    rules += [{"when": {"model": name}, "then": then} for name, then in AFTER.items()]
    rules += [
        {"when": {"model": "no-done"}, "then": {"no_done": True}},
        {"when": {"model": "slow"}, "then": {"words": 400, "tokens_per_s": 20}},
        {"when": {"model": "hang"}, "then": {"hang": True}},
        {"when": {"model": "role-then-hang"}, "then": {"stall_after": 1}},
        {"when": {"model": "stall"}, "then": {"stall_after": 5}},
    ]
    script = json.dumps({"default": {"words": 12}, "rules": rules}).replace("DECOY", decoy.url)
    with MockProcess(script) as process:
        yield process


@pytest.fixture(scope="module")
def odd() -> Iterator[Recorder]:
    """A provider that sends what no HTTP library would."""
    with Recorder() as server:
        yield server


@pytest.fixture
def odd_plays(odd: Recorder) -> Iterator[Recorder]:
    odd.seen.clear()
    yield odd
    odd.play = answer_well


@pytest.fixture(scope="module")
def bad_tls() -> Iterator[dict[str, Recorder]]:
    servers = {}
    for name in ("expired", "wrong_name", "unknown_issuer"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATES / f"{name}.pem")
        servers[name] = Recorder(tls=context)
        servers[name].__enter__()
    yield servers
    for server in servers.values():
        server.__exit__(None, None, None)


def settings_for(mock: MockProcess) -> dict[str, Any]:
    return {
        "providers": {
            "main": {"base_url": mock.base_url, "api_keys": [MAIN_KEY]},
            "spare": {"base_url": mock.base_url, "api_keys": [SPARE_KEY]},
        },
        "resilience": NO_BREAKERS,
    }


@pytest.fixture(scope="module")
def gateway(
    mock: MockProcess,
    odd: Recorder,
    bad_tls: dict[str, Recorder],
    closed_port: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[GatewayProcess]:
    settings = settings_for(mock)
    settings["providers"] |= {
        "dead": {"base_url": f"http://127.0.0.1:{closed_port}/v1"},
        "nowhere": {"base_url": "http://no-such-host.invalid/v1", "api_keys": ["sk-nowhere-0123456789"]},
        "odd": {"base_url": odd.base_url},
        "half": {"replicas": [f"http://127.0.0.1:{closed_port}/v1", mock.base_url]},
    } | {
        name.replace("_", "-"): {"base_url": server.base_url, "ca_file": str(CERTIFICATES / "issuer.pem")}
        for name, server in bad_tls.items()
    }
    settings["models"] = {
        "good": {"targets": ["main/good"]},
        "odd": {"targets": ["odd/up"]},
        "pair-dead": {"targets": ["dead/x", "spare/good"]},
        "pair-nowhere": {"targets": ["nowhere/x", "spare/good"]},
        "half": {"targets": ["half/good"]},
        "three": {"targets": ["main/fails", "dead/x", "main/html", "spare/good"]},
    }
    for name in BEFORE:
        settings["models"][name] = {"targets": [f"main/{name}"]}
        settings["models"][f"pair-{name}"] = {"targets": [f"main/{name}", "spare/good"]}
    for name in AFTER:
        settings["models"][name] = {"targets": [f"main/{name}", "spare/good"]}
    with GatewayProcess(tmp_path_factory.mktemp("faults"), settings) as process:
        yield process
        process.check_books()
        for canary in (MAIN_KEY, SPARE_KEY, "canary-upstream-text"):
            assert canary not in process.stderr + process.stdout


def chat(gateway: GatewayProcess, model: str, *, streamed: bool = False, **more: Any) -> Answer:
    body = {"model": model, "messages": QUESTION, **more}
    if streamed:
        body["stream"] = True
    return ask(gateway.port, "/v1/chat/completions", body)


def text_of(answer: Answer, *, streamed: bool) -> str:
    """Give the text of a complete answer; checks that it is one."""
    assert answer.status == 200, answer.body
    assert answer.whole
    if not streamed:
        return str(answer.json["choices"][0]["message"]["content"])
    *chunks, done = answer.events
    assert done == "[DONE]"
    return "".join(
        choice["delta"].get("content") or "" for data in chunks for choice in json.loads(data)["choices"]
    )


def broken_stream(answer: Answer) -> dict[str, Any]:
    """See that a stream broke off as it must, and give the error in it."""
    assert answer.status == 200
    assert not answer.whole, "a reader of bytes would take it for the whole"
    assert "[DONE]" not in answer.events
    *chunks, last = [json.loads(data) for data in answer.events]
    assert chunks, "content came first"
    assert all(choice.get("finish_reason") is None for data in chunks for choice in data["choices"])
    assert set(last) == {"error"}
    return dict(last["error"])


# Before the first content: the next target, or an answer with its status.


@pytest.mark.parametrize(("name", "streamed"), KINDS)
def test_f10_fault_alone_is_a_clear_error(
    gateway: GatewayProcess, mock: MockProcess, name: str, *, streamed: bool
) -> None:
    """F06 F07 F10 F12 F13 F18: with no other target: an error that names the provider and not its text."""
    fault, before = BEFORE[name], len(calls_of(mock, name))
    answer = chat(gateway, name, streamed=streamed)
    assert (answer.status, answer.error["code"]) == (fault.status, fault.code), answer.error["message"]
    assert answer.whole
    assert answer.header("x-should-retry") == "false"
    assert "main" in answer.error["message"]
    for foreign in (b"canary-upstream-text", b"Not an answer", b"DOCTYPE", MAIN_KEY.encode()):
        assert foreign not in answer.raw
    line = gateway.log_of(answer.call_id)
    assert (line["end"], line["error"]) == ("failed", fault.code)
    # As often as its retries were spared: many faults come to this provider in a short time.
    assert len(calls_of(mock, name)) == before + line["attempts"] <= before + 3


@pytest.mark.parametrize(("name", "streamed"), KINDS)
def test_f10_fault_before_content_moves_on(gateway: GatewayProcess, name: str, *, streamed: bool) -> None:
    """F06 F07 F10 F12 F13 F18: the next target answers as if nothing had been; a bad request stays one."""
    answer = chat(gateway, f"pair-{name}", streamed=streamed)
    if not BEFORE[name].other:
        assert answer.status == BEFORE[name].status
        return
    assert text_of(answer, streamed=streamed) == text_of(
        chat(gateway, "good", streamed=streamed), streamed=streamed
    )
    assert answer.header("x-tiergate-target") == "spare/good"
    assert answer.header("x-tiergate-attempts") == "2"


@pytest.mark.parametrize("model", ["pair-dead", "pair-nowhere", "half"])
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_f01_unreachable_server_is_passed_over(
    gateway: GatewayProcess, model: str, *, streamed: bool
) -> None:
    """F01: a closed port, a name that does not resolve, a dead replica: the next one answers."""
    answer = chat(gateway, model, streamed=streamed)
    assert text_of(answer, streamed=streamed)


@pytest.mark.parametrize(
    ("model", "why"), [("dead/x", "nothing listens there"), ("nowhere/x", "could not be resolved")]
)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_f01_unreachable_server_alone(
    gateway: GatewayProcess, model: str, why: str, *, streamed: bool
) -> None:
    """F01: with nothing else it is 502 `upstream_unreachable`, which says why."""
    answer = chat(gateway, model, streamed=streamed)
    assert (answer.status, answer.error["code"]) == (502, "upstream_unreachable")
    assert why in answer.error["message"]
    assert "127.0.0.1" not in answer.error["message"]


@pytest.mark.parametrize("name", ["expired", "wrong-name", "unknown-issuer"])
def test_f03_bad_certificate(gateway: GatewayProcess, bad_tls: dict[str, Recorder], name: str) -> None:
    """F03: a certificate that does not hold is 502 and never asked without verification; no byte is sent."""
    answer = ask(
        gateway.port,
        "/v1/chat/completions",
        {"model": f"{name}/x", "messages": QUESTION, "verify": False, "ssl_verify": False, "insecure": True},
    )
    assert (answer.status, answer.error["code"]) == (502, "upstream_unreachable")
    assert "certificate" in answer.error["message"]
    assert bad_tls[name.replace("-", "_")].seen == []


def test_f13_several_targets_three_attempts(gateway: GatewayProcess) -> None:
    """Three attempts are the most, though a fourth target would answer; the error tells of all three."""
    answer = chat(gateway, "three")
    assert (answer.status, answer.error["code"]) == (502, "upstream_protocol_error")
    for target in ("main/fails", "dead/x", "main"):
        assert target in answer.error["message"]
    assert gateway.log_of(answer.call_id)["attempts"] == 3


@pytest.mark.parametrize(
    ("said", "told"),
    [("3", ("3", "3000")), ("0.25", ("1", "250")), ("61", None), ("-1", None), ("nan", None), ("1e3", None)],
)
def test_f13_wait_is_passed_on_where_it_makes_sense(
    gateway: GatewayProcess, odd_plays: Recorder, said: str, told: tuple[str, str] | None
) -> None:
    """F13: a wait of at most a minute goes to the caller; nonsense and longer ones do not."""

    def play(seen: Seen, wire: Wire) -> None:
        more = f"retry-after: {said}\r\n".encode()
        wire.send(whole(b'{"error":{"message":"slow down"}}', status=b"429 Too Many Requests", more=more))

    odd_plays.play = play
    answer = chat(gateway, "odd")
    assert answer.status == 429
    found = (answer.header("retry-after"), answer.header("retry-after-ms"))
    assert found == (told or (None, None))


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_refused_key_says_what_to_do(gateway: GatewayProcess, *, streamed: bool) -> None:
    """A provider that refuses our key: which provider, the key's last four, and what to do."""
    message = chat(gateway, "bad-key", streamed=streamed).error["message"]
    assert "main" in message
    assert "…MAIN" in message
    assert "set a valid key" in message
    assert "api_keys" in message


def test_f18_redirects_are_never_followed(gateway: GatewayProcess, decoy: Recorder) -> None:
    """F18: the address that a provider points to sees no connection, and the credential goes nowhere."""
    for name in ("moved", "moved-for-good"):
        assert "redirect" in chat(gateway, name).error["message"]
    assert decoy.connections == 0


# After the first content: an error in the stream, and a connection that does not end well.


@pytest.mark.parametrize("name", AFTER)
def test_f05_to_f12_broken_stream_says_so(gateway: GatewayProcess, mock: MockProcess, name: str) -> None:
    """F06 F07 F09 F12: an error event, no marker, no last chunk; no other target goes on with the answer."""
    others = len(calls_of(mock, "good"))
    answer = chat(gateway, name, streamed=True)
    error = broken_stream(answer)
    assert error["code"] in ("upstream_protocol_error", "upstream_fault")
    assert "canary-upstream-text" not in error["message"]
    assert "main" in error["message"]
    assert len(calls_of(mock, "good")) == others
    line = gateway.log_of(answer.call_id)
    assert (line["end"], line["error"]) == ("interrupted", error["code"])


@pytest.mark.parametrize("name", AFTER)
def test_f06_official_client_raises(gateway: GatewayProcess, name: str) -> None:
    """F06: whoever reads with the official client gets an exception after the part that came."""
    with OpenAI(base_url=gateway.base_url, api_key="any") as client:
        stream = client.chat.completions.create(model=name, messages=QUESTION, stream=True)
        assert next(stream).choices
        with pytest.raises(openai.APIError):
            list(stream)


@pytest.mark.parametrize(
    ("model", "want"), [("late-reset", "connection broke"), ("late-cut", "before its answer was complete")]
)
def test_broken_stream_says_what_happened(gateway: GatewayProcess, model: str, want: str) -> None:
    """The sentence in the stream tells a cut and a broken connection apart."""
    assert want in broken_stream(chat(gateway, model, streamed=True))["message"]


def test_f08_missing_marker_is_added(gateway: GatewayProcess) -> None:
    """F08: an answer with its finish reason is complete; the marker that the provider forgot is added."""
    answer = chat(gateway, "main/no-done", streamed=True)
    assert text_of(answer, streamed=True)
    assert gateway.log_of(answer.call_id)["end"] == "success"


def test_f07_one_choice_of_two_is_not_complete(gateway: GatewayProcess, odd_plays: Recorder) -> None:
    """F07: with n=2 a clean end after the first choice's finish is a cut."""

    def play(seen: Seen, wire: Wire) -> None:
        wire.begin_stream()
        wire.event(chunk("one"))
        wire.event(chunk("", finish="stop"))
        wire.send(b"0\r\n\r\n")

    odd_plays.play = play
    answer = chat(gateway, "odd", streamed=True, n=2)
    assert not answer.whole
    assert json.loads(answer.events[-1])["error"]["code"] == "upstream_protocol_error"


@pytest.mark.parametrize("at", [1, 2, 3])
def test_f09_cut_inside_a_character(gateway: GatewayProcess, odd_plays: Recorder, at: int) -> None:
    """F09: the fragment of an event is dropped, and no replacement character appears."""
    frame = b'data: {"choices":[{"index":0,"delta":{"content":"' + "𝄞".encode()[:at]

    def play(seen: Seen, wire: Wire) -> None:
        wire.begin_stream()
        wire.event(chunk("good"))
        wire.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(frame), frame))

    odd_plays.play = play
    answer = chat(gateway, "odd", streamed=True)
    broken_stream(answer)
    answer.body.decode()
    assert "\ufffd" not in answer.body.decode()
    assert len(answer.events) == 2


def test_f09_event_that_is_not_utf8(gateway: GatewayProcess, odd_plays: Recorder) -> None:
    """F09: bytes that are no text end the stream; what came before stands."""

    def play(seen: Seen, wire: Wire) -> None:
        wire.begin_stream()
        wire.event(chunk("good"))
        wire.event(b'{"choices":[{"index":0,"delta":{"content":"\xff\xfe"}}]}')
        wire.event(chunk("", finish="stop"))
        wire.end_stream()

    odd_plays.play = play
    broken_stream(chat(gateway, "odd", streamed=True))


def reply_with(head: bytes, body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\n" + JSON + head + b"\r\n" + body


@pytest.mark.parametrize(
    "response",
    [
        pytest.param(reply_with(b"content-length: 4000\r\n", completion()), id="too-long"),
        pytest.param(
            reply_with(b"content-length: 40\r\ncontent-length: 50\r\n", completion()), id="two-lengths"
        ),
        pytest.param(
            reply_with(b"content-length: 40\r\ntransfer-encoding: chunked\r\n", b"28\r\n" + completion()),
            id="length-and-chunks",
        ),
        pytest.param(reply_with(b"content-length: -5\r\n", completion()), id="negative"),
        pytest.param(reply_with(b"content-length: 0x10\r\n", completion()), id="hexadecimal"),
        pytest.param(b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}", id="bare-line-feeds"),
        pytest.param(b"SSH-2.0-OpenSSH_9.6\r\n", id="another-protocol"),
        pytest.param(
            reply_with(b"content-encoding: gzip\r\ncontent-length: 4\r\n", b"\x1f\x8b\x08\x00"), id="gzip"
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000 + b"\r\n\r\n", id="endless-header"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_f11_doubtful_framing_is_no_answer(
    gateway: GatewayProcess, odd_plays: Recorder, response: bytes, *, streamed: bool
) -> None:
    """F11: what cannot be framed for certain is 502, and its connection is not used again."""

    def play(seen: Seen, wire: Wire) -> None:
        wire.send(response)
        raise ConnectionError

    odd_plays.play = play
    answer = chat(gateway, "odd", streamed=streamed)
    assert (answer.status, answer.error["code"]) == (502, "upstream_protocol_error")
    before = odd_plays.connections
    odd_plays.play = answer_well
    assert text_of(chat(gateway, "odd", streamed=streamed), streamed=streamed) == "hello"
    assert odd_plays.connections == before + 1


def test_f11_surplus_never_reaches_the_next_reply(gateway: GatewayProcess, odd_plays: Recorder) -> None:
    """F11, I3: bytes after a reply's length belong to nobody."""

    def play(seen: Seen, wire: Wire) -> None:
        wire.send(whole(completion("mine")) + whole(completion("canary of somebody else")))

    odd_plays.play = play
    assert text_of(chat(gateway, "odd"), streamed=False) == "mine"
    odd_plays.play = answer_well
    for _ in range(3):
        assert text_of(chat(gateway, "odd"), streamed=False) == "hello"


def test_f10_event_over_its_cap(gateway: GatewayProcess, odd_plays: Recorder) -> None:
    """An event above the limit is refused before it is whole; memory is not the provider's to fill."""

    def play(seen: Seen, wire: Wire) -> None:
        wire.begin_stream()
        wire.event(chunk("good"))
        line = b"data: " + b"a" * 65530
        for _ in range(64):
            wire.send(b"%x\r\n%b\r\n" % (len(line), line))

    odd_plays.play = play
    error = broken_stream(chat(gateway, "odd", streamed=True))
    assert "1048576 bytes" in error["message"]


# F22: the caller leaves.


@pytest.mark.parametrize("model", ["hang", "role-then-hang"])
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_f22_leaving_before_the_first_content(
    gateway: GatewayProcess, mock: MockProcess, model: str, *, streamed: bool
) -> None:
    """F22: a caller that leaves while nothing has arrived frees the provider within a second."""
    before = len(calls_of(mock, model))
    body = {"model": f"main/{model}", "messages": QUESTION, "stream": streamed}
    with asking(gateway.port, "/v1/chat/completions", body) as connection:
        until(lambda: len(calls_of(mock, model)) > before, what="the call")
        left = connection.close()

    def aborted() -> float | None:
        call = calls_of(mock, model)[before]
        return call["at_s"] + call["elapsed_ms"] / 1e3 if call["ended"] == "aborted" else None

    assert until(aborted, what="the abort") - left < 1.0

    def ends() -> set[str] | None:
        lines = [line for line in gateway.log() if line["event"] == "call"]
        return {line["end"] for line in lines if line["model"] == f"main/{model}"} or None

    assert until(ends, what="its line in the log") == {"client_closed"}


# F02, F05: silence. A gateway without patience.


@pytest.fixture(scope="module")
def impatient(mock: MockProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    settings = settings_for(mock)
    settings["resilience"] = {**NO_BREAKERS, "first_event_s": 0.6, "idle_s": 0.6, "total_s": 1.2}
    settings["models"] = {
        "pair-hang": {"targets": ["main/hang", "spare/good"]},
        "pair-role-then-hang": {"targets": ["main/role-then-hang", "spare/good"]},
    }
    with GatewayProcess(tmp_path_factory.mktemp("impatient"), settings) as process:
        yield process
        process.check_books()


@pytest.mark.parametrize("model", ["hang", "role-then-hang"])
def test_f02_silent_server_streamed(impatient: GatewayProcess, mock: MockProcess, model: str) -> None:
    """F02: no first content in time is the next target's turn, and 504 where there is none."""
    before = len(calls_of(mock, model))
    assert text_of(chat(impatient, f"pair-{model}", streamed=True), streamed=True)
    answer = chat(impatient, f"main/{model}", streamed=True)
    assert (answer.status, answer.error["code"]) == (504, "upstream_timeout")
    assert "main" in answer.error["message"]
    until(lambda: _all_aborted(mock, model, before), timeout_s=1, what="the abort of both")


def _all_aborted(mock: MockProcess, model: str, after: int) -> bool:
    return {call["ended"] for call in calls_of(mock, model)[after:]} == {"aborted"}


def test_f02_silent_server_whole(impatient: GatewayProcess, mock: MockProcess) -> None:
    """F02: without a stream only the deadline counts; then 504, and the provider is freed."""
    began = time.monotonic()
    answer = chat(impatient, "pair-hang")
    assert (answer.status, answer.error["code"]) == (504, "upstream_timeout")
    assert 1.1 < time.monotonic() - began < 2.2
    until(lambda: _all_aborted(mock, "hang", -1), timeout_s=1, what="the abort")


def test_the_callers_deadline_is_kept(impatient: GatewayProcess, mock: MockProcess) -> None:
    """`x-tiergate-deadline-ms` ends a call that would otherwise wait longer."""
    body = {"model": "main/hang", "messages": QUESTION}
    began = time.monotonic()
    answer = ask(impatient.port, "/v1/chat/completions", body, headers=[("x-tiergate-deadline-ms", "300")])
    assert (answer.status, answer.error["code"]) == (504, "upstream_timeout")
    assert time.monotonic() - began < 1.1


def test_f05_stall_in_the_middle(impatient: GatewayProcess, mock: MockProcess) -> None:
    """F05: silence in the middle ends the stream with an error event within idle time and a second."""
    began = time.monotonic()
    answer = chat(impatient, "main/stall", streamed=True)
    error = broken_stream(answer)
    assert time.monotonic() - began < 1.6
    assert error["code"] == "upstream_timeout"
    assert impatient.log_of(answer.call_id)["end"] == "interrupted"
    until(lambda: _all_aborted(mock, "stall", -1), timeout_s=1, what="the abort")


# F42: what providers say about usage.


@dataclass(frozen=True)
class Report:
    """What a provider reports, and what is booked: source, input and output tokens; None: not looked at."""

    usage: list[Any] = field(default_factory=list)
    source: UsageSource = UsageSource.REPORTED
    tokens: tuple[int | None, int] = (3, 4)


def usage(prompt: Any, output: Any) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": output}


REPORTS = {
    "good": Report([usage(3, 4)]),
    "absent": Report([], UsageSource.BOUNDED, (None, 30)),
    "null": Report([None], UsageSource.BOUNDED, (None, 30)),
    "zero": Report([usage(0, 0)], tokens=(0, 0)),
    "negative": Report([usage(-3, 4)], UsageSource.BOUNDED, (None, 30)),
    "negative-output": Report([usage(3, -4)], UsageSource.BOUNDED, (None, 30)),
    "huge": Report([usage(3, 10**15)], UsageSource.BOUNDED, (None, 30)),
    "text": Report([usage("3", "4")], UsageSource.BOUNDED, (None, 30)),
    "list": Report([[3, 4]], UsageSource.BOUNDED, (None, 30)),
    "cached-above-total": Report(
        [usage(3, 4) | {"prompt_tokens_details": {"cached_tokens": 9}}], UsageSource.BOUNDED, (None, 30)
    ),
    "growing": Report([usage(3, 1), usage(3, 2), usage(3, 4)]),
    "twice": Report([usage(3, 4), usage(3, 4)]),
}


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_f42_usage_is_booked_once_and_sensibly(odd: Recorder, tmp_path: Path, *, streamed: bool) -> None:
    """F42: absent and absurd reports are the bound, zero is zero, the last of several counts, once."""
    price = {"target": "odd/up", "usd_per_1m": {"input": 1, "output": 2}}
    settings = {"providers": {"odd": {"base_url": odd.base_url}}, "prices": [price]}
    names = [name for name in REPORTS if streamed or name not in ("growing", "twice")]

    def play(seen: Seen, wire: Wire) -> None:
        reports = REPORTS[seen.json["messages"][0]["content"]].usage
        if not streamed:
            said = json.loads(completion())
            del said["usage"]
            wire.send(whole(json.dumps(said | ({"usage": reports[0]} if reports else {})).encode()))
            return
        wire.begin_stream()
        wire.event(chunk("word"))
        for report in reports[:-1]:
            wire.event(json.dumps(json.loads(chunk("more")) | {"usage": report}).encode())
        wire.event(chunk("", finish="stop"))
        for report in reports[-1:]:
            wire.event(json.dumps({"choices": [], "usage": report}).encode())
        wire.end_stream()

    odd.play = play
    try:
        with GatewayProcess(tmp_path, settings) as gateway:
            ids = {}
            for name in names:
                messages = [{"role": "user", "content": name}]
                answer = chat(gateway, "odd/up", streamed=streamed, messages=messages, max_tokens=30)
                assert text_of(answer, streamed=streamed)
                ids[name] = answer.call_id
            entries = {entry.call_id: entry for entry in gateway.check_books()}
    finally:
        odd.play = answer_well
    for name, call_id in ids.items():
        (attempt,) = entries[call_id].attempts
        want = REPORTS[name]
        assert attempt.usage_source is want.source, name
        assert attempt.usage.output_tokens == want.tokens[1], name
        if want.tokens[0] is not None:
            assert attempt.usage.input_tokens == want.tokens[0], name
        assert attempt.cash_nanos == attempt.usage.input_tokens * 1000 + attempt.usage.output_tokens * 2000
        if want.source is UsageSource.BOUNDED:
            assert attempt.cash_nanos == attempt.bound_nanos, name


# F43: what the caller sent is what goes on.


@pytest.mark.parametrize(
    "more",
    [
        b'"stop":null',
        b'"stop":[],"tools":null,"response_format":{}',
        b'"temperature":0,"top_p":1.0,"seed":0,"user":""',
        b'"max_tokens":null,"n":null,"stream":null',
        b'"stream":false,"stream_options":null',
        b'"logit_bias":{},"metadata":{"a":null},"x":[null,{},[],"",0,false]',
        b'"name":"\\u00e9\\ud834\\udd1e","raw":"\xc3\xa9"',
        b'"seed":9007199254740993,"big":18446744073709551615',
        b'"a":0.1,"b":1e-7,"c":-0.0,"d":1.5e300',
    ],
)
def test_f43_null_and_empty_parameters_go_on_as_they_are(
    gateway: GatewayProcess, odd_plays: Recorder, more: bytes
) -> None:
    """F43: no key is added, none is dropped, no value is changed, and their order stays."""
    body = b'{"messages":[{"role":"user","content":null}],"model":"odd",' + more + b"}"
    assert ask(gateway.port, "/v1/chat/completions", body).status == 200
    sent = body.replace(b'"model":"odd"', b'"model":"up"')
    assert json.loads(odd_plays.last.body, object_pairs_hook=list) == json.loads(sent, object_pairs_hook=list)
    if b"\\u" not in more and b"e" not in more.replace(b"seed", b"").replace(b"false", b""):
        assert odd_plays.last.body == sent


def test_f43_stream_options_null(gateway: GatewayProcess, odd_plays: Recorder) -> None:
    """F43: in a stream the wish for usage is the only thing that is added, whatever stood there."""
    for said in (None, {}, {"include_usage": False}):
        assert text_of(chat(gateway, "odd", streamed=True, stream_options=said), streamed=True)
        assert odd_plays.last.json["stream_options"] == {"include_usage": True}


# F36: stopping.


def held_streams(odd: Recorder, gateway: GatewayProcess, count: int) -> tuple[threading.Event, list[Any]]:
    """Begin so many streams, each held by the provider after its first word until the event is set."""
    go_on = threading.Event()

    def play(seen: Seen, wire: Wire) -> None:
        wire.begin_stream()
        wire.event(chunk("one"))
        if go_on.wait(20):
            wire.event(chunk("two", finish="stop"))
            wire.end_stream()

    odd.play = play
    streams = []
    for _ in range(count):
        entered = asking(
            gateway.port, "/v1/chat/completions", {"model": "odd/up", "messages": QUESTION, "stream": True}
        )
        connection = entered.__enter__()
        connection.read_until(b'"one"')
        streams.append((entered, connection))
    return go_on, streams


def read_all(streams: list[Any]) -> list[Answer]:
    answers = []
    for entered, connection in streams:
        answers.append(read_answer(connection.read_to_end()))
        entered.__exit__(None, None, None)
    return answers


def test_f36_sigterm_lets_streams_finish(odd_plays: Recorder, tmp_path: Path) -> None:
    """F36: nobody new comes in, streams end complete, the status is 0 and each stream has its row."""
    with GatewayProcess(tmp_path, {"providers": {"odd": {"base_url": odd_plays.base_url}}}) as gateway:
        go_on, streams = held_streams(odd_plays, gateway, 3)
        gateway.signal(signal.SIGTERM)
        until(lambda: _is_refused(gateway.port), what="the closed door")
        assert not gateway.has_ended()
        go_on.set()
        for answer in read_all(streams):
            assert text_of(answer, streamed=True) == "onetwo"
        entries = gateway.check_books()
    assert [entry.end for entry in entries] == [EndState.SUCCESS] * 3
    assert any(line["event"] == "stopping" for line in gateway.log())


def test_f36_drain_is_bounded(odd_plays: Recorder, tmp_path: Path) -> None:
    """F36: after the limit what still runs is told so in its stream, and nothing is cut silently."""
    settings = {"providers": {"odd": {"base_url": odd_plays.base_url}}}
    with GatewayProcess(tmp_path, settings, drain_s=0.3) as gateway:
        go_on, streams = held_streams(odd_plays, gateway, 2)
        began = time.monotonic()
        gateway.signal(signal.SIGTERM)
        for answer in read_all(streams):
            assert broken_stream(answer)["code"] == "shutting_down"
        entries = gateway.check_books()
        assert time.monotonic() - began < 0.3 + 2 + 1
        go_on.set()
    assert [(entry.end, entry.error_code) for entry in entries] == [
        (EndState.INTERRUPTED, "shutting_down")
    ] * 2


def test_f36_second_signal_is_fast(odd_plays: Recorder, tmp_path: Path) -> None:
    """F36: a second signal does not wait for streams; they still hear why."""
    settings = {"providers": {"odd": {"base_url": odd_plays.base_url}}}
    with GatewayProcess(tmp_path, settings, drain_s=60) as gateway:
        go_on, streams = held_streams(odd_plays, gateway, 1)
        gateway.signal(signal.SIGTERM)
        until(lambda: _is_refused(gateway.port), what="the closed door")
        began = time.monotonic()
        gateway.signal(signal.SIGINT)
        (answer,) = read_all(streams)
        assert broken_stream(answer)["code"] == "shutting_down"
        gateway.check_books()
        assert time.monotonic() - began < 4
        go_on.set()


def test_f36_whole_calls_are_told_too(mock: MockProcess, tmp_path: Path) -> None:
    """F36: a call that is not streamed and cannot be finished gets 503, with the advice to try again."""
    with GatewayProcess(tmp_path, settings_for(mock), drain_s=0.2) as gateway, ThreadPoolExecutor() as pool:
        before = len(calls_of(mock, "hang"))
        asked = pool.submit(chat, gateway, "main/hang")
        until(lambda: len(calls_of(mock, "hang")) > before, what="the call")
        gateway.signal(signal.SIGTERM)
        answer = asked.result(10)
        assert (answer.status, answer.error["code"]) == (503, "shutting_down")
        assert answer.header("retry-after") == "1"
        entries = gateway.check_books()
    assert [(entry.end, entry.error_code) for entry in entries] == [(EndState.FAILED, "shutting_down")]


def test_f36_readiness_goes_first(mock: MockProcess, tmp_path: Path) -> None:
    """F36: within the grace time a balancer reads that it is over, and whoever still comes is served."""
    with GatewayProcess(tmp_path, settings_for(mock), grace_s=30) as gateway:
        assert ask(gateway.port, "/health/ready").status == 200
        gateway.signal(signal.SIGTERM)
        until(lambda: ask(gateway.port, "/health/ready").status == 503, what="not ready")
        assert ask(gateway.port, "/health/live").status == 200
        assert chat(gateway, "main/good").status == 200
        assert gateway.stop(signal.SIGTERM) == 0, "a second signal cuts the grace short"


def _is_refused(port: int) -> bool:
    try:
        return ask(port, "/health/ready", timeout_s=2).status == 503
    except (OSError, AssertionError):
        return True


# F39: settings read again.


def test_f39_reload(odd_plays: Recorder, mock: MockProcess, tmp_path: Path) -> None:
    """F39: a good file is in force at once, a bad one is refused whole, streams finish as they began."""
    providers = {"odd": {"base_url": odd_plays.base_url}}
    settings: dict[str, Any] = {"providers": providers, "models": {"old": {"targets": ["odd/up"]}}}
    with GatewayProcess(tmp_path, settings) as gateway:
        go_on, streams = held_streams(odd_plays, gateway, 1)
        assert chat(gateway, "new").status == 404

        new = {
            "providers": {"main": {"base_url": mock.base_url}},
            "models": {"new": {"targets": ["main/good"]}},
        }
        gateway.write(new)
        assert gateway.reload()["event"] == "reloaded"
        assert chat(gateway, "new").status == 200
        assert chat(gateway, "old").status == 404
        assert [model["id"] for model in ask(gateway.port, "/v1/models").json["data"]] == ["new"]
        assert chat(gateway, "odd/up").status == 404

        gateway.write_text(gateway.settings_file.read_text() + "modles: {newer: {targets: [main/good]}}\n")
        refused = gateway.reload()
        assert refused["event"] == "reload_refused"
        assert "tiergate.yaml:" in refused["message"]
        assert "'models'" in refused["message"]
        assert chat(gateway, "newer").status == 404
        assert chat(gateway, "new").status == 200

        go_on.set()
        (answer,) = _finish(streams)
        assert text_of(answer, streamed=True) == "onetwo"
        entries = gateway.check_books()
    assert {entry.asked_model: entry.generation for entry in entries} == {"odd/up": 1, "new": 2}


def _finish(streams: list[Any]) -> list[Answer]:
    """Read streams whose connections stay open after their end."""
    answers = []
    for entered, connection in streams:
        connection.read_until(b"\r\n0\r\n\r\n")
        answers.append(read_answer(connection.received))
        entered.__exit__(None, None, None)
    return answers


# The books of every fault, read when everything is over.


def test_books_of_every_fault(mock: MockProcess, closed_port: int, tmp_path: Path) -> None:
    """I1, I2: for each fault one closed row whose attempts are settled or released, with the right money."""
    settings = settings_for(mock)
    settings["providers"]["dead"] = {"base_url": f"http://127.0.0.1:{closed_port}/v1"}
    targets = [f"main/{name}" for name in (*BEFORE, *AFTER)] + ["spare/good", "dead/x"]
    settings["prices"] = [{"target": target, "usd_per_1m": {"input": 1, "output": 2}} for target in targets]
    settings["models"] = {name: {"targets": [f"main/{name}", "spare/good"]} for name in BEFORE}
    settings["models"] |= {"pair-dead": {"targets": ["dead/x", "spare/good"]}}
    ids: dict[tuple[str, bool], str] = {}
    with GatewayProcess(tmp_path, settings) as gateway, ThreadPoolExecutor(8) as pool:

        def ask_one(model: str, streamed: bool) -> None:
            answer = chat(gateway, model, streamed=streamed, max_tokens=20)
            ids[model, streamed] = answer.call_id

        asked = [
            pool.submit(ask_one, model, streamed)
            for model in settings["models"]
            for streamed in (False, True)
        ]
        asked += [pool.submit(ask_one, f"main/{name}", True) for name in AFTER]
        for one in asked:
            one.result(20)
        entries = {entry.call_id: entry for entry in gateway.check_books()}
    assert len(entries) == len(ids)
    for (model, streamed), call_id in ids.items():
        _check_money(entries[call_id], model, streamed=streamed)


def _check_money(entry: Entry, model: str, *, streamed: bool) -> None:
    first, *rest = entry.attempts
    fault = BEFORE.get(model)
    if model == "pair-dead":
        assert (first.state, first.cash_nanos) == (HoldState.RELEASED, 0)
    elif fault is None:
        assert (entry.end, first.state) == (EndState.INTERRUPTED, HoldState.SETTLED)
        assert first.usage_source is UsageSource.BOUNDED
        assert first.cash_nanos == first.bound_nanos
    elif fault.only is (not streamed):
        pass
    elif "status" in fault.then or "redirect" in fault.then:
        assert (first.state, first.cash_nanos, first.usage_source) == (HoldState.SETTLED, 0, UsageSource.NONE)
    else:
        # Something may have been generated and is billed, though nothing of it can be used.
        assert (first.state, first.cash_nanos) == (HoldState.SETTLED, first.bound_nanos)
    if rest:
        (last,) = rest
        assert (entry.end, last.target, last.usage_source) == (
            EndState.SUCCESS,
            "spare/good",
            UsageSource.REPORTED,
        )
        assert last.cash_nanos == last.usage.input_tokens * 1000 + last.usage.output_tokens * 2000
