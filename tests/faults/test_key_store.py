"""S07: where the store of keys cannot be used, nobody is let in by it, and nobody taken for a stranger."""

import resource
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from flow.plain_http import Answer, ask, bearer
from house import GatewayProcess, calls_of, cli
from tiergate.store import LEDGER_FILE, find_owner
from tiergate.testing import MockProcess


@pytest.fixture(scope="module")
def mock() -> Iterator[MockProcess]:
    with MockProcess('{"default": {"words": 3}}') as process:
        yield process


@pytest.fixture
def gateway(mock: MockProcess, tmp_path: Path) -> Iterator[GatewayProcess]:
    settings = {"auth": "keys", "providers": {"main": {"base_url": mock.base_url}}}
    with GatewayProcess(tmp_path, settings) as process:
        yield process


def admin(gateway: GatewayProcess, path: str, body: Any = None) -> Answer:
    owner = find_owner(gateway.data_dir)
    assert owner is not None and owner.admin is not None
    return ask(int(owner.admin.rpartition(":")[2]), path, body, headers=[bearer(owner.admin_token or "")])


def create(gateway: GatewayProcess, name: str) -> str:
    made = admin(gateway, "/api/keys", {"name": name, "models": ["main/*"]})
    assert made.status == 200
    return str(made.json["key"])


def call(gateway: GatewayProcess, key: str, model: str) -> tuple[int, str]:
    body = {"model": f"main/{model}", "messages": [{"role": "user", "content": "hi"}]}
    answer = ask(gateway.port, "/v1/chat/completions", body, headers=[bearer(key)])
    return answer.status, "" if answer.status == 200 else answer.error["code"]


def write(gateway: GatewayProcess, sql: str) -> None:
    """Write into the ledger behind the gateway's back."""
    with closing(sqlite3.connect(gateway.data_dir / LEDGER_FILE, isolation_level=None)) as connection:
        connection.execute(sql)


def test_s07_a_dead_store_is_503_and_changes_no_key(gateway: GatewayProcess, mock: MockProcess) -> None:
    """A key that is known stays known, a stranger a stranger; what could not be written has not happened."""
    key = create(gateway, "web")
    assert call(gateway, key, "alive") == (200, "")
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.prlimit(gateway.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    for path, body in (
        ("/api/keys", {"name": "new"}),
        ("/api/keys/web/revoke", {}),
        ("/api/keys/web/rotate", {}),
    ):
        refused = admin(gateway, path, body)
        assert (refused.status, refused.error["code"]) == (503, "storage_unavailable"), path
    assert call(gateway, key, "dead") == (503, "storage_unavailable")
    assert call(gateway, "tg-" + "x" * 40, "dead") == (401, "invalid_api_key")
    assert calls_of(mock, "dead") == []
    resource.prlimit(gateway.pid, resource.RLIMIT_FSIZE, unlimited)
    gateway.stop()
    gateway.start()
    assert [one["name"] for one in admin(gateway, "/api/keys").json["data"]] == ["web"]
    assert call(gateway, key, "again") == (200, "")


def test_s07_a_damaged_key_does_not_take_the_house_down(gateway: GatewayProcess) -> None:
    """No key is made beside it, and those that are in use open the door as before."""
    key = create(gateway, "web")
    write(gateway, "UPDATE virtual_key SET models = 'noise'")
    refused = admin(gateway, "/api/keys", {"name": "new"})
    assert refused.status == 503 and "The record of the key 'web'" in refused.error["message"]
    assert call(gateway, key, "alive") == (200, "")
    write(gateway, "UPDATE virtual_key SET models = NULL")
    assert create(gateway, "new")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("UPDATE virtual_key SET models = 'noise'", "The record of the key 'web' in the ledger is damaged"),
        ("ALTER TABLE virtual_key RENAME TO gone", "cannot be read"),
    ],
)
def test_s07_nothing_starts_without_its_keys(gateway: GatewayProcess, damage: str, said: str) -> None:
    """A house that does not know them would send their holders away as strangers, or let in those revoked."""
    create(gateway, "web")
    assert gateway.stop() == 0
    write(gateway, damage)
    done = cli("serve", "--config", str(gateway.settings_file), folder=gateway.folder)
    assert done.returncode == 1 and said in done.stderr and "Traceback" not in done.stderr
    assert find_owner(gateway.data_dir) is None
