"""A copy of the data folder's databases, each at one moment in time, while somebody may be writing them."""

import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from tiergate.core import CannotStart, StorageUnavailable, new_id
from tiergate.store.folder import make_backup_folder, make_folder, make_private_file
from tiergate.store.owner import OwnerLock
from tiergate.store.sqlite import snapshot
from tiergate.store.sqlite_errors import word_of

_DATABASES: Final = ("ledger.db", "jobs.db")
_KEPT: Final = "secret"
"""The house's secret, if it is kept in the folder: without it no virtual key of the ledger opens anything."""
_TEXTS: Final = "jobs"
"""The folder with the texts of jobs."""
_READ_WHOLE_BYTES: Final = 256 << 20
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
    make_backup_folder(target)
    names = [*(path.name for path in found), _TEXTS, _KEPT]
    taken = [target / name for name in names if (target / name).exists()]
    if taken:
        raise CannotStart(f"{taken[0]} is there already. Back up into an empty folder.")
    copies = [_copy(path, target / path.name, progress) for path in found]
    # After the databases: what they say stands in a spool is there by then.
    return copies + _copy_texts(data_dir, target) + _copy_secret(data_dir, target)


def restore(backup: Path, data_dir: Path) -> Path | None:
    """Put a backup in the place of a data folder's databases; give the folder to which those were moved.

    Nothing is deleted. What SQLite keeps beside a database (`-wal`, `-shm`) moves with it: left there it
    would be played into the restored one.

    Raises:
        CannotStart: there is no backup, or the data folder cannot be written.
        StoreOwned: somebody serves the data folder.
        StorageUnavailable: the backup is damaged, or cannot be copied.
    """
    found = [backup / name for name in _DATABASES if (backup / name).exists()]
    if not found:
        raise CannotStart(f"There is no ledger in {backup}. Give a folder that `tiergate backup` wrote.")
    make_folder(data_dir)
    with OwnerLock.acquire(data_dir):
        before = [path for name in _DATABASES for path in sorted(data_dir.glob(f"{name}*"))]
        if (backup / _TEXTS).exists() and (data_dir / _TEXTS).exists():
            before.append(data_dir / _TEXTS)
        if (backup / _KEPT).exists() and (data_dir / _KEPT).exists():
            before.append(data_dir / _KEPT)
        incoming = data_dir / "restoring"
        make_folder(incoming)
        copies = [_copy(path, incoming / path.name, lambda *_: None) for path in found]
        copies += _copy_texts(backup, incoming) + _copy_secret(backup, incoming)
        kept = data_dir / f"before-{new_id(time.time_ns(), os.urandom(10))}" if before else None
        if kept is not None:
            make_folder(kept)
            for path in before:
                path.rename(kept / path.name)
        for copy in copies:
            copy.rename(data_dir / copy.name)
        incoming.rmdir()
    return kept


def damage(data_dir: Path) -> str | None:
    """Look at the ledger of a data folder; give what is wrong with it, None where it is well or not there.

    A large one is only opened; one of up to 256 MB is read whole.
    """
    ledger = data_dir / _DATABASES[0]
    if not ledger.exists():
        return None
    try:
        with snapshot(ledger) as reading:
            connection = reading.connection
            connection.execute("SELECT count(*) FROM owner").fetchone()
            if ledger.stat().st_size > _READ_WHOLE_BYTES:
                return None
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except StorageUnavailable as error:
        return str(error)
    except sqlite3.Error as error:
        return f"The ledger {ledger} cannot be read ({word_of(error)})."
    return None if verdict == "ok" else f"The ledger is damaged: {verdict}"


def _copy_texts(source: Path, target: Path) -> list[Path]:
    """Copy the texts of jobs from one folder into another, if there are any; give the new folder."""
    folder = source / _TEXTS
    if not folder.is_dir():
        return []
    try:
        make_folder(target / _TEXTS)
        for path in sorted(folder.rglob("*")):
            copy = target / _TEXTS / path.relative_to(folder)
            if path.is_dir():
                make_folder(copy)
                continue
            make_folder(copy.parent)
            make_private_file(copy)
            # One that is deleted in the meantime belongs to nothing any more.
            with suppress(FileNotFoundError):
                shutil.copyfile(path, copy)
    except OSError as error:
        raise StorageUnavailable(f"{target / _TEXTS} could not be written: {error.strerror}.") from error
    return [target / _TEXTS]


def _copy_secret(source: Path, target: Path) -> list[Path]:
    """Copy the house's secret from one folder into another, if it is there; give the copy."""
    try:
        secret = (source / _KEPT).read_bytes()
    except FileNotFoundError:
        return []
    copy = target / _KEPT
    make_private_file(copy)
    copy.write_bytes(secret)
    return [copy]


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
