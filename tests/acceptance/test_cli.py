"""The command line as a user meets it: what it prints, where, and with which exit status."""

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from house import GatewayProcess, calls_of, cli, environment, until
from tiergate.testing import MockProcess

COMMANDS = (
    "serve",
    "chat",
    "estimate",
    "init",
    "models",
    "providers",
    "check",
    "doctor",
    "schema",
    "mock",
    "demo",
    "backup",
    "restore",
)
KEY = "sk-provider-0123456789-MAIN"


@pytest.fixture(scope="module")
def mock() -> Iterator[MockProcess]:
    rules = [
        {"when": {"model": "fails"}, "then": {"status": 500}},
        {"when": {"model": "cut"}, "then": {"clean_cut_after": 4}},
        {"when": {"model": "slow"}, "then": {"words": 500, "tokens_per_s": 20}},
    ]
    with MockProcess(json.dumps({"default": {"words": 9}, "rules": rules})) as process:
        yield process


def settings_for(mock: MockProcess) -> dict[str, Any]:
    return {
        "auth": "keys",
        "keys": [{"name": "web", "secret": "web-key-0123456789abcdef"}],
        "hosts": ["gateway.example"],
        "providers": {
            "main": {"base_url": mock.base_url, "api_keys": [KEY]},
            "rack": {"base_url": mock.base_url, "tier": "private"},
        },
        "models": {
            "good": {"targets": ["rack/good", "main/good"]},
            "hosted": {"targets": ["main/hosted"]},
            "*": {"targets": ["main/*"]},
        },
        "prices": [{"target": "main/hosted", "usd_per_1m": {"input": 1, "output": 2}}],
    }


@pytest.fixture(scope="module")
def folder(mock: MockProcess, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with settings, in which no gateway runs."""
    made = tmp_path_factory.mktemp("cli")
    text = yaml.safe_dump(
        {"listen": "127.0.0.1:0", "data_dir": "data", **settings_for(mock)}, sort_keys=False
    )
    (made / "tiergate.yaml").write_text(text)
    return made


@pytest.fixture(scope="module")
def gateway(mock: MockProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with GatewayProcess(tmp_path_factory.mktemp("served"), settings_for(mock)) as process:
        yield process
        process.check_books()


# Help.


def test_help_lists_every_command(folder: Path) -> None:
    """`tiergate --help` names the commands; without a command the same help is shown as wrong usage."""
    done = cli("--help", folder=folder)
    assert done.returncode == 0
    for command in COMMANDS:
        assert re.search(rf"^\W*{command}\b", done.stdout, re.MULTILINE), command
    assert cli(folder=folder).returncode == 2


def test_help_is_quick_and_has_an_example(folder: Path) -> None:
    """Every command's help ends with an example line, and loads nothing that only work needs."""
    program = f"""
import sys
from tiergate.app.cli import cli
for command in {COMMANDS!r}:
    try:
        cli([command, "--help"], standalone_mode=False)
    except SystemExit as ended:
        assert not ended.code
heavy = ("asyncio", "yaml", "granian", "httptools", "uvloop", "sqlite3", "tiergate.wire")
print("LOADED", [name for name in heavy if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    examples = re.findall(r"^ *Example: tiergate (\w+)", done.stdout, re.MULTILINE)
    assert tuple(examples) == COMMANDS
    assert "LOADED []" in done.stdout


def test_version(folder: Path) -> None:
    """`--version` prints one line."""
    assert re.fullmatch(r"tiergate \d+\.\d+\.\d+\S*\n", cli("--version", folder=folder).stdout)


@pytest.mark.parametrize(
    "arguments",
    [
        ["nothing"],
        ["chat", "hello"],
        ["chat", "hello", "-m", "good", "--max-tokens", "0"],
        ["chat", "hello", "-m", "good", "--temperature", "hot"],
        ["models", "--jsn"],
        ["mock", "--port", "70000"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_2(folder: Path, arguments: list[str]) -> None:
    """Wrong usage has status 2 and says so on standard error, nothing else."""
    done = cli(*arguments, folder=folder)
    assert done.returncode == 2
    assert done.stdout == ""
    assert re.search("^(Usage|Error):", done.stderr)
    assert "Traceback" not in done.stderr


# check, schema, models.


def test_check_of_good_settings(folder: Path) -> None:
    """Good settings: status 0, the file's name and what is in it."""
    done = cli("check", folder=folder)
    assert done.returncode == 0
    assert "tiergate.yaml is right: 2 providers, 3 models." in done.stdout
    said = json.loads(cli("check", "--json", folder=folder).stdout)
    assert said["ok"] is True


BAD = """\
listen: 127.0.0.1:0
providers:
  main:
    base_url: ftp://nowhere
    api_keys: ["${NOT_SET}"]
    tear: private
models:
  good: {targets: [mian/good]}
"""


def test_check_of_bad_settings(tmp_path: Path) -> None:
    """Every problem with its line and column, the nearest known name, and status 1; the same as JSON."""
    (tmp_path / "tiergate.yaml").write_text(BAD)
    done = cli("check", folder=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    places = re.findall(r"^tiergate\.yaml:(\d+):(\d+): ", done.stderr, re.MULTILINE)
    assert places == [("4", "15"), ("5", "17"), ("6", "5"), ("8", "20")]
    for words in ("NOT_SET", "'tier'", "'main'"):
        assert words in done.stderr
    said = json.loads(cli("check", "--json", folder=tmp_path).stdout)
    assert said["ok"] is False
    assert said["problems"] == done.stderr.splitlines()


UNREADABLE: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "missing": (lambda path: None, ("There is no tiergate.yaml", "--config")),
    "folder": (lambda path: path.mkdir(), ("tiergate.yaml", "cannot be read")),
    "no-yaml": (lambda path: path.write_text("a: [b\n"), ("tiergate.yaml:2:1",)),
    "no-text": (lambda path: path.write_bytes(b"a: \xff\n"), ("tiergate.yaml:1:4", "UTF-8")),
}


@pytest.mark.parametrize(
    ("command", "how"),
    [
        *((["check"], how) for how in UNREADABLE),
        (["check"], "missing"),
        (["serve"], "no-yaml"),
        (["chat", "x", "-m", "y"], "no-text"),
    ],
)
def test_settings_that_cannot_be_read(tmp_path: Path, command: list[str], how: str) -> None:
    """Every command that needs settings says what is wrong with them, with status 1 and no traceback."""
    make, words = UNREADABLE[how]
    make(tmp_path / "tiergate.yaml")
    done = cli(*command, folder=tmp_path)
    assert done.returncode == 1
    for word in words:
        assert word in done.stderr
    assert "Traceback" not in done.stderr


def test_settings_are_found(folder: Path, tmp_path: Path) -> None:
    """`--config` wins over TIERGATE_CONFIG, which wins over ./tiergate.yaml."""
    good, none = str(folder / "tiergate.yaml"), str(tmp_path / "none.yaml")
    assert cli("check", folder=tmp_path, environ={"TIERGATE_CONFIG": good}).returncode == 0
    assert "none.yaml" in cli("check", folder=folder, environ={"TIERGATE_CONFIG": none}).stderr
    assert cli("check", "-c", good, folder=tmp_path, environ={"TIERGATE_CONFIG": none}).returncode == 0


def test_schema(folder: Path) -> None:
    """The schema is JSON that an editor understands and knows every section; `--markdown` is the page."""
    schema = json.loads(cli("schema", folder=folder).stdout)
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert {"providers", "models", "prices", "keys"} <= set(schema["properties"])
    page = Path(__file__).parents[2] / "docs" / "reference" / "settings.md"
    assert cli("schema", "--markdown", folder=folder).stdout == page.read_text()


def test_models(folder: Path) -> None:
    """Each target of each model with tier and price; `--json` gives the list of the data plane."""
    lines = [line.split() for line in cli("models", folder=folder).stdout.splitlines()]
    assert ["good", "rack/good", "private", "price", "owned"] in lines
    assert ["good", "main/good", "hosted", "price", "unknown"] in lines
    assert ["hosted", "main/hosted", "hosted", "$1", "in,", "$2", "out", "per", "1M", "tokens"] in lines
    assert any(line[:2] == ["(any", "other)"] for line in lines)
    listed = json.loads(cli("models", "--json", folder=folder).stdout)
    assert [model["id"] for model in listed["data"]] == ["good", "hosted"]
    assert listed["data"][1]["targets"][0]["usd_per_1m"] == {"input": 1, "output": 2}


# chat.


@pytest.fixture(params=["alone", "through a running gateway"])
def place(request: pytest.FixtureRequest, folder: Path, gateway: GatewayProcess) -> Path:
    """A folder in which a gateway runs, or none."""
    return folder if request.param == "alone" else gateway.folder


def test_chat(place: Path) -> None:
    """The answer alone on standard output; its account on standard error."""
    done = cli("chat", "What is a lease?", "-m", "hosted", folder=place)
    assert done.returncode == 0
    assert len(done.stdout.split()) == 9
    account = re.fullmatch(r"\[main/hosted, hosted; (\d+) tokens in, 9 out; \$(0\.\d+)\]\n", done.stderr)
    assert account is not None, done.stderr
    assert float(account[2]) == pytest.approx((int(account[1]) + 18) / 1e6)


def test_chat_json(place: Path) -> None:
    """`--json` prints one object with text, target, usage and cost."""
    said = json.loads(cli("chat", "What is a lease?", "-m", "good", "--json", folder=place).stdout)
    assert (said["target"], said["tier"], said["attempts"]) == ("rack/good", "private", 1)
    assert said["usage"]["completion_tokens"] == 9
    assert said["finish_reasons"] == ["stop"]
    assert said["cost_usd"] == 0
    assert said["call"]


def test_chat_stream(place: Path) -> None:
    """`--stream` prints the same text, piece by piece, and ends the line."""
    whole = cli("chat", "What is a lease?", "-m", "hosted", folder=place).stdout
    streamed = cli("chat", "What is a lease?", "-m", "hosted", "--stream", folder=place)
    assert (streamed.returncode, streamed.stdout) == (0, whole)


def test_chat_options(place: Path) -> None:
    """System message, limit and standard input reach the model."""
    done = cli(
        "chat", "-", "-m", "hosted", "--system", "Be brief.", "--max-tokens", "3", "--temperature", "0.5",
        "--json", folder=place, stdin="What is a lease?\n",
    )  # fmt: skip
    said = json.loads(done.stdout)
    assert said["usage"]["completion_tokens"] == 3
    assert said["finish_reasons"] == ["length"]


def test_chat_stream_prints_as_it_comes(place: Path) -> None:
    """The first words are there long before the answer ends; Ctrl-C ends it with status 130."""
    command = [sys.executable, "-m", "tiergate.app.cli", "chat", "hello", "-m", "main/slow", "--stream"]
    # A shell that runs these tests in its background has them ignore Ctrl-C, and their children with them.
    with subprocess.Popen(
        command,
        cwd=place,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.read(10)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=10)
    assert process.returncode == 130
    assert b"Traceback" not in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-m", "main/fails"], "main failed on its own side (500)"),
        (["-m", "main/fails", "--stream"], "main failed on its own side (500)"),
        (["-m", "main/cut", "--stream"], "ended before its answer was complete"),
    ],
    ids=["whole", "stream", "cut"],
)
def test_chat_that_fails(place: Path, arguments: list[str], words: str) -> None:
    """A failure is one sentence on standard error, and status 1."""
    done = cli("chat", "hello", *arguments, folder=place)
    assert done.returncode == 1
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_chat_goes_through_the_running_gateway(gateway: GatewayProcess, mock: MockProcess) -> None:
    """One ledger, one idea of limits: the call is the running gateway's own, over its own connection."""
    model = "main/through"
    for arguments in ([], ["--stream"]):
        assert cli("chat", "hello", "-m", model, *arguments, folder=gateway.folder).returncode == 0
    calls = calls_of(mock, "through")
    assert len(calls) == 2
    assert len({call["connection"] for call in calls}) == 1

    def lines() -> list[dict[str, Any]] | None:
        found = [line for line in gateway.log() if line["event"] == "call" and line["model"] == model]
        return found if len(found) == 2 else None

    for line in until(lines, what="both lines"):
        assert (line["end"], line["key"]) == ("success", "local")


def test_chat_into_a_closed_pipe(place: Path) -> None:
    """A reader that leaves (`| head`) is no traceback."""
    command = f"{sys.executable} -m tiergate.app.cli chat hello -m main/slow --stream | head -c 5"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=place,
        env=environment(),
        capture_output=True,
        check=False,
    )
    assert len(done.stdout) == 5
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr


# serve, mock.


def test_second_gateway_on_the_same_data(gateway: GatewayProcess) -> None:
    """A second owner is refused with the first one's process and address, and what to do."""
    done = cli("serve", "-c", str(gateway.settings_file), folder=gateway.folder)
    assert done.returncode == 1
    for words in (f"process {gateway.pid}", f"127.0.0.1:{gateway.port}", "data_dir"):
        assert words in done.stderr
    assert not gateway.has_ended()


def test_port_that_is_taken(gateway: GatewayProcess, tmp_path: Path) -> None:
    """A taken port is said with what to do; the data folder is free again."""
    settings = yaml.safe_load(gateway.settings_file.read_text())
    settings |= {"listen": f"127.0.0.1:{gateway.port}", "data_dir": "data"}
    (tmp_path / "tiergate.yaml").write_text(yaml.safe_dump(settings))
    for _ in range(2):
        done = cli("serve", folder=tmp_path)
        assert done.returncode == 1
        assert f"Port {gateway.port} on 127.0.0.1 is taken" in done.stderr
        assert "listen" in done.stderr


def test_serve_says_where_it_is(gateway: GatewayProcess) -> None:
    """The welcome names the URL, the settings, the models, and a command to try."""
    for words in (f"http://127.0.0.1:{gateway.port}/v1", str(gateway.settings_file), "good, hosted", "curl "):
        assert words in gateway.stdout
    assert "YOUR_KEY" in gateway.stdout


def test_workers_are_refused_with_the_reason(folder: Path) -> None:
    """Several processes are several gateways: it says so, and how, and does not start."""
    done = cli("serve", "--workers", "2", folder=folder)
    assert done.returncode == 1
    assert "several gateways with one `store` and one `redis` behind a balancer" in done.stderr


def test_serve_ends_on_interrupt(mock: MockProcess, tmp_path: Path) -> None:
    """Ctrl-C on an idle gateway ends it well: status 0, nobody owns the folder."""
    with GatewayProcess(tmp_path, {"providers": {"main": {"base_url": mock.base_url}}}) as process:
        assert process.stop(signal.SIGINT) == 0
        assert process.stdout.endswith("Stopped.\n")
        assert not (process.data_dir / "owner.json").exists()


def test_mock(tmp_path: Path) -> None:
    """`tiergate mock` plays a script on a port, says where, and ends on a signal."""
    (tmp_path / "script.yaml").write_text("default: {reply: hello there}\n")
    command = [sys.executable, "-m", "tiergate.app.cli", "mock", "--script", "script.yaml"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        found = re.search(r"listens on (http://127\.0\.0\.1:\d+/v1)", process.stdout.readline())
        assert found is not None
        settings = {"listen": "127.0.0.1:0", "providers": {"mock": {"base_url": found[1]}}}
        (tmp_path / "tiergate.yaml").write_text(yaml.safe_dump(settings))
        assert cli("chat", "hi", "-m", "mock/any", folder=tmp_path).stdout == "hello there\n"
        process.terminate()
        process.wait(10)
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("script", "words"),
    [("default: {wrods: 5}\n", "did you mean 'words'"), ("default: [\n", "line 2"), (None, "cannot be read")],
    ids=["unknown-key", "no-yaml", "missing"],
)
def test_mock_with_a_bad_script(tmp_path: Path, script: str | None, words: str) -> None:
    """A script that is wrong is said in a sentence, with status 1."""
    if script is not None:
        (tmp_path / "script.yaml").write_text(script)
    done = cli("mock", "--script", "script.yaml", folder=tmp_path)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_mock_on_a_taken_port(tmp_path: Path) -> None:
    """A taken port is said, with status 1."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = cli("mock", "--port", str(port), folder=tmp_path)
    assert done.returncode == 1
    assert str(port) in done.stderr
