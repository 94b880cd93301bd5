"""What a cache would have answered, beside one that is played call by call."""

from collections.abc import Iterable, Iterator, Sequence

from hypothesis import given
from hypothesis import strategies as st

from tiergate.reports import Marked, Repeats, Span, Spent, Timed, Used, would_hit

SPAN = Span(start_ns=0, end_ns=10**19)
S_NS = 10**9
TTL_S = {"short": 5.0, "long": 50.0}
ABOUT = {"key": "k", "team": "", "tag": "", "class": "interactive", "target": "p/m", "tier": "hosted"}


class Told:
    """A past that is what it was told."""

    def __init__(self, calls: Sequence[Marked]) -> None:
        self._calls = calls

    def marked(self, span: Span) -> Iterator[Marked]:
        return iter(self._calls)

    def spent(self, span: Span, *, slots: bool) -> Iterable[Spent]:
        return ()

    def timed(self, span: Span) -> Iterator[Timed]:
        return iter(())

    def used(self, span: Span) -> Iterator[Used]:
        return iter(())


def call(
    at_s: int,
    question: str = "q",
    *,
    model: str = "long",
    reason: str = "dry-run",
    took_s: int = 1,
    is_kept: bool = True,
    cash: int | None = 7,
) -> Marked:
    return Marked(
        about={**ABOUT, "model": model},
        slot=0,
        received_ns=at_s * S_NS,
        ended_ns=(at_s + took_s) * S_NS,
        request_hash=f"{model} {question}".encode(),
        reason=reason,
        is_kept=is_kept,
        input_tokens=10,
        output_tokens=2,
        cash_nanos=cash,
    )


def counted(*calls: Marked) -> tuple[Repeats, Repeats]:
    rows = would_hit(Told(calls), SPAN, (), ttl_s=TTL_S.__getitem__)
    return rows[0].as_set, rows[0].always


def test_a_repeat_would_have_been_given_the_answer_before_it() -> None:
    """While it is fresh, or on its way; its own tokens and cost are what that saves."""
    as_set, always = counted(call(0), call(0), call(30), call(50), call(200))
    assert as_set == always
    assert as_set == Repeats(calls=5, hits=3, input_tokens=30, output_tokens=6, nanos=21)


def test_an_answer_that_is_not_kept_answers_nobody() -> None:
    """Cut off, say; the next one is."""
    as_set, _ = counted(call(0, is_kept=False), call(5), call(10))
    assert (as_set.calls, as_set.hits) == (3, 1)


def test_what_only_always_would_keep_counts_there_alone() -> None:
    """And has its own stock: the same question with another temperature is another one."""
    as_set, always = counted(
        call(0), call(1, reason="dry-run-always"), call(2, "w", reason="dry-run-always"), call(3)
    )
    assert (as_set.calls, as_set.hits, always.calls, always.hits) == (2, 1, 4, 2)


def test_a_hit_without_a_price_is_in_no_amount() -> None:
    """It is counted apart."""
    as_set, _ = counted(call(0), call(1, cash=None), call(2))
    assert (as_set.hits, as_set.nanos, as_set.unpriced) == (2, 7, 1)


def test_rows_come_by_their_groups() -> None:
    """Most hits first; each model with its own time."""
    calls = [call(0), call(20), call(0, model="short"), call(20, model="short")]
    rows = would_hit(Told(calls), SPAN, ("model",), ttl_s=TTL_S.__getitem__)
    assert [(row.group["model"], row.as_set.hits) for row in rows] == [("long", 1), ("short", 0)]


@given(
    st.lists(
        st.tuples(st.integers(0, 60), st.sampled_from("ab"), st.integers(0, 9), st.booleans()), max_size=30
    )
)
def test_it_is_what_a_cache_would_have_done(asked: list[tuple[int, str, int, bool]]) -> None:
    """One that is asked call by call, and keeps until when each answer is good."""
    calls = [
        call(at_s, question, took_s=took_s, is_kept=is_kept)
        for at_s, question, took_s, is_kept in sorted(asked)
    ]
    stock: list[Marked] = []
    hits = 0
    for one in calls:
        same = [kept for kept in stock if kept.request_hash == one.request_hash]
        if any(one.received_ns < kept.ended_ns + 50 * S_NS for kept in same[-1:]):
            hits += 1
        elif one.is_kept:
            stock.append(one)
    if calls:
        as_set, _ = counted(*calls)
        assert (as_set.calls, as_set.hits) == (len(calls), hits)
