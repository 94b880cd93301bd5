"""A connection to write through, opened anew where it was lost.

A connection that is lost takes the transaction with it that was running, and the next one opens another, at
first at once and then after growing pauses. Only where it is lost while a transaction is being committed,
nobody knows whether it was: `Unwritten.doubtful` says so, and whoever writes does it again without harm.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg
from psycopg.pq import TransactionStatus

from tiergate.store.postgres.connection import Address, Connection
from tiergate.store.postgres.errors import UNWRITABLE, trouble_of, word_of
from tiergate.store.rows import Row
from tiergate.store.session import Facts
from tiergate.store.trouble import Trouble, Unwritten

_PAUSE_MIN_S: Final = 0.05
_PAUSE_MAX_S: Final = 2.0
_TURN_S: Final = 0.1
"""How long one attempt to write waits for a connection; in between, overdue holds are refused."""


class Reach:
    """The way to a database; it belongs to one thread.

    Args:
        address: of the database.
        connection: that is open already; None: the first transaction opens one.
    """

    def __init__(self, address: Address, connection: Connection | None = None) -> None:
        self._address = address
        self._connection = connection
        self._retry_at = 0.0
        self._pause_s = 0.0

    @property
    def connection(self) -> Connection:
        """The connection, inside of a transaction."""
        assert self._connection is not None, "statements are run in a transaction"
        return self._connection

    @contextmanager
    def writing(self, *first: tuple[bytes, Facts]) -> Iterator[Row | None]:
        """Begin a transaction with these statements, all in one round trip, and commit it at the end.

        Gives the first row that the last of them found.

        Raises:
            Unwritten: nothing was written, unless it is `doubtful`.
        """
        is_committing = False
        connection = self._reached()
        try:
            with connection.pipeline():
                connection.execute("BEGIN")
                cursors = [connection.execute(statement, facts) for statement, facts in first]
            yield cursors[-1].fetchone()
            is_committing = True
            connection.execute("COMMIT")
        except UNWRITABLE as error:
            is_lost = self._is_lost_after(connection)
            raise Unwritten(
                Trouble.LOCKED if is_lost else trouble_of(error),
                word_of(error),
                doubtful=is_lost and is_committing,
            ) from error
        except BaseException:
            self._is_lost_after(connection)
            raise

    def close(self) -> None:
        """Close the connection, with nothing more written."""
        if self._connection is not None:
            self._connection.close()

    def _reached(self) -> Connection:
        """Give the connection; where it was lost, open another, unless one could not be opened just now."""
        if self._connection is not None:
            return self._connection
        wait_s = self._retry_at - time.monotonic()
        if wait_s > 0:
            time.sleep(min(wait_s, _TURN_S))
        if wait_s > _TURN_S:
            raise Unwritten(Trouble.LOCKED, "connection lost")
        try:
            self._connection = self._address.connect_to_write()
        except psycopg.Error as error:
            self._pause_s = min(max(2 * self._pause_s, _PAUSE_MIN_S), _PAUSE_MAX_S)
            self._retry_at = time.monotonic() + self._pause_s
            raise Unwritten(Trouble.LOCKED, word_of(error)) from error
        self._pause_s = 0.0
        return self._connection

    def _is_lost_after(self, connection: Connection) -> bool:
        """Leave the transaction that failed; tell whether the connection went with it."""
        try:
            if connection.info.transaction_status is not TransactionStatus.IDLE:
                connection.execute("ROLLBACK")
        except psycopg.Error:
            connection.close()
        if not connection.closed:
            return False
        self._connection = None
        return True
