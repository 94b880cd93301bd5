"""A process's part of places that several share, step by step."""

from tiergate.rates import LeasedPlaces


def leased(limit: int, amount: int, *, at: float = 0.0, taken: int = 0) -> LeasedPlaces:
    """Give a part that was granted so many at a moment, with so many of them taken."""
    places = LeasedPlaces(limit)
    places.expect(amount)
    places.want("x")
    places.grant(amount, at, left=limit - amount)
    for _ in range(taken):
        places.take()
    return places


def test_what_is_given_back_is_not_used_any_more() -> None:
    """From the moment that it is told: others may have it before the answer comes."""
    places = leased(10, 10)
    assert places.has_room(0.1)
    places.want("x")
    assert places.want("x").places == 0
    assert not places.has_room(0.2)


def test_a_process_that_slept_uses_nothing_that_may_be_given_away() -> None:
    """Until it has asked again."""
    places = leased(10, 10, at=100.0, taken=2)
    assert places.has_room(104.0) and not places.has_room(104.1)
    places.want("x")
    places.grant(5, 110.0, left=5)
    assert places.has_room(110.0)


def test_a_lower_limit_holds_at_once() -> None:
    """Whatever was leased under the other."""
    places = leased(400, 400)
    places.change(2)
    for _ in range(2):
        assert places.has_room(1.0)
        places.take()
    assert not places.has_room(1.0)


def test_a_limit_that_is_lifted_keeps_nothing_back() -> None:
    """What is taken stays told until it is free, and then the bank is told that nothing is wanted."""
    places = leased(4, 4, taken=2)
    places.change(None)
    assert places.has_room(1.0)
    assert places.want("x")[1:3] == (2, 2)
    places.give_back()
    places.give_back()
    assert places.want("x").places == 0 and places.want("x").is_needed
    places.grant(0, 1.0, left=4)
    assert places.at_rest and not places.want("x").is_needed


def test_what_the_bank_may_believe_is_told_again_until_it_answers() -> None:
    """However often an answer is lost."""
    places = LeasedPlaces(4)
    places.expect(3)
    assert places.want("x").places == 3
    for _ in range(5):
        asked = places.want("x")  # and its answer is lost
        assert (asked.places, asked.known, asked.is_needed) == (0, 3, True)
        assert not places.at_rest
    places.grant(0, 1.0, left=4)
    assert places.at_rest


def test_who_was_short_asks_again_when_it_was_not_asked() -> None:
    """One lease that had nothing is no verdict for ever."""
    places = LeasedPlaces(1)
    places.expect(1)
    places.want("x")
    places.grant(0, 0.0, left=0)
    assert not places.may_be_leased()
    places.grant(0, 1.0)
    assert places.may_be_leased()
