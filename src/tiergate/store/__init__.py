"""Keeps ledger entries, keys, jobs and cached answers in SQLite; all SQL lives here."""

from tiergate.store.journal import SqliteJournal, open_journal
from tiergate.store.owner import LiveOwner, OwnerLock, find_owner
from tiergate.store.writer import WriterLimits

__all__ = [
    "LiveOwner",
    "OwnerLock",
    "SqliteJournal",
    "WriterLimits",
    "find_owner",
    "open_journal",
]
