"""The cache as callers and operators see it: the official client, headers, books, commands."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
from openai import OpenAI

from admin import admin
from flow.plain_http import ask, bearer
from house import NO_BREAKERS, GatewayProcess, calls_of, cli, until
from tiergate.testing import MockProcess

KEYS = {name: f"{name}-key-0123456789abcdef" for name in ("web", "shop", "lone")}
SCRIPT = """
seed: 5
default: {words: 8}
rules:
  - {when: {model: slow}, then: {words: 30, ttft_ms: 2000, tokens_per_s: 60}}
  - {when: {model: cut}, then: {clean_cut_after: 4}}
"""
QUESTION: Any = [{"role": "user", "content": "What is a cache?"}]


@pytest.fixture(scope="module")
def mock() -> Iterator[MockProcess]:
    with MockProcess(SCRIPT) as process:
        yield process


@pytest.fixture(scope="module")
def gateway(mock: MockProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    names = ("m", "slow", "cut")
    settings = {
        "auth": "keys",
        "keys": [
            {"name": "web", "secret": KEYS["web"], "team": "team"},
            {"name": "shop", "secret": KEYS["shop"], "team": "team"},
            {"name": "lone", "secret": KEYS["lone"]},
        ],
        "providers": {"main": {"base_url": mock.base_url, "api_keys": ["sk-provider-0123456789"]}},
        "models": {name: {"targets": [f"main/{name}"]} for name in names},
        "prices": [{"target": f"main/{name}", "usd_per_1m": {"input": 1, "output": 2}} for name in names],
        "resilience": NO_BREAKERS,
    }
    with GatewayProcess(tmp_path_factory.mktemp("cache"), settings) as process:
        yield process


def chat(gateway: GatewayProcess, content: str, *, key: str = "web", **fields: Any) -> Any:
    """Ask with the official client; give the raw response."""
    asked = {"model": "m", "messages": [{"role": "user", "content": content}], "temperature": 0, **fields}
    with OpenAI(base_url=gateway.base_url, api_key=KEYS[key], max_retries=0) as client:
        return client.chat.completions.with_raw_response.create(**asked)


def test_the_official_client_is_given_the_same_answer_for_nothing(
    gateway: GatewayProcess, mock: MockProcess
) -> None:
    """Whole, and streamed; another key of the team, too, and no other tenant."""
    first, second = chat(gateway, "once"), chat(gateway, "once", key="shop")
    one, other = first.parse(), second.parse()
    assert first.headers["cache-status"] == "tiergate; fwd=miss; stored; ttl=3600"
    assert "age" not in first.headers
    assert second.headers["cache-status"].startswith("tiergate; hit; ttl=359")
    assert second.headers["cache-status"].endswith("; detail=memory")
    assert int(second.headers["age"]) in range(10)
    assert second.headers["x-tiergate-tier"] == "cache"
    assert (one.choices, one.id, one.created) == (other.choices, other.id, other.created)
    assert one.usage.cost > 0 == other.usage.cost == float(second.headers["x-tiergate-cost-usd"])
    with OpenAI(base_url=gateway.base_url, api_key=KEYS["web"], max_retries=0) as client:
        asked: Any = [{"role": "user", "content": "once"}]
        events = client.chat.completions.create(
            model="m", messages=asked, temperature=0, stream=True, stream_options={"include_usage": True}
        )
        chunks = list(events)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == one.choices[0].message.content
    assert chunks[-1].usage is not None and chunks[-1].usage.total_tokens == one.usage.total_tokens
    assert len(calls_of(mock, "m")) == 1
    lone = chat(gateway, "once", key="lone")
    assert lone.headers["cache-status"].startswith("tiergate; fwd=miss")


def test_a_plain_stream_is_given_what_a_chat_was(gateway: GatewayProcess, mock: MockProcess) -> None:
    """The endpoints have one question in different forms."""
    text = chat(gateway, "plain").parse().choices[0].message.content
    before = len(calls_of(mock, "m"))
    body = {"model": "m", "messages": [{"role": "user", "content": "plain"}], "temperature": 0}
    answer = ask(gateway.port, "/v1/chat/stream", body, headers=[bearer(KEYS["web"])])
    assert (answer.header("cache-status") or "").startswith("tiergate; hit")
    pieces = [json.loads(event) for event in answer.events]
    assert "".join(piece.get("content", "") for piece in pieces) == text
    assert pieces[-1]["cost_usd"] == 0
    assert len(calls_of(mock, "m")) == before


@pytest.mark.parametrize(
    ("headers", "fields", "said"),
    [
        ({}, {"temperature": 0.5}, "tiergate; fwd=bypass; detail=temperature"),
        ({"Cache-Control": "no-store"}, {}, "tiergate; fwd=bypass; detail=no-store"),
        ({"Cache-Control": "no-cache"}, {}, "tiergate; fwd=miss; stored; ttl=3600; detail=no-cache"),
        ({}, {"tools": [{"type": "web_search"}]}, "tiergate; fwd=bypass; detail=server-tools"),
    ],
)
def test_why_a_call_went_on_is_told(
    gateway: GatewayProcess, headers: dict[str, str], fields: dict[str, Any], said: str
) -> None:
    """Of each answer."""
    answer = chat(gateway, f"why {said}", extra_headers=headers, **fields)
    assert answer.headers["cache-status"] == said


def test_two_lines_of_cache_control_are_one_list(gateway: GatewayProcess) -> None:
    """As of every header that is a list."""
    body = {"model": "m", "messages": QUESTION, "temperature": 0}
    lines = [("cache-control", "no-store"), ("cache-control", "max-age=5")]
    answer = ask(gateway.port, "/v1/chat/completions", body, headers=[bearer(KEYS["web"]), *lines])
    assert answer.header("cache-status") == "tiergate; fwd=bypass; detail=no-store"


def test_only_if_cached_is_a_504_that_no_client_tries_again(
    gateway: GatewayProcess, mock: MockProcess
) -> None:
    """As RFC 9111 has it; the official client would try again on any other 504."""
    before = len(calls_of(mock, "m"))
    with (
        OpenAI(base_url=gateway.base_url, api_key=KEYS["web"], max_retries=5) as client,
        pytest.raises(openai.InternalServerError) as told,
    ):
        client.chat.completions.create(
            model="m",
            messages=[{"role": "user", "content": "nobody asked this"}],
            temperature=0,
            extra_headers={"Cache-Control": "only-if-cached"},
        )
    assert (told.value.status_code, told.value.code) == (504, "not_cached")
    assert told.value.response.headers["x-should-retry"] == "false"
    assert len(calls_of(mock, "m")) == before
    (line,) = until(lambda: gateway.log("not_cached"), what="the line of the refusal")
    assert (line["event"], line["status"]) == ("refused", 504)


def test_a_stream_that_broke_off_is_not_kept(gateway: GatewayProcess, mock: MockProcess) -> None:
    """Its end was not seen."""
    asked: Any = {"model": "cut", "messages": QUESTION, "temperature": 0, "stream": True}
    for _ in range(2):
        answer = ask(gateway.port, "/v1/chat/completions", asked, headers=[bearer(KEYS["web"])])
        assert (answer.header("cache-status"), answer.whole) == ("tiergate; fwd=miss", False)
    assert len(calls_of(mock, "cut")) >= 2


AT_ONCE = 1_000


@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
def test_a_thousand_at_once_are_one_call(
    gateway: GatewayProcess, mock: MockProcess, is_streamed: bool
) -> None:
    """F27: the provider is asked once; each has the complete answer; the books have a thousand calls."""
    body = {
        "model": "slow",
        "messages": [{"role": "user", "content": f"all of us {is_streamed}"}],
        "temperature": 0,
        "stream": is_streamed,
    }

    async def one(session: aiohttp.ClientSession) -> tuple[str, str]:
        headers = {"Authorization": f"Bearer {KEYS['web']}"}
        async with session.post(f"{gateway.base_url}/chat/completions", json=body, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            status = answer.headers["cache-status"]
            if not is_streamed:
                return (await answer.json())["choices"][0]["message"]["content"], status
            events = (await answer.text()).split("\n\n")
        assert events[-2] == "data: [DONE]"
        chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
        return "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"]), status

    async def crowd() -> list[tuple[str, str]]:
        timeout = aiohttp.ClientTimeout(total=60)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            return await asyncio.gather(*(one(session) for _ in range(AT_ONCE)))

    before = len(calls_of(mock, "slow"))
    told = asyncio.run(crowd())
    assert len({text for text, _ in told}) == 1 and len(told[0][0].split()) == 30
    assert len(calls_of(mock, "slow")) == before + 1
    joined = [status for _, status in told if "collapsed" in status or "hit" in status]
    assert len(joined) == AT_ONCE - 1

    def settled() -> list[dict[str, Any]] | None:
        lines = [line for line in gateway.log("avoided") + gateway.log('"hosted"') if line["event"] == "call"]
        mine = [line for line in lines if line["model"] == "slow" and line["streamed"] is is_streamed]
        return mine if len(mine) == AT_ONCE else None

    lines = until(settled, timeout_s=20, what="a line of each call")
    assert {line["end"] for line in lines} == {"success"}
    paid = [line for line in lines if line["cost_usd"]]
    assert len(paid) == 1
    assert sum(line.get("avoided_tokens", 0) for line in lines) == (AT_ONCE - 1) * (
        paid[0]["input_tokens"] + paid[0]["output_tokens"]
    )


def test_the_operator_sees_and_purges(gateway: GatewayProcess) -> None:
    """Numbers, metrics and commands; whose answers go is said, and nobody else's do."""
    for key in ("web", "lone"):
        chat(gateway, "to be purged", key=key)
        chat(gateway, "to be purged", key=key)
    seen = admin(gateway, "/api/cache").json
    assert seen["answers"] >= 2 and seen["bytes"] <= seen["bytes_max"] == 256 << 20
    assert seen["calls"]["hit"]["calls"] >= 2 and seen["calls"]["hit"]["reasons"]["memory"] >= 2
    assert seen["kept"]["kept"] >= 2
    page = admin(gateway, "/metrics").body.decode()
    assert 'tiergate_cache_calls_total{outcome="hit",reason="memory"}' in page
    assert f"tiergate_cache_answers {seen['answers']:.1f}" in page
    assert "tiergate_avoided_cost_usd_total" in page
    shown = cli("cache", "show", folder=gateway.folder)
    assert shown.returncode == 0 and f"{seen['answers']:,} answers" in shown.stdout
    done = cli("cache", "purge", "--key", "lone", "--json", folder=gateway.folder)
    assert json.loads(done.stdout)["purged"] >= 1
    statuses = [chat(gateway, "to be purged", key=key).headers["cache-status"] for key in ("web", "lone")]
    assert [status.split("; ")[1] for status in statuses] == ["hit", "fwd=miss"]
    assert cli("cache", "purge", "--model", "m", folder=gateway.folder).returncode == 0
    assert chat(gateway, "to be purged").headers["cache-status"].startswith("tiergate; fwd=miss")
    refused = cli("cache", "purge", folder=gateway.folder)
    assert refused.returncode == 1 and "Say whose answers" in refused.stderr


def test_the_books_agree(gateway: GatewayProcess, mock: MockProcess) -> None:
    """What providers sent and what was avoided is what clients saw."""
    gateway.stop()
    entries = gateway.ledger()
    mine = [entry for entry in entries if entry.end is not None and entry.end.value == "success"]
    upstream = sum(attempt.usage.output_tokens for entry in mine for attempt in entry.attempts)
    avoided = sum(entry.avoided_output for entry in mine)
    told = [call["tokens"] for name in ("m", "slow") for call in calls_of(mock, name)]
    assert upstream == sum(told)
    assert avoided > AT_ONCE
    given = [entry for entry in mine if entry.is_given]
    assert all(entry.attempts == () and entry.answer_of is not None for entry in given)
    paid = {entry.call_id for entry in mine if entry.attempts}
    assert {entry.answer_of for entry in given} <= paid
    report = cli("report", "savings", "--json", folder=gateway.folder)
    told_savings = json.loads(report.stdout)
    assert sum(row["avoided_calls"] for row in told_savings["rows"]) == len(given)
    assert sum(row["avoided_output_tokens"] for row in told_savings["rows"]) == avoided
    assert Path(gateway.data_dir / "ledger.db").exists()
