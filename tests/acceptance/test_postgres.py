"""Two replicas on one PostgreSQL database, as an operator has them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flow.plain_http import Answer, ask, bearer
from house import GatewayProcess, cli, until
from postgres import Server
from tiergate.testing import MockProcess


@pytest.fixture(scope="module")
def store(postgres_server: Server) -> Iterator[str]:
    with postgres_server.schema() as uri:
        yield uri


@pytest.fixture(scope="module")
def mock() -> Iterator[MockProcess]:
    with MockProcess('{"default": {"words": 3, "ttft_ms": 1}}') as process:
        yield process


def settings(mock: MockProcess, store: str) -> dict[str, Any]:
    return {
        "auth": "keys",
        "store": store,
        "secret": "the same at every replica, 32 characters or more",
        "providers": {"dear": {"base_url": mock.base_url}},
        "models": {"m": {"targets": ["dear/m"]}},
        "prices": [{"target": "dear/m", "usd_per_1m": {"input": 0, "output": 1000}}],
        "budgets": [{"scope": "all", "usd": 50}],
    }


@pytest.fixture(scope="module")
def replicas(
    mock: MockProcess, store: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[GatewayProcess, GatewayProcess]]:
    one, two = (
        GatewayProcess(tmp_path_factory.mktemp(name), settings(mock, store)) for name in ("one", "two")
    )
    with one, two:
        yield one, two


def chat(gateway: GatewayProcess, key: str) -> Answer:
    body = {"model": "m", "max_tokens": 10, "messages": [{"role": "user", "content": "hi"}]}
    return ask(gateway.port, "/v1/chat/completions", body, headers=[bearer(key)])


def create(gateway: GatewayProcess, name: str) -> str:
    done = cli("keys", "create", name, "--json", folder=gateway.folder)
    assert done.returncode == 0, done.stderr
    key: str = json.loads(done.stdout)["key"]
    return key


def test_calls_of_all_replicas_are_in_one_ledger(replicas: tuple[GatewayProcess, GatewayProcess]) -> None:
    """A key that is made at one is good at the other; reports and entries show what both have done."""
    one, two = replicas
    key = create(one, "web")
    assert chat(one, key).status == 200
    until(lambda: chat(two, key).status == 200, what="the key at the other replica")
    for gateway in replicas:
        report = cli("report", "spend", "--by", "key", "--json", folder=gateway.folder)
        (row,) = json.loads(report.stdout)["rows"]
        assert (row["key"], row["calls"], row["cost_usd"]) == ("web", 2, 0.006)
        entries = cli("entries", "list", "--json", folder=gateway.folder)
        assert len(json.loads(entries.stdout)["data"]) == 2
        assert "web" in cli("keys", "list", folder=gateway.folder).stdout


def test_what_is_not_shared_yet_is_said_at_the_start(
    replicas: tuple[GatewayProcess, GatewayProcess], store: str
) -> None:
    """Each replica counts budgets by itself; nobody is told the database's address."""
    for gateway in replicas:
        (line,) = [line for line in gateway.log() if line["event"] == "budgets_per_replica"]
        assert "Each replica counts budgets by itself" in str(line)
        assert store not in gateway.stdout + gateway.stderr


def test_a_backup_is_left_to_the_databases_own_tools(
    replicas: tuple[GatewayProcess, GatewayProcess],
) -> None:
    """Copying the data folder would look like a backup and be none."""
    for command in ("backup", "restore"):
        done = cli(command, "copy", folder=replicas[0].folder)
        assert done.returncode != 0
        assert "pg_dump" in done.stderr


def test_the_doctor_looks_at_the_database(
    replicas: tuple[GatewayProcess, GatewayProcess], mock: MockProcess, tmp_path: Path
) -> None:
    """It answers and holds a ledger, or it does not answer, and then what to do."""
    findings = json.loads(cli("doctor", "--json", folder=replicas[0].folder).stdout)["findings"]
    assert [one["verdict"] for one in findings if one["subject"] == "store"] == ["good"]
    away = GatewayProcess(tmp_path, settings(mock, "postgresql://u:geheim@127.0.0.1:1/ledger"))
    said = cli("doctor", "--json", folder=away.folder).stdout
    (found,) = [one for one in json.loads(said)["findings"] if one["subject"] == "store"]
    assert found["verdict"] == "bad" and "geheim" not in said


def test_replicas_need_the_same_secret(mock: MockProcess, tmp_path: Path) -> None:
    """One that each makes for itself would open nobody's keys at the others."""
    given = settings(mock, "postgresql://h/d")
    del given["secret"]
    done = cli("check", folder=GatewayProcess(tmp_path, given).folder)
    assert done.returncode != 0
    assert "secret: is needed with store" in done.stdout + done.stderr
