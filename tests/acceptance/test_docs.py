"""What the documentation shows is run: settings load, commands exist, programs do what they say."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

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
            help_text = subprocess.run(
                [sys.executable, "-m", "tiergate.app.cli", words[1], "--help"],
                capture_output=True,
                text=True,
                check=True,
                timeout=20,
            ).stdout
            for option in (word for word in words if word.startswith("-")):
                assert option in help_text


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
