"""How many lines are asked at one time: up to the first push, and from then on carefully."""

from hypothesis import given
from hypothesis import strategies as st

from tiergate.batch.pace import Pace


def good(pace: Pace, count: int) -> Pace:
    for _ in range(count):
        pace.was_good()
    return pace


def pushed(most: int = 100, in_flight: int = 100) -> Pace:
    """One that has been pushed back once, at second 0."""
    pace = good(Pace(most), most)
    pace.pushed_back(in_flight, "throttled", 0.0)
    return pace


def test_it_begins_with_eight_or_fewer() -> None:
    """Nobody knows yet what will do."""
    assert Pace(100).limit == 8
    assert Pace(3).limit == 3
    assert Pace(100).why == "starting"


def test_it_doubles_with_each_round_until_it_is_pushed_back() -> None:
    """One more for each good answer, and never more than there may be."""
    assert good(Pace(100), 8).limit == 16
    assert good(Pace(100), 24).limit == 32
    assert good(Pace(100), 500).limit == 100
    assert good(Pace(100), 500).why == "concurrency"


def test_a_push_takes_a_third() -> None:
    """Of what is in flight, or of the limit where that is less."""
    assert pushed(in_flight=100).limit == 70
    assert pushed(in_flight=50).limit == 35
    assert pushed(in_flight=200).limit == 70
    assert pushed().why == "throttled"


def test_lines_that_are_pushed_back_together_are_one_sign() -> None:
    """Those of the same second; the next second counts."""
    pace = pushed()
    for _ in range(50):
        pace.pushed_back(100, "throttled", 0.99)
    assert pace.limit == 70
    pace.pushed_back(70, "throttled", 1.0)
    assert pace.limit == 49


def test_after_a_push_a_whole_round_gives_one_more() -> None:
    """So many good answers as there may be in flight."""
    pace = good(pushed(), 69)
    assert pace.limit == 70
    assert good(pace, 1).limit == 71
    assert good(pace, 70).limit == 71
    assert good(pace, 1).limit == 72


def test_a_push_begins_the_round_anew() -> None:
    """What was good before it says nothing."""
    pace = good(pushed(), 69)
    pace.pushed_back(70, "throttled", 5.0)
    assert good(pace, 48).limit == 0.7 * 70
    assert good(pace, 1).limit == 0.7 * 70 + 1


def test_one_is_always_asked() -> None:
    """However often it is pushed back, and however little is in flight."""
    pushed, narrowed = Pace(100), Pace(100)
    for second in range(50):
        pushed.pushed_back(1, "throttled", float(second))
    narrowed.narrowed(0, "budget_busy")
    assert pushed.limit == narrowed.limit == 1


def test_it_recovers_to_where_it_was() -> None:
    """In rounds, each a little larger."""
    pace = pushed(most=20, in_flight=20)
    assert good(pace, 200).limit == 20
    assert pace.why == "concurrency"


def test_it_is_narrowed_to_what_is_in_flight() -> None:
    """By every sign, and it says by what; a wider one changes nothing."""
    pace = good(Pace(100), 500)
    pace.narrowed(40, "budget_busy")
    pace.narrowed(39, "budget_busy")
    pace.narrowed(60, "budget_busy")
    assert pace.limit == 39
    assert pace.why == "budget_busy"
    assert good(pace, 39).limit == 40


def test_another_most_holds_at_once() -> None:
    """A smaller one; a larger one is grown into."""
    pace = good(Pace(100), 500)
    pace.change(10)
    assert good(pace, 100).limit == 10
    pace.change(50)
    assert pace.limit == 10
    assert good(pace, 1).limit == 11


@given(
    st.integers(1, 200),
    st.lists(
        st.one_of(
            st.tuples(st.just("good"), st.just(0)),
            st.tuples(st.just("pushed"), st.integers(0, 300)),
            st.tuples(st.just("narrowed"), st.integers(-1, 300)),
            st.tuples(st.just("change"), st.integers(1, 200)),
        ),
        max_size=100,
    ),
)
def test_the_limit_is_never_below_one_nor_above_the_most(most: int, steps: list[tuple[str, int]]) -> None:
    """Whatever happens, in any order."""
    pace = Pace(most)
    for second, (step, number) in enumerate(steps):
        match step:
            case "good":
                pace.was_good()
            case "pushed":
                pace.pushed_back(number, "x", second / 2)
            case "narrowed":
                pace.narrowed(number, "x")
            case _:
                most = number
                pace.change(number)
        assert 1 <= pace.limit <= most


def test_who_is_careful_begins_with_one() -> None:
    """And doubles from there."""
    pace = Pace(100, is_careful=True)
    assert pace.limit == 1
    assert good(pace, 3).limit == 4
