"""A gateway that is killed again and again in the middle of a batch: no row is lost, none is there twice, and
what the provider bills is never more than what is charged.

`TIERGATE_KILLS=50 TIERGATE_ROWS=20000 pytest tests/crash/test_batch_kills.py` takes two minutes; CI
kills five times.
"""

import asyncio
import json
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from batches import Batches, rows_in, rows_of, written
from house import GatewayProcess, environment, nursery, until
from nursery import Child
from tiergate.app.house import read_ledger
from tiergate.ledger import Entry, HoldState
from tiergate.testing import MockProcess

KILLS = int(os.environ.get("TIERGATE_KILLS", "5"))
ROWS = int(os.environ.get("TIERGATE_ROWS", "2000"))
CONCURRENCY = 50
PER_TOKEN_NANOS = 100_000
MAX_TOKENS = 60
SCRIPT = json.dumps(
    {
        "default": {"words": [2, 20], "ttft_ms": 40},
        "rules": [{"when": {"probability": 0.05}, "then": {"words": 60, "ttft_ms": 300}}],
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
    }


def statistics(mock: MockProcess) -> dict[str, int]:
    with urlopen(mock.url + "/mock/statistics") as answer:
        found: dict[str, int] = json.load(answer)
        return found


def check_money(entries: list[Entry], mock: MockProcess) -> None:
    """What was billed is charged: settled, or lapsed at its worst case; nothing is held any more."""
    attempts = [one for entry in entries for one in entry.attempts]
    assert all(one.state in (HoldState.SETTLED, HoldState.RELEASED, HoldState.LAPSED) for one in attempts)
    charged = sum(
        (one.bound_nanos or 0) if one.state is HoldState.LAPSED else (one.cash_nanos or 0) for one in attempts
    )
    assert statistics(mock)["output_tokens"] * PER_TOKEN_NANOS <= charged


def check_output(rows: list[dict[str, Any]], count: int) -> None:
    """One answer for each row, in the order of the input."""
    assert [one["custom_id"] for one in rows] == [f"row-{n}" for n in range(1, count + 1)]
    assert [one["tiergate"]["n"] for one in rows] == list(range(1, count + 1))


def test_a_gateway_that_is_killed_loses_no_row_and_asks_few_again(mock: MockProcess, tmp_path: Path) -> None:
    """0 missing, 0 twice, the order kept; a kill lets at most those be asked again that were being asked."""
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    gateway = GatewayProcess(tmp_path, settings(mock))
    batches, batch = Batches(gateway), ""
    lost: list[int] = []
    for number in range(KILLS + 1):
        what = f"kill {number}, seed {seed}"
        gateway.start()
        if not batch:
            rows = rows_of(ROWS, max_tokens=MAX_TOKENS)
            batch = batches.begin(rows, concurrency=CONCURRENCY, budget_usd=1_000_000)
        interrupted = batches.look(batch)["tiergate"]["interrupted"]
        lost.append(interrupted - sum(lost))
        assert lost[-1] <= CONCURRENCY, what
        if number == KILLS:
            break
        time.sleep(chance.uniform(0.0, 0.4 * ROWS / 1_000 * 5 / KILLS))
        gateway.signal(signal.SIGKILL)
        gateway.stop()
    found = batches.until(batch, timeout_s=300)
    assert found["request_counts"] == {"total": ROWS, "completed": ROWS, "failed": 0}, f"seed {seed}"
    check_output(batches.answers(batch), ROWS)
    assert gateway.stop() == 0
    entries = gateway.ledger()
    check_money(entries, mock)
    asked = statistics(mock)["requests"]
    print(f"asked again {asked - ROWS}, a kill: {lost[1:]}")
    assert asked - ROWS <= sum(lost), f"seed {seed}"
    assert sum(lost), f"no kill came while lines were asked, seed {seed}"
    answered = {entry.line for entry in entries if entry.job == batch and entry.answer_of is not None}
    assert len(answered) <= sum(lost)


# The command.


def begin(folder: Path, *arguments: str) -> Child:
    """Begin `tiergate batch run`, with its output in files beside."""
    files = {name: folder / f"run.{name}" for name in ("out", "err")}
    return nursery().start(["batch", "run", *arguments], folder=folder, environ=environment(), **files)


def input_file(folder: Path, count: int) -> None:
    (folder / "in.jsonl").write_bytes(written(rows_of(count, max_tokens=MAX_TOKENS)))


RUN = ("in.jsonl", "-o", "out.jsonl", "--concurrency", str(CONCURRENCY))


def test_killing_the_command_costs_a_batch_of_a_gateway_nothing(mock: MockProcess, tmp_path: Path) -> None:
    """The gateway goes on; the same command follows again and writes the output. Nothing is asked twice."""
    count = min(ROWS, 600)
    input_file(tmp_path, count)
    with GatewayProcess(tmp_path, settings(mock)) as gateway:
        batches = Batches(gateway)
        run = begin(tmp_path, *RUN)
        (batch,) = until(lambda: [one["id"] for one in batches.get("batches")["data"]], what="the batch")
        batches.until_done(batch, 20)
        run.kill()
        assert run.wait() == -signal.SIGKILL
        batches.until_done(batch, 60)
        assert begin(tmp_path, *RUN).wait(60) == 0, (tmp_path / "run.err").read_text()
        (only,) = batches.get("batches")["data"]
        assert (only["id"], only["tiergate"]["interrupted"]) == (batch, 0)
        check_output(rows_in((tmp_path / "out.jsonl").read_bytes()), count)
        assert statistics(mock)["requests"] == count
        assert len(gateway.check_books()) == count


def test_a_command_that_works_by_itself_is_killed_and_goes_on(mock: MockProcess, tmp_path: Path) -> None:
    """Without a gateway, killed at any moment: the same command again ends with one row for each."""
    count = min(ROWS, 600)
    input_file(tmp_path, count)
    gateway = GatewayProcess(tmp_path, settings(mock))
    asked = 0
    for wanted in (0, 150):
        run = begin(tmp_path, *RUN)
        if wanted:
            until(lambda least=asked + wanted: statistics(mock)["requests"] >= least, what="some calls")
        else:
            time.sleep(0.3)
        run.kill()
        assert run.wait() == -signal.SIGKILL
        asked = statistics(mock)["requests"]
        assert not (tmp_path / "out.jsonl").exists()
    assert begin(tmp_path, *RUN).wait(60) == 0, (tmp_path / "run.err").read_text()
    check_output(rows_in((tmp_path / "out.jsonl").read_bytes()), count)
    assert statistics(mock)["requests"] <= count + 2 * CONCURRENCY
    assert not (tmp_path / "out.errors.jsonl").exists()
    check_money(asyncio.run(ledger_of(gateway.data_dir)), mock)
    assert begin(tmp_path, *RUN).wait(60) == 0
    assert "is complete" in (tmp_path / "run.err").read_text()


async def ledger_of(data_dir: Path) -> list[Entry]:
    return [entry async for entry in read_ledger(data_dir)]
