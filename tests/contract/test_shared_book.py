"""Budgets that replicas share: the store says what fits, and its balances are those of the records."""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from contract.ledger_records import BEGAN_NS, HOSTED, PRIVATE, held, opened, released, settled
from places import Kept, Places
from tiergate.core import (
    BudgetBusy,
    BudgetExceeded,
    BudgetReached,
    BudgetUnbounded,
    Caller,
    Cause,
    Event,
    JobLine,
    Unaffordable,
    new_id,
)
from tiergate.ledger import Balance, Ceiling, Claim, Held, Period, Scope, SharedBook
from tiergate.store import LedgerJournal
from tiergate.testing import FakeClock

USD = 1_000_000_000
CAP = Ceiling(scope=Scope.ALL, amount_nanos=10 * USD, period=Period.MONTH)
KEY = Ceiling(scope=Scope.KEY, name="alice", amount_nanos=4 * USD, period=Period.DAY)
OTHERS = (
    Ceiling(scope=Scope.TEAM, name="blue", amount_nanos=8 * USD),
    Ceiling(scope=Scope.MODEL, name="deepseek-v3.2", amount_nanos=9 * USD, period=Period.WEEK),
    Ceiling(scope=Scope.TIER, name="hosted", amount_nanos=7 * USD, period=Period.DAY),
)
Replica = tuple[LedgerJournal, SharedBook]


def asked(
    number: int, usd: float | None, key: str = "alice", team: str | None = None, **changes: Any
) -> Held:
    begun = opened(number, caller=Caller(key=key, team=team))
    amount = None if usd is None else int(usd * USD)
    hold: Held = held(number, opened=begun, bound_nanos=amount, **changes)
    return hold


def cost(number: int, usd: float) -> Any:
    return settled(number, cash_nanos=int(usd * USD))


def book_of(journal: LedgerJournal, ceilings: Sequence[Ceiling], **more: Any) -> SharedBook:
    return SharedBook(journal, ceilings=ceilings, emit=more.pop("emit", lambda _: None), **more)


@asynccontextmanager
async def replicas(
    kept: Kept, ceilings: Sequence[Ceiling] = (CAP,)
) -> AsyncIterator[tuple[Replica, Replica]]:
    async with (
        kept.journal(randomness=os.urandom) as one,
        kept.replica().journal(randomness=os.urandom) as other,
    ):
        yield (one, book_of(one, ceilings)), (other, book_of(other, ceilings))


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await test()

    asyncio.run(bounded())


async def amounts(book: SharedBook) -> list[tuple[float, float, float]]:
    """Spent, of it lapsed, and held of each ceiling, in dollars."""
    return [
        (one.spent_nanos / USD, one.lapsed_nanos / USD, one.held_nanos / USD)
        for one in await book.balances(BEGAN_NS)
    ]


def test_what_one_replica_holds_and_spends_the_other_sees(postgres_places: Places) -> None:
    """At once, and what does not fit is refused with what, how much and until when."""

    async def test() -> None:
        async with replicas(postgres_places.new()) as ((_, one), (journal, other)):
            await one.hold(asked(1, 6))
            assert await amounts(other) == [(0, 0, 6)]
            with pytest.raises(BudgetBusy, match=r"\$6 held"):
                await other.hold(asked(2, 5))
            one.settle(cost(1, 5.5))
            await one.balances(BEGAN_NS)
            with pytest.raises(
                BudgetExceeded, match=r"all per month is \$10: \$5\.5 spent.*begins anew at 2026-02-01"
            ):
                await other.hold(asked(2, 5))
            await other.hold(asked(2, 4.5))
            other.settle(cost(2, 1))
            await journal.flush()
            assert await amounts(one) == [(6.5, 0, 0)]

    run(test)


def test_a_hold_waits_for_what_settles_elsewhere(postgres_places: Places) -> None:
    """Within its time; and no longer than that."""

    async def test() -> None:
        async with replicas(postgres_places.new()) as ((_, one), (_, other)):
            await one.hold(asked(1, 8))
            waiting = asyncio.create_task(other.hold(asked(2, 5), wait_s=10))
            with pytest.raises(BudgetBusy):
                await other.hold(asked(3, 5), wait_s=0.2)
            assert not waiting.done()
            one.settle(cost(1, 1))
            await waiting
            assert await amounts(one) == [(1, 0, 5)]

    run(test)


def test_a_waiting_hold_can_be_called_off(postgres_places: Places) -> None:
    """Nothing is held for it afterwards."""

    async def test() -> None:
        async with replicas(postgres_places.new()) as ((_, one), (_, other)):
            await one.hold(asked(1, 8))
            waiting = asyncio.create_task(other.hold(asked(2, 5), wait_s=10))
            await asyncio.sleep(0.1)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            one.settle(cost(1, 1))
            await asyncio.sleep(0.2)
            assert await amounts(other) == [(1, 0, 0)]

    run(test)


def test_many_at_once_from_two_replicas_never_spend_too_much(postgres_places: Places) -> None:
    """A hot ceiling: 400 calls that fit about half, each at its own time, some of them given back."""
    chance = random.Random(7)

    async def one_call(book: SharedBook, number: int) -> float:
        await asyncio.sleep(chance.random() / 2)
        worst = chance.uniform(0.01, 0.1)
        try:
            await book.hold(asked(number, worst, key=f"k{number % 5}"), wait_s=2)
        except Unaffordable:
            return 0
        await asyncio.sleep(chance.random() / 50)
        spent = worst * chance.random()
        book.settle(cost(number, spent) if number % 7 else released(number))
        return spent if number % 7 else 0

    async def test() -> None:
        cap = replace(CAP, amount_nanos=5 * USD)
        async with replicas(postgres_places.new(), (cap, KEY)) as ((_, one), (_, other)):

            async def watched() -> None:
                while True:
                    for balance in await one.balances(BEGAN_NS):
                        assert balance.spent_nanos + balance.held_nanos <= balance.limit_nanos
                    await asyncio.sleep(0.02)

            watch = asyncio.create_task(watched())
            spent = await asyncio.gather(*(one_call((one, other)[n % 2], n) for n in range(1, 401)))
            assert not watch.done(), watch.exception()
            watch.cancel()
            await one.balances(BEGAN_NS)  # what was settled there is written
            ((used, lapsed, still_held), _) = await amounts(other)
            assert abs(used - sum(spent)) < 1e-6
            assert 4.5 < used <= 5
            assert (lapsed, still_held) == (0, 0)

    run(test)


def test_a_ceiling_that_comes_later_knows_all(postgres_places: Places) -> None:
    """What was spent, what lapsed, and what is held by whoever does not know it yet."""

    async def test() -> None:
        kept = postgres_places.new()
        async with kept.journal(randomness=os.urandom) as gone:
            await gone.hold(asked(1, 2))
        async with replicas(kept, ()) as ((_, one), (_, other)):
            await one.hold(asked(2, 3))
            one.settle(cost(2, 0.5))
            await one.hold(asked(3, 1))
            other.use([CAP, KEY], alerts_at=())
            assert await amounts(other) == [(2.5, 2, 1)] * 2
            # `one` still has the settings without ceilings, and is counted all the same.
            one.settle(cost(3, 0.25))
            await one.hold(asked(4, 1.5))
            await one.balances(BEGAN_NS)
            assert await amounts(other) == [(2.75, 2, 1.5)] * 2
            with pytest.raises(BudgetBusy):
                await other.hold(asked(5, 1))

    run(test)


def test_a_job_has_a_ceiling_of_its_own(postgres_places: Places) -> None:
    """Which counts its lines at every replica, those that lapsed too, beside all other ceilings."""
    capped = Ceiling(scope=Scope.JOB, name="job", amount_nanos=5 * USD)

    def of_job(number: int, usd: float, job: str = "job") -> Held:
        begun = opened(number, cause=Cause.BATCH, line=JobLine(job=job, n=number))
        return held(number, opened=begun, bound_nanos=int(usd * USD))

    async def test() -> None:
        kept = postgres_places.new()
        async with kept.journal(randomness=os.urandom) as gone:
            await gone.hold(of_job(1, 2))
        async with replicas(kept, [CAP, capped]) as ((journal, one), (_, other)):
            assert await amounts(one) == [(2, 2, 0), (2, 2, 0)]
            assert [lapsed.line for lapsed in await journal.lapsed_lines("job")] == [1]
            await one.hold(of_job(2, 2))
            assert await amounts(other) == [(2, 2, 2), (2, 2, 2)]
            with pytest.raises(BudgetBusy, match="budget job:job in total"):
                await other.hold(of_job(3, 2))
            await other.hold(of_job(4, 2, "another"))
            one.settle(cost(2, 0.5))
            await one.balances(BEGAN_NS)
            await other.hold(of_job(3, 2))
            assert await amounts(one) == [(2.5, 2, 4), (2.5, 2, 2)]

    run(test)


def test_what_is_learned_later_is_counted(postgres_places: Places) -> None:
    """A lapsed attempt that is resolved, at whichever replica, and a settled one that is adjusted."""

    async def test() -> None:
        kept = postgres_places.new()
        async with kept.journal(randomness=os.urandom) as gone:
            book = book_of(gone, [CAP])
            await book.hold(asked(1, 2))
            assert await amounts(book) == [(0, 0, 2)]
        async with replicas(kept) as ((_, one), (_, other)):
            assert await amounts(one) == [(2, 2, 0)]
            assert await other.resolve(opened(1).call.id, 1, USD // 2)
            assert await amounts(one) == [(0.5, 0, 0)]
            assert await one.adjust(opened(1).call.id, 1, -USD // 4, "refund")
            assert await amounts(other) == [(0.25, 0, 0)]
            assert not await one.resolve(opened(1).call.id, 1, 0)

    run(test)


def test_who_cannot_be_bounded_passes_only_where_that_is_said(postgres_places: Places) -> None:
    """And then only until the ceiling is spent."""

    async def test() -> None:
        async with replicas(postgres_places.new()) as ((_, one), _):
            with pytest.raises(BudgetUnbounded):
                await one.hold(asked(1, None))
            one.use([replace(CAP, allows_unbounded=True)], alerts_at=())
            await one.hold(asked(1, None))
            one.settle(cost(1, 11))
            await one.balances(BEGAN_NS)
            with pytest.raises(BudgetExceeded):
                await one.hold(asked(2, None))

    run(test)


def test_one_replica_tells_of_a_spent_share(postgres_places: Places) -> None:
    """Once, whoever has spent it; and again of a larger amount."""

    async def test() -> None:
        told: list[Event] = []
        kept = postgres_places.new()
        async with (
            kept.journal(randomness=os.urandom) as one,
            kept.replica().journal(randomness=os.urandom) as other,
        ):
            books = [
                book_of(one, [CAP], alerts_at=(0.5, 0.8), emit=told.append),
                book_of(other, [CAP], alerts_at=(0.5, 0.8), emit=told.append),
            ]
            watches = [asyncio.create_task(book.watch(FakeClock())) for book in books]
            await books[0].hold(asked(1, 9))
            books[0].settle(cost(1, 8.5))
            while not told:
                await asyncio.sleep(0.05)
            await asyncio.sleep(1.2)
            assert [event.share for event in told if isinstance(event, BudgetReached)] == [0.8]
            for book in books:
                book.use([replace(CAP, amount_nanos=17 * USD)], alerts_at=(0.5, 0.8))
            while len(told) < 2:
                await asyncio.sleep(0.05)
            assert [one.share for one in told if isinstance(one, BudgetReached)][1:] == [0.5]
            for watch in watches:
                watch.cancel()

    run(test)


# What happens in one moment.


class Another:
    """Another replica in the middle of a transaction, with the money in its hand."""

    def __init__(self, kept: Kept) -> None:
        assert kept.store is not None
        self._connection = psycopg.connect(kept.store)
        for number, mode in ((3, ""), (1, "_shared")):
            self.run(f"SELECT pg_advisory_xact_lock{mode}(1952542311, {number})")

    def run(self, sql: str) -> None:
        self._connection.execute(sql.encode())

    async def commit(self) -> None:
        """Be done, after those who wait for it have had time to come to where they wait."""
        await asyncio.sleep(0.2)
        self._connection.commit()
        self._connection.close()


@asynccontextmanager
async def busy_writer(kept: Kept, one: Replica) -> AsyncIterator[Another]:
    """Keep a replica's writer in a transaction, so that what is handed in now is one batch."""
    await one[1].balances(BEGAN_NS)
    another = Another(kept)
    first = asyncio.create_task(one[0].hold(asked(900, 0)))
    await asyncio.sleep(0.1)
    yield another
    await another.commit()
    await first


def test_nobody_decides_while_another_does(postgres_places: Places) -> None:
    """A hold waits for what another replica is about to write, and counts it."""

    async def test() -> None:
        kept = postgres_places.new()
        async with replicas(kept) as ((_, one), _):
            await one.balances(BEGAN_NS)
            another = Another(kept)
            another.run(f"UPDATE balance SET held_nanos = {9 * USD}")
            asking = asyncio.create_task(one.hold(asked(1, 5)))
            await another.commit()
            with pytest.raises(BudgetBusy, match=r"\$9 held"):
                await asking

    run(test)


def test_of_those_that_ask_together_as_many_get_in_as_fit(postgres_places: Places) -> None:
    """In one batch, and in their order."""

    async def test() -> None:
        kept = postgres_places.new()
        async with replicas(kept) as (one, _):
            async with busy_writer(kept, one):
                asking = [asyncio.create_task(one[1].hold(asked(n, 3))) for n in range(1, 8)]
                await asyncio.sleep(0)
            told = await asyncio.gather(*asking, return_exceptions=True)
            assert [type(error) for error in told] == [type(None)] * 3 + [BudgetBusy] * 4
            assert await amounts(one[1]) == [(0, 0, 9)]

    run(test)


def test_nobody_overtakes_whom_the_same_ceiling_holds_up(postgres_places: Places) -> None:
    """In one batch; what another ceiling holds up is nothing to it."""

    async def test() -> None:
        kept = postgres_places.new()
        bob = replace(KEY, name="bob")
        async with replicas(kept, (KEY, bob)) as (one, _):
            await one[1].hold(asked(1, 3))
            async with busy_writer(kept, one):
                asking = [
                    asyncio.create_task(one[1].hold(asked(n, usd, key=key)))
                    for n, usd, key in ((2, 2, "alice"), (3, 0.5, "alice"), (4, 0.5, "bob"))
                ]
                await asyncio.sleep(0)
            told = await asyncio.gather(*asking, return_exceptions=True)
            assert [type(error) for error in told] == [BudgetBusy, BudgetBusy, type(None)]

    run(test)


def test_what_settles_gives_its_money_back_before_others_ask(postgres_places: Places) -> None:
    """In one batch; a hold that is called off with its settlement leaves nothing."""

    async def test() -> None:
        kept = postgres_places.new()
        async with replicas(kept) as (one, _):
            await one[1].hold(asked(1, 8))
            async with busy_writer(kept, one):
                one[1].settle(cost(1, 1))
                asking = asyncio.create_task(one[1].hold(asked(2, 9)))
                await asyncio.sleep(0)
            await asking
            assert await amounts(one[1]) == [(1, 0, 9)]

    run(test)


def test_a_hold_that_is_called_off_on_its_way_is_released(postgres_places: Places) -> None:
    """It may have been written, and nobody will settle it."""

    async def test() -> None:
        kept = postgres_places.new()
        async with replicas(kept) as (one, _):
            async with busy_writer(kept, one):
                asking = asyncio.create_task(one[1].hold(asked(1, 8)))
                await asyncio.sleep(0.01)
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)
            await one[0].flush()
            assert await amounts(one[1]) == [(0, 0, 0)]

    run(test)


def test_a_balance_is_made_while_nobody_writes(postgres_places: Places) -> None:
    """What somebody is about to write is in it."""

    async def test() -> None:
        kept = postgres_places.new()
        async with replicas(kept, ()) as ((journal, one), _):
            await one.hold(asked(1, 2))
            assert kept.store is not None
            with psycopg.connect(kept.store) as writing:
                writing.execute("SELECT pg_advisory_xact_lock_shared(1952542311, 1)")
                writing.execute(
                    "INSERT INTO attempt (call_id, n, provider, model, tier, queued_ns, permit_ns, in_flight,"
                    " owner_epoch, bound_nanos) SELECT call_id, 2, provider, model, tier, queued_ns,"
                    " permit_ns, in_flight, owner_epoch, bound_nanos FROM attempt"
                )
                making = asyncio.create_task(journal.balances([Claim(CAP, CAP.window(BEGAN_NS))]))
                await asyncio.sleep(0.2)
                assert not making.done()
            (balance,) = await making
            assert balance.held_nanos == 4 * USD

    run(test)


@pytest.mark.parametrize("seed", range(12))
def test_balances_are_those_of_the_records(postgres_places: Places, seed: int) -> None:
    """Whatever happens to attempts, at whichever replica: made anew from the records they are the same."""
    chance = random.Random(seed)

    async def act(books: Sequence[Replica], number: int, open_holds: list[int], done: list[int]) -> None:
        journal, book = chance.choice(books)
        match chance.choice(["hold", "hold", "settle", "release", "adjust", "resolve", "again"]):
            case "hold":
                day = chance.randrange(40) * 86_400_000
                hold = asked(
                    day + number,
                    chance.choice([None, chance.random()]),
                    key=chance.choice(["alice", "bob"]),
                    team=chance.choice([None, "blue"]),
                    target=chance.choice([HOSTED, PRIVATE]),
                )
                try:
                    await book.hold(hold)
                except Unaffordable:
                    return
                open_holds.append(day + number)
            case "settle" if open_holds:
                done.append(open_holds.pop(chance.randrange(len(open_holds))))
                # At the replica that holds it; the other one's settlement changes nothing.
                for _, each in books:
                    each.settle(cost(done[-1], chance.random()))
            case "release" if open_holds:
                gone = open_holds.pop(chance.randrange(len(open_holds)))
                for _, each in books:
                    each.settle(released(gone))
            case "adjust" if done:
                delta = int((chance.random() - 0.5) * USD)
                await book.adjust(opened(chance.choice(done)).call.id, 1, delta, "so it is")
            case "resolve" if done:
                await book.resolve(opened(chance.choice(done)).call.id, 1, USD // 3)
            case "again" if done:
                book.settle(cost(chance.choice(done), 3))
            case _:
                await journal.flush()

    def seen(balances: Sequence[Balance]) -> list[tuple[int, int, int]]:
        return [(one.spent_nanos, one.lapsed_nanos, one.held_nanos) for one in balances]

    async def test() -> None:
        kept = postgres_places.new()
        ceilings = [
            replace(one, amount_nanos=1000 * USD, allows_unbounded=True) for one in (CAP, KEY, *OTHERS)
        ]
        days = [BEGAN_NS + day * 86_400 * USD for day in range(0, 40, 3)]
        async with replicas(kept, ceilings) as pair:
            open_holds: list[int] = []
            done: list[int] = []
            for number in range(1, 150):
                await act(pair, number, open_holds, done)
            for journal, _ in pair:
                await journal.flush()
            claims = [Claim(one, one.window(day)) for day in days for one in ceilings]
            unique = {(claim.ceiling.id, claim.window.start_ns): claim for claim in claims}
            journal = pair[0][0]
            before = seen(await journal.balances(list(unique.values())))
            kept.rows("DELETE FROM balance")
            assert seen(await journal.balances(list(unique.values()))) == before
        # Both have left; what they held lapses for the next one.
        async with kept.journal(randomness=os.urandom) as journal:
            after = seen(await journal.balances(list(unique.values())))
            kept.rows("DELETE FROM balance")
            assert seen(await journal.balances(list(unique.values()))) == after
            assert all(still_held == 0 for _, _, still_held in after)
            assert sum(spent for spent, _, _ in after) >= sum(spent for spent, _, _ in before)

    run(test)


def test_windows_that_begin_together_may_end_apart(postgres_places: Places) -> None:
    """March in UTC and in London: after a reload of the time zone there is another balance."""
    march_ns = int(datetime(2026, 3, 10, 12, tzinfo=UTC).timestamp()) * 10**9

    def in_march(number: int) -> Held:
        at_ns = march_ns + number * 1_000_000
        call_id = new_id(at_ns, number.to_bytes(10, "big"))
        return held(number, opened=opened(number, id=call_id, received_ns=at_ns), bound_nanos=USD)

    async def test() -> None:
        async with postgres_places.new().journal(randomness=os.urandom) as journal:
            book = book_of(journal, [CAP])
            await book.hold(in_march(1))
            book.use([replace(CAP, zone="Europe/London")], alerts_at=())
            await book.hold(in_march(2))
            (balance,) = await book.balances(march_ns)
            assert (balance.ceiling.zone, balance.held_nanos) == ("Europe/London", 2 * USD)

    run(test)


def test_a_balance_that_is_gone_is_made_again(postgres_places: Places) -> None:
    """As after somebody restored a part of a database; nobody else in its batch is held up."""

    async def test() -> None:
        kept = postgres_places.new()
        async with replicas(kept) as ((_, one), _):
            await one.hold(asked(1, 6))
            one.settle(cost(1, 6))
            await one.balances(BEGAN_NS)
            async with await psycopg.AsyncConnection.connect(kept.store or "", autocommit=True) as other:
                await other.execute("DELETE FROM balance")
            with pytest.raises(BudgetExceeded):
                await one.hold(asked(2, 5))
            await one.hold(asked(3, 4))

    run(test)


def test_an_attempt_may_use_what_the_one_before_it_gave_back(postgres_places: Places) -> None:
    """Both come in one batch, as a call asks the next target."""

    async def test() -> None:
        async with replicas(postgres_places.new()) as ((_, one), _):
            call = opened(1)
            await one.hold(held(1, 1, opened=call, bound_nanos=6 * USD))
            one.settle(released(1))
            await one.hold(held(1, 2, opened=call, bound_nanos=6 * USD))

    run(test)
