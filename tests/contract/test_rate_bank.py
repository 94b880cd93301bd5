"""What every bank of shared rates does: the one in memory, and a real Redis server."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from redis_server import RedisServer, serving_redis
from tiergate.core import CannotStart
from tiergate.rates import PlaceWant, RateBank, RatesUnavailable, Want
from tiergate.store.redis import RedisRateBank
from tiergate.testing import FakeClock, MemoryRateBank, run_virtual


@dataclass
class Place:
    """A bank, and how time passes there."""

    bank: RateBank
    other: RateBank
    """The same, as another process has it."""
    wait: Callable[[float], Awaitable[None]]


Run = Callable[[Callable[[Place], Coroutine[Any, Any, None]]], None]


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with serving_redis() as running:
        yield running


@pytest.fixture
def redis(server: RedisServer) -> RedisServer:
    server.ask("FLUSHALL")
    return server


@asynccontextmanager
async def banks(url: str, *secrets: str) -> AsyncIterator[list[RedisRateBank]]:
    made = [RedisRateBank(url, secret=secret) for secret in secrets]
    try:
        yield made
    finally:
        for bank in made:
            await bank.aclose()


@pytest.fixture(params=["memory", "redis"])
def run(request: pytest.FixtureRequest) -> Run:
    def in_memory(test: Callable[[Place], Coroutine[Any, Any, None]]) -> None:
        clock = FakeClock()
        bank = MemoryRateBank(clock)
        run_virtual(test(Place(bank, bank, asyncio.sleep)), clock=clock)

    def in_redis(test: Callable[[Place], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            async with banks(request.getfixturevalue("redis").url, "s", "s") as (one, two):
                await test(Place(one, two, asyncio.sleep))

        asyncio.run(main())

    return in_memory if request.param == "memory" else in_redis


def want(
    amount: float, *, per_s: float = 100.0, most: float = 500.0, first: float = 0.0, name: str = "p:rpm"
) -> Want:
    return Want(name, amount, per_s, most, first)


async def granted(bank: RateBank, *wants: Want, process: str = "one") -> list[float]:
    return list((await bank.lease(process, wants)).grants)


def test_a_new_rate_has_nothing_saved_up(run: Run) -> None:
    """And then what time has brought, and no more."""

    async def test(place: Place) -> None:
        assert await granted(place.bank, want(50)) == [0.0]
        await place.wait(0.2)
        (some,) = await granted(place.bank, want(500))
        assert 19 <= some <= 100
        (rest,) = await granted(place.bank, want(500))
        assert rest <= 20

    run(test)


def test_a_new_rate_may_begin_full(run: Run) -> None:
    """Where whoever wants it says so; what others find is told, and None where nobody looked."""

    async def test(place: Place) -> None:
        asked = [want(20, per_s=0.001, most=40, first=40), want(0, name="idle")]
        found = await place.bank.lease("one", asked)
        assert list(found.grants) == [20.0, 0.0]
        assert found.left[0] == pytest.approx(20, abs=0.01) and found.left[1] is None
        found = await place.other.lease("two", [want(-5, per_s=0.001, most=40, first=40)])
        assert found.left[0] == pytest.approx(25, abs=0.01)

    run(test)


def test_no_more_is_granted_than_wanted(run: Run) -> None:
    """The rest stays for others, and the other process sees it."""

    async def test(place: Place) -> None:
        await granted(place.bank, want(1))
        await place.wait(0.2)
        assert await granted(place.bank, want(2)) == [2.0]
        (other,) = await granted(place.other, want(500), process="two")
        assert other >= 17

    run(test)


def test_one_process_gets_no_more_than_its_part_at_once(run: Run) -> None:
    """The next one finds something, too; a single request is always let through."""

    async def test(place: Place) -> None:
        for process in ("one", "two"):
            await granted(place.bank, want(1, per_s=1000, most=20), process=process)
        await place.wait(0.1)
        assert await granted(place.bank, want(20, per_s=1000, most=20)) == [10.0]
        await granted(place.bank, want(1, most=1.0, name="rare"))
        await place.wait(0.1)
        assert await granted(place.bank, want(5, most=1.0, name="rare")) == [1.0]

    run(test)


def test_what_is_given_back_is_there_for_others(run: Run) -> None:
    """Never more than is saved up at all."""

    async def test(place: Place) -> None:
        await granted(place.bank, want(1, per_s=0.001, most=40))
        assert await granted(place.bank, want(-30, per_s=0.001, most=40)) == [-30.0]
        (some,) = await granted(place.bank, want(40, per_s=0.001, most=40))
        assert some == pytest.approx(30, abs=0.01)
        await granted(place.bank, want(-100, per_s=0.001, most=40))
        (some,) = await granted(place.bank, want(100, per_s=0.001, most=40))
        assert some == pytest.approx(40, abs=0.01)

    run(test)


def test_rates_are_kept_apart_and_answered_in_order(run: Run) -> None:
    """Also where some want nothing."""

    async def test(place: Place) -> None:
        await granted(place.bank, want(-7, per_s=0.001), want(-9, per_s=0.001, name="q"))
        found = await granted(
            place.bank, want(5, per_s=0.001, name="q"), want(0, name="idle"), want(5, per_s=0.001)
        )
        assert found == [pytest.approx(5), 0.0, pytest.approx(5)]
        found = await granted(place.bank, want(9, per_s=0.001), want(9, per_s=0.001, name="q"))
        assert found == [pytest.approx(2, abs=0.01), pytest.approx(4, abs=0.01)]

    run(test)


def test_who_is_there_is_counted(run: Run) -> None:
    """For some seconds after it asked last."""

    async def test(place: Place) -> None:
        assert (await place.bank.lease("one", [])).processes == 1
        assert (await place.other.lease("two", [])).processes == 2
        assert (await place.bank.lease("one", [])).processes == 2

    run(test)


def place_want(places: int, taken: int = 0, *, limit: int = 10, known: int = 0) -> PlaceWant:
    return PlaceWant("p:concurrency", places, taken, limit, known)


async def placed(bank: RateBank, process: str, want: PlaceWant) -> tuple[float, float | None]:
    found = await bank.lease(process, [want])
    return found.grants[0], found.left[0]


def test_places_are_given_to_whoever_comes_first(run: Run) -> None:
    """All of them, as long as nobody else wants some; then each has its part of them, as they become free."""

    async def test(place: Place) -> None:
        await place.other.lease("two", [])
        assert await placed(place.bank, "one", place_want(8)) == (8, 2)
        assert await placed(place.other, "two", place_want(8)) == (2, 0)
        # Nobody is thrown out: the five that are taken stay, and the rest goes.
        assert await placed(place.bank, "one", place_want(8, taken=6)) == (5, 2)
        assert await placed(place.other, "two", place_want(8, taken=2)) == (4, 0)
        assert await placed(place.bank, "one", place_want(8, taken=5)) == (5, 1)
        assert await placed(place.other, "two", place_want(8, taken=4)) == (5, 0)
        assert await placed(place.bank, "one", place_want(0, known=5)) == (0, 5)
        assert await placed(place.other, "two", place_want(8, taken=4)) == (8, 2)

    run(test)


def test_places_that_nobody_wants_are_not_looked_at(run: Run) -> None:
    """And one that wants little leaves the rest to others, more than their part."""

    async def test(place: Place) -> None:
        await place.other.lease("two", [])
        assert await placed(place.bank, "one", place_want(0)) == (0, None)
        assert await placed(place.other, "two", place_want(1)) == (1, 9)
        assert await placed(place.bank, "one", place_want(10)) == (9, 0)

    run(test)


def test_each_place_is_given_once(run: Run) -> None:
    """Also of fewer places than there are processes."""

    async def test(place: Place) -> None:
        await place.other.lease("two", [])
        assert await placed(place.bank, "one", place_want(1, limit=1)) == (1, 0)
        assert await placed(place.other, "two", place_want(1, limit=1)) == (0, 0)
        assert await placed(place.bank, "one", place_want(0, limit=1, known=1)) == (0, 1)
        assert await placed(place.other, "two", place_want(1, limit=1)) == (1, 0)

    run(test)


def test_places_are_parted_among_those_that_want_some(run: Run) -> None:
    """Not among all that are there; nothing is lost by the division."""

    async def test(place: Place) -> None:
        for idle in range(8):
            await place.other.lease(f"idle-{idle}", [])
        for _ in range(3):
            one = await placed(place.bank, "one", place_want(9, limit=9))
            other = await placed(place.other, "two", place_want(9, limit=9))
        assert sorted((one[0], other[0])) == [4, 5]

    run(test)


def test_a_place_that_cannot_be_parted_goes_round(run: Run) -> None:
    """Each second somebody else may have it, as soon as it is free."""

    async def test(place: Place) -> None:
        had: dict[str, int] = {"one": 0, "two": 0}
        for _ in range(30):
            for process in had:
                # Whoever has it uses it for a moment, and is content.
                had[process] += int((await placed(place.bank, process, place_want(1, limit=1)))[0])
            await place.wait(0.1)
        assert all(had.values()), had

    run(test)


# Redis alone.


def test_f46_places_of_a_process_that_is_gone_are_free_again(redis: RedisServer) -> None:
    """By its last word; one that was only asleep has what is in it counted again."""

    async def test() -> None:
        async with banks(redis.url, "s") as (bank,):
            assert await placed(bank, "gone", place_want(10)) == (10, 0)
            assert await placed(bank, "one", place_want(4)) == (0, 0)
            key = redis.ask("KEYS", "*processes").splitlines()[2]
            redis.ask("ZADD", key, "1", "gone")
            assert await placed(bank, "one", place_want(4)) == (4, 6)
            assert await placed(bank, "gone", place_want(10, taken=10)) == (6, 0)

    asyncio.run(test())


def test_who_has_gone_is_not_counted(redis: RedisServer) -> None:
    """Its last word is too old, by the server's own clock."""

    async def test() -> None:
        async with banks(redis.url, "s") as (bank,):
            await bank.lease("gone", [])
            key = redis.ask("KEYS", "*processes").splitlines()[2]
            redis.ask("ZADD", key, "1", "gone")
            assert (await bank.lease("one", [])).processes == 1

    asyncio.run(test())


def test_gateways_of_another_secret_share_nothing(redis: RedisServer) -> None:
    """Whoever finds the same server."""

    async def test() -> None:
        async with banks(redis.url, "one", "two") as (one, two):
            await granted(one, want(-9, per_s=0.001))
            assert await granted(two, want(9, per_s=0.001)) == [0.0]
            assert (await one.lease("one", [])).processes == 1
            assert (await two.lease("one", [])).processes == 1

    asyncio.run(test())


def test_f26_what_does_not_belong_there_goes(redis: RedisServer) -> None:
    """A key of another type, values that are no numbers, and scripts that the server has forgotten."""

    async def test() -> None:
        async with banks(redis.url, "s") as (bank,):
            await granted(bank, want(-9, per_s=0.001))
            key = redis.ask("KEYS", "*rate*").splitlines()[2]
            redis.ask("DEL", key)
            redis.ask("SET", key, "nonsense")
            assert await granted(bank, want(5, per_s=0.001)) == [0.0]
            assert await granted(bank, want(-5, per_s=0.001)) == [-5.0]
            redis.ask("HSET", key, "level", "nonsense", "at", "")
            assert await granted(bank, want(5, per_s=0.001)) == [0.0]
            place = place_want(4)
            assert await placed(bank, "one", place) == (4, 6)
            key = redis.ask("KEYS", "*concurrency").splitlines()[2]
            redis.ask("HSET", key, "one", "nonsense", "two", "7")
            assert await placed(bank, "one", place) == (4, 6)
            redis.ask("SET", key, "nonsense")
            assert await placed(bank, "one", place) == (0, None)
            key = redis.ask("KEYS", "*processes").splitlines()[2]
            redis.ask("SET", key, "nonsense")
            with pytest.raises(RatesUnavailable):
                await bank.lease("one", [])
            assert (await bank.lease("one", [])).processes == 1
            redis.ask("SCRIPT", "FLUSH")
            assert await granted(bank, want(-5, per_s=0.001)) == [-5.0]

    asyncio.run(test())


@pytest.mark.parametrize("how", ["gone", "frozen", "full", "read-only"])
def test_f24_f25_f26_a_server_that_does_not_serve_is_told_of(redis: RedisServer, how: str) -> None:
    """In time, and without its address; when it is back it serves again, and no late answer is mixed up."""

    async def test() -> None:
        async with banks(redis.url, "s") as (bank,):
            await granted(bank, want(-9, per_s=0.001))
            _break(redis, how)
            try:
                for _ in range(3):
                    with pytest.raises(RatesUnavailable) as refused:
                        await granted(bank, want(2, per_s=0.001))
                    assert str(redis.port) not in str(refused.value)
            finally:
                _mend(redis, how)
            (some,) = await granted(bank, want(0.5, per_s=0.001))
            assert some in (0.5, 0.0)

    asyncio.run(test())


def _break(redis: RedisServer, how: str) -> None:
    match how:
        case "gone":
            redis.stop()
        case "frozen":
            redis.freeze()
        case "full":
            redis.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
            redis.ask("CONFIG", "SET", "maxmemory", "1")
        case "read-only":
            redis.ask("REPLICAOF", "127.0.0.1", "1")


def _mend(redis: RedisServer, how: str) -> None:
    match how:
        case "gone":
            redis.start()
        case "frozen":
            redis.thaw()
        case "full":
            redis.ask("CONFIG", "SET", "maxmemory", "0")
        case "read-only":
            redis.ask("REPLICAOF", "NO", "ONE")


def test_a_wrong_password_is_told_of_and_not_shown(redis: RedisServer) -> None:
    """Neither is the address that holds it."""

    async def test() -> None:
        async with banks(redis.url.replace("//", "//u:geheim@"), "s") as (bank,):
            with pytest.raises(RatesUnavailable) as refused:
                await bank.lease("one", [])
            assert "geheim" not in str(refused.value)

    asyncio.run(test())


def test_an_address_that_is_none_is_refused() -> None:
    """Before anything begins."""
    with pytest.raises(CannotStart, match="no address of a Redis"):
        RedisRateBank("http://127.0.0.1:1", secret="s")
