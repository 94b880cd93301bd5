"""What the writing thread does in trouble, turn by turn and without a thread."""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from msgspec import structs

from contract.ledger_records import closed, held, opened, settled
from tiergate.core import EndState, Notice, StorageUnavailable, TiergateError, Usage
from tiergate.ledger import CallClosed, Entry, Held, HoldState, Kept, ReceiptMaker, Settled
from tiergate.store.books import Batch
from tiergate.store.inbox import (
    Answer,
    EndMessage,
    FlushMessage,
    HoldMessage,
    Inbox,
    SettleMessage,
    StopMessage,
)
from tiergate.store.reader import read_entries
from tiergate.store.rows import call_row, close_row, freed_row, hold_row, kept_row, receipt_row, settle_row
from tiergate.store.scribe import Scribe, Told
from tiergate.store.session import Lapsed, Place
from tiergate.store.sqlite import look_at, open_books
from tiergate.store.trouble import Trouble, Unwritten
from tiergate.testing import FakeClock

RECEIPT = ReceiptMaker("secret").receipt(
    structs.replace(opened(1).call, idempotency_key="k"), b"{}", kept_s=3600
)


class Desk:
    """A scribe with everything around it, to be told what to write and asked what it answered."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "ledger.db"
        self.books = open_books(self.path, owner_id="owner", now_ns=1)
        self.inbox = Inbox()
        self.notices: list[Notice] = []
        self.answers: dict[Answer, TiergateError | None] = {}
        self.loop = asyncio.new_event_loop()
        self.scribe = Scribe(
            self.books,
            self.inbox,
            self.books.checkpoints,
            tell=self._tell,
            notify=self.notices.append,
            clock=FakeClock(),
        )

    def _tell(self, told: Told) -> None:
        self.answers |= dict(told)

    def hold(self, record: Held, *, wait_s: float = 60.0) -> Answer:
        answer: Answer = self.loop.create_future()
        opened = record.opened
        receipt = None if opened.receipt is None else receipt_row(opened, opened.receipt, 1)
        until = time.monotonic() + wait_s
        self.inbox.put_awaited(HoldMessage(call_row(opened, 1), hold_row(record, 1), answer, until, receipt))
        return answer

    def put(self, record: Settled | CallClosed) -> None:
        if isinstance(record, Settled):
            self.inbox.put(SettleMessage(settle_row(record, 1), kept_row(record, 1)))
        else:
            self.inbox.put(EndMessage(close_row(record, 1), freed_row(record, 1)))

    def flush(self) -> Answer:
        answer: Answer = self.loop.create_future()
        self.inbox.put_awaited(FlushMessage(answer))
        return answer

    def stop(self, *, within_s: float) -> None:
        self.inbox.put_awaited(StopMessage(time.monotonic() + within_s))

    def words(self) -> list[str]:
        return [notice.word for notice in self.notices]

    def entries(self) -> list[Entry]:
        return read_entries(look_at(self.path), after=None, limit=1_000)

    def states(self) -> list[list[HoldState]]:
        return [[attempt.state for attempt in entry.attempts] for entry in self.entries()]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A scribe at an empty ledger."""
    found = Desk(tmp_path)
    yield found
    found.books.close()
    found.loop.close()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another program writes, and does not end."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


def test_all_that_waits_is_one_commit(desk: Desk) -> None:
    """Holds, settlements and ends that wait together are written together, and answered together."""
    answers = [desk.hold(held(number)) for number in range(1, 21)]
    for number in range(1, 21):
        desk.put(settled(number))
        desk.put(closed(number))
    flushed = desk.flush()
    desk.scribe.turn()

    assert desk.answers == dict.fromkeys([*answers, flushed])
    assert (desk.scribe.commits, desk.scribe.written) == (1, 60)
    assert {entry.end for entry in desk.entries()} == {EndState.SUCCESS}


def test_a_bad_record_takes_no_other_with_it(desk: Desk) -> None:
    """Of a batch with a bad hold only that one is refused; its companions are written."""
    desk.hold(held(1))
    desk.scribe.turn()
    good, again, other = desk.hold(held(2)), desk.hold(held(1)), desk.hold(held(3))
    desk.put(settled(1))
    desk.put(closed(1))
    desk.scribe.turn()

    assert (desk.answers[good], desk.answers[other]) == (None, None)
    assert isinstance(desk.answers[again], StorageUnavailable)
    assert desk.states() == [[HoldState.SETTLED], [HoldState.HELD], [HoldState.HELD]]
    assert desk.entries()[0].end is EndState.SUCCESS
    assert desk.scribe.finished == 6


def test_impossible_values_are_forced_into_range_and_told(desk: Desk) -> None:
    """A settlement cannot be refused: numbers of no ledger are cut to 64 bits, with a notice."""
    for number in (1, 2):
        desk.hold(held(number))
    desk.put(settled(1, usage=Usage(input=10**30, output=-4), cash_nanos=10**30))
    desk.put(settled(2))
    desk.put(closed(1))
    desk.scribe.turn()

    first, second = desk.entries()
    assert first.attempts[0].usage == Usage(input=10**15)
    assert first.attempts[0].cash_nanos == 10**15
    assert second.attempts[0].cash_nanos == 1_234_567
    assert desk.words() == ["ledger_value_forced"]


def test_half_a_character_from_a_caller_is_written_as_text(desk: Desk) -> None:
    """A lone surrogate in a model's name does not stop the call: it is spelled out."""
    answer = desk.hold(held(1, opened=opened(1, asked_model="gpt-\ud800")))
    desk.scribe.turn()

    assert desk.answers[answer] is None
    assert desk.entries()[0].asked_model == "gpt-\\ud800"


def test_a_locked_database_makes_holds_wait_and_loses_nothing(desk: Desk) -> None:
    """While another program writes, nothing is answered; when it ends, all is written in its order."""
    desk.hold(held(1))
    desk.scribe.turn()
    with locked(desk.path):
        waiting = desk.hold(held(2))
        desk.put(settled(1, cash_nanos=1))
        desk.put(settled(1, cash_nanos=2))
        desk.put(closed(1))
        desk.scribe.turn()
        desk.scribe.turn()
        assert waiting not in desk.answers
        assert desk.states() == [[HoldState.HELD]]
    desk.scribe.turn()

    assert desk.answers[waiting] is None
    assert desk.states() == [[HoldState.SETTLED], [HoldState.HELD]]
    assert desk.entries()[0].attempts[0].cash_nanos == 1
    assert desk.words() == []


def test_a_hold_waits_for_a_lock_only_so_long(desk: Desk) -> None:
    """Past its bound a hold is refused and never written; an operator is told, and told when it is over."""
    with locked(desk.path):
        patient, overdue = desk.hold(held(1)), desk.hold(held(2), wait_s=0.0)
        desk.scribe.turn()
        assert isinstance(desk.answers[overdue], StorageUnavailable)
        assert patient not in desk.answers
    desk.scribe.turn()

    assert desk.answers[patient] is None
    assert [entry.call_id for entry in desk.entries()] == [held(1).call_id]
    assert desk.words() == ["ledger_locked", "ledger_recovered"]


@contextmanager
def full(desk: Desk) -> Iterator[Callable[[], None]]:
    """Let the file grow no more; gives a function that frees space, as an operator would."""
    connection = desk.books.session.connection
    connection.execute("CREATE TABLE ballast (bytes BLOB) STRICT")
    connection.execute("INSERT INTO ballast VALUES (zeroblob(400000))")
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    with closing(sqlite3.connect(desk.path, isolation_level=None)) as operator:
        yield lambda: operator.execute("DELETE FROM ballast").close()


def refused_numbers(desk: Desk, numbers: range) -> list[int]:
    answers = {number: desk.hold(held(number)) for number in numbers}
    desk.scribe.turn()
    return [number for number, answer in answers.items() if desk.answers[answer] is not None]


def test_a_full_disk_refuses_holds_and_takes_settlements(desk: Desk) -> None:
    """What is held settles and what is open ends; nothing new begins; an operator is told once."""
    with full(desk):
        refused = refused_numbers(desk, range(1, 100))
        kept = min(refused) - 1
        assert kept >= 1
        assert refused_numbers(desk, range(200, 210))
        for number in range(1, kept + 1):
            desk.put(settled(number))
            desk.put(closed(number))
        desk.scribe.turn()

        entries = {entry.call_id: entry for entry in desk.entries()}
        assert {entries[held(number).call_id].end for number in range(1, kept + 1)} == {EndState.SUCCESS}
        assert desk.scribe.lost == 0
        assert desk.words() == ["ledger_full"]


def test_on_a_full_disk_an_answer_is_settled_and_not_kept(desk: Desk) -> None:
    """Its receipt is done: who asks again is told so, and does not pay twice."""
    asked = structs.replace(opened(1), receipt=RECEIPT)
    desk.hold(held(1, opened=asked))
    desk.scribe.turn()
    with full(desk):
        refused_numbers(desk, range(100, 200))
        desk.put(settled(1, kept=Kept(reply=b"x" * 100_000)))
        desk.put(closed(1, opened=asked))
        desk.scribe.turn()

    (entry,) = [entry for entry in desk.entries() if entry.call_id == asked.call.id]
    assert entry.attempts[0].state is HoldState.SETTLED
    rows = desk.books.session.rows("receipts", "read", (*RECEIPT.scope, 0))
    assert [(row[0], row[-1]) for row in rows] == [("done", None)]


def test_calls_are_taken_again_when_there_is_space(desk: Desk) -> None:
    """Without a restart: what waited for space is written, and the next hold is placed."""
    with full(desk) as free_space:
        refused_numbers(desk, range(1, 100))
        for number in range(300, 320):
            desk.put(closed(number, attempts=0, end=EndState.FAILED, error_code="no_target_available"))
        flushed = desk.flush()
        desk.scribe.turn()
        assert flushed not in desk.answers
        free_space()
        desk.scribe.turn()

        assert desk.answers[flushed] is None
        assert refused_numbers(desk, range(400, 401)) == []
        ids = {entry.call_id for entry in desk.entries()}
        assert {opened(number).call.id for number in range(300, 320)} <= ids
        assert desk.words() == ["ledger_full", "ledger_recovered"]


def test_a_dead_owner_refuses_everything(desk: Desk) -> None:
    """Declared dead by another process, it fails closed: no hold, no flush; what comes is counted as lost."""
    desk.hold(held(1))
    desk.scribe.turn()
    other = open_books(desk.path, owner_id="other", now_ns=2)
    late, flushed = desk.hold(held(2)), desk.flush()
    desk.put(settled(1))
    desk.scribe.turn()
    after = desk.hold(held(3))
    desk.put(closed(1))
    desk.scribe.turn()

    for answer in (late, flushed, after):
        assert isinstance(desk.answers[answer], StorageUnavailable)
    assert (desk.scribe.lost, desk.scribe.refused) == (2, 2)
    assert "taken over" in (desk.scribe.broken or "")
    assert desk.states() == [[HoldState.LAPSED]]
    assert desk.words() == ["ledger_broken"]
    other.close()


def test_stopping_writes_what_waits_and_signs_off(desk: Desk) -> None:
    """All that was handed in before the stop is written, then the owner leaves."""
    desk.hold(held(1))
    desk.put(settled(1))
    desk.stop(within_s=10)
    desk.scribe.run()

    assert desk.states() == [[HoldState.SETTLED]]
    with closing(sqlite3.connect(desk.path)) as connection:
        assert connection.execute("SELECT state FROM owner").fetchall() == [("left",)]


def test_stopping_waits_for_a_lock_only_so_long(desk: Desk) -> None:
    """What cannot be written in time is refused, counted and told; the owner is not signed off."""
    desk.hold(held(1))
    desk.scribe.turn()
    with locked(desk.path):
        waiting = desk.hold(held(2))
        desk.put(settled(1))
        desk.stop(within_s=0.15)
        desk.scribe.run()

    assert isinstance(desk.answers[waiting], StorageUnavailable)
    assert desk.words() == ["ledger_record_lost"]
    with closing(sqlite3.connect(desk.path)) as connection:
        assert connection.execute("SELECT state FROM owner").fetchall() == [("alive",)]


def test_the_owner_says_that_it_lives(desk: Desk) -> None:
    """A heartbeat that is due is written, with nothing else to write."""
    desk.scribe._beat_at = 0.0
    desk.scribe.turn()

    with closing(sqlite3.connect(desk.path)) as connection:
        beat = connection.execute("SELECT heartbeat_ns FROM owner").fetchone()
    assert beat == (FakeClock().wall_ns(),)
    assert desk.scribe._beat_at > time.monotonic()


def test_a_settlement_waits_a_moment_for_company(desk: Desk) -> None:
    """Settlements that follow each other closely share one commit, though nobody awaits them."""
    for number in range(1, 6):
        desk.hold(held(number))
    desk.scribe.turn()
    for number in range(1, 6):
        desk.put(settled(number))
    desk.scribe.turn()

    assert desk.scribe.commits == 2
    assert desk.states() == [[HoldState.SETTLED]] * 5


def test_what_comes_while_others_write_is_written_with_the_rest(desk: Desk) -> None:
    """A transaction may have to wait for another replica's; what it writes is asked for when it has begun."""
    first, transaction = desk.hold(held(1)), desk.books._transaction
    late: list[Answer] = []

    @contextmanager
    def slow() -> Iterator[None]:
        with transaction():
            late.append(desk.hold(held(2)))
            yield

    desk.books._transaction = slow  # type: ignore[method-assign]  # one that has to wait at its beginning
    desk.scribe.turn()
    assert desk.scribe.commits == 1
    assert [desk.answers[answer] for answer in (first, *late)] == [None, None]


class _Odd(Exception):
    """Nobody has thought of it."""


@pytest.mark.parametrize("odd", [0, 1, 2])
def test_an_error_nobody_thought_of_leaves_nobody_waiting(desk: Desk, odd: int) -> None:
    """Of a batch that is written one by one, whichever record it comes with."""
    write = desk.books.write
    ids = [opened(number).call.id for number in (1, 2, 3)]

    def fails(gather: Callable[[], Batch]) -> dict[Place, TiergateError]:
        batch = gather()
        if len(batch.holds) > 1:
            raise Unwritten(Trouble.RECORD, "one of them")
        if batch.holds and batch.holds[0][0] == ids[odd]:
            raise _Odd
        return write(lambda: batch)

    desk.books.write = fails  # type: ignore[method-assign]  # a session that fails as none was seen to
    answers = [desk.hold(held(number)) for number in (1, 2, 3)]
    desk.stop(within_s=0)
    desk.scribe.run()

    assert [desk.answers[answer] is None for answer in answers] == [number < odd for number in range(3)]
    assert desk.words() == ["ledger_broken"]


def test_the_owner_lives_while_a_long_batch_is_written_one_by_one(desk: Desk) -> None:
    """A heartbeat that is due comes between two records; else others would declare it dead."""
    desk.hold(held(1, bound_nanos=10**30))
    desk.hold(held(2))
    write, beats = desk.books.write, []

    def watched(gather: Callable[[], Batch]) -> dict[Place, TiergateError]:
        desk.scribe._beat_at = 0.0
        return write(gather)

    desk.books.write = watched  # type: ignore[method-assign]  # makes a beat due
    heartbeat = desk.books.heartbeat

    def beat(now_ns: int) -> Lapsed:
        beats.append(now_ns)
        return heartbeat(now_ns)

    desk.books.heartbeat = beat  # type: ignore[method-assign]  # counts the beats
    desk.scribe.turn()
    assert len(beats) == 2
