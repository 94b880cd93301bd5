"""What the cache needs of a place where answers outlive this process, or where others find them."""

from typing import NamedTuple, Protocol


class Place(NamedTuple):
    """Where an answer lies: under its key, with its tenant and its model."""

    key: bytes
    tenant: str
    entry: str


class Found(NamedTuple):
    """What lies there; None: nothing that is good any more.

    `ticket` is brought along when an answer is put there: with one from before a purge it is not found.
    """

    value: bytes | None
    ticket: bytes = b""


class ShelfUnavailable(Exception):
    """It cannot be used now; says why, without its address."""


class Shelf(Protocol):
    """Keeps answers by their places, as bytes that it does not look into."""

    name: str
    """The word that callers are told when an answer comes from there."""
    is_shared: bool
    """Other processes put answers there, and purge them."""

    async def get(self, place: Place, now_ns: int) -> Found:
        """Look for an answer, in one step.

        Raises:
            ShelfUnavailable: nobody knows whether there is one.
        """
        ...

    async def put(self, place: Place, value: bytes, *, ticket: bytes, now_ns: int, expires_ns: int) -> bool:
        """Put an answer there, until a moment; what is there already gives way. False: there is no room.

        Raises:
            ShelfUnavailable: it may be there or not.
        """
        ...

    async def purge(self, tenant: str | None, entry: str | None) -> None:
        """Make sure that nothing of a tenant, a model, of both together or (neither) at all is found again.

        Raises:
            ShelfUnavailable: it may still be.
        """
        ...

    def resize(self, bytes_max: int) -> None:
        """Keep so many bytes at most from now on, where that is ours to say; `sweep` makes room."""
        ...

    async def sweep(self, now_ns: int) -> None:
        """Delete some of what is too old, or too much, where that does not happen by itself.

        Raises:
            ShelfUnavailable: it could not.
        """
        ...
