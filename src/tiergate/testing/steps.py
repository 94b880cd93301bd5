"""The steps of a reply: what there is to do, before any of it is done.

The server plays them on a socket, the in-memory upstream plays the same ones for its caller.
"""

from enum import Enum
from typing import NamedTuple

Pairs = tuple[tuple[str, str], ...]


class Status(NamedTuple):
    """The status line."""

    code: int


class Headers(NamedTuple):
    """All headers but those that belong to the connection; then the body begins."""

    pairs: Pairs
    chunked: bool


class Torn(NamedTuple):
    """A piece of the body in a chunk that claims another length than its own."""

    data: bytes
    claimed: int
    closed: bool
    """The chunk ends like a good one; otherwise the rest of it is missing."""


class Token(NamedTuple):
    """Wait until this token of this choice has left."""

    choice: int
    number: int


class Pause(NamedTuple):
    """Wait so long."""

    seconds: float


class How(Enum):
    """What becomes of the connection."""

    KEEP = "keep"
    """It may carry the next request."""
    CLOSE = "close"
    """It ends in an orderly way."""
    RESET = "reset"
    """It is torn down with a reset."""
    HANG = "hang"
    """It stays as it is until the client leaves."""


class End(NamedTuple):
    """The last step."""

    how: How
    complete: bool = True
    """Nothing was left out and nothing was wrong."""


Step = bytes | Torn | Token | Pause | Status | Headers | End
