"""What an error of SQLite means for us: the one place where its errors are translated."""

import sqlite3
from enum import Enum
from typing import Final


class Trouble(Enum):
    """What to do about an error, in four ways."""

    LOCKED = "locked"
    """Somebody else writes: wait."""
    FULL = "full"
    """No space: what needs new space is refused, what has its room goes through; it passes by itself."""
    RECORD = "record"
    """This record cannot be written, others can."""
    BROKEN = "broken"
    """The file or the disk cannot be trusted: stop writing until it is opened again."""


_BY_PRIMARY_CODE: Final = {
    sqlite3.SQLITE_BUSY: Trouble.LOCKED,
    sqlite3.SQLITE_LOCKED: Trouble.LOCKED,
    sqlite3.SQLITE_FULL: Trouble.FULL,
    sqlite3.SQLITE_CONSTRAINT: Trouble.RECORD,
    sqlite3.SQLITE_MISMATCH: Trouble.RECORD,
    sqlite3.SQLITE_TOOBIG: Trouble.RECORD,
    sqlite3.SQLITE_RANGE: Trouble.RECORD,
}


class TooOld(Exception):
    """A call that begins before what the ledger has forgotten: no sum could take it in any more."""


UNWRITABLE: Final = (sqlite3.Error, OverflowError, UnicodeEncodeError, TooOld)
"""What writing a record can raise: SQLite's errors, an integer over 64 bits, text that is not Unicode, and a
time long ago."""


def trouble_of(error: BaseException) -> Trouble:
    """Translate an error that writing raised."""
    if isinstance(error, (OverflowError, UnicodeEncodeError, TooOld)):
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
