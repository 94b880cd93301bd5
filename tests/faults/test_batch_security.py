"""The security checklist where files and batches are concerned. Names carry the item.

Canaries are planted in everything that callers say in files; the log, the output and the metrics of this
module's gateway are searched for them when it is left.
"""

import json
import secrets
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from admin import admin
from batches import CHAT, FORM, Batches, form, ids, row, rows_of, written
from flow.plain_http import Connection, bearer, read_answer, request
from house import NO_BREAKERS, GatewayProcess, calls_of, cli, until
from tiergate.testing import MockProcess
from tiergate.web import batchplane

KEYS = {name: f"{name}-batch-key-0123456789abcdef" for name in ("ours", "mate", "theirs")}
BYTES_MAX = 100_000
SAID = f"canary-said-{secrets.token_hex(6)}"
"""By the provider, in its errors."""
SCRIPT = json.dumps(
    {
        "default": {"words": 4, "ttft_ms": 1},
        "rules": [
            {"when": {"model": "slow*"}, "then": {"words": 4, "ttft_ms": 400}},
            {"when": {"model": "echo"}, "then": {"echo": True}},
            {"when": {"model": "rejects"}, "then": {"status": 400, "error": {"message": SAID}}},
            {"when": {"model": "locked"}, "then": {"status": 401, "error": {"message": SAID}}},
            {
                "when": {"model": "broke"},
                "then": {"status": 429, "error": {"message": SAID, "code": "insufficient_quota"}},
            },
        ],
    }
)
MODELS = ("m", "other", "slow", "slow-2", "echo", "rejects", "dear", "locked", "broke")

_planted: list[str] = [SAID]


def canary(where: str) -> str:
    """Make a word that stands nowhere else, to be looked for in every output."""
    word = f"canary-{where}-{secrets.token_hex(6)}"
    _planted.append(word)
    return word


def settings(mock: MockProcess, **more: Any) -> dict[str, Any]:
    return {
        "auth": "keys",
        "keys": [
            {"name": "ours", "secret": KEYS["ours"], "team": "team"},
            {"name": "mate", "secret": KEYS["mate"], "team": "team"},
            {"name": "theirs", "secret": KEYS["theirs"]},
        ],
        "providers": {
            "main": {"base_url": mock.base_url, "api_keys": ["sk-main-0123456789"]},
            "rack": {"base_url": mock.base_url, "tier": "private"},
        },
        "models": {name: {"targets": [f"main/{name}"]} for name in MODELS}
        | {"private": {"targets": ["rack/private"]}, "both": {"targets": ["rack/both", "main/both"]}},
        "prices": [{"target": "main/dear", "usd_per_1m": {"input": 0, "output": 1000}}],
        "limits": {"file_mb": BYTES_MAX / (1 << 20)},
        "resilience": NO_BREAKERS,
        **more,
    }


@pytest.fixture(scope="module")
def mock() -> Iterator[MockProcess]:
    with MockProcess(SCRIPT) as process:
        yield process


@pytest.fixture(scope="module")
def gateway(mock: MockProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with GatewayProcess(tmp_path_factory.mktemp("secure"), settings(mock)) as process:
        yield process
        places = {"log": process.stderr, "output": process.stdout}
        places["metrics"] = admin(process, "/metrics").body.decode()
        assert "tiergate_" in places["metrics"]
        for word in (*KEYS.values(), *_planted):
            for name, text in places.items():
                assert word not in text, f"{word} in {name}"


@pytest.fixture
def ours(gateway: GatewayProcess) -> Batches:
    return Batches(gateway, KEYS["ours"])


@pytest.fixture
def theirs(gateway: GatewayProcess) -> Batches:
    return Batches(gateway, KEYS["theirs"])


def on_disk(gateway: GatewayProcess) -> set[str]:
    """Give what there is of files: their texts, and what is known of them."""
    texts = {path.name for path in (gateway.data_dir / "jobs" / "files").glob("*")}
    with sqlite3.connect(f"file:{gateway.data_dir}/jobs.db?mode=ro", uri=True) as database:
        known = {one for (one,) in database.execute("SELECT id FROM file")}
    database.close()
    assert texts <= known
    return known


# S08: whose files and batches.

ROUTES = [
    (root, act, method)
    for (root, act), methods in batchplane._ROUTES.items()
    for method in methods
    if act not in ("", "estimate")
]
BODIES: dict[str, dict[str, Any]] = {
    "id": {"tiergate": {"concurrency": 3}},
    "cancel": {},
    "retry": {},
    "lines": {"input_file_ids": []},
}


@pytest.fixture(scope="module")
def owned(gateway: GatewayProcess) -> dict[str, list[str]]:
    """A file, a batch that has ended and one that runs, and what they wrote: all of one tenant."""
    batches = Batches(gateway, KEYS["ours"])
    done = batches.begin([*rows_of(2), row("bad", model="rejects")])
    batches.until(done)
    running = batches.begin(rows_of(500, model="slow"), concurrency=1)
    batches.until_done(running, 1)
    stem = done.removeprefix("batch_")
    return {
        batchplane.FILES: [batches.upload(rows_of(3)), f"file-{stem}-output", f"file-{stem}-errors"],
        batchplane.BATCHES: [done, running],
    }


def never(identity: str) -> str:
    """Give an id like this one that nobody was ever given."""
    head, _, tail = identity.replace("-", "_", 1).partition("_")
    mark = "_" if identity.startswith("batch_") else "-"
    return f"{head}{mark}{tail[:12]}{'z' * 14}{tail[26:]}"


@pytest.mark.parametrize(("root", "act", "method"), ROUTES)
def test_s08_another_tenant_cannot_tell_them_from_what_never_was(
    owned: dict[str, list[str]], ours: Batches, theirs: Batches, root: str, act: str, method: str
) -> None:
    """S08: every verb of every path gives the same 404, word for word, and does nothing."""
    path = root.removeprefix("/v1/")
    before = [ours.ask(f"{path}/{one}").json["id"] for one in owned[root]]
    for identity in owned[root]:
        answers = []
        for one in (identity, never(identity)):
            target = f"{path}/{one}" if act == "id" else f"{path}/{one}/{act}"
            answer = theirs.ask(target, BODIES[act] if method == "POST" else None, method=method)
            answers.append((answer.status, answer.body.replace(one.encode(), b"ID")))
        assert answers[0][0] == 404 and answers[0] == answers[1], (identity, answers)
    assert [ours.ask(f"{path}/{one}").json["id"] for one in owned[root]] == before


def test_s08_no_list_names_them_and_no_batch_reads_them(
    owned: dict[str, list[str]], ours: Batches, theirs: Batches, gateway: GatewayProcess
) -> None:
    """S08: not as an input, not as one more, not as lines that follow; the team of the key sees all."""
    files, batches = owned[batchplane.FILES], owned[batchplane.BATCHES]
    mine = theirs.upload(rows_of(1))
    wish = {"endpoint": CHAT, "completion_window": "24h"}
    for file in (*files, never(files[0])):
        for more in (
            {"input_file_id": file},
            {"input_file_id": mine, "tiergate": {"more_input_file_ids": [file]}},
        ):
            assert theirs.ask("batches", {**wish, **more}).status == 404
    batch = theirs.begin(rows_of(1))
    theirs.until(batch)
    for file in files:
        assert theirs.ask(f"batches/{batch}/lines", {"input_file_ids": [file]}).status == 404
    known = {one["id"] for one in theirs.get("files?limit=100")["data"]}
    known |= {one["id"] for one in theirs.get("batches?limit=100")["data"]}
    assert known >= {mine, batch} and not known & {*files, *batches}
    for page in ("files", "batches"):
        for after in (*files, *batches, never(files[0])):
            assert not {one["id"] for one in theirs.get(f"{page}?after={after}")["data"]} & {*files, *batches}
    mate = Batches(gateway, KEYS["mate"])
    assert {one["id"] for one in mate.get("batches")["data"]} >= set(batches)
    assert ids(mate.answers(batches[0])) == ["row-1", "row-2"]


@pytest.mark.parametrize("key", ["", "theirs-batch-key-0123456789abcdeF"], ids=["none", "unknown"])
@pytest.mark.parametrize(("root", "act"), list(batchplane._ROUTES))
def test_s01_every_path_denies_without_a_key(
    gateway: GatewayProcess, owned: dict[str, list[str]], key: str, root: str, act: str
) -> None:
    """S01: files and batches are as closed as everything else."""
    tail = {"": "", "id": f"/{owned[root][0]}", "estimate": "/estimate"}.get(act, f"/{owned[root][0]}/{act}")
    for method in batchplane._ROUTES[root, act]:
        body = {} if method == "POST" else None
        answer = Batches(gateway, key).ask(root.removeprefix("/v1/") + tail, body, method=method)
        assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")


# S09: what nobody knows is refused.


def test_s09_unknown_fields_are_refused(ours: Batches, owned: dict[str, list[str]]) -> None:
    """S09: by name, wherever a body is read; a slip of the pen is no other wish."""
    file, batch = owned[batchplane.FILES][0], owned[batchplane.BATCHES][1]
    wish = {"input_file_id": file, "endpoint": CHAT, "completion_window": "24h"}
    for path, body, param in (
        ("batches", {**wish, "budget_usd": 5}, "budget_usd"),
        ("batches", {**wish, "tiergate": {"budget": 5}}, "budget"),
        ("batches", {**wish, "tiergate": []}, "tiergate"),
        ("batches", {**wish, "tiergate": "x"}, "tiergate"),
        (f"batches/{batch}", {"tiergate": {"strict": True}}, "strict"),
        (f"batches/{batch}", {"budget_usd": 5}, "tiergate"),
        (f"batches/{batch}", {"tiergate": {}, "budget_usd": 5}, "tiergate"),
        (f"batches/{batch}/retry", {"code": ["x"]}, "code"),
        (f"batches/{batch}/retry", {"codes": "x"}, "codes"),
        (f"batches/{batch}/retry", {"codes": [1]}, "codes"),
        (f"batches/{batch}/lines", {"input_file_id": file}, "input_file_id"),
        (f"batches/{batch}/lines", {"input_file_ids": file}, "input_file_ids"),
        (f"batches/{batch}/cancel", {"now": True}, "now"),
        ("batches/estimate", {"bodies": [{}], "lines": 1, "budget": 5}, "budget"),
    ):
        answer = ours.ask(path, body)
        assert (answer.status, answer.error["param"]) == (400, param), (path, body, answer.raw)
    for query in ("limit=0", "limit=x", "limit=-1", "limit=99999999999999999999"):
        assert ours.ask(f"batches?{query}").status == ours.ask(f"files?{query}").status == 400
    output = f"{batch.replace('batch_', 'file-')}-output"
    assert ours.ask(f"files/{output}/content?after_line=x").status == 400


# S37: names.

NAMES = {
    "up": "../../../../../etc/passwd",
    "absolute": "/etc/passwd",
    "windows": "..\\\\..\\\\windows\\\\system32\\\\a.txt",
    "drive": "C:\\\\a.jsonl",
    "url": "http://127.0.0.1/x.jsonl",
    "encoded": "%2e%2e%2f%2e%2e%2fpasswd",
    "nul": "a\x00b.jsonl",
    "control": "a\x1b[31m\x07.jsonl",
    "dots": "..",
    "blank": " ",
    "bidi": "a\u202egpj.jsonl",
    "unicode": "données-\u6587\u4ef6-\U0001f600.jsonl",
    "long": "n" * 3_000 + ".jsonl",
    "quoted": 'a\\"; filename=\\"b',
    "markup": "<img src=x onerror=alert(1)>.jsonl",
    "database": "ledger.db",
    "id": "file-01m8dpbcna3m9yvwn5gxt99pvy",
}


@pytest.mark.parametrize("kind", NAMES)
def test_s37_a_name_is_shown_and_is_nothing_else(gateway: GatewayProcess, ours: Batches, kind: str) -> None:
    """S37: whatever a file is called, it rests under an id of ours, and leaves as a download of that name."""
    word = canary("name")
    name = f"{NAMES[kind]}{word}" if kind not in ("dots", "blank", "id") else NAMES[kind]
    before = tree(gateway.folder)
    data = written(rows_of(1))
    file = ours.upload(data, disposition=f'filename="{name}"')
    made = {one for one in tree(gateway.folder) - before if "jobs.db" not in one}
    assert made == {f"data/jobs/files/{file}"}
    shown = ours.get(f"files/{file}")["filename"]
    assert shown and len(shown) <= 255 and shown.isprintable() and not set("/\\") & set(shown)
    content = ours.ask(f"files/{file}/content")
    assert content.body == data
    assert content.header("content-type") == "application/octet-stream"
    assert content.header("content-disposition") == f'attachment; filename="{file}.jsonl"'
    assert content.header("x-content-type-options") == "nosniff"
    assert ours.ask(f"files/{file}", method="DELETE").status == 200
    assert tree(gateway.folder) <= before | made


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.name != "files"}


@pytest.mark.parametrize(
    "identity",
    [
        "../../secret",
        "..%2f..%2fsecret",
        "%2e%2e/%2e%2e/secret",
        "..",
        "file-..%2f..%2f..%2fsecret",
        "file-%00",
        "file-'%20OR%20'1'='1",
        "file-*",
        "file-%25",
        "file-_-output",
        "file--output",
        "file-" + "a" * 5_000,
        "s1%2f1",
        "FILE-X",
    ],
)
def test_s37_an_id_is_no_path(gateway: GatewayProcess, ours: Batches, identity: str) -> None:
    """S37: what is no id of the caller's is not there; nothing of the data folder is ever given."""
    kept = (gateway.data_dir / "secret").read_bytes().strip()
    for path in (f"files/{identity}", f"files/{identity}/content", f"batches/{identity}"):
        for method in ("GET", "DELETE"):
            answer = ours.ask(path, method=method)
            assert answer.status in (400, 404, 405), (path, answer.raw)
            assert kept not in answer.raw


def test_s37_links_in_the_folder_lead_nowhere(mock: MockProcess, tmp_path: Path) -> None:
    """S37: what somebody has put in the place of a file is neither read nor written."""
    outside = tmp_path / "outside.txt"
    outside.write_text(canary("outside"))
    kept = outside.read_bytes()
    with GatewayProcess(tmp_path / "house", settings(mock)) as gateway:
        batches = Batches(gateway, KEYS["ours"])
        file = batches.upload(rows_of(1))
        link(gateway.data_dir / "jobs" / "files" / file, outside)
        assert kept not in batches.ask(f"files/{file}/content").raw
        made = batches.post("batches", {"input_file_id": file, "endpoint": CHAT, "completion_window": "24h"})[
            "id"
        ]
        batch = batches.begin(rows_of(60, model="slow"), concurrency=4)
        batches.until_done(batch, 4)
        gateway.signal(9)
        gateway.stop()
        for spool in (gateway.data_dir / "jobs").glob("s*/*"):
            link(spool, outside)
        try:
            gateway.start()
        except AssertionError:
            assert "cannot be" in gateway.stderr + gateway.stdout
        else:
            for one in (made, batch):
                assert kept not in b"".join(json.dumps(found).encode() for found in (batches.look(one),))
        assert outside.read_bytes() == kept


def test_s37_a_folder_that_is_a_link_is_refused(mock: MockProcess, tmp_path: Path) -> None:
    """S37: neither the folder of jobs nor the one of files may lead elsewhere."""
    for name in ("jobs", "jobs/files"):
        elsewhere = tmp_path / f"elsewhere-{name.replace('/', '-')}"
        elsewhere.mkdir()
        gateway = GatewayProcess(tmp_path / f"house-{name.replace('/', '-')}", settings(mock))
        (gateway.data_dir / name).parent.mkdir(parents=True, mode=0o700)
        (gateway.data_dir / name).symlink_to(elsewhere)
        try:
            gateway.start()
            Batches(gateway, KEYS["ours"]).ask("files", form(written(rows_of(1))), headers=[FORM])
        except AssertionError:
            assert "no link" in gateway.stdout + gateway.stderr
        finally:
            gateway.stop()
        assert list(elsewhere.iterdir()) == [], name


def link(path: Path, target: Path) -> None:
    path.unlink()
    path.symlink_to(target)


# Uploads that are none.


def test_a_file_above_the_limit_is_413(gateway: GatewayProcess, ours: Batches) -> None:
    """Told by its length before any of it is read, and in chunks when it is reached; nothing of it stays."""
    before = on_disk(gateway)
    big = form(b"x" * (BYTES_MAX + 1))
    told = ours.ask("files", big, headers=[FORM])
    assert (told.status, told.error["code"]) == (413, "request_too_large")
    head = [bearer(KEYS["ours"]), FORM, ("Transfer-Encoding", "chunked")]
    with Connection(gateway.port) as connection:
        connection.send(request("/v1/files", method="POST", headers=head))
        connection.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(big), big))
        chunked = read_answer(connection.read_to_end())
    assert (chunked.status, chunked.error["code"]) == (413, "request_too_large")
    assert on_disk(gateway) == before
    assert ours.upload(b"x" * (BYTES_MAX - 1_000))


def part(head: str, value: bytes = b"x") -> bytes:
    return f"--b\r\ncontent-disposition: {head}\r\n\r\n".encode() + value + b"\r\n"


PURPOSE = part('form-data; name="purpose"', b"batch")
FILE = part('form-data; name="file"; filename="a.jsonl"', b'{"a": 1}\n')
END = b"--b--\r\n"
KIND = "multipart/form-data; boundary=b"
BROKEN = {
    "json": ("application/json", b"{}", "multipart/form-data"),
    "no type": ("", PURPOSE + FILE + END, "multipart/form-data"),
    "no boundary": ("multipart/form-data", PURPOSE + FILE + END, "multipart/form-data"),
    "empty boundary": ("multipart/form-data; boundary=", PURPOSE + FILE + END, "multipart/form-data"),
    "another boundary": ("multipart/form-data; boundary=c", PURPOSE + FILE + END, "form"),
    "boundary of a kilobyte": (f"multipart/form-data; boundary={'b' * 1_000}", PURPOSE + FILE + END, "form"),
    "nothing": (KIND, b"", "form"),
    "only the end": (KIND, END, "form"),
    "truncated": (KIND, (PURPOSE + FILE)[:-5], "ends before its last boundary"),
    "no end": (KIND, PURPOSE + FILE, "ends before its last boundary"),
    "text before": (KIND, b"hello" + PURPOSE + FILE + END, "malformed"),
    "no file": (KIND, PURPOSE + END, "no file"),
    "a file that is a field": (KIND, PURPOSE + part('form-data; name="file"') + END, "no file"),
    "two files": (KIND, PURPOSE + FILE + FILE + END, "one file"),
    "another part": (KIND, PURPOSE + part('form-data; name="upload"; filename="a"') + END, "one file"),
    "no name": (KIND, PURPOSE + part("form-data") + FILE + END, "name"),
    "no disposition": (KIND, b"--b\r\n\r\nx\r\n" + END, "name"),
    "attachment": (KIND, PURPOSE + part('attachment; name="file"; filename="a"') + END, "name"),
    "no purpose": (KIND, FILE + END, "purpose"),
    "another purpose": (KIND, part('form-data; name="purpose"', b"assistants") + FILE + END, "purpose"),
    "an empty file": (KIND, PURPOSE + part('form-data; name="file"; filename="a"', b"") + END, "empty"),
    "a huge field": (KIND, part('form-data; name="purpose"', b"x" * 5_000) + FILE + END, "longer than 4096"),
    "many fields": (KIND, PURPOSE * 21 + FILE + END, "more than 20 fields"),
    "a huge header": (KIND, part(f'form-data; name="{"n" * 60_000}"') + FILE + END, ""),
    "endless headers": (KIND, b"--b\r\n" + b"a: b\r\n" * 10_000 + b"\r\nx\r\n" + FILE + END, ""),
    "a header without a colon": (KIND, b"--b\r\nnonsense\r\n\r\nx\r\n" + END, "malformed"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_form_is_refused_and_nothing_of_it_stays(
    gateway: GatewayProcess, ours: Batches, how: str
) -> None:
    """4xx with a sentence that says what is wrong; no file, no record, and the next upload is a good one."""
    kind, body, said = BROKEN[how]
    before = on_disk(gateway)
    answer = ours.ask("files", body, method="POST", headers=[("Content-Type", kind)])
    assert 400 <= answer.status < 500 and answer.status not in (401, 404), answer.raw
    assert said in answer.error["message"] and len(answer.error["message"]) > 15
    assert on_disk(gateway) == before


@pytest.mark.parametrize("how", ["leaves", "is silent"])
def test_a_client_that_stops_is_let_go(mock: MockProcess, tmp_path: Path, how: str) -> None:
    """In the middle of an upload: nothing of it stays, and no place is taken by it."""
    program = (str(Path(__file__).with_name("impatient.py")),)
    with GatewayProcess(tmp_path, settings(mock), program=program) as gateway:
        whole = form(written(rows_of(300)))
        sent = request("/v1/files", whole, headers=[bearer(KEYS["ours"]), FORM])
        before = gateway.descriptors
        with Connection(gateway.port) as connection:
            connection.send(sent[: len(sent) // 2])
            if how == "is silent":
                assert read_answer(connection.read_to_end()).status == 408
            else:
                until(lambda: gateway.descriptors > before, what="the connection")
        until(lambda: not on_disk(gateway), what="the end of the file")
        until(lambda: gateway.descriptors <= before + 2, what="the end of the connection")
        assert Batches(gateway, KEYS["ours"]).upload(rows_of(1))


# S48: a line may do what its key may, and not more.

PICTURES = [
    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x.example/a.png"}}] * 2}
]
CAPS = ["--max-output-tokens=100", "--max-choices=2", "--max-images=1", "--max-reasoning-effort=low"]
CAPPED: dict[str, dict[str, Any]] = {
    "max_tokens": {"max_tokens": 101},
    "max_completion_tokens": {"max_completion_tokens": 101},
    "no limit": {},
    "n": {"max_tokens": 100, "n": 3},
    "best_of": {"max_tokens": 100, "best_of": 3},
    "images": {"max_tokens": 100, "messages": PICTURES},
    "effort": {"max_tokens": 100, "reasoning_effort": "high"},
    "reasoning.effort": {"max_tokens": 100, "reasoning": {"effort": "high"}},
    "reasoning.max_tokens": {"max_tokens": 100, "reasoning": {"max_tokens": 101}},
    "thinking": {"max_tokens": 100, "thinking": {"type": "enabled", "budget_tokens": 101}},
}
ROUTERS: dict[str, dict[str, Any]] = {
    name: {name: value} for name, value in (("models", ["main/other"]), ("fallbacks", ["x"]), ("preset", "x"))
}
POLICIES: dict[str, tuple[list[str], dict[str, dict[str, Any]]]] = {
    "models": (
        ["--models", "m,pri*"],
        {name: {"model": name} for name in ("other", "main/other", "rack/x", "both", "none", "M")},
    ),
    "tiers": (["--tiers", "private"], {name: {"model": name} for name in ("m", "main/m", "main/both")}),
    "hosted": (["--tiers", "hosted"], {name: {"model": name} for name in ("private", "rack/private")}),
    "data": (["--private-only"], {name: {"model": name} for name in ("m", "main/m", "main/both")}),
    "caps": (CAPS, CAPPED),
    "none": ([], ROUTERS),
}


@pytest.mark.parametrize("policy", POLICIES)
def test_s48_what_a_key_may_not_a_line_of_its_batch_may_not(
    gateway: GatewayProcess, mock: MockProcess, policy: str
) -> None:
    """S48: each row has the error that the live call has, and no provider hears of either."""
    wishes, cases = POLICIES[policy]
    made = cli("keys", "create", f"policy-{policy}", *wishes, "--json", folder=gateway.folder)
    batches = Batches(gateway, json.loads(made.stdout)["key"])
    bodies = {
        name: {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}
        for name, fields in cases.items()
    }
    before = heard(mock)
    live = {name: batches.ask("chat/completions", body) for name, body in bodies.items()}
    lines = [
        {"custom_id": name, "method": "POST", "url": CHAT, "body": body} for name, body in bodies.items()
    ]
    batch = batches.begin(lines)
    found = batches.until(batch)
    assert found["request_counts"] == {"total": len(cases), "completed": 0, "failed": len(cases)}
    for one in batches.errors(batch):
        answer = live[one["custom_id"]]
        assert answer.status in (400, 403, 404), answer.raw
        if one["response"] is None:
            # It was seen when the input was read.
            assert (one["error"]["code"], answer.error["code"]) == ("invalid_line", "invalid_request")
            assert answer.error["message"] in one["error"]["message"]
        else:
            assert one["response"]["status_code"] == answer.status
            assert one["response"]["body"] == answer.json
    assert heard(mock) == before
    within = {"max_tokens": 100, "n": 2, "reasoning_effort": "low"} if policy == "caps" else {}
    model = {"models": "private", "tiers": "both", "data": "both"}.get(policy, "m")
    assert (
        batches.until(batches.begin([row("good", model=model, **within)]))["request_counts"]["completed"] == 1
    )
    assert batches.ask("chat/completions", row("", model=model, **within)["body"]).status == 200


def heard(mock: MockProcess) -> int:
    """Count what was asked, but for the batch that runs beside all tests."""
    with urlopen(mock.url + "/mock/log") as answer:
        return sum(one["path"] == CHAT and one["model"] != "slow" for one in json.load(answer)["data"])


def test_s48_private_only_is_kept_whoever_asks_for_it(
    gateway: GatewayProcess, mock: MockProcess, ours: Batches
) -> None:
    """S48: of the batch itself, as of a call's header: nothing leaves for a hosted target."""
    before = len(calls_of(mock, "m"))
    batch = ours.begin([row("hosted"), row("both", model="both")], data="private-only")
    ours.until(batch)
    assert [one["tiergate"]["target"] for one in ours.answers(batch)] == ["rack/both"]
    (failed,) = ours.errors(batch)
    live = ours.ask("chat/completions", row("")["body"], headers=[("x-tiergate-data", "private-only")])
    assert failed["response"]["body"]["error"]["code"] == live.error["code"]
    assert len(calls_of(mock, "m")) == before


def test_s48_the_budget_of_a_key_holds_for_its_batches(gateway: GatewayProcess, mock: MockProcess) -> None:
    """S48: what is gone is gone for lines, too; the batch stands still and says which budget it was."""
    made = cli("keys", "create", "poor", "--budget-usd", "0.01", "--json", folder=gateway.folder)
    batches = Batches(gateway, json.loads(made.stdout)["key"])
    batch = batches.begin(rows_of(40, model="dear", max_tokens=5))
    found = batches.until(batch, "stopped", "parked")
    assert found["tiergate"]["reason"] == "budget" and "key:poor" in found["tiergate"]["message"]
    assert found["tiergate"]["spent_usd"] <= 0.01
    live = batches.ask("chat/completions", row("", model="dear", max_tokens=5)["body"])
    assert (live.status, live.error["code"]) == (402, "budget_exceeded")
    batches.post(f"batches/{batch}/cancel")


def test_s48_rates_of_a_key_hold_for_its_batches(gateway: GatewayProcess, mock: MockProcess) -> None:
    """S48: no more calls in a minute than a key has, no more inside than it may; lines wait, none fails."""
    made = cli(
        "keys", "create", "limited", "--rpm", "5", "--concurrency", "2", "--json", folder=gateway.folder
    )
    batches = Batches(gateway, json.loads(made.stdout)["key"])
    before = len(calls_of(mock, "echo"))
    batch = batches.begin(rows_of(30, model="echo"), concurrency=30)
    batches.until_done(batch, 5)
    found = until(lambda: limited(batches, batch), what="the limit")
    assert found["tiergate"]["state"] in ("running", "parked") and found["request_counts"]["failed"] == 0
    live = batches.ask("chat/completions", row("", model="echo")["body"])
    assert (live.status, live.error["code"]) == (429, "rate_limit_exceeded")
    assert len(calls_of(mock, "echo")) - before <= 6
    batches.post(f"batches/{batch}/cancel")


def limited(batches: Batches, batch: str) -> Any:
    found = batches.look(batch)
    return found if found["tiergate"]["asked_again"].get("key_limit") else None


def test_s48_a_key_that_is_revoked_stops_its_batches(gateway: GatewayProcess, mock: MockProcess) -> None:
    """S48: at once; what was answered stays, and nobody but the team can see it any more."""
    made = cli("keys", "create", "leaver", "--team", "team", "--json", folder=gateway.folder)
    leaver, mate = Batches(gateway, json.loads(made.stdout)["key"]), Batches(gateway, KEYS["mate"])
    before = len(calls_of(mock, "slow-2"))
    batch = leaver.begin(rows_of(200, model="slow-2"), concurrency=4)
    leaver.until_done(batch, 4)
    assert cli("keys", "revoke", "leaver", folder=gateway.folder).returncode == 0
    found = mate.until(batch, "stopped")
    assert found["tiergate"]["reason"] == "key" and "'leaver'" in found["tiergate"]["message"]
    assert leaver.ask(f"batches/{batch}").status == 401
    done = found["request_counts"]["completed"]
    assert len(mate.answers(batch)) == done < 200
    asked = len(calls_of(mock, "slow-2")) - before
    assert asked == done
    mate.change(batch, concurrency=4)
    assert mate.until(batch, "stopped")["request_counts"]["completed"] == done
    mate.post(f"batches/{batch}/cancel")
    assert mate.until(batch)["status"] == "cancelled"


# S30: what is said stays where it belongs.


def test_s30_nothing_of_questions_and_answers_is_logged(gateway: GatewayProcess, ours: Batches) -> None:
    """S30: prompts, answers, names and what is wrong with a line; the module's end looks for the canaries."""
    lines: list[Any] = [
        row(canary("custom-id"), canary("prompt"), model="echo", user=canary("user")),
        row(canary("custom-id"), canary("prompt"), model="rejects"),
        row(canary("custom-id"), canary("prompt"), model="none"),
        {**row(canary("custom-id")), "url": f"/v1/{canary('url')}"},
        b'{"custom_id": "' + canary("broken").encode(),
        {"custom_id": canary("invalid"), "invalid": canary("problem")},
    ]
    file = ours.upload(lines, disposition=f'filename="{canary("file")}.jsonl"')
    wish = {"input_file_id": file, "endpoint": CHAT, "completion_window": "24h"}
    batch = ours.post("batches", {**wish, "metadata": {canary("name"): canary("value")}})["id"]
    found = ours.until(batch)
    assert found["request_counts"] == {"total": 6, "completed": 1, "failed": 5}
    (answer,) = ours.answers(batch)
    assert "canary-prompt" in json.dumps(answer)
    twice = canary("twice")
    for bad in (
        [row(twice), row(twice)],
        [{**row("x"), "url": canary("url")}],
        [b'{"a": "' + twice.encode()],
    ):
        assert ours.until(ours.begin(bad, strict=True))["status"] == "failed"
    for model in ("locked", "broke"):
        batch = ours.begin([row(canary("custom-id"), canary("prompt"), model=model)])
        assert SAID not in ours.until(batch, "stopped")["tiergate"]["message"]
        ours.post(f"batches/{batch}/cancel")


def test_s37_everything_is_for_the_owner_only(gateway: GatewayProcess, ours: Batches) -> None:
    """S37: files of mode 0600 in folders of mode 0700."""
    ours.until(ours.begin(rows_of(2)))
    for path in (gateway.data_dir / "jobs", *(gateway.data_dir / "jobs").rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path
    assert (gateway.data_dir / "jobs.db").stat().st_mode & 0o777 == 0o600
