"""Numbered migrations on PostgreSQL: replicas that start together take each step once."""

from typing import Final

from tiergate.core import CannotStart
from tiergate.store.migrate import migrations
from tiergate.store.postgres.connection import Address, Connection

_PACKAGE: Final = "tiergate.store.postgres"
_LOCK: Final = "SELECT pg_advisory_xact_lock(1952542311, 3)"
_NEWER: Final = (
    "The database {} has schema {} and this Tiergate knows {}: a newer Tiergate wrote it. Install that "
    "version again, or set another `store`."
)
_FOREIGN: Final = (
    "The database {} has a table `call` and was not made by Tiergate. Give Tiergate a database of its own in "
    "`store`."
)


def migrate(address: Address, connection: Connection) -> int:
    """Take the steps that the database has not taken yet, all or none, and return how many they were.

    Raises:
        CannotStart: it is newer than this code, or not ours.
        psycopg.Error: a step failed and left nothing behind.
    """
    known = migrations(_PACKAGE, "migrations")
    with connection.transaction():
        # Whoever comes second waits here, and finds nothing left to do.
        connection.execute(_LOCK)
        version = _version(connection)
        if version > len(known):
            raise CannotStart(_NEWER.format(address.shown, version, len(known)))
        if version == 0 and _is_there(connection, "call"):
            raise CannotStart(_FOREIGN.format(address.shown))
        for step in known[version:]:
            connection.execute(step.sql.encode())
        connection.execute("UPDATE schema_version SET version = %s", (len(known),))
    return len(known) - version


def _version(connection: Connection) -> int:
    if not _is_there(connection, "schema_version"):
        return 0
    rows = connection.execute("SELECT version FROM schema_version").fetchall()
    return int(rows[0][0])


def _is_there(connection: Connection, table: str) -> bool:
    rows = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (table,)).fetchall()
    return bool(rows[0][0])
