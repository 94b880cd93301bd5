"""Killed at each point of a call's life: the ledger never says less than what can have been spent.

    held        the hold is committed, the provider does not take the connection
    asked       the provider has the question and has said nothing
    answering   the first words have reached the caller
    answered    the caller has the whole answer; its settlement is on its way to the disk
    settled     its settlement is on the disk

And inside of a transaction, between any two of its statements.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from flow.plain_http import Connection, request
from house import GatewayProcess, calls_of, cli, until
from places import Places
from tiergate.testing import MockProcess

CHAT = "/v1/chat/completions"
SCRIPT = """
default: {words: 5, ttft_ms: 1}
rules:
  - {when: {model: asked}, then: {hang: true}}
  - {when: {model: answering}, then: {words: 400, tokens_per_s: 20}}
"""
POINTS = ("held", "asked", "answering", "answered", "settled")


@pytest.fixture(scope="module")
def mock() -> Iterator[MockProcess]:
    with MockProcess(SCRIPT) as process:
        yield process


@pytest.fixture(scope="module")
def deaf() -> Iterator[str]:
    """A server whose queue of connections is full, so that nobody comes to be heard."""
    with socket.socket() as listener, socket.socket() as first:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        first.connect(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"


def settings(mock: MockProcess, deaf: str, store: str | None) -> dict[str, Any]:
    provider = {name: "deaf" if name == "held" else "dear" for name in POINTS}
    return {
        "store": store,
        "secret": "the same at every start, 32 characters or more",
        "providers": {"dear": {"base_url": mock.base_url}, "deaf": {"base_url": deaf}},
        "models": {name: {"targets": [f"{provider[name]}/{name}"]} for name in POINTS},
        "prices": [
            {"target": f"{provider[name]}/{name}", "usd_per_1m": {"input": 0, "output": 1000}}
            for name in POINTS
        ],
        "budgets": [{"scope": "all", "usd": 100}],
    }


def entry_of(gateway: GatewayProcess, model: str) -> dict[str, Any] | None:
    said = cli("entries", "list", "--model", model, "--json", folder=gateway.folder)
    found = json.loads(said.stdout)["data"] if said.returncode == 0 else []
    return found[0] if found else None


def come_to(point: str, gateway: GatewayProcess, mock: MockProcess, stack: ExitStack) -> None:
    """Make a call, and return when it has come to this point."""
    before = len(calls_of(mock, point))
    question = {"model": point, "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]}
    connection = stack.enter_context(Connection(gateway.port))
    connection.send(request(CHAT, {**question, "stream": point == "answering"}))
    match point:
        case "held":
            until(lambda: entry_of(gateway, point), what="the hold")
        case "asked":
            until(lambda: len(calls_of(mock, point)) > before, what="the question")
        case "answering":
            connection.read_until(b"data:")
        case "settled":
            until(lambda: (entry_of(gateway, point) or {"end": None})["end"] == "success", what="the end")
        case _:
            assert connection.read_answer().status == 200


def test_a_kill_at_each_point_of_a_call(places: Places, mock: MockProcess, deaf: str, tmp_path: Path) -> None:
    """One end, one attempt, and charged at the worst case where nobody knows better."""
    gateway = GatewayProcess(tmp_path / "gateway", settings(mock, deaf, places.new().store))
    with gateway, ExitStack() as stack:
        for point in POINTS:
            come_to(point, gateway, mock, stack)
        gateway.stop(signal.SIGKILL)
        gateway.start()
        entries = {point: entry_of(gateway, point) for point in POINTS}
        budgets = json.loads(cli("report", "budgets", "--json", folder=gateway.folder).stdout)["data"]
    costs = {}
    for point, entry in entries.items():
        assert entry is not None, point
        (attempt,) = entry["attempts"]
        may_be = {("lapsed", "lapsed")} if point != "settled" else set()
        may_be |= {("success", "settled")} if point in ("answered", "settled") else set()
        assert (entry["end"], attempt["state"]) in may_be, point
        costs[point] = attempt["cost_usd"]
        assert costs[point] == (0.005 if attempt["state"] == "settled" else 0.05)
    (budget,) = budgets
    assert (budget["spent_usd"], budget["held_usd"]) == (round(sum(costs.values()), 9), 0)


# Inside of a transaction.

_WRITING = """
import os, signal, sys
from pathlib import Path
from msgspec import structs
from contract.ledger_records import closed, held, opened, settled
from contract.test_receipts import MAKER
from tiergate.core import EndState
from tiergate.ledger import Kept
from tiergate.store.books import Batch
from tiergate.store.rows import call_row, close_row, freed_row, hold_row, kept_row, receipt_row, settle_row
from tiergate.store.sqlite import open_books

class Dying:
    "A session whose process dies before its nth statement of the second batch."

    def __init__(self, session):
        self._session = session
        self.left = None

    def _count(self):
        if self.left is not None:
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            self.left -= 1

    def run(self, *arguments):
        self._count()
        return self._session.run(*arguments)

    def many(self, *arguments):
        self._count()
        return self._session.many(*arguments)

    def rows(self, *arguments):
        self._count()
        return self._session.rows(*arguments)

    def __getattr__(self, name):
        return getattr(self._session, name)

def asking(number):
    call = structs.replace(opened(number).call, idempotency_key=f"k{number}")
    return structs.replace(opened(number), receipt=MAKER.receipt(call, b"{}", kept_s=3600))

def batch(numbers, done):
    return Batch(
        calls=[call_row(asking(n), 1) for n in numbers],
        holds=[hold_row(held(n, opened=asking(n)), 1) for n in numbers],
        receipts=[receipt_row(asking(n), asking(n).receipt, 1) for n in numbers],
        settlements=[settle_row(settled(n), 1) for n in done],
        kept=[kept_row(settled(n, kept=Kept(reply=b"answer")), 1) for n in done],
        ends=[close_row(closed(n, opened=asking(n)), 1) for n in done],
        freed=[freed_row(closed(n, opened=asking(n), end=EndState.FAILED), 1) for n in done],
    )

books = open_books(Path(sys.argv[1]), owner_id="dying", now_ns=1)
books.session = session = Dying(books.session)
books.write(lambda: batch([1, 2, 3], []))
session.left = int(sys.argv[2])
books.write(lambda: batch([4, 5], [1, 2]))
print("survived")
"""


def died_before(statement: int, ledger: Path) -> bool:
    """Let a process write two batches, and die before a statement of the second; False: it has fewer."""
    tests = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", _WRITING, str(ledger), str(statement)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent / "src")])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL or "survived" in done.stdout, done.stderr
    return "survived" not in done.stdout


def test_a_batch_is_there_or_not_whichever_statement_is_the_last(sqlite_places: Places) -> None:
    """All of its holds, settlements, ends and receipts; the batch before it is whole."""
    statement = 0
    while True:
        kept = sqlite_places.new()
        kept.folder.mkdir()
        died = died_before(statement, kept.folder / "ledger.db")
        rows = {row[0]: row[1:] for row in kept.rows("SELECT call_id, hold_state FROM attempt")}
        ends = kept.rows("SELECT count(*) FROM call WHERE end_state = 'success'")[0][0]
        receipts = sorted(state for (state,) in kept.rows("SELECT state FROM receipt"))
        if not died:
            assert (len(rows), ends) == (5, 2)
            assert receipts == ["done", "done", "running", "running", "running"]
            break
        assert (len(rows), ends) == (3, 0), statement
        assert set(rows.values()) == {("held",)}
        assert receipts == ["running"] * 3
        statement += 1
    assert statement >= 8
