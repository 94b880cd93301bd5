"""A PostgreSQL server for tests: a real one, in a folder of its own, with a place for each test."""

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

Rows = list[tuple[object, ...]]


class Server:
    """A server that runs, and gives databases."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._numbers = count(1)

    @contextmanager
    def schema(self) -> Iterator[str]:
        """Give the address of an empty place in the server, which is gone afterwards."""
        name = f"t{next(self._numbers)}"
        run(self.uri, f"CREATE SCHEMA {name}")
        try:
            yield f"{self.uri}&options={quote(f'-csearch_path={name}')}"
        finally:
            run(self.uri, f"DROP SCHEMA {name} CASCADE")


def run(uri: str, sql: str, *facts: object) -> Rows:
    """Run a statement, and give its rows, if it has any."""
    with psycopg.connect(uri, autocommit=True) as connection:
        cursor = connection.execute(sql.encode(), facts or None)
        return cursor.fetchall() if cursor.description else []


@contextmanager
def serving() -> Iterator[Server]:
    """Run a server for as long as the context lasts."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # of the package about the folder in which it would keep its own files
        pgserver = pytest.importorskip(
            "pgserver", reason="there is no PostgreSQL for this machine to test with"
        )
    # In no folder of pytest's: run by root, the server is another user, who cannot enter there.
    with tempfile.TemporaryDirectory(prefix="tiergate-") as folder:
        running = pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        try:
            server = Server(running.get_uri())
            # Killed processes lose nothing without it, only machines do; and tests wait for no disk.
            run(server.uri, "ALTER SYSTEM SET fsync = off")
            run(server.uri, "SELECT pg_reload_conf()")
            yield server
        finally:
            running.cleanup()
