"""The rooms that a call passes, handed in by whoever builds the house."""

from collections.abc import Callable
from dataclasses import dataclass
from random import random

from tiergate.admission import Admission
from tiergate.cache import Cache
from tiergate.core import Clock, Emit
from tiergate.ledger import Book
from tiergate.metering import Lines
from tiergate.resilience import Health, Permits, RetryBudget
from tiergate.serve.flights import Flights
from tiergate.serve.ports import Upstream
from tiergate.serve.rules import Rules


@dataclass(slots=True, kw_only=True)
class Rooms:
    """Everything that `handle` works with. Only `rules` is ever replaced, whole, by a reload."""

    rules: Rules
    admission: Admission
    permits: Permits
    retries: RetryBudget
    health: Health
    book: Book
    flights: Flights
    cache: Cache
    upstream: Upstream
    lines: Lines
    """What input tokens are expected, learned from what is reported."""
    clock: Clock
    emit: Emit
    chance: Callable[[], float] = random
    """Draws a number from 0 to 1."""
