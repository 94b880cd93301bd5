"""The translation of PostgreSQL's errors is complete, and its addresses keep their password to themselves."""

import psycopg
import pytest
from psycopg import errors

from tiergate.store.postgres.connection import Address
from tiergate.store.postgres.errors import trouble_of, word_of
from tiergate.store.postgres.statements import statements, translated
from tiergate.store.statements import statements as shared
from tiergate.store.trouble import Trouble

_CODES = {
    found.sqlstate: found
    for found in vars(errors).values()
    if isinstance(found, type) and issubclass(found, psycopg.Error) and found.sqlstate
}
_WAITING = ("08", "28", "3D", "40", "53", "57")
_ALONE = ("21", "22", "23", "54")
_EXCEPTIONS = {
    "53100": Trouble.FULL,
    "25006": Trouble.LOCKED,
    "25P03": Trouble.LOCKED,
    "25P04": Trouble.LOCKED,
    "55P03": Trouble.LOCKED,
    "58000": Trouble.LOCKED,
    "58030": Trouble.LOCKED,
}


def expected(code: str) -> Trouble:
    if code in _EXCEPTIONS:
        return _EXCEPTIONS[code]
    if code[:2] in _WAITING:
        return Trouble.LOCKED
    return Trouble.RECORD if code[:2] in _ALONE else Trouble.BROKEN


def test_every_code_means_one_thing() -> None:
    """What passes by itself waits, bad records are alone, and all that is left breaks the store."""
    assert len(_CODES) > 200
    for code, kind in _CODES.items():
        assert trouble_of(kind()) is expected(code), code
        assert word_of(kind("call of alice")) == f"{code} {kind.__name__}"


def test_without_a_word_from_the_server_there_is_no_connection() -> None:
    """The driver's own errors: connections wait, values that it cannot send are of their record."""
    assert trouble_of(psycopg.OperationalError("connection is lost")) is Trouble.LOCKED
    assert trouble_of(psycopg.InterfaceError("the connection is closed")) is Trouble.LOCKED
    assert trouble_of(psycopg.DataError("NUL")) is Trouble.RECORD
    assert trouble_of(psycopg.ProgrammingError("cannot adapt type")) is Trouble.RECORD
    assert trouble_of(UnicodeEncodeError("utf8", "", 0, 1, "surrogate")) is Trouble.RECORD
    assert trouble_of(RuntimeError("what?")) is Trouble.BROKEN
    assert word_of(RuntimeError("what?")) == "RuntimeError"


def test_an_address_is_shown_without_its_password() -> None:
    """Nor does what a library says of it hold it."""
    address = Address("postgresql://tiergate:geheim@db.example:5433/ledger?sslmode=require&password=geheim")
    assert address.shown == "postgresql://tiergate@db.example:5433/ledger"
    assert address.said(psycopg.OperationalError("cannot use\n  geheim ")) == "cannot use; ***"


@pytest.mark.parametrize("file", ["ledger", "past", "rollup", "keys"])
def test_every_statement_is_there_in_the_drivers_words(file: str) -> None:
    """Those of the SQLite store, unless there is another one; no placeholder of SQLite is left."""
    found = statements(file)
    assert found.keys() >= shared(file).keys()
    for name, text in found.items():
        assert b"?" not in text and b" :" not in text, name


def test_placeholders_are_told_from_types_and_from_rests() -> None:
    """`::` is a cast, and a per cent sign stays one."""
    assert translated("SELECT a::text, 7 % 2 WHERE b = :b AND c = ?") == (
        "SELECT a::text, 7 %% 2 WHERE b = %(b)s AND c = %s"
    )


def test_every_update_of_a_state_names_the_state_that_it_leaves() -> None:
    """As in the SQLite store: doing it twice changes nothing."""
    updates = {name: text.decode() for name, text in statements("ledger").items() if b"UPDATE " in text}
    leaves = (
        "state = 'alive'",
        "hold_state = 'held'",
        "hold_state = 'lapsed'",
        "end_state IS NULL",
        "hold_state = 'settled' FOR UPDATE",
    )
    assert len(updates) >= 9
    for name, text in updates.items():
        assert name == "hold_again" or any(state in text for state in leaves), name
