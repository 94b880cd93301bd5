"""Hours of bad weather in virtual time: whatever upstreams, callers and operators do, what must hold does."""

import os
from collections.abc import Iterable

import pytest

from properties.simulator import simulated


def seeds() -> Iterable[int]:
    """A few that are the same each time; `TIERGATE_SIMULATED=100:400` takes others, and more of them."""
    first, _, last = os.environ.get("TIERGATE_SIMULATED", "0:3").partition(":")
    return range(int(first), int(last))


@pytest.mark.parametrize("seed", seeds())
def test_in_any_weather_what_must_hold_holds(seed: int) -> None:
    """I1, I5, I8 and I11, and peace, probes, places, rates and the order of the line (see the simulator)."""
    town = simulated(seed)
    good, bad = town.afterwards[True], town.afterwards[False]
    assert good + bad > 50, "who asks nobody shows nothing"
    assert good >= 0.99 * (good + bad), f"{bad} of {good + bad} failed after all was well: {town.last_words}"
    assert town.outcomes["answered"] < town.calls, "the weather was no trouble"
