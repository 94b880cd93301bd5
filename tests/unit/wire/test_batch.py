"""Batch lines: read and checked, each wrong one with its sentence; outputs of one line each."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiergate.wire import (
    BadLine,
    custom_id_of,
    read_batch_line,
    write_answered,
    write_unanswered,
)

CHAT = "/v1/chat/completions"
BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
LONG = "canary" * 50
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


def line(**fields: Any) -> bytes:
    """A good line, with other fields; None leaves one out."""
    row = {"custom_id": "a", "method": "POST", "url": CHAT, "body": BODY, **fields}
    return json.dumps({name: value for name, value in row.items() if value is not None}).encode()


def refused(data: bytes, *, model: str | None = None) -> BadLine:
    with pytest.raises(BadLine) as told:
        read_batch_line(data, url=CHAT, model=model)
    return told.value


# Reading.


def test_a_line_is_read() -> None:
    """Its body is the question, as it would be posted; its end and unknown fields do not matter."""
    for end in (b"", b"\n", b"\r\n", b"  "):
        read = read_batch_line(line(priority=3) + end, url=CHAT)
        assert (read.custom_id, read.url) == ("a", CHAT)
        assert dict(read.question.body) == BODY
        assert (read.question.model, read.question.streamed) == ("m", False)


def test_post_is_meant_where_no_method_is_named() -> None:
    """Some who write lines leave it out."""
    assert read_batch_line(line(method=None), url=CHAT).custom_id == "a"


def test_a_line_that_names_no_model_asks_for_that_of_its_batch() -> None:
    """One that names its own asks for that."""
    nameless = {"messages": BODY["messages"]}
    assert read_batch_line(line(body=nameless), url=CHAT, model="batch").question.model == "batch"
    assert read_batch_line(line(), url=CHAT, model="batch").question.model == "m"
    assert "`model`" in str(refused(line(body=nameless)))
    assert "`model`" in str(refused(line(body={**BODY, "model": None}), model="batch"))


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "The line is not valid JSON"),
        (b"hello", "The line is not valid JSON"),
        (line()[:-1], "The line is not valid JSON"),
        (line() + line(), "The line is not valid JSON"),
        (b'{"custom_id": "\xff"}', "The line is not valid JSON: it holds bytes that are not UTF-8."),
        (b"[]", "The line must be a JSON object."),
        (b"null", "The line must be a JSON object."),
        (b'{"a":' * 99 + b"1" + b"}" * 99, "The line is nested deeper than 64 levels."),
        (b'{"custom_id": "a", "custom_id": "b"}', "The key 'custom_id' stands twice in the same object"),
        (line(body=None)[:-1] + b', "body": {"model": "m", "model": "n"}}', "The key 'model' stands twice"),
        (line(custom_id=None), "`custom_id` must be a text of 1 to 512 characters."),
        (line(custom_id=""), "`custom_id` must be a text of 1 to 512 characters."),
        (line(custom_id=5), "`custom_id` must be a text of 1 to 512 characters."),
        (line(custom_id="x" * 513), "`custom_id` must be a text of 1 to 512 characters."),
    ],
)
def test_a_line_without_a_name_says_what_is_wrong(data: bytes, sentence: str) -> None:
    """It can be found by its number alone."""
    error = refused(data)
    assert sentence in str(error)
    assert error.custom_id is None


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"method": "GET"}, "`method` must be POST."),
        ({"method": "post"}, "`method` must be POST."),
        ({"method": {}}, "`method` must be POST."),
        ({"url": None}, f"`url` must be {CHAT}, the endpoint of the batch; it is 'None'."),
        (
            {"url": "/v1/embeddings"},
            f"`url` must be {CHAT}, the endpoint of the batch; it is '/v1/embeddings'.",
        ),
        ({"url": CHAT + "/"}, f"`url` must be {CHAT}"),
        ({"url": [CHAT]}, f"`url` must be {CHAT}"),
        ({"body": None}, "`body` must be an object: what would be posted to the endpoint."),
        ({"body": [BODY]}, "`body` must be an object"),
        ({"body": "hello"}, "`body` must be an object"),
        ({"body": {**BODY, "stream": True}}, "`stream` means nothing in a batch; leave it out."),
        ({"body": {**BODY, "stream": "yes"}}, "`stream` means nothing in a batch; leave it out."),
        ({"body": {**BODY, "stream": 0}}, "`stream` must be true or false."),
        ({"body": {**BODY, "messages": []}}, "`messages` must be a list with at least one message."),
        ({"body": {**BODY, "n": 0}}, "`n` must be a whole number of at least 1."),
        ({"body": {**BODY, "models": ["dearer"]}}, "`models` lets a provider answer with another model"),
        ({"invalid": "Row 3 has no prompt."}, "Row 3 has no prompt."),
    ],
)
def test_a_bad_line_keeps_its_name_and_says_what_is_wrong(fields: dict[str, Any], sentence: str) -> None:
    """Its output tells it to whoever sent it."""
    error = refused(line(**fields))
    assert sentence in str(error)
    assert error.custom_id == "a"


def test_a_stream_that_is_not_wanted_is_no_stream() -> None:
    """Clients write it down."""
    assert not read_batch_line(line(body={**BODY, "stream": False}), url=CHAT).question.streamed


@pytest.mark.parametrize(
    "data",
    [
        LONG.encode(),
        line(custom_id=LONG * 2),
        line(method=LONG),
        line(url=LONG),
        line(url=[LONG]),
        line(body=LONG),
        line(body={**BODY, "model": LONG}),
        line(body={**BODY, "messages": LONG}),
        line(body={**BODY, "stream": LONG}),
        line(body={**BODY, "max_tokens": LONG}),
        b'{"%s": 1, "%s": 1}' % (LONG.encode(), LONG.encode()),
    ],
)
def test_no_sentence_quotes_much_of_a_line(data: bytes) -> None:
    """A hundred characters at most: it goes into records and answers."""
    told = str(refused(data))
    assert told.count("canary") <= 100 // len("canary")
    assert len(told) < 250


def test_a_sentence_that_a_line_brings_along_is_bounded() -> None:
    """Whoever made the line may have written anything."""
    assert len(str(refused(line(invalid="x" * 100_000)))) == 500


@given(
    st.binary(max_size=60)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.dictionaries(
            st.sampled_from(["custom_id", "url", "body", "model", "messages"]), inner
        ),
    ).map(lambda value: json.dumps(value).encode())
)
def test_anything_is_a_line_or_a_bad_one(data: bytes) -> None:
    """Nothing else is raised; a line that is read has its name."""
    try:
        read = read_batch_line(data, url=CHAT, model="m")
    except BadLine:
        return
    assert custom_id_of(data) == read.custom_id


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (line(), "a"),
        (line(custom_id="x" * 512, body=None), "x" * 512),
        (line(custom_id="x" * 513), None),
        (line(custom_id=""), None),
        (line(custom_id=7), None),
        (b"[]", None),
        (b"no line", None),
        (b"", None),
        (b"\xff", None),
    ],
)
def test_the_name_of_a_line_is_found_whatever_else_is_wrong(data: bytes, name: str | None) -> None:
    """Or that it has none."""
    assert custom_id_of(data) == name


# Writing.


@given(NAMES, st.dictionaries(NAMES, NAMES | st.integers(0, 9), max_size=4), st.sampled_from([None, 1, 4]))
def test_an_answer_is_one_line(custom_id: str, body: dict[str, Any], indent: int | None) -> None:
    """Whatever it holds, and however its provider laid it out."""
    written = write_answered(
        custom_id, call_id="c", status=200, body=json.dumps(body, indent=indent).encode(), told={"n": 1}
    )
    assert written.endswith(b"\n") and written.count(b"\n") == 1
    assert json.loads(written) == {
        "id": "batch_req_c",
        "custom_id": custom_id,
        "response": {"status_code": 200, "request_id": "c", "body": body},
        "error": None,
        "tiergate": {"n": 1},
    }


def test_a_body_of_one_line_is_written_as_it_is() -> None:
    """Byte by byte: numbers keep their digits."""
    body = b'{"a": 1.10, "b":  12345678901234567890123, "c": "\\u00e4"}'
    assert body in write_answered("a", call_id="c", status=200, body=body)


def test_nothing_is_told_beside_it_where_there_is_nothing() -> None:
    """Its keys are those of the format."""
    answered = json.loads(write_answered("a", call_id="c", status=200, body=b"{}"))
    unanswered = json.loads(write_unanswered("a", request_id="c", code="x", message="y"))
    assert list(answered) == list(unanswered) == ["id", "custom_id", "response", "error"]


@given(NAMES | st.none(), NAMES)
def test_a_question_that_was_not_answered_is_one_line_too(custom_id: str | None, message: str) -> None:
    """With an error and without a response."""
    written = write_unanswered(custom_id, request_id="r", code="x", message=message, told={"n": 2})
    assert written.endswith(b"\n") and written.count(b"\n") == 1
    assert json.loads(written) == {
        "id": "batch_req_r",
        "custom_id": custom_id,
        "response": None,
        "error": {"code": "x", "message": message},
        "tiergate": {"n": 2},
    }
