"""What can be in the way of writing, whichever database it is; each translates its own errors into this."""

from enum import Enum


class Trouble(Enum):
    """What to do about an error, in four ways."""

    LOCKED = "locked"
    """Not now: somebody else writes, or the database is away. Wait."""
    FULL = "full"
    """No space: what needs new space is refused, what has its room goes through; it passes by itself."""
    RECORD = "record"
    """This record cannot be written, others can."""
    BROKEN = "broken"
    """The database cannot be trusted: stop writing until it is opened again."""


class Unwritten(Exception):
    """Something could not be written.

    Attributes:
        trouble: what to do about it.
        word: the database's own word for it; never its message, which may quote data.
        doubtful: the connection was lost while it was committed, so nobody knows whether it was.
    """

    def __init__(self, trouble: Trouble, word: str, *, doubtful: bool = False) -> None:
        super().__init__(word)
        self.trouble = trouble
        self.word = word
        self.doubtful = doubtful


class TooOld(Unwritten):
    """A call that begins before what the ledger has forgotten: no sum could take it in any more."""

    def __init__(self) -> None:
        super().__init__(Trouble.RECORD, "TooOld")
