"""Kept answers in an SQLite file of their own, `cache.db`: they outlive a restart.

Nothing depends on the file. One that cannot be read is made anew; one that cannot be written keeps nothing.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from tiergate.cache import Found, ShelfUnavailable
from tiergate.cache import Place as ShelfPlace
from tiergate.core import CannotStart
from tiergate.store.folder import make_private_file
from tiergate.store.migrate import migrate
from tiergate.store.sqlite_errors import word_of
from tiergate.store.statements import statements

CACHE_FILE: Final = "cache.db"
_SIDE_FILES: Final = ("", "-wal", "-shm")
_PRAGMAS: Final = (
    "journal_mode = WAL",
    "synchronous = NORMAL",
    "busy_timeout = 100",
    # What is deleted is overwritten: a purge leaves no text behind.
    "secure_delete = ON",
    "trusted_schema = OFF",
)
_SHARE_MAX: Final = 8
"""No answer takes more than this part of the whole."""
_AT_ONCE: Final = 200
"""Rows that one step deletes: those who look meanwhile wait for it."""

Done = TypeVar("Done")


class SqliteShelf:
    """Fills the port `cache.Shelf`. One thread has the connection; the process owns the data folder.

    Args:
        path: of the file.
        bytes_max: of all answers together.

    Raises:
        CannotStart: the file can be neither opened nor made.
    """

    name = "disk"
    is_shared = False

    def __init__(self, path: Path, *, bytes_max: int) -> None:
        self._path = path
        self.bytes_max = bytes_max
        self._statements = statements("cache")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tiergate-cache")
        self._bytes = 0
        try:
            self._connection = self._thread.submit(self._open).result()
        except BaseException:
            self._thread.shutdown()
            raise

    async def get(self, place: ShelfPlace, now_ns: int) -> Found:
        """Look for an answer; see `cache.Shelf`."""
        rows = await self._do(lambda: self._rows("get", key=place.key, now_ns=now_ns))
        return Found(rows[0][0] if rows else None)

    async def put(
        self, place: ShelfPlace, value: bytes, *, ticket: bytes, now_ns: int, expires_ns: int
    ) -> bool:
        """Put an answer there; see `cache.Shelf`."""
        if len(value) > self.bytes_max // _SHARE_MAX:
            return False
        await self._do(lambda: self._put(place, value, expires_ns))
        return True

    async def purge(self, tenant: str | None, entry: str | None) -> None:
        """Delete what is there of them, from the log of writes too; see `cache.Shelf`."""
        await self._do(lambda: self._purge(tenant, entry))

    def resize(self, bytes_max: int) -> None:
        """Keep so many bytes at most from now on; see `cache.Shelf`."""
        self.bytes_max = bytes_max

    async def sweep(self, now_ns: int) -> None:
        """Delete some of what is too old, or too much; see `cache.Shelf`."""
        await self._do(lambda: self._sweep(now_ns))

    def close(self) -> None:
        """Close the file."""
        self._thread.submit(self._connection.close).result()
        self._thread.shutdown()

    # In the thread.

    def _open(self) -> sqlite3.Connection:
        try:
            return self._opened()
        except (sqlite3.Error, CannotStart):
            # Whatever it is, it is not worth more than what it would be asked for again.
            for ending in _SIDE_FILES:
                with suppress(OSError):
                    self._path.with_name(self._path.name + ending).unlink(missing_ok=True)
        try:
            return self._opened()
        except sqlite3.Error as error:
            raise CannotStart(
                f"The file {self._path} cannot be used ({word_of(error)}). Delete it, or set "
                "`cache: {exact: {keep: memory}}`."
            ) from error

    def _opened(self) -> sqlite3.Connection:
        make_private_file(self._path)
        connection = sqlite3.connect(self._path, timeout=1, isolation_level=None)
        try:
            for pragma in _PRAGMAS:
                connection.execute(f"PRAGMA {pragma}")
            migrate(connection, "cache")
            # It reads all of the table, so a file that is damaged is found now.
            self._bytes = connection.execute(self._statements["total"]).fetchone()[0]
        except BaseException:
            connection.close()
            raise
        return connection

    def _rows(self, name: str, **facts: Any) -> list[Any]:
        return self._connection.execute(self._statements[name], facts).fetchall()

    def _put(self, place: ShelfPlace, value: bytes, expires_ns: int) -> None:
        before = sum(size for (size,) in self._rows("size_of", key=place.key))
        self._rows(
            "put", key=place.key, tenant=place.tenant, entry=place.entry, expires_ns=expires_ns, value=value
        )
        self._bytes += len(value) - before
        while self._bytes > self.bytes_max and self._deleted("make_room", most=1):
            pass

    def _sweep(self, now_ns: int) -> None:
        self._deleted("forget_old", most=_AT_ONCE, now_ns=now_ns)
        for _ in range(_AT_ONCE):
            if self._bytes <= self.bytes_max or not self._deleted("make_room", most=1):
                return

    def _deleted(self, name: str, **facts: Any) -> int:
        """Delete some; give how many."""
        sizes = self._rows(name, **facts)
        self._bytes -= sum(size for (size,) in sizes)
        return len(sizes)

    def _purge(self, tenant: str | None, entry: str | None) -> None:
        self._rows("purge", tenant=tenant, entry=entry)
        self._bytes = self._rows("total")[0][0]
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    async def _do(self, work: Callable[[], Done]) -> Done:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except sqlite3.Error as error:
            raise ShelfUnavailable(word_of(error)) from error
