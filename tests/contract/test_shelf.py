"""What every shelf of kept answers does: the one for tests, a file, a real Redis server."""

import asyncio
import sqlite3
import stat
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from redis_server import RedisServer, serving_redis
from tiergate.cache import Place, Shelf, ShelfUnavailable
from tiergate.core import CannotStart
from tiergate.store import CACHE_FILE, SqliteShelf
from tiergate.store.redis import RedisShelf
from tiergate.testing import FakeShelf

NOW_NS = 1_800_000_000_000_000_000
HOUR_NS = 3_600_000_000_000
TIMES: Any = {"now_ns": NOW_NS, "expires_ns": NOW_NS + HOUR_NS}
HERE = Place(b"k" * 32, "team:web", "m")
Test = Callable[[Shelf], Coroutine[Any, Any, None]]


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with serving_redis() as running:
        yield running


@pytest.fixture
def redis(server: RedisServer) -> RedisServer:
    server.ask("FLUSHALL")
    return server


@asynccontextmanager
async def redis_shelf(url: str, secret: str = "s") -> AsyncIterator[RedisShelf]:
    shelf = RedisShelf(url, secret=secret)
    try:
        yield shelf
    finally:
        await shelf.aclose()


@pytest.fixture(params=["fake", "disk", "redis"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Test], None]:
    async def on_fake(test: Test) -> None:
        await test(FakeShelf())

    async def on_disk(test: Test) -> None:
        shelf = SqliteShelf(tmp_path / CACHE_FILE, bytes_max=1 << 20)
        try:
            await test(shelf)
        finally:
            shelf.close()

    async def on_redis(test: Test) -> None:
        async with redis_shelf(request.getfixturevalue("redis").url) as shelf:
            await test(shelf)

    chosen = {"fake": on_fake, "disk": on_disk, "redis": on_redis}[request.param]
    return lambda test: asyncio.run(chosen(test))


def place(number: int, tenant: str = "team:web", entry: str = "m") -> Place:
    return Place(number.to_bytes(32, "big"), tenant, entry)


async def put(shelf: Shelf, at: Place, value: bytes = b"value", *, for_ns: int = HOUR_NS) -> bool:
    """Put as a call does that has looked before."""
    ticket = (await shelf.get(at, NOW_NS)).ticket
    return await shelf.put(at, value, ticket=ticket, now_ns=NOW_NS, expires_ns=NOW_NS + for_ns)


async def got(shelf: Shelf, at: Place, *, now_ns: int = NOW_NS) -> bytes | None:
    return (await shelf.get(at, now_ns)).value


def test_an_answer_is_found_where_it_was_put(run: Callable[[Test], None]) -> None:
    """Whatever bytes it is; another takes its place."""

    async def test(shelf: Shelf) -> None:
        assert await got(shelf, HERE) is None
        assert await put(shelf, HERE, bytes(range(256)))
        assert await got(shelf, HERE) == bytes(range(256))
        assert await got(shelf, HERE._replace(key=b"x" * 32)) is None
        assert await put(shelf, HERE, b"")
        assert await got(shelf, HERE) == b""

    run(test)


def test_it_goes_with_its_time(run: Callable[[Test], None]) -> None:
    """And is swept away."""

    async def test(shelf: Shelf) -> None:
        await put(shelf, HERE, for_ns=50_000_000)
        assert await got(shelf, HERE) == b"value"
        await asyncio.sleep(0.1)
        later = NOW_NS + 100_000_000
        assert await got(shelf, HERE, now_ns=later) is None
        await shelf.sweep(later)
        assert await got(shelf, HERE, now_ns=later) is None

    run(test)


@pytest.mark.parametrize(
    ("tenant", "entry", "left"),
    [
        ("team:web", None, [2, 3]),
        ("team:web", "m", [1, 2, 3]),
        (None, "m", [1, 3]),
        (None, None, []),
        ("team:nobody", None, [0, 1, 2, 3]),
        (None, "nothing", [0, 1, 2, 3]),
    ],
)
def test_a_purge_takes_what_it_says(
    run: Callable[[Test], None], tenant: str | None, entry: str | None, left: list[int]
) -> None:
    """Of a tenant, of a model, of both, of all; and nothing else."""
    places = [place(0), place(1, entry="n"), place(2, "key:lone"), place(3, "key:lone", "n")]

    async def test(shelf: Shelf) -> None:
        for one in places:
            await put(shelf, one)
        await shelf.purge(tenant, entry)
        found = [number for number, one in enumerate(places) if await got(shelf, one) is not None]
        assert found == left
        for one in places:
            assert await put(shelf, one)
            assert await got(shelf, one) == b"value"

    run(test)


def test_a_hundred_at_once(run: Callable[[Test], None]) -> None:
    """Each is given its own."""

    async def test(shelf: Shelf) -> None:
        values = {place(number): str(number).encode() for number in range(100)}
        await asyncio.gather(*(put(shelf, at, value) for at, value in values.items()))
        found = await asyncio.gather(*(got(shelf, at) for at in values))
        assert found == list(values.values())

    run(test)


def test_one_that_is_called_off_disturbs_nobody(run: Callable[[Test], None]) -> None:
    """What comes late reaches no other caller."""

    async def test(shelf: Shelf) -> None:
        values = {place(number): str(number).encode() for number in range(20)}
        for at, value in values.items():
            await put(shelf, at, value)
        for _ in range(20):
            tasks = [asyncio.create_task(got(shelf, at)) for at in values]
            await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            found = await asyncio.gather(*tasks, return_exceptions=True)
            assert found[1::2] == list(values.values())[1::2]
        assert [await got(shelf, at) for at in values] == list(values.values())

    run(test)


# Of those that are put by others, too.


def test_what_was_asked_for_before_a_purge_is_not_found_after_it(redis: RedisServer) -> None:
    """Another process purges while an answer is on its way."""

    async def test() -> None:
        async with redis_shelf(redis.url) as one, redis_shelf(redis.url) as other:
            ticket = (await one.get(HERE, NOW_NS)).ticket
            await other.purge("team:web", None)
            await one.put(HERE, b"late", ticket=ticket, now_ns=NOW_NS, expires_ns=NOW_NS + HOUR_NS)
            assert await got(one, HERE) is None and await got(other, HERE) is None
            await put(one, HERE, b"new")
            assert await got(other, HERE) == b"new"

    asyncio.run(test())


def test_a_house_with_another_secret_shares_nothing(redis: RedisServer) -> None:
    """Nor does its purge of everything take anything of others; names of tenants are not in the keys."""

    async def test() -> None:
        async with redis_shelf(redis.url) as one, redis_shelf(redis.url, "other") as other:
            await put(one, HERE)
            assert await got(other, HERE) is None
            await other.purge(None, None)
            assert await got(one, HERE) == b"value"

    asyncio.run(test())
    assert "web" not in redis.ask("KEYS", "*")


@pytest.mark.parametrize("damage", ["gone", "short", "another type"])
def test_a_stamp_that_is_no_stamp_is_a_miss(redis: RedisServer, damage: str) -> None:
    """It is made anew; what lay under the old one is never found."""

    async def test() -> None:
        async with redis_shelf(redis.url) as shelf:
            await put(shelf, HERE)
            name = next(
                line for line in redis.ask("KEYS", "*:tenant").split("\r\n") if line.endswith("tenant")
            )
            redis.ask("DEL", name)
            if damage == "short":
                redis.ask("SET", name, "x")
            if damage == "another type":
                redis.ask("LPUSH", name, "x")
            assert await got(shelf, HERE) is None
            assert await put(shelf, HERE, b"again")
            assert await got(shelf, HERE) == b"again"

    asyncio.run(test())


def test_answers_go_by_themselves_in_redis(redis: RedisServer) -> None:
    """Each has a time to live."""

    async def test() -> None:
        async with redis_shelf(redis.url) as shelf:
            await put(shelf, HERE)

    asyncio.run(test())
    (name,) = (line for line in redis.ask("KEYS", "*:answer:*").split("\r\n") if "answer" in line)
    assert 3_500_000 < int(redis.ask("PTTL", name).strip(":\r\n")) <= 3_600_000


def test_a_redis_that_is_full_keeps_nothing_and_goes_on() -> None:
    """What is there is found."""
    with serving_redis() as server:
        server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")

        async def test() -> None:
            async with redis_shelf(server.url) as shelf:
                assert await put(shelf, HERE)
                server.ask("CONFIG", "SET", "maxmemory", "1")
                assert not await put(shelf, place(7))
                assert await got(shelf, HERE) == b"value"

        asyncio.run(test())


@pytest.mark.parametrize("how", ["stopped", "frozen"])
def test_a_redis_that_is_gone_is_told(how: str) -> None:
    """And nothing else: the address, which may hold a password, is not said."""
    with serving_redis() as server:

        async def test() -> None:
            async with redis_shelf(server.url) as shelf:
                await put(shelf, HERE)
                if how == "stopped":
                    server.stop()
                else:
                    server.freeze()
                for use in (
                    shelf.get(HERE, NOW_NS),
                    shelf.put(HERE, b"", ticket=bytes(32), now_ns=NOW_NS, expires_ns=NOW_NS + HOUR_NS),
                    shelf.purge("team:web", None),
                    shelf.purge(None, None),
                ):
                    with pytest.raises(ShelfUnavailable) as told:
                        await use
                    assert "127.0.0.1" not in str(told.value)
                if how == "stopped":
                    server.start()
                else:
                    server.thaw()
                assert await got(shelf, HERE) == (None if how == "stopped" else b"value")

        asyncio.run(test())


def test_an_address_that_is_none_stops_the_start() -> None:
    """In a sentence."""
    with pytest.raises(CannotStart, match="no address"):
        RedisShelf("http://x", secret="s")


# On disk.


def on_disk(path: Path, test: Test, *, bytes_max: int = 1 << 20) -> None:
    async def main() -> None:
        shelf = SqliteShelf(path, bytes_max=bytes_max)
        try:
            await test(shelf)
        finally:
            shelf.close()

    asyncio.run(main())


def test_a_file_outlives_its_process(tmp_path: Path) -> None:
    """Only its owner reads it."""
    path = tmp_path / CACHE_FILE

    async def before(shelf: Shelf) -> None:
        await put(shelf, HERE)

    async def after(shelf: Shelf) -> None:
        assert await got(shelf, HERE) == b"value"

    on_disk(path, before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    on_disk(path, after)


@pytest.mark.parametrize("damage", ["garbage", "newer", "foreign"])
def test_a_file_that_cannot_be_read_is_made_anew(tmp_path: Path, damage: str) -> None:
    """It holds nothing that cannot be asked again."""
    path = tmp_path / CACHE_FILE
    if damage == "garbage":
        path.write_bytes(b"no database" * 1000)
    else:
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE other (x)")
            connection.execute(f"PRAGMA user_version = {99 if damage == 'newer' else 0}")

    async def test(shelf: Shelf) -> None:
        await put(shelf, HERE)
        assert await got(shelf, HERE) == b"value"

    on_disk(path, test)


def test_a_folder_in_its_place_stops_the_start(tmp_path: Path) -> None:
    """With what to do."""
    (tmp_path / CACHE_FILE).mkdir()
    with pytest.raises(CannotStart):
        SqliteShelf(tmp_path / CACHE_FILE, bytes_max=1 << 20)


def test_a_file_is_bounded(tmp_path: Path) -> None:
    """Those that go first make room; one that would put out all others is not kept."""

    async def test(shelf: Shelf) -> None:
        for number in range(20):
            assert await put(shelf, place(number), bytes(1_000), for_ns=HOUR_NS + number)
        kept = [number for number in range(20) if await got(shelf, place(number)) is not None]
        assert kept == list(range(10, 20))
        assert not await put(shelf, place(99), bytes(5_000))

    on_disk(tmp_path / CACHE_FILE, test, bytes_max=10_000)


def test_a_file_that_may_hold_less_gives_way_a_little_at_a_time(tmp_path: Path) -> None:
    """As after a reload; what is soonest too old goes first."""

    async def test(shelf: Shelf) -> None:
        for number in range(500):
            assert await put(shelf, place(number), bytes(1_000), for_ns=HOUR_NS + number)
        shelf.resize(100_000)
        for first in (200, 400, 400):
            await shelf.sweep(NOW_NS)
            kept = [number for number in range(500) if await got(shelf, place(number)) is not None]
            assert kept == list(range(first, 500))
        assert not await put(shelf, place(999), bytes(13_000))

    on_disk(tmp_path / CACHE_FILE, test, bytes_max=1 << 20)


def test_a_purge_leaves_no_text_on_the_disk(tmp_path: Path) -> None:
    """Neither in the file nor in its log."""
    path = tmp_path / CACHE_FILE
    canary = b"canary-of-a-purge" * 20

    async def test(shelf: Shelf) -> None:
        for number in range(50):
            await put(shelf, place(number, "team:web"), canary)
            await put(shelf, place(100 + number, "key:lone"), b"other" * 50)
        await shelf.purge("team:web", None)
        files = [found for found in tmp_path.iterdir() if found.name.startswith(CACHE_FILE)]
        assert all(canary not in found.read_bytes() for found in files)
        assert await got(shelf, place(100, "key:lone")) is not None

    on_disk(path, test)


def test_a_locked_file_is_told(tmp_path: Path) -> None:
    """By a word of SQLite; nobody waits long."""
    path = tmp_path / CACHE_FILE

    async def test(shelf: Shelf) -> None:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(ShelfUnavailable, match="SQLITE_BUSY"):
            await shelf.put(HERE, b"x", ticket=b"", now_ns=NOW_NS, expires_ns=NOW_NS + HOUR_NS)
        other.execute("ROLLBACK")
        other.close()
        assert await put(shelf, HERE)

    on_disk(path, test)


def test_a_file_that_is_damaged_within_is_made_anew(tmp_path: Path) -> None:
    """Pages of it are nonsense; its beginning is not."""
    path = tmp_path / CACHE_FILE

    async def fill(shelf: Shelf) -> None:
        for number in range(300):
            await put(shelf, place(number), bytes([number % 256]) * 1_000)

    on_disk(path, fill)
    whole = path.read_bytes()
    third = len(whole) // 3
    path.write_bytes(whole[:third] + b"\xff" * third + whole[2 * third :])

    async def test(shelf: Shelf) -> None:
        assert await put(shelf, HERE)
        assert await got(shelf, HERE) == b"value"

    on_disk(path, test)


def test_a_crowd_is_no_failure_of_redis(redis: RedisServer) -> None:
    """More look at once than there are connections; so many tenants are purged, too."""

    async def test() -> None:
        async with redis_shelf(redis.url) as shelf:
            places = [place(number, f"team:{number}") for number in range(250)]
            await asyncio.gather(*(put(shelf, one) for one in places))
            assert None not in await asyncio.gather(*(got(shelf, one) for one in places))
            await shelf.purge(None, "m")
            assert set(await asyncio.gather(*(got(shelf, one) for one in places))) == {None}
            await asyncio.gather(*(put(shelf, one) for one in places))
            await shelf.purge(None, None)
            assert set(await asyncio.gather(*(got(shelf, one) for one in places))) == {None}

    asyncio.run(test())


def test_a_crowd_at_the_start_is_a_few_exchanges(redis: RedisServer) -> None:
    """No connection is open yet, nobody has a stamp; those that leave take nothing from the others."""

    async def test() -> None:
        async with asyncio.timeout(20), redis_shelf(redis.url) as shelf:
            looks = [asyncio.create_task(shelf.get(place(number), NOW_NS)) for number in range(700)]
            left = looks[::7]
            await asyncio.sleep(0)
            for look in left:
                look.cancel()
            found = await asyncio.gather(*(look for look in looks if look not in left))
            assert len({one.ticket for one in found}) == 1
            put_there = [
                shelf.put(place(number), b"%d" % number, ticket=found[0].ticket, **TIMES)
                for number in range(700)
            ]
            assert set(await asyncio.gather(*put_there)) == {True}
            values = await asyncio.gather(*(got(shelf, place(number)) for number in range(700)))
            assert values == [b"%d" % number for number in range(700)]

    def connections() -> int:
        (line,) = (one for one in redis.ask("INFO", "stats").splitlines() if "total_connections" in one)
        return int(line.partition(":")[2])

    before = connections()
    asyncio.run(test())
    assert connections() - before < 12
