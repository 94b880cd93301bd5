"""Kept answers behind real gateways: Redis shared, gone, frozen, full or damaged; a file and a restart."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from admin import admin
from flow.plain_http import Answer, ask
from house import NO_BREAKERS, GatewayProcess, calls_of, cli, until
from postgres import Server
from redis_server import RedisServer, serving_redis
from tiergate.testing import MockProcess


@pytest.fixture(scope="module")
def mock() -> Iterator[MockProcess]:
    with MockProcess("default: {words: 5}") as process:
        yield process


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with serving_redis() as server:
        yield server


@pytest.fixture
def store(postgres_server: Server) -> Iterator[str]:
    with postgres_server.schema() as address:
        yield address


def settings(mock: MockProcess, redis: RedisServer | None, **more: Any) -> dict[str, Any]:
    shared = {} if redis is None else {"redis": redis.url, "secret": "0123456789abcdef" * 4}
    return {
        "providers": {"main": {"base_url": mock.base_url, "api_keys": ["sk-provider-0123456789"]}},
        "models": {"m": {"targets": ["main/m"]}},
        "cache": {"exact": {"keep": "store"}},
        "resilience": NO_BREAKERS,
        **shared,
        **more,
    }


def chat(gateway: GatewayProcess, content: str, control: str = "") -> Answer:
    body = {"model": "m", "messages": [{"role": "user", "content": content}], "temperature": 0}
    headers = [("cache-control", control)] if control else []
    answer = ask(gateway.port, "/v1/chat/completions", body, headers=headers)
    assert answer.status in (200, 504), answer.body
    return answer


def status(answer: Answer) -> str:
    return answer.header("cache-status") or ""


def text(answer: Answer) -> str:
    return str(answer.json["choices"][0]["message"]["content"])


def test_gateways_find_each_others_answers(
    mock: MockProcess, redis: RedisServer, store: str, tmp_path: Path
) -> None:
    """And a purge at one of them reaches the other; one that starts anew finds what is there."""
    shared = settings(mock, redis, store=store)
    before = len(calls_of(mock, "m"))
    with GatewayProcess(tmp_path / "one", shared) as one, GatewayProcess(tmp_path / "two", shared) as two:
        first, second = chat(one, "shared"), chat(two, "shared")
        assert status(first) == "tiergate; fwd=miss; stored; ttl=3600"
        assert status(second).endswith("detail=redis") and text(first) == text(second)
        assert len(calls_of(mock, "m")) == before + 1
        two.stop()
        two.start()
        assert status(chat(two, "shared")).endswith("detail=redis")
        done = admin(one, "/api/cache/purge", body={"key": "local"})
        assert done.status == 200
        assert chat(one, "shared", "only-if-cached").status == 504
        until(lambda: chat(two, "shared", "only-if-cached").status == 504, what="the purge")
        # An erasure at one of them gives the other another salt: what it had is not found any more.
        chat(one, "again"), chat(two, "again")
        assert admin(one, "/api/erase", body={"key": "local"}).status == 200
        until(lambda: chat(two, "again", "only-if-cached").status == 504, what="the erasure")
        chat(two, "again")
        assert status(chat(one, "again")).endswith("detail=redis")


@pytest.mark.parametrize("how", ["frozen", "killed"])
def test_a_redis_that_goes_costs_no_call(
    mock: MockProcess, redis: RedisServer, tmp_path: Path, how: str
) -> None:
    """F23, F24: all are answered, within the bound; it is told once, and used again when it is back."""
    with GatewayProcess(tmp_path, settings(mock, redis)) as gateway:
        chat(gateway, "warm")
        if how == "frozen":
            redis.freeze()
        else:
            redis.stop()
        took_s = []
        for number in range(60):
            began = time.perf_counter()
            assert status(chat(gateway, f"without {how} {number}")).startswith("tiergate; fwd=miss; stored")
            took_s.append(time.perf_counter() - began)
        # One of them waits for it, and again one each time that it is tried.
        assert sorted(took_s)[len(took_s) // 2] < 0.05
        assert status(chat(gateway, f"without {how} 0")).endswith("detail=memory")
        assert len(gateway.log("cache_gone")) == 1
        if how == "frozen":
            redis.thaw()
        else:
            redis.start()

        def is_back() -> bool:
            chat(gateway, f"back {time.monotonic_ns()}")
            return bool(gateway.log("cache_back"))

        until(is_back, timeout_s=20, what="Redis")


def test_it_starts_without_redis(mock: MockProcess, redis: RedisServer, tmp_path: Path) -> None:
    """Gone from the beginning."""
    redis.stop()
    with GatewayProcess(tmp_path, settings(mock, redis)) as gateway:
        assert status(chat(gateway, "alone")).startswith("tiergate; fwd=miss; stored")
        assert status(chat(gateway, "alone")).endswith("detail=memory")


def test_a_redis_that_is_full_or_damaged_gives_no_wrong_answer(
    mock: MockProcess, redis: RedisServer, store: str, tmp_path: Path
) -> None:
    """F25, F26: what cannot be written is not; what cannot be read is asked anew."""
    shared = settings(mock, redis, store=store)
    with GatewayProcess(tmp_path / "one", shared) as one, GatewayProcess(tmp_path / "two", shared) as two:
        right = {name: text(chat(one, name)) for name in ("a", "b", "c")}
        keys = [line for line in redis.ask("KEYS", "*:answer:*").split("\r\n") if ":answer:" in line]
        assert len(keys) == 3
        # One is nonsense, one has another type, and one is the answer to another question.
        redis.ask("SET", keys[0], "nonsense")
        redis.ask("DEL", keys[1])
        redis.ask("LPUSH", keys[1], "x")
        redis.ask("COPY", keys[2], keys[0], "REPLACE")
        answers = {name: chat(two, name) for name in right}
        assert sum(status(answer).endswith("detail=redis") for answer in answers.values()) == 1
        assert {name: text(answer) for name, answer in answers.items()} == right
        redis.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
        redis.ask("CONFIG", "SET", "maxmemory", "1")
        assert status(chat(two, "full")).startswith("tiergate; fwd=miss; stored")
        assert status(chat(one, "full")).startswith("tiergate; fwd=miss; stored")
        assert not two.log("cache_gone")


def test_what_is_on_the_disk_outlives_a_restart(mock: MockProcess, tmp_path: Path) -> None:
    """Also a kill; a purge takes it from there, and so does a file that was damaged."""
    with GatewayProcess(tmp_path, settings(mock, None)) as gateway:
        first = chat(gateway, "kept")
        assert status(first) == "tiergate; fwd=miss; stored; ttl=3600"
        gateway.stop(9)
        gateway.start()
        again = chat(gateway, "kept")
        assert status(again).endswith("detail=disk") and text(again) == text(first)
        gateway.stop()
        # Also while no gateway runs.
        purged = cli("cache", "purge", "--all", folder=gateway.folder)
        assert purged.returncode == 0, purged.stderr
        gateway.start()
        assert status(chat(gateway, "kept")).startswith("tiergate; fwd=miss; stored")
        gateway.stop()
        (gateway.data_dir / "cache.db").write_bytes(b"no database at all" * 500)
        gateway.start()
        assert status(chat(gateway, "kept")).startswith("tiergate; fwd=miss; stored")
        assert status(chat(gateway, "kept")).endswith("detail=memory")
