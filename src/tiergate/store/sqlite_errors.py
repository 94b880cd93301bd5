"""What an error of SQLite means for us: the one place where its errors are translated."""

import sqlite3
from typing import Final

from tiergate.store.trouble import Trouble

_BY_PRIMARY_CODE: Final = {
    sqlite3.SQLITE_BUSY: Trouble.LOCKED,
    sqlite3.SQLITE_LOCKED: Trouble.LOCKED,
    sqlite3.SQLITE_FULL: Trouble.FULL,
    sqlite3.SQLITE_CONSTRAINT: Trouble.RECORD,
    sqlite3.SQLITE_MISMATCH: Trouble.RECORD,
    sqlite3.SQLITE_TOOBIG: Trouble.RECORD,
    sqlite3.SQLITE_RANGE: Trouble.RECORD,
}


UNWRITABLE: Final = (sqlite3.Error, OverflowError, UnicodeEncodeError)
"""What writing a record can raise: SQLite's errors, an integer over 64 bits, and text that is not Unicode."""


def trouble_of(error: BaseException) -> Trouble:
    """Translate an error that writing raised."""
    if isinstance(error, (OverflowError, UnicodeEncodeError)):
        return Trouble.RECORD
    if not isinstance(error, sqlite3.Error):
        return Trouble.BROKEN
    code: int | None = getattr(error, "sqlite_errorcode", None)
    if code is None:
        # Raised by the module before SQLite was asked: a value of a type that it cannot bind.
        return Trouble.RECORD if isinstance(error, sqlite3.ProgrammingError) else Trouble.BROKEN
    if code == sqlite3.SQLITE_IOERR_SHMSIZE:
        # The index of the write-ahead log could not grow: nothing was written, and a full disk is why.
        return Trouble.FULL
    return _BY_PRIMARY_CODE.get(code & 0xFF, Trouble.BROKEN)


def word_of(error: BaseException) -> str:
    """Give SQLite's word for an error, such as SQLITE_IOERR_WRITE; not its message, which may quote data."""
    word: str | None = getattr(error, "sqlite_errorname", None)
    return word or type(error).__name__
