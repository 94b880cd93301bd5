"""Budgets from outside: a real gateway under load, with a cap that fits about half of what is asked of it."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import openai
import pytest

from flow.plain_http import Answer, ask, bearer
from house import GatewayProcess, calls_of, cli, until
from postgres import Server
from tiergate.app.client import GatewayClient, GatewayError
from tiergate.testing import MockProcess

SCRIPT = json.dumps(
    {
        "default": {"words": [2, 8], "ttft_ms": 5, "tokens_per_s": 4000},
        "rules": [
            {"when": {"model": "tail", "probability": 0.05}, "then": {"words": [300, 600]}},
            {"when": {"model": "tail", "probability": 0.16}, "then": {"words": [40, 80]}},
            {"when": {"model": "slow"}, "then": {"words": 5, "ttft_ms": 1500}},
        ],
    }
)
PER_TOKEN_USD = 0.001
"""Of output; the input costs nothing here, so that sums can be told from counts."""
KEYS = {"web": "web-key-0123456789abcdef", "ci": "ci-key-0123456789abcdefg"}


@pytest.fixture(scope="module")
def mock() -> Iterator[MockProcess]:
    with MockProcess(SCRIPT) as process:
        yield process


def settings(mock: MockProcess, *budgets: dict[str, Any], **more: Any) -> dict[str, Any]:
    price = {"usd_per_1m": {"input": 0, "output": PER_TOKEN_USD * 1_000_000}}
    return {
        "auth": "keys",
        "keys": [{"name": name, "secret": key, "team": "shop"} for name, key in KEYS.items()],
        "providers": {
            "dear": {"base_url": mock.base_url},
            "unpriced": {"base_url": mock.base_url},
            "own": {"base_url": mock.base_url, "tier": "private"},
        },
        "models": {
            "tail": {"targets": ["dear/tail"]},
            "slow": {"targets": ["dear/slow"]},
            "both": {"targets": ["dear/m", "own/m"]},
            "blank": {"targets": ["unpriced/m"]},
        },
        "prices": [{"target": f"dear/{name}", **price} for name in ("tail", "slow", "m")],
        "budgets": list(budgets),
        **more,
    }


def chat(gateway: GatewayProcess, model: str, max_tokens: int | None, *, key: str = "web") -> Answer:
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
    if max_tokens is not None:
        body["max_tokens"] = max_tokens
    return ask(gateway.port, "/v1/chat/completions", body, headers=[bearer(KEYS[key])])


def spent(gateway: GatewayProcess) -> float:
    """What the ledger says in the end; nothing is held."""
    entries = gateway.check_books()
    return sum((one.cash_nanos or 0) for entry in entries for one in entry.attempts) / 1e9


MAX_TOKENS = 600


def billed(mock: MockProcess) -> float:
    """What the provider has written under the model with a heavy tail, in USD."""
    return float(sum(one["tokens"] for one in calls_of(mock, "tail")) * PER_TOKEN_USD)


async def ask_all(ports: Sequence[int], calls: int, at_once: int) -> Counter[str]:
    """Ask so many questions, half of them streamed, at gateways in turn; give how they ended.

    Who is told that others hold the money comes again.
    """
    ends: Counter[str] = Counter()
    clients = [GatewayClient(f"127.0.0.1:{port}", token=KEYS["web"]) for port in ports]

    async def one(number: int, places: asyncio.Semaphore) -> None:
        client = clients[number % len(clients)]
        body = {
            "model": "tail",
            "max_tokens": MAX_TOKENS,
            "messages": [{"role": "user", "content": f"question {number}"}],
        }
        async with places:
            for _ in range(50):
                try:
                    if number // len(clients) % 2:
                        await client.chat(body)
                    else:
                        async for _ in client.stream({**body, "stream": True}):
                            pass
                except GatewayError as error:
                    if error.code == "budget_busy":
                        await asyncio.sleep(0.05)
                        continue
                    ends[f"{error.status} {error.code}"] += 1
                else:
                    ends["answered"] += 1
                return
            ends["gave up"] += 1

    places = asyncio.Semaphore(at_once)
    async with asyncio.timeout(120):
        await asyncio.gather(*(one(number, places) for number in range(calls)))
    for client in clients:
        await client.aclose()
    return ends


def test_a_thousand_calls_at_two_hundred_at_a_time_never_pass_the_cap(
    mock: MockProcess, tmp_path: Path
) -> None:
    """And most of it is used; then every call is told what, how much and until when."""
    cap_usd, calls = 15.0, 1_000
    budget = {"scope": "all", "usd": cap_usd, "per": "month"}
    with GatewayProcess(tmp_path, settings(mock, budget)) as gateway:
        ends = asyncio.run(ask_all([gateway.port], calls, 200))
        refused = chat(gateway, "tail", MAX_TOKENS)
        told = [line for line in gateway.log() if line["event"] == "budget_reached"]
        total = spent(gateway)
    assert ends["answered"] + ends["402 budget_exceeded"] == calls, ends
    assert 0.2 * calls < ends["answered"] < 0.9 * calls, ends
    assert 0.9 * cap_usd <= total <= cap_usd
    assert refused.status == 402 and refused.error["code"] == "budget_exceeded"
    assert f"all per month is ${cap_usd:.0f}" in refused.error["message"]
    assert [line["share"] for line in told][:2] == [0.5, 0.8]


def test_two_hundred_calls_at_a_time_at_four_processes_never_pass_the_cap(
    postgres_server: Server, mock: MockProcess, tmp_path: Path
) -> None:
    """S24: four gateways share a ledger; what the provider bills stays below the cap and uses most of it."""
    cap_usd, calls, before = 15.0, 1_000, billed(mock)
    with postgres_server.schema() as store, ExitStack() as stack:
        shared = settings(
            mock,
            {"scope": "all", "usd": cap_usd, "per": "month"},
            store=store,
            secret="the same at every replica, 32 characters or more",
        )
        gateways = [stack.enter_context(GatewayProcess(tmp_path / str(n), shared)) for n in range(4)]
        ends = asyncio.run(ask_all([one.port for one in gateways], calls, 200))
        codes = {chat(one, "tail", MAX_TOKENS).error["code"] for one in gateways}
        (budget,) = json.loads(cli("report", "budgets", "--json", folder=gateways[0].folder).stdout)["data"]
    assert ends["answered"] + ends["402 budget_exceeded"] == calls, ends
    assert 0.2 * calls < ends["answered"] < 0.9 * calls, ends
    assert billed(mock) - before == pytest.approx(budget["spent_usd"])
    assert 0.9 * cap_usd <= budget["spent_usd"] <= cap_usd
    assert budget["held_usd"] == 0
    assert codes == {"budget_exceeded"}


def test_a_budget_is_a_reason_to_go_on_to_another_target(mock: MockProcess, tmp_path: Path) -> None:
    """A private server invoices nothing, so it answers when the money is gone; whose key it is decides."""
    budget = {"scope": "key:web", "usd": 0.05}
    with GatewayProcess(tmp_path, settings(mock, budget)) as gateway:
        assert chat(gateway, "both", 40).header("x-tiergate-target") == "dear/m"
        moved = chat(gateway, "both", 60)
        assert (moved.status, moved.header("x-tiergate-target")) == (200, "own/m")
        assert chat(gateway, "both", 60, key="ci").header("x-tiergate-target") == "dear/m"
        assert [len(entry.attempts) for entry in gateway.check_books()] == [1, 1, 1]


def test_a_longest_answer_of_the_settings_bounds_a_call(mock: MockProcess, tmp_path: Path) -> None:
    """A call without a limit of its own holds that much; one with a limit holds what it asked for."""
    budget = {"scope": "team:shop", "usd": 0.05}
    facts = [{"target": "dear/tail", "max_output_tokens": 40}]
    with GatewayProcess(tmp_path, settings(mock, budget, facts=facts)) as gateway:
        assert chat(gateway, "tail", None).status == 200
        (entry,) = gateway.check_books()
        assert entry.attempts[0].bound_nanos == round(40 * PER_TOKEN_USD * 1e9)
        gateway.start()
        refused = chat(gateway, "tail", 60)
        assert (refused.status, refused.error["code"]) == (402, "budget_exceeded")
        assert f"${60 * PER_TOKEN_USD:g}" in refused.error["message"]


def test_what_has_no_bound_is_refused_under_a_ceiling(mock: MockProcess, tmp_path: Path) -> None:
    """No known price, no limit of the answer: each says what to do. Without a ceiling it goes through."""
    budget = {"scope": "team:shop", "usd": 5, "per": "day"}
    with GatewayProcess(tmp_path, settings(mock, budget)) as gateway:
        for model, limit in (("blank", 10), ("tail", None)):
            refused = chat(gateway, model, limit)
            assert (refused.status, refused.error["code"]) == (402, "budget_unbounded")
            assert "Set max_tokens, give the target a price" in refused.error["message"]
            assert refused.header("x-should-retry") == "false"
        gateway.write(settings(mock, {**budget, "unbounded": "allow"}))
        gateway.reload()
        assert chat(gateway, "blank", 10).status == chat(gateway, "tail", None).status == 200
        gateway.check_books()


def test_a_hold_that_fits_later_waits_and_then_says_when_to_come_again(
    mock: MockProcess, tmp_path: Path
) -> None:
    """Two calls share what is left for one of them."""
    budget = {"scope": "model:slow", "usd": 0.1, "per": "week"}
    with GatewayProcess(tmp_path, settings(mock, budget)) as gateway:

        async def both(*limits: int) -> list[Answer]:
            return await asyncio.gather(
                *(asyncio.to_thread(chat, gateway, "slow", limit) for limit in limits)
            )

        answers = asyncio.run(both(60, 60))
        assert [answer.status for answer in answers] == [200, 200]
        busy = asyncio.run(both(60, 60, 60))
        assert sorted(answer.status for answer in busy) == [200, 200, 402]
        (told,) = [answer for answer in busy if answer.status == 402]
        assert told.error["code"] == "budget_busy"
        assert (told.header("retry-after"), told.header("x-should-retry")) == ("1", "true")
        gateway.check_books()


def test_a_reload_and_a_restart_know_what_was_spent(mock: MockProcess, tmp_path: Path) -> None:
    """A budget that is set in the middle of the month counts what the month has cost."""
    with GatewayProcess(tmp_path, settings(mock)) as gateway:
        assert chat(gateway, "tail", 100).status == 200
        gateway.write(settings(mock, {"scope": "all", "usd": 0.001, "per": "month"}))
        gateway.reload()
        refused = chat(gateway, "tail", 1)
        assert refused.status == 402 and "$0 spent" not in refused.error["message"]
        gateway.stop()
        gateway.start()
        assert chat(gateway, "tail", 1).error["message"] == refused.error["message"]
        gateway.check_books()


def test_after_a_kill_what_was_held_stays_charged(mock: MockProcess, tmp_path: Path) -> None:
    """At its worst case, until somebody knows better; the sentence says how much of it."""
    budget = {"scope": "all", "usd": 0.1}
    with GatewayProcess(tmp_path, settings(mock, budget)) as gateway:

        async def killed() -> None:
            call = asyncio.create_task(asyncio.to_thread(chat, gateway, "slow", 60))
            await asyncio.to_thread(until, lambda: in_flight(mock) > 0, what="the call")
            gateway.signal(9)
            with pytest.raises((OSError, ValueError, AssertionError)):
                await call

        asyncio.run(killed())
        gateway.stop()
        gateway.start()
        refused = chat(gateway, "slow", 60)
        assert refused.status == 402 and "$0.06 spent ($0.06 of it lapsed)" in refused.error["message"]
        assert chat(gateway, "slow", 30).status == 200


def in_flight(mock: MockProcess) -> int:
    with urlopen(mock.url + "/mock/statistics") as answer:
        found: int = json.load(answer)["in_flight"]
        return found


def test_the_official_client_comes_again_by_itself(mock: MockProcess, tmp_path: Path) -> None:
    """`budget_busy` is retried, `budget_exceeded` is not: five callers share what fits one at a time."""
    budget = {"scope": "all", "usd": 0.1}

    async def five(base_url: str) -> list[Any]:
        async with openai.AsyncOpenAI(base_url=base_url, api_key=KEYS["web"], max_retries=20) as client:

            async def one() -> Any:
                return await client.chat.completions.create(
                    model="slow", max_tokens=60, messages=[{"role": "user", "content": "hi"}]
                )

            async with asyncio.timeout(60):
                return await asyncio.gather(*(one() for _ in range(5)), return_exceptions=True)

    with GatewayProcess(tmp_path, settings(mock, budget)) as gateway:
        answers = asyncio.run(five(gateway.base_url))
        assert [type(answer).__name__ for answer in answers] == ["ChatCompletion"] * 5, answers
        began = time.monotonic()
        client = openai.OpenAI(base_url=gateway.base_url, api_key=KEYS["web"], max_retries=5)
        with client, pytest.raises(openai.APIStatusError) as refused:
            client.chat.completions.create(
                model="slow", max_tokens=90, messages=[{"role": "user", "content": "hi"}]
            )
        assert refused.value.status_code == 402 and time.monotonic() - began < 3
        gateway.check_books()
