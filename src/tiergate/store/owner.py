"""Who owns a data folder: one process at a time, by a file lock that the kernel frees when the process dies.

`owner.lock` is locked as long as the owner lives, and never deleted. `owner.json` says where it listens; it
is there once the owner has published it, and means nothing without the lock.
"""

import fcntl
import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tiergate.core import CannotStart, StoreOwned
from tiergate.store.folder import make_folder

LOCK_FILE: Final = "owner.lock"
OWNER_FILE: Final = "owner.json"

_TRIES: Final = 5
_BETWEEN_TRIES_S: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveOwner:
    """The process that owns a data folder now."""

    pid: int | None
    address: str | None
    """Of its data plane; None while it is starting."""
    token: str | None = field(default=None, repr=False)
    """What its data plane accepts from this machine's user."""
    admin: str | None = None
    """Address of its admin plane; None: it has none."""
    admin_token: str | None = field(default=None, repr=False)
    started_ns: int | None = None


class OwnerLock:
    """A held lock on a data folder; a context that releases it."""

    def __init__(self, data_dir: Path, descriptor: int, started_ns: int) -> None:
        self._data_dir = data_dir
        self._descriptor: int | None = descriptor
        self._started_ns = started_ns

    @classmethod
    def acquire(cls, data_dir: Path) -> Self:
        """Lock the data folder, which is made where it does not exist.

        Raises:
            StoreOwned: a process has it, be it this one; says which, where it listens and what to do.
            CannotStart: the folder cannot be used.
        """
        make_folder(data_dir)
        descriptor = _open_lock(data_dir / LOCK_FILE)
        try:
            if not _lock_patiently(descriptor):
                raise StoreOwned(_owned(data_dir, _published(data_dir, _pid_in(descriptor))))
            # What a dead owner published must be gone before the lock names a new one.
            (data_dir / OWNER_FILE).unlink(missing_ok=True)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            os.close(descriptor)
            raise CannotStart(_unusable(data_dir / LOCK_FILE, error)) from error
        except BaseException:
            os.close(descriptor)
            raise
        return cls(data_dir, descriptor, time.time_ns())

    def publish(
        self, address: str, token: str, *, admin: str | None = None, admin_token: str | None = None
    ) -> None:
        """Say where the owner listens, in `owner.json`, mode 0600; readers see the old text or the new.

        Raises:
            CannotStart: it cannot be written.
        """
        assert self._descriptor is not None, "the lock was released"
        facts = {
            "pid": os.getpid(),
            "address": address,
            "token": token,
            "admin": admin,
            "admin_token": admin_token,
            "started_ns": self._started_ns,
        }
        path = self._data_dir / OWNER_FILE
        fresh = path.with_suffix(".new")
        try:
            fresh.unlink(missing_ok=True)
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(facts, file)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
        except OSError as error:
            raise CannotStart(_unusable(path, error)) from error

    def release(self) -> None:
        """Take back what was published and free the lock; a second time does nothing."""
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        with suppress(OSError):  # what is left there counts for nothing, as nobody holds the lock
            (self._data_dir / OWNER_FILE).unlink(missing_ok=True)
        os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def find_owner(data_dir: Path) -> LiveOwner | None:
    """Tell who owns a data folder now; None where nobody does, whatever files are left there.

    Raises:
        CannotStart: the lock belongs to another user.
    """
    path = data_dir / LOCK_FILE
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CannotStart(_unusable(path, error)) from error
    try:
        # A shared lock does not disturb others who only look, and `acquire` is patient with them.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _published(data_dir, _pid_in(descriptor))
    finally:
        os.close(descriptor)
    return None


def _open_lock(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CannotStart(_unusable(path, error)) from error


def _lock_patiently(descriptor: int) -> bool:
    """Take the lock; somebody who only looks holds it for a moment, so one refusal is not yet an answer."""
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(_BETWEEN_TRIES_S)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        return True
    return False


def _pid_in(descriptor: int) -> int | None:
    text = os.pread(descriptor, 32, 0).strip()
    return int(text) if text.isdigit() else None


def _published(data_dir: Path, pid: int | None) -> LiveOwner:
    """Read what the owner published; of another process than the lock names, it is a leftover."""
    nothing = LiveOwner(pid=pid, address=None)
    try:
        facts = json.loads((data_dir / OWNER_FILE).read_bytes())
        found = LiveOwner(
            pid=int(facts["pid"]),
            address=str(facts["address"]),
            token=str(facts["token"]),
            started_ns=int(facts["started_ns"]),
            admin=facts.get("admin"),
            admin_token=facts.get("admin_token"),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return nothing
    return found if found.pid == pid else nothing


def _owned(data_dir: Path, owner: LiveOwner) -> str:
    who = "another process" if owner.pid is None else f"process {owner.pid}"
    where = "which is starting" if owner.address is None else f"which listens at {owner.address}"
    return (
        f"The data folder {data_dir} is in use by {who}, {where}. Send your calls there, stop that process, "
        f"or set another `data_dir`."
    )


def _unusable(path: Path, error: OSError) -> str:
    return (
        f"The file {path} cannot be used: {error.strerror}. It must belong to the user who runs "
        f"Tiergate, and the disk must be writable."
    )
