"""Places that batch leaves free."""

from tiergate.resilience.reserve import Reserve


def test_nothing_is_kept_free_where_nobody_came() -> None:
    """A server without interactive calls is batch's alone."""
    assert Reserve().places(64, 0.0) == 0


def test_as_many_as_there_were_at_one_time_are_kept_free() -> None:
    """Beside those that are taken now."""
    reserve = Reserve()
    for _ in range(3):
        reserve.enter(1.0)
    assert reserve.places(64, 2.0) == 0
    reserve.leave()
    assert reserve.places(64, 2.0) == 1
    reserve.leave()
    reserve.leave()
    assert reserve.places(64, 59.0) == 3


def test_what_was_long_ago_is_forgotten() -> None:
    """After a span without them, and after a pause of any length."""
    reserve = Reserve()
    reserve.enter(1.0)
    reserve.leave()
    assert reserve.places(64, 31.0) == 1
    assert reserve.places(64, 61.0) == 0
    reserve.enter(70.0)
    reserve.leave()
    assert reserve.places(64, 10_000.0) == 0


def test_one_that_lasts_is_remembered_as_long() -> None:
    """Who is still there counts in every span."""
    reserve = Reserve()
    reserve.enter(1.0)
    assert reserve.places(64, 500.0) == 0
    reserve.leave()
    assert reserve.places(64, 501.0) == 1


def test_batch_has_half_of_the_places_whatever_comes() -> None:
    """And the one place of a server that has one."""
    reserve = Reserve()
    for _ in range(100):
        reserve.enter(1.0)
    for _ in range(100):
        reserve.leave()
    assert reserve.places(64, 2.0) == 32
    assert reserve.places(1, 2.0) == 0
