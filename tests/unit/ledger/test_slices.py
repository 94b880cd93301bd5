"""Slices: a hold waits until it is written down for good how far its ceilings may go."""

import asyncio
from collections.abc import Sequence

import pytest

from tiergate.core import StorageUnavailable
from tiergate.ledger import Ceiling, Period, Scope, Slice, SoleBook
from tiergate.ledger.slices import claim_of
from tiergate.testing import FakeClock, MemoryJournal, run_virtual
from unit.ledger.test_book import CAP, USD, asked, cost


class SlowDisk(MemoryJournal):
    """A journal whose disk takes a second to have something for good, or never has it."""

    def __init__(self, *, is_gone: bool = False) -> None:
        super().__init__()
        self.is_gone = is_gone
        self.draws = 0

    async def draw(self, slices: Sequence[Slice]) -> None:
        await asyncio.sleep(1)
        if self.is_gone:
            raise StorageUnavailable("gone")
        self.draws += 1
        await super().draw(slices)


def test_no_hold_goes_further_than_is_written_down() -> None:
    """Many at once: what is written when a hold stands covers all that is held and spent."""
    journal = SlowDisk()
    book = SoleBook(journal, ceilings=[CAP])

    async def one(number: int) -> None:
        await book.hold(asked(number, 0.1))
        (balance,) = await book.balances(0) or [None]
        held = sum(one.bound_nanos or 0 for one in journal.open_holds)
        spent = sum(one.cash_nanos or 0 for one in journal.settled)
        assert held + spent <= max(journal.drawn.values())
        book.settle(cost(number, 0.05))
        del balance

    async def test() -> None:
        await asyncio.gather(*(one(number) for number in range(1, 61)))

    run_virtual(test(), clock=FakeClock())
    assert 0 < journal.draws < 30


def test_a_hold_is_refused_that_cannot_be_written_down() -> None:
    """Nothing is held then, and nothing is sent."""
    journal = SlowDisk(is_gone=True)
    book = SoleBook(journal, ceilings=[CAP])

    async def test() -> None:
        with pytest.raises(StorageUnavailable):
            await book.hold(asked(1, 1))
        assert journal.open_holds == []
        journal.is_gone = False
        await book.hold(asked(2, 1))

    run_virtual(test(), clock=FakeClock())


def test_without_ceilings_nothing_is_drawn() -> None:
    """Nothing to keep."""
    journal = SlowDisk()

    async def test() -> None:
        await SoleBook(journal).hold(asked(1, 1))

    run_virtual(test(), clock=FakeClock())
    assert journal.draws == 0


@pytest.mark.parametrize("period", Period)
@pytest.mark.parametrize(
    ("scope", "name"), [(Scope.ALL, ""), (Scope.KEY, "a per day"), (Scope.TEAM, "x:y in total")]
)
def test_whose_slice_it_is_can_be_read_back(scope: Scope, name: str, period: Period) -> None:
    """From the ceiling's id, also when the settings do not have it any more."""
    ceiling = Ceiling(scope=scope, name=name, amount_nanos=USD, period=period)
    found = claim_of(Slice(ceiling.id, ceiling.window(1_767_225_600 * USD), 5)).ceiling
    assert (found.scope, found.name, found.period) == (scope, name, period)
