"""Whatever is done to the ledger in whatever order: it agrees with a model, and states move only as drawn."""

import asyncio
import os
from collections.abc import Coroutine
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from contract.ledger_records import closed, held, opened, released, settled
from places import Places
from tiergate.core import EndState, StorageUnavailable
from tiergate.ledger import HOLD, HoldState, may_move
from tiergate.store import LedgerJournal

T = TypeVar("T")

CALLS = st.integers(1, 2)
ATTEMPTS = st.integers(1, 2)
CASH = st.integers(0, 2**63 - 1)
ENDS = st.sampled_from([EndState.SUCCESS, EndState.FAILED, EndState.CLIENT_CLOSED])

_WATCH = {
    "sqlite": (
        "CREATE TABLE seen (before TEXT NOT NULL, after TEXT NOT NULL)",
        """CREATE TRIGGER watch AFTER UPDATE OF hold_state ON attempt WHEN old.hold_state <> new.hold_state
        BEGIN INSERT INTO seen VALUES (old.hold_state, new.hold_state); END""",
        """CREATE TRIGGER watch_ends AFTER UPDATE OF end_state ON call WHEN old.end_state IS NOT NULL
        BEGIN SELECT RAISE(ABORT, 'a call ended twice'); END""",
    ),
    "postgres": (
        "CREATE TABLE seen (before text NOT NULL, after text NOT NULL)",
        """CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN INSERT INTO seen VALUES (old.hold_state, new.hold_state); RETURN NULL; END'""",
        """CREATE TRIGGER watch AFTER UPDATE ON attempt FOR EACH ROW
        WHEN (old.hold_state <> new.hold_state) EXECUTE FUNCTION watch()""",
        """CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN RAISE EXCEPTION ''a call ended twice''; END'""",
        """CREATE TRIGGER watch_ends AFTER UPDATE OF end_state ON call FOR EACH ROW
        WHEN (old.end_state IS NOT NULL) EXECUTE FUNCTION refuse()""",
    ),
}


@dataclass(slots=True)
class ModelCall:
    """What a call should look like: each attempt's state and cash, and the end."""

    attempts: dict[int, tuple[HoldState, int | None]] = field(default_factory=dict)
    end: EndState | None = None


class Ledger(RuleBasedStateMachine):
    """A kept journal beside a model of it; the process behind it may die at any step."""

    def __init__(self, places: Places) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.stack = ExitStack()
        self.kept = self.stack.enter_context(places.once())
        self.model: dict[int, ModelCall] = {}
        self.gone: list[LedgerJournal] = []
        self.journal = self.open()
        for statement in _WATCH[self.kept.kind]:
            self.kept.rows(statement)

    def wait(self, act: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(asyncio.wait_for(act, 10))

    def open(self) -> LedgerJournal:
        return self.wait(self.kept.journal(randomness=os.urandom).__aenter__())

    @rule(number=CALLS, n=ATTEMPTS)
    def hold(self, number: int, n: int) -> None:
        call = self.model.get(number, ModelCall())
        if n in call.attempts:
            with pytest.raises(StorageUnavailable):
                self.wait(self.journal.hold(held(number, n)))
            return
        self.wait(self.journal.hold(held(number, n)))
        call.attempts[n] = (HoldState.HELD, None)
        self.model[number] = call

    @rule(number=CALLS, n=ATTEMPTS, cash=CASH)
    def settle(self, number: int, n: int, cash: int) -> None:
        self.journal.settle(settled(number, n, cash_nanos=cash))
        self.move(number, n, HoldState.SETTLED, cash)

    @rule(number=CALLS, n=ATTEMPTS)
    def release(self, number: int, n: int) -> None:
        self.journal.settle(released(number, n))
        self.move(number, n, HoldState.RELEASED, 0)

    def move(self, number: int, n: int, state: HoldState, cash: int) -> None:
        attempts = self.model.get(number, ModelCall()).attempts
        if n in attempts and attempts[n][0] is HoldState.HELD:
            attempts[n] = (state, cash)

    @rule(number=CALLS, end=ENDS, attempts=st.integers(0, 3))
    def close(self, number: int, end: EndState, attempts: int) -> None:
        self.journal.close(closed(number, end=end, attempts=attempts))
        call = self.model.setdefault(number, ModelCall())
        call.end = call.end or end

    @rule()
    def flush(self) -> None:
        self.wait(self.journal.flush())
        assert self.journal.statistics().waiting == 0

    @rule(cleanly=st.booleans())
    def leave_and_return(self, cleanly: bool) -> None:
        """The process ends, with a farewell or without; the next one takes over."""
        if cleanly:
            self.wait(self.journal.__aexit__(None, None, None))
        else:
            self.wait(self.journal.flush())
            self.gone.append(self.journal)
        epoch = self.journal.owner.epoch
        self.journal = self.open()
        assert self.journal.owner.epoch == epoch + 1
        for call in self.model.values():
            for n, (state, cash) in call.attempts.items():
                lapses = state is HoldState.HELD
                call.attempts[n] = (HoldState.LAPSED if lapses else state, cash)
            call.end = call.end or EndState.LAPSED

    @precondition(lambda self: self.gone)
    @rule(number=CALLS, n=ATTEMPTS)
    def speak_from_the_grave(self, number: int, n: int) -> None:
        """An owner that was declared dead wakes up: nothing that it says is written."""
        ghost = self.gone[-1]
        ghost.settle(settled(number, n, cash_nanos=13))
        ghost.close(closed(number, end=EndState.INTERRUPTED))
        with pytest.raises(StorageUnavailable):
            self.wait(ghost.hold(held(number, n)))

    @invariant()
    def the_books_agree_with_the_model(self) -> None:
        entries = {entry.call_id: entry for entry in self.wait(self.journal.entries())}
        found = {
            number: ModelCall(
                attempts={one.n: (one.state, one.cash_nanos) for one in entries[call_id].attempts},
                end=entries[call_id].end,
            )
            for number in (1, 2)
            if (call_id := opened(number).call.id) in entries
        }
        assert found == self.model
        assert len(entries) == len(self.model)

    def teardown(self) -> None:
        for journal in [*self.gone, self.journal]:
            self.wait(journal.__aexit__(None, None, None))
        for before, after in self.kept.rows("SELECT before, after FROM seen"):
            assert may_move(HOLD, HoldState(before), HoldState(after)), f"{before} to {after}"
        held_now = self.kept.count("attempt WHERE hold_state = 'held'")
        open_now = sum(
            state is HoldState.HELD for call in self.model.values() for state, _ in call.attempts.values()
        )
        assert held_now == open_now
        self.loop.close()
        self.stack.close()


_EXAMPLES = {"sqlite": 60, "postgres": 20}


def test_the_books_agree_with_a_model(places: Places) -> None:
    """Whatever is done, in whatever order, and whoever dies."""
    searched = settings(max_examples=_EXAMPLES[places.kind], stateful_step_count=25)
    run_state_machine_as_test(lambda: Ledger(places), settings=searched)
