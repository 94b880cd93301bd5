"""Reads the ledger through connections of its own, which can write nothing; called in worker threads."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from tiergate.admission import VirtualKey
from tiergate.core import StorageUnavailable
from tiergate.ledger import Counted, Entry, EntryQuery
from tiergate.store.keys import read_keys
from tiergate.store.rows import adjustment_of, counted_of, entries_of, entry_of, first_id
from tiergate.store.statements import statements
from tiergate.store.trouble import word_of


def read_entry(path: Path, call_id: str) -> Entry | None:
    """Read one call with its attempts.

    Raises:
        StorageUnavailable: the file cannot be read.
    """
    sql = statements("ledger")
    with snapshot(path) as connection:
        calls = connection.execute(sql["read_call"], (call_id,)).fetchall()
        attempts = connection.execute(sql["read_attempts"], {"first": call_id, "last": call_id}).fetchall()
    found = entries_of(calls, attempts)
    return found[0] if found else None


def read_entries(path: Path, *, after: str | None, limit: int) -> list[Entry]:
    """Read calls in the order of their ids, those after `after`, at most `limit`.

    Raises:
        StorageUnavailable: the file cannot be read.
    """
    sql = statements("ledger")
    with snapshot(path) as connection:
        calls = connection.execute(sql["read_calls"], {"after": after or "", "limit": limit}).fetchall()
        if not calls:
            return []
        span = {"first": calls[0][0], "last": calls[-1][0]}
        attempts = connection.execute(sql["read_attempts"], span).fetchall()
    return entries_of(calls, attempts)


def find_entries(path: Path, query: EntryQuery) -> list[Entry]:
    """Read calls that answer a question, newest first, with their adjustments.

    Raises:
        StorageUnavailable: the file cannot be read.
    """
    sql = statements("ledger")
    facts = {
        "before": query.before or "~",
        "first": first_id(query.since_ns),
        "key": query.key,
        "team": query.team,
        "tag": query.tag,
        "model": query.model,
        "lapsed": query.is_lapsed,
        "limit": query.limit,
    }
    with snapshot(path) as connection:
        found = []
        for call in connection.execute(sql["find_calls"], facts).fetchall():
            attempts = connection.execute(sql["find_attempts"], (call[0],)).fetchall()
            adjustments = connection.execute(sql["find_adjustments"], (call[0],)).fetchall()
            entry = entry_of(call, attempts)
            found.append(replace(entry, adjustments=tuple(map(adjustment_of, adjustments))))
    return found


def read_counted(path: Path, *, limit: int) -> list[Counted]:
    """Read the last attempts whose shape was taken and whose input was reported, oldest first.

    Raises:
        StorageUnavailable: the file cannot be read.
    """
    with snapshot(path) as connection:
        rows = connection.execute(statements("ledger")["read_counted"], (limit,)).fetchall()
    return [counted_of(row) for row in reversed(rows)]


def kept_keys(path: Path) -> list[VirtualKey]:
    """Read the virtual keys, the oldest first, whoever owns the ledger.

    Raises:
        StorageUnavailable: the file cannot be read.
    """
    with snapshot(path) as connection:
        return read_keys(connection)


def frozen(path: Path) -> sqlite3.Connection:
    """Open a database for reading, as it is at this moment; the connection may change threads.

    Raises:
        sqlite3.Error: it cannot be read.
    """
    address = f"{path.resolve().as_uri()}?mode=ro"
    connection = sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("BEGIN")
        # A transaction sees the file as it is at its first look.
        connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone()
    except sqlite3.Error:
        connection.close()
        raise
    return connection


@contextmanager
def snapshot(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a database for reading, at one moment in time for all that is read.

    Raises:
        StorageUnavailable: it cannot be read.
    """
    try:
        with closing(frozen(path)) as found:
            yield found
    except sqlite3.Error as error:
        raise StorageUnavailable(
            f"The ledger {path} cannot be read ({word_of(error)}); `tiergate doctor` looks at it."
        ) from error
