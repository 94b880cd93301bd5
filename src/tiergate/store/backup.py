"""A copy of the data folder's databases, each at one moment in time, while somebody may be writing them."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

from tiergate.core import CannotStart, StorageUnavailable
from tiergate.store.folder import make_folder
from tiergate.store.trouble import word_of

_DATABASES: Final = ("ledger.db", "jobs.db")
_PAGES_AT_ONCE: Final = 2_000
"""Between so many pages others get at the file."""

Progress = Callable[[str, int, int], None]
"""Hears of a database, the pages that are copied, and how many there are."""


def back_up(data_dir: Path, target: Path, *, progress: Progress) -> list[Path]:
    """Copy every database of a data folder into another folder, check the copies, and give their paths.

    Nothing is overwritten; a copy that could not be finished is removed.

    Raises:
        CannotStart: there is nothing to copy, the target is no folder of ours, or holds a copy already.
        StorageUnavailable: a database cannot be read, or the copy cannot be written.
    """
    found = [data_dir / name for name in _DATABASES if (data_dir / name).exists()]
    if not found:
        raise CannotStart(f"There is no ledger in {data_dir}. Look at `data_dir` in the settings.")
    make_folder(target)
    taken = [target / path.name for path in found if (target / path.name).exists()]
    if taken:
        raise CannotStart(f"{taken[0]} is there already. Back up into an empty folder.")
    return [_copy(path, target / path.name, progress) for path in found]


def _copy(source: Path, copy: Path, progress: Progress) -> Path:
    partial = copy.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        with (
            closing(sqlite3.connect(f"{source.resolve().as_uri()}?mode=ro", uri=True)) as reading,
            closing(sqlite3.connect(partial)) as writing,
        ):
            # One moment for all pages: without it every commit of the writer begins the copy anew, for ever.
            reading.execute("BEGIN")
            reading.execute("SELECT count(*) FROM sqlite_master").fetchone()
            reading.backup(
                writing,
                pages=_PAGES_AT_ONCE,
                progress=lambda _, left, total: progress(source.name, total - left, total),
            )
            (verdict,) = writing.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise StorageUnavailable(f"The copy of {source.name} is damaged ({verdict}); look at the disk.")
        partial.rename(copy)
    except OSError as error:
        raise StorageUnavailable(f"{copy} could not be written: {error.strerror}.") from error
    except sqlite3.Error as error:
        raise StorageUnavailable(f"{source.name} could not be copied ({word_of(error)}).") from error
    finally:
        partial.unlink(missing_ok=True)
    return copy
