"""What a cache would do, told from own traffic: `report savings --dry-run` and `report prefixes`."""

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

import pytest

from flow.plain_http import ask
from house import GatewayProcess, cli
from tiergate.testing import MockProcess

SYSTEM = {"role": "system", "content": "You answer in one word. " * 40}
USD_PER_TOKEN = 0.001


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """One that keeps nothing and marks everything; its traffic is over when tests look at it."""
    with MockProcess("default: {words: 5, ttft_ms: 1}") as mock:
        settings = {
            "providers": {"main": {"base_url": mock.base_url}},
            "models": {"m": {"targets": ["main/m"]}, "other": {"targets": ["main/other"]}},
            "prices": [
                {"target": f"main/{name}", "usd_per_1m": {"input": 0, "output": USD_PER_TOKEN * 1e6}}
                for name in ("m", "other")
            ],
            "cache": {"dry_run": True, "prefixes": True},
        }
        with GatewayProcess(tmp_path_factory.mktemp("dry"), settings) as process:
            for question in ("a", "a", "a", "b"):
                chat(process, question, temperature=0)
            for question in ("c", "c"):
                chat(process, question, temperature=0.7)
            chat(process, "a", model="other", temperature=0)
            yield process


def chat(gateway: GatewayProcess, question: str, *, model: str = "m", **fields: Any) -> None:
    messages = [SYSTEM, {"role": "user", "content": question}]
    answer = ask(gateway.port, "/v1/chat/completions", {"model": model, "messages": messages, **fields})
    assert answer.status == 200
    assert (answer.header("cache-status") or "").startswith("tiergate; fwd=bypass; detail=dry-run")


def report(gateway: GatewayProcess, *arguments: str) -> str:
    done = cli("report", *arguments, folder=gateway.folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_a_cache_would_have_answered(gateway: GatewayProcess) -> None:
    """Two of three equal questions as it is set; those whose answers are drawn by chance, with `always`."""
    told = json.loads(report(gateway, "savings", "--dry-run", "--by", "model", "--json"))
    rows = {row["model"]: row for row in told["rows"]}
    assert told["calls"] == 7 and set(rows) == {"m", "other"}
    found = {
        how: tuple(rows["m"][f"{how}_{what}"] for what in ("calls", "hits", "output_tokens", "unpriced_hits"))
        for how in ("as_set", "always")
    }
    assert found == {"as_set": (4, 2, 10, 0), "always": (6, 3, 15, 0)}
    assert rows["m"]["as_set_usd"] == pytest.approx(10 * USD_PER_TOKEN)
    assert (rows["other"]["as_set_calls"], rows["other"]["as_set_hits"]) == (1, 0)


def test_it_is_said_as_a_table_and_as_csv(gateway: GatewayProcess) -> None:
    """With both sums, of all calls."""
    table = report(gateway, "savings", "--dry-run", "--by", "model")
    assert "With the settings as they are: 2 calls given again (28.6 % of all 7 calls)" in table
    assert "With `when: always`: 3 calls given again (42.9 % of all 7 calls)" in table
    rows = list(
        csv.DictReader(io.StringIO(report(gateway, "savings", "--dry-run", "--by", "model", "--csv")))
    )
    assert {row["model"]: row["always_hits"] for row in rows} == {"m": "3", "other": "0"}


def test_how_much_of_prompts_was_sent_before(gateway: GatewayProcess) -> None:
    """The same beginning, to the same model; the first of each has none."""
    told = json.loads(report(gateway, "prefixes", "--by", "model", "--within", "10m", "--json"))
    rows = {row["model"]: row for row in told["rows"]}
    assert told["within_s"] == 600
    assert (rows["m"]["calls"], rows["other"]["calls"]) == (6, 1)
    assert rows["other"]["repeated_bytes"] == 0
    assert 0.8 < rows["m"]["repeated_share"] < 5 / 6
    table = report(gateway, "prefixes", "--by", "model")
    assert "had been sent to the same model by the same tenant within" in table
    text = report(gateway, "prefixes", "--by", "model", "--csv")
    assert [row["calls"] for row in csv.DictReader(io.StringIO(text))] == ["6", "1"]


def test_where_nothing_was_marked_the_reports_say_what_to_set(tmp_path: Any) -> None:
    """Rather than that there is nothing to gain."""
    settings = {"providers": {"main": {"base_url": "http://127.0.0.1:9/v1"}}}
    with GatewayProcess(tmp_path, settings) as gateway:
        assert "Set `cache: {dry_run: true}`" in report(gateway, "savings", "--dry-run")
        assert "Set `cache: {prefixes: true}`" in report(gateway, "prefixes")
