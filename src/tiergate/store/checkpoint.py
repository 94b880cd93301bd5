"""Moves the write-ahead log into the database, in a thread and on a connection of its own.

A checkpoint waits for the disk, for 10 to 50 ms. In the writing thread it would hold up every call that comes
in the meantime.
"""

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

from tiergate.store.trouble import Unwritten

_LARGE_PAGES: Final = 16_000
"""64 MB of log: from here on the writer is made to wait, once, so that it can begin the log anew."""
_FULL_WAIT_MS: Final = 100


class Checkpointer:
    """Checkpoints one database, one at a time, when told to.

    Args:
        path: the database.
        untrusted: tells of an error whether the file cannot be trusted after it.
    """

    def __init__(self, path: Path, untrusted: Callable[[sqlite3.Error], Unwritten | None]) -> None:
        self._path = path
        self._untrusted = untrusted
        self._thread: threading.Thread | None = None
        self.failure: Unwritten | None = None
        """An error after which the file cannot be trusted: nobody knows what a failed fsync left out."""

    def start(self) -> None:
        """Begin a checkpoint, unless one is running."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="tiergate-checkpoint", daemon=True)
            self._thread.start()

    def wait(self) -> None:
        """Wait for the one that is running."""
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            with closing(sqlite3.connect(self._path, isolation_level=None)) as connection:
                connection.execute("PRAGMA synchronous = NORMAL")
                connection.execute(f"PRAGMA busy_timeout = {_FULL_WAIT_MS}")
                # Takes no lock that a writer wants, but the log begins anew only after a checkpoint in which
                # nothing was written. Under constant load there is none; so now and then the rest is done
                # with the writer waiting. It is short, because the bulk has just been done.
                _, pages, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                if pages > _LARGE_PAGES:
                    connection.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
        except sqlite3.Error as error:
            # A lock or a full disk passes by: the log keeps what could not be moved.
            self.failure = self._untrusted(error) or self.failure
