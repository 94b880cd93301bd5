"""When a job is better parked: after half a minute of nothing but failures, or where a long wait is asked."""

import pytest

from tiergate.batch import Halt, Pause
from tiergate.batch.weather import Weather

WALL_NS = 1_800_000_000_000_000_000


def bad(weather: Weather, *seconds: float, wait_s: float | None = None) -> Weather:
    for second in seconds:
        weather.was_bad("throttled", f"at {second:g}", wait_s=wait_s, now=second)
    return weather


def paused(weather: Weather, now: float) -> float | None:
    """For how long it would be parked now; None: not at all."""
    pause = weather.pause(now=now, wall_ns=WALL_NS)
    if pause is None:
        return None
    assert pause.until_ns is not None
    return (pause.until_ns - WALL_NS) / 1e9


def test_good_weather_parks_nothing() -> None:
    """Nor does none at all."""
    weather = Weather()
    assert paused(weather, 0.0) is None
    weather.was_good()
    assert paused(weather, 1e6) is None


def test_half_a_minute_of_failures_parks_with_the_last_of_them() -> None:
    """Its word and sentence, and until when."""
    weather = bad(Weather(), 10.0, 20.0, 39.0)
    assert paused(weather, 39.9) is None
    assert weather.pause(now=40.0, wall_ns=WALL_NS) == Pause(
        halt=Halt.PARKED, word="throttled", message="at 39", until_ns=WALL_NS + 15_000_000_000
    )


def test_one_good_answer_begins_it_anew() -> None:
    """So others than those who fail may fare well."""
    weather = bad(Weather(), 0.0, 29.0)
    weather.was_good()
    assert paused(weather, 100.0) is None
    assert paused(bad(weather, 100.0), 129.0) is None
    assert paused(weather, 130.0) == 15


@pytest.mark.parametrize(("wait_s", "parked_s"), [(44.9, None), (45.0, 45.0), (7_200.0, 7_200.0)])
def test_a_long_wait_parks_at_once(wait_s: float, parked_s: float | None) -> None:
    """For as long as was asked for."""
    assert paused(bad(Weather(), 0.0, wait_s=wait_s), 0.0) == parked_s


def test_a_short_wait_that_was_asked_for_is_kept_too() -> None:
    """It may be longer than what we would wait."""
    assert paused(bad(Weather(), 0.0, 30.0, wait_s=40.0), 30.0) == 40


def test_each_pause_in_a_row_is_twice_as_long() -> None:
    """Up to five minutes; after one the first failure parks again, and a good answer ends the row."""
    weather = bad(Weather(), 0.0)
    waits = [paused(weather, 30.0)]
    for second in range(100, 800, 100):
        bad(weather, float(second))
        waits.append(paused(weather, float(second)))
    assert waits == [15, 30, 60, 120, 240, 300, 300, 300]
    weather.was_good()
    assert paused(bad(weather, 1_000.0), 1_029.0) is None
    assert paused(weather, 1_030.0) == 15


def test_it_is_doubtful_from_the_first_pause_to_the_next_good_answer() -> None:
    """So whoever goes on begins with one line."""
    weather = bad(Weather(), 0.0)
    assert not weather.is_doubtful
    assert paused(weather, 30.0) == 15
    assert weather.is_doubtful
    weather.was_good()
    assert not weather.is_doubtful
