"""PostgreSQL's own faults: servers that stop, connections that break, replicas that fall silent."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from contract.ledger_records import closed, held, opened, settled
from cut import Cut, Wire
from places import Kept, Places
from postgres import Server, run
from tiergate.core import CannotStart, EndState, Event, Notice, StorageUnavailable
from tiergate.ledger import Entry, HoldState
from tiergate.store import LedgerJournal, WriterLimits, place_of
from tiergate.store.postgres.connection import Address
from tiergate.store.postgres.opening import open_books
from tiergate.store.postgres.reading import Readings
from tiergate.store.postgres.session import Lives
from tiergate.store.rollups import sum_slot
from tiergate.testing import FakeClock

PATIENT = WriterLimits(hold_wait_s=60)
HASTY = WriterLimits(hold_wait_s=0)
MINUTE_NS = 60_000_000_000


@pytest.fixture
def kept(postgres_places: Places) -> Kept:
    """An empty ledger on the server."""
    return postgres_places.new()


def play(test: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await test

    asyncio.run(bounded())


async def until(look: Callable[[], object]) -> None:
    while not look():
        await asyncio.sleep(0.01)


async def entry(journal: LedgerJournal, number: int) -> Entry:
    found = await journal.entry(opened(number).call.id)
    assert found is not None
    return found


def states(entries: list[Entry]) -> list[list[HoldState]]:
    return [[attempt.state for attempt in one.attempts] for one in entries]


class Heard:
    """Notices that were heard."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def __call__(self, event: Event) -> None:
        assert isinstance(event, Notice)
        self.words.append(event.word)


# --- the server stops -----------------------------------------------------------------------------------


def test_a_server_that_restarts_under_load_loses_nothing(kept: Kept, postgres_server: Server) -> None:
    """F-restart: holds wait, settlements and ends are written once it is back, every one of them once."""
    heard = Heard()

    async def call(journal: LedgerJournal, number: int) -> None:
        await journal.hold(held(number))
        await asyncio.sleep(0)
        journal.settle(settled(number, cash_nanos=number))
        journal.close(closed(number))

    async def calls(journal: LedgerJournal, first: int) -> None:
        for number in range(first, first + 200, 8):
            await call(journal, number)

    async def test() -> None:
        async with kept.journal(randomness=os.urandom, emit=heard, limits=PATIENT) as journal:
            load = asyncio.gather(*(calls(journal, first) for first in range(1, 9)))
            await until(lambda: journal.statistics().records > 60)
            await asyncio.to_thread(postgres_server.crash)
            await asyncio.to_thread(postgres_server.start)
            await load
            entries = await journal.entries(limit=500)
            assert [one.attempts[0].cash_nanos for one in entries] == list(range(1, 201))
            assert {one.end for one in entries} == {EndState.SUCCESS}
            statistics = journal.statistics()
            assert (statistics.refused, statistics.lost, statistics.waiting) == (0, 0, 0)
        assert heard.words == []

    play(test())
    assert kept.rows("SELECT state FROM owner") == [("left",)]


def test_a_server_that_stays_away_refuses_holds_and_keeps_settlements(
    kept: Kept, postgres_server: Server
) -> None:
    """Past its bound a hold is refused; an operator is told, and told when it is over."""
    heard = Heard()

    async def test() -> None:
        async with kept.journal(randomness=os.urandom, emit=heard, limits=HASTY) as journal:
            await journal.hold(held(1))
            await asyncio.to_thread(postgres_server.crash)
            try:
                journal.settle(settled(1))
                with pytest.raises(StorageUnavailable, match="out of reach"):
                    await journal.hold(held(2))
                with pytest.raises(StorageUnavailable, match="cannot be read"):
                    await journal.counted(limit=5)
            finally:
                await asyncio.to_thread(postgres_server.start)
            await journal.flush()
            assert states(await journal.entries()) == [[HoldState.SETTLED]]
            await until(lambda: "ledger_recovered" in heard.words)
        assert heard.words == ["ledger_locked", "ledger_recovered"]

    play(test())


def test_looks_survive_a_restart(kept: Kept, postgres_server: Server) -> None:
    """A connection that was kept for the next look is dead by then, and nobody notices."""

    async def test() -> None:
        async with kept.journal(randomness=os.urandom) as journal:
            assert await journal.counted(limit=5) == []
            await asyncio.to_thread(postgres_server.crash)
            await asyncio.to_thread(postgres_server.start)
            assert await journal.counted(limit=5) == []

    play(test())


def test_a_backend_that_an_operator_ends_takes_nothing_with_it(kept: Kept) -> None:
    """Ended again and again while calls are written: every hold stands once, every call ends."""

    async def test() -> None:
        async with kept.journal(randomness=os.urandom, limits=PATIENT) as journal:
            endings = []
            for number in range(1, 61):
                if number % 3 == 0:
                    endings.append(asyncio.create_task(asyncio.to_thread(kept.rows, _END_BACKENDS)))
                await journal.hold(held(number))
                journal.settle(settled(number, cash_nanos=number))
                journal.close(closed(number))
            await asyncio.gather(*endings)
            await journal.flush()
            assert journal.statistics().lost == journal.statistics().refused == 0
        entries = kept.rows("SELECT n, cash_nanos FROM attempt ORDER BY call_id")
        assert entries == [(1, number) for number in range(1, 61)]

    play(test())


_END_BACKENDS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tiergate'
"""


def test_what_no_database_can_hold_is_spelled_out(kept: Kept) -> None:
    """NUL and half characters from a caller refuse no call, and numbers over 64 bits no settlement."""
    heard = Heard()

    async def test() -> None:
        async with kept.journal(randomness=os.urandom, emit=heard) as journal:
            for number, name in enumerate(("gpt-\0", "gpt-\ud800", '{"a\\", NULL}'), start=1):
                await journal.hold(held(number, opened=opened(number, asked_model=name)))
            journal.settle(settled(1, cash_nanos=10**30))
            await journal.flush()
            entries = await journal.entries()
            assert [one.asked_model for one in entries] == ["gpt-\\x00", "gpt-\\ud800", '{"a\\", NULL}']
            assert entries[0].attempts[0].cash_nanos == 10**15
        assert heard.words == ["ledger_value_forced"] * 3

    play(test())


# --- the connection breaks during a commit --------------------------------------------------------------


@pytest.mark.parametrize("when", list(Cut), ids=lambda when: when.name)
def test_a_commit_whose_end_nobody_saw_is_done_once(kept: Kept, postgres_server: Server, when: Cut) -> None:
    """Whether the server had done it or not: a hold stands, a settlement counts, a call ends, once."""

    async def test() -> None:
        with Wire(postgres_server.socket) as wire:
            async with kept.through(wire.folder).journal(randomness=os.urandom, limits=PATIENT) as journal:
                wire.cut = when
                await journal.hold(held(1))
                wire.cut = when
                journal.settle(settled(1, cash_nanos=7))
                journal.close(closed(1))
                await journal.flush()
                assert wire.cuts == 2
                found = await entry(journal, 1)
                assert states([found]) == [[HoldState.SETTLED]]
                assert (found.attempts[0].cash_nanos, found.end) == (7, EndState.SUCCESS)
                with pytest.raises(StorageUnavailable):
                    await journal.hold(held(1))

    play(test())


@pytest.mark.parametrize("when", list(Cut), ids=lambda when: when.name)
def test_a_hold_that_is_refused_in_doubt_does_not_stay(
    kept: Kept, postgres_server: Server, when: Cut
) -> None:
    """Whoever asked was told that nothing stands, so that nobody would settle it: it is released."""

    async def test() -> None:
        with Wire(postgres_server.socket) as wire:
            async with kept.through(wire.folder).journal(randomness=os.urandom, limits=HASTY) as journal:
                wire.cut = when
                with pytest.raises(StorageUnavailable, match="out of reach"):
                    await journal.hold(held(1))
                await journal.flush()
                statistics = journal.statistics()
                assert (statistics.waiting, statistics.refused, statistics.lost) == (0, 1, 0)
                found = await journal.entries()
                assert states(found) == ([] if when is Cut.BEFORE else [[HoldState.RELEASED]])

    play(test())


def test_a_correction_in_doubt_says_so(kept: Kept, postgres_server: Server) -> None:
    """An adjustment that may stand is not written twice by the next try: people look first."""

    async def test() -> None:
        with Wire(postgres_server.socket) as wire:
            async with kept.through(wire.folder).journal(randomness=os.urandom, limits=PATIENT) as journal:
                await journal.hold(held(1))
                journal.settle(settled(1))
                await journal.flush()
                wire.cut = Cut.AFTER
                with pytest.raises(StorageUnavailable, match="Look whether it was"):
                    await journal.adjust(opened(1).call.id, 1, 5, "seen on the invoice")
        assert kept.count("adjustment") == 1

    play(test())


# --- owners side by side --------------------------------------------------------------------------------


def test_two_owners_write_side_by_side(kept: Kept) -> None:
    """Neither takes the other for dead, and each sees what both have spent."""
    other = kept.replica()

    async def test() -> None:
        async with kept.journal(randomness=os.urandom) as one, other.journal(randomness=os.urandom) as two:
            assert one.owner.epoch != two.owner.epoch
            await one.hold(held(1))
            await two.hold(held(2))
            await two.hold(held(3))
            two.settle(settled(1, cash_nanos=9))  # of the other owner's hold: not its to settle
            two.settle(settled(2, cash_nanos=7))
            await two.flush()
            one.settle(settled(1, cash_nanos=5))
            await one.flush()
            for journal in (one, two):
                spent = await journal.spent(0, None)
                assert sum(one.spent_nanos for one in spent) == 12
            assert states(await one.entries()) == [
                [HoldState.SETTLED],
                [HoldState.SETTLED],
                [HoldState.HELD],
            ]
            assert (await entry(two, 1)).attempts[0].cash_nanos == 5

    play(test())


def test_two_owners_cannot_give_back_the_same_money(kept: Kept) -> None:
    """Of two adjustments that take all of a cost away, at the same time, one finds nothing left."""
    other = kept.replica()
    call_id, cost = opened(1).call.id, 1_000

    async def test() -> None:
        async with kept.journal(randomness=os.urandom) as one, other.journal(randomness=os.urandom) as two:
            await one.hold(held(1))
            one.settle(settled(1, cash_nanos=cost))
            await one.flush()
            inside, go_on = threading.Event(), threading.Event()
            facts = {"call_id": call_id, "n": 1, "delta_nanos": -cost, "reason": "", "now_ns": 1}

            def slowly(books: Any) -> None:
                with books.session.transaction():
                    books.session.rows("ledger", "settled_cash", {"call_id": call_id, "n": 1})
                    books.session.run("ledger", "adjust", {**facts, "owner_epoch": 1})
                    inside.set()
                    go_on.wait(20)

            writing = asyncio.create_task(one._work(slowly))
            await asyncio.to_thread(inside.wait)
            adjusting = asyncio.create_task(two.adjust(call_id, 1, -cost, "the same"))
            await until(lambda: adjusting.done() or kept.rows(_WAITING_FOR_ANYTHING) != [])
            go_on.set()
            await writing
            assert not await adjusting

    play(test())


_WAITING_FOR_ANYTHING = "SELECT 1 FROM pg_locks WHERE NOT granted"


def test_a_look_sees_one_moment(kept: Kept) -> None:
    """That of its opening, also in what it asks later."""
    assert kept.store is not None
    readings = Readings(Address(kept.store))

    async def test() -> None:
        async with kept.journal(randomness=os.urandom) as journal:
            await journal.hold(held(1))
            with closing(readings.open()) as reading:
                for number in (2, 3):
                    await journal.hold(held(number))
                    assert len(reading.rows("ledger", "read_calls", {"after": "", "limit": 9})) == 1

    play(test())
    readings.close()


async def beat(journal: LedgerJournal) -> Any:
    """Let an owner say that it lives, and look for those that do not."""
    return await journal._work(lambda books: books.heartbeat(0))


def let_pass(kept: Kept, journal: LedgerJournal, *, silent: bool, by_ns: int = MINUTE_NS) -> None:
    """Let time pass for an owner: it was silent, or its heart has beaten steadily."""
    column = "heartbeat_ns" if silent else "steady_ns"
    kept.rows(f"UPDATE owner SET {column} = {column} - {by_ns} WHERE epoch = {journal.owner.epoch}")


def test_who_is_silent_is_buried_and_then_refused(kept: Kept) -> None:
    """F46: its holds lapse and stay charged, and nothing that it says afterwards is written."""
    other, heard, heard_too = kept.replica(), Heard(), Heard()

    async def test() -> None:
        async with (
            kept.journal(randomness=os.urandom, emit=heard) as dead,
            other.journal(randomness=os.urandom, emit=heard_too) as alive,
        ):
            await dead.hold(held(1))
            await alive.hold(held(2))
            let_pass(kept, dead, silent=True)
            let_pass(kept, alive, silent=False)
            lapsed = await beat(alive)
            assert (lapsed.holds, lapsed.calls) == (1, 1)
            dead.settle(settled(1, cash_nanos=1))
            with pytest.raises(StorageUnavailable, match="taken over"):
                await dead.hold(held(3))
            entries = await alive.entries()
            assert states(entries) == [[HoldState.LAPSED], [HoldState.HELD]]
            assert [one.end for one in entries] == [EndState.LAPSED, None]
            assert sum(one.lapsed_nanos for one in await alive.spent(0, None)) == 5_000_000
            assert dead.statistics().lost == 1
        assert heard.words == ["ledger_broken"]

    play(test())


def test_what_lapsed_elsewhere_is_told_here(kept: Kept) -> None:
    """The writing thread tells of it by itself, with its next heartbeat."""
    other, heard = kept.replica(), Heard()

    async def test() -> None:
        async with (
            kept.journal(randomness=os.urandom) as dead,
            other.journal(randomness=os.urandom, emit=heard) as alive,
        ):
            await dead.hold(held(1))
            let_pass(kept, dead, silent=True)
            let_pass(kept, alive, silent=False)
            assert alive._writer._scribe is not None
            alive._writer._scribe._beat_at = 0.0
            await alive.flush()
            await until(lambda: heard.words == ["ledger_lapsed"])

    play(test())


def test_nobody_is_buried_after_the_database_was_out_of_reach(kept: Kept) -> None:
    """Then all hearts have stopped: whoever comes back first gives the others time."""
    other = kept.replica()

    async def test() -> None:
        async with kept.journal(randomness=os.urandom) as one, other.journal(randomness=os.urandom) as two:
            await one.hold(held(1))
            for journal in (one, two):
                let_pass(kept, journal, silent=False, by_ns=10 * MINUTE_NS)
                let_pass(kept, journal, silent=True)
            assert (await beat(two)).holds == 0
            await one.hold(held(2))
            assert states(await one.entries()) == [[HoldState.HELD], [HoldState.HELD]]

    play(test())


def test_whoever_comes_back_to_a_data_folder_buries_its_last_owner_at_once(kept: Kept) -> None:
    """The folder's lock was free, so that one is dead, however fresh its last heartbeat is."""
    other, heard = kept.replica(), Heard()

    async def test() -> None:
        left = await kept.journal(randomness=os.urandom).__aenter__()
        async with other.journal(randomness=os.urandom) as beside:
            await left.hold(held(1))
            await beside.hold(held(2))
            async with kept.journal(randomness=os.urandom, emit=heard) as again:
                assert states(await again.entries()) == [[HoldState.LAPSED], [HoldState.HELD]]
        await left.__aexit__(None, None, None)
        assert heard.words == ["ledger_lapsed"]

    play(test())


def test_whoever_comes_back_waits_for_the_last_transaction_of_its_seat(kept: Kept) -> None:
    """The server may not have heard yet that the process is gone: it is buried all the same."""

    async def test() -> None:
        left = await kept.journal(randomness=os.urandom).__aenter__()
        await left.hold(held(1))
        inside, go_on = threading.Event(), threading.Event()

        def slowly(books: Any) -> None:
            with books.session.transaction():
                inside.set()
                go_on.wait(20)

        writing = asyncio.create_task(left._work(slowly))
        await asyncio.to_thread(inside.wait)
        again = kept.journal(randomness=os.urandom)
        coming = asyncio.create_task(again.__aenter__())
        await until(lambda: kept.rows(_WAITING_FOR_ANYTHING) != [])
        go_on.set()
        await asyncio.gather(writing, coming)
        assert states(await again.entries()) == [[HoldState.LAPSED]]
        for journal in (again, left):
            await journal.__aexit__(None, None, None)

    play(test())


@pytest.mark.parametrize("is_fresh", [True, False], ids=["server just started", "server long there"])
def test_who_fell_silent_while_nobody_lived_is_buried_by_the_next(kept: Kept, *, is_fresh: bool) -> None:
    """Once the server itself has been there for as long; before that nobody's heart could beat."""
    assert kept.store is not None
    address = Address(kept.store)
    dead_after_s = 10.0**7 if is_fresh else 0.001

    async def test() -> None:
        left = await kept.journal(randomness=os.urandom).__aenter__()
        await left.hold(held(1))
        let_pass(kept, left, silent=True, by_ns=int(2 * 10**7 * 1e9))
        lives = Lives(seat="another", pid=1, dead_after_s=dead_after_s)
        books = await asyncio.to_thread(
            open_books, address, Readings(address), owner_id="another", lives=lives
        )
        assert books.lapsed.holds == (0 if is_fresh else 1)
        books.close()
        await left.__aexit__(None, None, None)

    play(test())


def test_a_burial_waits_for_nobody_and_nobody_writes_after_it(kept: Kept) -> None:
    """Who is in the middle of a transaction is passed over; it ends, and then it is buried."""
    other = kept.replica()

    async def test() -> None:
        async with kept.journal(randomness=os.urandom) as dead, other.journal(randomness=os.urandom) as alive:
            let_pass(kept, dead, silent=True)
            let_pass(kept, alive, silent=False)
            inside, go_on = threading.Event(), threading.Event()

            def slowly(books: Any) -> None:
                with books.session.transaction():
                    inside.set()
                    go_on.wait(20)

            writing = asyncio.create_task(dead._work(slowly))
            await asyncio.to_thread(inside.wait)
            await beat(alive)
            assert kept.rows("SELECT state FROM owner ORDER BY epoch") == [("alive",), ("alive",)]
            go_on.set()
            await writing
            await beat(alive)
            assert kept.rows("SELECT state FROM owner ORDER BY epoch") == [("dead",), ("alive",)]

    play(test())


_STOPPED = """
import asyncio, os, sys
from pathlib import Path
from contract.ledger_records import held
from tiergate.core import StorageUnavailable, SystemClock
from tiergate.store import OwnerLock, place_of

async def main():
    folder = Path(sys.argv[1])
    with OwnerLock.acquire(folder):
        place = place_of(folder, sys.argv[2])
        async with place.journal(clock=SystemClock(), randomness=os.urandom, emit=lambda _: None) as journal:
            await journal.hold(held(1))
            print(journal.owner.epoch, flush=True)
            sys.stdin.readline()
            try:
                await journal.hold(held(2))
            except StorageUnavailable as error:
                print(error, flush=True)

asyncio.run(main())
"""


def test_a_process_that_was_stopped_for_a_minute_is_refused(kept: Kept) -> None:
    """SIGSTOP, burial by another replica, SIGCONT: nothing may be sent any more."""
    other = kept.replica()
    tests = Path(__file__).parents[1]

    async def test() -> None:
        async with other.journal(randomness=os.urandom) as alive:
            let_pass(kept, alive, silent=False)
            command = [sys.executable, "-c", _STOPPED, str(kept.folder), str(kept.store)]
            path = os.pathsep.join([str(tests), str(tests.parent / "src")])
            with subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=os.environ | {"PYTHONPATH": path},
            ) as process:
                assert process.stdout is not None and process.stdin is not None
                epoch = int(await asyncio.to_thread(process.stdout.readline))
                process.send_signal(signal.SIGSTOP)
                try:
                    silent = f"heartbeat_ns = heartbeat_ns - {MINUTE_NS}"
                    kept.rows(f"UPDATE owner SET {silent} WHERE epoch = {epoch}")
                    # Stopped in the middle of a heartbeat it is passed over, until the server ends that.
                    while not (await beat(alive)).holds:
                        await asyncio.sleep(0.1)
                finally:
                    process.send_signal(signal.SIGCONT)
                said, _ = await asyncio.to_thread(process.communicate, "\n")
            assert "taken over" in said
            assert states(await alive.entries()) == [[HoldState.LAPSED]]

    play(test())


# --- sums that several owners write under ---------------------------------------------------------------

LATER_NS = held(1).opened.call.received_ns + 60 * MINUTE_NS


async def ended(journal: LedgerJournal, number: int) -> None:
    await journal.hold(held(number))
    journal.settle(settled(number, cash_nanos=number))
    journal.close(closed(number))
    await journal.flush()


async def sums(kept: Kept) -> int:
    await asyncio.sleep(0)
    found: int = kept.rows("SELECT coalesce(sum(cash_nanos), 0) FROM rollup")[0][0]
    return int(found)


def test_a_record_of_another_replica_while_a_slot_is_added_up_is_not_lost(kept: Kept) -> None:
    """The sums that miss it are not put in place, by whomever."""
    other = kept.replica()

    async def test() -> None:
        async with kept.journal(randomness=os.urandom) as one, other.journal(randomness=os.urandom) as two:
            await ended(one, 1)
            slot_ns = await one._work(lambda books: books.begin_slot(LATER_NS))
            assert slot_ns is not None
            rows = sum_slot(one._look, slot_ns)
            await ended(two, 2)
            assert not await one._work(lambda books: books.end_slot(slot_ns, rows))
            assert await two.add_up(closed_before_ns=LATER_NS)
            assert await sums(kept) == 3

    play(test())


def test_a_slot_that_two_replicas_add_up_is_put_in_place_once(kept: Kept) -> None:
    """The second takes it over; what the first has added up is not put in place."""
    other = kept.replica()

    async def test() -> None:
        async with kept.journal(randomness=os.urandom) as one, other.journal(randomness=os.urandom) as two:
            await ended(one, 1)
            begun = [await journal._work(lambda books: books.begin_slot(LATER_NS)) for journal in (one, two)]
            assert begun[0] == begun[1] is not None
            rows = sum_slot(one._look, begun[0])
            put = [
                await journal._work(lambda books: books.end_slot(begun[0], rows)) for journal in (one, two)
            ]
            assert put == [False, True]
            assert await sums(kept) == 1

    play(test())


def test_how_far_sums_have_come_is_moved_when_nobody_writes(kept: Kept) -> None:
    """A record that was on its way meanwhile is in the sums."""
    other = kept.replica()

    async def test() -> None:
        async with kept.journal(randomness=os.urandom) as one, other.journal(randomness=os.urandom) as two:
            await ended(one, 1)
            await one.hold(held(2))
            inside, go_on = threading.Event(), threading.Event()

            def slowly(books: Any) -> None:
                with books.session.transaction():
                    books.session.run("keys", "revoke", {"now_ns": 1, "name": "nobody"})
                    inside.set()
                    go_on.wait(20)

            one.settle(settled(2, cash_nanos=2))
            one.close(closed(2))
            await one.flush()
            writing = asyncio.create_task(one._work(slowly))
            await asyncio.to_thread(inside.wait)
            adding = asyncio.create_task(two.add_up(closed_before_ns=LATER_NS))
            await until(lambda: kept.rows(_WAITING) != [])
            assert await sums(kept) == 0
            go_on.set()
            await asyncio.gather(writing, adding)
            assert await sums(kept) == 3

    play(test())


_WAITING = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


# --- starting -------------------------------------------------------------------------------------------


def test_replicas_that_start_together_take_each_migration_once(kept: Kept) -> None:
    """Four at once on an empty database: all start, each with an epoch of its own."""
    replicas = [kept.replica() for _ in range(4)]

    async def start(replica: Kept) -> int:
        async with replica.journal(randomness=os.urandom) as journal:
            return journal.owner.epoch

    async def test() -> None:
        epochs = await asyncio.gather(*map(start, replicas))
        assert len(set(epochs)) == 4

    play(test())
    assert kept.rows("SELECT version FROM schema_version") == [(5,)]


async def fail(store: str, folder: Path) -> str:
    """Start on an address where that is not possible; give what is said."""
    try:
        async with place_of(folder, store).journal(clock=FakeClock(), randomness=bytes, emit=lambda _: None):
            return "it has started"
    except CannotStart as error:
        return str(error)


def starts_not(store: str, folder: Path) -> str:
    said: list[str] = []

    async def test() -> None:
        said.append(await fail(store, folder))

    play(test())
    assert "geheim" not in said[0]
    return said[0]


def test_who_cannot_reach_the_database_hears_what_to_do(postgres_server: Server, tmp_path: Path) -> None:
    """Host, password, role, database: each has a sentence, and none shows the password."""
    nobody = "postgresql://tiergate:geheim@127.0.0.1:1/ledger"
    said = starts_not(nobody, tmp_path)
    assert "postgresql://tiergate@127.0.0.1:1/ledger" in said and "Start the server" in said
    run(postgres_server.uri, "CREATE ROLE locked LOGIN PASSWORD 'right'")
    postgres_server.lock_out("locked")
    host = postgres_server.uri.partition("?")[2]
    try:
        said = starts_not(f"postgresql://locked:geheim@/postgres?{host}", tmp_path)
        assert "Look at user and password" in said
    finally:
        run(postgres_server.uri, "DROP ROLE locked")
    assert "CREATE DATABASE" in starts_not(f"postgresql://postgres:geheim@/none?{host}", tmp_path)
    assert "CREATE ROLE" in starts_not(f"postgresql://somebody:geheim@/postgres?{host}", tmp_path)
    assert "percent-encoded" in starts_not("postgresql://a:geheim@[h/x", tmp_path)


_BY_BYTES = """
SELECT table_name, column_name FROM information_schema.columns
WHERE collation_name = 'C' AND table_schema = current_schema() AND table_name <> 'receipt'
ORDER BY table_name, column_name
"""
"""Ranges of ids are ranges of time only where they compare so, whatever language the server speaks."""
_ID_COLUMNS = [
    *[("adjustment", "call_id"), ("attempt", "call_id"), ("call", "id"), ("file", "id")],
    *[("file_part", "file_id"), ("job", "id"), ("line", "error_code")],
]


def test_a_database_that_is_not_ours_or_newer_is_left_alone(kept: Kept) -> None:
    """A table of another program, or a schema that this version does not know."""
    assert kept.store is not None
    kept.rows("CREATE TABLE call (number integer)")
    assert "a database of its own" in starts_not(kept.store, kept.folder)
    kept.rows("DROP TABLE call")

    async def test() -> None:
        async with kept.journal():
            pass

    play(test())
    assert kept.rows(_BY_BYTES) == _ID_COLUMNS
    kept.rows("UPDATE schema_version SET version = 99")
    assert "a newer Tiergate wrote it" in starts_not(kept.store, kept.folder)


def test_a_database_that_nobody_has_used_holds_no_ledger(kept: Kept) -> None:
    """Reports say so."""
    assert kept.store is not None
    with pytest.raises(CannotStart, match="no gateway has used it"):
        place_of(kept.folder, kept.store).past()


def test_without_its_driver_the_start_names_the_extra() -> None:
    """An installation without extras says how to get it, and only where the setting asks for it."""
    program = """
import sys
sys.modules["psycopg"] = None
from pathlib import Path
from tiergate.core import CannotStart
from tiergate.store import place_of
place_of(Path(), None)
try:
    place_of(Path(), "postgresql://h/d")
except CannotStart as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "pip install 'tiergate[postgres]'" in done.stdout


def test_whoever_needs_no_database_loads_no_driver() -> None:
    """Starting stays as quick as it was."""
    program = "import sys, tiergate.app.cli, tiergate.app.house; print('psycopg' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
