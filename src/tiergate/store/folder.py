"""The data folder: made for its owner's eyes only, and checked before anything relies on it."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tiergate.core import CannotStart


def make_folder(data_dir: Path) -> None:
    """Make the data folder with mode 0700, unless it is there.

    Raises:
        CannotStart: it cannot be made, is no folder or cannot be written to.
    """
    _make(data_dir, "data folder", "Set another `data_dir`.")


def make_backup_folder(folder: Path) -> None:
    """Make a folder for a backup with mode 0700, unless it is there; raises as `make_folder` does."""
    _make(folder, "folder", "Name another one.")


def _make(data_dir: Path, what: str, otherwise: str) -> None:
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CannotStart(f"The {what} {data_dir} cannot be made: {error.strerror}. {otherwise}") from error
    if not os.access(data_dir, os.W_OK | os.X_OK):
        raise CannotStart(
            f"The {what} {data_dir} cannot be written to. It must belong to the user who runs Tiergate "
            f"and be on a disk that is not read-only."
        )


def kept_secret(path: Path, make: Callable[[], str]) -> str:
    """Give the secret that a file of mode 0600 keeps; where it is not there, one is made and kept.

    Raises:
        CannotStart: it can be neither read nor made.
    """
    try:
        with suppress(FileNotFoundError):
            found = path.read_text(encoding="ascii").strip()
            if found:
                return found
        make_private_file(path)
        secret = make()
        path.write_text(secret + "\n", encoding="ascii")
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise CannotStart(
            f"The file {path} cannot be used: {why}. It must belong to the user who runs Tiergate."
        ) from error
    return secret


def make_private_file(path: Path) -> None:
    """Make a file that only its owner can read, or make an existing one so.

    SQLite gives its side files the mode of the database.

    Raises:
        CannotStart: it cannot be made or written.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(descriptor, 0o600)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise CannotStart(
            f"The file {path} cannot be opened for writing: {error.strerror}. It must belong to the user who "
            f"runs Tiergate."
        ) from error
