"""An answer is the same answer, whole or in pieces, and however it was cut."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiergate.wire import dumps, loads
from tiergate.wire.folded import FoldedAnswer, fold, write_pieces, write_whole

TEXT = st.text("aé😀 \n", max_size=12)
CALL = st.fixed_dictionaries(
    {"id": st.text("ab1", min_size=1, max_size=4), "type": st.just("function")},
    optional={
        "function": st.fixed_dictionaries({"name": st.sampled_from(["f", "get_it"]), "arguments": TEXT}),
    },
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": st.none() | TEXT.filter(bool)},
    optional={
        "reasoning_content": TEXT.filter(bool),
        "refusal": TEXT.filter(bool),
        "tool_calls": st.lists(CALL, min_size=1, max_size=3),
        "annotations": st.lists(st.fixed_dictionaries({"type": st.just("x"), "at": st.integers(0, 9)})),
        "unheard_of": st.integers(0, 9) | st.dictionaries(st.just("a"), st.integers(0, 9)),
    },
)
LOGPROBS = st.none() | st.fixed_dictionaries(
    {"content": st.lists(st.fixed_dictionaries({"token": TEXT, "logprob": st.floats(-9, 0)}), min_size=1)}
)
CHOICE = st.fixed_dictionaries(
    {
        "message": MESSAGE,
        "logprobs": LOGPROBS,
        "finish_reason": st.sampled_from(["stop", "length", "tool_calls"]),
    }
)
REPLY = st.fixed_dictionaries(
    {
        "id": st.just("chatcmpl-1"),
        "created": st.just(7),
        "model": st.just("m"),
        "choices": st.lists(CHOICE, min_size=1, max_size=3),
    },
    optional={"system_fingerprint": st.just("fp"), "citations": st.lists(st.just("c"))},
)
USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}


def whole(reply: dict[str, Any]) -> bytes:
    choices = [{"index": index, **choice} for index, choice in enumerate(reply["choices"])]
    return dumps({**reply, "object": "chat.completion", "choices": choices, "usage": USAGE})


def folded(reply: dict[str, Any]) -> FoldedAnswer:
    answer = fold([whole(reply)])
    assert answer is not None
    return answer


@given(REPLY)
def test_what_was_whole_is_whole_again(reply: dict[str, Any]) -> None:
    """With everything in it, and the usage that it is given."""
    assert loads(write_whole(folded(reply))) == loads(whole(reply))


@given(REPLY)
def test_what_was_whole_is_the_same_in_pieces(reply: dict[str, Any]) -> None:
    """And put together again."""
    answer = folded(reply)
    assert fold(write_pieces(answer)) == answer
    *_, last = write_pieces(answer)
    assert loads(last)["usage"] == USAGE and loads(last)["choices"] == []


def cut(value: str, random: Any) -> list[str]:
    at = sorted(random.randrange(len(value) + 1) for _ in range(2))
    return [piece for piece in (value[: at[0]], value[at[0] : at[1]], value[at[1] :]) if piece]


@given(reply=REPLY, random=st.randoms(use_true_random=False))
def test_however_a_stream_was_cut_it_is_the_same_answer(reply: dict[str, Any], random: Any) -> None:
    """Names and ids may be said again in every piece; choices may come by turns."""
    frame = {name: value for name, value in reply.items() if name != "choices"}
    streams: list[list[dict[str, Any]]] = []
    for index, choice in enumerate(reply["choices"]):
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        for name, value in choice["message"].items():
            if isinstance(value, str) and name != "role":
                deltas += [{"role": "assistant", name: piece} for piece in cut(value, random)]
            elif name == "tool_calls":
                for number, call in enumerate(value):
                    pieces = cut(call.get("function", {}).get("arguments", ""), random) or [""]
                    for piece in pieces:
                        said = {**call, "index": number}
                        if "function" in call:
                            said["function"] = {**call["function"], "arguments": piece}
                        deltas.append({"tool_calls": [said]})
            elif value is not None:
                deltas.append({name: value})
        pieces = [{"index": index, "delta": delta, "finish_reason": None} for delta in deltas]
        for at, entry in enumerate((choice["logprobs"] or {}).get("content", ())):
            pieces[at % len(pieces)].setdefault("logprobs", {"content": []})["content"].append(entry)
        end = {"index": index, "delta": {}, "finish_reason": choice["finish_reason"]}
        streams.append([*pieces, end])
    events = []
    while any(streams):
        stream = random.choice([stream for stream in streams if stream])
        events.append(dumps({**frame, "object": "chat.completion.chunk", "choices": [stream.pop(0)]}))
    found, want = fold(events), folded(reply)
    assert found is not None
    for one, other in zip(found.choices, want.choices, strict=True):
        content = other.message["content"]
        assert one.message | {"content": one.message["content"] or None} == other.message | {
            "content": content
        }
        assert one.finish == other.finish
        tokens = sorted(map(dumps, (one.logprobs or {}).get("content", ())))
        assert tokens == sorted(map(dumps, (other.logprobs or {}).get("content", ())))
    assert found.more == want.more


@given(
    st.lists(
        st.binary(max_size=20)
        | st.sampled_from([b"{}", b"[]", b"null", b'{"choices": [1]}', b'{"choices": [{"index": "x"}]}']),
        max_size=3,
    )
)
def test_what_is_no_answer_is_none(events: list[bytes]) -> None:
    """Nobody fails for it."""
    assert fold(events) is None


def pieces(*deltas: dict[str, Any], **beside: Any) -> list[bytes]:
    """Give a stream of deltas, and its end."""
    told = [{"choices": [{"index": 0, "delta": delta, **beside}]} for delta in deltas]
    return [*map(dumps, told), dumps({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})]


def test_what_a_provider_says_beside_its_pieces_is_not_said_twice() -> None:
    """Some give all that was said so far with each piece."""
    so_far = {"role": "assistant", "content": "one two"}
    answer = fold(pieces({"content": "one "}, {"content": "two"}, message=so_far))
    assert answer is not None and answer.text == "one two"


@pytest.mark.parametrize(
    "deltas",
    [
        [{"content": [{"type": "text", "text": "one "}]}, {"content": [{"type": "text", "text": "two"}]}],
        [{"content": [{"type": "thinking"}]}, {"content": "text"}],
        [{"content": "text"}, {"content": {"type": "text"}}],
        [{"tool_calls": [{"id": "1"}]}, {"tool_calls": [{"id": "2"}]}],
        [{"thinking_blocks": [{"thinking": "a"}]}, {"thinking_blocks": [{"thinking": "b"}]}],
        [{"unheard_of": "a"}, {"unheard_of": "b"}],
    ],
)
def test_what_would_be_lost_is_not_put_together(deltas: list[dict[str, Any]]) -> None:
    """Nobody knows whether the later piece goes on with the one before, or stands for it."""
    assert fold(pieces(*deltas)) is None


def test_summaries_of_reasoning_go_on() -> None:
    """As its text does."""
    details = [
        {"reasoning_details": [{"index": 0, "type": "summary", "summary": word}]} for word in ("a", "b")
    ]
    answer = fold(pieces({"content": "x"}, *details))
    assert answer is not None
    assert answer.choices[0].message["reasoning_details"][0]["summary"] == "ab"


@pytest.mark.parametrize("event", [b'{"choices":5}', b'{"choices":true}', b'{"choices":{}}'])
def test_choices_that_are_none_are_no_answer(event: bytes) -> None:
    """Whatever they are."""
    assert fold([event]) is None


def test_what_is_large_is_said_once() -> None:
    """A field that nobody has heard of is not in every piece."""
    more = {"id": "1", "model": "m", "prompt_token_ids": list(range(5_000))}
    message = {"role": "assistant", "content": "x" * 100_000}
    answer = fold([dumps({**more, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})])
    assert answer is not None
    written = write_pieces(answer)
    assert sum(map(len, written)) < 200_000 and fold(written) == answer
