"""Looks at the ledger on PostgreSQL, each a transaction that sees one moment and can write nothing."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any, Final

import psycopg

from tiergate.core import CannotStart, StorageUnavailable, TiergateError
from tiergate.store.postgres.connection import Address, Connection
from tiergate.store.postgres.errors import word_of
from tiergate.store.postgres.statements import statements
from tiergate.store.rows import Row
from tiergate.store.session import Facts

_IDLE_MAX: Final = 2
"""Connections that are kept for the next look: a new one costs some milliseconds, and more with TLS."""
_ROWS_AT_ONCE: Final = 2_000
_UNMADE: Final = frozenset({"42P01", "42883", "3F000"})


class Readings:
    """Opens looks at one database, from any thread.

    Args:
        address: of the database.
        idle_max: how many connections are kept for the next look.
    """

    def __init__(self, address: Address, *, idle_max: int = _IDLE_MAX) -> None:
        self._address = address
        self._idle_max = idle_max
        self._idle: list[Connection] = []
        self._lock = threading.Lock()
        self._is_closed = False

    def open(self) -> "PostgresReading":
        """Open a look at the ledger as it is now.

        Raises:
            StorageUnavailable: not now.
        """
        while True:
            with self._lock:
                kept = self._idle.pop() if self._idle else None
            try:
                connection = kept or self._address.connect()
            except psycopg.Error as error:
                raise self.unreadable(error) from error
            try:
                with connection.pipeline():
                    connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                    # A transaction sees the database as it is at its first question.
                    connection.execute("SELECT 1")
            except psycopg.Error as error:
                connection.close()
                if kept is None:
                    raise self.unreadable(error) from error
                continue  # the server has ended it while it was idle
            return PostgresReading(self, connection)

    @contextmanager
    def look(self) -> Iterator["PostgresReading"]:
        """Open a look for as long as the context lasts; raises as `open` does."""
        with closing(self.open()) as reading:
            yield reading

    def give_back(self, connection: Connection) -> None:
        """Take back the connection of a look that is over."""
        try:
            connection.execute("ROLLBACK")
        except psycopg.Error:
            connection.close()
            return
        with self._lock:
            if not self._is_closed and len(self._idle) < self._idle_max:
                self._idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        """Keep no connections any more."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def unreadable(self, error: psycopg.Error) -> TiergateError:
        """Say that the ledger cannot be read, or is not there."""
        if error.sqlstate in _UNMADE:
            return CannotStart(
                f"There is no ledger in the database {self._address.shown} yet: no gateway has used it."
            )
        return StorageUnavailable(
            f"The ledger's database {self._address.shown} cannot be read: {self._address.said(error)}"
            if error.sqlstate is None
            else f"The ledger's database {self._address.shown} cannot be read ({word_of(error)})."
        )


class PostgresReading:
    """A `Reading` of a database."""

    def __init__(self, readings: Readings, connection: Connection) -> None:
        self._readings = readings
        self._connection: Connection | None = connection

    def rows(self, file: str, name: str, facts: Facts = ()) -> list[Row]:
        """Give all rows of a question; see `Reading`."""
        assert self._connection is not None, "the look is over"
        try:
            return self._connection.execute(statements(file)[name], facts).fetchall()
        except psycopg.Error as error:
            raise self._readings.unreadable(error) from error

    def named_rows(self, file: str, name: str, facts: Facts = ()) -> list[Mapping[str, Any]]:
        """Give all rows of a question, by the names of their columns; raises as `rows` does."""
        assert self._connection is not None, "the look is over"
        try:
            cursor = self._connection.execute(statements(file)[name], facts)
            names = [column.name for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor]
        except psycopg.Error as error:
            raise self._readings.unreadable(error) from error

    def each(self, file: str, name: str, facts: Facts = ()) -> Iterator[Row]:
        """Give the rows of a question that may have very many, some at a time; see `Reading`."""
        assert self._connection is not None, "the look is over"
        try:
            with self._connection.cursor(name="each") as cursor:
                cursor.itersize = _ROWS_AT_ONCE
                yield from cursor.execute(statements(file)[name], facts)
        except psycopg.Error as error:
            raise self._readings.unreadable(error) from error

    def close(self) -> None:
        """Look no longer; a second time does nothing."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            self._readings.give_back(connection)
