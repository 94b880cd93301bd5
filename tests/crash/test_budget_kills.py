"""A capped gateway that is killed again and again: what the provider bills never exceeds what is charged.

`TIERGATE_KILLS=1000 pytest tests/crash/test_budget_kills.py` takes a quarter of an hour; CI kills six times.
"""

import asyncio
import json
import os
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from house import GatewayProcess, until
from tiergate.app.client import GatewayClient
from tiergate.core import EndState, TiergateError
from tiergate.ledger import Entry, HoldState
from tiergate.testing import MockProcess

KILLS = int(os.environ.get("TIERGATE_KILLS", "6"))
KILLS_FOR_ONE_LEDGER = 20
CALLERS = 40
PER_TOKEN_NANOS = 1_000_000
MAX_TOKENS = 80
CAP_USD = 40.0
"""So much that most rounds are killed before it is used up, and the last ones after."""
SCRIPT = json.dumps(
    {
        "default": {"words": [2, 20], "ttft_ms": 3, "tokens_per_s": 2000},
        "rules": [{"when": {"probability": 0.1}, "then": {"words": [60, 120]}}],
    }
)


@pytest.fixture
def mock() -> Iterator[MockProcess]:
    with MockProcess(SCRIPT) as process:
        yield process


def settings(mock: MockProcess) -> dict[str, Any]:
    price = {"target": "dear/m", "usd_per_1m": {"input": 0, "output": PER_TOKEN_NANOS / 1000}}
    return {
        "providers": {"dear": {"base_url": mock.base_url}},
        "models": {"m": {"targets": ["dear/m"]}},
        "prices": [price],
        "budgets": [{"scope": "all", "usd": CAP_USD, "per": "total"}],
    }


def statistics(mock: MockProcess) -> dict[str, int]:
    with urlopen(mock.url + "/mock/statistics") as answer:
        found: dict[str, int] = json.load(answer)
        return found


async def call_until(port: int, is_over: Callable[[], bool]) -> None:
    """Ask without a pause, streamed and whole, some leaving in the middle, until the gateway is gone."""
    client = GatewayClient(f"127.0.0.1:{port}")

    async def one(number: int) -> None:
        chance = random.Random(number)
        while not is_over():
            body = {
                "model": "m",
                "max_tokens": MAX_TOKENS,
                "messages": [{"role": "user", "content": f"{chance.random()}"}],
            }
            with suppress(TiergateError):
                if number % 2:
                    await client.chat(body)
                else:
                    async for _ in client.stream({**body, "stream": True}):
                        if chance.random() < 0.01:
                            break
            await asyncio.sleep(0.001)

    async with asyncio.timeout(60):
        await asyncio.gather(*(one(number) for number in range(CALLERS)))
    await client.aclose()


async def killed_after(gateway: GatewayProcess, seconds: float) -> None:
    """Load it and kill it."""
    gone = False
    load = asyncio.create_task(call_until(gateway.port, lambda: gone))
    await asyncio.sleep(seconds)
    gateway.signal(9)
    gone = True
    await load


def charged_nanos(entries: list[Entry]) -> int:
    """What is settled, and what lapsed at its worst case."""
    return sum(
        (one.bound_nanos or 0) if one.state is HoldState.LAPSED else (one.cash_nanos or 0)
        for entry in entries
        for one in entry.attempts
    )


@pytest.mark.parametrize("ledger", range(-(-KILLS // KILLS_FOR_ONE_LEDGER)))
def test_billed_is_at_most_charged_is_at_most_the_cap(mock: MockProcess, tmp_path: Path, ledger: int) -> None:
    """After every kill; and each admitted call has one end."""
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    lapsed = 0
    gateway = GatewayProcess(tmp_path, settings(mock))
    for number in range(min(KILLS, KILLS_FOR_ONE_LEDGER)):
        what = f"kill {number} of ledger {ledger}, seed {seed}"
        gateway.start()
        asyncio.run(killed_after(gateway, chance.uniform(0.0, 0.25)))
        gateway.stop()
        until(lambda: statistics(mock)["in_flight"] == 0, what="the mock's rest")
        entries = gateway.ledger()
        charged = charged_nanos(entries)
        billed = statistics(mock)["output_tokens"] * PER_TOKEN_NANOS
        assert billed <= charged <= CAP_USD * 1e9, what
        assert len({entry.call_id for entry in entries}) == len(entries), what
        assert all(entry.end is not None for entry in entries), what
        lapsed = sum(one.state is HoldState.LAPSED for entry in entries for one in entry.attempts)
        held = sum(one.state is HoldState.HELD for entry in entries for one in entry.attempts)
        assert held == 0, what
        if any(entry.end is EndState.LAPSED for entry in entries):
            assert lapsed, what
    assert lapsed > 0, f"no kill came in the middle of a call, seed {seed}"
