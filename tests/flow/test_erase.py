"""Erasing a tenant: no text of it is left anywhere, its hashes say nothing, and others notice nothing."""

import json
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from admin import admin
from batches import Batches, ids, row
from flow.plain_http import Answer, ask, bearer
from house import GatewayProcess, calls_of, cli, until
from tiergate.testing import MockProcess

KEYS = {"web": "web-key-0123456789abcdef", "lone": "lone-key-0123456789abcdef"}


@pytest.fixture
def mock() -> Iterator[MockProcess]:
    rules = [
        {"when": {"model": "m"}, "then": {"reply": "canary-of-an-answer that somebody keeps"}},
        {"when": {"model": "slow"}, "then": {"reply": "canary-of-an-answer again", "ttft_ms": 1500}},
    ]
    with MockProcess(json.dumps({"rules": rules})) as process:
        yield process


@pytest.fixture
def gateway(mock: MockProcess, tmp_path: Path) -> Iterator[GatewayProcess]:
    settings = {
        "auth": "keys",
        "keys": [
            {"name": "web", "secret": KEYS["web"], "team": "x"},
            {"name": "x", "secret": KEYS["lone"]},
        ],
        "providers": {"main": {"base_url": mock.base_url, "api_keys": ["sk-provider-0123456789"]}},
        "models": {"m": {"targets": ["main/m"]}, "slow": {"targets": ["main/slow"]}},
        "cache": {"exact": {"keep": "store"}},
    }
    with GatewayProcess(tmp_path, settings) as process:
        yield process


def chat(gateway: GatewayProcess, key: str, *, receipt: str = "", model: str = "m") -> Answer:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "temperature": 0}
    more = [("idempotency-key", receipt)] if receipt else []
    answer = ask(gateway.port, "/v1/chat/completions", body, headers=[bearer(KEYS[key]), *more])
    assert answer.status == 200, answer.body
    return answer


def text_in(gateway: GatewayProcess) -> list[str]:
    """Give the files that hold a canary."""
    return [path.name for path in gateway.data_files() if b"canary-of" in path.read_bytes()]


def test_nothing_is_left_of_who_is_erased(gateway: GatewayProcess, mock: MockProcess) -> None:
    """A team; a key of the same name is somebody else."""
    chat(gateway, "web")
    assert chat(gateway, "web", receipt="r").header("x-tiergate-tier") == "cache"
    body = {"model": "m", "messages": [{"role": "user", "content": "another"}]}
    headers = [bearer(KEYS["web"]), ("idempotency-key", "warm")]
    for _ in range(2):
        last = ask(gateway.port, "/v1/chat/completions", body, headers=headers)
    assert last.header("x-tiergate-receipt") == "replayed"
    chat(gateway, "lone")
    asked = len(calls_of(mock, "m"))
    done = cli("erase", "--team", "x", folder=gateway.folder)
    assert done.returncode == 0 and "1 receipts, 0 batches and 0 files are gone" in done.stdout
    assert (
        ask(gateway.port, "/v1/chat/completions", body, headers=headers).header("x-tiergate-receipt") == "new"
    )
    assert (chat(gateway, "web").header("cache-status") or "").startswith("tiergate; fwd=miss")
    assert (chat(gateway, "lone").header("cache-status") or "").startswith("tiergate; hit")
    assert len(calls_of(mock, "m")) == asked + 2
    assert admin(gateway, "/api/erase", body={"key": "x"}).json["erased"]
    assert admin(gateway, "/api/erase", body={"team": "x"}).json["receipts"] == 1
    gateway.stop()
    assert text_in(gateway) == []
    with closing(sqlite3.connect(gateway.data_dir / "ledger.db")) as ledger:
        hashes = ledger.execute("SELECT request_hash FROM call WHERE team = 'x'").fetchall()
    # The same question under the salts of before and after.
    told = [one for (one,) in hashes if one is not None]
    assert (len(told), len(set(told))) == (3, 2)


def test_batches_and_files_go_too(gateway: GatewayProcess) -> None:
    """Those that ended, that run and that stand still; nothing of another tenant's."""
    web, lone = Batches(gateway, KEYS["web"]), Batches(gateway, KEYS["lone"])
    question = "canary-of-a-question"
    ended = web.begin([row("canary-of-an-id", question)])
    web.until(ended)
    running = web.begin([row(f"r{n}", question, model="slow") for n in range(20)], concurrency=2)
    other = lone.begin([row("mine", "canary-free")])
    lone.until(other)
    assert text_in(gateway)
    done = admin(gateway, "/api/erase", body={"team": "x"}).json
    assert (done["batches"], done["files"]) == (2, 2)
    assert [web.ask(f"batches/{one}").status for one in (ended, running)] == [404, 404]
    assert web.get("files")["data"] == [] and len(lone.get("files")["data"]) == 1
    assert ids(lone.answers(other)) == ["mine"]
    # Its answer is the other's own, and holds a canary, too.
    assert admin(gateway, "/api/erase", body={"key": "x"}).json["batches"] == 1
    gateway.stop()
    assert text_in(gateway) == []


def test_what_is_on_its_way_is_not_kept_either(gateway: GatewayProcess, mock: MockProcess) -> None:
    """Its asker is given it; whoever asks the same again asks anew, with a receipt and without."""
    with ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(chat, gateway, "web", receipt=one, model="slow") for one in ("", "r")]
        until(lambda: len(calls_of(mock, "slow")) == 2, what="both questions")
        assert admin(gateway, "/api/erase", body={"team": "x"}).status == 200
        answers = [one.result() for one in asking]
    assert len(answers) == 2
    assert (chat(gateway, "web", model="slow").header("cache-status") or "").startswith("tiergate; fwd=miss")
    gateway.stop()
    with closing(sqlite3.connect(gateway.data_dir / "ledger.db")) as ledger:
        assert ledger.execute("SELECT state, reply FROM receipt").fetchall() == [("done", None)]
