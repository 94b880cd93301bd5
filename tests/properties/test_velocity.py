"""How fast keys spend: no false alarm, none missed by more than a bucket, none twice within an hour."""

from hypothesis import example, given
from hypothesis import strategies as st

from tiergate.ledger import Velocity
from tiergate.ledger.velocity import BUCKET_S, HOUR_S

WAIT_S = st.one_of(st.integers(0, 30), st.integers(0, 2 * BUCKET_S), st.integers(0, 3 * HOUR_S))
COSTS = st.lists(st.tuples(WAIT_S, st.integers(0, 100)), max_size=120)


@given(start_s=st.integers(0, 10**7), costs=COSTS, limit=st.integers(1, 500))
@example(start_s=0, costs=[(0, 60), (HOUR_S, 60)], limit=100)
@example(start_s=0, costs=[(0, 60), (HOUR_S - 1, 60)], limit=100)
@example(start_s=BUCKET_S - 1, costs=[(0, 60), (HOUR_S - 1, 60)], limit=100)
@example(start_s=0, costs=[(0, 60), (HOUR_S - BUCKET_S, 60)], limit=100)
@example(start_s=BUCKET_S - 1, costs=[(0, 60), (HOUR_S - BUCKET_S - 1, 60)], limit=100)
@example(start_s=0, costs=[(0, 101), (HOUR_S - 1, 101), (1, 101)], limit=100)
def test_every_hour_that_passes_the_limit_is_told_once(
    start_s: int, costs: list[tuple[int, int]], limit: int
) -> None:
    """Looked at from the end of every call, against all the calls themselves."""
    velocity, spent, told = Velocity(), list[tuple[int, int]](), list[int]()
    now_s = start_s
    for wait_s, nanos in costs:
        now_s += wait_s
        spent.append((now_s, nanos))
        said = velocity.add("ci", nanos, now_s=now_s, limit_nanos=limit)

        def within(seconds: int, now_s: int = now_s) -> int:
            return sum(cost for at_s, cost in spent if now_s - at_s < seconds)

        # What is said was spent, and is at most one bucket less than what was.
        if said is not None:
            assert limit < said <= within(HOUR_S)
            assert said >= within(HOUR_S - BUCKET_S)
            assert not told or now_s - told[-1] >= HOUR_S
            told.append(now_s)
        # What has passed the limit was said, now or within the hour.
        if within(HOUR_S - BUCKET_S) > limit:
            assert told and now_s - told[-1] < HOUR_S


@given(
    st.lists(
        st.tuples(st.integers(0, 2 * HOUR_S), st.sampled_from("abcdefgh"), st.integers(1, 9)), max_size=200
    ),
    st.integers(1, 5),
)
def test_what_is_remembered_is_bounded_and_others_do_not_count(
    calls: list[tuple[int, str, int]], keys_max: int
) -> None:
    """A key of which enough others spend in between is forgotten; what is said of one is its own spending."""
    velocity, now_s = Velocity(keys_max=keys_max), 0
    spent: dict[str, int] = {}
    for wait_s, key, nanos in calls:
        now_s += wait_s
        spent[key] = spent.get(key, 0) + nanos
        said = velocity.add(key, nanos, now_s=now_s, limit_nanos=1)
        assert said is None or said <= spent[key]
        assert len(velocity) <= keys_max


def test_who_rests_for_an_hour_is_forgotten() -> None:
    """And nobody sooner."""
    velocity = Velocity()
    for number in range(100):
        velocity.add(f"key{number}", 1, now_s=number, limit_nanos=5)
    assert len(velocity) == 100
    velocity.add("last", 1, now_s=2 * HOUR_S, limit_nanos=5)
    assert len(velocity) == 1
    velocity.add("other", 1, now_s=3 * HOUR_S - BUCKET_S - 1, limit_nanos=5)
    assert velocity.add("last", 5, now_s=3 * HOUR_S - BUCKET_S, limit_nanos=5) == 6


def test_a_busy_key_is_not_pushed_out_by_others() -> None:
    """Names made up by the thousand do not hide one that spends."""
    velocity = Velocity(keys_max=3)
    said = []
    for number in range(20):
        velocity.add(f"other{number}", 1, now_s=number, limit_nanos=10)
        said.append(velocity.add("busy", 1, now_s=number, limit_nanos=10))
    assert [number for number, one in enumerate(said, start=1) if one is not None] == [11]
