"""The first five minutes: no settings file, one key, prices, and a doctor for what does not work."""

import asyncio
import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml

from contract.raw_server import RawServer, answers, refused_port, reply
from house import cli
from tiergate import Gateway
from tiergate.catalog import VENDORS
from tiergate.core import CannotStart
from tiergate.testing import MockProcess

KEY = "sk-first-0123456789-LAST"
NO_KEYS = {vendor.key_variable: "" for vendor in VENDORS if vendor.key_variable}
ONE_KEY = {**NO_KEYS, "OPENAI_API_KEY": KEY}


@pytest.fixture(scope="module")
def mock() -> Iterator[MockProcess]:
    with MockProcess('{"default": {"words": 3}}') as process:
        yield process


def test_init_writes_what_it_finds_and_no_key(tmp_path: Path) -> None:
    """The file is valid as it stands; a second time nothing is lost."""
    made = cli("init", folder=tmp_path, environ=ONE_KEY)
    assert made.returncode == 0, made.stderr
    text = (tmp_path / "tiergate.yaml").read_text()
    assert KEY not in text and "${OPENAI_API_KEY}" in text and KEY not in made.stdout
    assert cli("check", folder=tmp_path, environ=ONE_KEY).returncode == 0
    again = cli("init", folder=tmp_path, environ=ONE_KEY)
    assert again.returncode == 1 and "--force" in again.stderr
    assert cli("init", "--force", "-o", "tiergate.yaml", folder=tmp_path, environ=ONE_KEY).returncode == 0


def test_a_key_in_the_environment_or_beside_is_enough(tmp_path: Path) -> None:
    """The models and their prices are there at once, and nothing is written."""
    for environ, dotenv in ((ONE_KEY, ""), (NO_KEYS, "")):
        (tmp_path / ".env").write_text(dotenv or f"MISTRAL_API_KEY={KEY}\n")
        (tmp_path / ".env").chmod(0o600)
        listed = cli("models", folder=tmp_path, environ={k: v for k, v in environ.items() if v})
        assert listed.returncode == 0, listed.stderr
        assert "mistral/mistral-small-latest" in listed.stdout
        assert "$2 in, $8 out per 1M tokens" in listed.stdout or environ is NO_KEYS
    assert [path.name for path in tmp_path.iterdir()] == [".env"]


def test_prices_need_neither_key_nor_file(tmp_path: Path) -> None:
    """`estimate` compares the vendors' well-known models; every row says whether its price is known."""
    typed = ("--prompt-tokens", "1000000", "--completion-tokens", "0", "--json")
    done = cli("estimate", "-m", "openai/gpt-4.1", *typed, folder=tmp_path, environ=NO_KEYS)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["against"] == {"model": "openai/gpt-4.1", "target": "openai/gpt-4.1", "cost_usd": 2}
    rows = {row["target"]: row for row in answer["data"]}
    assert rows["openai/gpt-4.1-mini"]["saving_usd"] == 1.6
    table = cli("estimate", "-m", "openai/gpt-4.1", "--text", "Hello!", folder=tmp_path, environ=NO_KEYS)
    assert "against openai/gpt-4.1" in table.stdout and "the same" in table.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("-m", "gpt-9000", "--prompt-tokens", "1"), 1, "There is no model 'gpt-9000'"),
        (("-m", "openai/gpt-4.1"), 2, "give either --prompt-tokens or --text"),
        (("--prompt-tokens", "1", "--cached-tokens", "2"), 1, "cannot be more"),
    ],
)
def test_a_wrong_estimate_says_what_to_do(
    tmp_path: Path, arguments: tuple[str, ...], status: int, said: str
) -> None:
    """With the list of models where one is wrong."""
    done = cli("estimate", *arguments, folder=tmp_path, environ=NO_KEYS)
    assert done.returncode == status
    assert said in " ".join(done.stderr.split())


# The doctor.


def findings(folder: Path, providers: dict[str, Any], *arguments: str) -> tuple[int, dict[str, Any], str]:
    settings = {"providers": providers, "models": {"m": {"targets": [f"{name}/mock" for name in providers]}}}
    (folder / "tiergate.yaml").write_text(yaml.safe_dump(settings))
    done = cli("doctor", "--json", *arguments, folder=folder)
    report = json.loads(done.stdout)
    assert report["ok"] is (done.returncode == 0)
    return done.returncode, {one["subject"].split(" (")[0]: one for one in report["findings"]}, done.stdout


def test_the_doctor_finds_what_a_call_would_run_into(tmp_path: Path, mock: MockProcess) -> None:
    """Each fault with its cause and what to do; a key shows four characters and no more."""
    body = b'{"error": {"message": "Incorrect API key", "type": "x", "code": "invalid_api_key"}}'
    refusing = answers(reply(body, "Content-Type: application/json", status="401 Unauthorized"))
    listless = answers(reply(b"{}", "Content-Type: application/json", status="404 Not Found"))
    with RawServer(refusing) as strict, RawServer(listless) as mute:
        status, found, said = findings(
            tmp_path,
            {
                "works": {"base_url": mock.base_url, "api_keys": [KEY]},
                "strict": {"base_url": f"http://127.0.0.1:{strict.port}/v1", "api_keys": [KEY + "2"]},
                "mute": {"base_url": f"http://127.0.0.1:{mute.port}/v1"},
                "down": {"base_url": f"http://127.0.0.1:{refused_port()}/v1", "tier": "private"},
                "nowhere": {"base_url": "http://no-such-host.invalid/v1"},
            },
        )
    assert status == 1
    verdicts = {
        name: found[name]["verdict"] for name in ("data folder", "works", "strict", "mute", "down", "nowhere")
    }
    assert verdicts == {
        "data folder": "good",
        "works": "good",
        "strict": "bad",
        "mute": "note",
        "down": "bad",
        "nowhere": "bad",
    }
    assert "…LAST accepted" in found["works"]["seen"]
    assert (
        "refused our key …AST2 (401)" in found["strict"]["seen"]
        and "set a valid key" in found["strict"]["seen"]
    )
    assert "base_url" in found["mute"]["remedy"]
    assert "nothing listens there" in found["down"]["seen"] and "Start the server" in found["down"]["remedy"]
    assert "could not be resolved" in found["nowhere"]["seen"] and "name server" in found["nowhere"]["remedy"]
    assert KEY not in said


def test_the_doctor_can_make_one_call(tmp_path: Path, mock: MockProcess) -> None:
    """Through the ledger like any other, and it says what it cost."""
    status, found, _ = findings(tmp_path, {"works": {"base_url": mock.base_url, "tier": "private"}}, "--call")
    assert status == 0
    assert found["works, one call"]["seen"] == "mock answered; it cost $0"
    # Who is not there is not asked again.
    down = {"base_url": f"http://127.0.0.1:{refused_port()}/v1", "tier": "private"}
    status, found, _ = findings(tmp_path, {"down": down}, "--call")
    assert status == 1 and not any("one call" in subject for subject in found)


def test_the_doctor_says_what_is_wrong_with_the_settings(tmp_path: Path) -> None:
    """All of it, with line and column."""
    (tmp_path / "tiergate.yaml").write_text("providers: {a: {base_url: http://a, teir: private}}\n")
    done = cli("doctor", folder=tmp_path)
    assert done.returncode == 1
    assert "tiergate.yaml:1:37" in done.stdout and "did you mean 'tier'?" in done.stdout


# What it cost.


@pytest.fixture(scope="module")
def house(mock: MockProcess, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which three calls were made: two at a price, one at none."""
    folder = tmp_path_factory.mktemp("spent")
    settings = {
        "data_dir": "data",
        "providers": {"shop": {"base_url": mock.base_url}},
        "models": {"m": {"targets": ["shop/m"]}, "blank": {"targets": ["shop/blank"]}},
        "prices": [{"target": "shop/m", "usd_per_1m": {"input": 1000, "output": 2000}}],
    }
    (folder / "tiergate.yaml").write_text(yaml.safe_dump(settings))
    for arguments in (("-m", "m"), ("-m", "m", "--stream"), ("-m", "blank")):
        assert cli("chat", "hello", *arguments, folder=folder).returncode == 0
    return folder


def test_report_spend(house: Path) -> None:
    """The same sums as a table, as JSON and as CSV; what has no price is said apart and never zero."""
    report = json.loads(cli("report", "spend", "--json", folder=house).stdout)
    rows = {row["model"]: row for row in report["rows"]}
    priced, blank = rows["m"], rows["blank"]
    expected = (priced["input_tokens"] * 1000 + priced["output_tokens"] * 2000) / 1e6
    assert priced["cost_usd"] == pytest.approx(expected) == report["total_usd"]
    assert (priced["calls"], priced["unpriced_attempts"]) == (2, 0)
    assert (blank["calls"], blank["unpriced_attempts"], blank["cost_usd"]) == (1, 1, None)
    lines = cli("report", "spend", "--by", "day,model", "--csv", folder=house).stdout.splitlines()
    assert lines[0].startswith("day,model,calls,") and len(lines) == 3
    table = cli("report", "spend", folder=house).stdout
    assert "3 calls, 3 of them successful" in table and "have no known price" in table


def test_report_latency(house: Path) -> None:
    """First tokens of the stream, whole times of all."""
    (row,) = json.loads(cli("report", "latency", "--by", "tier", "--json", folder=house).stdout)["rows"]
    assert (row["tier"], row["calls"], row["streamed"]) == ("hosted", 3, 1)
    assert 0 < row["ttft_ms_p50"] <= row["total_ms_p99"] * 1.02


@pytest.fixture(scope="module")
def thrifty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which three calls were made: one with cached input, two that a private target answered."""
    folder = tmp_path_factory.mktemp("saved")
    usage = {"prompt_tokens": 1000, "completion_tokens": 10, "total_tokens": 1010}
    cached = {**usage, "prompt_tokens_details": {"cached_tokens": 800}}
    rules = [{"when": {"model": "long"}, "then": {"words": 3, "usage": cached}}]
    with MockProcess(json.dumps({"default": {"words": 3, "usage": usage}, "rules": rules})) as mock:
        settings = {
            "data_dir": "data",
            "timezone": "Asia/Kolkata",
            "providers": {
                "shop": {"base_url": mock.base_url},
                "rack": {"base_url": mock.base_url, "tier": "private"},
            },
            "models": {
                "long": {"targets": ["shop/long"]},
                "both": {"targets": ["rack/own", "shop/blank", "shop/twin"]},
                "alone": {"targets": ["rack/own"]},
            },
            "prices": [
                {"target": "shop/long", "usd_per_1m": {"input": 10, "output": 20, "cache_read": 1}},
                {"target": "shop/twin", "usd_per_1m": {"input": 3, "output": 5}},
            ],
        }
        (folder / "tiergate.yaml").write_text(yaml.safe_dump(settings))
        for model in ("long", "both", "alone"):
            assert cli("chat", "hello", "-m", model, folder=folder).returncode == 0
        yield folder


def test_report_savings(thrifty: Path) -> None:
    """800 tokens for 1 in place of 10 dollars a million; 1,000 in and 10 out that a hosted twin sells."""
    report = json.loads(cli("report", "savings", "--json", folder=thrifty).stdout)
    rows = {row["model"]: row for row in report["rows"]}
    long, both, alone = rows["long"], rows["both"], rows["alone"]
    assert (long["hosted_input_tokens"], long["cache_read_tokens"]) == (1000, 800)
    assert (long["discount_usd"], long["billed_equivalent_tokens"]) == (0.0072, 280)
    assert (both["private_cash_avoided_usd"], both["hosted_counterparts"]) == (0.00305, ["shop/twin"])
    assert (alone["private_cash_avoided_usd"], alone["unmatched_private_tokens"]) == (None, 1010)
    assert (report["avoided_usd"], report["discount_usd"]) == (0, 0.0072)
    tokens = ("avoided_tokens", "discounted_tokens", "billed_equivalent_tokens")
    assert [report[name] for name in tokens] == [0, 800, 280]
    assert report["private_cash_avoided_usd"] == 0.00305 and "GPU-hours" in report["note"]
    lines = cli("report", "savings", "--by", "day,model", "--csv", folder=thrifty).stdout.splitlines()
    assert lines[0].startswith("day,model,avoided_calls,") and len(lines) == 4


def test_report_savings_is_no_profit(thrifty: Path) -> None:
    """The table names what it compares with, what it leaves out, and that GPU-hours are not in it."""
    table = cli("report", "savings", "--by", "model,tier", folder=thrifty).stdout
    assert "800 of 1,000 tokens into hosted targets came from their caches" in table
    assert "2 calls, 2,020 tokens; elsewhere $0.0030?." in table and "this is no profit" in table
    (row,) = (line for line in table.splitlines() if line.startswith("alone"))
    assert row.split()[-4:] == ["unknown", "no", "hosted", "counterpart"]
    assert "1,010 private tokens are in no amount" in table


def test_tables_show_the_time_of_the_settings(thrifty: Path) -> None:
    """And say whose it is; JSON stays UTC, so that programs need not ask."""
    entry = json.loads(cli("entries", "list", "--json", folder=thrifty).stdout)["data"][0]
    assert entry["received"].endswith("Z")
    there = datetime.fromisoformat(entry["received"]).astimezone(ZoneInfo("Asia/Kolkata"))
    clock = f"{there:%Y-%m-%d %H:%M:%S}"
    listed = cli("entries", "list", folder=thrifty).stdout
    assert "received (Asia/Kolkata)" in listed.splitlines()[0] and clock in listed
    assert f"{clock} (Asia/Kolkata)" in cli("entries", "show", entry["id"], folder=thrifty).stdout
    span = ("--from", "2026-01-01", "--to", "2026-01-01")
    said = cli("report", "spend", *span, folder=thrifty).stdout
    assert "From 2026-01-01 00:00:00 to 2026-01-02 00:00:00; times and days in Asia/Kolkata." in said


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("--by", "colour"), 1, "'colour' is no group. `by` takes some of key, team,"),
        (("--by", "key,key"), 1, "A group stands twice"),
        (("--from", "yesterday"), 1, "Give a day such as 2026-11-01"),
        (("--from", "2099-01-01"), 1, "`from` is not in the past"),
        (("--from", "0001-01-01"), 1, "is before 1971"),
        (("--to", "9999-12-31"), 1, "is before 1971 or after 2199"),
        (("--from", "2026-11-02", "--to", "2026-11-01"), 1, "`to` must be later than `from`"),
        (("--json", "--csv"), 2, "exclude each other"),
    ],
)
def test_a_wrong_report_says_what_to_do(
    house: Path, arguments: tuple[str, ...], status: int, said: str
) -> None:
    """No traceback, and what there is to choose from."""
    done = cli("report", "spend", *arguments, folder=house)
    assert done.returncode == status
    assert said in " ".join(done.stderr.replace("│", " ").split())


def test_a_backup_is_a_ledger_and_overwrites_nothing(house: Path, tmp_path: Path) -> None:
    """It can be reported from like the original; only its owner can read it."""
    target = tmp_path / "copy"
    assert cli("backup", str(target), folder=house).returncode == 0
    assert (target / "ledger.db").stat().st_mode & 0o777 == 0o600
    settings = yaml.safe_load((house / "tiergate.yaml").read_text())
    (tmp_path / "tiergate.yaml").write_text(yaml.safe_dump({**settings, "data_dir": "copy"}))
    copied, original = (
        json.loads(cli("report", "spend", "--to", "2099-01-01", "--json", folder=folder).stdout)["rows"]
        for folder in (tmp_path, house)
    )
    assert copied == original
    again = cli("backup", str(target), folder=house)
    assert again.returncode == 1 and "is there already" in again.stderr


def test_a_litellm_file_becomes_ours_and_answers(mock: MockProcess, tmp_path: Path) -> None:
    """Imported, checked and asked, without a hand on the file in between."""
    params = {"model": "hosted_vllm/Qwen/Qwen3-8B", "api_base": mock.base_url, "api_key": "none"}
    theirs = {"model_list": [{"model_name": "chat", "litellm_params": params}], "guardrails": [{"a": 1}]}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(theirs))
    made = cli("import", "litellm", "config.yaml", folder=tmp_path)
    assert made.returncode == 0, made.stderr
    assert "guardrails: has no counterpart" in made.stdout and "tiergate doctor" in made.stdout
    assert cli("check", folder=tmp_path).returncode == 0
    answered = json.loads(cli("chat", "hello", "-m", "chat", "--json", folder=tmp_path).stdout)
    assert (answered["target"], answered["tier"]) == ("vllm/Qwen/Qwen3-8B", "private")
    printed = cli("import", "litellm", "config.yaml", "-o", "-", "--json", folder=tmp_path)
    assert printed.stdout == (tmp_path / "tiergate.yaml").read_text()
    assert json.loads(printed.stderr)["notes"] == ["the file.guardrails: has no counterpart"]


def test_a_backup_is_a_data_folder(house: Path, tmp_path: Path) -> None:
    """Put in the place of `data_dir` it goes on where it was made: reports know both, before and after."""
    assert cli("backup", str(tmp_path / "restored"), folder=house).returncode == 0
    settings = yaml.safe_load((house / "tiergate.yaml").read_text())
    (tmp_path / "tiergate.yaml").write_text(yaml.safe_dump({**settings, "data_dir": "restored"}))
    assert cli("chat", "hello", "-m", "m", folder=tmp_path).returncode == 0
    before, after = (
        sum(
            row["calls"] for row in json.loads(cli("report", "spend", "--json", folder=folder).stdout)["rows"]
        )
        for folder in (house, tmp_path)
    )
    assert after == before + 1


def test_from_python_nothing_has_to_be_written_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`from_config()` finds what the command line finds, also inside of a running loop."""
    monkeypatch.chdir(tmp_path)

    async def named() -> set[str]:
        gateway = Gateway.from_config(environ={"OPENAI_API_KEY": KEY})
        return set(gateway._loaded.settings.providers)

    assert "openai" in asyncio.run(named())
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(CannotStart, match="There is no settings file"):
        Gateway.from_config(environ={})


def test_a_table_has_one_row_for_each_target_and_says_what_else_decides(tmp_path: Path) -> None:
    """Whatever names it stands behind; a price that goes by hours is no single number."""
    write(tmp_path, {"n": ["openai/gpt-4.1", "deepseek/deepseek-flash"], "o": ["openai/gpt-4.1"]})
    done = cli("estimate", "-m", "openai/gpt-4.1", "--prompt-tokens", "3000", folder=tmp_path)
    lines = [line for line in done.stdout.splitlines() if "openai/gpt-4.1 (" in line]
    assert len(lines) == 1 and "(n, o)" in lines[0], done.stdout
    assert "known, by hours" in done.stdout


def test_a_chat_that_fails_says_so_of_each_target_and_as_json_too(tmp_path: Path) -> None:
    """The object is the one that HTTP callers get."""
    ports = [refused_port(), refused_port()]
    providers = {
        name: f"http://127.0.0.1:{port}/v1" for name, port in zip(("first", "second"), ports, strict=True)
    }
    write(tmp_path, {"m": ["first/x", "second/x"]}, providers)
    plain = cli("chat", "hi", "-m", "m", folder=tmp_path)
    assert plain.returncode == 1 and "second refused" in plain.stderr and "first refused" in plain.stderr
    done = cli("chat", "hi", "-m", "m", "--json", folder=tmp_path)
    error = json.loads(done.stdout)["error"]
    assert done.returncode == 1 and error["code"] == "upstream_unreachable"
    assert error["message"] == plain.stderr.strip()
    assert cli("chat", " ", "-m", "m", folder=tmp_path).returncode == 2
    assert "no model 'first/*'" in cli("chat", "hi", "-m", "first/*", folder=tmp_path).stderr


def test_a_report_of_nothing_says_so(house: Path) -> None:
    """No table of no rows."""
    for what in ("spend", "savings", "latency"):
        done = cli("report", what, "--from", "1980-01-01", "--to", "1980-01-02", folder=house)
        assert done.returncode == 0 and done.stdout.splitlines()[-1] == "No calls."


def write(folder: Path, models: dict[str, list[str]], providers: dict[str, str] | None = None) -> None:
    """Write settings: targets by model, addresses by provider."""
    given = providers or {"openai": "https://api.openai.com/v1", "deepseek": "https://api.deepseek.com/v1"}
    settings = {
        "providers": {name: {"base_url": url} for name, url in given.items()},
        "models": {name: {"targets": targets} for name, targets in models.items()},
    }
    (folder / "tiergate.yaml").write_text(yaml.safe_dump(settings))
