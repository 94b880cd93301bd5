"""The book's waits: who gets money when, what a ceiling says, and what settles while a balance is loaded."""

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, TypeVar

import pytest

from contract.ledger_records import BEGAN_NS, HOSTED, PRIVATE, held, opened, released, settled
from tiergate.core import (
    BudgetBusy,
    BudgetExceeded,
    BudgetReached,
    BudgetUnbounded,
    Caller,
    Event,
    JobLine,
    StorageUnavailable,
    Unaffordable,
)
from tiergate.ledger import Ceiling, Held, LapsedSlice, Period, Scope, Slice, SoleBook, SpentBy, Window
from tiergate.testing import FakeClock, MemoryJournal, run_virtual

T = TypeVar("T")
USD = 1_000_000_000
CAP = Ceiling(scope=Scope.ALL, amount_nanos=10 * USD, period=Period.DAY)


def run(act: Coroutine[Any, Any, T]) -> T:
    return run_virtual(act, clock=FakeClock())


def asked(number: int, usd: float | None, key: str = "alice", **changes: Any) -> Held:
    """A hold of so many dollars by a key."""
    begun = opened(number, caller=Caller(key=key))
    amount = None if usd is None else int(usd * USD)
    return held(number, opened=begun, bound_nanos=amount, **changes)


def cost(number: int, usd: float) -> Any:
    return settled(number, cash_nanos=int(usd * USD))


def amounts(book: SoleBook) -> Coroutine[Any, Any, tuple[float, float]]:
    async def read() -> tuple[float, float]:
        (balance,) = await book.balances(BEGAN_NS)
        return balance.spent_nanos / USD, balance.held_nanos / USD

    return read()


def test_what_does_not_fit_is_refused_with_what_how_much_and_until_when() -> None:
    """Free of charge passes always; what could be anything is refused unless the ceiling lets it pass."""

    async def test() -> None:
        book = SoleBook(MemoryJournal(), ceilings=[replace(CAP, zone="Europe/Berlin", slack_nanos=USD)])
        await book.hold(asked(1, 8))
        book.settle(cost(1, 7.5))
        with pytest.raises(BudgetExceeded) as refused:
            await book.hold(asked(2, 4))
        for words in (
            "all per day is $10 and $1 of slack",
            "$7.5 spent, $0 held",
            "could cost up to $4",
            "begins anew at 2026-01-02T00:00:00+01:00",
        ):
            assert words in str(refused.value)
        with pytest.raises(BudgetUnbounded, match="Set max_tokens"):
            await book.hold(asked(3, None))
        await book.hold(asked(4, 0, target=PRIVATE))
        await book.hold(asked(5, 3.5))
        assert await amounts(book) == (7.5, 3.5)
        book.use([replace(CAP, allows_unbounded=True)], alerts_at=())
        await book.hold(asked(6, None))
        book.settle(cost(6, 2))
        assert await amounts(book) == (9.5, 3.5)

    run(test())


def test_ceilings_are_nested() -> None:
    """Every one that covers an attempt must have room; a target that is not covered goes on."""

    async def test() -> None:
        book = SoleBook(
            MemoryJournal(),
            ceilings=[
                CAP,
                Ceiling(scope=Scope.KEY, name="bob", amount_nanos=2 * USD),
                Ceiling(scope=Scope.TIER, name="hosted", amount_nanos=5 * USD, period=Period.MONTH),
            ],
        )
        await book.hold(asked(1, 2, key="bob"))
        with pytest.raises(BudgetBusy, match="key:bob in total"):
            await book.hold(asked(2, 1, key="bob"))
        with pytest.raises(BudgetExceeded, match="tier:hosted per month"):
            await book.hold(asked(3, 6))
        await book.hold(asked(4, 3))
        with pytest.raises(BudgetBusy, match="tier:hosted per month"):
            await book.hold(asked(5, 1))
        await book.hold(asked(6, 1, target=PRIVATE))
        with pytest.raises(BudgetExceeded, match="key:bob in total"):
            await book.hold(asked(7, 11, key="bob"))  # the tightest of three is named

    run(test())


def test_who_waits_gets_what_others_give_back_in_order() -> None:
    """Nobody overtakes on the same ceiling, however little it asks; what fits never is told so at once."""

    async def test() -> None:
        journal = MemoryJournal()
        book = SoleBook(journal, ceilings=[CAP])
        await book.hold(asked(1, 6))
        await book.hold(asked(2, 4))
        order: list[int] = []

        async def wait(number: int, usd: float) -> None:
            await book.hold(asked(number, usd), wait_s=5)
            order.append(number)

        waiting = [asyncio.create_task(wait(number, usd)) for number, usd in ((3, 6), (4, 1), (5, 9))]
        await asyncio.sleep(0)
        book.settle(cost(2, 1))
        await asyncio.sleep(0.1)
        assert order == []  # 3 dollars are free, and the first in the line needs six
        with pytest.raises(BudgetBusy, match="fits when some of what is held has settled"):
            await book.hold(asked(6, 1))
        book.settle(cost(1, 2))
        await asyncio.sleep(0.1)
        assert order == [3, 4]
        with pytest.raises(BudgetExceeded):
            await waiting[2]  # after 3 dollars were spent nine fit never
        assert await amounts(book) == (3, 7)

    run(test())


def test_a_wait_ends_in_time_and_leaves_nothing_behind() -> None:
    """Also when it is called off in the very turn in which it would have been granted."""

    async def test() -> None:
        journal = MemoryJournal()
        book = SoleBook(journal, ceilings=[CAP])
        await book.hold(asked(1, 8))
        with pytest.raises(BudgetBusy):
            await book.hold(asked(2, 5), wait_s=2)
        called_off = asyncio.create_task(book.hold(asked(3, 5), wait_s=60))
        await asyncio.sleep(0)
        book.settle(released(1))
        called_off.cancel()
        with pytest.raises(asyncio.CancelledError):
            await called_off
        assert await amounts(book) == (0, 0)
        await book.hold(asked(4, 10))
        behind = asyncio.create_task(book.hold(asked(5, 10), wait_s=60))
        small = asyncio.create_task(book.hold(asked(6, 1), wait_s=60))
        await asyncio.sleep(0)
        behind.cancel()
        book.settle(cost(4, 9))
        await small
        assert [one.n for one in journal.open_holds] == [1] and await amounts(book) == (9, 1)

    run(test())


def test_a_hold_that_cannot_be_written_is_given_back() -> None:
    """A full disk, or a caller who leaves while it is written."""

    async def test() -> None:
        journal = MemoryJournal(fail_holds=True)
        book = SoleBook(journal, ceilings=[CAP])
        with pytest.raises(StorageUnavailable):
            await book.hold(asked(1, 8))
        assert await amounts(book) == (0, 0)

        class Slow(MemoryJournal):
            async def hold(self, held: Held) -> None:
                await super().hold(held)
                await asyncio.sleep(60)

        slow = Slow()
        book = SoleBook(slow, ceilings=[CAP])
        writing = asyncio.create_task(book.hold(asked(2, 8)))
        await asyncio.sleep(1)
        assert await amounts(book) == (0, 8)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        assert slow.open_holds == [] and await amounts(book) == (0, 0)

    run(test())


class SlowAnswers(MemoryJournal):
    """A journal whose answer about the past is taken at once, and given later."""

    async def spent(self, start_ns: int, end_ns: int | None) -> list[SpentBy]:
        answer = await super().spent(start_ns, end_ns)
        await asyncio.sleep(10)
        return answer


def test_what_settles_while_a_balance_is_loaded_counts_once() -> None:
    """What the ledger had when it was asked, what settled since, and what is still held."""

    async def test() -> None:
        journal = SlowAnswers()
        book = SoleBook(journal)
        for number in (1, 2, 3, 4):
            await book.hold(asked(number, 2))
        book.settle(cost(1, 1.5))
        book.use([CAP], alerts_at=())
        loading = asyncio.create_task(book.hold(asked(5, 1)))
        await asyncio.sleep(1)
        book.settle(cost(2, 1.25))
        book.settle(released(3))
        await loading
        assert await amounts(book) == (2.75, 3)

    run(test())


def test_a_load_that_fails_refuses_the_hold_and_is_tried_again() -> None:
    """Nothing is spent on a guess."""

    class Blind(MemoryJournal):
        is_blind = True

        async def spent(self, start_ns: int, end_ns: int | None) -> list[SpentBy]:
            if self.is_blind:
                raise StorageUnavailable("not now")
            return await super().spent(start_ns, end_ns)

    async def test() -> None:
        journal = Blind()
        book = SoleBook(journal, ceilings=[CAP])
        with pytest.raises(StorageUnavailable):
            await book.hold(asked(1, 1))
        assert journal.held == []
        journal.is_blind = False
        await book.hold(asked(2, 1))
        assert await amounts(book) == (0, 1)

    run(test())


def test_settings_that_change_while_a_balance_is_loaded_win() -> None:
    """The amount is that of the settings in force."""

    async def test() -> None:
        book = SoleBook(SlowAnswers(), ceilings=[CAP])
        loading = asyncio.create_task(book.hold(asked(1, 8)))
        await asyncio.sleep(1)
        book.use([replace(CAP, amount_nanos=5 * USD)], alerts_at=())
        with pytest.raises(BudgetExceeded):
            await loading

    run(test())


def test_somebody_is_told_once_of_each_share() -> None:
    """Half, four fifths, all; and after a reload or a restart not again."""
    told: list[Event] = []

    async def test() -> None:
        journal = MemoryJournal()
        book = SoleBook(journal, ceilings=[CAP], alerts_at=(1.0, 0.5, 0.8), emit=told.append)
        for number, usd in enumerate((3, 2.5, 0.1, 3, 1.4, 0), start=1):
            await book.hold(asked(number, usd))
            book.settle(cost(number, usd))
        book.use([CAP], alerts_at=(0.5, 0.8, 1.0))
        await book.hold(asked(8, 0))
        book.settle(cost(8, 0))
        again = SoleBook(journal, ceilings=[CAP], alerts_at=(0.5, 0.8, 1.0), emit=told.append)
        await again.hold(asked(9, 0))
        again.settle(cost(9, 0))

    run(test())
    shares = [event.share for event in told if isinstance(event, BudgetReached)]
    assert shares == [0.5, 0.8, 1.0]
    first = told[0]
    assert isinstance(first, BudgetReached)
    assert (first.budget, first.spent_nanos, first.amount_nanos) == ("all per day", int(5.5 * USD), 10 * USD)


def test_a_budget_belongs_to_the_window_in_which_a_call_was_received() -> None:
    """A clock that goes back finds yesterday's money as it was left."""
    day = 86_400_000

    async def test() -> None:
        book = SoleBook(MemoryJournal(), ceilings=[CAP])
        await book.hold(asked(1, 9))
        book.settle(cost(1, 9))
        await book.hold(asked(day + 2, 9))
        with pytest.raises(BudgetExceeded):
            await book.hold(asked(3, 2))
        book.settle(cost(day + 2, 9))
        with pytest.raises(BudgetExceeded):
            await book.hold(asked(day + 4, 2))
        await book.hold(asked(2 * day, 2))

    run(test())


@pytest.mark.parametrize("error", [BudgetExceeded("x"), BudgetBusy("x"), BudgetUnbounded("x")])
def test_a_refusal_is_never_a_delivery(error: Unaffordable) -> None:
    """Nothing was held and nothing sent."""
    assert error.delivery.value == "none" and error.elsewhere


def test_hosted_and_private_are_told_apart() -> None:
    """The names of the records that the tests here rely on."""
    assert (HOSTED.tier.value, PRIVATE.tier.value) == ("hosted", "private")


def test_what_was_held_before_a_ceiling_came_settles_against_it() -> None:
    """A hold counts against what is there when it settles, whatever was there when it was placed."""

    async def test() -> None:
        book = SoleBook(MemoryJournal())
        await book.hold(asked(1, 4))
        book.use([CAP], alerts_at=())
        assert await amounts(book) == (0, 4)
        book.settle(cost(1, 3))
        assert await amounts(book) == (3, 0)
        await book.hold(asked(2, 2))
        book.use([replace(CAP, period=Period.MONTH)], alerts_at=())
        assert await amounts(book) == (3, 2)
        book.settle(cost(2, 1))
        assert await amounts(book) == (4, 0)

    run(test())


@pytest.mark.parametrize(
    "new",
    [
        [CAP],
        [replace(CAP, zone="Europe/Berlin")],
        [replace(CAP, period=Period.TOTAL)],
        [
            replace(CAP, amount_nanos=1_000 * USD),
            Ceiling(scope=Scope.KEY, name="alice", amount_nanos=10 * USD),
        ],
    ],
    ids=["the same", "another zone", "another period", "one more"],
)
def test_who_waits_is_held_to_the_ceilings_that_a_reload_brings(new: list[Ceiling]) -> None:
    """Also to those whose balance nobody has loaded yet."""

    async def test() -> None:
        book = SoleBook(MemoryJournal(), ceilings=[CAP])
        await book.hold(asked(1, 10))
        waiting = [asyncio.create_task(book.hold(asked(number, 9), wait_s=2)) for number in range(2, 12)]
        await asyncio.sleep(1)
        book.use(new, alerts_at=())
        ends = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(end) for end in ends] == [BudgetBusy] * 10
        assert all(balance.held_nanos == 10 * USD for balance in await book.balances(BEGAN_NS))

    run(test())


def test_who_waits_over_midnight_finds_the_balance_that_others_use() -> None:
    """Yesterday's balance is dropped while nothing is held in it, and loaded anew by whoever is late."""
    day_ms = 86_400_000
    alice = Ceiling(scope=Scope.KEY, name="alice", amount_nanos=USD, period=Period.DAY)
    model = Ceiling(scope=Scope.MODEL, name="A", amount_nanos=USD)

    def late(number: int, model: str, usd: float, key: str = "alice") -> Held:
        call = opened(day_ms - 10 + number, caller=Caller(key=key), asked_model=model)
        return held(number, opened=call, bound_nanos=int(usd * USD))

    async def test() -> None:
        book = SoleBook(MemoryJournal(), ceilings=[alice, model])
        first = late(1, "A", 1, key="bob")
        await book.hold(first)
        waiting = asyncio.create_task(book.hold(late(2, "A", 0.9), wait_s=5))
        await asyncio.sleep(1)
        await book.balances(BEGAN_NS + day_ms * 1_000_000)
        await book.hold(late(3, "B", 0.9))
        book.settle(settled(1, call_id=first.call_id, cash_nanos=0))
        with pytest.raises(BudgetBusy):
            await waiting

    run(test())


def test_what_has_no_bound_is_let_pass_until_the_budget_is_spent() -> None:
    """Nobody knows by how much the last call passes it; the one after that is refused."""

    async def test() -> None:
        book = SoleBook(MemoryJournal(), ceilings=[replace(CAP, allows_unbounded=True)])
        for number in (1, 2):
            await book.hold(asked(number, None))
            book.settle(cost(number, 6))
        with pytest.raises(BudgetExceeded, match=r"all per day .* \$12 spent"):
            await book.hold(asked(3, None))

    run(test())


def test_a_raised_budget_is_told_of_anew() -> None:
    """Of the larger amount a smaller share is spent."""
    told: list[Event] = []

    async def test() -> None:
        book = SoleBook(MemoryJournal(), ceilings=[CAP], alerts_at=(0.5, 1.0), emit=told.append)
        await book.hold(asked(1, 10))
        book.settle(cost(1, 10))
        book.use([replace(CAP, amount_nanos=100 * USD)], alerts_at=(0.5, 1.0))
        for number, usd in ((2, 30), (3, 20), (4, 40)):
            await book.hold(asked(number, usd))
            book.settle(cost(number, usd))

    run(test())
    assert [event.share for event in told if isinstance(event, BudgetReached)] == [1.0, 0.5, 1.0]


class BusyJournal(MemoryJournal):
    """One that has written a correction a moment before it says so."""

    async def adjust(self, call_id: str, n: int, delta_nanos: int, reason: str) -> bool:
        done = await super().adjust(call_id, n, delta_nanos, reason)
        await asyncio.sleep(1)
        return done


def test_a_correction_counts_also_when_who_asked_for_it_has_left() -> None:
    """It is in the ledger, so it is in the balance."""

    async def test() -> None:
        book = SoleBook(BusyJournal(), ceilings=[CAP])
        await book.hold(asked(1, 5))
        book.settle(cost(1, 5))
        asking = asyncio.create_task(book.adjust(opened(1).call.id, 1, 2 * USD, "invoice"))
        await asyncio.sleep(0.5)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await asyncio.sleep(1)
        assert await amounts(book) == (7, 0)

    run(test())


def of_job(number: int, usd: float, job: str | None = "job") -> Held:
    line = None if job is None else JobLine(job=job, n=number)
    return held(number, opened=opened(number, line=line), bound_nanos=int(usd * USD))


def test_the_ceiling_of_a_job_counts_its_lines_and_nothing_else() -> None:
    """Those of before it was known, too; beside the ceilings of everybody."""
    capped = Ceiling(scope=Scope.JOB, name="job", amount_nanos=5 * USD)

    async def test() -> None:
        journal = MemoryJournal()
        book = SoleBook(journal)
        for number, job in ((1, "job"), (2, "another"), (3, None)):
            await book.hold(of_job(number, 2, job))
            book.settle(cost(number, 1.5))
        await book.hold(of_job(4, 2))
        book.use([CAP, capped], alerts_at=())
        spent = {one.ceiling.id: one for one in await book.balances(BEGAN_NS)}
        own, all_of_it = spent["job:job in total"], spent["all per day"]
        assert (own.spent_nanos, own.held_nanos) == (1.5 * USD, 2 * USD)
        assert (all_of_it.spent_nanos, all_of_it.held_nanos) == (4.5 * USD, 2 * USD)
        with pytest.raises(BudgetBusy, match="job:job in total") as busy:
            await book.hold(of_job(5, 2))
        assert busy.value.budget == "job:job in total"
        await book.hold(of_job(6, 2, "another"))
        with pytest.raises(BudgetExceeded) as exceeded:
            await book.hold(of_job(7, 4))
        assert (exceeded.value.budget, exceeded.value.until_ns) == ("job:job in total", None)

    run(test())


def test_a_slice_of_a_job_lapses_less_what_its_records_tell() -> None:
    """The records of other calls tell nothing of it."""

    class WithSlice(MemoryJournal):
        async def dead_slices(self) -> list[Slice]:
            window = Window(start_ns=0, end_ns=None)
            return [Slice("job:job in total", window, 4 * USD)]

        async def lapse_slice(self, found: Slice, lapsed_nanos: int) -> None:
            self.lapsed = LapsedSlice(found.ceiling, found.window.start_ns, lapsed_nanos)

        async def lapsed_slices(self) -> list[LapsedSlice]:
            return [self.lapsed] if hasattr(self, "lapsed") else []

    async def test() -> None:
        journal = WithSlice()
        before = SoleBook(journal)
        for number, job in ((1, "job"), (2, None)):
            await before.hold(of_job(number, 2, job))
            before.settle(cost(number, 1))
        book = SoleBook(journal, ceilings=[Ceiling(scope=Scope.JOB, name="job", amount_nanos=9 * USD)])
        (lapsed,) = await book.open()
        assert (lapsed.ceiling, lapsed.nanos) == ("job:job in total", 3 * USD)
        (balance,) = await book.balances(BEGAN_NS)
        assert (balance.spent_nanos, balance.lapsed_nanos) == (4 * USD, 3 * USD)

    run(test())
