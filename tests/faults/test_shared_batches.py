"""Batches that several replicas work: how lines are shared out, and what becomes of one that dies."""

import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from admin import admin
from batches import FORM, Batches, check_rows, code_of, form, ids, rows_in, rows_of, written
from house import NO_BREAKERS, GatewayProcess, calls_of, cli, environment, nursery, until
from postgres import Server, run
from tiergate.testing import MockProcess

SCRIPT = """
default: {words: 3, ttft_ms: 250}
rules:
  - {when: {model: hangs}, then: {hang: true}}
  - {when: {model: quick}, then: {words: 3, ttft_ms: 1}}
  - {when: {model: locked}, then: {status: 401}}
"""
MODELS = ("m", "hangs", "quick", "locked")
MINUTE_NS = 60_000_000_000


@pytest.fixture(scope="module")
def mock() -> Iterator[MockProcess]:
    with MockProcess(SCRIPT) as process:
        yield process


class Replicas:
    """Gateways on one database; `store` is its address."""

    def __init__(self, folder: Path, mock: MockProcess, store: str) -> None:
        self._folder = folder
        self._settings = {
            "store": store,
            "secret": "the same at every replica, 32 characters or more",
            "providers": {"dear": {"base_url": mock.base_url}},
            "models": {name: {"targets": [f"dear/{name}"]} for name in MODELS},
            "prices": [
                {"target": f"dear/{name}", "usd_per_1m": {"input": 0, "output": 1000}} for name in MODELS
            ],
            "resilience": NO_BREAKERS,
        }
        self.store = store

    def settled(self, name: str) -> Path:
        """Give a folder with settings, in which no gateway runs."""
        return GatewayProcess(self._folder / name, self._settings).folder

    @contextmanager
    def started(self, *names: str) -> Iterator[list[GatewayProcess]]:
        found = [GatewayProcess(self._folder / name, self._settings) for name in names]
        try:
            for one in found:
                one.start()
            yield found
        finally:
            for one in found:
                if not one.has_ended():
                    one.signal(signal.SIGCONT)
                    one.stop(signal.SIGKILL)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return run(self.store, sql)

    def askers(self, batch: str) -> Counter[int]:
        """Count the calls of a batch by the owners that made them."""
        return Counter(
            dict(self.rows(f"SELECT owner_epoch, count(*) FROM call WHERE job_id = '{batch}' GROUP BY 1"))
        )  # type: ignore[arg-type]  # what SQL counts

    def bury(self, epoch: int) -> None:
        """Let time pass, in which one owner was silent and the others were not; wait for its burial."""
        self.rows(f"UPDATE owner SET heartbeat_ns = heartbeat_ns - {MINUTE_NS} WHERE epoch = {epoch}")
        self.rows(f"UPDATE owner SET steady_ns = steady_ns - {MINUTE_NS} WHERE epoch <> {epoch}")
        until(
            lambda: self.rows(f"SELECT 1 FROM owner WHERE epoch = {epoch} AND state = 'dead'"),
            timeout_s=20,
            what="the burial",
        )

    def epochs(self) -> list[int]:
        """Give the owners that are alive, the first that came first."""
        return [
            epoch for (epoch,) in self.rows("SELECT epoch FROM owner WHERE state = 'alive' ORDER BY epoch")
        ]

    def check_money(self, batch: str) -> None:
        """See that each line was paid for once by an answer, and that what was spent is what calls cost."""
        settled = self.rows(
            f"SELECT line_n, count(*) FROM call JOIN attempt ON call_id = id "
            f"WHERE job_id = '{batch}' AND hold_state = 'settled' AND outcome = 'success' GROUP BY 1"
        )
        assert all(count == 1 for _, count in settled), settled
        assert self.rows("SELECT count(*) FROM attempt WHERE hold_state = 'held'") == [(0,)]


@pytest.fixture
def replicas(mock: MockProcess, postgres_server: Server, tmp_path: Path) -> Iterator[Replicas]:
    with postgres_server.schema() as store:
        yield Replicas(tmp_path, mock, store)


def names(count: int) -> list[str]:
    return [f"row-{n}" for n in range(1, count + 1)]


def test_two_replicas_work_one_batch(replicas: Replicas) -> None:
    """Each line once, its concurrency shared out; either tells all of it, and has all answers."""
    with replicas.started("one", "two") as (one, two):
        first, second = Batches(one), Batches(two)
        batch = first.begin(rows_of(160), concurrency=8)
        until(lambda: len(replicas.askers(batch)) == 2, timeout_s=20, what="the second one")
        shared = until(
            lambda: (look := second.look(batch)["tiergate"])["limited_by"] == "shared by 2 replicas" and look,
            what="both at work",
        )
        assert 0 < shared["in_flight"] <= 9
        ended = second.until(batch)
        assert ended["request_counts"] == {"total": 160, "completed": 160, "failed": 0}
        check_rows(first, batch, names(160))
        assert first.answers(batch) == second.answers(batch)
        assert first.look(batch)["tiergate"]["spent_usd"] == ended["tiergate"]["spent_usd"] > 0
        askers = replicas.askers(batch)
        assert sum(askers.values()) == 160 and min(askers.values()) > 20
        replicas.check_money(batch)


def test_what_is_decided_at_one_replica_holds_at_all(replicas: Replicas) -> None:
    """Its end, while the other asks; and what stopped goes on from either."""
    with replicas.started("one", "two") as (one, two):
        first, second = Batches(one), Batches(two)
        batch = first.begin(rows_of(400), concurrency=4)
        # At once, before the second one has heard of it by itself.
        second.post(f"batches/{batch}/cancel")
        ended = first.until(batch)
        assert ended["status"] == "cancelled"
        assert ended["request_counts"]["total"] == 400
        assert {code_of(row) for row in second.errors(batch)} == {"batch_cancelled"}
        check_rows(second, batch, names(400))
        stopped = first.begin(rows_of(20, model="locked"))
        second.until(stopped, "stopped")
        assert second.post(f"batches/{stopped}/cancel")["id"] == stopped
        assert first.until(stopped)["status"] == "cancelled"


def test_a_budget_holds_over_replicas(replicas: Replicas) -> None:
    """Never above it, most of it used; the last one that has work says that it stopped, and more goes on."""
    with replicas.started("one", "two") as (one, two):
        first, second = Batches(one), Batches(two)
        row = rows_of(200, model="quick", max_tokens=5)
        batch = first.begin(row, concurrency=16, budget_usd=0.3)
        stopped = second.until(batch, "stopped", timeout_s=60)
        assert stopped["tiergate"]["reason"] == "budget"
        assert 0.27 <= float(stopped["tiergate"]["spent_usd"]) <= 0.3
        second.change(batch, budget_usd=9)
        ended = first.until(batch)
        assert ended["request_counts"]["completed"] == 200
        replicas.check_money(batch)


def test_a_replica_that_was_stopped_while_others_took_over_writes_nothing(
    replicas: Replicas, mock: MockProcess
) -> None:
    """F46: SIGSTOP, takeover, SIGCONT: no row twice, no money twice; what it asked is asked again, once."""
    with replicas.started("one", "two") as (one, two):
        first, second = Batches(one), Batches(two)
        old = replicas.epochs()[0]
        before = len(calls_of(mock, "m"))
        batch = first.begin(rows_of(150), concurrency=10)
        until(lambda: len(replicas.askers(batch)) == 2, timeout_s=20, what="the second one")
        one.signal(signal.SIGSTOP)
        replicas.bury(old)
        ended = second.until(batch, timeout_s=60)
        assert ended["request_counts"] == {"total": 150, "completed": 150, "failed": 0}
        answered = second.answers(batch)
        one.signal(signal.SIGCONT)
        lost = until(
            lambda: [line for line in one.log() if line["event"] == "batch_lost"], what="the old one's word"
        )
        assert "declared it dead" in lost[0]["message"]
        assert second.answers(batch) == answered and ids(answered) == names(150)
        again = len(calls_of(mock, "m")) - before - 150
        assert ended["tiergate"]["interrupted"] == again <= 10
        replicas.check_money(batch)
        lapsed = replicas.rows(
            f"SELECT count(*) FROM attempt WHERE hold_state = 'lapsed' AND owner_epoch = {old}"
        )
        assert lapsed == [(again,)]
        resent = replicas.rows(
            f"SELECT count(*) FROM call WHERE job_id = '{batch}' AND answer_of IS NOT NULL"
        )
        assert resent == [(again,)]
        # Whoever asks it is told; it writes nothing, and starts again as another owner.
        refused = first.ask("files", form(b"{}"), headers=[FORM])
        assert refused.status == 503 and "declared it dead" in refused.json["error"]["message"]
        one.stop(signal.SIGKILL)
        one.start()
        assert ids(Batches(one).answers(batch)) == names(150)


def test_a_replica_that_is_killed_loses_no_line(replicas: Replicas, mock: MockProcess) -> None:
    """Those that it asked are asked by another, those that it had spooled are not, and it comes back."""
    with replicas.started("one", "two") as (one, two):
        first = Batches(one)
        before = len(calls_of(mock, "m"))
        batch = first.begin(rows_of(200), concurrency=10)
        until(lambda: len(replicas.askers(batch)) == 2, timeout_s=20, what="the second one")
        for _ in range(2):
            first.until_done(batch, 20)
            one.stop(signal.SIGKILL)
            # Whoever comes back to its data folder buries it at once.
            one.start()
        two.stop(signal.SIGKILL)
        two.start()
        ended = Batches(two).until(batch, timeout_s=60)
        assert ended["request_counts"] == {"total": 200, "completed": 200, "failed": 0}
        check_rows(Batches(one), batch, names(200))
        again = len(calls_of(mock, "m")) - before - 200
        assert again <= ended["tiergate"]["interrupted"] <= 3 * 10
        replicas.check_money(batch)


def test_a_batch_whose_input_is_being_read_is_taken_over(replicas: Replicas) -> None:
    """By whoever is left, from its beginning."""
    with replicas.started("one", "two") as (one, two):
        old = replicas.epochs()[0]
        first, second = Batches(one), Batches(two)
        file_id = first.upload(rows_of(30_000, model="quick"))
        batch = first.post(
            "batches",
            {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h"},
        )["id"]
        until(lambda: replicas.rows("SELECT 1 FROM line LIMIT 1"), what="the first lines")
        one.signal(signal.SIGSTOP)
        assert replicas.rows("SELECT read_ns, reader_epoch FROM job") == [(None, old)]
        replicas.bury(old)
        found = until(
            lambda: (look := second.look(batch))["tiergate"]["state"] == "running" and look,
            timeout_s=60,
            what="its lines",
        )
        assert found["request_counts"]["total"] == 30_000
        counted = replicas.rows("SELECT count(*), min(n), max(n) FROM line")
        assert counted == [(30_000, 1, 30_000)]
        second.post(f"batches/{batch}/cancel")
        second.until(batch, timeout_s=60)


def test_an_erasure_at_one_replica_leaves_nothing_at_all(replicas: Replicas) -> None:
    """Neither lines nor files, while the other is asking; it goes on with other things."""
    with replicas.started("one", "two") as (one, two):
        first = Batches(one)
        batch = first.begin(rows_of(300), concurrency=6)
        until(lambda: len(replicas.askers(batch)) == 2, timeout_s=20, what="the second one")
        assert admin(two, "/api/erase", body={"key": "local"}).json["erased"]
        until(lambda: first.ask(f"batches/{batch}").status == 404, what="its end")
        for table in ("job", "line", "file", "file_part", "job_input"):
            assert replicas.rows(f"SELECT count(*) FROM {table}") == [(0,)], table
        until(lambda: not asking(one) and not asking(two), timeout_s=20, what="quiet")
        assert first.until(first.begin(rows_of(3, model="quick")))["status"] == "completed"
        assert [line["event"] for line in one.log() if line["event"] == "batch_failed"] == []


def test_a_command_without_a_gateway_is_a_replica_while_it_runs(
    replicas: Replicas, mock: MockProcess
) -> None:
    """It is killed, and the others finish; given again, it has only the answers to fetch."""
    with replicas.started("one") as (one,):
        folder = replicas.settled("two")
        before = len(calls_of(mock, "m"))
        (folder / "in.jsonl").write_bytes(written(rows_of(100)))
        command = ["batch", "run", "in.jsonl", "-o", "out.jsonl", "--concurrency", "8"]
        files = {name: folder / name for name in ("out", "err")}
        process = nursery().start(command, folder=folder, environ=environment(), **files)
        first = Batches(one)
        (batch,) = until(lambda: first.get("batches")["data"], timeout_s=20, what="the batch")
        until(lambda: len(replicas.askers(batch["id"])) == 2, timeout_s=20, what="both at work")
        process.kill()
        replicas.bury(replicas.epochs()[-1])
        ended = first.until(batch["id"])
        assert ended["request_counts"]["completed"] == 100
        asked = len(calls_of(mock, "m")) - before
        assert asked - 100 <= ended["tiergate"]["interrupted"] <= 9
        done = cli(*command, folder=folder)
        assert done.returncode == 0, done.stderr
        assert ids(rows_in((folder / "out.jsonl").read_bytes())) == names(100)
        assert len(calls_of(mock, "m")) - before == asked
        replicas.check_money(batch["id"])


def asking(gateway: GatewayProcess) -> float:
    """Give how many lines a gateway says that it asks."""
    text = admin(gateway, "/metrics").body.decode()
    (line,) = [line for line in text.splitlines() if line.startswith("tiergate_batch_lines_asked ")]
    return float(line.rpartition(" ")[2])
