"""One door for money: every way to make a call, by every name, under every scope of budget.

The matrix is made of the data plane's own list of endpoints, so that a new one is in it or the test says so.
"""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from batches import Batches, row
from flow.plain_http import ask, bearer
from house import GatewayProcess, calls_of, cli, until
from tiergate import Gateway
from tiergate.app.client import GatewayError
from tiergate.core import TiergateError
from tiergate.ledger import Scope
from tiergate.testing import MockProcess
from tiergate.web import application

KEY = "web-key-0123456789abcdef"
QUESTION = [{"role": "user", "content": "hi"}]
COSTLESS = {"/v1/estimate-cost", "/v1/models", "/v1/key"}
"""Endpoints that call nobody."""
NAMES = {
    "by its name": "named",
    "by provider and upstream name": "dear/upstream",
    "by whatever else": "anything",
}
SCOPES = {
    Scope.ALL: "all",
    Scope.KEY: "key:web",
    Scope.TEAM: "team:shop",
    Scope.MODEL: "model:{model}",
    Scope.TIER: "tier:hosted",
}


@pytest.fixture(scope="module")
def mock() -> Iterator[MockProcess]:
    with MockProcess('{"default": {"words": 3, "ttft_ms": 1}}') as process:
        yield process


def settings(mock: MockProcess, scope: str, usd: float) -> dict[str, Any]:
    price = {"input": 0, "output": 1000}
    return {
        "auth": "keys",
        "keys": [{"name": "web", "secret": KEY, "team": "shop"}],
        "providers": {"dear": {"base_url": mock.base_url}},
        "models": {"named": {"targets": ["dear/upstream"]}, "*": {"targets": ["dear/*"]}},
        "prices": [{"target": f"dear/{name}", "usd_per_1m": price} for name in ("upstream", "anything")],
        "budgets": [{"scope": scope, "usd": usd}],
    }


def posted(
    path: str, *, streamed: bool, has_receipt: bool = False
) -> Callable[[GatewayProcess, str], tuple[int, str]]:
    def call(gateway: GatewayProcess, model: str) -> tuple[int, str]:
        body = {"model": model, "max_tokens": 5, "messages": QUESTION, "stream": streamed}
        receipt = [("Idempotency-Key", uuid4().hex)] if has_receipt else []
        answer = ask(gateway.port, path, body, headers=[bearer(KEY), *receipt])
        return answer.status, answer.error["code"] if answer.status >= 400 else ""

    return call


WAYS: dict[str, Callable[[GatewayProcess, str], tuple[int, str]]] = {
    f"{path}, {'streamed' if streamed else 'whole'}{', with a receipt' if has_receipt else ''}": posted(
        path, streamed=streamed, has_receipt=has_receipt
    )
    for path, (method, _) in application._ENDPOINTS.items()
    if method == "POST" and path not in COSTLESS
    for streamed in (False, True)
    for has_receipt in (False, True)
    if streamed or path != "/v1/chat/stream"
}


def batched(gateway: GatewayProcess, model: str) -> tuple[int, str]:
    """Ask as a line of a batch, which stands still where money is missing."""
    batches = Batches(gateway, KEY)
    batch = batches.begin([row("one", "hi", model=model, max_tokens=5)])
    found = batches.until(batch, "stopped", "parked", "completed")
    if found["request_counts"]["completed"]:
        return 200, ""
    return (402, "budget_exceeded") if found["tiergate"]["reason"] == "budget" else (500, str(found))


WAYS["a line of a batch"] = batched


def test_every_endpoint_that_can_cost_is_in_the_matrix() -> None:
    """A new one is tried, or is said to call nobody."""
    tried = {way.partition(",")[0] for way in WAYS} - {"a line of a batch"}
    assert {path for path, (method, _) in application._ENDPOINTS.items()} == tried | COSTLESS
    # A batch's own ceiling is in no settings, and over its lines only.
    assert set(SCOPES) == set(Scope) - {Scope.JOB}


@pytest.fixture(scope="module", params=[(scope, name) for scope in SCOPES for name in NAMES], ids=str)
def spent_up(
    request: pytest.FixtureRequest, mock: MockProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[GatewayProcess, str]]:
    """A gateway whose budget has nothing left for calls of a name."""
    scope, name = request.param
    model = NAMES[name]
    written = settings(mock, SCOPES[scope].format(model=model), 0)
    with GatewayProcess(tmp_path_factory.mktemp("door"), written) as gateway:
        yield gateway, model


def test_no_way_goes_around_the_ceiling(spent_up: tuple[GatewayProcess, str], mock: MockProcess) -> None:
    """Every way is refused by the budget, and the provider hears of none."""
    gateway, model = spent_up
    upstream = model.rpartition("/")[2]
    before = len(calls_of(mock, upstream)) + len(calls_of(mock, "upstream"))
    answers = {way: call(gateway, model) for way, call in WAYS.items()}
    assert set(answers.values()) == {(402, "budget_exceeded")}, answers
    assert len(calls_of(mock, upstream)) + len(calls_of(mock, "upstream")) == before


@pytest.mark.parametrize("name", NAMES)
def test_with_money_every_way_goes_through(mock: MockProcess, tmp_path: Path, name: str) -> None:
    """So that the refusals above are the budget's doing; each call is counted in it."""
    model = NAMES[name]
    with GatewayProcess(tmp_path, settings(mock, "all", 5)) as gateway:
        assert {call(gateway, model)[0] for call in WAYS.values()} == {200}
        entries = gateway.check_books()
    assert len(entries) == len(WAYS)
    assert all((attempt.cash_nanos or 0) > 0 for entry in entries for attempt in entry.attempts)


# From Python and from the shell: no key there, so the caller is `local`.

LOCAL_SCOPES = ["all", "key:local"]


@pytest.mark.parametrize("scope", LOCAL_SCOPES)
@pytest.mark.parametrize("is_served", [False, True], ids=["alone", "through a gateway"])
def test_python_and_the_shell_meet_it_too(
    mock: MockProcess, tmp_path: Path, scope: str, *, is_served: bool
) -> None:
    """Whole and streamed; by themselves, and through a gateway that runs."""
    gateway = GatewayProcess(tmp_path, settings(mock, scope, 0))
    if is_served:
        gateway.start()
    before = len(calls_of(mock, "upstream"))

    async def asked() -> list[str]:
        codes = []
        async with Gateway.from_config(gateway.settings_file) as door:
            for streamed in (False, True):
                try:
                    if streamed:
                        async for _ in door.stream(QUESTION, model="named", max_tokens=5):
                            pass
                    else:
                        await door.chat(QUESTION, model="named", max_tokens=5)
                except (GatewayError, TiergateError) as error:
                    codes.append(error.code)
        return codes

    try:
        assert asyncio.run(asked()) == ["budget_exceeded"] * 2
        for how in ((), ("--stream",)):
            done = cli("chat", "hi", "-m", "named", "--max-tokens", "5", *how, folder=tmp_path)
            assert done.returncode == 1 and "The budget" in done.stderr, done.stdout
        done = cli("doctor", "--call", "--json", folder=tmp_path)
        called = [one for one in json.loads(done.stdout)["findings"] if one["subject"].endswith("one call")]
        assert [one["verdict"] for one in called] == ["bad"]
    finally:
        gateway.stop()
    assert len(calls_of(mock, "upstream")) == before


def test_a_call_that_waits_for_money_is_counted_by_nobody_else(mock: MockProcess, tmp_path: Path) -> None:
    """What is refused is in the ledger as a call without attempts, once."""
    with GatewayProcess(tmp_path, settings(mock, "all", 0)) as gateway:
        assert posted("/v1/chat/completions", streamed=False)(gateway, "named")[0] == 402
        until(lambda: gateway.log("budget_exceeded"), what="its line")
        (entry,) = gateway.check_books()
    assert (entry.error_code, entry.attempts) == ("budget_exceeded", ())
