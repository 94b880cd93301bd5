"""Two replicas on one PostgreSQL database, as an operator has them."""

import json
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from flow.plain_http import Answer, ask, bearer
from house import GatewayProcess, calls_of, cli, until
from postgres import Server
from tiergate.testing import MockProcess

SCRIPT = """
default: {words: 3, ttft_ms: 1}
rules:
  - {when: {model: hangs}, then: {hang: true}}
"""


@pytest.fixture(scope="module")
def store(postgres_server: Server) -> Iterator[str]:
    with postgres_server.schema() as uri:
        yield uri


@pytest.fixture(scope="module")
def mock() -> Iterator[MockProcess]:
    with MockProcess(SCRIPT) as process:
        yield process


def settings(mock: MockProcess, store: str) -> dict[str, Any]:
    return {
        "auth": "keys",
        "store": store,
        "secret": "the same at every replica, 32 characters or more",
        "providers": {"dear": {"base_url": mock.base_url}},
        "models": {name: {"targets": [f"dear/{name}"]} for name in ("m", "hangs")},
        "prices": [
            {"target": f"dear/{name}", "usd_per_1m": {"input": 0, "output": 1000}} for name in ("m", "hangs")
        ],
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


def chat(gateway: GatewayProcess, key: str, *headers: tuple[str, str], model: str = "m") -> Answer:
    body = {"model": model, "max_tokens": 10, "messages": [{"role": "user", "content": "hi"}]}
    return ask(gateway.port, "/v1/chat/completions", body, headers=[bearer(key), *headers])


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


def test_a_key_that_is_revoked_at_one_opens_nothing_at_the_other(
    replicas: tuple[GatewayProcess, GatewayProcess],
) -> None:
    """Within five seconds, however busy that one is, and for good."""
    one, two = replicas
    key = create(one, "leaver")
    until(lambda: chat(two, key).status == 200, what="the key at the other replica")
    answers: list[tuple[float, int]] = []
    with ThreadPoolExecutor(8) as pool:
        over = threading.Event()

        def call() -> None:
            while not over.is_set():
                status = chat(two, key).status
                answers.append((time.monotonic(), status))

        callers = [pool.submit(call) for _ in range(8)]
        until(lambda: len(answers) > 20, what="some answers")
        assert cli("keys", "revoke", "leaver", folder=one.folder).returncode == 0
        revoked = time.monotonic()
        until(lambda: answers[-1][1] == 401, timeout_s=10, what="the first refusal")
        time.sleep(1)
        over.set()
        for caller in callers:
            caller.result()
    assert {status for _, status in answers} == {200, 401}
    last_good = max(at for at, status in answers if status == 200)
    first_bad = min(at for at, status in answers if status == 401)
    assert last_good < revoked + 5.5
    assert last_good < first_bad + 0.5
    assert chat(two, key).status == chat(one, key).status == 401


def test_nobody_is_told_the_databases_address(
    replicas: tuple[GatewayProcess, GatewayProcess], store: str
) -> None:
    """It may hold a password."""
    for gateway in replicas:
        assert store not in gateway.stdout + gateway.stderr


def test_a_question_that_is_sent_again_to_the_other_replica_is_answered_once(
    replicas: tuple[GatewayProcess, GatewayProcess], mock: MockProcess
) -> None:
    """The receipt is in the database."""
    one, two = replicas
    key = create(one, "twice")
    before = len(calls_of(mock, "m"))
    first = chat(one, key, ("Idempotency-Key", "k"))
    assert first.status == 200
    until(lambda: chat(two, key).status == 200, what="the key at the other replica")
    again = chat(two, key, ("Idempotency-Key", "k"))
    assert (again.status, again.header("x-tiergate-receipt")) == (200, "replayed")
    assert first.json["choices"] == again.json["choices"]
    assert len(calls_of(mock, "m")) == before + 2


def test_replicas_share_a_budget_and_one_is_killed(
    postgres_server: Server, mock: MockProcess, tmp_path: Path
) -> None:
    """The cap holds, nearly all of it is used, and what the dead one held is charged."""
    with postgres_server.schema() as store:
        written = settings(mock, store) | {"auth": "open", "budgets": [{"scope": "all", "usd": 1.5}]}
        one, two = (GatewayProcess(tmp_path / name, written) for name in ("one", "two"))
        with one, two, ThreadPoolExecutor(40) as pool:

            def calls(count: int) -> list[int]:
                return list(pool.map(lambda n: chat((one, two)[n % 2], "x").status, range(count)))

            assert set(calls(150)) == {200}
            # The worst case of a call is $0.01, its cost $0.003.
            hanging = pool.submit(chat, one, "x", model="hangs")
            until(lambda: calls_of(mock, "hangs"), what="a call that hangs")
            one.stop(signal.SIGKILL)
            hanging.exception()
            one.start()
            statuses = calls(600)
            assert set(statuses) <= {200, 402}
            budgets = json.loads(cli("report", "budgets", "--json", folder=two.folder).stdout)["data"]
            spent = json.loads(cli("report", "spend", "--json", folder=one.folder).stdout)
    (budget,) = budgets
    assert (budget["held_usd"], budget["lapsed_usd"]) == (0, 0.01)
    assert 1.48 < budget["spent_usd"] <= 1.5
    assert spent["total_usd"] == budget["spent_usd"]


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
