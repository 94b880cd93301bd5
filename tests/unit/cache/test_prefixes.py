"""How prompts begin, told by keyed hashes."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tiergate.cache.prefixes import KEPT_MAX, read_prefixes, write_prefixes
from tiergate.wire import dumps

KEY = b"key of a tenant"
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": st.text(max_size=300)}),
    max_size=12,
)
LEADING = st.lists(st.just({"role": "system", "content": "Be short. " * 30}), max_size=3)


def told(messages: list[Any], *, key: bytes = KEY, entry: str = "m", **more: Any) -> set[bytes]:
    data = write_prefixes({"messages": messages, **more}, entry, key)
    return set() if data is None else {prefix.hash for prefix in read_prefixes(data)}


@given(leading=LEADING, messages=MESSAGES, more=MESSAGES)
def test_a_turn_is_known_by_the_one_before(leading: list[Any], messages: list[Any], more: list[Any]) -> None:
    """Where no more than six messages came since, its whole prompt is a beginning that was told."""
    before = [*leading, *messages]
    data = write_prefixes({"messages": before}, "m", KEY)
    if data is None or len(more) >= KEPT_MAX - 1:
        return
    whole = read_prefixes(data)[-1]
    assert whole.hash in told([*before, *more])
    assert whole.bytes == sum(len(dumps(message)) for message in before) // 64 * 64


@given(leading=LEADING.filter(bool), one=MESSAGES, other=MESSAGES)
def test_what_leads_is_known_however_long_the_rest_is(
    leading: list[Any], one: list[Any], other: list[Any]
) -> None:
    """Conversations share their system prompt."""
    assert told([*leading, *one]) & told([*leading, *other])


@given(MESSAGES.filter(bool))
def test_they_are_few_and_say_nothing_to_others(messages: list[Any]) -> None:
    """Eight of eight bytes at most; another tenant, model or set of tools has others."""
    data = write_prefixes({"messages": messages}, "m", KEY)
    assert data is not None and len(data) <= 64 and len(data) % 8 == 0
    here = told(messages)
    assert not here & told(messages, key=b"another")
    assert not here & told(messages, entry="n")
    assert not here & told(messages, tools=[{"type": "function"}])


def test_sizes_have_an_end() -> None:
    """A prompt that is longer than can be told is told to be as long as can be."""
    data = write_prefixes({"messages": [{"role": "user", "content": "x" * 5_000_000}]}, "m", KEY)
    assert data is not None
    assert [prefix.bytes for prefix in read_prefixes(data)] == [65_535 * 64]


def test_without_messages_there_is_nothing() -> None:
    """Nor with what is none."""
    for messages in (None, [], "hi", {}):
        assert write_prefixes({"messages": messages}, "m", KEY) is None
