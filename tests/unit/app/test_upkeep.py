"""Upkeep: what is over is added up, what is old goes; trouble and a jumping clock change nothing of it."""

import asyncio
from typing import Any

import pytest

from tiergate.app.upkeep import EACH_S, FIRST_AFTER_S, keep_up
from tiergate.config import Retention, Settings, load_text
from tiergate.core import StorageUnavailable
from tiergate.testing import FakeClock, run_virtual

SETTINGS = load_text("providers: {rack: {base_url: 'http://127.0.0.1:1/v1', tier: private}}\n", {}).settings
DAY_NS = 86_400 * 10**9


class Ledger:
    """A ledger with so many slots to add up and so many steps to forget."""

    def __init__(self, *, slots: int = 0, steps: int = 0, is_full: bool = False) -> None:
        self.slots, self.steps, self.is_full = slots, steps, is_full
        self.done: list[tuple[Any, ...]] = []
        self.receipts: list[int] = []

    async def add_up(self, *, closed_before_ns: int) -> bool:
        self.done.append(("add", closed_before_ns))
        if self.is_full:
            raise StorageUnavailable("full")
        self.slots -= 1
        return self.slots >= 0

    async def forget(self, *, calls_before_ns: int, rollups_before_ns: int) -> bool:
        self.done.append(("forget", calls_before_ns, rollups_before_ns))
        self.steps -= 1
        return self.steps >= 0

    async def forget_receipts(self, before_ns: int) -> bool:
        self.receipts.append(before_ns)
        return len(self.receipts) % 3 != 0


def kept_up(
    ledger: Ledger, *, seconds: float, jump_ns: int = 0, days: int = 40, counts_all: bool = False
) -> None:
    clock = FakeClock()
    retention = Retention(calls=days * 86_400.0, rollups=86_400.0)

    def settings() -> Settings:
        return SETTINGS.model_copy(update={"retention": retention})

    async def test() -> None:
        task = asyncio.create_task(keep_up(ledger, settings, clock, counts_all=lambda: counts_all))
        await asyncio.sleep(0)
        if jump_ns:
            clock.jump_wall(jump_ns / 1e9)
        await asyncio.sleep(seconds)
        task.cancel()

    run_virtual(test(), clock=clock)


def test_everything_that_is_over_is_added_up_and_everything_old_goes() -> None:
    """In the first seconds, and again each minute."""
    ledger = Ledger(slots=2, steps=1)
    kept_up(ledger, seconds=FIRST_AFTER_S + 1)
    assert [word for word, *_ in ledger.done] == ["add", "add", "add", "forget", "forget"]
    (_, closed_ns), (_, calls_ns, rollups_ns) = ledger.done[0], ledger.done[-1]
    # Sums of calls that are kept are kept, too.
    assert calls_ns == rollups_ns == closed_ns + 60 * 10**9 - 40 * DAY_NS
    # Receipts go after a day of their own.
    assert ledger.receipts == [closed_ns + 60 * 10**9 - DAY_NS] * 3
    ledger = Ledger()
    kept_up(ledger, seconds=FIRST_AFTER_S + 2.5 * EACH_S)
    assert [word for word, *_ in ledger.done] == ["add", "forget"] * 3


@pytest.mark.parametrize(("counts_all", "days"), [(False, 32), (True, 0)])
def test_no_sum_goes_that_a_budget_counts(*, counts_all: bool, days: int) -> None:
    """However short calls are kept: a month for budgets by the month, ever for those without a window."""
    ledger = Ledger()
    kept_up(ledger, seconds=FIRST_AFTER_S + 1, days=1, counts_all=counts_all)
    (_, calls_ns, rollups_ns) = ledger.done[-1]
    now_ns = calls_ns + DAY_NS
    assert rollups_ns == (now_ns - days * DAY_NS if days else 0)


def test_trouble_is_passed_over_and_tried_again() -> None:
    """A full disk, a locked database: no call depends on this."""
    ledger = Ledger(is_full=True)
    kept_up(ledger, seconds=FIRST_AFTER_S + 1.5 * EACH_S)
    assert [word for word, *_ in ledger.done] == ["add", "add"]


def test_a_clock_that_jumps_ahead_makes_nothing_old() -> None:
    """Ten years in a second are no reason to delete ten years."""
    straight, jumped = Ledger(), Ledger()
    kept_up(straight, seconds=FIRST_AFTER_S + 1)
    kept_up(jumped, seconds=FIRST_AFTER_S + 1, jump_ns=3650 * DAY_NS)
    assert jumped.done == straight.done
