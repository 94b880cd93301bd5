"""The admin plane while the ledger is in trouble, which is when somebody looks at it."""

import json
import resource
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from flow.plain_http import Answer, ask, bearer
from house import GatewayProcess, until
from tiergate.store import LEDGER_FILE, find_owner
from tiergate.testing import MockProcess

UNLIMITED = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


@pytest.fixture
def mock() -> Iterator[MockProcess]:
    with MockProcess(json.dumps({"default": {"words": 3, "ttft_ms": 500}})) as process:
        yield process


def settings(mock: MockProcess, *budgets: dict[str, Any]) -> dict[str, Any]:
    return {
        "providers": {"main": {"base_url": mock.base_url}},
        "prices": [{"target": "main/m", "usd_per_1m": {"input": 0, "output": 1000}}],
        "budgets": list(budgets),
    }


def admin(gateway: GatewayProcess, path: str, body: Any = None) -> Answer:
    owner = find_owner(gateway.data_dir)
    assert owner is not None and owner.admin is not None
    return ask(int(owner.admin.rpartition(":")[2]), path, body, headers=[bearer(owner.admin_token or "")])


def call(gateway: GatewayProcess) -> int:
    body = {"model": "main/m", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
    return ask(gateway.port, "/v1/chat/completions", body).status


def requests_seen(mock: MockProcess) -> int:
    with urlopen(mock.url + "/mock/statistics") as answer:
        found: int = json.load(answer)["requests"]
        return found


def test_metrics_come_without_the_ledger(mock: MockProcess, tmp_path: Path) -> None:
    """With what it refused; budgets whose spending only the ledger could tell are left out, not zero."""
    with GatewayProcess(tmp_path, settings(mock, {"scope": "all", "usd": 1})) as gateway:
        assert call(gateway) == 200
        resource.prlimit(gateway.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
        assert call(gateway) == 503
        page = admin(gateway, "/metrics")
        assert page.status == 200
        assert b'tiergate_budget_spent_usd{budget="all in total"} 0.003' in page.body
        assert (
            b'tiergate_failed_calls_total{end="failed",endpoint="chat",error="storage_unavailable"}'
            in page.body
        )
        gateway.write(settings(mock, {"scope": "all", "usd": 1, "per": "day"}))
        assert admin(gateway, "/api/reload", {}).status == 200
        page = admin(gateway, "/metrics")
        assert page.status == 200 and b"tiergate_settings_generation 2.0" in page.body
        assert b"tiergate_budget_spent_usd{" not in page.body
        refused = admin(gateway, "/api/budgets")
        assert (refused.status, refused.error["code"]) == (503, "storage_unavailable")
        resource.prlimit(gateway.pid, resource.RLIMIT_FSIZE, UNLIMITED)


@pytest.mark.parametrize("path", ["/api/usage", "/api/entries"])
def test_who_asks_about_the_past_does_not_wait_for_ever(mock: MockProcess, tmp_path: Path, path: str) -> None:
    """A settlement that cannot be written yet would be missing, so the answer is 503 after a bounded wait."""
    with GatewayProcess(tmp_path, settings(mock)) as gateway, ThreadPoolExecutor(1) as beside:
        running = beside.submit(call, gateway)
        until(lambda: requests_seen(mock), what="the call at the provider")
        with closing(sqlite3.connect(gateway.data_dir / LEDGER_FILE, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert running.result() == 200
            refused = admin(gateway, path)
            assert (refused.status, refused.error["code"]) == (503, "storage_unavailable")
            assert "cannot write now" in refused.error["message"]
            other.execute("ROLLBACK")
        until(lambda: admin(gateway, path).status == 200, what="the past")
