"""The engine in virtual time: what it promises about tokens, slots, cache and the knee."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiergate.capacity import Arrival, Engine, EngineModel, Entrance, Served, simulate

MODEL = EngineModel(
    slots=4,
    prefill_tokens_per_s=1_000,
    prefill_chunk_tokens=100,
    base_ms=10,
    per_sequence_ms=1,
    kv_capacity_tokens=1_000,
    queue_limit=100,
)


def together(count: int, *, prompt_tokens: int = 0, output_tokens: int = 50) -> list[Arrival]:
    return [Arrival(number, 0.0, prompt_tokens, output_tokens) for number in range(count)]


def rate(served: list[Served]) -> float:
    return sum(len(one.token_times) for one in served) / max(one.token_times[-1] for one in served)


def test_one_sequence_alone_takes_its_prompt_and_then_one_step_a_token() -> None:
    """50 prompt tokens at 1,000/s are 50 ms on top of the first step of 11 ms; each further token 11 ms."""
    (served,) = simulate(MODEL, [Arrival(1, 2.0, 50, 3)])

    assert served.ttft_s == pytest.approx(0.061)
    gaps = [after - before for before, after in pairwise(served.token_times)]
    assert gaps == pytest.approx([0.011, 0.011])


def test_a_long_prompt_is_read_in_chunks() -> None:
    """250 prompt tokens need three steps of at most 100; the token comes with the third."""
    engine = Engine(MODEL)
    engine.submit(Arrival(1, 0.0, 250, 1))

    assert engine.advance(0.110) == []
    assert engine.advance(0.220) == []
    (token,) = engine.advance(0.300)
    assert token.at == pytest.approx(0.110 + 0.110 + 0.061)
    assert token.last


def test_a_long_prompt_delays_the_others_by_one_chunk_at_most() -> None:
    """Whoever speaks while another's prompt is read waits for one chunk per token, not for all of it."""
    served = simulate(MODEL, [Arrival(1, 0.0, 0, 20), Arrival(2, 0.015, 500, 1)])

    longest = max(after - before for before, after in pairwise(served[0].token_times))
    assert longest == pytest.approx(0.100 + 0.010 + 2 * 0.001)


def test_throughput_rises_with_concurrency_and_stays_flat_from_the_slots_on() -> None:
    """The knee: more together means more tokens a second up to four slots, and not one more after them."""
    rates = {count: rate(simulate(MODEL, together(count))) for count in (1, 2, 4, 8, 16)}

    assert rates[1] < rates[2] < rates[4]
    assert rates[4] > 3 * rates[1]
    assert rates[8] == pytest.approx(rates[4], rel=0.02)
    assert rates[16] == pytest.approx(rates[4], rel=0.02)
    assert rates[4] == pytest.approx(MODEL.decode_tokens_per_s(4), rel=0.02)


def test_waiting_shows_in_the_first_token_only_beyond_the_slots() -> None:
    """Four start at once; the fifth to eighth wait for a whole answer, the ninth for two."""
    served = simulate(MODEL, together(9))
    whole = served[0].total_s

    assert max(one.ttft_s for one in served[:4]) < 0.03
    assert all(one.ttft_s == pytest.approx(whole, rel=0.1) for one in served[4:8])
    assert served[8].ttft_s == pytest.approx(2 * whole, rel=0.1)


def test_the_cache_bounds_how_many_run() -> None:
    """1,000 tokens of cache hold two sequences of 400; the third waits though slots are free."""
    engine = Engine(MODEL)
    for number in range(3):
        assert engine.submit(Arrival(number, 0.0, 390, 10)) is Entrance.ACCEPTED
    engine.advance(0.3)

    assert (engine.statistics().running, engine.statistics().waiting) == (2, 1)
    assert engine.statistics().kv_share == pytest.approx(0.8)


def test_what_never_fits_is_refused_and_so_is_what_the_queue_cannot_hold() -> None:
    """A sequence over the cache is too long; one more than slots and queue finds the queue full."""
    engine = Engine(EngineModel(slots=1, queue_limit=1, kv_capacity_tokens=100))

    assert engine.submit(Arrival(1, 0.0, 60, 41)) is Entrance.TOO_LONG
    assert engine.submit(Arrival(2, 0.0, 1, 5)) is Entrance.ACCEPTED
    assert engine.submit(Arrival(3, 0.0, 1, 5)) is Entrance.ACCEPTED
    assert engine.submit(Arrival(4, 0.0, 1, 5)) is Entrance.QUEUE_FULL


def test_a_cancelled_sequence_gives_its_slot_and_cache_to_the_next() -> None:
    """Cancelling says how many tokens were given; the one that waited starts with the next step."""
    engine = Engine(EngineModel(slots=1, base_ms=10, per_sequence_ms=0))
    engine.submit(Arrival(1, 0.0, 0, 100))
    engine.submit(Arrival(2, 0.0, 0, 1))
    assert len(engine.advance(0.0305)) == 3

    assert engine.cancel(1) == 3
    assert engine.cancel(1) == 0
    assert engine.advance(0.0405) == []
    assert [token.id for token in engine.advance(0.0505)] == [2]
    assert engine.next_step_at is None
    assert engine.statistics().kv_tokens == 0


def test_cancelling_one_that_waits_takes_it_out_of_the_queue() -> None:
    """It never runs and gives nothing."""
    engine = Engine(EngineModel(slots=1))
    engine.submit(Arrival(1, 0.0, 0, 2))
    engine.submit(Arrival(2, 0.0, 0, 2))

    assert engine.cancel(2) == 0
    assert {token.id for token in engine.advance(60.0)} == {1}


def test_misuse_is_refused_by_name() -> None:
    """Time that goes back, a second use of an id, and a model that no engine can have."""
    engine = Engine(MODEL)
    engine.submit(Arrival(1, 0.0, 0, 2))

    with pytest.raises(ValueError, match="already here"):
        engine.submit(Arrival(1, 0.0, 0, 2))
    with pytest.raises(ValueError, match="advance to 5"):
        engine.submit(Arrival(2, 5.0, 0, 2))
    with pytest.raises(ValueError, match="at least one token"):
        engine.submit(Arrival(2, 0.0, 0, 0))
    with pytest.raises(ValueError, match="two arrivals"):
        simulate(MODEL, [Arrival(1, 0.0, 0, 1), Arrival(1, 1.0, 0, 1)])
    with pytest.raises(ValueError, match="slots"):
        EngineModel(slots=0)
    with pytest.raises(ValueError, match="takes time"):
        EngineModel(base_ms=0, per_sequence_ms=0)


ARRIVALS = st.lists(
    st.tuples(st.floats(0, 0.2), st.integers(0, 300), st.integers(1, 40)), min_size=1, max_size=30
)


@given(ARRIVALS)
@settings(max_examples=60, deadline=None)
def test_every_token_leaves_once_and_in_order(wanted: list[tuple[float, int, int]]) -> None:
    """Whatever comes in: each sequence gives exactly its tokens, later and later, after its arrival."""
    at = 0.0
    arrivals = []
    for number, (gap, prompt_tokens, output_tokens) in enumerate(wanted):
        at += gap
        arrivals.append(Arrival(number, at, prompt_tokens, output_tokens))

    for served in simulate(MODEL, arrivals):
        assert served.entrance is Entrance.ACCEPTED
        assert len(served.token_times) == served.arrival.output_tokens
        assert served.token_times[0] > served.arrival.at
        assert all(before < after for before, after in pairwise(served.token_times))


@given(ARRIVALS)
@settings(max_examples=40, deadline=None)
def test_slots_and_cache_are_never_overdrawn(wanted: list[tuple[float, int, int]]) -> None:
    """At each step: no more runs than there are slots, and no more cache is set aside than there is."""
    engine = Engine(MODEL)
    at = 0.0
    for number, (gap, prompt_tokens, output_tokens) in enumerate(wanted):
        at += gap
        engine.advance(at)
        engine.submit(Arrival(number, at, prompt_tokens, output_tokens))
    while engine.next_step_at is not None:
        seen = engine.statistics()
        assert seen.running <= MODEL.slots
        assert 0 <= seen.kv_tokens <= MODEL.kv_capacity_tokens
        engine.advance(engine.next_step_at)
    assert engine.statistics().kv_tokens == 0
    assert engine.statistics().output_tokens == sum(output_tokens for _, _, output_tokens in wanted)


@pytest.mark.parametrize("prompt_tokens", [0, 80])
def test_more_company_is_never_faster(prompt_tokens: int) -> None:
    """Monotone: with more sequences that came together, the last token of all leaves no earlier."""
    ends = [
        max(one.token_times[-1] for one in simulate(MODEL, together(count, prompt_tokens=prompt_tokens)))
        for count in range(1, 20)
    ]

    assert all(before <= after for before, after in pairwise(ends))
