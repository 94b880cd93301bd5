"""A capped gateway that is killed again and again: what the provider bills never exceeds what is charged, and
what is asked twice under one Idempotency-Key is answered once.

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
from tiergate.core import EndState, Outcome, ReceiptUse, Reply, TiergateError
from tiergate.ledger import Entry, HoldState
from tiergate.testing import MockProcess

KILLS = int(os.environ.get("TIERGATE_KILLS", "6"))
KILLS_FOR_ONE_LEDGER = 20
CALLERS = 40
KEYS = 200
"""Idempotency-Keys of whole calls, and as many of streams: few enough to be sent again."""
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


async def call_until(port: int, is_over: Callable[[], bool]) -> list[Reply]:
    """Ask without a pause, streamed and whole, some leaving in the middle, until the gateway is gone.

    Gives the whole replies that arrived.
    """
    replies: list[Reply] = []
    client = GatewayClient(f"127.0.0.1:{port}")

    async def one(number: int) -> None:
        chance = random.Random(number)
        while not is_over():
            content, headers = f"{chance.random()}", {}
            if number % 4 < 2:
                content = f"{number % 2} {chance.randrange(KEYS)}"
                headers = {"idempotency-key": content, "x-tiergate-tag": content}
            body = {
                "model": "m",
                "max_tokens": MAX_TOKENS,
                "messages": [{"role": "user", "content": content}],
            }
            with suppress(TiergateError):
                if number % 2:
                    replies.append(await client.chat(body, headers=headers))
                else:
                    async for _ in client.stream({**body, "stream": True}, headers=headers):
                        if chance.random() < 0.01:
                            break
            await asyncio.sleep(0.001)

    async with asyncio.timeout(60):
        await asyncio.gather(*(one(number) for number in range(CALLERS)))
    await client.aclose()
    return replies


async def killed_after(gateway: GatewayProcess, seconds: float) -> list[Reply]:
    """Load it and kill it; give what its callers were told until then."""
    gone = False
    load = asyncio.create_task(call_until(gateway.port, lambda: gone))
    await asyncio.sleep(seconds)
    gateway.signal(9)
    gone = True
    return await load


def charged_nanos(entries: list[Entry]) -> int:
    """What is settled, and what lapsed at its worst case."""
    return sum(
        (one.bound_nanos or 0) if one.state is HoldState.LAPSED else (one.cash_nanos or 0)
        for entry in entries
        for one in entry.attempts
    )


def check_receipts(entries: list[Entry], what: str) -> None:
    """Each question has one complete answer that was paid for; every other one is that one, or lapsed."""
    by_id = {entry.call_id: entry for entry in entries}
    answers: dict[str, str] = {}
    for entry in entries:
        if any(one.outcome is Outcome.SUCCESS for one in entry.attempts) and entry.tag is not None:
            assert entry.receipt in (ReceiptUse.NEW, ReceiptUse.RESENT), what
            assert entry.tag not in answers, f"{what}: {entry.tag} was answered twice"
            answers[entry.tag] = entry.call_id
    for entry in entries:
        if entry.receipt is ReceiptUse.RESENT:
            before = by_id[entry.answer_of or ""]
            assert [one.state for one in before.attempts][-1:] == [HoldState.LAPSED], what
        elif entry.receipt is ReceiptUse.REPLAYED:
            assert entry.answer_of == answers[entry.tag or ""], what
            assert entry.attempts == (), what


def check_replies(replies: list[Reply], entries: list[Entry], what: str) -> None:
    """What a caller was told is in the ledger: that it paid, and how much; or its settlement was lost."""
    by_id = {entry.call_id: entry for entry in entries}
    for reply in replies:
        if reply.origin.receipt in (ReceiptUse.JOINED, ReceiptUse.REPLAYED):
            assert reply.cash_nanos == 0, what
            continue
        last = by_id[reply.origin.call_id].attempts[-1]
        if last.state is HoldState.LAPSED:
            assert reply.cash_nanos is not None, what
            assert reply.cash_nanos <= (last.bound_nanos or 0), what
        else:
            assert (last.state, last.cash_nanos) == (HoldState.SETTLED, reply.cash_nanos), what


@pytest.mark.parametrize("ledger", range(-(-KILLS // KILLS_FOR_ONE_LEDGER)))
def test_billed_is_at_most_charged_is_at_most_the_cap(mock: MockProcess, tmp_path: Path, ledger: int) -> None:
    """After every kill; and each admitted call has one end."""
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    lapsed, uses = 0, set[ReceiptUse | None]()
    gateway = GatewayProcess(tmp_path, settings(mock))
    for number in range(min(KILLS, KILLS_FOR_ONE_LEDGER)):
        what = f"kill {number} of ledger {ledger}, seed {seed}"
        gateway.start()
        replies = asyncio.run(killed_after(gateway, chance.uniform(0.0, 0.25)))
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
        check_receipts(entries, what)
        check_replies(replies, entries, what)
        uses = {entry.receipt for entry in entries}
        if any(entry.end is EndState.LAPSED for entry in entries):
            assert lapsed, what
    expected = {ReceiptUse.NEW, ReceiptUse.REPLAYED}
    if number + 1 >= KILLS_FOR_ONE_LEDGER:
        # Of few kills perhaps none came between a keyed question and its answer.
        expected.add(ReceiptUse.RESENT)
    assert uses >= expected, f"too few questions, seed {seed}"
    assert lapsed > 0, f"no kill came in the middle of a call, seed {seed}"
