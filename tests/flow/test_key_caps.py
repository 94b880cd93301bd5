"""Caps of keys and the alarm of fast spending, through the real listener and with the official client."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from flow.plain_http import ask, bearer
from house import GatewayProcess, calls_of, cli, until
from tiergate.testing import MockProcess

CHAT, PLAIN = "/v1/chat/completions", "/v1/chat/stream"
QUESTION: Any = [{"role": "user", "content": "What is a lease?"}]
PICTURES: Any = [
    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x.example/a.png"}}] * 2}
]
ABOVE = [
    ({"max_tokens": 101}, "max_tokens"),
    ({"max_completion_tokens": 101}, "max_completion_tokens"),
    ({}, "max_tokens"),
    ({"max_tokens": 100, "n": 3}, "n"),
    ({"max_tokens": 100, "messages": PICTURES}, "messages"),
    ({"max_tokens": 100, "reasoning_effort": "high"}, "reasoning_effort"),
    ({"max_tokens": 100, "extra_body": {"reasoning": {"effort": "high"}}}, "reasoning.effort"),
    ({"max_tokens": 100, "extra_body": {"reasoning": {"max_tokens": 101}}}, "reasoning.max_tokens"),
    ({"max_tokens": 100, "extra_body": {"best_of": 3}}, "best_of"),
]
WITHIN: Any = {"max_tokens": 100, "n": 2, "reasoning_effort": "low"}
CAPS = {"max_output_tokens": 100, "max_choices": 2, "max_images": 1, "max_reasoning_effort": "low"}


def key(name: str) -> str:
    return f"caps-client-key-{name}-0123456789"


def settings(mock: MockProcess, **more: Any) -> dict[str, Any]:
    return {
        "auth": "keys",
        "keys": [
            {"name": "capped", "secret": key("capped"), "limits": CAPS},
            {"name": "free", "secret": key("free")},
        ],
        "providers": {"shop": {"base_url": mock.base_url}},
        "models": {name: {"targets": [f"shop/{name}"]} for name in ("good", "dear")},
        "prices": [{"target": "shop/dear", "usd_per_1m": {"input": 0, "output": 100_000}}],
        **more,
    }


@pytest.fixture(scope="module")
def mock() -> Iterator[MockProcess]:
    with MockProcess("default: {words: 3, ttft_ms: 1}") as process:
        yield process


def test_the_official_client_raises_bad_request(mock: MockProcess, tmp_path: Path) -> None:
    """Streamed, whole, with an Idempotency-Key: the provider hears nothing and the ledger has no record."""
    with GatewayProcess(tmp_path, settings(mock)) as gateway:
        with OpenAI(base_url=gateway.base_url, api_key=key("capped"), max_retries=0) as client:
            for fields, param in ABOVE:
                for more in ({}, {"stream": True}, {"extra_headers": {"Idempotency-Key": "k"}}):
                    asked: Any = {"model": "good", "messages": QUESTION, **fields, **more}
                    with pytest.raises(openai.BadRequestError, match="This key may") as raised:
                        client.chat.completions.create(**asked)
                    assert (raised.value.code, raised.value.param) == ("invalid_request", param)
            assert calls_of(mock, "good") == []
            assert client.chat.completions.create(model="good", messages=QUESTION, **WITHIN).choices
        plain = ask(
            gateway.port, PLAIN, {"model": "good", "messages": QUESTION}, headers=[bearer(key("capped"))]
        )
        assert (plain.status, plain.error["param"]) == (400, "max_tokens")
        free = ask(
            gateway.port, CHAT, {"model": "good", "messages": PICTURES, "n": 9}, headers=[bearer(key("free"))]
        )
        assert free.status == 200
        estimate = {"model": "dear", "messages": QUESTION, "max_tokens": 5_000, "n": 50}
        assert ask(gateway.port, "/v1/estimate-cost", estimate, headers=[bearer(key("capped"))]).status == 200
        told = ask(gateway.port, "/v1/key", headers=[bearer(key("capped"))]).json["limits"]
        assert {name: told[name] for name in CAPS} == CAPS
        assert len(gateway.check_books()) == 2


def test_a_made_key_keeps_its_caps(mock: MockProcess, tmp_path: Path) -> None:
    """At once, through a rotation and a restart; the list shows them."""
    with GatewayProcess(tmp_path, settings(mock)) as gateway:
        wish = [f"--{name.replace('_', '-')}={cap}" for name, cap in {**CAPS, "max_images": 0}.items()]
        made = json.loads(cli("keys", "create", "web", *wish, "--json", folder=tmp_path).stdout)

        def status(secret: str, **fields: Any) -> int:
            return ask(
                gateway.port,
                CHAT,
                {"model": "good", "messages": QUESTION, **fields},
                headers=[bearer(secret)],
            ).status

        assert (status(made["key"], max_tokens=100), status(made["key"], max_tokens=101)) == (200, 400)
        turned = json.loads(cli("keys", "rotate", "web", "--json", folder=tmp_path).stdout)
        said = "at most 100 tokens out, at most 2 choices, at most 0 pictures, at most low effort"
        listed = " ".join(cli("keys", "list", folder=tmp_path, environ={"COLUMNS": "400"}).stdout.split())
        assert said in listed
        gateway.stop()
        gateway.start()
        assert (status(turned["key"], max_tokens=100), status(turned["key"], max_tokens=101)) == (200, 400)
        refused = cli("keys", "create", "ci", "--max-reasoning-effort", "lots", folder=tmp_path)
        assert refused.returncode != 0 and "none, minimal, low" in refused.stderr


def test_a_key_that_spends_fast_is_told_of_once(mock: MockProcess, tmp_path: Path) -> None:
    """A warning in the log and a count; a reload changes the limit."""
    alarm = {"alerts": {"usd_per_hour": 0.5}}
    with GatewayProcess(tmp_path, settings(mock, **alarm)) as gateway:
        for _ in range(4):
            ask(gateway.port, CHAT, {"model": "dear", "messages": QUESTION}, headers=[bearer(key("free"))])
        (line,) = until(lambda: gateway.log("spending_fast"))
        assert (line["level"], line["key"], line["usd_per_hour"]) == ("warning", "free", 0.5)
        assert 0.5 < line["spent_usd"] <= 4
        gateway.write(settings(mock, alerts={"usd_per_hour": 0.1}))
        gateway.reload()
        body = {"model": "dear", "messages": QUESTION, "max_tokens": 100}
        ask(gateway.port, CHAT, body, headers=[bearer(key("capped"))])
        lines = until(lambda: gateway.log("spending_fast")[1:])
        assert [(line["key"], line["usd_per_hour"]) for line in lines] == [("capped", 0.1)]
