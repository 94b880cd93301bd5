"""The admin plane and its commands as an operator has them: over HTTP, and from the command line."""

import json
import re
import signal
import socket
import stat
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from admin import admin
from flow.plain_http import Answer, ask, bearer, request
from house import GatewayProcess, cli, until
from tiergate.core import id_time_ns
from tiergate.store import find_owner
from tiergate.testing import MockProcess

KEY = "web-key-0123456789abcdef"


@pytest.fixture(scope="module")
def mock() -> Iterator[MockProcess]:
    rules = [{"when": {"model": "slow"}, "then": {"words": 5, "ttft_ms": 3000}}]
    with MockProcess(json.dumps({"default": {"words": 3, "ttft_ms": 1}, "rules": rules})) as process:
        yield process


def settings(mock: MockProcess, **more: Any) -> dict[str, Any]:
    return {
        "auth": "keys",
        "keys": [{"name": "web", "secret": KEY, "team": "shop"}],
        "providers": {"dear": {"base_url": mock.base_url, "api_keys": ["sk-canary-0123456789-abcd"]}},
        "models": {"m": {"targets": ["dear/m"]}, "slow": {"targets": ["dear/slow"]}},
        "prices": [
            {"target": f"dear/{name}", "usd_per_1m": {"input": 0, "output": 1000}} for name in ("m", "slow")
        ],
        "budgets": [{"scope": "key:web", "usd": 0.1}],
        **more,
    }


@pytest.fixture(scope="module")
def gateway(mock: MockProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with GatewayProcess(tmp_path_factory.mktemp("admin"), settings(mock)) as process:
        for tag in ("one", "two"):
            chat(process, "m", 10, tag=tag)
        yield process


def chat(gateway: GatewayProcess, model: str, max_tokens: int, *, tag: str = "") -> Answer:
    body = {"model": model, "max_tokens": max_tokens, "messages": [{"role": "user", "content": "hi"}]}
    tags = [("x-tiergate-tag", tag)] if tag else []
    return ask(gateway.port, "/v1/chat/completions", body, headers=[bearer(KEY), *tags])


def test_budgets_usage_and_entries_agree(gateway: GatewayProcess) -> None:
    """Over HTTP and from the command line, and with the headers that the calls had."""
    (budget,) = admin(gateway, "/api/budgets").json["data"]
    assert (budget["scope"], budget["spent_usd"], budget["left_usd"]) == ("key:web", 0.006, 0.094)
    usage = admin(gateway, "/api/usage?by=key,tag").json
    assert usage["total_usd"] == 0.006 and {row["tag"] for row in usage["rows"]} == {"one", "two"}
    entries = admin(gateway, "/api/entries?tag=one").json["data"]
    assert [(entry["tag"], entry["cost_usd"]) for entry in entries] == [("one", 0.003)]
    said = cli("report", "budgets", "--json", folder=gateway.folder)
    assert json.loads(said.stdout)["data"] == [budget]
    table = cli("report", "budgets", folder=gateway.folder).stdout
    assert "key:web in total" in table and "$0.094" in table
    listed = cli("entries", "list", "--key", "web", folder=gateway.folder)
    assert listed.stdout.count("dear/m") == 2 and "$0.003" in listed.stdout
    shown = cli("entries", "show", entries[0]["id"], folder=gateway.folder)
    assert "settled" in shown.stdout and "$0.003" in shown.stdout


def test_metrics_are_a_page_for_prometheus(gateway: GatewayProcess) -> None:
    """With the token only."""
    page = admin(gateway, "/metrics")
    assert page.status == 200 and str(page.header("content-type")).startswith("text/plain")
    assert b'tiergate_calls_total{class="interactive",end="success"' in page.body
    assert b'tiergate_budget_spent_usd{budget="key:web in total"} 0.006' in page.body


def test_no_secret_is_shown_and_no_other_key_opens_it(gateway: GatewayProcess) -> None:
    """S10: the data plane's key, the command line's token, nothing."""
    config = admin(gateway, "/api/config")
    assert b"sk-canary" not in config.body and KEY.encode() not in config.body and b"abcd" in config.body
    for token in (KEY, gateway.token, "x"):
        assert admin(gateway, "/api/budgets", token=token).status == 401
    assert ask(gateway.port, "/api/budgets", headers=[bearer(KEY)]).status == 404
    mode = stat.S_IMODE((gateway.data_dir / "admin.token").stat().st_mode)
    assert mode == 0o600


def test_it_listens_on_this_machine_only(gateway: GatewayProcess) -> None:
    """Unless somebody sets an address, which then needs a token of theirs."""
    owner = find_owner(gateway.data_dir)
    assert owner is not None and owner.admin is not None and owner.admin.startswith("127.0.0.1:")
    port = int(owner.admin.rpartition(":")[2])
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.2", port)) != 0
    headers = [bearer(owner.admin_token or "")]
    assert ask(port, "/api/budgets", headers=headers, host="evil.example").status == 421


def test_a_reload_from_the_admin_plane(gateway: GatewayProcess, mock: MockProcess) -> None:
    """A good file is taken, a bad one refused with the reason in the log."""
    gateway.write(settings(mock, budgets=[{"scope": "key:web", "usd": 0.2}]))
    assert admin(gateway, "/api/reload", body={}).json == {"reloaded": True}
    assert admin(gateway, "/api/budgets").json["data"][0]["usd"] == 0.2
    gateway.write_text("nonsense: true\n")
    assert admin(gateway, "/api/reload", body={}).status == 400
    until(lambda: gateway.log("reload_refused"), what="the reason")
    gateway.write(settings(mock))
    assert admin(gateway, "/api/reload", body={}).status == 200


def test_a_reload_from_here_changes_the_door_too(gateway: GatewayProcess, mock: MockProcess) -> None:
    """A page's origin that was listed is listed no more, as after a signal."""
    page = ("origin", "https://page.example")
    gateway.write(settings(mock, cors=["https://page.example"]))
    assert admin(gateway, "/api/reload", body={}).status == 200
    assert ask(gateway.port, "/v1/models", headers=[bearer(KEY), page]).status == 200
    gateway.write(settings(mock))
    assert admin(gateway, "/api/reload", body={}).status == 200
    assert ask(gateway.port, "/v1/models", headers=[bearer(KEY), page]).status == 403


def test_a_call_is_of_one_moment_however_slowly_it_was_sent(gateway: GatewayProcess) -> None:
    """A budget's window goes by its time, the ledger's sums by its id: the two must not differ."""
    body = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
    sent = request("/v1/chat/completions", body, headers=[bearer(KEY)])
    with socket.create_connection(("127.0.0.1", gateway.port)) as connection:
        connection.sendall(sent[:-5])
        time.sleep(0.3)
        connection.sendall(sent[-5:])
        head = connection.recv(65536).decode()
    (call_id,) = re.findall(r"x-request-id: (\w+)", head)
    received = datetime.fromisoformat(admin(gateway, f"/api/entries/{call_id}").json["received"])
    assert int(received.timestamp() * 1000) == id_time_ns(call_id) // 1_000_000


def test_what_a_kill_left_is_resolved_with_the_budget(mock: MockProcess, tmp_path: Path) -> None:
    """Through the running gateway, and while none runs: the money is there again at once."""
    with GatewayProcess(tmp_path, settings(mock)) as gateway:
        for _ in range(2):
            kill_in_the_middle(gateway, mock)
        told = until(lambda: gateway.log("ledger_lapsed"), what="the line")
        assert "1 holds and 1 calls lapsed" in told[-1]["message"]
        lapsed = json.loads(cli("entries", "list", "--lapsed", "--json", folder=tmp_path).stdout)["data"]
        assert [entry["attempts"][0]["state"] for entry in lapsed] == ["lapsed", "lapsed"]
        assert chat(gateway, "m", 40).error["code"] == "budget_exceeded"
        resolved = cli("entries", "resolve", lapsed[0]["id"], "--cost-usd", "0.001", folder=tmp_path)
        assert resolved.returncode == 0 and "resolved" in resolved.stdout
        assert chat(gateway, "m", 40).status == 200
        again = cli("entries", "resolve", lapsed[0]["id"], "--cost-usd", "0.001", folder=tmp_path)
        assert again.returncode == 1
        assert f"Attempt 1 of the call {lapsed[0]['id']} was already settled, with $0.001." in again.stderr
        # What the provider bills for the day settles the rest of what lapsed, through the running gateway.
        day = lapsed[0]["received"][:10]
        (tmp_path / "usage.csv").write_text(f"day,model,cost_usd\n{day},slow,0.011\n{day},m,0.003\n")
        told = cli("report", "reconcile", "usage.csv", "--provider", "dear", folder=tmp_path)
        assert told.returncode == 1 and "worst cases are charged here" in told.stdout
        assert "--settle-lapsed" in told.stdout
        # The day is not over, and more may be billed yet.
        how = ("--provider", "dear", "--settle-lapsed")
        waits = cli("report", "reconcile", "usage.csv", *how, folder=tmp_path)
        assert "$0.0400 stays lapsed" in waits.stdout
        (tmp_path / "other.csv").write_text(f"day,model,cost_usd\n{day},m,0.003\n")
        unnamed = cli("report", "reconcile", "other.csv", *how, "--today-too", folder=tmp_path)
        assert "$0.0400 stays lapsed" in unnamed.stdout
        how = (*how, "--today-too", "--json")
        done = json.loads(cli("report", "reconcile", "usage.csv", *how, folder=tmp_path).stdout)
        assert [(one["call"], one["cost_usd"]) for one in done["settled"]] == [(lapsed[1]["id"], 0.01)]
        agreed = cli("report", "reconcile", "usage.csv", "--provider", "dear", folder=tmp_path)
        assert agreed.returncode == 0 and agreed.stdout.count("agrees") == 2
        kill_in_the_middle(gateway, mock)
        lapsed = json.loads(cli("entries", "list", "--lapsed", "--json", folder=tmp_path).stdout)["data"]
        assert gateway.stop() == 0
        offline = cli("entries", "resolve", lapsed[0]["id"], "--cost-usd", "0", "--json", folder=tmp_path)
        assert json.loads(offline.stdout)["cost_usd"] == 0
        (budget,) = json.loads(cli("report", "budgets", "--json", folder=tmp_path).stdout)["data"]
        assert (budget["lapsed_usd"], budget["held_usd"]) == (0, 0) and budget["spent_usd"] == 0.014
        gateway.start()


def requests_seen(mock: MockProcess) -> int:
    with urlopen(mock.url + "/mock/statistics") as answer:
        found: int = json.load(answer)["requests"]
        return found


def held_usd(gateway: GatewayProcess) -> float:
    held: float = admin(gateway, "/api/budgets").json["data"][0]["held_usd"]
    return held


def kill_in_the_middle(gateway: GatewayProcess, mock: MockProcess) -> None:
    """Kill the gateway with a call in flight, and start it again."""
    body = {"model": "slow", "max_tokens": 40, "messages": [{"role": "user", "content": "hi"}]}
    sent = request("/v1/chat/completions", body, headers=[bearer(KEY)])
    before = requests_seen(mock)
    with socket.create_connection(("127.0.0.1", gateway.port)) as connection:
        connection.sendall(sent)
        # Money is held in memory first; the provider sees the call only once the hold is on disk.
        until(lambda: requests_seen(mock) > before, what="the call at the provider")
        assert held_usd(gateway) == 0.04
        gateway.signal(signal.SIGKILL)
    gateway.stop()
    gateway.start()


def test_the_usual_address_moves_where_it_is_taken(mock: MockProcess, tmp_path: Path) -> None:
    """Nobody asked for it, so a second gateway on this machine starts as well, and says where it is."""
    plain = {name: value for name, value in settings(mock).items() if name != "admin"}
    gateways = [GatewayProcess(tmp_path / name, plain) for name in ("one", "two")]
    for gateway in gateways:
        # Without the free port that the tests ask for elsewhere.
        text = gateway.settings_file.read_text()
        gateway.write_text(text.replace("admin:\n  listen: 127.0.0.1:0\n", ""))
    with gateways[0], gateways[1]:
        owners = [find_owner(gateway.data_dir) for gateway in gateways]
        places = {owner.admin for owner in owners if owner is not None}
        assert len(places) == 2
        assert all(admin(gateway, "/api/budgets").status == 200 for gateway in gateways)
        assert str(owners[1].admin if owners[1] else "") in gateways[1].stdout


def test_an_address_that_is_taken_is_told(mock: MockProcess, tmp_path: Path) -> None:
    """With what to do."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        text = json.dumps(settings(mock, listen="127.0.0.1:0", admin={"listen": address}))
        (tmp_path / "tiergate.yaml").write_text(text)
        done = cli("serve", folder=tmp_path)
    assert done.returncode == 1 and "Set another `admin.listen`" in done.stderr
