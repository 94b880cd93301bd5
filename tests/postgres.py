"""A PostgreSQL server for tests: a real one, in a folder of its own, with a place for each test."""

import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

Rows = list[tuple[object, ...]]


class Server:
    """A server that runs, and gives databases.

    Args:
        running: what `pgserver` gave.
        programs: runs `pg_ctl`, as `pgserver` does.
    """

    def __init__(self, running: Any, programs: Callable[..., Any]) -> None:
        self._running = running
        self._programs = programs
        self.uri: str = running.get_uri()
        self.socket = Path(self.uri.partition("host=")[2]) / ".s.PGSQL.5432"
        self._numbers = count(1)

    def crash(self) -> None:
        """End it at once, as a crash does; what is committed is there when it starts again."""
        self._programs(
            ["-m", "immediate", "stop"], pgdata=self._running.pgdata, user=self._running.system_user
        )

    def start(self) -> None:
        """Start it again."""
        self._running.ensure_postgres_running()

    def lock_out(self, role: str) -> None:
        """Ask a role for its password from now on."""
        rules = self._running.pgdata / "pg_hba.conf"
        rules.write_text(f"local all {role} scram-sha-256\n{rules.read_text()}")
        run(self.uri, "SELECT pg_reload_conf()")

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
            server = Server(running, pgserver.pg_ctl)
            # Killed processes lose nothing without it, only machines do; and tests wait for no disk.
            run(server.uri, "ALTER SYSTEM SET fsync = off")
            run(server.uri, "SELECT pg_reload_conf()")
            yield server
        finally:
            running.cleanup()
