"""Chat completions: the question checked and rendered, replies and chunks of every shape read."""

import json
from typing import Any

import pytest
from msgspec.structs import replace

from tiergate.core import Chunk, InvalidRequest, Usage
from tiergate.core import UpstreamProtocolError as ProtocolError
from tiergate.wire import (
    ErrorInStream,
    choices_asked,
    output_tokens_asked,
    read_chat,
    read_chunk,
    read_plain_chat,
    read_reply,
    render_chat,
)

HELLO: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


def body(**fields: Any) -> bytes:
    return json.dumps({**HELLO, **fields}).encode()


# The question.


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"model": 4}, "model"),
        ({"model": ["m"]}, "model"),
        ({"model": "gpt\0"}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": {}}, "messages"),
        ({"messages": ["hello"]}, "messages"),
        ({"messages": [{}, None]}, "messages"),
        ({"stream": 1}, "stream"),
        ({"stream": "true"}, "stream"),
        ({"stream": True, "stream_options": []}, "stream_options"),
        ({"stream": True, "stream_options": "usage"}, "stream_options"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": False, "stream_options": {}}, "stream_options"),
        ({"models": ["openai/dearer"]}, "models"),
        ({"fallbacks": [{"model": "dearer"}]}, "fallbacks"),
        ({"preset": "dearer"}, "preset"),
        *[
            ({name: value}, name)
            for name in ("max_tokens", "max_completion_tokens", "n")
            for value in (0, -1, 1.0, 1.5, "5", True, [], {}, 10**8, 10**30)
        ],
    ],
)
def test_a_field_that_decides_something_must_be_what_it_should(fields: dict[str, Any], param: str) -> None:
    """The refusal names the field; a value that a provider may read otherwise is refused, too."""
    with pytest.raises(InvalidRequest) as refusal:
        read_chat(body(**fields))
    assert refusal.value.param == param


def test_null_is_absent() -> None:
    """For every optional field that is looked at."""
    question = read_chat(
        body(stream=None, stream_options=None, max_tokens=None, max_completion_tokens=None, n=None)
    )
    assert (question.streamed, question.wants_usage) == (False, False)
    assert output_tokens_asked(question.body) is None
    assert choices_asked(question.body) == 1


@pytest.mark.parametrize(
    ("fields", "tokens", "choices"),
    [
        ({}, None, 1),
        ({"max_tokens": 5}, 5, 1),
        ({"max_completion_tokens": 7, "n": 3}, 7, 3),
        ({"max_completion_tokens": 7, "max_tokens": 5}, 7, 1),
        ({"max_completion_tokens": 1, "max_tokens": 8000}, 8000, 1),
        ({"max_completion_tokens": None, "max_tokens": 5, "n": 1}, 5, 1),
        ({"max_tokens": 10_000_000}, 10_000_000, 1),
    ],
)
def test_limits_are_read_as_providers_read_them(
    fields: dict[str, Any], tokens: int | None, choices: int
) -> None:
    """The newer name first; per choice."""
    question = read_chat(body(**fields))
    assert (output_tokens_asked(question.body), choices_asked(question.body)) == (tokens, choices)


def test_a_model_name_is_short() -> None:
    """It is written into every record of its call, so nobody fills the disk with it."""
    assert read_chat(body(model="m" * 256)).model == "m" * 256
    with pytest.raises(InvalidRequest, match="256") as raised:
        read_chat(body(model="m" * 257))
    assert raised.value.param == "model"


@pytest.mark.parametrize(
    ("options", "wanted"),
    [(None, False), ({}, False), ({"include_usage": False}, False), ({"include_usage": True}, True)],
)
def test_the_wish_for_usage_is_the_clients(options: dict[str, Any] | None, wanted: bool) -> None:
    """Only who asked is given the usage chunk."""
    assert read_chat(body(stream=True, stream_options=options)).wants_usage is wanted


def test_what_is_forwarded_is_what_was_read_but_for_the_model() -> None:
    """Unknown, null and empty fields, the order of keys, and no key that the client did not send."""
    sent = (
        b'{"tools":[],"model":"ours","user":null,"messages":[{"content":null,"role":"assistant","x":{}}],'
        b'"temperature":0.10,"seed":123456789012345678901234567890,"logit_bias":{},"stop":""}'
    )
    forwarded = render_chat(read_chat(sent).body, "theirs", False)
    assert forwarded == sent.replace(b'"ours"', b'"theirs"').replace(b"0.10", b"0.1")


@pytest.mark.parametrize(
    ("options", "forwarded"),
    [
        (b"", b',"stream_options":{"include_usage":true}'),
        (b',"stream_options":null', b',"stream_options":{"include_usage":true}'),
        (b',"stream_options":{}', b',"stream_options":{"include_usage":true}'),
        (
            b',"stream_options":{"include_usage":false,"x":1}',
            b',"stream_options":{"include_usage":true,"x":1}',
        ),
    ],
)
def test_in_streams_usage_is_asked_for_and_nothing_else(options: bytes, forwarded: bytes) -> None:
    """Other options of the client stay."""
    asked = b'{"model":"m","messages":[{}],"stream":true'
    question = read_chat(asked + options + b"}")
    assert render_chat(question.body, "m", True) == asked + forwarded + b"}"


def test_rendering_leaves_the_question_alone() -> None:
    """A second attempt renders the same object again."""
    question = read_chat(body(stream=True, stream_options={"x": 1}))
    before = json.dumps(question.body)
    render_chat(question.body, "other", True)
    assert json.dumps(question.body) == before


def test_the_plain_stream_always_streams() -> None:
    """`stream` may be absent, null or true; anything else is a misunderstanding."""
    for fields in ({}, {"stream": None}, {"stream": True}):
        assert read_plain_chat(body(**fields)).streamed
    for value in (False, 0, 1, "yes", {}):
        with pytest.raises(InvalidRequest) as refusal:
            read_plain_chat(body(stream=value))
        assert refusal.value.param == "stream"


# Chunks.


def chunk(**fields: Any) -> bytes:
    return json.dumps({"id": "c", "object": "chat.completion.chunk", **fields}).encode()


def delta(_index: object = 0, _finish: object = None, **said: Any) -> bytes:
    return chunk(choices=[{"index": _index, "delta": said, "finish_reason": _finish}])


SOME = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
SOME_USAGE = Usage(input=7, output=5)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (delta(content="word"), Chunk(b"", content=True, text="word")),
        (delta(role="assistant", content=""), Chunk(b"")),
        (delta(role="assistant"), Chunk(b"")),
        (delta(), Chunk(b"")),
        (delta(content=None), Chunk(b"")),
        (delta(content=" "), Chunk(b"", content=True, text=" ")),
        (delta(reasoning_content="hm"), Chunk(b"", content=True)),
        (delta(reasoning="hm"), Chunk(b"", content=True)),
        (delta(reasoning_content="", content=""), Chunk(b"")),
        (delta(refusal="no"), Chunk(b"", content=True)),
        (
            delta(tool_calls=[{"index": 0, "function": {"name": "f", "arguments": ""}}]),
            Chunk(b"", content=True),
        ),
        (delta(tool_calls=[]), Chunk(b"")),
        (delta(function_call={"name": "f"}), Chunk(b"", content=True)),
        (delta(audio={"id": "a", "data": "AAAA"}), Chunk(b"", content=True)),
        (delta(_finish="stop"), Chunk(b"", content=True, finish=("stop",))),
        (delta(_finish="length", content="end"), Chunk(b"", content=True, text="end", finish=("length",))),
        (delta(1, content="second choice"), Chunk(b"", content=True)),
        (chunk(choices=[], usage=SOME), Chunk(b"", usage=SOME_USAGE, bare_usage=True)),
        (chunk(usage=SOME), Chunk(b"", usage=SOME_USAGE, bare_usage=True)),
        (chunk(choices=None, usage=SOME), Chunk(b"", usage=SOME_USAGE, bare_usage=True)),
        (chunk(choices=[], usage={}), Chunk(b"", bare_usage=True)),
        (chunk(choices=[], usage=None), Chunk(b"")),
        (
            chunk(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}], usage=SOME),
            Chunk(b"", content=True, finish=("stop",), usage=SOME_USAGE),
        ),
        (
            chunk(choices=[{"index": 0, "delta": {"content": "a"}}, {"index": 1, "delta": {"content": "b"}}]),
            Chunk(b"", content=True, text="a"),
        ),
        (
            chunk(choices=[{"index": i, "finish_reason": why} for i, why in enumerate(["stop", "length"])]),
            Chunk(b"", content=True, finish=("stop", "length")),
        ),
        # What servers put into fields that have another type in the dialect.
        (
            delta(content=[{"type": "text", "text": "a"}, {"type": "image"}, "x", {"text": "b"}]),
            Chunk(b"", content=True, text="ab"),
        ),
        (delta(content=[]), Chunk(b"")),
        (delta(content=5), Chunk(b"")),
        (delta(None, content="a"), Chunk(b"", content=True, text="a")),
        (delta("0", content="a"), Chunk(b"", content=True, text="a")),
        (delta(0.0, content="a"), Chunk(b"", content=True, text="a")),
        (delta(_finish=7), Chunk(b"", content=True, finish=("7",))),
        (delta(tool_calls={"name": "f"}), Chunk(b"")),
        (delta(tool_calls="f", content="a"), Chunk(b"", content=True, text="a")),
        (chunk(choices=[{"delta": "x"}, 5, None]), Chunk(b"")),
        (chunk(choices={"0": {}}, usage=SOME), Chunk(b"", usage=SOME_USAGE, bare_usage=True)),
        (chunk(choices=[], usage=[]), Chunk(b"")),
        (chunk(choices=[], usage=5), Chunk(b"")),
        # Neither choices nor usage: passed on.
        (b"{}", Chunk(b"")),
        (b'{"object":"ping"}', Chunk(b"")),
        # An error that says nothing is none, as for the official clients.
        *[(chunk(error=error, choices=[]), Chunk(b"")) for error in (None, "", {}, [], False, 0)],
    ],
)
def test_a_chunk_of_any_shape_is_read(data: bytes, expected: Chunk) -> None:
    """And its bytes go on exactly as they came."""
    assert read_chunk(data) == replace(expected, data=data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"[1]",
        b"5",
        b'"text"',
        b"<html>",
        b'{"choices":[',
        b'{"a":"\xff"}',
        b"[" * 10_000,
    ],
)
def test_what_is_no_chunk_breaks_the_protocol(data: bytes) -> None:
    """Streamed or whole, and the upstream's text is not repeated."""
    for read in (read_chunk, read_reply):
        with pytest.raises(ProtocolError) as failure:
            read(data)
        assert "html" not in str(failure.value)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ({"message": "m", "type": "t", "param": "p", "code": "c"}, ("m", "t", "p", "c")),
        ({"message": "m", "code": 429}, ("m", None, None, "429")),
        ({"message": ["m"], "code": True}, (None, None, None, None)),
        ("text", ("text", None, None, None)),
        (["odd"], (None, None, None, None)),
        (5, (None, None, None, None)),
    ],
)
def test_an_error_object_is_no_answer(error: object, said: tuple[str | None, ...]) -> None:
    """Streamed or whole, in every spelling, also beside choices."""
    for data in (chunk(error=error), chunk(choices=[{"delta": {"content": "a"}}], error=error)):
        for read in (read_chunk, read_reply):
            with pytest.raises(ErrorInStream) as found:
                read(data)
            assert found.value.error == said


def test_an_error_object_without_wrapper_is_one_too() -> None:
    """As older vLLM servers write it."""
    with pytest.raises(ErrorInStream) as found:
        read_chunk(b'{"object":"error","message":"too long","type":"BadRequestError","code":400}')
    assert found.value.error == ("too long", "BadRequestError", None, "400")


def test_a_finish_reason_that_is_repeated_is_counted_once() -> None:
    """Some servers say it again with the usage; with several choices that must not end another one."""
    ended: set[int] = set()
    assert read_chunk(delta(0, "stop"), ended).finish == ("stop",)
    again = read_chunk(delta(0, "stop"), ended)
    assert (again.finish, again.content) == ((), True)
    assert read_chunk(delta(1, "length"), ended).finish == ("length",)
    assert ended == {0, 1}


# Whole replies.


def test_a_whole_reply_is_read_as_one_chunk() -> None:
    """Text, finish reasons of all choices, usage."""
    data = chunk(
        choices=[
            {"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"},
            {"index": 1, "message": {"role": "assistant", "content": "world"}, "finish_reason": "length"},
        ],
        usage=SOME,
    )
    assert read_reply(data) == Chunk(data, True, "hello", ("stop", "length"), SOME_USAGE)


@pytest.mark.parametrize(
    "fields", [{}, {"choices": []}, {"choices": None}, {"usage": SOME}, {"choices": "x"}]
)
def test_a_reply_without_choices_is_no_answer(fields: dict[str, Any]) -> None:
    """Whatever else it holds."""
    with pytest.raises(ProtocolError, match="no choices"):
        read_reply(chunk(**fields))
