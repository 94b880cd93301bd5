"""Answers: text, tokens and usage, the same whether streamed or whole."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiergate.core import InvalidRequest
from tiergate.testing import Behaviour, ToolCall
from tiergate.testing.answer import Answer, compose
from tiergate.testing.ask import ask_of, read_ask
from tiergate.testing.words import passage, pieces

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string"},
                    "unit": {"enum": ["celsius", "fahrenheit"]},
                    "days": {"type": "integer", "minimum": 2},
                    "exact": {"type": "boolean"},
                    "hours": {"type": "array", "items": {"type": "number"}},
                },
            },
        },
    }
    for name in ("get_weather", "get_time")
]


def answer(behaviour: Behaviour | None = None, **body: Any) -> Answer:
    asked = {"model": "m", "messages": [{"role": "user", "content": "hello there"}], **body}
    return compose(ask_of(asked), behaviour or Behaviour(), seed=1, id="chatcmpl-1", created=1)


def whole(made: Answer) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(made.whole())
    return said


def events(made: Answer) -> list[dict[str, Any]]:
    return [json.loads(part.data) for part in made.events()]


def streamed_text(made: Answer, index: int = 0, field: str = "content") -> str:
    return "".join(
        choice["delta"].get(field) or ""
        for event in events(made)
        for choice in event["choices"]
        if choice["index"] == index
    )


def test_streamed_and_whole_say_the_same() -> None:
    """Text, finish reason and usage are equal; the stream begins with a role and ends with usage."""
    made = answer(Behaviour(words=20), stream=True, stream_options={"include_usage": True})
    said, seen = whole(made), events(made)

    assert streamed_text(made) == said["choices"][0]["message"]["content"]
    assert seen[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [event["choices"][0]["finish_reason"] for event in seen[:-1]] == [None] * 21 + ["stop"]
    assert seen[-1]["choices"] == [] and seen[-1]["usage"] == said["usage"]
    assert all(event["usage"] is None for event in seen[:-1])


def test_usage_follows_the_rules_of_the_mock() -> None:
    """Four bytes of text an input token, 85 for an image; a word an output token."""
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    parts = [{"type": "text", "text": "äöü4567"}, picture]
    made = answer(Behaviour(words=7), messages=[{"role": "user", "content": parts}])

    assert whole(made)["usage"] == {"prompt_tokens": 3 + 85, "completion_tokens": 7, "total_tokens": 95}


def test_without_being_asked_a_stream_has_no_usage() -> None:
    """Neither on the chunks nor after them."""
    assert not any("usage" in event for event in events(answer(stream=True)))


def test_the_same_question_gets_the_same_words_and_another_one_others() -> None:
    """Generated text depends on model and question, not on the request's number."""
    first, again = answer(Behaviour(words=30)), answer(Behaviour(words=30))
    other = answer(Behaviour(words=30), model="other")

    assert whole(first) == whole(again)
    assert whole(first)["choices"] != whole(other)["choices"]


def test_words_between_two_numbers() -> None:
    """The number of words is drawn from the question and stays within its bounds."""
    counts = {
        answer(Behaviour(words=(3, 6)), messages=[{"role": "user", "content": f"question {n}"}]).tokens
        for n in range(60)
    }

    assert counts == {3, 4, 5, 6}


def test_echo_and_reply_keep_every_character() -> None:
    """White space and line breaks survive being cut into tokens."""
    text = "  first line\n\n\tsecond  line \n"

    assert streamed_text(answer(Behaviour(reply=text), stream=True)) == text
    echoed = answer(Behaviour(echo=True), messages=[{"role": "user", "content": text}])
    assert whole(echoed)["choices"][0]["message"]["content"] == text


@given(st.text())
def test_tokens_joined_are_the_text(text: str) -> None:
    """Any text at all."""
    assert "".join(pieces(text)) == text


@given(st.integers(0, 2**32), st.integers(0, 20_000))
def test_passages_have_as_many_tokens_as_wanted(place: int, count: int) -> None:
    """Also longer than the book, and their tokens are those of their text."""
    made = passage(3, place, count)

    assert len(made) == count
    assert pieces("".join(made)) == made


def test_a_limit_of_tokens_cuts_the_answer() -> None:
    """Both names of the limit count; the finish reason says so."""
    for name in ("max_tokens", "max_completion_tokens"):
        said = whole(answer(Behaviour(words=50), **{name: 5}))
        assert said["usage"]["completion_tokens"] == 5
        assert said["choices"][0]["finish_reason"] == "length"
    assert whole(answer(Behaviour(words=5), max_tokens=5))["choices"][0]["finish_reason"] == "stop"


def test_reasoning_comes_first_and_counts() -> None:
    """It has its own field, its own count in usage, and uses up the limit."""
    made = answer(Behaviour(reasoning="let me think", reply="yes"), stream=True)

    assert streamed_text(made, field="reasoning_content") == "let me think"
    assert streamed_text(made) == "yes"
    assert whole(made)["usage"]["completion_tokens"] == 4
    assert whole(made)["usage"]["completion_tokens_details"] == {"reasoning_tokens": 3}
    assert answer(Behaviour(reasoning="let me think", reply="yes"), max_tokens=2).tokens == 2


def test_choices_are_different_and_finish_each() -> None:
    """n = 3: three texts, tokens in turn, three finish reasons, usage of all together."""
    made = answer(Behaviour(words=4), n=3, stream=True)
    texts = [streamed_text(made, index) for index in range(3)]

    assert len(set(texts)) == 3
    assert [choice["message"]["content"] for choice in whole(made)["choices"]] == texts
    assert [event["choices"][0]["index"] for event in events(made)][:6] == [0, 1, 2, 0, 1, 2]
    assert whole(made)["usage"]["completion_tokens"] == 12


def tool_call(made: Answer) -> Mapping[str, Any]:
    (call,) = whole(made)["choices"][0]["message"]["tool_calls"]
    function: Mapping[str, Any] = call["function"]
    return function


def test_a_tool_that_must_be_called_is_called_with_fitting_arguments() -> None:
    """`required` takes the first tool, a name takes that one; the arguments fit the schema."""
    required = answer(tools=TOOLS, tool_choice="required")
    named = answer(tools=TOOLS, tool_choice={"type": "function", "function": {"name": "get_time"}})

    assert tool_call(required)["name"] == "get_weather"
    assert tool_call(named)["name"] == "get_time"
    arguments = json.loads(tool_call(required)["arguments"])
    assert isinstance(arguments.pop("city"), str)
    assert arguments == {"unit": "celsius", "days": 2, "exact": True, "hours": [1]}
    assert whole(required)["choices"][0]["finish_reason"] == "tool_calls"


def test_a_tool_call_streams_its_name_first_and_its_arguments_in_pieces() -> None:
    """The pieces joined are the arguments, and the count is one for the name and one for each piece."""
    made = answer(Behaviour(tool_call=ToolCall(name="look", arguments={"a": 1, "b": "x y"})), stream=True)
    calls = [
        event["choices"][0]["delta"]["tool_calls"][0]
        for event in events(made)
        if "tool_calls" in event["choices"][0]["delta"]
    ]

    assert calls[0]["function"] == {"name": "look", "arguments": ""}
    assert "".join(call["function"]["arguments"] for call in calls) == tool_call(made)["arguments"]
    assert made.tokens == len(calls) > 3


def test_tools_that_need_not_be_called_are_not() -> None:
    """With the choice left open the answer is text."""
    assert whole(answer(tools=TOOLS))["choices"][0]["message"]["content"]


def test_json_is_answered_where_json_was_asked_for() -> None:
    """An object, or what the schema describes."""
    plain = answer(response_format={"type": "json_object"})
    schema = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}
    shaped = answer(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})

    assert list(json.loads(whole(plain)["choices"][0]["message"]["content"])) == ["answer"]
    assert list(json.loads(whole(shaped)["choices"][0]["message"]["content"])) == ["name", "age"]


def test_log_probabilities_cover_every_token() -> None:
    """One entry for each word, with as many alternatives as asked for."""
    made = answer(Behaviour(words=4), logprobs=True, top_logprobs=3, stream=True)
    content = whole(made)["choices"][0]["logprobs"]["content"]

    assert [entry["token"] for entry in content] == list(made.choices[0].words)
    assert all(entry["logprob"] <= 0 and len(entry["top_logprobs"]) == 3 for entry in content)
    streamed = [event["choices"][0]["logprobs"] for event in events(made)]
    assert [each["content"][0] for each in streamed if each] == content


def test_usage_may_be_left_out_laid_over_or_put_on_the_finish() -> None:
    """Three ways in which real servers differ."""
    options = {"include_usage": True}
    none = answer(Behaviour(no_usage=True), stream=True, stream_options=options)
    wrong = answer(Behaviour(words=3, usage={"prompt_tokens": -5}))
    finish = answer(Behaviour(words=3, usage_on_finish=True), stream=True, stream_options=options)

    assert not any(event.get("usage") for event in events(none))
    assert whole(wrong)["usage"]["prompt_tokens"] == -5
    assert events(finish)[-1]["choices"][0]["finish_reason"] == "stop"
    assert events(finish)[-1]["usage"]["completion_tokens"] == 3


def test_the_marker_is_taken_out_of_the_question() -> None:
    """It wishes only at the start of the last user message, and is not echoed."""
    first = {"role": "user", "content": "[[mock: hang]] earlier"}
    marked = ask_of(
        {"model": "m", "messages": [first, {"role": "user", "content": "[[mock: echo, crlf]]  say this"}]}
    )
    later = ask_of({"model": "m", "messages": [{"role": "user", "content": "what does [[mock: hang]] do?"}]})

    assert marked.wish is not None and marked.wish.strip() == "echo, crlf"
    assert marked.text == "say this"
    assert later.wish is None


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'{"messages": []}', "model"),
        (b'{"model": "m", "messages": [{"content": "x"}]}', "messages[0]"),
        (b'{"model": 1, "messages": []}', "model"),
        (b'{"model": "m", "messages": [], "n": 0}', "n"),
        (b'{"model": "m", "messages": [], "max_tokens": -1}', "max_tokens"),
        (b"[1]", None),
        (b"{", None),
        (b'"\xff"', None),
    ],
)
def test_what_is_no_chat_completion_is_refused(body: bytes, param: str | None) -> None:
    """The field at fault is named where there is one."""
    with pytest.raises(InvalidRequest) as caught:
        read_ask(body)
    assert caught.value.param == param
