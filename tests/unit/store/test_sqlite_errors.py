"""The translation of SQLite's errors is complete."""

import sqlite3

import pytest

from tiergate.store.sqlite_errors import trouble_of, word_of
from tiergate.store.trouble import Trouble

_PASSING = {
    "SQLITE_BUSY": Trouble.LOCKED,
    "SQLITE_LOCKED": Trouble.LOCKED,
    "SQLITE_FULL": Trouble.FULL,
    "SQLITE_IOERR_SHMSIZE": Trouble.FULL,
    "SQLITE_CONSTRAINT": Trouble.RECORD,
    "SQLITE_MISMATCH": Trouble.RECORD,
    "SQLITE_TOOBIG": Trouble.RECORD,
    "SQLITE_RANGE": Trouble.RECORD,
}
_CODES = {
    name: value
    for name, value in vars(sqlite3).items()
    if name in _PASSING
    or name.startswith(("SQLITE_IOERR", "SQLITE_CORRUPT", "SQLITE_CANTOPEN", "SQLITE_READONLY"))
} | {
    name: getattr(sqlite3, name)
    for name in (
        "SQLITE_NOTADB",
        "SQLITE_NOMEM",
        "SQLITE_INTERNAL",
        "SQLITE_PERM",
        "SQLITE_ERROR",
        "SQLITE_MISUSE",
    )
}


@pytest.mark.parametrize("name", sorted(_CODES))
def test_every_code_means_one_thing(name: str) -> None:
    """Locks and full disks pass, bad records are alone, and all that is left breaks the store."""
    error = sqlite3.OperationalError("unable to open database file")
    error.sqlite_errorcode = _CODES[name]
    error.sqlite_errorname = name

    assert trouble_of(error) is _PASSING.get(name, Trouble.BROKEN)
    assert word_of(error) == name


def test_values_that_cannot_be_bound_are_a_matter_of_their_record() -> None:
    """A number over 64 bits, half a surrogate pair and a foreign object each refuse one record only."""
    with sqlite3.connect(":memory:") as connection:
        for value in (2**64, "\ud800", object()):
            with pytest.raises((OverflowError, UnicodeEncodeError, sqlite3.Error)) as caught:
                connection.execute("SELECT ?", (value,))
            assert trouble_of(caught.value) is Trouble.RECORD
    connection.close()


def test_what_is_no_error_of_sqlite_breaks_the_store() -> None:
    """Nothing is assumed about an error that nobody has thought of."""
    assert trouble_of(RuntimeError("what?")) is Trouble.BROKEN
    assert word_of(RuntimeError("what?")) == "RuntimeError"
