"""Connections to a PostgreSQL server: where it is, how we speak to it, and why it cannot be reached.

The password is in the address only; whatever is said to people has gone through `Address.said`.
"""

from typing import Any, Final

import psycopg
from psycopg.adapt import Dumper
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.types.numeric import IntLoader

from tiergate.core import CannotStart

Connection = psycopg.Connection[tuple[Any, ...]]

_DEFAULTS: Final = {
    "connect_timeout": "3",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "8000",
    "application_name": "tiergate",
    "client_encoding": "utf8",
}
"""How long a server may be silent before it counts as gone, in seconds (the last in milliseconds): whoever
writes waits as long at most, and refuses nobody meanwhile. The address may set all of these otherwise."""
_TO_WRITE: Final = (
    b"SET synchronous_commit = on;"
    b"SET default_transaction_isolation = 'read committed';"
    # A process that was stopped in the middle of a transaction holds up others no longer than this.
    b"SET idle_in_transaction_session_timeout = '10s';"
    b"SET statement_timeout = '20s';"
    # All that is written is found by its key. A plan that was made when the tables were small must not read
    # them whole when they are large.
    b"SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off"
)
_OLDEST: Final = 140_000
_HOW: Final = "docs/how-to/postgresql.md"
_REMEDIES: Final = (
    ("password authentication failed", "Look at user and password in `store`."),
    (
        "no password supplied",
        "Write user and password into `store`: postgresql://user:password@host/database.",
    ),
    ('role "', "Make this user: CREATE ROLE … LOGIN PASSWORD …, or look at `store`."),
    ('database "', "Make this database: CREATE DATABASE … OWNER …, or look at `store`."),
    ("failed to resolve host", "Look at the host's name in `store`."),
    ("Connection refused", "Start the server, or look at host and port in `store`."),
    ("timeout expired", "Look at host and port in `store`, and whether a firewall is in between."),
)


class Address:
    """Where the database is.

    Raises:
        CannotStart: it is no address of a PostgreSQL database.
    """

    def __init__(self, url: str) -> None:
        try:
            self._parts = {**_DEFAULTS, **{name: str(part) for name, part in conninfo_to_dict(url).items()}}
        except psycopg.ProgrammingError:
            # Its message quotes parts of the address.
            raise CannotStart(
                "The setting `store` is no address that PostgreSQL's library understands. Write it as "
                "postgresql://user:password@host:5432/database, with special characters percent-encoded."
            ) from None
        parts = self._parts
        user, port = parts.get("user"), parts.get("port")
        host = parts.get("host", "").replace("/", "%2F")
        self.shown: str = (
            f"postgresql://{f'{user}@' if user else ''}{host}{f':{port}' if port else ''}"
            f"/{parts.get('dbname', '')}"
        )
        """The address without password."""

    def connect(self) -> Connection:
        """Open a connection, in which every statement is a transaction unless one is begun.

        Raises:
            psycopg.Error: it cannot be reached.
        """
        connection = psycopg.connect(make_conninfo(**self._parts), autocommit=True)
        adapters = connection.adapters
        # Sums of bigint are numeric, and come as whole numbers. Whole numbers go without a type, as text
        # does: the server takes that of their column, and prepares a statement once, however large they are.
        adapters.register_loader("numeric", IntLoader)
        adapters.register_dumper(int, _Whole)
        return connection

    def connect_to_write(self) -> Connection:
        """Open a connection for whoever writes; raises as `connect` does."""
        connection = self.connect()
        try:
            connection.execute(_TO_WRITE)
        except BaseException:
            connection.close()
            raise
        return connection

    def said(self, error: BaseException) -> str:
        """Give what the server or the library says of an error, on one line and without the password."""
        text = "; ".join(line.strip() for line in str(error).splitlines() if line.strip())
        password = self._parts.get("password")
        return text.replace(password, "***") if password else text

    def why_not(self, error: BaseException) -> CannotStart:
        """Say why it cannot be opened, and what to do."""
        said = self.said(error)
        remedy = next((remedy for words, remedy in _REMEDIES if words in said), "Look at `store`.")
        return CannotStart(
            f"The ledger's database {self.shown} cannot be opened: {said}. {remedy} See {_HOW}."
        )

    def check(self, connection: Connection) -> None:
        """Look whether the server can hold a ledger.

        Raises:
            CannotStart: it cannot; says why.
        """
        if connection.info.server_version < _OLDEST:
            raise CannotStart(f"The database {self.shown} is older than PostgreSQL 14. Use a newer one.")
        encoding = connection.info.parameter_status("server_encoding")
        if encoding != "UTF8":
            raise CannotStart(
                f"The database {self.shown} has the encoding {encoding}. Make one with CREATE DATABASE … "
                f"ENCODING 'UTF8' TEMPLATE template0."
            )


class _Whole(Dumper):
    def dump(self, obj: int) -> bytes:
        return str(obj).encode()

    def quote(self, obj: int) -> bytes:
        return self.dump(obj)
