"""F41: prices that come with the package are damaged, and no call costs nothing for that reason."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from flow.plain_http import ask
from house import SOURCES, GatewayProcess, cli, environment
from tiergate.testing import MockProcess


@pytest.fixture(scope="module")
def mock() -> Iterator[MockProcess]:
    with MockProcess("default: {words: 5, ttft_ms: 1}") as process:
        yield process


def negative(text: str) -> str:
    """Let one price be less than nothing."""
    data = json.loads(text, parse_float=Decimal)
    data["vendors"]["openai"][0]["rows"][0]["rates"]["output"] = -1
    return json.dumps(data, default=float)


DAMAGES = {
    "missing": None,
    "cut off": lambda text: text[: len(text) // 2],
    "of another shape": lambda text: "[]",
    "a negative price": negative,
    "a price without output": lambda text: text.replace('"output"', '"outputs"', 1),
    "a test of names that nobody knows": lambda text: text.replace('["starts"', '["begins"', 1),
    "no numbers": lambda text: text.replace('"input":', '"input":"much","was":', 1),
}


def package(folder: Path, damage: Any) -> Path:
    """Give a copy of the package whose prices are damaged."""
    shutil.copytree(SOURCES, folder, ignore=shutil.ignore_patterns("__pycache__"))
    file = folder / "tiergate" / "catalog" / "data" / "prices.json"
    text = file.read_text()
    if damage is None:
        file.unlink()
    else:
        file.write_text(damage(text))
        assert file.read_text() != text
    return folder


FIND = """
import json
from tiergate.catalog import data_problems
from tiergate.catalog.bundled import bundled_records, model_count
found = list(bundled_records("openai", "gpt-4.1", target="t"))
print(json.dumps([data_problems(), len(found), model_count("openai")]))
"""


@pytest.mark.parametrize("how", DAMAGES)
def test_nothing_of_a_damaged_table_is_believed(tmp_path: Path, how: str) -> None:
    """No part of it, and people are told."""
    environ = environment(PYTHONPATH=str(package(tmp_path / "src", DAMAGES[how])))
    done = subprocess.run(
        [sys.executable, "-c", FIND], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (problem,), records, models = json.loads(done.stdout)
    assert (records, models) == (0, 0)
    assert "prices.json" in problem and "Install Tiergate again" in problem


def test_without_known_prices_budgets_refuse(mock: MockProcess, tmp_path: Path) -> None:
    """It starts, tells what is wrong, sends nothing at an unknown price, and answers what has its own."""
    environ = {"PYTHONPATH": str(package(tmp_path / "src", DAMAGES["cut off"]))}
    settings = {
        "providers": {
            "openai": {"base_url": "https://api.openai.com/v1", "api_keys": ["k"]},
            "bought": {"base_url": mock.base_url},
        },
        "models": {"known": {"targets": ["openai/gpt-4.1"]}, "own": {"targets": ["bought/own"]}},
        "prices": [{"target": "bought/own", "usd_per_1m": {"input": 1, "output": 1}}],
        "budgets": [{"scope": "all", "usd": 10}],
    }
    body = {"max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
    with GatewayProcess(tmp_path / "one", settings, environ=environ) as gateway:
        refused, answered = (
            ask(gateway.port, "/v1/chat/completions", {**body, "model": model}) for model in ("known", "own")
        )
        told = [line for line in gateway.log() if line["event"] == "package_damaged"]
    assert (refused.status, refused.error["code"]) == (402, "budget_unbounded")
    assert answered.status == 200
    assert "prices.json" in told[0]["message"] and len(told) == 1


def test_the_doctor_says_what_is_damaged(mock: MockProcess, tmp_path: Path) -> None:
    """And what to do."""
    (tmp_path / "tiergate.yaml").write_text(json.dumps({"providers": {"own": {"base_url": mock.base_url}}}))
    environ = {"PYTHONPATH": str(package(tmp_path / "src", None))}
    done = cli("doctor", "--json", folder=tmp_path, environ=environ)
    doctor = json.loads(done.stdout)
    bad = [one for one in doctor["findings"] if one["subject"] == "package"]
    assert [one["verdict"] for one in bad] == ["bad"] and bad[0]["remedy"]
    assert not doctor["ok"] and done.returncode == 1
