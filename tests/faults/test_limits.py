"""What providers take from us: rates, places, and what they show that they can do; who waits, who goes on."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from admin import admin
from flow.plain_http import Answer, ask
from house import GatewayProcess, calls_of, until
from tiergate.testing import MockProcess

SCRIPT = """
default: {words: 4, ttft_ms: 1}
rules:
  - {when: {model: slow}, then: {words: 4, ttft_ms: 300}}
  - {when: {model: "long*"}, then: {words: 4, ttft_ms: 1200}}
  - {when: {model: crowded, first: 3}, then: {status: 429, wait_ms: 200}}
  - {when: {model: crowded}, then: {words: 4, ttft_ms: 200}}
"""


@pytest.fixture(scope="module")
def mock() -> Iterator[MockProcess]:
    with MockProcess(SCRIPT) as process:
        yield process


@pytest.fixture(scope="module")
def gateway(mock: MockProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    limits: dict[str, dict[str, int]] = {
        "calls": {"rpm": 120},
        "tokens": {"tpm": 6000},
        "rare": {"rpm": 1},
        "narrow": {"concurrency": 1},
        "crowd": {},
        "hasty": {},
        "free": {},
    }
    settings: dict[str, Any] = {
        "providers": {name: {"base_url": mock.base_url, "limits": one} for name, one in limits.items()},
        "models": {"pair": {"targets": ["rare/pair", "free/other"]}, "alone": {"targets": ["rare/alone"]}},
        "resilience": {"attempts": 5},
    }
    with GatewayProcess(tmp_path_factory.mktemp("limits"), settings) as process:
        yield process
        process.check_books()


def chat(gateway: GatewayProcess, model: str, *headers: tuple[str, str], **more: Any) -> Answer:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], **more}
    return ask(gateway.port, "/v1/chat/completions", body, headers=headers)


def at_s(mock: MockProcess, model: str) -> list[float]:
    return sorted(call["at_s"] for call in calls_of(mock, model))


def target(gateway: GatewayProcess, provider: str) -> dict[str, Any]:
    (row,) = (row for row in admin(gateway, "/api/targets").json["data"] if row["provider"] == provider)
    return dict(row)


def test_requests_are_spread_over_their_minute(gateway: GatewayProcess, mock: MockProcess) -> None:
    """120 per minute: all ten are answered, and none of them comes earlier than the rate allows."""
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: chat(gateway, "calls/spread"), range(10)))
    assert Counter(answer.status for answer in answers) == {200: 10}
    times = at_s(mock, "spread")
    # The first one owes what it took; a millisecond is lost on the way.
    assert all(at - times[0] >= number * 0.5 - 0.05 for number, at in enumerate(times))


def test_tokens_are_held_back_too(gateway: GatewayProcess, mock: MockProcess) -> None:
    """What a call may use is taken before, and what it did not use is there for the next one."""
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: chat(gateway, "tokens/words", max_tokens=600), range(4)))
    assert {answer.status for answer in answers} == {200}
    # 100 tokens come back each second. Without the correction the fourth would come after eighteen.
    left = target(gateway, "tokens")["tokens_left"]
    assert -100 <= left <= 500
    assert len(at_s(mock, "words")) == 4


def test_a_rate_that_is_used_up_sends_a_call_to_the_next_target(
    gateway: GatewayProcess, mock: MockProcess
) -> None:
    """Or tells it for how long, where there is none; nobody was asked."""
    assert chat(gateway, "pair").header("x-tiergate-target") == "rare/pair"
    answer = chat(gateway, "pair")
    assert answer.header("x-tiergate-target") == "free/other"
    assert answer.header("x-tiergate-attempts") == "1"
    told = chat(gateway, "alone", ("x-tiergate-deadline-ms", "20000"))
    assert (told.status, told.error["code"]) == (429, "rate_limit_exceeded")
    assert "limits.rpm 1" in told.error["message"]
    assert told.header("retry-after") is None and told.header("x-should-retry") == "false"
    assert len(calls_of(mock, "alone")) == 0


def test_interactive_calls_go_before_batch(gateway: GatewayProcess, mock: MockProcess) -> None:
    """At a provider that answers one at a time, though the batch call came first."""
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(chat, gateway, "narrow/long")
        until(lambda: len(calls_of(mock, "long")) == 1, what="the first call")
        batch = pool.submit(chat, gateway, "narrow/long-batch", ("x-tiergate-class", "batch"))
        until(lambda: target(gateway, "narrow")["waiting"] == 1, what="the batch call")
        # The line is as long as there are places: the interactive call takes the one of the batch call.
        interactive = pool.submit(chat, gateway, "narrow/long-now")
        statuses = [one.result().status for one in (first, batch, interactive)]
    assert statuses == [200, 429, 200]
    assert "interactive call took its place" in batch.result().error["message"]
    assert len(calls_of(mock, "long-batch")) == 0


def test_a_target_that_pushes_back_is_given_less(gateway: GatewayProcess) -> None:
    """And everybody is answered all the same."""
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: chat(gateway, "crowd/crowded"), range(12)))
    assert Counter(answer.status for answer in answers) == {200: 12}
    assert 1 <= target(gateway, "crowd")["learned_concurrency"]["crowded"] <= 12
    page = admin(gateway, "/metrics").body.decode()
    assert 'tiergate_target_concurrency{target="crowd/crowded"}' in page


def test_a_client_without_patience_closes_no_door_for_others(gateway: GatewayProcess) -> None:
    """Its time is no fault of the target, however often it is over."""
    for _ in range(8):
        answer = chat(gateway, "hasty/slow", ("x-stainless-read-timeout", "1.1"), stream=True)
        assert (answer.status, answer.error["code"]) == (504, "upstream_timeout")
    assert chat(gateway, "hasty/slow").status == 200
