"""Files of text in a folder: written at their ends, read at any place, under names that are made here.

Names are ids and numbers of ours, so none of them can lead anywhere else.
"""

import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

from tiergate.core import CannotStart, StorageBroken, StorageUnavailable
from tiergate.store.folder import make_folder

_NAME: Final = re.compile(r"[a-z0-9_-]{1,64}(/[a-z0-9_-]{1,64})?")
_BROKEN: Final = (
    "The folder of jobs gave an error when it was to be written to its disk, and nobody knows what is on it. "
    "Check the disk, then restart Tiergate: what is in the files is taken over, and goes on."
)


class Texts:
    """The files of a folder, which is made with mode 0700. Open files are kept open until they are closed.

    Raises:
        CannotStart: the folder cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        make_folder(folder)
        self._folder = folder
        self._open: dict[str, int] = {}
        self._sizes: dict[str, int] = {}
        """Of the open ones; nobody else writes them."""
        self._unsynced: set[str] = set()
        """Files whose names may not be on the disk yet."""
        self._unsynced_for_good: set[str] = set()
        """Files of which nobody knows what is on the disk: after an error the kernel takes what it could not
        write for written, so that the next sync would say that all is well."""
        self._torn: set[str] = set()
        """Files that end with half a record."""

    def append(self, name: str, data: bytes) -> int:
        """Write at the end of a file; gives where that was.

        Raises:
            StorageUnavailable: nothing was written.
            StorageBroken: nor will be, before the next start.
        """
        if name in self._torn:
            raise StorageBroken(_BROKEN)
        try:
            descriptor = self._descriptor(name)
        except OSError as error:
            raise _unwritable(error) from error
        at = self._sizes[name]
        written = 0
        try:
            while written < len(data):
                written += os.write(descriptor, data[written:] if written else data)
        except OSError as error:
            # Half a record is worse than none: whatever comes next would stand behind it.
            try:
                os.ftruncate(descriptor, at)
            except OSError:
                self._torn.add(name)
            raise _unwritable(error) from error
        self._sizes[name] = at + len(data)
        return at

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Read a piece of a file; less than `size` only at its end, nothing where there is none.

        Raises:
            StorageUnavailable: it cannot be read.
        """
        try:
            descriptor = self._open.get(name)
            if descriptor is not None:
                return os.pread(descriptor, size, offset)
            descriptor = os.open(self._path(name), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                return os.pread(descriptor, size, offset)
            finally:
                os.close(descriptor)
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise StorageUnavailable(f"The folder of jobs cannot be read ({error.strerror}).") from error

    def size(self, name: str) -> int:
        """Give the bytes of a file; 0 where there is none."""
        try:
            return self._path(name).lstat().st_size
        except FileNotFoundError:
            return 0

    def folder(self, name: str) -> Path:
        """Give the folder of the files under a name, made where it is not there.

        Raises:
            StorageUnavailable: it cannot be made.
        """
        path = self._path(f"{name}/any").parent
        try:
            path.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise _unwritable(error) from error
        return path

    def list(self, name: str) -> list[int]:
        """Give the names of the files under a name, which are numbers, the smallest first."""
        try:
            return sorted(int(path.name) for path in self._path(name).iterdir() if path.name.isdigit())
        except FileNotFoundError:
            return []

    def truncate(self, name: str, size: int) -> None:
        """Cut a file off."""
        try:
            os.ftruncate(self._descriptor(name), size)
        except OSError as error:
            raise _unwritable(error) from error

    def sync(self, name: str) -> None:
        """Return when a loss of power takes nothing away of what was written to a file.

        Raises:
            StorageBroken: nobody knows what is on the disk, and nothing more is said of this file before the
                next start.
        """
        if name in self._unsynced_for_good:
            raise StorageBroken(_BROKEN)
        try:
            os.fdatasync(self._descriptor(name))
            if name in self._unsynced:
                _sync_folder(self._path(name).parent)
                _sync_folder(self._folder)
                self._unsynced.discard(name)
        except OSError as error:
            self._unsynced_for_good.add(name)
            raise StorageBroken(_BROKEN) from error

    def write_again(self, name: str, offset: int, data: bytes) -> None:
        """Write once more what was read from a file, so that the next `sync` takes care of it.

        An owner that is gone may have been told of an error, after which the kernel takes what stands in its
        memory alone for written.
        """
        try:
            descriptor = os.open(self._path(name), os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                written = 0
                while written < len(data):
                    written += os.pwrite(descriptor, data[written:], offset + written)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise _unwritable(error) from error

    def close(self, name: str) -> None:
        """Let go of a file; it is opened again by whoever writes it next."""
        descriptor = self._open.pop(name, None)
        self._sizes.pop(name, None)
        if descriptor is not None:
            os.close(descriptor)

    def delete(self, name: str) -> None:
        """Delete a file, or everything under a name, if it is there."""
        # Another thread may open a spool meanwhile, so they are listed in one step.
        for known in [one for one in list(self._open) if one == name or one.startswith(f"{name}/")]:
            self.close(known)
        path = self._path(name)
        with suppress(FileNotFoundError):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    def close_all(self) -> None:
        """Let go of all files."""
        for name in list(self._open):
            self.close(name)

    def _descriptor(self, name: str) -> int:
        descriptor = self._open.get(name)
        if descriptor is None:
            path = self._path(name)
            path.parent.mkdir(mode=0o700, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = self._open[name] = os.open(path, flags, 0o600)
            self._sizes[name] = os.lseek(descriptor, 0, os.SEEK_END)
            self._unsynced.add(name)
        return descriptor

    def _path(self, name: str) -> Path:
        assert _NAME.fullmatch(name), "names are made here"
        path = self._folder / name
        if "/" in name and path.parent.is_symlink():
            raise StorageUnavailable(f"{path.parent} must be a folder of its own and no link.")
        return path


def jobs_folder(data_dir: Path) -> Path:
    """Give the folder of a data folder that holds the texts of jobs, made where it is not there.

    Raises:
        CannotStart: it cannot be made.
    """
    folder = data_dir / "jobs"
    if folder.is_symlink():
        raise CannotStart(f"{folder} must be a folder of its own and no link.")
    make_folder(folder)
    return folder


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unwritable(error: OSError) -> StorageUnavailable:
    return StorageUnavailable(
        f"The folder of jobs cannot be written ({error.strerror}). Is its disk full? Nothing is lost; it "
        "goes on when there is room."
    )
