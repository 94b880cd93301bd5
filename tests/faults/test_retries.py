"""Retries as callers and providers see them: what passes is hidden, and nobody is hammered."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from flow.plain_http import Answer, ask
from house import NO_BREAKERS, GatewayProcess, calls_of
from tiergate.testing import MockProcess

SCRIPT = """
seed: 11
default: {words: 3, ttft_ms: 1}
rules:
  - {when: {model: "recovers-*", first: 2}, then: {status: 503}}
  - {when: {model: "soon-*", first: 1}, then: {status: 429, headers: {retry-after-ms: 400, retry-after: 60}}}
  - {when: {model: long}, then: {status: 429, headers: {retry-after: 9}}}
  - {when: {model: quota}, then: {status: 429, error: {message: Pay., code: insufficient_quota}}}
  - {when: {model: slow}, then: {hang: true}}
  - {when: {model: dead}, then: {status: 503}}
  - {when: {model: tenth, probability: 0.1}, then: {status: 503}}
  - {when: {model: third, probability: 0.3}, then: {status: 500}}
"""
NAMES = ("long", "quota", "slow", "dead", "tenth")


@pytest.fixture
def mock() -> Iterator[MockProcess]:
    with MockProcess(SCRIPT) as process:
        yield process


@pytest.fixture
def gateway(mock: MockProcess, tmp_path: Path) -> Iterator[GatewayProcess]:
    yield from serving(mock, tmp_path)


def serving(mock: MockProcess, folder: Path) -> Iterator[GatewayProcess]:
    settings: dict[str, Any] = {
        "providers": {
            "main": {"base_url": mock.base_url},
            "ill": {"base_url": mock.base_url},
            "well": {"base_url": mock.base_url},
        },
        "models": {name: {"targets": [f"main/{name}"]} for name in NAMES}
        | {"pair": {"targets": ["ill/third", "well/good"]}},
        # What retries alone do; test_breakers.py has both.
        "resilience": NO_BREAKERS,
    }
    with GatewayProcess(folder, settings) as process:
        yield process


def chat(gateway: GatewayProcess, model: str, *headers: tuple[str, str], streamed: bool = False) -> Answer:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": streamed}
    return ask(gateway.port, "/v1/chat/completions", body, headers=headers)


def at_s(mock: MockProcess, model: str) -> list[float]:
    """When each request for a model came."""
    return [call["at_s"] for call in calls_of(mock, model)]


@pytest.mark.parametrize("streamed", [False, True])
def test_what_passes_is_hidden(gateway: GatewayProcess, mock: MockProcess, *, streamed: bool) -> None:
    """Two failures of the only target, and then its answer."""
    name = f"recovers-{streamed}"
    answer = chat(gateway, f"main/{name}", streamed=streamed)
    assert answer.status == 200
    assert answer.header("x-tiergate-attempts") == "3"
    assert len(calls_of(mock, name)) == 3


@pytest.mark.parametrize("streamed", [False, True])
def test_f13_a_provider_that_says_how_long_to_wait_is_obeyed(
    gateway: GatewayProcess, mock: MockProcess, *, streamed: bool
) -> None:
    """Milliseconds before seconds; no call comes to it before that time."""
    name = f"soon-{streamed}"
    assert chat(gateway, f"main/{name}", streamed=streamed).status == 200
    first, second = at_s(mock, name)
    assert second - first >= 0.35


@pytest.mark.parametrize(("name", "status"), [("long", 429), ("quota", 429)])
def test_f13_f14_what_takes_too_long_is_told_at_once(
    gateway: GatewayProcess, mock: MockProcess, name: str, status: int
) -> None:
    """The provider's wait is passed on, and the client is kept from trying again by itself."""
    answer = chat(gateway, name)
    assert (answer.status, answer.header("x-should-retry")) == (status, "false")
    assert answer.header("retry-after") == ("9" if name == "long" else None)
    assert len(calls_of(mock, name)) == 1


def test_a_time_out_is_not_sent_again_to_who_may_be_working_on_it(
    gateway: GatewayProcess, mock: MockProcess
) -> None:
    """It may be billed already."""
    answer = chat(gateway, "slow", ("x-tiergate-deadline-ms", "300"))
    assert (answer.status, answer.error["code"]) == (504, "upstream_timeout")
    assert len(calls_of(mock, "slow")) == 1


def test_f15_a_dead_provider_is_not_hammered(gateway: GatewayProcess, mock: MockProcess) -> None:
    """Of many calls to a provider that always fails a fifth is tried again, and three more."""
    with ThreadPoolExecutor(20) as pool:
        statuses = Counter(pool.map(lambda _: chat(gateway, "dead").status, range(200)))
    assert statuses == {502: 200}
    # The window moves on while they run, so a little more is spared.
    assert 203 < len(calls_of(mock, "dead")) <= 200 * 1.2 + 10


def test_f15_what_clients_send_again_by_themselves_spares_no_more(
    gateway: GatewayProcess, mock: MockProcess
) -> None:
    """Their retries are no reason for ours."""
    for _ in range(30):
        chat(gateway, "dead", ("x-stainless-retry-count", "1"))
    assert len(calls_of(mock, "dead")) == 33


def test_f16_one_call_in_ten_fails_and_hardly_any_is_seen_to(
    gateway: GatewayProcess, mock: MockProcess
) -> None:
    """One provider: at most 0.5 % of the callers see an error, at most a fifth more is asked of it."""
    with ThreadPoolExecutor(20) as pool:
        statuses = Counter(pool.map(lambda _: chat(gateway, "tenth").status, range(600)))
    assert statuses[200] >= 597, statuses
    assert len(calls_of(mock, "tenth")) <= 600 * 1.2


def test_f16_a_second_provider_hides_what_the_first_one_does(
    gateway: GatewayProcess, mock: MockProcess
) -> None:
    """Three in ten fail at the first; the second takes them at once."""
    with ThreadPoolExecutor(20) as pool:
        statuses = Counter(pool.map(lambda _: chat(gateway, "pair").status, range(400)))
    assert statuses[200] >= 398, statuses
    assert len(calls_of(mock, "third")) == 400
