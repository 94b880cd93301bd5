"""`tiergate batch` as a user meets it: inputs in, answers out, exit statuses, and what is said on the way."""

import csv
import gzip
import json
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import yaml

from batches import Batches, ids, row, rows_in, rows_of, written
from house import NO_BREAKERS, GatewayProcess, calls_of, cli, environment, nursery, until
from nursery import Child
from tiergate.testing import MockProcess

KEY = "acceptance-key-0123456789abcdef"
MODELS = ("m", "echo", "slow", "flaky", "rejects", "locked")
SCRIPT = json.dumps(
    {
        "default": {"words": 8, "ttft_ms": 1},
        "rules": [
            {"when": {"model": "echo"}, "then": {"echo": True}},
            {"when": {"model": "slow"}, "then": {"words": 4, "ttft_ms": 150}},
            {"when": {"model": "flaky", "first": 2}, "then": {"status": 422, "error": {"code": "odd"}}},
            {"when": {"model": "rejects"}, "then": {"status": 400}},
            {"when": {"model": "locked", "first": 1}, "then": {"status": 401}},
            {"when": {"model": "locked"}, "then": {"words": 4, "ttft_ms": 900}},
        ],
    }
)
PER_TOKEN_USD = 0.001


@pytest.fixture(scope="module")
def mock() -> Iterator[MockProcess]:
    with MockProcess(SCRIPT) as process:
        yield process


def settings(mock: MockProcess, **more: Any) -> dict[str, Any]:
    price = {"input": 0, "output": PER_TOKEN_USD * 1_000_000}
    return {
        "providers": {"main": {"base_url": mock.base_url}},
        "models": {name: {"targets": [f"main/{name}"]} for name in MODELS},
        "prices": [{"target": f"main/{name}", "usd_per_1m": price} for name in MODELS],
        "resilience": NO_BREAKERS,
        **more,
    }


@pytest.fixture(scope="module")
def gateway(mock: MockProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with GatewayProcess(tmp_path_factory.mktemp("served"), settings(mock)) as process:
        yield process


class Place:
    """A folder with settings, as one test uses it: with a tag for its batches and a folder for its files."""

    def __init__(
        self, folder: Path, name: str, mock: MockProcess, gateway: GatewayProcess | None = None
    ) -> None:
        self.folder = folder
        self.tag = name
        self._mock = mock
        self._gateway = gateway
        self._before = {model: len(calls_of(mock, model)) for model in MODELS}
        (folder / name).mkdir()

    def path(self, name: str) -> Path:
        return self.folder / self.tag / name

    def put(self, name: str, rows: Iterable[Any] | bytes) -> None:
        self.path(name).write_bytes(rows if isinstance(rows, bytes) else written(rows))

    def run(
        self, source: str, *more: str, output: str = "out.jsonl", stdin: str = ""
    ) -> CompletedProcess[str]:
        return cli("batch", *self._run(source, *more, output=output), folder=self.folder, stdin=stdin)

    def begin(self, source: str, *more: str) -> Child:
        """Begin a run that goes on beside the test; what it says is in `run.out` and `run.err`."""
        files = {name: self.path(f"run.{name}") for name in ("out", "err")}
        arguments = ["batch", *self._run(source, *more, output="out.jsonl")]
        return nursery().start(arguments, folder=self.folder, environ=environment(), **files)

    def _run(self, source: str, *more: str, output: str) -> list[str]:
        source = source if source == "-" else f"{self.tag}/{source}"
        return ["run", source, "-o", f"{self.tag}/{output}", "--tag", self.tag, *more]

    def rows(self, name: str = "out.jsonl") -> list[dict[str, Any]]:
        rows = rows_in(self.path(name).read_bytes())
        assert [one["tiergate"]["n"] for one in rows] == sorted(one["tiergate"]["n"] for one in rows)
        return rows

    def texts(self, name: str = "out.jsonl") -> list[Any]:
        return [one["response"]["body"]["choices"][0]["message"]["content"] for one in self.rows(name)]

    def batches(self) -> list[Any]:
        if self._gateway is not None:
            found = Batches(self._gateway).get("batches?limit=100")
        else:
            done = cli("batch", "status", "--json", folder=self.folder)
            assert done.returncode == 0, done.stderr
            found = json.loads(done.stdout)
        return [one for one in found["data"] if one["tiergate"]["tag"] == self.tag]

    def asked(self, model: str) -> int:
        """Count what the provider was asked by this test."""
        return len(calls_of(self._mock, model)) - self._before[model]


def name_of(request: pytest.FixtureRequest) -> str:
    return "".join(one if one.isalnum() else "-" for one in request.node.name.removeprefix("test_"))[:100]


@pytest.fixture
def served(request: pytest.FixtureRequest, gateway: GatewayProcess, mock: MockProcess) -> Place:
    """A folder in which a gateway runs."""
    return Place(gateway.folder, name_of(request), mock, gateway)


@pytest.fixture
def alone(request: pytest.FixtureRequest, mock: MockProcess, tmp_path: Path) -> Place:
    """A folder in which none runs."""
    own = {"listen": "127.0.0.1:0", "admin": {"listen": "127.0.0.1:0"}, "data_dir": str(tmp_path / "data")}
    (tmp_path / "tiergate.yaml").write_text(yaml.safe_dump({**own, **settings(mock)}, sort_keys=False))
    return Place(tmp_path, name_of(request), mock)


@pytest.fixture(params=["alone", "served"])
def place(request: pytest.FixtureRequest) -> Place:
    """Both, in turn."""
    found: Place = request.getfixturevalue(request.param)
    return found


# Inputs.

WORDS = ["one", "two", "three"]
INPUTS: dict[str, tuple[str, bytes, list[str]]] = {
    "prompts": ("in.jsonl", written({"prompt": word} for word in WORDS), []),
    "batch lines": ("in.jsonl", written(row(word, word, model="echo") for word in WORDS), []),
    "an array": ("in.json", json.dumps(WORDS, indent=1).encode(), []),
    "text": ("in.txt", "\n".join(WORDS).encode(), ["--form", "text"]),
    "csv": ("in.csv", b"n,word\n1,one\n2,two\n3,three\n", ["--prompt", "{word}"]),
    "compressed": ("in.jsonl.gz", gzip.compress(written({"prompt": word} for word in WORDS)), []),
}


@pytest.mark.parametrize("form", INPUTS)
def test_an_input_of_any_form_is_answered_in_its_order(served: Place, form: str) -> None:
    """One answer for each row; nothing on standard output, the way and the end of it on standard error."""
    name, data, more = INPUTS[form]
    served.put(name, data)
    done = served.run(name, "-m", "echo", "--fresh", *more)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert served.texts() == WORDS and served.asked("echo") == 3
    assert "Estimate for 3 lines" in done.stderr and "completed: 3 answered, 0 failed" in done.stderr
    assert not served.path("out.errors.jsonl").exists()


def test_standard_input_and_the_same_lines_again(place: Place, request: pytest.FixtureRequest) -> None:
    """`-` is read as a file is; the same lines again are the same batch, and ask nobody."""
    given = written({"prompt": f"{word} {place.tag}"} for word in WORDS).decode()
    where = "this process" if "alone" in request.node.name else "the gateway at"
    for said in (f"worked by {where}", "is complete"):
        done = place.run("-", "-m", "echo", "--system", "Be brief.", stdin=given)
        assert done.returncode == 0 and said in done.stderr, done.stderr
        assert place.texts() == [f"{word} {place.tag}" for word in WORDS]
    assert (place.asked("echo"), len(place.batches())) == (3, 1)


def test_a_flat_table_has_a_row_for_each_row(served: Place) -> None:
    """All columns of the input, then what became of it; in CSV where the name says so."""
    served.put("in.csv", b'id,text\n1,"a, b"\n2,two\n3,\n')
    done = served.run("in.csv", "-m", "echo", "--prompt", "Say {text}", "--flat", output="out.csv")
    assert done.returncode == 0, done.stderr
    with served.path("out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(one["id"], one["text"], one["answer"]) for one in rows] == [
        ("1", "a, b", "Say a, b"),
        ("2", "two", "Say two"),
        ("3", "", "Say "),
    ]
    assert {one["error"] for one in rows} == {""}
    assert all(float(one["cost_usd"]) > 0 and one["target"] == "main/echo" for one in rows)
    served.put("bad.jsonl", [{"prompt": "good", "k": 1}, {"k": 2}, {"prompt": "x", "n": 0}])
    assert served.run("bad.jsonl", "-m", "echo", "--flat", output="flat.jsonl").returncode == 1
    flat = rows_in(served.path("flat.jsonl").read_bytes())
    assert [bool(one["error"]) for one in flat] == [False, True, True]
    assert (flat[0]["answer"], flat[1]["k"]) == ("good", 2)


def test_bad_rows_become_error_rows(served: Place) -> None:
    """They are told by their numbers; with --strict nothing is sent at all."""
    served.put("in.jsonl", [{"prompt": "a"}, b"{oops", {"prompt": "b"}, {"no": "prompt"}])
    strict = served.run("in.jsonl", "-m", "echo", "--strict")
    assert strict.returncode == 1 and "--strict wants none. Nothing was sent." in strict.stderr
    assert served.batches() == [] and not served.path("out.jsonl").exists()
    done = served.run("in.jsonl", "-m", "echo")
    assert done.returncode == 1 and "2 of 4 rows become error rows." in done.stderr
    assert served.texts() == ["a", "b"]
    errors = served.rows("out.errors.jsonl")
    assert [(one["tiergate"]["n"], one["error"]["code"]) for one in errors] == [
        (2, "invalid_line"),
        (4, "invalid_line"),
    ]


def test_a_dry_run_asks_nobody(served: Place) -> None:
    """It says what it would cost, and makes no batch and no file."""
    served.put("in.jsonl", ({"prompt": f"dry {n}", "max_tokens": 10} for n in range(50)))
    done = served.run("in.jsonl", "-m", "m", "--dry-run", "--budget-usd", "9")
    assert done.returncode == 0 and "Estimate for 50 lines: $" in done.stderr
    assert "never above $0.5000" in done.stderr and "fits into $9: 100%" in done.stderr
    assert (served.batches(), served.asked("m")) == ([], 0)
    assert not served.path("out.jsonl").exists()
    source = str(served.path("in.jsonl"))
    done = cli("batch", "run", source, "-m", "m", "--dry-run", folder=served.folder)
    assert done.returncode == 0 and "Estimate for 50 lines: $" in done.stderr
    done = cli("batch", "run", source, "-m", "m", folder=served.folder)
    assert done.returncode == 2 and "says where the answers go" in done.stderr


# Going on.


def test_a_budget_ends_it_with_3_and_a_higher_one_goes_on(place: Place) -> None:
    """What was answered is written each time, and nothing is asked twice."""
    place.put("in.jsonl", ({"prompt": f"{n} {place.tag}", "max_tokens": 10} for n in range(30)))
    done = place.run("in.jsonl", "-m", "m", "--budget-usd", "0.1")
    assert done.returncode == 3, done.stderr
    assert "stopped: 12 answered" in done.stderr and "with a higher --budget-usd goes on" in done.stderr
    assert len(place.rows()) == 12
    done = place.run("in.jsonl", "-m", "m", "--budget-usd", "5")
    assert done.returncode == 0, done.stderr
    assert len(place.rows()) == place.asked("m") == 30
    assert len(place.batches()) == 1


def test_what_is_on_its_way_when_it_stops_is_written(served: Place) -> None:
    """A refused key stops it at once; those that are asked already are waited for, and are in the output."""
    served.put("in.jsonl", rows_of(20, model="locked"))
    done = served.run("in.jsonl")
    assert done.returncode == 1 and "It stands still (credential)" in done.stderr
    assert len(served.rows()) == served.asked("locked") - 1 > 0
    assert served.run("in.jsonl").returncode == 0
    assert len(served.rows()) == 20


def test_resume_raises_a_budget_too(served: Place, gateway: GatewayProcess) -> None:
    """By the batch's id, without its input."""
    served.put("in.jsonl", rows_of(30, max_tokens=10))
    assert served.run("in.jsonl", "--budget-usd", "0.1").returncode == 3
    (batch,) = served.batches()
    done = cli("batch", "resume", batch["id"], "--budget-usd", "5", folder=served.folder)
    assert (done.returncode, done.stdout) == (0, f"{batch['id']} goes on.\n")
    assert Batches(gateway).until(batch["id"])["request_counts"]["completed"] == 30


def test_an_input_that_has_grown_asks_for_its_new_rows_only(served: Place) -> None:
    """The batch of before takes them on; --fresh asks for everything again."""
    for count in (3, 5):
        served.put("in.jsonl", ({"prompt": f"p{n} {served.tag}"} for n in range(count)))
        done = served.run("in.jsonl", "-m", "echo")
        assert done.returncode == 0, done.stderr
        assert served.texts() == [f"p{n} {served.tag}" for n in range(count)]
        assert served.asked("echo") == count
    assert len(served.batches()) == 1
    assert served.run("in.jsonl", "-m", "echo", "--fresh").returncode == 0
    assert (len(served.batches()), served.asked("echo")) == (2, 10)


def test_failed_rows_are_asked_again_by_their_code(served: Place) -> None:
    """The run says how; the same command writes what has become of them."""
    rows = [
        row("a", model="flaky"),
        row("b", model="flaky"),
        row("c", model="rejects"),
        row("d", "only here"),
    ]
    served.put("in.jsonl", rows)
    done = served.run("in.jsonl")
    (batch,) = served.batches()
    assert done.returncode == 1
    assert f"`tiergate batch retry-failed {batch['id']}` asks those that failed again." in done.stderr
    assert ids(served.rows("out.errors.jsonl")) == ["a", "b", "c"]
    told = cli("batch", "status", batch["id"], folder=served.folder)
    assert "2 odd" in told.stdout and "1 invalid_request" in told.stdout
    again = cli("batch", "retry-failed", batch["id"], "--code", "odd", folder=served.folder)
    assert (again.returncode, again.stdout) == (0, f"2 lines of {batch['id']} are asked again.\n")
    assert served.run("in.jsonl").returncode == 1
    assert ids(served.rows()) == ["a", "b", "d"] and ids(served.rows("out.errors.jsonl")) == ["c"]
    assert (served.asked("m"), served.asked("rejects")) == (1, 1)


# Beside it.


def test_a_detached_batch_is_looked_at_and_cancelled(served: Place, gateway: GatewayProcess) -> None:
    """The command is done at once; output, status, cancel; the same command takes up what was cancelled."""
    folder, batches = served.folder, Batches(gateway)
    served.put("in.jsonl", rows_of(200, model="slow"))
    done = served.run("in.jsonl", "--concurrency", "4", "--detach")
    assert done.returncode == 0 and "goes on in the gateway at" in done.stderr
    assert not served.path("out.jsonl").exists()
    (batch,) = served.batches()
    batches.until_done(batch["id"], 4)
    listed = json.loads(cli("batch", "status", "--json", folder=folder).stdout)["data"]
    assert batch["id"] in [one["id"] for one in listed]
    told = cli("batch", "status", batch["id"], folder=folder)
    assert told.stdout.startswith(f"{batch['id']}  running: ")
    listed = cli("batch", "status", folder=folder)
    assert batch["id"] in listed.stdout and "running" in listed.stdout
    early = cli("batch", "output", batch["id"], folder=folder)
    assert len(rows_in(early.stdout.encode())) >= 4
    done = cli("batch", "output", batch["id"], "-o", str(served.path("early.jsonl")), folder=folder)
    assert "of 200 lines had ended" in done.stdout and len(served.rows("early.jsonl")) >= 4
    none = cli("batch", "output", batch["id"], "--errors", folder=folder)
    assert none.returncode == 1 and "has no errors yet" in none.stderr
    ended = cli("batch", "cancel", batch["id"], folder=folder)
    assert ended.stdout == f"{batch['id']} is cancelled; what is answered is kept.\n"
    assert batches.until(batch["id"])["tiergate"]["cancelled"] > 0
    both = rows_in(cli("batch", "output", batch["id"], "--all", folder=folder).stdout.encode())
    assert ids(both) == [f"row-{n}" for n in range(1, 201)]
    assert served.run("in.jsonl", "--concurrency", "200").returncode == 0
    assert len(served.rows()) == served.asked("slow") == 200


def test_its_calls_are_found_in_the_ledger(served: Place) -> None:
    """Each with its line; others are not listed."""
    served.put("in.jsonl", rows_of(3))
    assert served.run("in.jsonl").returncode == 0
    (batch,) = served.batches()
    listed = cli("entries", "list", "--batch", batch["id"], "--json", folder=served.folder)
    calls = json.loads(listed.stdout)["data"]
    assert sorted((call["batch"], call["line"]) for call in calls) == [(batch["id"], n) for n in (1, 2, 3)]
    shown = cli("entries", "show", calls[0]["id"], folder=served.folder)
    assert f"{batch['id']}, line {calls[0]['line']}" in shown.stdout


def test_detaching_needs_somebody_who_goes_on(alone: Place) -> None:
    """Without a gateway nothing is sent, and the sentence says why."""
    alone.put("in.jsonl", rows_of(3))
    done = alone.run("in.jsonl", "--detach")
    assert done.returncode == 1 and "--detach needs a gateway that runs" in done.stderr
    assert (alone.batches(), alone.asked("m")) == ([], 0)


def test_ctrl_c_says_what_becomes_of_it(place: Place, request: pytest.FixtureRequest) -> None:
    """130; a gateway goes on, and without one the same command does; the output is whole in the end."""
    is_alone = "alone" in request.node.name
    place.put("in.jsonl", rows_of(60, model="slow", user=place.tag))
    process = place.begin("in.jsonl", "--concurrency", "4")
    until(lambda: place.asked("slow") > 4, what="some calls")
    process.send_signal(signal.SIGINT)
    assert process.wait(15) == 130
    said = place.path("run.err").read_text()
    assert "Traceback" not in said
    assert ("rests, since this process worked it" if is_alone else "goes on in the gateway at") in said
    assert not place.path("out.jsonl").exists()
    assert place.run("in.jsonl", "--concurrency", "60").returncode == 0
    assert ids(place.rows()) == [f"row-{n}" for n in range(1, 61)]
    assert place.asked("slow") <= (64 if is_alone else 60)


def test_a_command_that_ends_in_a_moment_asks_no_line(alone: Place) -> None:
    """It would be paid and lost. A batch that nobody works waits, can be looked at, and can be cancelled."""
    alone.put("in.jsonl", rows_of(40, model="slow", user=alone.tag))
    process = alone.begin("in.jsonl", "--concurrency", "4")
    until(lambda: alone.asked("slow") > 8, what="some calls")
    process.kill()
    before = alone.asked("slow")
    (batch,) = alone.batches()
    for command in (
        ("chat", "-m", "echo", "hello"),
        ("batch", "status", batch["id"]),
        ("batch", "output", batch["id"]),
        ("batch", "resume", batch["id"], "--concurrency", "2"),
        ("keys", "list"),
    ):
        done = cli(*command, folder=alone.folder)
        assert done.returncode == 0, done.stderr
    alone.put("other.jsonl", rows_of(3))
    assert alone.run("other.jsonl", "--dry-run").returncode == 0
    assert alone.asked("slow") == before
    assert cli("batch", "cancel", batch["id"], folder=alone.folder).returncode == 0
    (batch,) = alone.batches()
    assert (batch["status"], alone.asked("slow")) == ("cancelled", before)
    counts = batch["request_counts"]
    assert counts["completed"] + counts["failed"] + batch["tiergate"]["cancelled"] >= 40
    assert counts["completed"] >= before - 4


def test_ctrl_c_cancels_where_that_is_wished(served: Place, gateway: GatewayProcess) -> None:
    """`--cancel-on-exit` leaves nothing behind that costs."""
    served.put("in.jsonl", rows_of(100, model="slow", user=served.tag))
    process = served.begin("in.jsonl", "--concurrency", "2", "--cancel-on-exit")
    until(lambda: served.asked("slow") > 2, what="some calls")
    process.send_signal(signal.SIGINT)
    assert process.wait(15) == 130
    assert "is cancelled; what is answered is kept." in served.path("run.err").read_text()
    (batch,) = served.batches()
    assert Batches(gateway).until(batch["id"])["status"] == "cancelled"


# For machines, and elsewhere.


def test_events_for_machines(served: Place) -> None:
    """With --json each line of standard output is one event, and nothing else is there."""
    served.put("in.jsonl", [*rows_of(20, model="slow", user=served.tag), row("bad", model="rejects")])
    done = served.run("in.jsonl", "--json")
    assert done.returncode == 1
    events = [json.loads(line) for line in done.stdout.splitlines()]
    kinds = [one["event"] for one in events]
    assert kinds[:2] == ["estimate", "batch"] and kinds[-1] == "end" and set(kinds[2:-1]) == {"progress"}
    assert events[-1]["request_counts"] == {"total": 21, "completed": 20, "failed": 1}
    files = {"answers": f"{served.tag}/out.jsonl", "errors": f"{served.tag}/out.errors.jsonl"}
    assert events[-1]["files"] == files
    assert all("lines_per_s" in one for one in events[2:-1])


def test_a_gateway_elsewhere_wants_its_key(mock: MockProcess, tmp_path: Path) -> None:
    """`--gateway` with the key of the environment; without a good one it is told, and nothing is made."""
    more = {"auth": "keys", "keys": [{"name": "web", "secret": KEY}]}
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "in.jsonl").write_bytes(written({"prompt": word} for word in WORDS))
    with GatewayProcess(tmp_path / "house", settings(mock, **more)) as gateway:
        arguments = ("batch", "run", "in.jsonl", "-o", "out.jsonl", "-m", "echo", "--gateway", gateway.url)
        done = cli(*arguments, folder=elsewhere, environ={"TIERGATE_API_KEY": KEY})
        assert done.returncode == 0 and f"worked by {gateway.url}" in done.stderr, done.stderr
        assert len(rows_in((elsewhere / "out.jsonl").read_bytes())) == 3
        for key in ("", "k\u00fchn"):
            refused = cli(*arguments, folder=elsewhere, environ={"TIERGATE_API_KEY": key})
            assert refused.returncode == 1 and "key" in refused.stderr.lower(), refused.stderr
            assert "Traceback" not in refused.stderr
    assert {path.name for path in elsewhere.iterdir()} == {"in.jsonl", "out.jsonl"}


WRONG = {
    "no such file": (["none.jsonl"], 1, "There is no file"),
    "a folder": (["."], 1, "is a folder"),
    "an empty file": (["empty.jsonl"], 1, "has no rows"),
    "no json": (["text.txt"], 1, "--form text"),
    "no gateway there": (["in.jsonl", "--gateway", "http://127.0.0.1:9"], 1, "127.0.0.1:9"),
    "a bad port": (["in.jsonl", "--gateway", "http://x:99999"], 1, "is no address of a gateway"),
    "a budget in words": (["in.jsonl", "--budget-usd", "five"], 2, "--budget-usd is an amount"),
    "a budget of nothing": (["in.jsonl", "--budget-usd", "0"], 2, "--budget-usd is an amount"),
    "no number": (["in.jsonl", "--budget-usd", "nan"], 2, "--budget-usd is an amount"),
    "a form": (["in.jsonl", "--form", "xml"], 2, "--form is one of"),
    "a short window": (["in.jsonl", "--window", "30s"], 1, "completion_window"),
    "a tag": (["in.jsonl", "--tag", "\u00fc"], 1, "`tag` must be"),
    "nowhere to write": (["in.jsonl", "-o", "none/out.jsonl"], 1, "none/out.jsonl cannot be written"),
    "a folder to write": (["in.jsonl", "-o", "."], 1, "is no file that could be written"),
}


@pytest.mark.parametrize("how", WRONG)
def test_what_cannot_be_done_is_said_in_a_sentence(served: Place, how: str) -> None:
    """On standard error, with exit status 1 or 2; nobody is asked, and no batch is made."""
    served.put("in.jsonl", rows_of(2))
    served.put("in.csv", b"a,b\n1,2\n")
    served.put("empty.jsonl", b"")
    served.put("text.txt", b"hello\n")
    arguments, status, said = WRONG[how]
    done = served.run(*arguments)
    assert (done.returncode, done.stdout) == (status, ""), done.stderr
    assert said in " ".join(done.stderr.split()) and "Traceback" not in done.stderr
    assert (served.batches(), served.asked("m")) == ([], 0)


def test_other_commands_say_it_too(alone: Place, served: Place) -> None:
    """There is no batch of this name, and none at all."""
    assert "There are no batches yet" in cli("batch", "status", folder=alone.folder).stdout
    for command in ("status", "output", "cancel", "retry-failed", "resume"):
        done = cli("batch", command, "batch_none", folder=served.folder)
        assert done.returncode == 1 and "There is no batch 'batch_none' here." in done.stderr, command
        assert done.stdout == ""
