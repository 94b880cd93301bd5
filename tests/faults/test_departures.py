"""Callers that leave at any point, Redis in the path: nobody gets another's answer, and nothing is left.

Names carry the row of the fault matrix.
"""

import json
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest

from admin import admin
from flow.plain_http import Answer, ask, request
from house import GatewayProcess, calls_of, until
from redis_server import RedisServer, serving_redis
from tiergate.testing import MockProcess

SCRIPT = """
default: {echo: true, ttft_ms: 5}
rules:
  - {when: {model: "slow*"}, then: {echo: true, ttft_ms: 60, tokens_per_s: 300}}
"""
SECRET = "sk-of-ci-0123456789abcdef"
LIMITS = {"rpm": 1_000_000, "tpm": 100_000_000, "concurrency": 200}
CALLERS = 1_000
_ANSWER_BYTES = 900
"""About so long is an answer; whoever wants more of it has seen its end."""


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with serving_redis() as server:
        yield server


def question(number: int, *, streamed: bool) -> dict[str, Any]:
    text = f"caller {number} " + f"word-{number} " * 20
    model = "main/slow" if number % 3 else "main/quick"
    return {"model": model, "messages": [{"role": "user", "content": text}], "stream": streamed}


def said(answer: Answer, *, streamed: bool) -> str:
    if not streamed:
        return str(answer.json["choices"][0]["message"]["content"])
    events = [json.loads(event) for event in answer.events[:-1]]
    return "".join(event["choices"][0]["delta"].get("content") or "" for event in events if event["choices"])


def leave_somewhere(port: int, number: int, random: Random) -> None:
    """Send a part of a request, or all of it and read a part of the answer, and hang up, rudely or not."""
    body = question(number, streamed=random.random() < 0.5)
    wire = request("/v1/chat/completions", body, headers=[("authorization", f"Bearer {SECRET}")])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        if random.random() < 0.4:
            connection.sendall(wire[: random.randrange(len(wire))])
        else:
            connection.sendall(wire)
            wanted = random.randrange(_ANSWER_BYTES)
            while wanted > 0 and (data := connection.recv(wanted)):
                wanted -= len(data)
        if random.random() < 0.5:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def stay(port: int, number: int) -> bool:
    """Tell whether a caller that stays hears its own words, all of them, and nothing else."""
    streamed = number % 2 == 0
    body = question(number, streamed=streamed)
    answer = ask(port, "/v1/chat/completions", body, headers=[("authorization", f"Bearer {SECRET}")])
    assert answer.status == 200 and answer.whole, answer.raw[:300]
    return said(answer, streamed=streamed).strip() == body["messages"][0]["content"].strip()


def limits_left(gateway: GatewayProcess) -> dict[str, Any]:
    headers = [("authorization", f"Bearer {SECRET}")]
    return dict(ask(gateway.port, "/v1/key", headers=headers).json["limits_left"])


def is_quiet(gateway: GatewayProcess) -> bool:
    """Tell whether nothing is in flight, nothing waits, no place is taken."""
    rows = admin(gateway, "/api/targets").json["data"]
    no_places = all(row["in_flight"] == row["waiting"] == 0 for row in rows)
    return no_places and limits_left(gateway)["concurrency"] == LIMITS["concurrency"]


def test_f23_a_thousand_callers_that_leave(redis: RedisServer, tmp_path: Path) -> None:
    """One in ten stays and gets its own answer; then every place is free and every call has its one end."""
    settings = {
        "auth": "keys",
        "keys": [{"name": "ci", "secret": SECRET, "limits": LIMITS}],
        "redis": redis.url,
        "secret": "0123456789abcdef0123456789abcdef",
    }
    with MockProcess(SCRIPT) as mock:
        settings["providers"] = {"main": {"base_url": mock.base_url, "limits": LIMITS}}
        with GatewayProcess(tmp_path, settings) as gateway, ThreadPoolExecutor(30) as pool:
            until(partial(is_quiet, gateway), what="silence")
            baseline = gateway.descriptors

            def come(number: int) -> bool:
                if number % 10 == 0:
                    return stay(gateway.port, number)
                leave_somewhere(gateway.port, number, Random(number))
                return True

            assert all(pool.map(come, range(1, CALLERS + 1)))
            until(partial(is_quiet, gateway), what="silence")
            assert all(stay(gateway.port, number) for number in range(2_000, 2_010))
            assert "concurrency" in redis.ask("KEYS", "*"), "Redis is in the path"
            asked = len(calls_of(mock, "slow")) + len(calls_of(mock, "quick"))
            mock.close()  # and its idle connections with it
            until(lambda: gateway.descriptors <= baseline, what=f"no more than {baseline} descriptors")
            entries = gateway.check_books()
    assert CALLERS * 0.5 < asked <= sum(len(entry.attempts) for entry in entries)
