"""Batches as callers have them: the official client, files by hand, and what the ledger says afterwards."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from batches import CHAT, FORM, Batches, check_rows, code_of, form, ids, row, rows_in, rows_of, written
from flow.plain_http import Connection, bearer, read_answer, request
from house import NO_BREAKERS, GatewayProcess, calls_of, until
from tiergate.ledger import Entry
from tiergate.testing import MockProcess

KEY = "batch-client-key-0123456789abcdef"
MODELS = ("m", "rejects", "once", "slow", "tail", "wide", "cached", "blank", "alike")
PER_TOKEN_USD = 0.0001
"""Of output; the input costs nothing here, so that sums can be told from counts."""
SCRIPT = json.dumps(
    {
        "default": {"words": 8, "ttft_ms": 1},
        "rules": [
            {"when": {"model": "rejects"}, "then": {"status": 400, "error": {"code": "bad_stop"}}},
            {"when": {"model": "once", "first": 4}, "then": {"status": 422, "error": {"code": "odd"}}},
            {"when": {"model": "slow"}, "then": {"words": 5, "ttft_ms": 150}},
            {"when": {"model": "tail", "probability": 0.08}, "then": {"words": [150, 300]}},
            {"when": {"model": "tail", "probability": 0.3}, "then": {"words": [40, 80]}},
            {"when": {"model": "wide", "probability": 0.08}, "then": {"words": [30, 48], "ttft_ms": 700}},
            {"when": {"model": "wide", "probability": 0.3}, "then": {"words": [8, 16], "ttft_ms": 700}},
            {"when": {"model": "wide"}, "then": {"words": [1, 3], "ttft_ms": 700}},
        ],
    }
)


@pytest.fixture(scope="module")
def mock() -> Iterator[MockProcess]:
    with MockProcess(SCRIPT) as process:
        yield process


def settings(mock: MockProcess) -> dict[str, Any]:
    price = {"input": 0, "output": PER_TOKEN_USD * 1_000_000}
    return {
        "auth": "keys",
        "keys": [{"name": "web", "secret": KEY}],
        "providers": {"main": {"base_url": mock.base_url}},
        "models": {name: {"targets": [f"main/{name}"]} for name in MODELS},
        "prices": [{"target": f"main/{name}", "usd_per_1m": price} for name in MODELS if name != "blank"],
        "resilience": NO_BREAKERS,
        "limits": {"file_mb": 4},
    }


@pytest.fixture(scope="module")
def gateway(mock: MockProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with GatewayProcess(tmp_path_factory.mktemp("batches"), settings(mock)) as process:
        yield process


@pytest.fixture
def client(gateway: GatewayProcess) -> Iterator[OpenAI]:
    with OpenAI(base_url=gateway.base_url, api_key=KEY, max_retries=0) as made:
        yield made


@pytest.fixture
def batches(gateway: GatewayProcess) -> Batches:
    return Batches(gateway, KEY)


PATIENT = "TIERGATE_PATIENT" in os.environ


def entries_of(gateway: GatewayProcess, batch: str) -> list[Entry]:
    return [entry for entry in gateway.check_books() if entry.job == batch]


def spent_usd(entries: list[Entry]) -> float:
    return sum((one.cash_nanos or 0) for entry in entries for one in entry.attempts) / 1e9


# The official client.


def test_the_official_client_has_a_batch_from_upload_to_answers(client: OpenAI) -> None:
    """Good lines, one that the provider refuses, bad ones, a name that was there: a row for each."""
    lines = [
        *rows_of(5),
        row("refused", model="rejects"),
        b"{nonsense",
        row("row-1"),
        row("last", model="none"),
    ]
    file = client.files.create(file=("questions.jsonl", written(lines)), purpose="batch")
    assert (file.filename, file.bytes, file.purpose) == ("questions.jsonl", len(written(lines)), "batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint=CHAT, completion_window="24h", metadata={"for": "a test"}
    )
    assert (batch.status, batch.metadata, batch.input_file_id) == ("validating", {"for": "a test"}, file.id)
    batch = until(lambda: ended(client, batch.id))
    assert batch.request_counts is not None and batch.errors is not None and batch.errors.data is not None
    counts = batch.request_counts
    assert (batch.status, counts.total, counts.completed, counts.failed) == ("completed", 9, 5, 4)
    assert [(one.code, one.line) for one in batch.errors.data] == [
        ("invalid_line", 7),
        ("duplicate_custom_id", 8),
    ]
    assert batch.output_file_id and batch.error_file_id
    answers = rows_in(client.files.content(batch.output_file_id).read())
    errors = rows_in(client.files.content(batch.error_file_id).read())
    assert ids(answers) == [f"row-{n}" for n in range(1, 6)]
    assert [one["response"]["status_code"] for one in answers] == [200] * 5
    assert all(one["response"]["body"]["choices"][0]["message"]["content"] for one in answers)
    assert ids(errors) == ["refused", None, "row-1", "last"]
    assert [code_of(one) for one in errors] == ["bad_stop", "invalid_line", "invalid_line", "model_not_found"]
    assert [one["response"] and one["response"]["status_code"] for one in errors] == [400, None, None, 404]
    output = client.files.retrieve(batch.output_file_id)
    assert (output.purpose, output.bytes) == ("batch_output", len(client.files.content(output.id).read()))
    assert batch.id in [one.id for one in client.batches.list(limit=5)]
    assert file.id in [one.id for one in client.files.list()]


def ended(client: OpenAI, batch: str) -> Any:
    found = client.batches.retrieve(batch)
    return None if found.status in ("validating", "in_progress", "cancelling") else found


def test_a_file_is_given_back_as_it_came_and_deleted(client: OpenAI) -> None:
    """Its list goes on in pages; what is deleted is not there any more."""
    data = [written(rows_of(3, first=n)) for n in range(5)]
    files = [client.files.create(file=("in.jsonl", one), purpose="batch").id for one in data]
    assert [client.files.content(one).read() for one in files] == data
    assert [one.id for one in client.files.list(limit=2)][:5] == list(reversed(files))
    for one in files:
        assert client.files.delete(one).deleted
        with pytest.raises(openai.NotFoundError):
            client.files.retrieve(one)
    assert not {one.id for one in client.files.list()} & set(files)


def test_a_batch_reads_on_when_its_file_is_deleted(client: OpenAI, batches: Batches) -> None:
    """Who has sent the lines may forget them."""
    batch = batches.begin(rows_of(20, model="slow"), concurrency=2)
    assert client.files.delete(batches.look(batch)["input_file_id"]).deleted
    batches.change(batch, concurrency=20)
    assert batches.until(batch)["request_counts"] == {"total": 20, "completed": 20, "failed": 0}


def test_what_is_no_batch_is_told_why(client: OpenAI) -> None:
    """With the field, in the words of the official client's errors."""
    file = client.files.create(file=("in.jsonl", written(rows_of(1))), purpose="batch").id
    good: dict[str, Any] = {"input_file_id": file, "endpoint": CHAT, "completion_window": "24h"}
    for wrong, param in (
        ({"endpoint": "/v1/embeddings"}, "endpoint"),
        ({"completion_window": "30s"}, "completion_window"),
        ({"completion_window": "31d"}, "completion_window"),
        ({"metadata": {"long": "x" * 513}}, "metadata"),
        ({"extra_body": {"tiergate": {"budget_usd": 0}}}, "budget_usd"),
        ({"extra_body": {"tiergate": {"concurrency": 10_001}}}, "concurrency"),
        ({"extra_body": {"tiergate": {"model": "m" * 257}}}, "model"),
    ):
        with pytest.raises(openai.BadRequestError) as told:
            client.batches.create(**{**good, **wrong})
        assert told.value.param == param, wrong
    with pytest.raises(openai.NotFoundError):
        client.batches.create(**{**good, "input_file_id": "file-none"})
    with pytest.raises(openai.BadRequestError, match="purpose"):
        client.files.create(file=("in.jsonl", b"x"), purpose="assistants")
    with pytest.raises(openai.BadRequestError, match="empty"):
        client.files.create(file=("in.jsonl", b""), purpose="batch")


def test_an_upload_in_chunks_of_any_size_is_one_file(gateway: GatewayProcess, batches: Batches) -> None:
    """Without a Content-Length, cut wherever it pleases; more than is kept in memory at one time."""
    data = written(rows_of(8_000))
    assert len(data) > 1 << 20
    whole = form(data)
    sizes = [1, 2, 3, 70_000, 1, 300_000]
    head = request("/v1/files", method="POST", headers=[bearer(KEY), FORM, ("Transfer-Encoding", "chunked")])
    with Connection(gateway.port) as connection:
        connection.send(head)
        at = turn = 0
        while at < len(whole):
            piece = whole[at : at + sizes[turn % len(sizes)]]
            connection.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            at, turn = at + len(piece), turn + 1
        connection.send(b"0\r\n\r\n")
        answer = read_answer(connection.read_to_end())
    assert (answer.status, answer.json["bytes"]) == (200, len(data))
    assert batches.ask(f"files/{answer.json['id']}/content").body == data


# What becomes of a batch.


def test_answers_can_be_read_while_it_runs(batches: Batches) -> None:
    """In the order of the input, each whole; then the file grows by those that follow."""
    batch = batches.begin(rows_of(60, model="slow"), concurrency=8)
    batches.until_done(batch, 10)
    early = batches.answers(batch)
    assert 10 <= len(early) < 60
    numbers = [int(str(name).removeprefix("row-")) for name in ids(early)]
    assert numbers == sorted(numbers)
    batches.change(batch, concurrency=60)
    batches.until(batch)
    late = batches.answers(batch)
    assert ids(late) == [f"row-{n}" for n in range(1, 61)]
    assert all(one in late for one in early)


def test_strict_sends_nothing_where_a_line_asks_nothing(mock: MockProcess, batches: Batches) -> None:
    """It fails, and says which lines."""
    before = len(calls_of(mock, "m"))
    batch = batches.begin([*rows_of(3), b"[]", row("row-2"), row("", "no name")], strict=True)
    found = batches.until(batch)
    assert (found["status"], found["output_file_id"]) == ("failed", None)
    assert [(one["code"], one["line"]) for one in found["errors"]["data"]] == [
        ("invalid_line", 4),
        ("invalid_line", 6),
        ("duplicate_custom_id", 5),
    ]
    assert len(calls_of(mock, "m")) == before
    assert batches.until(batches.begin(rows_of(3), strict=True))["status"] == "completed"


def test_a_budget_needs_prices(mock: MockProcess, batches: Batches) -> None:
    """Where one is unknown nothing is sent, and the sentence says what to do; without a budget it is."""
    found = batches.until(batches.begin([*rows_of(2), row("dark", model="blank")], budget_usd=5))
    (told,) = found["errors"]["data"]
    assert (found["status"], told["code"]) == ("failed", "price_unknown")
    assert "main/blank" in told["message"] and "Give it one (`prices` in the settings)" in told["message"]
    assert calls_of(mock, "blank") == []
    assert batches.until(batches.begin([row("dark", model="blank")]))["status"] == "completed"


def test_cancel_keeps_what_is_finished(client: OpenAI, batches: Batches) -> None:
    """What is asked ends well, the rest becomes rows that say so; nothing is lost or there twice."""
    rows = rows_of(80, model="slow")
    batch = batches.begin(rows, concurrency=8)
    batches.until_done(batch, 8)
    assert client.batches.cancel(batch).status == "cancelling"
    found = batches.until(batch)
    assert (found["status"], found["tiergate"]["cancelled"]) == (
        "cancelled",
        80 - found["request_counts"]["completed"],
    )
    assert 8 <= found["request_counts"]["completed"] < 80
    check_rows(batches, batch, [one["custom_id"] for one in rows])
    assert {code_of(one) for one in batches.errors(batch)} == {"batch_cancelled"}
    assert found["tiergate"]["errors"] == {"batch_cancelled": found["tiergate"]["cancelled"]}
    with pytest.raises(openai.BadRequestError, match="has ended"):
        client.batches.cancel(batch)


def test_a_cancelled_batch_takes_up_what_was_not_asked(batches: Batches) -> None:
    """Retrying what was cancelled is how a batch that was ended too early goes on."""
    batch = batches.begin(rows_of(40, model="slow"), concurrency=4)
    batches.until_done(batch, 1)
    batches.post(f"batches/{batch}/cancel")
    ended = batches.until(batch)["tiergate"]["cancelled"]
    batches.change(batch, concurrency=40)
    again = batches.post(f"batches/{batch}/retry", {"codes": ["batch_cancelled"]})
    assert (again["retried"], again["status"]) == (ended, "in_progress")
    found = batches.until(batch)
    assert (found["status"], found["request_counts"]["completed"]) == ("completed", 40)
    check_rows(batches, batch, [f"row-{n}" for n in range(1, 41)])


def test_failed_lines_are_asked_again_by_their_codes(mock: MockProcess, batches: Batches) -> None:
    """Those of other codes stay as they are, and what was answered is not asked."""
    rows = [*rows_of(3), *(row(f"once-{n}", model="once") for n in range(4)), row("bad", model="rejects")]
    batch = batches.begin(rows)
    found = batches.until(batch)
    assert found["tiergate"]["errors"] == {"odd": 4, "bad_stop": 1}
    before = len(calls_of(mock, "m")), len(calls_of(mock, "rejects"))
    assert batches.post(f"batches/{batch}/retry", {"codes": ["none"]})["retried"] == 0
    assert batches.post(f"batches/{batch}/retry", {"codes": ["odd"]})["retried"] == 4
    found = batches.until(batch)
    assert found["request_counts"] == {"total": 8, "completed": 7, "failed": 1}
    assert (len(calls_of(mock, "m")), len(calls_of(mock, "rejects"))) == before
    check_rows(batches, batch, [one["custom_id"] for one in rows])


def test_a_batch_grows(mock: MockProcess, batches: Batches) -> None:
    """While it runs and when it has ended; a name that was there already is told of, and asked once."""
    batch = batches.begin(rows_of(10, model="slow"), concurrency=4)
    batches.until_done(batch, 1)
    more = batches.upload([*rows_of(5, first=11), row("row-3", "again")])
    batches.post(f"batches/{batch}/lines", {"input_file_ids": [more]})
    assert batches.until(batch)["request_counts"] == {"total": 16, "completed": 15, "failed": 1}
    before = len(calls_of(mock, "m"))
    batches.post(f"batches/{batch}/lines", {"input_file_ids": [batches.upload(rows_of(4, first=16))]})
    found = batches.until(batch)
    assert found["request_counts"] == {"total": 20, "completed": 19, "failed": 1}
    assert len(calls_of(mock, "m")) == before + 4
    answers = batches.answers(batch)
    assert ids(answers) == [f"row-{n}" for n in range(1, 20)]
    assert [one["tiergate"]["n"] for one in answers] == [*range(1, 16), *range(17, 21)]


def test_two_batches_run_at_one_time(batches: Batches) -> None:
    """Neither waits for the other's end."""
    first, second = (batches.begin(rows_of(50, model="slow"), concurrency=5) for _ in range(2))
    for batch in (first, second):
        batches.until_done(batch, 5)
    assert {batches.look(batch)["tiergate"]["state"] for batch in (first, second)} == {"running"}
    for batch in (first, second):
        batches.change(batch, concurrency=50)
        assert batches.until(batch)["request_counts"]["completed"] == 50
        assert ids(batches.answers(batch)) == [f"row-{n}" for n in range(1, 51)]


def test_a_batch_that_is_just_ending_grows_too(batches: Batches) -> None:
    """At whatever instant the next lines come: none of them is forgotten."""
    files = [batches.upload(rows_of(1, first=n)) for n in range(2, 22)]
    batch = batches.begin(rows_of(1))
    batches.until(batch)
    for file in files:
        batches.post(f"batches/{batch}/lines", {"input_file_ids": [file]})
    found = batches.until(batch)
    assert found["request_counts"] == {"total": 21, "completed": 21, "failed": 0}
    assert ids(batches.answers(batch)) == [f"row-{n}" for n in range(1, 22)]


# Money.


def test_rows_say_what_the_ledger_says(mock: MockProcess, tmp_path: Path) -> None:
    """Usage and cost of each answer are those of its entry, which names job and line; their sum is told."""
    with GatewayProcess(tmp_path, settings(mock)) as gateway:
        batches = Batches(gateway, KEY)
        batch = batches.begin(
            [*rows_of(30, model="tail", max_tokens=300), row("bad", model="rejects")], tag="t-1"
        )
        found = batches.until(batch)
        rows = batches.answers(batch)
        entries = {entry.line: entry for entry in entries_of(gateway, batch)}
    assert sorted(line for line in entries if line) == list(range(1, 32))
    assert {(one.cause, one.tag, one.key, one.call_class) for one in entries.values()} == {
        ("batch", "t-1", "web", "batch")
    }
    for one in rows:
        entry, body = entries[one["tiergate"]["n"]], one["response"]["body"]
        (attempt,) = entry.attempts
        assert one["response"]["request_id"] == entry.call_id
        assert body["usage"]["prompt_tokens"] == attempt.usage.input_tokens
        assert body["usage"]["completion_tokens"] == attempt.usage.output_tokens
        cost = (attempt.cash_nanos or 0) / 1e9
        assert body["usage"]["cost"] == one["tiergate"]["cost_usd"] == pytest.approx(cost, abs=1e-12)
    assert found["usage"]["output_tokens"] == sum(
        one["response"]["body"]["usage"]["completion_tokens"] for one in rows
    )
    total = spent_usd(list(entries.values()))
    assert (
        found["tiergate"]["spent_usd"] == found["tiergate"]["answers_usd"] == pytest.approx(total, abs=1e-9)
    )


def test_what_is_kept_already_costs_nothing(mock: MockProcess, batches: Batches) -> None:
    """The same question at temperature 0: asked once, and given to every other line."""
    same = [row(f"row-{n}", "the same", model="cached", temperature=0) for n in range(30)]
    found = batches.until(batches.begin(same[:1]))
    assert found["tiergate"]["spent_usd"] > 0
    batch = batches.begin(same)
    found = batches.until(batch)
    assert found["tiergate"]["cache_hits"] == found["request_counts"]["completed"] == 30
    assert (found["tiergate"]["spent_usd"], found["usage"]["total_tokens"]) == (0, 0)
    rows = batches.answers(batch)
    assert {one["tiergate"]["cost_usd"] for one in rows} == {0}
    assert len({one["response"]["body"]["choices"][0]["message"]["content"] for one in rows}) == 1
    assert len(calls_of(mock, "cached")) == 1


def test_lines_that_ask_the_same_at_one_time_share_an_answer(mock: MockProcess, batches: Batches) -> None:
    """Nobody has asked before; all of them together are asked once."""
    before = len(calls_of(mock, "cached"))
    batch = batches.begin([row(f"row-{n}", "new", model="cached", temperature=0) for n in range(30)])
    found = batches.until(batch)
    assert (found["request_counts"]["completed"], found["tiergate"]["cache_hits"]) == (30, 29)
    assert len(calls_of(mock, "cached")) == before + 1


def test_a_budget_stops_a_batch_and_a_higher_one_lets_it_go_on(mock: MockProcess, tmp_path: Path) -> None:
    """It says how much of what is gone; what was answered before is kept, what was not is asked then."""
    with GatewayProcess(tmp_path, settings(mock)) as gateway:
        batches = Batches(gateway, KEY)
        batch = batches.begin(rows_of(60, max_tokens=10), budget_usd=0.02)
        found = batches.until(batch, "stopped")
        assert (found["status"], found["tiergate"]["reason"]) == ("in_progress", "budget")
        assert "$0.02" in found["tiergate"]["message"]
        assert found["tiergate"]["held_usd"] == 0
        done = found["request_counts"]["completed"]
        assert 0.018 <= found["tiergate"]["spent_usd"] <= 0.02 and done == 24
        assert len(batches.answers(batch)) == done
        gateway.stop()
        gateway.start()
        assert batches.look(batch)["tiergate"]["state"] == "stopped"
        batches.change(batch, budget_usd=1)
        found = batches.until(batch)
        assert (found["status"], found["request_counts"]["completed"]) == ("completed", 60)
        assert ids(batches.answers(batch)) == [f"row-{n}" for n in range(1, 61)]
        entries = entries_of(gateway, batch)
    assert len([one for one in entries if one.attempts]) == 60
    assert spent_usd(entries) == pytest.approx(60 * 8 * PER_TOKEN_USD)


def test_a_thousand_in_flight_never_pass_the_cap(mock: MockProcess, tmp_path: Path) -> None:
    """Answers of very different lengths, a worst case far above the mean: nine tenths of the cap are used."""
    cap_usd = 5.0
    with GatewayProcess(tmp_path, settings(mock)) as gateway:
        batches = Batches(gateway, KEY)
        # A thousand worst cases of $0.0048 fit under it; answers cost a sixth of that on the average.
        rows = rows_of(12_000, model="wide", max_tokens=48)
        batch = batches.begin(rows, budget_usd=cap_usd, concurrency=1_000)
        most = 0

        def stopped() -> Any:
            nonlocal most
            found = batches.look(batch)
            most = max(most, found["tiergate"]["in_flight"])
            is_over = found["tiergate"]["state"] in ("stopped", "completed")
            return found if is_over and found["tiergate"]["limit"] is None else None

        found = until(stopped, timeout_s=120, what="its end")
        ours = found["tiergate"]
        entries = entries_of(gateway, batch)
    total = spent_usd(entries)
    done = found["request_counts"]["completed"]
    print(f"used {total / cap_usd:.4f} of the cap with {done} answers, {most} lines in flight at most")
    assert most > 900
    assert (ours["state"], ours["reason"]) == ("stopped", "budget")
    assert 0.9 * cap_usd <= total <= cap_usd
    assert ours["spent_usd"] == pytest.approx(total, abs=1e-9)
    assert Counter(entry.line for entry in entries if entry.attempts).most_common(1)[0][1] == 1


# Order, estimates, the end of a window.


def alike(n: int) -> dict[str, Any]:
    """Give a line whose prompt begins as those of every other line do."""
    beginning = ("a short one " * 40, "a long one " * 400)[n % 2]
    messages = [{"role": "system", "content": beginning}, {"role": "user", "content": f"question {n}"}]
    return {**row(f"row-{n}"), "body": {"model": "alike", "messages": messages}}


@pytest.mark.parametrize("by_prefix", [True, False])
def test_lines_that_begin_alike_are_asked_one_after_the_other(
    batches: Batches, mock: MockProcess, *, by_prefix: bool
) -> None:
    """If that is wished; the output is in the order of the input all the same."""
    before = len(calls_of(mock, "alike"))
    rows = [alike(n) for n in range(1, 21)]
    batch = batches.begin(rows, concurrency=1, by_prefix=by_prefix)
    batches.until(batch)
    sizes = [one["body_bytes"] > 2_000 for one in calls_of(mock, "alike")[before:]]
    changes = sum(one is not other for one, other in pairwise(sizes))
    assert len(sizes) == 20 and changes == (1 if by_prefix else 19)
    assert [one["custom_id"] for one in batches.answers(batch)] == [f"row-{n}" for n in range(1, 21)]


def test_an_estimate_says_how_likely_a_budget_is_met(batches: Batches) -> None:
    """Between never and surely where the budget is in the middle of what it may cost."""
    bodies = [row("", f"question {n}", model="tail", max_tokens=200)["body"] for n in range(50)]

    def estimate(budget_usd: float | None = None) -> Any:
        budget = {} if budget_usd is None else {"budget_usd": str(budget_usd)}
        return batches.post("batches/estimate", {"bodies": bodies, "lines": 50, **budget})

    cost = estimate()["cost_usd"]
    assert cost["low"] < cost["middle"] < cost["high"]
    chances = [
        estimate(budget)["chance_within_budget"]
        for budget in (cost["low"] / 4, cost["middle"], cost["high"] * 4)
    ]
    assert chances[0] == 0 and 0.2 < chances[1] < 0.8 and chances[2] == 1


@pytest.mark.skipif(not PATIENT, reason="TIERGATE_PATIENT=1 waits for the minute that a window has at least")
def test_what_is_not_asked_within_the_window_expires(batches: Batches, mock: MockProcess) -> None:
    """What is answered is kept; the rest has a row that says so, and can be asked again."""
    before = len(calls_of(mock, "slow"))
    batch = batches.begin(rows_of(700, model="slow"), window="1m", concurrency=1)
    found = batches.until(batch, timeout_s=90)
    counts = found["request_counts"]
    assert found["status"] == "expired" and 200 < counts["completed"] < 500
    assert counts["completed"] == len(calls_of(mock, "slow")) - before
    errors = batches.errors(batch)
    assert len(errors) == 700 - counts["completed"] and {code_of(one) for one in errors} == {"batch_expired"}
    assert len(batches.answers(batch)) == counts["completed"]
