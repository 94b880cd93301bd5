"""The lines that are being asked, where a kill of the process does not take them: numbers in a mapped file.

Beginning a line and ending it cost no system call, since the kernel has the page however the process ends.
What stands there afterwards was in flight when it died. A loss of power may leave older numbers there, which
are then only looked at for nothing.
"""

import errno
import mmap
import os
from array import array
from pathlib import Path
from typing import Final

from tiergate.core import StorageUnavailable

_BYTES: Final = 8
_FIRST: Final = 512
"""Slots that a file begins with; it grows."""


class Slots:
    """The numbers in a file, none of which is 0.

    Raises:
        StorageUnavailable: the file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise _unusable(error) from error
        try:
            size = os.fstat(self._descriptor).st_size // _BYTES
            self.found = tuple(number for number in _numbers(self._descriptor) if number)
            """What stood there when it was opened."""
            self._size = max(size, _FIRST)
            self._memory = _mapped(self._descriptor, self._size)
        except OSError as error:
            os.close(self._descriptor)
            raise _unusable(error) from error
        self._view = memoryview(self._memory).cast("Q")
        self._free = list(range(self._size - 1, -1, -1))
        self._of: dict[int, int] = {}

    @property
    def taken(self) -> int:
        """How many numbers are written down."""
        return len(self._of)

    def begin(self, number: int) -> None:
        """Write a number down; once, however often it is begun.

        Raises:
            StorageUnavailable: there is no room for one more.
        """
        if number in self._of:
            return
        if not self._free:
            self._grow()
        slot = self._of[number] = self._free.pop()
        self._view[slot] = number

    def end(self, number: int) -> None:
        """Take a number back, if it is there."""
        slot = self._of.pop(number, None)
        if slot is not None:
            self._view[slot] = 0
            self._free.append(slot)

    def clear(self) -> None:
        """Forget what stood there when it was opened."""
        for slot in range(self._size):
            self._view[slot] = 0

    def close(self) -> None:
        """Close the file."""
        self._view.release()
        self._memory.close()
        os.close(self._descriptor)

    def _grow(self) -> None:
        try:
            memory = _mapped(self._descriptor, 2 * self._size)
        except OSError as error:
            raise _unusable(error) from error
        self._view.release()
        self._memory.close()
        before, self._size = self._size, 2 * self._size
        self._memory = memory
        self._view = memoryview(self._memory).cast("Q")
        self._free = list(range(self._size - 1, before - 1, -1))


def _mapped(descriptor: int, size: int) -> mmap.mmap:
    # Room is made by writing. Into a page that finds none on the disk the kernel lets nobody write through
    # memory: it ends the process.
    there = os.fstat(descriptor).st_size
    missing = size * _BYTES - there
    if missing > 0 and os.pwrite(descriptor, bytes(missing), there) < missing:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return mmap.mmap(descriptor, size * _BYTES)


def _numbers(descriptor: int) -> "array[int]":
    found = array("Q")
    data = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    found.frombytes(data[: len(data) // _BYTES * _BYTES])
    return found


def _unusable(error: OSError) -> StorageUnavailable:
    return StorageUnavailable(
        f"It cannot be noted which lines are asked ({error.strerror}). Is the disk full?"
    )
