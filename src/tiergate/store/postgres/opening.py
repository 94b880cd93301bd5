"""Opens the ledger's books on a PostgreSQL server."""

import psycopg

from tiergate.store.books import Books
from tiergate.store.postgres.connection import Address, Connection
from tiergate.store.postgres.migrate import migrate
from tiergate.store.postgres.purse import DatabasePurse
from tiergate.store.postgres.reading import Readings
from tiergate.store.postgres.session import Lives, PostgresSession
from tiergate.store.postgres.sums import SharedSums
from tiergate.store.trouble import Unwritten


def open_books(address: Address, readings: Readings, *, owner_id: str, lives: Lives) -> Books:
    """Bring the database's schema up to date and begin an epoch beside the owners that are alive.

    `readings` are those of the same address: the books look through them, and close them.

    What dead owners held lapses: it stays charged. The caller holds the `OwnerLock` of the seat's folder.

    Raises:
        CannotStart: with what to do about it.
    """
    try:
        connection = address.connect_to_write()
    except psycopg.Error as error:
        raise address.why_not(error) from error
    try:
        return _opened(address, connection, readings, owner_id, lives)
    except psycopg.Error as error:
        connection.close()
        raise address.why_not(error) from error
    except Unwritten as error:
        connection.close()
        raise address.why_not(error.__cause__ or error) from error
    except BaseException:
        connection.close()
        raise


def _opened(
    address: Address, connection: Connection, readings: Readings, owner_id: str, lives: Lives
) -> Books:
    address.check(connection)
    migrate(address, connection)
    session = PostgresSession(address, connection, readings, owner_id=owner_id, lives=lives)
    sums = SharedSums(session)
    session.begin_epoch(sums)
    return Books(session, sums, DatabasePurse(session))
