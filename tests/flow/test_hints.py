"""What a provider is sent beside the client's own fields: nothing, unless its settings say so."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flow.plain_http import ask, bearer
from flow.recorder import Recorder, answer_well
from house import GatewayProcess, cli

KEYS = {name: f"{name}-key-0123456789abcdef" for name in ("web", "shop", "lone")}
FIRST: Any = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "hi"}]
SECOND: Any = [*FIRST, {"role": "assistant", "content": "hello"}, {"role": "user", "content": "more"}]


@pytest.fixture(scope="module")
def provider() -> Iterator[Recorder]:
    with Recorder() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def gateway(provider: Recorder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    settings = {
        "auth": "keys",
        "keys": [
            {"name": "web", "secret": KEYS["web"], "team": "team"},
            {"name": "shop", "secret": KEYS["shop"], "team": "team"},
            {"name": "lone", "secret": KEYS["lone"]},
        ],
        "providers": {
            "plain": {"base_url": provider.base_url, "api_keys": ["sk-provider-0123456789"]},
            "vllm": {"base_url": provider.base_url, "tier": "private", "sends": ["cache_salt"]},
            "both": {
                "base_url": provider.base_url,
                "api_keys": ["sk-provider-0123456789"],
                "sends": ["cache_salt", "prompt_cache_key"],
            },
        },
        "models": {"m": {"targets": ["vllm/m", "both/m"]}},
    }
    with GatewayProcess(tmp_path_factory.mktemp("hints"), settings) as process:
        yield process


def sent(
    gateway: GatewayProcess, provider: Recorder, model: str, *, key: str = "web", **fields: Any
) -> dict[str, Any]:
    """Ask, and give what came to the provider beside what was asked."""
    provider.play = answer_well
    asked = {"messages": FIRST, **fields}
    before = len(provider.seen)
    body = {"model": model, **asked}
    answer = ask(gateway.port, "/v1/chat/completions", body, headers=[bearer(KEYS[key])])
    assert answer.status == 200, answer.body
    (seen,) = provider.seen[before:]
    assert list(seen.json)[: len(body)] == list(body), "the client's fields come first, as it sent them"
    return {name: value for name, value in seen.json.items() if name not in body}


def test_nothing_is_added_that_nobody_asked_for(gateway: GatewayProcess, provider: Recorder) -> None:
    """The model's own name, and nothing else."""
    assert sent(gateway, provider, "plain/m") == {}


def test_a_salt_is_the_tenants(gateway: GatewayProcess, provider: Recorder) -> None:
    """S29: the same for all keys of a team and all their calls, another one for others; it names nobody."""
    told = [sent(gateway, provider, "vllm/m", key=key) for key in ("web", "shop", "lone")]
    assert [set(one) for one in told] == [{"cache_salt"}] * 3
    web, shop, lone = (one["cache_salt"] for one in told)
    assert web == shop != lone
    assert sent(gateway, provider, "vllm/m", messages=SECOND) == {"cache_salt": web}
    assert re.fullmatch("[0-9a-f]{32}", web)


def test_turns_of_one_conversation_have_one_key(gateway: GatewayProcess, provider: Recorder) -> None:
    """Another beginning, another tenant or another model has another one."""
    first = sent(gateway, provider, "both/m")
    assert set(first) == {"cache_salt", "prompt_cache_key"}
    key = first["prompt_cache_key"]
    assert sent(gateway, provider, "both/m", messages=SECOND)["prompt_cache_key"] == key
    other: Any = [{"role": "user", "content": "hi"}]
    for changed in (
        sent(gateway, provider, "both/m", messages=other),
        sent(gateway, provider, "both/other"),
        sent(gateway, provider, "both/m", key="lone"),
        sent(gateway, provider, "both/m", tools=[{"type": "function", "function": {"name": "f"}}]),
    ):
        assert changed["prompt_cache_key"] != key


def test_what_the_client_says_stays(gateway: GatewayProcess, provider: Recorder) -> None:
    """Its own values go through, and nothing is put in their place."""
    own = {"cache_salt": "mine", "prompt_cache_key": "session-7"}
    assert sent(gateway, provider, "both/m", **own) == {}


def test_explain_says_what_is_sent(gateway: GatewayProcess) -> None:
    """Of each target, with the way and the state of now."""
    said = cli("explain", "-m", "m", "--json", folder=gateway.folder)
    told = json.loads(said.stdout)
    assert told["gateway_runs"] is True
    assert [(one["target"], one["sends"][2:]) for one in told["targets"]] == [
        ("vllm/m", ["cache_salt"]),
        ("both/m", ["cache_salt", "prompt_cache_key"]),
    ]
    assert all(one["state"].startswith("asked; ") for one in told["targets"])
    private = cli("explain", "-m", "m", "--private-only", folder=gateway.folder)
    assert private.returncode == 0
    assert "2. both/m (hosted)  LEFT OUT" in private.stdout and "cache_salt" in private.stdout
    missing = cli("explain", "-m", "nothing", folder=gateway.folder)
    assert missing.returncode == 1 and "There is no model 'nothing'" in missing.stderr


def test_explain_needs_no_gateway(tmp_path: Path) -> None:
    """It then says nothing of now."""
    (tmp_path / "tiergate.yaml").write_text("providers: {a: {base_url: 'http://127.0.0.1:9'}}")
    said = cli("explain", "-m", "a/x", folder=tmp_path)
    assert said.returncode == 0, said.stderr
    assert "1. a/x (hosted)" in said.stdout and "No gateway runs" in said.stdout and "now:" not in said.stdout
