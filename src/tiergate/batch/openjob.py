"""A job that has something left to do, as whoever works it has it in memory."""

import asyncio
from dataclasses import dataclass, field
from typing import Final

from tiergate.batch.ports import Engine
from tiergate.batch.records import Crew, Job
from tiergate.batch.weather import Weather

_ALONE: Final = Crew(1, 0, 0)


@dataclass(slots=True, eq=False)
class OpenJob:
    """A job, and what works it here."""

    job: Job
    spent_nanos: int = 0
    """By calls of this process and of all before it."""
    engine: Engine | None = None
    """What works it now."""
    task: "asyncio.Task[None] | None" = None
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    since: float | None = None
    """When the present run began, in monotonic seconds; None: there is none, or another owner counts."""
    crew: Crew = _ALONE
    """Who works it, as it was told last."""
    nap_s: float = 0.0
    """So long it rests before the next run: others have what is left to do."""
    weather: Weather = field(default_factory=Weather)
    is_erased: bool = False
    is_over: bool = False
    """It came to its end, and its task with it."""
