"""Virtual keys as their makers and holders have them: a real gateway, the command line, the data plane."""

import json
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from admin import admin
from flow.plain_http import Answer, ask, bearer
from house import GatewayProcess, cli, until
from tiergate.store import find_owner
from tiergate.testing import MockProcess


@pytest.fixture(scope="module")
def mock() -> Iterator[MockProcess]:
    with MockProcess('{"default": {"words": 3, "ttft_ms": 1}}') as process:
        yield process


def settings(mock: MockProcess) -> dict[str, Any]:
    return {
        "auth": "keys",
        "providers": {
            "dear": {"base_url": mock.base_url},
            "own": {"base_url": mock.base_url, "tier": "private"},
        },
        "models": {
            "both": {"targets": ["dear/m", "own/m"]},
            "hosted": {"targets": ["dear/m"]},
            "other": {"targets": ["own/m"]},
        },
        "prices": [{"target": "dear/m", "usd_per_1m": {"input": 0, "output": 1000}}],
        "budgets": [{"scope": "team:shop", "usd": 5}, {"scope": "all", "usd": 50}],
    }


@pytest.fixture(scope="module")
def gateway(mock: MockProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with GatewayProcess(tmp_path_factory.mktemp("keys"), settings(mock)) as process:
        yield process


def create(gateway: GatewayProcess, name: str, *how: str) -> str:
    done = cli("keys", "create", name, *how, "--json", folder=gateway.folder)
    assert done.returncode == 0, done.stderr
    key: str = json.loads(done.stdout)["key"]
    return key


def chat(gateway: GatewayProcess, key: str, model: str, *, max_tokens: int = 10, **headers: str) -> Answer:
    body = {"model": model, "max_tokens": max_tokens, "messages": [{"role": "user", "content": "hi"}]}
    more = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return ask(gateway.port, "/v1/chat/completions", body, headers=[bearer(key), *more])


def about(gateway: GatewayProcess, key: str) -> Answer:
    return ask(gateway.port, "/v1/key", headers=[bearer(key)])


def test_a_key_works_at_once_and_its_holder_can_look_at_it(gateway: GatewayProcess) -> None:
    """With what is left of its own and its team's money, and of nobody else's."""
    key = create(gateway, "web", "--team", "shop", "--budget-usd", "0.1", "--per", "day")
    assert chat(gateway, key, "hosted").status == 200
    found = about(gateway, key).json
    assert (found["name"], found["team"], found["models"]) == ("web", "shop", None)
    budgets = {budget["scope"]: budget for budget in found["budgets"]}
    assert set(budgets) == {"key:web", "team:shop"}
    assert (budgets["key:web"]["spent_usd"], budgets["key:web"]["left_usd"]) == (0.003, 0.097)
    refused = chat(gateway, key, "hosted", max_tokens=200)
    assert refused.status == 402 and "key:web per day" in refused.error["message"]


def test_what_was_noted_of_a_key_comes_back(gateway: GatewayProcess) -> None:
    """To operators; its holder and callers never see it."""
    key = create(gateway, "noted", "--note", "asked for by the search team")
    body = {"name": "tagged", "metadata": {"ticket": "OPS-7", "owner": "search"}}
    made = admin(gateway, "/api/keys", body=body).json
    assert made["metadata"] == body["metadata"]
    listed = {one["name"]: one["metadata"] for one in admin(gateway, "/api/keys").json["data"]}
    assert listed["noted"] == {"note": "asked for by the search team"}
    assert listed["tagged"] == body["metadata"]
    rotated = cli("keys", "rotate", "tagged", "--json", folder=gateway.folder)
    assert json.loads(rotated.stdout)["metadata"] == body["metadata"]
    assert "search team" not in about(gateway, key).body.decode()


def test_a_key_asks_only_for_what_it_may(gateway: GatewayProcess) -> None:
    """S08: what it may not ask for is not there, in any list."""
    key = create(gateway, "narrow", "--models", "both,own/*")
    for model in ("hosted", "other", "dear/m", "nonsense"):
        missing = chat(gateway, key, model)
        assert missing.status == 404
        assert (
            "Models: both." in missing.error["message"]
            and "hosted" not in missing.error["message"].partition("Models")[2]
        )
    assert chat(gateway, key, "both").status == chat(gateway, key, "own/m").status == 200
    listed = ask(gateway.port, "/v1/models", headers=[bearer(key)]).json["data"]
    assert [model["id"] for model in listed] == ["both"]
    assert ask(gateway.port, "/v1/models/hosted", headers=[bearer(key)]).status == 404
    question = {"prompt_tokens": 10, "completion_tokens": 10}
    rows = ask(gateway.port, "/v1/estimate-cost", question, headers=[bearer(key)]).json["data"]
    assert {row["model"] for row in rows} == {"both"}


def test_a_key_is_answered_only_by_its_tiers_and_class(gateway: GatewayProcess) -> None:
    """Whatever a header says."""
    tier = create(gateway, "tier", "--tiers", "private")
    assert chat(gateway, tier, "both").header("x-tiergate-target") == "own/m"
    refused = chat(gateway, tier, "hosted")
    assert refused.status == 400 and "tier private only" in refused.error["message"]
    private = create(gateway, "private", "--private-only")
    assert chat(gateway, private, "both", x_tiergate_data="any").header("x-tiergate-target") == "own/m"
    refused = chat(gateway, private, "hosted")
    assert refused.status == 400 and "'hosted' has no private target" in refused.error["message"]


def test_rotation_and_revocation(gateway: GatewayProcess) -> None:
    """The old one is good for as long as it was said, a revoked one not for a moment."""
    old = create(gateway, "turning")
    create(gateway, "brief", "--expires", "1s")
    create(gateway, "longer", "--expires", "1d")
    rotated = cli("keys", "rotate", "turning", "--grace", "1s", "--json", folder=gateway.folder)
    new = json.loads(rotated.stdout)["key"]
    assert about(gateway, old).status == about(gateway, new).status == 200
    time.sleep(1.1)
    assert "was replaced" in about(gateway, old).error["message"]
    assert cli("keys", "revoke", "turning", folder=gateway.folder).returncode == 0
    assert about(gateway, new).status == 401
    again = cli("keys", "revoke", "turning", folder=gateway.folder)
    assert again.returncode == 1 and "no key 'turning' in use" in again.stderr
    taken = cli("keys", "create", "turning", folder=gateway.folder)
    assert taken.returncode == 1 and "is taken" in taken.stderr
    table = cli("keys", "list", folder=gateway.folder).stdout
    states = dict(re.findall(r"^(\w+) .* (revoked|expired|expires|good)\b", table, re.MULTILINE))
    assert [states[name] for name in ("turning", "brief", "longer")] == ["revoked", "expired", "expires"]
    assert new not in table


def test_another_secret_is_told_at_the_start(mock: MockProcess, tmp_path: Path) -> None:
    """Keys that were made under the old one open nothing; the old one back, or a rotation, and they do."""
    with GatewayProcess(tmp_path, settings(mock)) as gateway:
        keys = {name: create(gateway, name) for name in ("one", "two")}
        assert gateway.stop() == 0
        secret = (gateway.data_dir / "secret").read_text()
        (gateway.data_dir / "secret").unlink()
        gateway.start()
        (told,) = until(lambda: gateway.log("keys_unknown"), what="the line")
        assert "one, two" in told["message"]
        assert about(gateway, keys["one"]).status == 401
        turned = json.loads(cli("keys", "rotate", "one", "--json", folder=tmp_path).stdout)["key"]
        assert about(gateway, turned).status == 200
        assert gateway.stop() == 0
        offline = cli("keys", "list", folder=tmp_path)
        assert "they open nothing: two." in offline.stderr
        (gateway.data_dir / "secret").write_text(secret)
        gateway.start()
        assert about(gateway, keys["two"]).status == 200


def test_s04_no_key_rests_anywhere(gateway: GatewayProcess) -> None:
    """Not in the database, the log or the lists; and a data-plane key changes nothing on the admin plane."""
    key = create(gateway, "canary")
    assert about(gateway, key).status == 200
    cli("keys", "list", "--json", folder=gateway.folder)
    places = [path.read_bytes() for path in gateway.data_dir.iterdir() if path.is_file()]
    assert not any(key.encode() in place or key[3:].encode() in place for place in places)
    assert key not in gateway.stderr and key not in gateway.stdout
    owner = find_owner(gateway.data_dir)
    assert owner is not None and owner.admin is not None
    port = int(owner.admin.rpartition(":")[2])
    for path in ("/api/keys", "/api/keys/canary/revoke", "/api/keys/canary/rotate"):
        assert ask(port, path, {}, headers=[bearer(key)]).status == 401
    assert about(gateway, key).status == 200


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (("create", "a b"), "`name` must be"),
        (("create", "x", "--tiers", "cloud"), "`tiers` must be"),
        (("create", "x", "--budget-usd", "lots"), "amounts in USD"),
        (("create", "x", "--budget-usd", "1", "--per", "hour"), "`per` must be"),
        (("create", "x", "--expires", "soon"), "`expires` must be"),
        (("create", "x", "--expires", "2020-01-01"), "in the future"),
        (("create", "local"), "is taken"),
        (("rotate", "x", "--grace", "soon"), "`grace` must be"),
    ],
)
def test_a_wrong_wish_says_what_to_do(gateway: GatewayProcess, how: tuple[str, ...], said: str) -> None:
    """And makes nothing."""
    done = cli("keys", *how, folder=gateway.folder)
    assert done.returncode == 1 and said in done.stderr


def test_privileged_fields_are_refused(gateway: GatewayProcess) -> None:
    """S09: nobody sets a digest or a time of creation."""
    owner = find_owner(gateway.data_dir)
    assert owner is not None and owner.admin is not None
    port = int(owner.admin.rpartition(":")[2])
    for field in ("digest", "key", "created", "revoked", "hint"):
        body = {"name": "sly", field: "x"}
        refused = ask(port, "/api/keys", body, headers=[bearer(owner.admin_token or "")])
        assert refused.status == 400 and f"{field!r} is no field" in refused.error["message"]


def test_keys_outlive_the_gateway_and_move_with_a_backup(mock: MockProcess, tmp_path: Path) -> None:
    """Made while none runs, kept across restarts, restored elsewhere with the house's secret."""
    with GatewayProcess(tmp_path / "one", settings(mock)) as gateway:
        gateway.stop()
        key = create(gateway, "early")
        gateway.start()
        assert about(gateway, key).status == 200
        saved = cli("backup", str(tmp_path / "saved"), folder=gateway.folder)
        assert saved.returncode == 0, saved.stderr
    with closing(sqlite3.connect(tmp_path / "saved" / "ledger.db")) as copy:
        assert copy.execute("SELECT count(*) FROM virtual_key").fetchone() == (1,)
    with GatewayProcess(tmp_path / "two", settings(mock)) as other:
        assert about(other, key).status == 401
        other.stop()
        assert cli("restore", str(tmp_path / "saved"), folder=other.folder).returncode == 0
        other.start()
        assert about(other, key).status == 200
