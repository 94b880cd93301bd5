"""The open doors of a call: contexts that close in the other order, whichever way it leaves.

`contextlib.ExitStack` for contexts of ours, none of which swallows an exception. It stands on the path of
every call, and this costs a third of the other.
"""

from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, TypeVar

Entered = TypeVar("Entered")


class Doors:
    """Opens contexts; leaving it closes them. All of them are closed, also where closing one fails."""

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open: list[AbstractContextManager[Any]] = []

    def open(self, door: AbstractContextManager[Entered]) -> Entered:
        """Enter a context and keep it open."""
        entered = door.__enter__()
        self._open.append(door)
        return entered

    def hand_over(self) -> "Doors":
        """Give all that is open to somebody else; nothing is left to close here."""
        heir = Doors()
        heir._open, self._open = self._open, []
        return heir

    def __enter__(self) -> "Doors":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        doors = self._open
        try:
            while doors:
                doors.pop().__exit__(kind, error, trace)
        finally:
            if doors:
                self.__exit__(kind, error, trace)
