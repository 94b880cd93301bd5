"""What every journal promises of receipts; and what becomes of one on disk whose owner died."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from msgspec import structs

from contract.ledger_records import BEGAN_NS, closed, held, opened, settled
from places import Kept as KeptLedger
from places import Places
from tiergate.core import EndState, IdempotencyKeyInUse, Outcome, ReceiptUse, StorageUnavailable, Usage
from tiergate.ledger import (
    Answered,
    CallClosed,
    CallOpened,
    Fresh,
    Held,
    Journal,
    Kept,
    Looked,
    Receipt,
    ReceiptEntry,
    ReceiptMaker,
    ReceiptState,
    Settled,
    Shared,
    judge,
)
from tiergate.store import LEDGER_FILE
from tiergate.testing.journal import MemoryJournal

OpenJournal = Callable[[], AbstractAsyncContextManager[Journal]]
MAKER = ReceiptMaker("secret")
ANSWER = b"the answer \x00\xff"


def receipt_of(number: int, *, key: str = "k", question: bytes = b"{}", kept_s: float = 3600) -> Receipt:
    call = structs.replace(opened(number).call, idempotency_key=key)
    return MAKER.receipt(call, question, kept_s=kept_s)


def asking(number: int, resent_of: str | None = None, **changes: Any) -> CallOpened:
    """The beginning of a call that has a receipt."""
    return structs.replace(opened(number), receipt=receipt_of(number, **changes), resent_of=resent_of)


def holding(asked: CallOpened, number: int, n: int = 1) -> Held:
    return held(number, n, opened=asked)


def answered(number: int, n: int = 1, reply: bytes | None = ANSWER) -> Settled:
    return settled(number, n, kept=Kept(reply=reply))


def failed(asked: CallOpened, number: int) -> CallClosed:
    return closed(number, opened=asked, end=EndState.FAILED)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def journal(request: pytest.FixtureRequest) -> OpenJournal:
    """The journal under test."""

    @asynccontextmanager
    async def in_memory() -> AsyncIterator[Journal]:
        yield MemoryJournal()

    if request.param == "memory":
        return in_memory
    return opening(request.getfixturevalue(f"{request.param}_places").new())


def opening(kept: KeptLedger) -> OpenJournal:
    """Open the same ledger, each time under another owner."""
    return lambda: kept.journal(randomness=os.urandom)


def run(test: Callable[[Journal], Coroutine[Any, Any, None]], journal: OpenJournal) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(10), journal() as found:
            await test(found)

    asyncio.run(bounded())


def test_a_receipt_runs_with_its_first_hold_and_is_done_with_the_answer(journal: OpenJournal) -> None:
    """In the order in which records are handed in; a later failure of nothing takes it back."""

    async def test(books: Journal) -> None:
        asked = asking(1)
        assert await books.receipt(receipt_of(2)) is None
        await books.hold(holding(asked, 1))
        running = await books.receipt(receipt_of(2))
        assert running == ReceiptEntry(
            state=ReceiptState.RUNNING,
            fingerprint=receipt_of(2).fingerprint,
            call_id=asked.call.id,
            created_ns=BEGAN_NS + 1_000_000,
            reply=None,
        )
        books.settle(answered(1))
        books.close(closed(1, opened=asked, end=EndState.CLIENT_CLOSED))
        done = await books.receipt(receipt_of(2))
        assert done == structs.replace(running, state=ReceiptState.DONE, reply=ANSWER)
        entry = await books.entry(asked.call.id)
        assert entry is not None
        assert (entry.receipt, entry.answer_of) == (ReceiptUse.NEW, None)

    run(test, journal)


def test_an_attempt_that_fails_is_not_the_end_of_a_receipt(journal: OpenJournal) -> None:
    """Another attempt may bring the answer."""

    async def test(books: Journal) -> None:
        asked = asking(1)
        await books.hold(holding(asked, 1))
        books.settle(settled(1, outcome=Outcome.DROPPED))
        await books.hold(holding(asked, 1, 2))
        found = await books.receipt(receipt_of(2))
        assert found is not None
        assert found.state is ReceiptState.RUNNING
        books.settle(answered(1, 2))
        books.close(closed(1, opened=asked))
        found = await books.receipt(receipt_of(2))
        assert found is not None
        assert (found.state, found.reply) == (ReceiptState.DONE, ANSWER)

    run(test, journal)


def test_a_call_that_fails_frees_its_receipt(journal: OpenJournal) -> None:
    """The next one takes the key, also for another question."""

    async def test(books: Journal) -> None:
        first, second = asking(1), asking(2, question=b'{"other":1}')
        await books.hold(holding(first, 1))
        books.settle(settled(1, outcome=Outcome.DROPPED))
        books.close(failed(first, 1))
        found = await books.receipt(receipt_of(2))
        assert found is not None
        assert found.state is ReceiptState.FREED
        assert judge(receipt_of(2), found) == Fresh()

        await books.hold(holding(second, 2))
        books.settle(answered(2))
        books.close(closed(2, opened=second))
        found = await books.receipt(receipt_of(3, question=b'{"other":1}'))
        assert found is not None
        assert judge(receipt_of(3, question=b'{"other":1}'), found) == Answered(
            call_id=second.call.id, created_ns=BEGAN_NS + 2_000_000, reply=ANSWER
        )

    run(test, journal)


def test_an_old_receipt_makes_room_for_a_new_one(journal: OpenJournal) -> None:
    """What is over is over, also before anybody has tidied up."""

    async def test(books: Journal) -> None:
        first = asking(1)
        await books.hold(holding(first, 1))
        books.settle(answered(1))
        books.close(closed(1, opened=first))
        late = asking(5000, kept_s=1)
        assert late.receipt is not None
        assert await books.receipt(late.receipt) is None
        await books.hold(holding(late, 5000))
        found = await books.receipt(late.receipt)
        assert found is not None
        assert (found.state, found.call_id) == (ReceiptState.RUNNING, late.call.id)

    run(test, journal)


def test_an_answer_may_be_done_and_not_kept(journal: OpenJournal) -> None:
    """Too long: the receipt says that there was one."""

    async def test(books: Journal) -> None:
        asked = asking(1)
        await books.hold(holding(asked, 1))
        books.settle(answered(1, reply=None))
        books.close(closed(1, opened=asked))
        found = await books.receipt(receipt_of(2))
        assert found is not None
        assert (found.state, found.reply) == (ReceiptState.DONE, None)

    run(test, journal)


def test_a_shared_answer_is_told_in_the_entry_of_whoever_was_given_it(journal: OpenJournal) -> None:
    """Whose it is, and what was not spent a second time."""

    async def test(books: Journal) -> None:
        shared = Shared(
            use=ReceiptUse.JOINED, of="01other", usage=Usage(input=10, cache_read=5, output=3), cash_nanos=77
        )
        books.close(closed(1, attempts=0, shared=shared))
        entry = await books.entry(opened(1).call.id)
        assert entry is not None
        assert (entry.receipt, entry.answer_of) == (ReceiptUse.JOINED, "01other")
        assert (entry.avoided_input, entry.avoided_output, entry.avoided_nanos) == (15, 3, 77)

    run(test, journal)


HASH = bytes(range(16))


def test_what_became_of_a_call_at_the_cache_is_in_its_entry(journal: OpenJournal) -> None:
    """Whether it asked a target or was given an answer; the hash is what a report counts repeats by."""
    miss = Looked(outcome="miss", request_hash=HASH)
    hit = Looked(outcome="hit", reason="memory", request_hash=HASH)

    async def test(books: Journal) -> None:
        asked = structs.replace(opened(1), looked=miss)
        await books.hold(holding(asked, 1))
        books.settle(settled(1))
        books.close(closed(1, opened=asked))
        shared = Shared(of=asked.call.id, usage=Usage(input=10, output=3), cash_nanos=77)
        given = structs.replace(opened(2), looked=hit)
        books.close(closed(2, opened=given, attempts=0, shared=shared))
        paid, free = await books.entry(asked.call.id), await books.entry(given.call.id)
        assert paid is not None
        assert free is not None
        assert (paid.looked, paid.is_given, paid.answer_of) == (miss, False, None)
        assert (free.looked, free.is_given, free.answer_of) == (hit, True, asked.call.id)
        assert (free.receipt, free.avoided_nanos) == (None, 77)

    run(test, journal)


def test_a_call_that_failed_may_be_given_an_old_answer_in_the_end(journal: OpenJournal) -> None:
    """It has asked, so its row is there: the end says what it was given, and what that had cost."""
    stale = Looked(outcome="stale", reason="every-target-failed", request_hash=HASH)

    async def test(books: Journal) -> None:
        asked = structs.replace(opened(1), looked=Looked(outcome="miss", request_hash=HASH))
        await books.hold(holding(asked, 1))
        books.settle(settled(1))
        shared = Shared(of="01other", usage=Usage(input=10, output=3), cash_nanos=None)
        books.close(closed(1, opened=asked, shared=shared, looked=stale))
        entry = await books.entry(asked.call.id)
        assert entry is not None
        assert (entry.looked, entry.is_given, entry.answer_of) == (stale, True, "01other")
        assert (entry.avoided_input, entry.avoided_output, entry.avoided_nanos) == (10, 3, None)

    run(test, journal)


# On disk.


def test_a_dead_owners_receipt_is_unknown_and_may_be_asked_again(places: Places) -> None:
    """The new call says which one lapsed; the same question only."""
    kept = places.new()
    first, again = asking(1), asking(2, resent_of=opened(1).call.id)

    async def dies(books: Journal) -> None:
        await books.hold(holding(first, 1))
        await books.flush()
        # What follows is what a crash would have kept from being written.

    async def comes_back(books: Journal) -> None:
        found = await books.receipt(receipt_of(2))
        assert found is not None
        assert found.state is ReceiptState.UNKNOWN
        assert judge(receipt_of(2), found) == Fresh(resent_of=first.call.id)
        await books.hold(holding(again, 2))
        found = await books.receipt(receipt_of(3))
        assert found is not None
        assert (found.state, found.call_id) == (ReceiptState.RUNNING, again.call.id)
        entry = await books.entry(again.call.id)
        assert entry is not None
        assert (entry.receipt, entry.answer_of) == (ReceiptUse.RESENT, first.call.id)

    run(dies, opening(kept))
    run(comes_back, opening(kept))


def test_old_receipts_go_with_their_answers_and_running_ones_stay(places: Places) -> None:
    """A stream may run for longer than an answer is kept."""

    async def test() -> None:
        async with places.new().journal() as books:
            for number in (1, 2, 3):
                asked = asking(number, key=f"k{number}")
                await books.hold(holding(asked, number))
                if number != 2:
                    books.settle(answered(number))
                    books.close(closed(number, opened=asked))
            while await books.forget_receipts(BEGAN_NS + 3_000_000):
                pass
            kept = [await books.receipt(receipt_of(n, key=f"k{n}")) for n in (1, 2, 3)]
            assert [None if one is None else one.state for one in kept] == [
                None,
                ReceiptState.RUNNING,
                ReceiptState.DONE,
            ]

    asyncio.run(test())


def test_neither_the_key_nor_the_question_is_in_the_file(sqlite_places: Places) -> None:
    """They are kept as keyed hashes; the answer is the one text at rest."""
    key, question = "canary-of-a-key", b'{"messages":"canary-of-a-question"}'

    async def test(books: Journal) -> None:
        asked = asking(1, key=key, question=question)
        await books.hold(holding(asked, 1))
        books.settle(answered(1))
        books.close(closed(1, opened=asked))

    kept = sqlite_places.new()
    run(test, opening(kept))
    data = (kept.folder / LEDGER_FILE).read_bytes()
    assert ANSWER in data
    assert b"canary-of" not in data


def test_two_replicas_do_not_answer_one_question_at_one_time(postgres_places: Places) -> None:
    """The second hold of another call with the same receipt is refused; the first one's call goes on."""
    kept = postgres_places.new()
    first, second = asking(1), asking(2)

    async def test() -> None:
        async with (
            kept.journal(randomness=os.urandom) as one,
            kept.replica().journal(randomness=os.urandom) as other,
        ):
            await one.hold(holding(first, 1))
            found = await other.receipt(receipt_of(2))
            with pytest.raises(IdempotencyKeyInUse):
                judge(receipt_of(2), found)
            with pytest.raises(StorageUnavailable, match="another replica"):
                await other.hold(holding(second, 2))
            await one.hold(holding(first, 1, 2))
            one.settle(answered(1, 2))
            await one.flush()
            found = await other.receipt(receipt_of(3))
            assert isinstance(judge(receipt_of(3), found), Answered)

    asyncio.run(test())


def test_a_tenant_is_erased(places: Places) -> None:
    """Its receipts are gone with their answers, and its salt; one that runs goes on, and others stay."""
    kept = places.new()

    async def test(books: Any) -> None:
        salts = await books.salts({"team:blue": b"a" * 16, "key:lone": b"b" * 16})
        assert salts == {"team:blue": b"a" * 16, "key:lone": b"b" * 16}
        assert await books.salts({"team:blue": b"c" * 16}) == salts == await books.salts({})
        done, other, runs = asking(1), asking(2, key="k2"), asking(3, key="k3")
        other = structs.replace(other, receipt=structs.replace(other.receipt, tenant="key:lone"))
        for number, one in enumerate((done, other, runs), start=1):
            await books.hold(holding(one, number))
        for number, one in enumerate((done, other), start=1):
            books.settle(answered(number))
            books.close(closed(number, opened=one))
        assert await books.erase("team:blue") == 1
        assert await books.receipt(receipt_of(1)) is None
        assert await books.receipt(receipt_of(2, key="k2")) is not None
        running = await books.receipt(receipt_of(3, key="k3"))
        assert running is not None and running.state is ReceiptState.RUNNING
        assert await books.salts({}) == {"key:lone": b"b" * 16}
        assert await books.salts({"team:blue": b"d" * 16}) == {"team:blue": b"d" * 16, "key:lone": b"b" * 16}

    run(test, opening(kept))
