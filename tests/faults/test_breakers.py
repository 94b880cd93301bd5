"""Breakers as callers, providers and operators see them: what fails is left alone, and taken back."""

import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from admin import admin
from flow.plain_http import Answer, ask, asking
from flow.recorder import Recorder, completion
from house import GatewayProcess, calls_of, cli, until
from tiergate.testing import MockProcess

OPEN_S = 0.6
SCRIPT = """
default: {words: 3, ttft_ms: 1}
rules:
  - {when: {model: dead}, then: {status: 503}}
  - {when: {model: heals, first: 26}, then: {status: 503}}
  - {when: {model: wakes, first: 5}, then: {stall_after: 0}}
  - {when: {model: wakes}, then: {words: 3, ttft_ms: 400}}
  - {when: {model: breaks}, then: {reset_after: 3, words: 9}}
  - {when: {model: picky}, then: {status: 400, error: Too hot.}}
  - {when: {model: busy, first: 1}, then: {status: 429, headers: {retry-after: 2}}}
  - {when: {model: overloaded, first: 1}, then: {status: 529, headers: {retry-after-ms: 900}}}
  - {when: {model: locked, header: {authorization: "Bearer *OLD*"}}, then: {status: 401}}
  - {when: {model: hangs}, then: {hang: true}}
"""
PROVIDERS = ("dead", "heals", "wakes", "breaks", "picky", "busy", "overloaded", "hangs", "hand", "well")


@pytest.fixture(scope="module")
def mock() -> Iterator[MockProcess]:
    with MockProcess(SCRIPT) as process:
        yield process


def settings(mock: MockProcess, closed_port: int, **more: Any) -> dict[str, Any]:
    providers: dict[str, Any] = {name: {"base_url": mock.base_url} for name in PROVIDERS}
    providers["gone"] = {"base_url": f"http://127.0.0.1:{closed_port}/v1"}
    providers["locked"] = {"base_url": mock.base_url, "api_keys": ["sk-0123456789-OLD"]}
    targets = {name: [f"{name}/{name}"] for name in providers}
    pairs = {f"pair-{name}": [f"{name}/{name}", "well/good"] for name in providers}
    return {
        "providers": providers,
        "models": {name: {"targets": found} for name, found in {**targets, **pairs}.items()}
        | {"lost": {"targets": ["gone/gone", "dead/dead"]}},
        "resilience": {"first_event_s": 0.3, "breaker": {"open_s": 30}},
        **more,
    }


@pytest.fixture
def gateway(mock: MockProcess, closed_port: int, tmp_path: Path) -> Iterator[GatewayProcess]:
    with GatewayProcess(tmp_path, settings(mock, closed_port)) as process:
        yield process
        process.check_books()


@pytest.fixture
def quick(mock: MockProcess, closed_port: int, tmp_path: Path) -> Iterator[GatewayProcess]:
    """One that tries again soon."""
    written = settings(mock, closed_port)
    written["resilience"]["breaker"]["open_s"] = OPEN_S
    with GatewayProcess(tmp_path, written) as process:
        yield process
        process.check_books()


def chat(gateway: GatewayProcess, model: str, *headers: tuple[str, str], streamed: bool = False) -> Answer:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": streamed}
    return ask(gateway.port, "/v1/chat/completions", body, headers=headers)


def many(gateway: GatewayProcess, model: str, count: int) -> list[Answer]:
    with ThreadPoolExecutor(20) as pool:
        return list(pool.map(lambda _: chat(gateway, model), range(count)))


def asked(mock: MockProcess, model: str) -> int:
    return len(calls_of(mock, model))


def came(mock: MockProcess, model: str, count: int) -> bool:
    return asked(mock, model) == count


def state_of(gateway: GatewayProcess, provider: str, model: str = "") -> str:
    (row,) = (row for row in admin(gateway, "/api/targets").json["data"] if row["provider"] == provider)
    if not model:
        return "/".join(sorted(breaker["state"] for breaker in row["breakers"].values()))
    (found,) = (one for one in row["models"] if one["model"] == model)
    return str(found["state"])


def breaker_states(gateway: GatewayProcess, target: str) -> list[str]:
    """All that its breaker has been so far, by the log: whoever asks may come too late to see a state."""
    return [line["state"] for line in gateway.log('"breaker"') if line["target"] == target]


def test_f15_what_always_fails_is_left_alone(gateway: GatewayProcess, mock: MockProcess) -> None:
    """Of 400 calls it sees twenty and their retries, and a probe now and then; the rest are told at once."""
    answers = many(gateway, "dead", 400)
    statuses = Counter(answer.status for answer in answers)
    assert set(statuses) == {502, 503}
    # Twenty calls open it; those in flight beside them and their retries come on top.
    assert 20 <= asked(mock, "dead") <= 60
    last = answers[-1]
    assert (last.status, last.error["code"]) == (503, "no_target_available")
    assert "dead/dead is left alone: too many calls failed there (dead failed" in last.error["message"]
    assert "; it is asked again in" in last.error["message"]
    assert 20 <= int(str(last.header("retry-after"))) <= 36 and last.header("x-should-retry") is None
    assert last.header("x-tiergate-attempts") is None


def test_f15_i11_what_has_recovered_is_asked_again(quick: GatewayProcess) -> None:
    """Two good probes close it, and then all calls are good."""
    many(quick, "heals", 60)
    until(lambda: breaker_states(quick, "heals/heals"), what="an open breaker")
    until(lambda: chat(quick, "heals").status == 200, timeout_s=20, what="a good probe")
    until(lambda: chat(quick, "heals").status == 200, what="another one")
    assert state_of(quick, "heals", "heals") == "closed"
    assert Counter(answer.status for answer in many(quick, "heals", 100)) == {200: 100}
    states = breaker_states(quick, "heals/heals")
    assert states[0] == "open" and states[-1] == "closed"


def test_one_call_at_a_time_tries_whether_it_has_come_back(quick: GatewayProcess, mock: MockProcess) -> None:
    """Whoever comes meanwhile is told at once."""
    for _ in range(5):
        assert chat(quick, "wakes", streamed=True).status == 504
    assert chat(quick, "wakes").status == 503
    before = asked(mock, "wakes")
    assert before == 5
    time.sleep(OPEN_S * 1.25)
    answers = many(quick, "wakes", 20)
    assert Counter(answer.status for answer in answers) == {200: 1, 503: 19}
    assert asked(mock, "wakes") == before + 1
    assert sum("one call is trying" in answer.error["message"] for answer in answers if answer.status == 503)


def test_f01_servers_that_cannot_be_reached_are_left_alone(gateway: GatewayProcess) -> None:
    """After five in a row, also between them; a second provider is then asked at once."""
    assert {chat(gateway, "gone").status for _ in range(2)} == {502}
    answer = chat(gateway, "gone")
    assert answer.status == 503 and "its servers cannot be reached" in answer.error["message"]
    answer = chat(gateway, "pair-gone")
    assert (answer.status, answer.header("x-tiergate-attempts")) == (200, "1")
    assert answer.header("x-tiergate-target") == "well/good"


def test_never_the_last_one_silently(gateway: GatewayProcess) -> None:
    """Where all targets are left alone, each of them is named with its reason and its wait."""
    many(gateway, "gone", 5)
    many(gateway, "dead", 40)
    answer = chat(gateway, "lost")
    assert (answer.status, answer.error["code"]) == (503, "no_target_available")
    message = answer.error["message"]
    assert "its servers cannot be reached" in message and "too many calls failed there" in message
    assert len(re.findall(r"it is asked again in [23][0-9] s", message)) == 2


def test_streams_that_break_off_open_it_too(gateway: GatewayProcess, mock: MockProcess) -> None:
    """Though every one of them began well."""
    for _ in range(20):
        assert chat(gateway, "breaks", streamed=True).status == 200
    assert chat(gateway, "breaks", streamed=True).status == 503
    assert asked(mock, "breaks") == 20


def test_what_callers_do_opens_nothing(gateway: GatewayProcess, mock: MockProcess) -> None:
    """Requests that are refused, and clients that leave before the answer."""
    assert {answer.status for answer in many(gateway, "picky", 50)} == {400}
    assert asked(mock, "picky") == 50
    body = {"model": "hangs", "messages": [{"role": "user", "content": "hi"}]}
    for count in range(1, 31):
        with asking(gateway.port, "/v1/chat/completions", body):
            until(partial(came, mock, "hangs", count), what="the call")
    until(lambda: len(gateway.log("client_closed")) == 30, what="30 closed calls")
    assert state_of(gateway, "hangs", "hangs") == "closed"
    assert state_of(gateway, "picky", "picky") == "closed"


@pytest.mark.parametrize(("model", "wait_s"), [("busy", 2.0), ("overloaded", 0.9)])
def test_f13_f17_who_asks_for_peace_has_it_from_everybody(
    closed_port: int, tmp_path: Path, model: str, wait_s: float
) -> None:
    """Also from callers that come later; one with another target goes on, one without waits, or is told."""
    with MockProcess(SCRIPT) as mock, GatewayProcess(tmp_path, settings(mock, closed_port)) as gateway:
        first = chat(gateway, model, ("x-tiergate-deadline-ms", "400"))
        assert first.status in (429, 502)
        (began,) = (call["at_s"] for call in calls_of(mock, model))
        answer = chat(gateway, f"pair-{model}")
        assert (answer.status, answer.header("x-tiergate-attempts")) == (200, "1")
        hasty = chat(gateway, model, ("x-tiergate-deadline-ms", "300"))
        assert (hasty.status, hasty.error["code"]) == (429, "rate_limit_exceeded")
        assert "asked to be left alone" in hasty.error["message"]
        assert 1 <= int(str(hasty.header("retry-after"))) <= 2
        assert chat(gateway, model).status == 200
        second = calls_of(mock, model)[1]["at_s"]
        assert second - began >= wait_s - 0.05


def test_f14_a_key_that_is_refused_is_used_once(mock: MockProcess, closed_port: int, tmp_path: Path) -> None:
    """By no model of the provider; somebody is told; a new key is tried at once."""
    posted = Recorder(play=lambda seen, wire: wire.send(completion("noted")))
    with posted as hook:
        more = {"alerts": {"webhook": hook.url + "/alerts"}}
        written = settings(mock, closed_port, **more)
        written["resilience"] = {"breaker": {"open_s": 600}}
        with GatewayProcess(tmp_path, written) as gateway:
            first = chat(gateway, "locked")
            assert (first.status, first.error["code"]) == (502, "upstream_auth_failed")
            for model in ("locked", "locked/other"):
                answer = chat(gateway, model)
                assert answer.status == 503
                assert "our credential there is blocked (locked refused our key" in answer.error["message"]
                assert answer.header("x-should-retry") == "false", "it takes too long for a client to wait"
            assert chat(gateway, "pair-locked").status == 200
            assert asked(mock, "locked") == 1
            alert = until(lambda: [seen.json for seen in hook.seen], what="the alert")[0]
            assert (alert["event"], alert["provider"]) == ("credential_blocked", "locked")
            written["providers"]["locked"]["api_keys"] = ["sk-0123456789-NEW"]
            gateway.write(written)
            assert gateway.reload()["event"] == "reloaded"
            assert chat(gateway, "locked").status == 200
        gateway.check_books()


def test_an_operator_isolates_and_restores(gateway: GatewayProcess, mock: MockProcess) -> None:
    """A target or all of a provider, over HTTP and from the command line; calls go elsewhere meanwhile."""
    row = admin(gateway, "/api/targets/isolate", body={"target": "hand/hand"}).json
    assert [(model["model"], model["state"]) for model in row["models"]] == [("hand", "isolated")]
    alone = chat(gateway, "hand")
    assert alone.status == 503 and "hand/hand is left alone: it is isolated by hand" in alone.error["message"]
    assert alone.header("retry-after") is None and alone.header("x-should-retry") == "false"
    assert chat(gateway, "pair-hand").header("x-tiergate-target") == "well/good"
    assert chat(gateway, "hand/other").status == 200
    listed = cli("targets", "list", folder=gateway.folder)
    assert "hand/hand" in listed.stdout and "isolated" in listed.stdout
    assert cli("targets", "restore", "hand/hand", folder=gateway.folder).returncode == 0
    assert chat(gateway, "hand").status == 200
    assert cli("targets", "isolate", "hand", folder=gateway.folder).returncode == 0
    assert chat(gateway, "hand/other").status == 503
    assert gateway.reload()["event"] == "reloaded"
    assert chat(gateway, "hand/other").status == 503, "a reload forgets nothing"
    said = json.loads(cli("targets", "restore", "hand", "--json", folder=gateway.folder).stdout)
    assert said["breakers"]["servers"]["state"] == "closed"
    wrong = cli("targets", "isolate", "nobody/x", folder=gateway.folder)
    assert wrong.returncode == 1 and "There is no provider 'nobody'" in wrong.stderr


def test_a_scrape_shows_what_is_open(gateway: GatewayProcess) -> None:
    """One line for each state, and how often it changed; the ledger tells why a target was passed over."""
    many(gateway, "gone", 5)
    page = admin(gateway, "/metrics").body.decode()
    assert 'tiergate_breaker_state{part="servers",state="open",target="gone"} 1.0' in page
    assert 'tiergate_breaker_state{part="servers",state="closed",target="gone"} 0.0' in page
    assert 'tiergate_breaker_changes_total{part="servers",state="open",target="gone"} 1.0' in page
    call = chat(gateway, "pair-gone").header("x-request-id")
    entry = admin(gateway, f"/api/entries/{call}").json
    assert "its servers cannot be reached" in json.dumps(entry["route"])


def test_the_official_client_raises_and_is_told_for_how_long(gateway: GatewayProcess) -> None:
    """It may come again by itself: nobody was asked."""
    many(gateway, "dead", 60)
    with (
        OpenAI(base_url=gateway.base_url, api_key="none", max_retries=0) as client,
        pytest.raises(openai.InternalServerError) as raised,
    ):
        client.chat.completions.create(model="dead", messages=[{"role": "user", "content": "hi"}])
    assert (raised.value.status_code, raised.value.code) == (503, "no_target_available")
    assert 20 <= int(raised.value.response.headers["retry-after"]) <= 36
    assert "x-should-retry" not in raised.value.response.headers
