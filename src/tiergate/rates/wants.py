"""What a process asks the bank for."""

from typing import NamedTuple


class Want(NamedTuple):
    """What a process wants of a rate; less than nothing: it gives that back."""

    name: str
    amount: float
    per_s: float
    most: float
    """What is saved up of it at most."""
    first: float = 0.0
    """What is saved up of it when nobody has used it."""
    look: bool = False
    """It wants to know what is left, even if it wants nothing of it."""

    @property
    def is_needed(self) -> bool:
        """Tell whether the bank has to be asked for this."""
        return self.amount != 0 or self.look


class PlaceWant(NamedTuple):
    """How many places a process wants to have, all in all; what it does not want any more it gives back."""

    name: str
    places: int
    taken: int
    """Those in which something is: nobody can take them away."""
    limit: int
    """Of all processes together."""
    known: int = 0
    """What the bank has written down of this process: what it has, or wants."""

    @property
    def is_needed(self) -> bool:
        """Tell whether the bank has to be asked: others may want what we have, so also if nothing changes."""
        return bool(self.places or self.taken or self.known)
