"""What an error of PostgreSQL or its driver means for us: the one place where its errors are translated."""

from typing import Final

import psycopg

from tiergate.store.trouble import Trouble

UNWRITABLE: Final = (psycopg.Error, OverflowError, UnicodeEncodeError)
"""What writing a record can raise: the driver's errors, and text that is not Unicode."""

_BY_STATE: Final = {
    "53100": Trouble.FULL,
    "25006": Trouble.LOCKED,  # a standby, after a failover: it passes
    "25P03": Trouble.LOCKED,  # idle in a transaction for too long: this process was stopped
    "25P04": Trouble.LOCKED,
    "55P03": Trouble.LOCKED,
    "57014": Trouble.LOCKED,
    "58000": Trouble.LOCKED,
    "58030": Trouble.LOCKED,  # input or output: the server looks after its own disk
}
_BY_CLASS: Final = {
    "08": Trouble.LOCKED,  # connections
    "21": Trouble.RECORD,  # two records in one statement that are of one row
    "22": Trouble.RECORD,  # values
    "23": Trouble.RECORD,  # constraints
    "28": Trouble.LOCKED,  # who may come in: somebody is changing the password
    "3D": Trouble.LOCKED,
    "40": Trouble.LOCKED,  # deadlocks and failures to serialise
    "53": Trouble.LOCKED,  # memory and connections
    "54": Trouble.RECORD,  # a row or a text over a limit of the server
    "57": Trouble.LOCKED,  # an operator stops the server, or it restarts
}


def trouble_of(error: BaseException) -> Trouble:
    """Translate an error that writing raised."""
    if isinstance(error, (OverflowError, UnicodeEncodeError)):
        return Trouble.RECORD
    if not isinstance(error, psycopg.Error):
        return Trouble.BROKEN
    state = error.sqlstate
    if state is not None:
        return _BY_STATE.get(state) or _BY_CLASS.get(state[:2], Trouble.BROKEN)
    if isinstance(error, (psycopg.DataError, psycopg.ProgrammingError)):
        # Raised by the driver before the server was asked: a value that it cannot send.
        return Trouble.RECORD
    # Without a word from the server there is no connection to it.
    return Trouble.LOCKED


def word_of(error: BaseException) -> str:
    """Give PostgreSQL's word for an error, such as 53100 DiskFull; not its message, which may quote data."""
    state = error.sqlstate if isinstance(error, psycopg.Error) else None
    return type(error).__name__ if state is None else f"{state} {type(error).__name__}"
