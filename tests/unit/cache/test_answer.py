"""An answer at rest."""

from msgspec import structs

from tiergate.cache.answer import BYTES_MAX, CachedAnswer, read_cached, write_cached
from tiergate.core import Target, Tier, Usage, UsageSource
from tiergate.wire import FoldedAnswer, FoldedChoice

ANSWER = CachedAnswer(
    key=b"k" * 32,
    entry="good",
    call_id="01",
    target=Target(provider="p", model="m", tier=Tier.HOSTED),
    answer=FoldedAnswer(
        choices=(
            FoldedChoice(index=0, message={"role": "assistant", "content": "hi " * 500}, finish="stop"),
        ),
        more={"id": "chatcmpl-1", "model": "m"},
    ),
    usage=Usage(input=3, output=500),
    source=UsageSource.REPORTED,
    cash_nanos=7,
    kept_ns=5_000_000_000,
)


def test_it_comes_back_as_it_was() -> None:
    """And is smaller meanwhile."""
    data = write_cached(ANSWER)
    assert data is not None and len(data) < 400
    assert read_cached(data, ANSWER.key) == ANSWER


def test_it_answers_its_own_question_only() -> None:
    """Whatever lies in its place."""
    data = write_cached(ANSWER)
    assert data is not None
    assert read_cached(data, b"x" * 32) is None


def test_what_is_not_what_it_was_is_nothing() -> None:
    """Any byte changed, any end missing, another version."""
    data = write_cached(ANSWER)
    assert data is not None
    for at in range(len(data)):
        assert read_cached(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], ANSWER.key) is None
        assert read_cached(data[:at], ANSWER.key) is None
    assert read_cached(b"", ANSWER.key) is None


def test_what_is_too_long_is_not_kept() -> None:
    """Even when it is compressed."""
    message = {"role": "assistant", "content": "".join(map(str, range(900_000)))}
    choice = FoldedChoice(index=0, message=message, finish="stop")
    long = structs.replace(ANSWER, answer=FoldedAnswer(choices=(choice,)))
    assert write_cached(long) is None
    assert BYTES_MAX == 1024 * 1024


def test_its_age() -> None:
    """In seconds; nothing is younger than new."""
    assert ANSWER.age_s(8_500_000_000) == 3.5
    assert ANSWER.age_s(1) == 0
