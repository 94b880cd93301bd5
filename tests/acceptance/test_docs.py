"""What the documentation shows is run: settings load, commands exist, programs do what they say."""

import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
import yaml

from house import GatewayProcess, environment
from tiergate.config import load_text
from tiergate.testing import MockProcess

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
KEYS = {
    "OPENAI_API_KEY": "sk-test-openai-0123456789",
    "WEB_KEY": "web-key-0123456789abcdef",
    "BULK_KEY": "bulk-key-0123456789abcdef",
    "CI_KEY": "ci-key-0123456789abcdef",
}


def blocks(language: str) -> list[pytest.ParameterSet]:
    """Every fenced block of a language in the documentation, named by its page and line."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            line = text.count("\n", 0, match.start()) + 1
            found.append(pytest.param(match[1], id=f"{page.relative_to(ROOT)}:{line}"))
    return found


@pytest.mark.parametrize("text", [block for block in blocks("yaml") if "providers:" in str(block.values[0])])
def test_settings_in_the_documentation_are_right(text: str) -> None:
    """Every settings example loads, without a word about anything that is not honoured."""
    loaded = load_text(text, KEYS)
    assert loaded.notices == ()


@pytest.mark.parametrize("text", blocks("sh"))
def test_commands_in_the_documentation_exist(text: str) -> None:
    """Every `tiergate` and `make` command that is shown is one, with the options that are shown."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if words[:1] == ["make"]:
            assert words[1] in targets
        if words[:1] == ["tiergate"]:
            command = (
                words[1:3]
                if words[1] in ("report", "import", "entries", "keys", "cache", "targets", "batch")
                else words[1:2]
            )
            help_text = subprocess.run(
                [sys.executable, "-m", "tiergate.app.cli", *command, "--help"],
                capture_output=True,
                text=True,
                check=True,
                timeout=20,
            ).stdout
            for option in (word for word in words if word.startswith("-")):
                assert option.partition("=")[0] in options_in(help_text)


def test_the_page_of_providers_is_what_the_code_says() -> None:
    """docs/reference/providers.md; `tiergate providers --markdown` writes it anew."""
    made = subprocess.run(
        [sys.executable, "-m", "tiergate.app.cli", "providers", "--markdown"],
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    ).stdout
    assert (ROOT / "docs/reference/providers.md").read_text(encoding="utf-8") == made


def options_in(help_text: str) -> set[str]:
    """The options that a help text lists; those in its sentences and its example do not count."""
    lists = re.findall(r"^\s*((?:--?[a-z][a-z-]*(?:, )?)+)", help_text, re.MULTILINE)
    return {option for found in lists for option in found.split(", ")}


def test_an_option_is_compared_whole() -> None:
    """A part of an option, and an option that only the example shows, is none."""
    text = (
        "Options:\n  --max-tokens <int>  Most.\n  -c, --config <path>  File.\n\n  Example: x -m y --stream\n"
    )
    assert options_in(text) == {"--max-tokens", "-c", "--config"}


def statements() -> list[str]:
    """Every SQL statement that is shown."""
    shown = [str(block.values[0]) for language in ("sh", "sql") for block in blocks(language)]
    return [one for text in shown for one in re.findall(r"\b(?:SELECT|WITH)\b[^\";]*", text)]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """The README's settings, with a scripted provider in the place of the real ones."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = re.search(r"^```yaml\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)
    assert shown is not None
    settings = yaml.safe_load(shown[1])
    folder = tmp_path_factory.mktemp("docs")
    with MockProcess("default: {reply: Hello}") as mock:
        for provider in settings["providers"].values():
            provider["base_url"] = mock.base_url
        with GatewayProcess(folder, settings, environ=KEYS) as gateway:
            yield gateway


@pytest.mark.parametrize("text", blocks("python"))
def test_programs_in_the_documentation_run(text: str, gateway: GatewayProcess) -> None:
    """Every program that is shown runs against a gateway with the README's settings, and prints an answer."""
    program = text.replace("http://127.0.0.1:4400", gateway.url)
    ran = subprocess.run(
        [sys.executable, "-c", program.replace("tiergate.yaml", str(gateway.settings_file))],
        env=environment(**KEYS),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip()


def test_there_is_sql_in_the_documentation() -> None:
    """The quickstart shows how to look at the books."""
    assert statements()


@pytest.mark.parametrize("statement", statements())
def test_sql_in_the_documentation_runs(statement: str, gateway: GatewayProcess) -> None:
    """Every SQL statement that is shown reads the ledger of a running gateway, and finds what was called."""
    question = {"model": "chat", "messages": [{"role": "user", "content": "Hello!"}]}
    headers = {"Content-Type": "application/json"}
    body = json.dumps(question).encode()
    with urlopen(Request(gateway.url + "/v1/chat/completions", body, headers), timeout=20) as answer:
        assert answer.status == 200
    with closing(sqlite3.connect(f"file:{gateway.data_dir / 'ledger.db'}?mode=ro", uri=True)) as ledger:
        rows = ledger.execute(statement).fetchall()
    assert "rack/Qwen/Qwen3-8B" in [row[0] for row in rows]


def test_the_example_program_runs(gateway: GatewayProcess) -> None:
    """`examples/ask_many.py` asks through the running gateway and adds up what it cost."""
    ran = subprocess.run(
        [sys.executable, ROOT / "examples/ask_many.py", gateway.settings_file, "chat"],
        env=environment(**KEYS),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("[rack/Qwen/Qwen3-8B, private]") == 3
    assert ran.stdout.endswith("$0 together\n")


@pytest.mark.parametrize("credential", ["Bearer anything", "Basic dXNlcjpwYXNz", "Bearer ", "odd"])
def test_while_auth_is_open_any_credential_will_do(gateway: GatewayProcess, credential: str) -> None:
    """The README says so; clients that must send one send what they have."""
    request = Request(gateway.base_url + "/models", headers={"Authorization": credential})
    with urlopen(request, timeout=10) as answer:
        assert answer.status == 200
