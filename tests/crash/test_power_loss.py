"""The machine loses its power: whatever part of the last records goes with it, what was spent stays charged.

A commit of the ledger outlives its process, but only some are on the disk for good: those that draw a slice,
and what came before them. Here everything behind the last of them is cut off, at any byte.
`TIERGATE_POWER_LOSSES=500 pytest tests/crash/test_power_loss.py` tries more.
"""

import asyncio
import os
import random
import shutil
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from contract.ledger_records import BEGAN_NS, held, opened, settled
from tiergate.core import Caller, Unaffordable
from tiergate.ledger import Balance, Ceiling, LapsedSlice, Period, Scope, Slice, SoleBook
from tiergate.store import LEDGER_FILE, LedgerJournal, open_journal
from tiergate.testing import FakeClock

LOSSES = int(os.environ.get("TIERGATE_POWER_LOSSES", "60"))
USD = 1_000_000_000
CEILINGS = (
    Ceiling(scope=Scope.ALL, amount_nanos=20 * USD, period=Period.MONTH),
    Ceiling(scope=Scope.KEY, name="my key", amount_nanos=8 * USD, period=Period.DAY, slack_nanos=USD),
    Ceiling(scope=Scope.TIER, name="hosted", amount_nanos=15 * USD),
)


class Watched:
    """A journal, and how much of its log is on the disk for good."""

    def __init__(self, journal: LedgerJournal, log: Path) -> None:
        self._journal = journal
        self._log = log
        self.lasting_bytes = 0
        self.draws = 0

    async def draw(self, slices: Sequence[Slice]) -> None:
        await self._journal.draw(slices)
        self.draws += 1
        self.lasting_bytes = self._log.stat().st_size

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)


def journal_at(folder: Path, boot: str) -> LedgerJournal:
    return open_journal(folder, clock=FakeClock(), randomness=os.urandom, emit=lambda _: None, boot=boot)


async def spend(book: SoleBook, chance: random.Random) -> dict[str, int]:
    """Make calls, some of which are still running in the end; give what the provider bills, by key."""
    billed = {"my key": 0, "other": 0}
    for number in range(1, chance.randrange(2, 60)):
        key = chance.choice(["my key", "other"])
        worst = chance.randrange(1, USD)
        hold = held(number, opened=opened(number, caller=Caller(key=key)), bound_nanos=worst)
        try:
            await book.hold(hold)
        except Unaffordable:
            continue
        cost = chance.choice([worst, chance.randrange(worst + 1)])
        billed[key] += cost
        if chance.random() < 0.9:
            book.settle(settled(number, cash_nanos=cost))
    return billed


async def found_at(folder: Path, boot: str) -> tuple[list[LapsedSlice], list[Balance]]:
    async with journal_at(folder, boot) as journal:
        book = SoleBook(journal, ceilings=CEILINGS)
        lapsed = await book.open()
        return lapsed, await book.balances(BEGAN_NS)


def without(folder: Path, copy: Path, log_bytes: int) -> Path:
    """Copy a ledger as it is on a disk that has so much of its log."""
    copy.mkdir()
    shutil.copy(folder / LEDGER_FILE, copy)
    log = (folder / f"{LEDGER_FILE}-wal").read_bytes()
    (copy / f"{LEDGER_FILE}-wal").write_bytes(log[:log_bytes])
    return copy


def spent_by(balances: list[Balance]) -> dict[Scope, int]:
    return {balance.ceiling.scope: balance.spent_nanos for balance in balances}


@pytest.mark.parametrize("seed", range(LOSSES))
def test_what_was_spent_stays_charged(tmp_path: Path, seed: int) -> None:
    """Never less than was billed, never more than the ceiling allows; a second crash changes nothing."""
    chance = random.Random(seed)

    async def until_the_lights_go_out() -> tuple[dict[str, int], Path]:
        async with journal_at(tmp_path / "data", "one") as journal:
            watched = Watched(journal, tmp_path / "data" / f"{LEDGER_FILE}-wal")
            book: Any = SoleBook(watched, ceilings=CEILINGS)  # type: ignore[arg-type]  # it is one, by delegation
            billed = await spend(book, chance)
            await journal.flush()
            whole = (tmp_path / "data" / f"{LEDGER_FILE}-wal").stat().st_size
            left = chance.randrange(watched.lasting_bytes, whole + 1)
            return billed, without(tmp_path / "data", tmp_path / "after", left)

    billed, after = asyncio.run(until_the_lights_go_out())
    lapsed, balances = asyncio.run(found_at(after, "two"))
    spent = spent_by(balances)
    for balance in balances:
        assert balance.spent_nanos <= balance.limit_nanos
    assert spent[Scope.ALL] >= sum(billed.values())
    assert spent[Scope.TIER] >= sum(billed.values())
    assert spent[Scope.KEY] >= billed["my key"]
    again, balances = asyncio.run(found_at(after, "three"))
    assert (again, spent_by(balances)) == ([], spent)
    assert all(one.nanos > 0 for one in lapsed)


def test_while_the_machine_runs_on_nothing_lapses_but_what_was_held(tmp_path: Path) -> None:
    """Killed, and started again: every record is there, and the rest of the slices is free again."""

    async def killed() -> tuple[Path, list[Balance]]:
        async with journal_at(tmp_path / "data", "one") as journal:
            book = SoleBook(journal, ceilings=CEILINGS)
            await book.hold(held(1, bound_nanos=USD))
            book.settle(settled(1, cash_nanos=USD // 2))
            await journal.flush()
            return without(tmp_path / "data", tmp_path / "after", 1 << 40), await book.balances(BEGAN_NS)

    after, before = asyncio.run(killed())
    lapsed, balances = asyncio.run(found_at(after, "one"))
    assert lapsed == []
    assert spent_by(balances) == spent_by(before)
    assert sum(balance.lapsed_nanos for balance in balances) == 0


def test_a_good_end_returns_what_was_drawn(tmp_path: Path) -> None:
    """Whatever run of the machine comes next."""

    async def ended() -> None:
        async with journal_at(tmp_path, "one") as journal:
            book = SoleBook(journal, ceilings=CEILINGS)
            await book.hold(held(1, bound_nanos=USD))
            book.settle(settled(1, cash_nanos=USD // 2))

    asyncio.run(ended())
    lapsed, balances = asyncio.run(found_at(tmp_path, "two"))
    assert lapsed == []
    assert spent_by(balances)[Scope.ALL] == USD // 2


def test_a_budget_is_written_down_a_few_times_and_not_with_every_call(tmp_path: Path) -> None:
    """What lasts costs a wait for the disk."""

    async def spent_up() -> int:
        async with journal_at(tmp_path, "one") as journal:
            watched = Watched(journal, tmp_path / f"{LEDGER_FILE}-wal")
            book: Any = SoleBook(watched, ceilings=CEILINGS[:1])  # type: ignore[arg-type]  # as above
            for number in range(1, 1001):
                await book.hold(held(number, bound_nanos=20 * USD // 1000))
                book.settle(settled(number, cash_nanos=20 * USD // 1000))
            return watched.draws

    assert 40 < asyncio.run(spent_up()) < 80


def test_losses_that_follow_each_other_are_charged_once_each(tmp_path: Path) -> None:
    """What lapsed before is in the mark that is drawn next, and lapses no second time with it."""
    cap = Ceiling(scope=Scope.ALL, amount_nanos=64 * USD)  # drawn by the dollar
    folder = tmp_path / "data"

    async def life(boot: int) -> int:
        async with journal_at(folder, f"boot {boot}") as journal:
            book = SoleBook(journal, ceilings=[cap])
            await book.open()
            await book.hold(held(boot, bound_nanos=1000))
            book.settle(settled(boot, cash_nanos=1000))
            await journal.flush()
            (balance,) = await book.balances(BEGAN_NS)
            without(folder, tmp_path / f"after {boot}", 1 << 40)
        return balance.spent_nanos

    spent = []
    for boot in range(1, 7):
        spent.append(asyncio.run(life(boot)))
        folder = tmp_path / f"after {boot}"
    growth = [later - earlier for earlier, later in pairwise(spent)]
    assert all(grown <= USD + 2000 for grown in growth), spent
