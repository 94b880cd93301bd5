"""Migrations, and what the schema itself refuses."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from enum import StrEnum
from pathlib import Path

import pytest

from tiergate.core import (
    Blame,
    CallClass,
    CannotStart,
    Cause,
    DataClass,
    EndState,
    Outcome,
    Tier,
    UsageSource,
)
from tiergate.ledger import HoldState, LineState, OwnerState, ReceiptState, SliceState
from tiergate.store.migrate import Migration, _take, migrate, migrations

LEDGER = {"owner", "call", "attempt", "adjustment", "receipt", "slice", "rollup", "rolled", "stale_slot"}
LEDGER |= {"tenant", "virtual_key"}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """An empty database file."""
    with closing(sqlite3.connect(tmp_path / "some.db", isolation_level=None)) as connection:
        yield connection


def tables(connection: sqlite3.Connection) -> set[str]:
    return {row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}


def version(connection: sqlite3.Connection) -> int:
    found: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return found


@pytest.mark.parametrize(
    ("schema", "records"),
    [
        ("ledger", LEDGER),
        ("jobs", {"file", "job", "job_input", "line", "spool"}),
        ("cache", {"answer"}),
    ],
)
def test_an_empty_file_gets_every_record(
    database: sqlite3.Connection, schema: str, records: set[str]
) -> None:
    """All steps are taken once; a second time there is nothing to do."""
    assert migrate(database, schema) == len(migrations("tiergate.store", f"migrations/{schema}"))
    assert tables(database) == records
    assert migrate(database, schema) == 0


def test_a_database_newer_than_the_code_is_refused_and_left_alone(database: sqlite3.Connection) -> None:
    """An old Tiergate does not write into a schema that it does not know."""
    migrate(database, "ledger")
    database.execute("PRAGMA user_version = 99")

    with pytest.raises(CannotStart, match=r"schema 99.*newer Tiergate"):
        migrate(database, "ledger")
    assert version(database) == 99


def test_a_database_of_somebody_else_is_refused(database: sqlite3.Connection) -> None:
    """A file that has tables but no version of ours is not taken over."""
    database.execute("CREATE TABLE theirs (a)")

    with pytest.raises(CannotStart, match="not made by Tiergate"):
        migrate(database, "ledger")
    assert tables(database) == {"theirs"}


def test_a_step_that_fails_leaves_nothing_behind(database: sqlite3.Connection) -> None:
    """Schema and version change together or not at all."""
    step = Migration(number=1, name="half", sql="CREATE TABLE a (x); INSERT INTO nowhere VALUES (1);")

    with pytest.raises(sqlite3.OperationalError):
        _take(database, step)
    assert (tables(database), version(database)) == (set(), 0)


CALL = (
    "INSERT INTO call (id, cause, key, tenant, endpoint, asked_model, class, data_class, streamed,"
    " generation, received_ns, deadline_ns, prompt_bytes, route, owner_epoch, end_state)"
    " VALUES (:id, :cause, 'k', 'k', '/', 'm', :class, :data_class, 0, 1, 1, 1, :prompt_bytes, '[]', 1, :end)"
)
ATTEMPT = (
    "INSERT INTO attempt (call_id, n, provider, model, tier, queued_ns, permit_ns, in_flight, owner_epoch,"
    " bound_nanos, hold_state, outcome, blame, usage_source, input, images, cash_nanos)"
    " VALUES (:id, :n, 'p', 'm', :tier, 1, 1, 1, 1, :bound, :state, :outcome, :blame, :source, :input,"
    " :images, :cash)"
)
RECEIPT = (
    "INSERT INTO receipt (tenant, key, endpoint, idempotency_hash, fingerprint, call_id, owner_epoch, state,"
    " created_ns) VALUES ('t', 'k', '/', x'00', x'00', 'c', 1, :state, 1)"
)
SLICE = (
    "INSERT INTO slice (ceiling, start_ns, owner_epoch, amount_nanos, boot, state, drawn_ns)"
    " VALUES ('c', 1, 1, 1, 'b', :state, 1)"
)
OWNER = "INSERT INTO owner (epoch, id, pid, started_ns, heartbeat_ns, state) VALUES (1, 'o', 1, 1, 1, :state)"
LINE = "INSERT INTO line (job, n, source, offset, bytes, state) VALUES (1, 1, 0, 0, 1, :state)"

GOOD_CALL = {
    "id": "c",
    "cause": "client",
    "class": "batch",
    "data_class": "any",
    "prompt_bytes": 0,
    "end": None,
}
GOOD_ATTEMPT = {
    "id": "c",
    "n": 1,
    "tier": "hosted",
    "bound": 1,
    "state": "held",
    "outcome": None,
    "blame": None,
    "source": "none",
    "input": 0,
    "images": 0,
    "cash": None,
}


@pytest.mark.parametrize(
    ("schema", "insert", "row", "column", "words"),
    [
        ("ledger", CALL, GOOD_CALL, "cause", Cause),
        ("ledger", CALL, GOOD_CALL, "class", CallClass),
        ("ledger", CALL, GOOD_CALL, "data_class", DataClass),
        ("ledger", CALL, GOOD_CALL, "end", EndState),
        ("ledger", ATTEMPT, GOOD_ATTEMPT, "tier", Tier),
        ("ledger", ATTEMPT, GOOD_ATTEMPT, "state", HoldState),
        ("ledger", ATTEMPT, GOOD_ATTEMPT, "outcome", Outcome),
        ("ledger", ATTEMPT, GOOD_ATTEMPT, "blame", Blame),
        ("ledger", ATTEMPT, GOOD_ATTEMPT, "source", UsageSource),
        ("ledger", RECEIPT, {}, "state", ReceiptState),
        ("ledger", SLICE, {}, "state", SliceState),
        ("ledger", OWNER, {}, "state", OwnerState),
        ("jobs", LINE, {}, "state", LineState),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_the_words_of_a_column_are_those_of_its_enumeration(
    database: sqlite3.Connection,
    schema: str,
    insert: str,
    row: dict[str, object],
    column: str,
    words: type[StrEnum],
) -> None:
    """Every state of the code is a state of the schema, and no other word is."""
    migrate(database, schema)
    for word in words:
        database.execute("BEGIN")
        database.execute(insert, row | {column: word.value})
        database.execute("ROLLBACK")
    with pytest.raises(sqlite3.IntegrityError):
        database.execute(insert, row | {column: "elsewhere"})


@pytest.mark.parametrize(
    ("insert", "row", "column"),
    [
        (CALL, GOOD_CALL, "prompt_bytes"),
        (ATTEMPT, GOOD_ATTEMPT, "bound"),
        (ATTEMPT, GOOD_ATTEMPT, "input"),
        (ATTEMPT, GOOD_ATTEMPT, "images"),
        (ATTEMPT, GOOD_ATTEMPT, "cash"),
    ],
)
def test_amounts_and_counts_are_never_negative(
    database: sqlite3.Connection, insert: str, row: dict[str, object], column: str
) -> None:
    """The database refuses a negative amount, whatever the code has calculated."""
    migrate(database, "ledger")
    database.execute("BEGIN")
    database.execute(insert, row | {column: 1})
    database.execute("ROLLBACK")
    with pytest.raises(sqlite3.IntegrityError):
        database.execute(insert, row | {column: -1})


def test_an_adjustment_is_never_changed_or_deleted(database: sqlite3.Connection) -> None:
    """Corrections are added; the database itself refuses anything else."""
    migrate(database, "ledger")
    database.execute("INSERT INTO adjustment VALUES (1, 'c', 1, -500, 'credit note', 1, 1)")

    with pytest.raises(sqlite3.IntegrityError, match="never changed"):
        database.execute("UPDATE adjustment SET delta_nanos = 0")
    with pytest.raises(sqlite3.IntegrityError, match="never deleted"):
        database.execute("DELETE FROM adjustment")
    assert database.execute("SELECT delta_nanos FROM adjustment").fetchall() == [(-500,)]


def test_numbers_are_kept_as_numbers(database: sqlite3.Connection) -> None:
    """The tables are strict: text in an integer column is refused, never converted."""
    migrate(database, "ledger")
    with pytest.raises(sqlite3.IntegrityError):
        database.execute(ATTEMPT, GOOD_ATTEMPT | {"cash": "much"})
