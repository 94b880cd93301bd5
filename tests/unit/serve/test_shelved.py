"""Calls, and a shelf behind the memory that others use, too."""

import asyncio
from typing import Any

import pytest

from tiergate.cache import Cache, Found, GuardedShelf, MemoryShelf, Place
from tiergate.core import NotCached, Reply
from tiergate.testing import FakeShelf
from unit.serve.stage import KEYS, A, Answer, House, run, unreachable
from unit.serve.test_cached import WHOLE, ZERO, ask, check, outcomes, said, whole


def replica(shelf: FakeShelf, answer: Answer = WHOLE) -> House:
    """Give a house that has this shelf."""
    house = House({"a": answer}, targets=(A,))
    guarded = GuardedShelf(shelf, monotonic=house.clock.monotonic, emit=house.events.append)
    cache = Cache(
        KEYS,
        MemoryShelf(1 << 20),
        wall_ns=house.clock.wall_ns,
        shelf=guarded,
    )
    house.cache = house.rooms.cache = house.rooms.flights._cache = cache
    return house


def test_an_answer_is_found_by_another_process() -> None:
    """And by a crowd there with one look."""
    shelf = FakeShelf()
    one, other = replica(shelf), replica(shelf)
    run(one, ask(one))

    async def crowd() -> Any:
        shelf.delay_s = 0.01
        return await asyncio.gather(*(ask(other) for _ in range(10)))

    before = shelf.asked
    replies = run(other, crowd())
    assert {reply.text for reply in replies} == {"one two"}
    assert {said(reply).detail for reply in replies} == {"fake"}
    assert shelf.asked == before + 1
    assert other.upstream.sent == []
    assert outcomes(other) == ["hit"] * 10
    assert all(reply.origin.attempts == 0 and reply.cash_nanos == 0 for reply in replies)
    assert said(run(other, ask(other))).detail == "memory"
    check(other)


def test_a_purge_reaches_the_others_within_five_seconds() -> None:
    """What they have in memory is a copy for a moment."""
    shelf = FakeShelf()
    one, other = replica(shelf), replica(shelf)
    run(one, ask(one))
    run(other, ask(other))
    run(one, one.cache.purge("key:local"))
    assert said(run(one, ask(one, cache_control="no-store"))).outcome == "bypass"

    async def a_little_later() -> Any:
        await asyncio.sleep(5.1)
        return await ask(other)

    assert said(run(other, a_little_later())).outcome == "miss"


def test_what_is_on_its_way_while_somebody_purges_is_not_kept() -> None:
    """Its asker has it, and nobody after."""
    shelf = FakeShelf()
    house = replica(shelf)

    async def story() -> Any:
        asking = asyncio.create_task(ask(house))
        await asyncio.sleep(1)
        await house.cache.purge("key:local")
        return await asking, await ask(house)

    first, second = run(house, story())
    assert said(first).detail == "purged" and said(second).outcome == "miss"
    assert len(house.upstream.sent) == 2
    check(house)


@pytest.mark.parametrize("how", ["gone", "slow"])
def test_without_the_shelf_calls_are_answered_all_the_same(how: str) -> None:
    """From memory, or by a target; nobody waits for it twice."""
    shelf = FakeShelf()
    house = replica(shelf)

    async def story() -> list[Reply]:
        shelf.is_gone, shelf.delay_s = how == "gone", 9.0 if how == "slow" else 0.0
        began = house.clock.monotonic()
        first = await ask(house)
        waited_s = house.clock.monotonic() - began - 2.0
        assert waited_s == pytest.approx(0.05 if how == "slow" else 0.0, abs=0.001)
        return [first, await ask(house), await ask(house, body={**ZERO, "seed": 1})]

    assert [said(reply).outcome for reply in run(house, story())] == ["miss", "hit", "miss"]
    check(house)


def test_only_if_cached_looks_everywhere() -> None:
    """Before it says that there is none, and joins nobody."""
    shelf = FakeShelf()
    one, other = replica(shelf), replica(shelf)

    async def nothing_there() -> Any:
        return await asyncio.gather(
            ask(other), ask(other, cache_control="only-if-cached"), return_exceptions=True
        )

    _, refused = run(other, nothing_there())
    assert isinstance(refused, NotCached)
    body = {**ZERO, "seed": 1}
    run(one, ask(one, body=body))
    assert said(run(other, ask(other, body=body, cache_control="only-if-cached"))).outcome == "hit"
    assert len(other.journal.closed) == 2
    check(other)


def test_an_old_answer_of_the_shelf_is_the_last_resort() -> None:
    """Another process has kept it."""
    shelf = FakeShelf()
    one, other = replica(shelf), replica(shelf, Answer(refusal=unreachable()))
    run(one, ask(one))

    async def later() -> Any:
        await asyncio.sleep(4_000)
        return await ask(other)

    reply = run(other, later())
    assert said(reply).detail == "stale-if-error" and reply.text == "one two"
    check(other)


def test_a_shelf_of_this_process_alone_is_copied_for_as_long_as_it_is_good() -> None:
    """Nobody else can purge it."""
    shelf = FakeShelf(is_shared=False)
    house = replica(shelf, whole("kept"))

    async def twice() -> Any:
        await ask(house)
        await asyncio.sleep(600)
        return await ask(house)

    assert said(run(house, twice())).detail == "memory"


def test_a_value_that_is_none_is_a_miss() -> None:
    """Whoever wrote it there: it says of itself whose answer it is."""
    shelf = FakeShelf()
    house = replica(shelf)
    run(house, ask(house))
    (key,) = shelf._answers
    place, value, ticket, expires_ns = shelf._answers[key]
    other = replica(shelf)
    for wrong in (value[:-1], value + b"x", b"", b"\xff" * 100):
        shelf._answers[key] = (place, wrong, ticket, expires_ns)
        assert said(run(other, ask(other, cache_control="no-cache"))).outcome == "miss"
        shelf._answers[key] = (place, wrong, ticket, expires_ns)
        fresh = replica(shelf)
        assert said(run(fresh, ask(fresh))).outcome == "miss"


def test_each_is_given_what_is_young_enough_for_itself() -> None:
    """Those who ask together may want different things of what lies there."""
    shelf = FakeShelf()
    one, other = replica(shelf), replica(shelf, whole("new"))
    run(one, ask(one))

    async def crowd() -> Any:
        await asyncio.sleep(3_650)
        shelf.delay_s = 0.01
        wishes = ["max-stale=3000", None, "max-age=60"]
        return await asyncio.gather(*(ask(other, cache_control=wish) for wish in wishes))

    lenient, plain, strict = run(other, crowd())
    assert [reply.text for reply in (lenient, plain, strict)] == ["one two", "new", "new"]
    check(other)


def test_a_look_that_was_on_its_way_brings_nothing_back_after_a_purge() -> None:
    """It is given to who asked before, and is not in memory afterwards."""
    shelf = FakeShelf()
    one, other = replica(shelf), replica(shelf)
    run(one, ask(one))

    async def story() -> Any:
        looked = shelf.get

        async def late(place: Place, now_ns: int) -> Found:
            found = await looked(place, now_ns)
            await asyncio.sleep(0.02)
            return found

        shelf.get = late  # type: ignore[method-assign]  # answers late, with what it saw
        asking = asyncio.create_task(ask(other))
        await asyncio.sleep(0.01)
        await other.cache.purge("key:local")
        await asking
        return other.cache.held().answers

    assert run(other, story()) == 0
