"""What `tiergate check` doubts, beside what is wrong."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from house import cli
from tiergate.app.checking import doubts
from tiergate.config import load_text
from tiergate.store import LEDGER_FILE

WALL_NS = 1_795_000_000_000_000_000


def said(folder: Path, *budgets: dict[str, Any], **more: Any) -> tuple[str, ...]:
    settings = {
        "data_dir": str(folder),
        "providers": {
            "shop": {"base_url": "https://shop.example/v1", "api_keys": ["sk-0123456789abcdef"]},
            "rack": {"base_url": "http://10.0.0.7:8000/v1", "tier": "private"},
        },
        "models": {
            "dear": {"targets": ["shop/dear"]},
            "blank": {"targets": ["rack/own", "shop/blank"]},
        },
        "prices": [{"target": "shop/dear", "usd_per_1m": {"input": 1, "output": 2}}],
        "facts": [{"target": f"shop/{name}", "max_output_tokens": 100} for name in ("dear", "blank")],
        "keys": [{"name": "web", "secret": "web-key-0123456789abcdef", "team": "red"}],
        "auth": "keys",
        "budgets": list(budgets),
        **more,
    }
    return doubts(load_text(json.dumps(settings), {}), wall_ns=WALL_NS)


def budget(scope: str, **more: Any) -> dict[str, Any]:
    return {"scope": scope, "usd": 1, "unbounded": "allow", **more}


@pytest.mark.parametrize(
    ("scope", "what"),
    [
        ("key:wbe", "there is no key of this name"),
        ("team:blue", "no key is of this team"),
        ("model:daer", "there is no model of this name"),
        ("model:nobody/x", "there is no model of this name"),
    ],
)
def test_a_budget_of_nobody_is_doubted(tmp_path: Path, scope: str, what: str) -> None:
    """Named with its place; the settings are right all the same."""
    (only,) = said(tmp_path, budget("all"), budget(scope))
    assert only == f"budgets[1].scope: {scope}: {what}, so the budget holds nobody yet"


def test_a_budget_of_somebody_is_not(tmp_path: Path) -> None:
    """Of a model by its name, of a target as a model, and of whoever calls in open mode."""
    scopes = (
        "key:web",
        "key:local",
        "team:red",
        "model:dear",
        "model:shop/any",
        "tier:private",
        "tier:hosted",
    )
    assert said(tmp_path, *map(budget, scopes)) == ()


def test_every_name_is_a_model_where_any_is(tmp_path: Path) -> None:
    """Under `*`."""
    assert said(tmp_path, budget("model:what"), models={"*": {"targets": ["shop/*"]}}) == ()


def test_a_tier_without_a_provider_is_doubted(tmp_path: Path) -> None:
    """Its budget would hold nobody."""
    providers = {"rack": {"base_url": "http://10.0.0.7:8000/v1", "tier": "private"}}
    nothing: dict[str, Any] = {"models": {}, "prices": [], "facts": []}
    (only,) = said(tmp_path, budget("tier:hosted"), providers=providers, **nothing)
    assert "tier:hosted: no provider is of this tier" in only


def test_keys_that_were_made_are_known(tmp_path: Path) -> None:
    """They are in the ledger, with their teams; one that cannot be read is said to be unseen."""
    (tmp_path / "tiergate.yaml").write_text(
        json.dumps({"data_dir": str(tmp_path), "providers": {"a": {"base_url": "http://10.0.0.7:8000/v1"}}})
    )
    assert cli("keys", "create", "alice", "--team", "green", folder=tmp_path).returncode == 0
    assert said(tmp_path, budget("key:alice"), budget("team:green")) == ()
    with closing(sqlite3.connect(tmp_path / LEDGER_FILE, isolation_level=None)) as connection:
        connection.execute("ALTER TABLE virtual_key RENAME TO lost")
    (only, _) = said(tmp_path, budget("key:alice"), budget("team:green"))
    assert "keys that were made could not be looked at" in only


def test_a_target_without_a_price_under_a_budget_is_doubted(tmp_path: Path) -> None:
    """Calls of it are refused; a budget that lets them, or that they do not count against, is no reason."""
    (only,) = said(tmp_path, budget("team:red", unbounded="refuse"))
    assert only.startswith("prices: no price is known of shop/blank, and calls of them")
    assert "(team:red in total)" in only and "`unbounded: allow`" in only
    assert said(tmp_path, budget("all"), budget("model:dear", unbounded="refuse")) == ()
    assert said(tmp_path, budget("tier:private", unbounded="refuse")) == ()


def test_a_target_without_a_longest_answer_under_a_budget_is_doubted(tmp_path: Path) -> None:
    """Calls of it that ask for no limit are refused; a private server invoices nothing."""
    facts = [{"target": "shop/blank", "max_output_tokens": 100}]
    (only,) = said(tmp_path, budget("model:dear", unbounded="refuse"), facts=facts)
    assert only.startswith("facts: the longest answer of shop/dear is not known")
    assert "`max_output_tokens` under `facts`" in only
