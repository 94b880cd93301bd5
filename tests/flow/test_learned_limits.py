"""A provider that has limits, and a gateway that nobody told of them: it goes as fast as it may."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from admin import admin
from flow.plain_http import Answer, ask
from house import GatewayProcess, calls_of, cli
from tiergate.testing import MockProcess

SCRIPT = """
default: {words: 4, ttft_ms: 20}
limits: {rpm: 120, tpm: 60000}
"""


@pytest.fixture(scope="module")
def mock() -> Iterator[MockProcess]:
    with MockProcess(SCRIPT) as process:
        yield process


@pytest.fixture(scope="module")
def gateway(mock: MockProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    settings: dict[str, Any] = {"providers": {"main": {"base_url": mock.base_url}}}
    with GatewayProcess(tmp_path_factory.mktemp("learned"), settings) as process:
        yield process
        process.check_books()


def chat(gateway: GatewayProcess, model: str, **more: Any) -> Answer:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], **more}
    return ask(gateway.port, "/v1/chat/completions", body)


def crowd(gateway: GatewayProcess, model: str, count: int, **more: Any) -> Counter[int]:
    with ThreadPoolExecutor(count) as pool:
        return Counter(pool.map(lambda _: chat(gateway, model, **more).status, range(count)))


def test_a_crowd_is_answered_and_the_provider_refuses_nobody(
    gateway: GatewayProcess, mock: MockProcess
) -> None:
    """120 per minute: after the first answer as many at once as are left, and two each second."""
    assert chat(gateway, "main/requests").status == 200
    assert crowd(gateway, "main/requests", 125) == {200: 125}
    refused = [call for call in calls_of(mock, "requests") if call["status"] == 429]
    assert len(refused) <= 1
    learned = row(gateway)["learned_rates"]["requests"]
    assert learned["requests"]["limit"] == 120 and learned["requests"]["left"] < 10
    page = admin(gateway, "/metrics").body.decode()
    assert 'tiergate_target_left{limit="requests",target="main/requests"} ' in page
    assert "of 120 requests" in cli("targets", "list", folder=gateway.folder).stdout


def test_a_crowd_keeps_to_the_tokens_too(gateway: GatewayProcess, mock: MockProcess) -> None:
    """60,000 per minute, streamed; each may use 8,800, so five go at once and the sixth after a while."""
    assert chat(gateway, "main/tokens", max_tokens=8_800).status == 200
    assert crowd(gateway, "main/tokens", 6, max_tokens=8_800, stream=True) == {200: 6}
    assert [call["status"] for call in calls_of(mock, "tokens")].count(429) <= 1


def row(gateway: GatewayProcess) -> dict[str, Any]:
    (found,) = admin(gateway, "/api/targets").json["data"]
    return dict(found)
