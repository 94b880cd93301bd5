"""Ceilings hold, whatever is asked for in whatever order, across crashes, reloads and clocks that jump."""

import asyncio
import os
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from contract.ledger_records import BEGAN_NS, HOSTED, PRIVATE, closed, held, opened, released, settled
from tiergate.core import (
    BudgetBusy,
    BudgetExceeded,
    BudgetUnbounded,
    Caller,
    StorageUnavailable,
    Target,
    TiergateError,
    Unaffordable,
)
from tiergate.ledger import About, Balance, Ceiling, HoldState, Period, Scope, SoleBook, about
from tiergate.store import LEDGER_FILE, LedgerJournal, LedgerPast, look_at, open_journal
from tiergate.testing import FakeClock

T = TypeVar("T")

DAY = 86_400_000
"""Numbers of calls are milliseconds (`ledger_records`)."""
CEILINGS = st.lists(
    st.builds(
        lambda whose, period, amount, slack: Ceiling(
            scope=whose[0], name=whose[1], period=period, amount_nanos=amount, slack_nanos=slack
        ),
        st.sampled_from(
            [
                (Scope.ALL, ""),
                (Scope.KEY, "alice"),
                (Scope.KEY, "bob"),
                (Scope.TEAM, "blue"),
                (Scope.MODEL, "deepseek-v3.2"),
                (Scope.TIER, "hosted"),
            ]
        ),
        st.sampled_from(Period),
        st.integers(0, 300),
        st.integers(0, 20),
    ),
    max_size=4,
    unique_by=lambda ceiling: ceiling.id,
)


@dataclass(slots=True)
class Attempt:
    """What should be in the books of one attempt; `amount` counts while it is held or lapsed, else `cash`."""

    number: int
    about: About
    received_ns: int
    amount: int | None
    state: HoldState = HoldState.HELD
    cash: int = 0

    def counts(self, balance: Balance) -> bool:
        window = balance.window
        ends = window.end_ns is None or self.received_ns < window.end_ns
        return balance.ceiling.covers(self.about) and window.start_ns <= self.received_ns and ends


class Money(RuleBasedStateMachine):
    """A book over a real journal beside a model of it."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.home = tempfile.TemporaryDirectory()
        self.folder = Path(self.home.name)
        self.attempts: list[Attempt] = []
        self.count = 0
        self.ceilings: list[Ceiling] = []
        self.gone: list[LedgerJournal] = []
        self.open()

    def wait(self, act: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(asyncio.wait_for(act, 10))

    def open(self) -> None:
        opening = open_journal(self.folder, clock=FakeClock(), randomness=os.urandom, emit=lambda _: None)
        self.journal = self.wait(opening.__aenter__())
        self.book = SoleBook(self.journal, ceilings=self.ceilings)

    @property
    def held(self) -> list[Attempt]:
        return [attempt for attempt in self.attempts if attempt.state is HoldState.HELD]

    @rule(ceilings=CEILINGS)
    def read_the_settings_again(self, ceilings: list[Ceiling]) -> None:
        self.ceilings = ceilings
        self.book.use(ceilings, alerts_at=())

    @rule(
        day=st.integers(0, 70),
        key=st.sampled_from(["alice", "bob"]),
        team=st.sampled_from([None, "blue"]),
        where=st.sampled_from([HOSTED, PRIVATE]),
        amount=st.none() | st.integers(0, 120),
    )
    def hold(self, day: int, key: str, team: str | None, where: Target, amount: int | None) -> None:
        """Place a hold; whether it is refused, and why, the model knows."""
        self.count += 1
        number = day * DAY + self.count
        begun = opened(number, caller=Caller(key=key, team=team))
        asked = held(number, opened=begun, target=where, bound_nanos=amount)
        attempt = Attempt(number, about(begun, where), begun.call.received_ns, amount)
        expected: type[TiergateError] | None = self.verdict(attempt)
        if (
            expected is None
            and begun.call.received_ns < LedgerPast(look_at(self.folder / LEDGER_FILE)).calls_from_ns()
        ):
            expected = StorageUnavailable
        refusal = None
        try:
            self.wait(self.book.hold(asked))
        except (Unaffordable, StorageUnavailable) as error:
            refusal = type(error)
        else:
            self.attempts.append(attempt)
        assert refusal is expected

    def verdict(self, new: Attempt) -> type[Unaffordable] | None:
        """Tell what must become of a hold."""
        is_late = False
        for ceiling in self.ceilings:
            balance = Balance(ceiling=ceiling, window=ceiling.window(new.received_ns))
            if not new.counts(balance):
                continue
            if new.amount is None:
                return BudgetUnbounded
            spent, in_flight = self.sums(balance)
            if new.amount and spent + new.amount > balance.limit_nanos:
                return BudgetExceeded
            is_late |= bool(new.amount) and spent + in_flight + new.amount > balance.limit_nanos
        return BudgetBusy if is_late else None

    def sums(self, balance: Balance) -> tuple[int, int]:
        mine = [attempt for attempt in self.attempts if attempt.counts(balance)]
        lapsed = sum(attempt.amount or 0 for attempt in mine if attempt.state is HoldState.LAPSED)
        paid = sum(attempt.cash for attempt in mine if attempt.state is HoldState.SETTLED)
        return paid + lapsed, sum(attempt.amount or 0 for attempt in mine if attempt.state is HoldState.HELD)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        attempt = data.draw(st.sampled_from(self.held))
        cash = data.draw(st.integers(0, attempt.amount or 0))
        self.book.settle(settled(attempt.number, cash_nanos=cash))
        attempt.state, attempt.cash = HoldState.SETTLED, cash
        self.book.close(closed(attempt.number))
        # A second settlement changes nothing.
        self.book.settle(settled(attempt.number, cash_nanos=cash + 1))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        attempt = data.draw(st.sampled_from(self.held))
        self.book.settle(released(attempt.number))
        attempt.state = HoldState.RELEASED
        self.book.close(closed(attempt.number))

    def known(self, *states: HoldState) -> list[Attempt]:
        """Attempts in one of these states whose calls are not forgotten."""
        kept_ns = LedgerPast(look_at(self.folder / LEDGER_FILE)).calls_from_ns()
        return [one for one in self.attempts if one.state in states and one.received_ns >= kept_ns]

    @rule(data=st.data())
    def resolve(self, data: st.DataObject) -> None:
        """Somebody knows what a lapsed attempt cost."""
        lapsed = self.known(HoldState.LAPSED)
        if not lapsed:
            return
        attempt = data.draw(st.sampled_from(lapsed))
        cash = data.draw(st.integers(0, attempt.amount or 0))
        call_id = opened(attempt.number).call.id
        assert self.wait(self.book.resolve(call_id, 1, cash))
        attempt.state, attempt.cash = HoldState.SETTLED, cash
        assert not self.wait(self.book.resolve(call_id, 1, cash))

    @rule(data=st.data(), delta=st.integers(-30, 5))
    def adjust(self, data: st.DataObject, delta: int) -> None:
        """An invoice says otherwise; a cost never becomes less than nothing."""
        done = self.known(HoldState.SETTLED)
        if not done:
            return
        attempt = data.draw(st.sampled_from(done))
        call_id = opened(attempt.number).call.id
        taken = self.wait(self.book.adjust(call_id, 1, delta, "invoice"))
        assert taken is (attempt.cash + delta >= 0)
        attempt.cash += delta if taken else 0

    @rule(cleanly=st.booleans())
    def leave_and_return(self, cleanly: bool) -> None:
        """The process ends, with a farewell or without; what it held lapses, and stays charged."""
        if cleanly:
            self.wait(self.journal.__aexit__(None, None, None))
        else:
            self.wait(self.journal.flush())
            self.gone.append(self.journal)
        for attempt in self.held:
            attempt.state = HoldState.LAPSED
        self.open()

    @rule(days=st.integers(0, 70))
    def add_up_and_forget(self, days: int) -> None:
        """Sums stand in for calls."""
        moment_ns = BEGAN_NS + days * DAY * 1_000_000
        while self.wait(self.journal.add_up(closed_before_ns=moment_ns)):
            pass
        while self.wait(self.journal.forget(calls_before_ns=moment_ns, rollups_before_ns=0)):
            pass

    @invariant()
    def no_ceiling_is_passed_and_the_book_agrees(self) -> None:
        for day in (0, 1, 31, 69):
            at_ns = BEGAN_NS + day * DAY * 1_000_000
            for balance in self.wait(self.book.balances(at_ns)):
                spent, in_flight = self.sums(balance)
                assert (balance.spent_nanos, balance.held_nanos) == (spent, in_flight), balance.ceiling.id

    def teardown(self) -> None:
        for journal in [*self.gone, self.journal]:
            self.wait(journal.__aexit__(None, None, None))
        self.loop.close()
        self.home.cleanup()


TestMoney = Money.TestCase
TestMoney.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
