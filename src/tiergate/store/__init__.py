"""Keeps ledger entries, keys, jobs and cached answers; all SQL and all Redis commands live here."""

from tiergate.store.backup import back_up, damage, restore
from tiergate.store.folder import kept_secret
from tiergate.store.jobbooks import JOBS_FILE
from tiergate.store.jobs import SqliteJobs
from tiergate.store.journal import LEDGER_FILE, LedgerJournal, open_journal
from tiergate.store.owner import LiveOwner, OwnerLock, find_owner
from tiergate.store.past import LedgerPast
from tiergate.store.place import Place, place_of
from tiergate.store.reader import read_keys
from tiergate.store.shelf import CACHE_FILE, SqliteShelf
from tiergate.store.sqlite import look_at
from tiergate.store.writer import WriterLimits

__all__ = [
    "CACHE_FILE",
    "JOBS_FILE",
    "LEDGER_FILE",
    "LedgerJournal",
    "LedgerPast",
    "LiveOwner",
    "OwnerLock",
    "Place",
    "SqliteJobs",
    "SqliteShelf",
    "WriterLimits",
    "back_up",
    "damage",
    "find_owner",
    "kept_secret",
    "look_at",
    "open_journal",
    "place_of",
    "read_keys",
    "restore",
]
