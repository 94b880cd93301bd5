"""Batches in trouble: poisonous lines, providers that fail, throttle or refuse, a gateway that is stopped.

`TIERGATE_PATIENT=1 pytest tests/faults/test_batches.py` also waits until a pause ends by itself, about a
minute.
"""

import json
import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from batches import FORM, Batches, check_rows, code_of, form, row, rows_of
from flow.plain_http import ask
from house import NO_BREAKERS, GatewayProcess, calls_of, until
from tiergate.core import EndState
from tiergate.testing import MockProcess

QUICK = {"default": {"words": 4, "ttft_ms": 1}}
PATIENT = "TIERGATE_PATIENT" in os.environ
LEFT_ALONE_S = 65
"""So long a provider is left alone that a batch is parked for it."""


@contextmanager
def mock_of(script: dict[str, Any], port: int = 0) -> Iterator[MockProcess]:
    with MockProcess(json.dumps({**QUICK, **script}), port=port) as process:
        yield process


def settings(base_url: str, **more: Any) -> dict[str, Any]:
    return {
        "providers": {"main": {"base_url": base_url, "api_keys": ["sk-main-0123456789"]}},
        "models": {"*": {"targets": ["main/*"]}},
        "resilience": NO_BREAKERS,
        **more,
    }


def port_of(mock: MockProcess) -> int:
    return int(mock.url.rpartition(":")[2])


def chat(gateway: GatewayProcess, model: str = "m") -> int:
    return ask(gateway.port, "/v1/chat/completions", row("", "live", model=model)["body"]).status


def names(count: int) -> list[str]:
    return [f"row-{n}" for n in range(1, count + 1)]


# F45: one line is poison.

POISON: dict[str, dict[str, Any]] = {
    "protocol": {"body": "[" * 5_000},
    "cut": {"truncate_json": True},
    "page": {"html": True},
    "nothing": {"empty": True},
    "garbage": {"garbage": 500},
    "lies": {"usage": {"prompt_tokens": -1, "completion_tokens": "many"}},
    "refused": {"status": 422, "body": '{"error": {"message": {"a": [null]}, "code": [1], "param": {}}}'},
}


@pytest.fixture(scope="module", autouse=True)
def poisoned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[GatewayProcess, str, MockProcess]]:
    """A batch with lines on which its provider breaks in every way; it tries them while others are tried."""
    rules = [{"when": {"model": name}, "then": then} for name, then in POISON.items()]
    lines = [row(name, "poison", model=name) for name in POISON]
    with (
        mock_of({"rules": rules}) as mock,
        GatewayProcess(tmp_path_factory.mktemp("poison"), settings(mock.base_url)) as gateway,
    ):
        yield gateway, Batches(gateway).begin([*rows_of(15), *lines, row("last")]), mock


def test_f45_a_line_that_was_spoiled_on_the_disk_is_a_row(tmp_path: Path) -> None:
    """F45: what was a good line when the input was read, and is none when it is to be asked."""
    slow = {"default": {"words": 4, "ttft_ms": 100}}
    with mock_of(slow) as mock, GatewayProcess(tmp_path, settings(mock.base_url)) as gateway:
        batches = Batches(gateway)
        batch = batches.begin(rows_of(120), concurrency=1)
        batches.until_done(batch, 1)
        (file,) = (gateway.data_dir / "jobs" / "files").iterdir()
        with file.open("r+b") as text:
            lines = text.read().splitlines(keepends=True)
            text.seek(sum(map(len, lines[:100])))
            text.write(b"\0" * len(lines[100]))
        batches.change(batch, concurrency=100)
        found = batches.until(batch)
        assert found["request_counts"] == {"total": 120, "completed": 119, "failed": 1}
        (failed,) = batches.errors(batch)
        assert (failed["error"]["code"], failed["tiergate"]["n"]) == ("invalid_line", 101)


# The provider is in trouble.


def test_an_outage_costs_nothing_but_time(tmp_path: Path) -> None:
    """Nobody listens for some seconds: nothing fails, no try is used up by it, and nothing is asked twice."""
    quickly = {"resilience": {"breaker": {"open_s": 1, "open_max_s": 1, "in_a_row": 3}}}
    script = {"default": {"words": 4, "ttft_ms": 100}}
    with MockProcess(json.dumps(script)) as mock:
        port = port_of(mock)
        with GatewayProcess(tmp_path, settings(mock.base_url, **quickly)) as gateway:
            batches = Batches(gateway)
            batch = batches.begin(rows_of(60), concurrency=8)
            batches.until_done(batch, 8)
            mock.close()
            found = until(lambda: asked_again(batches, batch, "outage"), what="the outage")
            assert found["tiergate"]["state"] in ("running", "parked")
            time.sleep(2)
            before = batches.look(batch)["request_counts"]
            assert before["completed"] < 60 and before["failed"] == 0
            with MockProcess(json.dumps(script), port=port) as again:
                found = batches.until(batch, timeout_s=40)
                assert found["request_counts"] == {"total": 60, "completed": 60, "failed": 0}
                check_rows(batches, batch, names(60))
                answered = answered_lines(gateway, batch)
                assert len(answered) == len(set(answered)) == 60
                assert len(calls_of(again, "m")) <= 60 - before["completed"] + 3


def test_a_parked_batch_says_why_and_until_when(tmp_path: Path) -> None:
    """Nobody is asked meanwhile, no try is used up, a restart knows of it; then it goes on where it was."""
    alone = {"resilience": {"breaker": {"in_a_row": 3, "open_s": LEFT_ALONE_S}}}
    with MockProcess(json.dumps(QUICK)) as mock:
        port, url = port_of(mock), mock.base_url
    with GatewayProcess(tmp_path, settings(url, **alone)) as gateway:
        batches = Batches(gateway)
        batch = batches.begin(rows_of(40), concurrency=8)
        found = batches.until(batch, "parked")
        assert (found["status"], found["tiergate"]["reason"]) == ("in_progress", "outage")
        assert found["request_counts"] == {"total": 40, "completed": 0, "failed": 0}
        ends_at = datetime.fromisoformat(found["tiergate"]["until"]).timestamp()
        assert 0.6 * LEFT_ALONE_S < ends_at - time.time() < 1.3 * LEFT_ALONE_S
        with mock_of({}, port=port) as mock:
            if PATIENT:
                batches.until(batch, timeout_s=2 * LEFT_ALONE_S)
                assert min(one["at_s"] for one in calls_of(mock, "m")) >= ends_at - 1
            else:
                gateway.stop()
                gateway.start()
                time.sleep(0.3)
                assert batches.look(batch)["tiergate"]["until"] == found["tiergate"]["until"]
                assert calls_of(mock, "m") == []
                batches.change(batch)
            found = batches.until(batch)
            assert found["request_counts"] == {"total": 40, "completed": 40, "failed": 0}
            check_rows(batches, batch, names(40))
            assert len(calls_of(mock, "m")) == 40


def asked_again(batches: Batches, batch: str, word: str) -> Any:
    found = batches.look(batch)
    return found if found["tiergate"]["asked_again"].get(word) else None


def answered_lines(gateway: GatewayProcess, batch: str) -> list[int]:
    """Stop the gateway; give the lines of the calls that were answered."""
    return [
        entry.line or 0
        for entry in gateway.check_books()
        if entry.job == batch and entry.end is EndState.SUCCESS
    ]


def test_a_refused_credential_stops_a_batch_at_once(tmp_path: Path) -> None:
    """Few calls meet it; it says which key, stays so over a restart, and goes on once somebody says so."""
    refused = {"rules": [{"when": {}, "then": {"status": 401}}]}
    with mock_of(refused) as mock:
        port = port_of(mock)
        with GatewayProcess(tmp_path, settings(mock.base_url)) as gateway:
            batches = Batches(gateway)
            batch = batches.begin(rows_of(200), concurrency=100)
            found = batches.until(batch, "stopped")
            assert (found["status"], found["tiergate"]["reason"]) == ("in_progress", "credential")
            assert "6789" in found["tiergate"]["message"] and found["request_counts"]["failed"] == 0
            met = len(calls_of(mock, "m"))
            assert met <= 10
            time.sleep(0.5)
            assert len(calls_of(mock, "m")) == met
            gateway.stop()
            gateway.start()
            assert batches.look(batch)["tiergate"]["reason"] == "credential"
            assert len(calls_of(mock, "m")) == met
            mock.close()
            with mock_of({}, port=port):
                batches.change(batch)
                assert batches.until(batch)["request_counts"]["completed"] == 200
                check_rows(batches, batch, names(200))


def test_a_rate_that_is_told_is_obeyed(tmp_path: Path) -> None:
    """429 with a wait, again and again: all is answered, and nobody comes back sooner than he was told."""
    busy = {"status": 429, "headers": {"retry-after-ms": 1000, "retry-after": 1}}
    rules = [{"when": {"nth": [*range(20, 24), *range(60, 64)]}, "then": busy}]
    more = {"resilience": {**NO_BREAKERS, "attempts": 1}}
    with (
        mock_of({"rules": rules}) as mock,
        GatewayProcess(tmp_path, settings(mock.base_url, **more)) as gateway,
    ):
        batches = Batches(gateway)
        batch = batches.begin(rows_of(120), concurrency=8)
        found = batches.until(batch)
        assert found["request_counts"] == {"total": 120, "completed": 120, "failed": 0}
        assert len(calls_of(mock, "m")) == 128
        check_rows(batches, batch, names(120))
        entries = [entry for entry in gateway.check_books() if entry.job == batch]
    tries: dict[int, list[Any]] = {}
    for entry in sorted(entries, key=lambda one: one.received_ns):
        tries.setdefault(entry.line or 0, []).append(entry)
    again = [found for found in tries.values() if len(found) > 1]
    assert len(again) == 8
    for first, second in again:
        assert second.received_ns - first.received_ns >= 1e9


def test_a_saturated_provider_still_has_room_for_live_calls(tmp_path: Path) -> None:
    """A batch fills every place that it may have; calls of people come in between, and quickly."""
    provider = {"base_url": "", "limits": {"concurrency": 8}}
    script = {"default": {"words": 4, "ttft_ms": 100}}
    with MockProcess(json.dumps(script)) as mock:
        provider["base_url"] = mock.base_url
        written = {**settings(mock.base_url), "providers": {"main": provider}}
        with GatewayProcess(tmp_path, written) as gateway:
            batches = Batches(gateway)
            batch = batches.begin(rows_of(400), concurrency=200)
            batches.until_done(batch, 16)
            took = []
            for _ in range(5):
                begin = time.monotonic()
                assert chat(gateway) == 200
                took.append(time.monotonic() - begin)
            found = batches.look(batch)
            assert found["request_counts"]["completed"] < 400 and found["request_counts"]["failed"] == 0
            assert sorted(took)[2] < 1.0, took
            batches.post(f"batches/{batch}/cancel")
            batches.until(batch)
            check_rows(batches, batch, names(400))


# The gateway is in trouble, or is told something.


def test_f36_a_gateway_that_is_stopped_lets_its_batch_rest(tmp_path: Path) -> None:
    """F36: what is asked is finished within the drain, the next start goes on: nothing is asked twice."""
    script = {"default": {"words": 4, "ttft_ms": 200}}
    with MockProcess(json.dumps(script)) as mock:
        gateway = GatewayProcess(tmp_path, settings(mock.base_url), drain_s=5)
        with gateway:
            batches = Batches(gateway)
            batch = batches.begin(rows_of(80), concurrency=16)
            batches.until_done(batch, 16)
            begin = time.monotonic()
            assert gateway.stop() == 0
            assert time.monotonic() - begin < 5
            asked = len(calls_of(mock, "m"))
            gateway.start()
            found = batches.until_done(batch, 1)
            assert found["request_counts"]["completed"] >= asked
            found = batches.until(batch)
            assert (found["request_counts"]["completed"], found["tiergate"]["interrupted"]) == (80, 0)
            assert len(calls_of(mock, "m")) == 80
            check_rows(batches, batch, names(80))


def test_f36_what_takes_longer_than_the_drain_is_asked_again(tmp_path: Path) -> None:
    """F36: the process ends in time all the same, well, and only those lines are asked a second time."""
    script = {"default": {"words": 4}, "rules": [{"when": {"first": 6}, "then": {"ttft_ms": 20_000}}]}
    with MockProcess(json.dumps(script)) as mock:
        gateway = GatewayProcess(tmp_path, settings(mock.base_url), drain_s=1)
        with gateway:
            batches = Batches(gateway)
            batch = batches.begin(rows_of(30), concurrency=6)
            until(lambda: len(calls_of(mock, "m")) == 6, what="the first lines")
            begin = time.monotonic()
            assert gateway.stop() == 0
            assert time.monotonic() - begin < 3
            gateway.start()
            found = batches.until(batch)
            assert (found["request_counts"]["completed"], found["tiergate"]["interrupted"]) == (30, 0)
            assert len(calls_of(mock, "m")) == 36
            check_rows(batches, batch, names(30))


def test_a_reload_in_the_middle_moves_a_batch_to_other_targets(tmp_path: Path) -> None:
    """Lines that are asked stay where they are, others go by the new settings; a bad file changes nothing."""
    slow = {"default": {"words": 4, "ttft_ms": 100}}
    with (
        mock_of(slow) as first,
        mock_of(slow) as second,
        GatewayProcess(tmp_path, settings(first.base_url)) as gateway,
    ):
        batches = Batches(gateway)
        batch = batches.begin(rows_of(100), concurrency=4)
        batches.until_done(batch, 8)
        gateway.write_text("providers: [")
        assert gateway.reload()["event"] == "reload_refused"
        batches.until_done(batch, 16)
        gateway.write(settings(second.base_url))
        assert gateway.reload()["event"] == "reloaded"
        asked = len(calls_of(first, "m"))
        batches.change(batch, concurrency=50)
        found = batches.until(batch)
        assert found["request_counts"] == {"total": 100, "completed": 100, "failed": 0}
        assert len(calls_of(first, "m")) <= asked + 1
        assert len(calls_of(first, "m")) + len(calls_of(second, "m")) == 100
        check_rows(batches, batch, names(100))


def test_a_full_disk_keeps_answers_until_there_is_room(tmp_path: Path) -> None:
    """Answers are kept and written later, nothing is paid twice; an upload is told that there is no room."""
    script = {"default": {"words": 20_000, "ttft_ms": 1}}
    with MockProcess(json.dumps(script)) as mock:
        more = {"cache": {"exact": {"when": "never"}}}
        with GatewayProcess(tmp_path, settings(mock.base_url, **more)) as gateway:
            batches = Batches(gateway)
            limit_files(gateway, 1_500_000)
            refused = batches.ask("files", form(b"x" * 3_000_000), headers=[FORM])
            assert (refused.status, refused.error["code"]) == (503, "storage_unavailable")
            assert list((gateway.data_dir / "jobs" / "files").glob("*")) == []
            batch = batches.begin(rows_of(40), concurrency=4)
            until(lambda: asked_again(batches, batch, "storage"), what="the full disk")
            full = batches.until_done(batch, 1)["request_counts"]
            assert 0 < full["completed"] < 40 and full["failed"] == 0
            limit_files(gateway, resource.RLIM_INFINITY)
            found = batches.until(batch)
            assert found["request_counts"] == {"total": 40, "completed": 40, "failed": 0}
            assert len(calls_of(mock, "m")) == 40
            check_rows(batches, batch, names(40))


def limit_files(gateway: GatewayProcess, size: int) -> None:
    """Let no file of a process grow beyond a size: for whoever writes, that is a full disk."""
    resource.prlimit(gateway.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def test_f45_a_line_that_nobody_can_answer_takes_no_other_along(
    poisoned: tuple[GatewayProcess, str, MockProcess],
) -> None:
    """F45: it has its row, and so has every other line; looked at last, since it is tried some times."""
    gateway, batch, mock = poisoned
    batches = Batches(gateway)
    found = batches.until(batch, timeout_s=60)
    assert found["request_counts"] == {"total": 23, "completed": 17, "failed": 6}
    check_rows(batches, batch, [*names(15), *POISON, "last"])
    told = {one["custom_id"]: code_of(one) for one in batches.errors(batch)}
    assert told.pop("refused") not in ("", "internal_error")
    assert set(told.values()) == {"upstream_protocol_error"}
    assert max(len(calls_of(mock, name)) for name in POISON) <= 9
    assert not gateway.log('"bug"')
