"""Numbered migrations: brings a database file to the schema of this code, one transaction a step."""

import sqlite3
from dataclasses import dataclass
from functools import cache
from importlib import resources

from tiergate.core import CannotStart


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One numbered step of a schema."""

    number: int
    name: str
    sql: str


@cache
def migrations(package: str, folder_name: str) -> tuple[Migration, ...]:
    """Give the steps in a package's folder, in order; their numbers are 1, 2, 3 without gaps."""
    folder = resources.files(package).joinpath(folder_name)
    files = sorted(
        (file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name
    )
    steps = tuple(
        Migration(number=int(file.name[:4]), name=file.name[5:-4], sql=file.read_text(encoding="utf-8"))
        for file in files
    )
    assert [step.number for step in steps] == list(range(1, len(steps) + 1)), f"gaps: {steps}"
    return steps


def migrate(connection: sqlite3.Connection, schema: str) -> int:
    """Take the steps that the file has not taken yet and return how many they were.

    The connection must be in autocommit mode (`isolation_level=None`). The file's `user_version` is the
    number of its last step, written in the step's own transaction: a crash leaves it before or after a step.

    Raises:
        CannotStart: the file is newer than this code, or no database of ours.
        sqlite3.Error: a step failed and left nothing behind.
    """
    steps = migrations("tiergate.store", f"migrations/{schema}")
    version = _version(connection)
    if version > len(steps):
        raise CannotStart(
            f"The database {_path(connection)} has schema {version} and this Tiergate knows {len(steps)}: a "
            f"newer Tiergate wrote it. Install that version again, or set another `data_dir`."
        )
    if version == 0 and connection.execute("PRAGMA schema_version").fetchone()[0] != 0:
        raise CannotStart(
            f"The database {_path(connection)} was not made by Tiergate. Move it away, or set another "
            f"`data_dir`."
        )
    for step in steps[version:]:
        _take(connection, step)
    return len(steps) - version


def _take(connection: sqlite3.Connection, step: Migration) -> None:
    # executescript would commit by itself between statements if the BEGIN were not part of the script.
    script = f"BEGIN IMMEDIATE;\n{step.sql}\nPRAGMA user_version = {step.number};\nCOMMIT;"
    try:
        connection.executescript(script)
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def _path(connection: sqlite3.Connection) -> str:
    path: str = connection.execute("PRAGMA database_list").fetchone()[2]
    return path
