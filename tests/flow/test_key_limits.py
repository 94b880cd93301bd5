"""Limits of keys through the real listener: what clients raise, what headers say, when places are free."""

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from flow.plain_http import Answer, Connection, ask, asking, bearer
from house import GatewayProcess, calls_of, cli, until
from tiergate import Gateway
from tiergate.store import find_owner
from tiergate.testing import MockProcess

CHAT = "/v1/chat/completions"
QUESTION: Any = [{"role": "user", "content": "What is a lease?"}]
SCRIPT = """
default: {words: 3, ttft_ms: 1}
rules:
  - {when: {model: slow}, then: {words: 400, tokens_per_s: 25}}
  - {when: {model: cut}, then: {words: 40, tokens_per_s: 100, clean_cut_after: 4}}
"""
RATES = [
    f"x-ratelimit-{part}-{of}" for of in ("requests", "tokens") for part in ("limit", "remaining", "reset")
]


def key(name: str) -> str:
    return f"limits-client-key-{name}-0123456789"


def settings(mock: MockProcess, **keys: dict[str, int] | None) -> dict[str, Any]:
    return {
        "auth": "keys",
        "keys": [
            {"name": name, "secret": key(name)} | ({} if limits is None else {"limits": limits})
            for name, limits in keys.items()
        ],
        "providers": {"rack": {"base_url": mock.base_url, "tier": "private"}},
        "models": {name: {"targets": [f"rack/{name}"]} for name in ("good", "slow", "cut")},
    }


@pytest.fixture(scope="module")
def mock() -> Iterator[MockProcess]:
    with MockProcess(SCRIPT) as process:
        yield process


@pytest.fixture(scope="module")
def gateway(mock: MockProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    written = settings(
        mock,
        calls={"rpm": 1},
        tokens={"tpm": 500},
        both={"rpm": 100, "tpm": 100_000, "concurrency": 50},
        places={"concurrency": 1},
        free=None,
    )
    with GatewayProcess(tmp_path_factory.mktemp("limits"), written) as process:
        yield process
        process.check_books()


def chat(gateway: GatewayProcess, name: str, model: str = "good", **more: Any) -> Answer:
    body = {"model": model, "messages": QUESTION, **more}
    return ask(gateway.port, CHAT, body, headers=[bearer(key(name))])


def left(gateway: GatewayProcess, name: str) -> dict[str, Any]:
    found = ask(gateway.port, "/v1/key", headers=[bearer(key(name))]).json
    return dict(found["limits_left"])


def metric(gateway: GatewayProcess, line: str) -> float:
    owner = find_owner(gateway.data_dir)
    assert owner is not None and owner.admin is not None
    port = int(owner.admin.rpartition(":")[2])
    page = ask(port, "/metrics", headers=[bearer(owner.admin_token or "")]).body.decode()
    return sum(float(one.rpartition(" ")[2]) for one in page.splitlines() if one.startswith(line))


def test_the_official_client_raises_its_own_error(gateway: GatewayProcess, mock: MockProcess) -> None:
    """With a sentence, a time, and leave to try again; the provider hears nothing, log and metrics do."""
    counted = 'tiergate_limit_refusals_total{endpoint="/v1/chat/completions",limit="rpm"}'
    before = metric(gateway, counted)
    with OpenAI(base_url=gateway.base_url, api_key=key("calls"), max_retries=0) as client:
        client.chat.completions.create(model="good", messages=QUESTION)
        asked = len(calls_of(mock, "good"))
        for streamed in (False, True):
            with pytest.raises(openai.RateLimitError, match="may make 1 call a minute") as raised:
                client.chat.completions.create(model="good", messages=QUESTION, stream=streamed)
    error, headers = raised.value, raised.value.response.headers
    assert (error.code, error.type) == ("rate_limit_exceeded", "rate_limit_error")
    assert 1 <= int(headers["retry-after"]) <= 60 and 1 <= int(headers["retry-after-ms"]) <= 60_000
    assert "x-should-retry" not in headers
    assert (headers["x-ratelimit-limit-requests"], headers["x-ratelimit-remaining-requests"]) == ("1", "0")
    assert len(calls_of(mock, "good")) == asked
    assert metric(gateway, counted) == before + 2
    said = until(lambda: [line for line in gateway.log("refused") if line.get("key") == "calls"])
    assert (said[0]["limit"], said[0]["status"]) == ("rpm", 429)


def test_a_call_is_corrected_to_what_it_used(gateway: GatewayProcess) -> None:
    """So the next one gets in, though both together ask for more than there is."""
    answers = [chat(gateway, "tokens", max_tokens=300) for _ in range(2)]
    assert [answer.status for answer in answers] == [200, 200]
    used = answers[0].json["usage"]["total_tokens"]
    assert int(answers[0].header("x-ratelimit-remaining-tokens") or "") >= 500 - used
    refused = chat(gateway, "tokens", max_tokens=2_000)
    assert (refused.status, refused.error["code"]) == (429, "rate_limit_exceeded")
    assert "may use 500 tokens a minute" in refused.error["message"]
    assert "this call may use 20" in refused.error["message"]


@pytest.mark.parametrize("path", [CHAT, "/v1/chat/stream"])
@pytest.mark.parametrize("streamed", [True, False])
def test_answers_of_a_key_with_rates_say_what_is_left(
    gateway: GatewayProcess, path: str, *, streamed: bool
) -> None:
    """Whole, streamed, plain, and where the call found no model; those of other keys say nothing."""
    more = {"stream": streamed} if path == CHAT else {}
    for name, expected in (("both", RATES), ("places", []), ("free", [])):
        body = {"model": "good", "messages": QUESTION, **more}
        answer = ask(gateway.port, path, body, headers=[bearer(key(name))])
        assert answer.status == 200
        assert [header for header in RATES if answer.header(header)] == expected
    assert answer.header("x-ratelimit-limit-tokens") is None
    missing = chat(gateway, "both", "gone")
    assert missing.status == 404 and missing.header("x-ratelimit-limit-tokens") == "100000"
    assert ask(gateway.port, "/v1/models", headers=[bearer(key("both"))]).header(RATES[0]) is None


def test_a_holder_sees_its_limits_and_what_is_left(gateway: GatewayProcess) -> None:
    """And when its key ends, which keys of the settings do not."""
    found = ask(gateway.port, "/v1/key", headers=[bearer(key("both"))]).json
    limits = {name: limit for name, limit in found["limits"].items() if limit is not None}
    assert limits == {"rpm": 100, "tpm": 100_000, "concurrency": 50}
    assert found["limits_left"]["concurrency"] == 50 and 0 < found["limits_left"]["rpm"] <= 100
    assert found["expires"] is None
    assert set(left(gateway, "free").values()) == {None}


def begun(connection: Connection) -> None:
    connection.read_until(b'"content"')


def stream(model: str) -> dict[str, Any]:
    return {"model": model, "messages": QUESTION, "stream": True}


def test_a_place_is_taken_until_a_stream_ends_breaks_off_or_is_left(gateway: GatewayProcess) -> None:
    """And no longer."""
    header = [bearer(key("places"))]
    for model in ("slow", "cut"):
        with asking(gateway.port, CHAT, stream(model), headers=header) as connection:
            begun(connection)
            if model == "slow":
                refused = chat(gateway, "places")
                assert (refused.status, refused.header("retry-after")) == (429, "1")
                assert "1 call inside at one time" in refused.error["message"]
            else:
                connection.read_to_end()
        until(lambda: left(gateway, "places")["concurrency"], what="the place")
        assert chat(gateway, "places").status == 200
    assert chat(gateway, "places", stream=True).status == 200
    assert chat(gateway, "places").status == 200


def test_of_many_at_once_as_many_get_in_as_there_are_calls(mock: MockProcess, tmp_path: Path) -> None:
    """Exactly, in threads that ask at the same moment."""
    with GatewayProcess(tmp_path, settings(mock, many={"rpm": 1, "concurrency": 10})) as gateway:
        go = threading.Barrier(16)
        answers: list[Answer] = []

        def one() -> None:
            go.wait()
            answers.append(chat(gateway, "many"))

        threads = [threading.Thread(target=one) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(answer.status for answer in answers) == [200, *[429] * 15]
        assert len(gateway.check_books()) == 1


def test_a_reload_keeps_what_was_used(mock: MockProcess, tmp_path: Path) -> None:
    """Of calls and of places; the limits themselves are the new ones at once."""
    with GatewayProcess(tmp_path, settings(mock, ci={"rpm": 2, "concurrency": 2})) as gateway:
        with asking(gateway.port, CHAT, stream("slow"), headers=[bearer(key("ci"))]) as connection:
            begun(connection)
            gateway.write(settings(mock, ci={"rpm": 2, "concurrency": 1}))
            assert gateway.reload()["event"] == "reloaded"
            assert left(gateway, "ci")["concurrency"] == 0
            assert "concurrency" in chat(gateway, "ci").error["message"]
        until(lambda: left(gateway, "ci")["concurrency"], what="the place")
        gateway.write(settings(mock, ci={"rpm": 1}))
        gateway.reload()
        assert left(gateway, "ci") == {"rpm": 0, "tpm": None, "concurrency": None}
        assert chat(gateway, "ci").status == 429
        gateway.write(settings(mock, ci=None))
        gateway.reload()
        assert chat(gateway, "ci").status == 200


def test_a_made_key_has_limits_and_keeps_them_through_a_rotation(mock: MockProcess, tmp_path: Path) -> None:
    """With another secret under the same name nothing is gained; a restart keeps the limits."""
    with GatewayProcess(tmp_path, settings(mock)) as gateway:
        wish = ("--rpm", "1", "--tpm", "5000", "--concurrency", "3", "--without-redis", "closed")
        wish += ("--expires", "1d", "--json")
        made = json.loads(cli("keys", "create", "web", *wish, folder=tmp_path).stdout)
        limits = {name: limit for name, limit in made["limits"].items() if limit is not None}
        assert limits == {"rpm": 1, "tpm": 5_000, "concurrency": 3, "without_redis": "closed"}

        def call(secret: str) -> int:
            body = {"model": "good", "messages": QUESTION}
            return ask(gateway.port, CHAT, body, headers=[bearer(secret)]).status

        assert (call(made["key"]), call(made["key"])) == (200, 429)
        turned = json.loads(cli("keys", "rotate", "web", "--grace", "1h", "--json", folder=tmp_path).stdout)
        assert (call(turned["key"]), call(made["key"])) == (429, 429)
        told = ask(gateway.port, "/v1/key", headers=[bearer(turned["key"])]).json
        assert told["expires"] == made["expires"][:19] + "Z" and told["limits_left"]["rpm"] == 0
        shown = cli("keys", "list", folder=tmp_path).stdout
        assert "1 rpm, 5000 tpm, 3 at once, closed without Redis" in shown
        gateway.stop()
        gateway.start()
        (listed,) = json.loads(cli("keys", "list", "--json", folder=tmp_path).stdout)["data"]
        assert listed["limits"] == made["limits"]
        assert call(turned["key"]) == 200


def test_a_key_of_the_settings_with_a_made_ones_name_is_told_of(mock: MockProcess, tmp_path: Path) -> None:
    """At the reload that brings it and at each start, for as long as both are in use."""
    with GatewayProcess(tmp_path, settings(mock, other=None)) as gateway:
        assert cli("keys", "create", "web", folder=tmp_path).returncode == 0
        assert not gateway.log("keys_shared")
        gateway.write(settings(mock, other=None, web=None))
        gateway.reload()
        (line,) = gateway.log("keys_shared")
        assert "the same name: web." in line["message"]
        gateway.stop()
        gateway.start()
        until(lambda: len(gateway.log("keys_shared")) == 2, what="the line")
        assert cli("keys", "revoke", "web", folder=tmp_path).returncode == 0
        gateway.reload()
        assert len(gateway.log("keys_shared")) == 2


@pytest.mark.parametrize("is_served", [False, True], ids=["alone", "through a gateway"])
def test_python_has_no_key_and_no_limits(mock: MockProcess, tmp_path: Path, *, is_served: bool) -> None:
    """By itself, and through a gateway that runs: its callers are `local`, a name that no key can have."""
    gateway = GatewayProcess(tmp_path, settings(mock, ci={"rpm": 1, "tpm": 1, "concurrency": 1}))
    if is_served:
        gateway.start()

    async def calls() -> list[str]:
        async with Gateway.from_config(gateway.settings_file) as door:
            replies = [door.chat(QUESTION, model="good") for _ in range(5)]
            return [reply.text for reply in await asyncio.gather(*replies)]

    try:
        assert len(asyncio.run(calls())) == 5
    finally:
        gateway.stop()


def test_a_wrong_admin_token_leaves_a_trace(gateway: GatewayProcess) -> None:
    """One line in the log however often it is tried, and every time in the metrics."""
    owner = find_owner(gateway.data_dir)
    assert owner is not None and owner.admin is not None
    port = int(owner.admin.rpartition(":")[2])
    for _ in range(5):
        assert ask(port, "/api/keys", headers=[bearer("guessed")]).status == 401
    assert metric(gateway, 'tiergate_refusals_total{endpoint="admin",error="invalid_api_key"}') == 5
    lines = until(lambda: [line for line in gateway.log("refused") if line["endpoint"] == "admin"])
    assert len(lines) == 1 and "guessed" not in gateway.stderr
