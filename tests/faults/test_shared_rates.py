"""Two gateways and one Redis: rates of providers and keys are shared, and no call depends on Redis."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from admin import admin
from flow.plain_http import Answer, ask
from house import GatewayProcess, calls_of, until
from redis_server import RedisServer, serving_redis
from tiergate.testing import MockProcess

RPM = 600
KEYS: dict[str, tuple[str, dict[str, Any]]] = {
    "ci": ("sk-of-ci-0123456789", {"rpm": 30}),
    "few": ("sk-of-few-0123456789", {"concurrency": 6}),
    "lone": ("sk-of-lone-0123456789", {"rpm": 30}),
    "shut": ("sk-of-shut-0123456789", {"rpm": 30, "without_redis": "closed"}),
}


@pytest.fixture(scope="module")
def mock() -> Iterator[MockProcess]:
    slow = f"{{when: {{model: slow}}, then: {{words: 2, ttft_ms: {SLOW_S * 1e3:.0f}}}}}"
    with MockProcess(f"default: {{words: 2, ttft_ms: 1}}\nrules: [{slow}]") as process:
        yield process


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with serving_redis() as server:
        yield server


SLOW_S = 1.5


def settings(mock: MockProcess, redis: RedisServer, **limits: Any) -> dict[str, Any]:
    return {
        "providers": {
            "main": {"base_url": mock.base_url, "limits": {"rpm": RPM, **limits}},
            "free": {"base_url": mock.base_url},
            "narrow": {"base_url": mock.base_url, "limits": {"concurrency": 4}},
        },
        "keys": [
            {"name": name, "secret": secret, "limits": limits} for name, (secret, limits) in KEYS.items()
        ],
        "auth": "open",
        "redis": redis.url,
        "secret": "0123456789abcdef0123456789abcdef",
    }


@pytest.fixture
def gateways(mock: MockProcess, redis: RedisServer, tmp_path: Path) -> Iterator[list[GatewayProcess]]:
    with ExitStack() as stack:
        yield [
            stack.enter_context(GatewayProcess(tmp_path / name, settings(mock, redis)))
            for name in ("one", "two")
        ]


def chat(gateway: GatewayProcess, model: str, *headers: tuple[str, str]) -> Answer:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
    return ask(gateway.port, "/v1/chat/completions", body, headers=headers, timeout_s=60)


def as_key(name: str) -> tuple[str, str]:
    return "authorization", f"Bearer {KEYS[name][0]}"


def gauge(gateway: GatewayProcess, name: str) -> float:
    page = admin(gateway, "/metrics").body.decode()
    (line,) = (line for line in page.splitlines() if line.startswith(f"tiergate_{name} "))
    return float(line.split()[1])


def test_the_rate_is_shared(gateways: list[GatewayProcess], mock: MockProcess) -> None:
    """40 calls to two gateways, none of them earlier than one rate allows, and what both leased ahead."""
    for gateway in gateways:
        assert chat(gateway, "main/first").status == 200
    with ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(lambda number: chat(gateways[number % 2], "main/shared"), range(40)))
    assert {answer.status for answer in answers} == {200}
    times = sorted(call["at_s"] for call in calls_of(mock, "shared"))
    ahead = 2 * RPM * 0.05
    assert all(number <= (at - times[0]) * RPM / 60 + ahead + 1 for number, at in enumerate(times, start=1))
    assert [gauge(gateway, "gateways") for gateway in gateways] == [2, 2]
    assert gauge(gateways[0], "redis_gone_seconds") == 0


def test_places_at_a_provider_are_shared(gateways: list[GatewayProcess], mock: MockProcess) -> None:
    """Never more than its concurrency at one time, and nobody is turned away who can wait."""
    for gateway in gateways:
        assert chat(gateway, "free/x").status == 200
    until(lambda: all(gauge(gateway, "gateways") == 2 for gateway in gateways), what="both")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: chat(gateways[n % 2], "narrow/slow"), range(8)))
    assert {answer.status for answer in answers} == {200}
    began = sorted(call["at_s"] for call in calls_of(mock, "slow"))[-8:]
    assert all(fifth - first >= SLOW_S * 0.95 for first, fifth in zip(began, began[4:], strict=False))


def test_the_limits_of_a_key_are_shared(gateways: list[GatewayProcess], redis: RedisServer) -> None:
    """A minute's calls pass wherever they come, and no more; without Redis each gateway has its part."""
    for gateway in gateways:
        assert chat(gateway, "free/x").status == 200
    until(lambda: all(gauge(gateway, "gateways") == 2 for gateway in gateways), what="both")
    began = time.monotonic()
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda n: chat(gateways[n % 2], "free/x", as_key("ci")), range(60)))
    came = sum(answer.status == 200 for answer in answers)
    assert 29 <= came <= 31 + (time.monotonic() - began) / 2
    refused = next(answer for answer in answers if answer.status == 429)
    assert (
        refused.error["code"] == "rate_limit_exceeded"
        and "30 calls a minute (rpm)" in refused.error["message"]
    )
    assert int(str(answers[0].header("x-ratelimit-remaining-requests"))) < 30
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda n: chat(gateways[n % 2], "free/slow", as_key("few")), range(20)))
    assert sum(answer.status == 200 for answer in answers) == 6
    assert chat(gateways[0], "free/x", as_key("few")).status == 200
    redis.stop()
    answers = [chat(gateways[0], "free/x", as_key("lone")) for _ in range(20)]
    assert 15 <= sum(answer.status == 200 for answer in answers) <= 17
    assert chat(gateways[0], "free/x", as_key("shut")).status == 429


@pytest.mark.parametrize("how", ["dies", "freezes"])
def test_f24_f25_no_call_depends_on_redis(
    gateways: list[GatewayProcess], redis: RedisServer, mock: MockProcess, how: str
) -> None:
    """Those without a shared rate do not notice; those with one have their part of it; it is told."""
    one, two = gateways
    for gateway in gateways:
        assert chat(gateway, "main/warm").status == 200
    until(lambda: gauge(one, "gateways") == 2, what="both")
    if how == "dies":
        redis.stop()
    else:
        redis.freeze()
    with ThreadPoolExecutor(20) as pool:
        free = list(pool.map(lambda number: chat(gateways[number % 2], "free/x"), range(200)))
        held = list(pool.map(lambda number: chat(gateways[number % 2], f"main/{how}"), range(12)))
    assert {answer.status for answer in free + held} == {200}
    until(lambda: one.log("redis_gone"), what="the notice")
    until(lambda: gauge(two, "redis_gone_seconds") > 0, what="the metric")
    assert str(redis.port) not in one.stderr
    if how == "dies":
        redis.start()
    else:
        redis.thaw()
    until(lambda: one.log("redis_back") and two.log("redis_back"), what="its return")
    assert chat(one, "main/back").status == 200
    for gateway in gateways:
        gateway.check_books()


def test_f24_a_gateway_starts_without_redis(mock: MockProcess, redis: RedisServer, tmp_path: Path) -> None:
    """It serves, says so, and shares when Redis has come."""
    redis.stop()
    with GatewayProcess(tmp_path, settings(mock, redis)) as gateway:
        assert chat(gateway, "main/alone").status == 200
        until(lambda: gateway.log("redis_gone"), what="the notice")
        assert chat(gateway, "main/alone").status == 200
        redis.start()
        until(lambda: gateway.log("redis_back"), what="its return")


def test_a_closed_limit_lets_nothing_through(mock: MockProcess, redis: RedisServer, tmp_path: Path) -> None:
    """`without_redis: closed`: 429, and whoever has another target goes there."""
    redis.stop()
    with GatewayProcess(tmp_path, settings(mock, redis, without_redis="closed")) as gateway:
        until(lambda: gateway.log("redis_gone"), what="the notice")
        chat(gateway, "main/first")
        answer = chat(gateway, "main/closed", ("x-tiergate-deadline-ms", "2000"))
        assert (answer.status, answer.error["code"]) == (429, "rate_limit_exceeded")
        assert calls_of(mock, "closed") == []
