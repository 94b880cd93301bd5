"""How much of prompts had been sent before."""

from collections.abc import Iterator, Sequence

from tiergate.cache import Prefix
from tiergate.reports import Marked, Prefixed, Span, Spent, Timed, Used, beginnings, beginnings_object

SPAN = Span(start_ns=0, end_ns=10**19)
S_NS = 10**9
ABOUT = {"key": "k", "team": "", "tag": "", "class": "interactive", "target": "p/m", "tier": "hosted"}


class Told:
    """A past that is what it was told."""

    def __init__(self, calls: Sequence[Prefixed]) -> None:
        self._calls = calls

    def prefixed(self, span: Span) -> Iterator[Prefixed]:
        return iter(self._calls)

    def marked(self, span: Span) -> Iterator[Marked]:
        return iter(())

    def spent(self, span: Span, *, slots: bool) -> Sequence[Spent]:
        return ()

    def timed(self, span: Span) -> Iterator[Timed]:
        return iter(())

    def used(self, span: Span) -> Iterator[Used]:
        return iter(())


def call(at_s: int, *prefixes: tuple[str, int], model: str = "m") -> Prefixed:
    return Prefixed(
        about={**ABOUT, "model": model},
        slot=0,
        received_ns=at_s * S_NS,
        prefixes=[Prefix(name.encode(), size) for name, size in prefixes],
        input_tokens=100,
        read_tokens=30,
    )


def test_the_longest_beginning_that_was_there_counts() -> None:
    """Within the time; later it has to be sent anew."""
    first, second = (("s", 640), ("sa", 1280)), (("s", 640), ("sa", 1280), ("sab", 1920))
    calls = [call(0, *first), call(10, *second), call(500, *first), call(2_000, *first)]
    (row,) = beginnings(Told(calls), SPAN, (), within_s=600)
    assert (row.calls, row.bytes) == (4, 1280 + 1920 + 1280 + 1280)
    assert row.repeated_bytes == 0 + 1280 + 1280 + 0
    assert (row.input_tokens, row.read_tokens) == (400, 120)
    assert beginnings_object(row)["repeated_share"] == round(2560 / 5760, 4)


def test_rows_come_by_their_groups() -> None:
    """Most repeated first."""
    calls = [call(0, ("a", 64)), call(1, ("b", 64), model="n"), call(2, ("b", 64), model="n")]
    rows = beginnings(Told(calls), SPAN, ("model",), within_s=60)
    assert [(row.group["model"], row.repeated_bytes) for row in rows] == [("n", 64), ("m", 0)]


def test_nothing_is_nothing() -> None:
    """A prompt of no bytes has no share."""
    assert beginnings(Told([]), SPAN, (), within_s=60) == []
    (row,) = beginnings(Told([call(0)]), SPAN, (), within_s=60)
    assert beginnings_object(row)["repeated_share"] is None
