"""What each target of a town does when, drawn from a seed."""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from random import Random


class Weather(Enum):
    """What a target does for a while."""

    GOOD = auto()
    SLOW = auto()
    FAULTY = auto()
    """A share of 5xx."""
    DOWN = auto()
    """Nothing but 503."""
    REFUSED = auto()
    DENIED = auto()
    """401."""
    THROTTLED = auto()
    """429 with a wait."""
    BUSY = auto()
    """429 without."""
    SILENT = auto()
    BREAKING = auto()
    """Streams break off after they have begun."""
    STALLING = auto()


@dataclass(frozen=True)
class Forecast:
    """The weather of one target: from when on which, in order."""

    since: Sequence[float]
    weather: Sequence[Weather]

    def at(self, now: float) -> Weather:
        return self.weather[bisect.bisect_right(self.since, now) - 1]


def forecast(random: Random, *, until: float) -> Forecast:
    """Draw the weather; half of the time it is good, and from a moment on always."""
    since, weather, at = [0.0], [Weather.GOOD], 0.0
    while (at := at + random.choice([5, 20, 60, 180]) * (0.5 + random.random())) < until:
        since.append(at)
        weather.append(Weather.GOOD if random.random() < 0.5 else random.choice(list(Weather)))
    return Forecast([*since, until], [*weather, Weather.GOOD])
