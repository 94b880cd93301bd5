"""The wire, whatever arrives: any cut of a stream, any spelling of JSON, any shape of a chunk."""

import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tiergate.core import InvalidRequest, UpstreamError, UpstreamProtocolError
from tiergate.wire import (
    ChatStream,
    ErrorInStream,
    ServerSentEvent,
    SseParser,
    dumps,
    loads,
    read_chunk,
    read_error,
    read_object,
    read_reply,
    render_chat,
    with_cost,
    write_event,
)
from tiergate.wire.chat import _chunk, _decode_body, _read_leniently

# Streams of events.

LINES = st.one_of(
    st.just(b""),
    st.sampled_from(
        [
            b"data",
            b"data:",
            b"data: ",
            b"data: one",
            b"data:two",
            b"data:  with two spaces",
            b"data: a: colon",
            b'data: {"k": "\xc3\xa9"}',
            b"data: \xef\xbb\xbf",
            b"data: nul \x00 byte",
            b"event",
            b"event: error",
            b"event:",
            b"id: 7",
            b"retry: 3000",
            b":",
            b": a comment",
            b" data: not a field of ours",
            b"DATA: neither",
            b"nonsense",
        ]
    ),
    st.binary(max_size=8).map(lambda line: line.replace(b"\r", b"").replace(b"\n", b"")),
)
LINE_ENDS = st.sampled_from([b"\n", b"\r", b"\r\n"])
STREAMS = st.builds(
    lambda bom, lines, rest: bom + b"".join(line + end for line, end in lines) + rest,
    st.sampled_from([b"", b"\xef\xbb\xbf", b"\xef\xbb", b"\xef"]),
    st.lists(st.tuples(LINES, LINE_ENDS), max_size=12),
    LINES,
)
PIECES = st.lists(
    st.sampled_from(
        [
            *(b"data: a\n\n", b"data: a\n\n", b"data: \n\n", b"data: a\n\ndata: [DONE]\n\n", b"data:b\n\n"),
            *(
                b"data: a\n",
                b"data: a\r",
                b"data: a\r\n\r\n",
                b"data: a\rdata: b\n\n",
                b"data: a\ndata: b\n\n",
            ),
            *(
                b"event: x\n",
                b": comment\n\n",
                b"\n",
                b"\r",
                b"data: a\n\n\ndata: b\n\n",
                b"data: an end\n\n",
            ),
        ]
    ),
    max_size=6,
)
"""Pieces that begin and end with lines: what the fast path is made for, and what only looks like it."""


@st.composite
def cut_streams(draw: st.DrawFn, streams: st.SearchStrategy[bytes] = STREAMS) -> list[bytes]:
    stream = draw(streams)
    return cut(stream, draw(st.lists(st.integers(0, len(stream)), max_size=10)))


def cut(stream: bytes, places: Iterable[int]) -> list[bytes]:
    return [stream[a:b] for a, b in pairwise([0, *sorted(places), len(stream)])]


def as_the_standard_says(stream: bytes) -> list[ServerSentEvent]:
    """Section 9.2.6 of the HTML standard, word by word, over the whole stream at once."""
    lines = stream.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    events, data, name = [], b"", b""
    for line in lines[:-1]:
        if not line:
            if data:
                events.append(ServerSentEvent(data.removesuffix(b"\n"), name))
            data, name = b"", b""
        elif not line.startswith(b":"):
            field, _, value = line.partition(b":")
            value = value[1:] if value.startswith(b" ") else value
            if field == b"data":
                data += value + b"\n"
            elif field == b"event":
                name = value
    return events


def parsed(pieces: Iterable[bytes], *, event_bytes_max: int = 1 << 20) -> list[ServerSentEvent | str]:
    """Everything that a parser gives for these pieces, and that it gave up, if it did."""
    parser = SseParser(event_bytes_max=event_bytes_max)
    given: list[ServerSentEvent | str] = []
    try:
        for piece in pieces:
            for event in parser.feed(piece):
                given.append(event)
    except UpstreamProtocolError:
        given.append("too large")
    return given


@given(cut_streams())
@example([b"\xef", b"\xbb", b"\xbfdata: x\r", b"\n\r", b"\n"])
@example([b"data: a\r", b"", b"\ndata: b\n\n"])
def test_any_cut_of_a_stream_gives_the_events_of_the_standard(pieces: list[bytes]) -> None:
    """CR, LF, CRLF, byte order marks, comments, names and many data lines, cut anywhere."""
    assert parsed(pieces) == as_the_standard_says(b"".join(pieces))


@settings(max_examples=200)
@given(PIECES)
def test_the_fast_path_reads_what_the_slow_path_reads(pieces: list[bytes]) -> None:
    """Pieces of whole events (the fast path) give what single bytes give (the slow one)."""
    stream = b"".join(pieces)
    single = cut(stream, range(len(stream)))
    assert parsed(pieces) == parsed([stream]) == parsed(single) == as_the_standard_says(stream)


@settings(max_examples=200)
@given(cut_streams() | PIECES, st.integers(1, 16))
@example([b"data: a\n\n", b"data: an end\n\n"], 8)
def test_no_cut_changes_the_bound_of_an_event(pieces: list[bytes], event_bytes_max: int) -> None:
    """Too large is too large wherever the bytes were cut, and the events before it are given out."""
    stream = b"".join(pieces)
    single = cut(stream, range(len(stream)))
    assert parsed(pieces, event_bytes_max=event_bytes_max) == parsed(single, event_bytes_max=event_bytes_max)


@given(st.lists(st.binary(max_size=20).filter(lambda data: not {10, 13} & set(data)), max_size=5))
def test_an_event_that_we_write_is_read_as_it_was(written: list[bytes]) -> None:
    """`write_event` and the parser agree."""
    stream = b"".join(write_event(data) for data in written)
    assert parsed([stream]) == [ServerSentEvent(data) for data in written]


# JSON.

NUMBERS = st.integers() | st.integers(-(10**40), 10**40) | st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(TEXTS, VALUES, max_size=5)


def exactly(value: Any) -> str:
    """A value so spelled that true differs from 1, 1.0 from 1, and one order of keys from another."""
    return json.dumps(value)


@st.composite
def spelled(draw: st.DrawFn, text: str) -> str:
    """A JSON string, each character as itself or escaped."""
    letters = []
    for letter in text:
        plain = json.dumps(letter, ensure_ascii=False)[1:-1]
        units = letter.encode("utf-16-be")
        escaped = "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
        letters.append(draw(st.sampled_from([plain, escaped])))
    return '"' + "".join(letters) + '"'


@st.composite
def documents(draw: st.DrawFn, depth: int = 3) -> tuple[str, bool]:
    """An object in any spelling, with few different keys; and whether one stands twice in the same object."""
    gap = st.sampled_from(["", "", " ", "\n", "\t\r\n "])
    keys = draw(st.lists(st.sampled_from(["a", "b", "é", "", "a\n"]), max_size=3))
    twice = len(set(keys)) < len(keys)
    parts = []
    for key in keys:
        kind = draw(st.sampled_from(["leaf", "object", "list"] if depth else ["leaf"]))
        if kind == "leaf":
            value = draw(
                st.sampled_from(["1", "1.50", "-0", "1e3", "null", "true", '"a"', '"\\u0061"', "[]"])
            )
        else:
            value, inner_twice = draw(documents(depth - 1))
            twice = twice or inner_twice
            value = f"[{value}]" if kind == "list" else value
        parts.append(draw(gap) + draw(spelled(key)) + draw(gap) + ":" + draw(gap) + value)
    return "{" + ",".join(parts) + draw(gap) + "}", twice


@given(documents())
def test_a_key_that_stands_twice_is_found_in_every_spelling_and_at_every_depth(
    document: tuple[str, bool],
) -> None:
    """Refused exactly when an object has a key twice; else read as the standard library reads it."""
    text, twice = document
    if twice:
        with pytest.raises(InvalidRequest, match="stands twice"):
            read_object(text.encode())
    else:
        assert exactly(read_object(text.encode())) == exactly(json.loads(text))


@given(OBJECTS, st.booleans(), st.sampled_from([None, 1]), st.sampled_from([(",", ":"), (", ", ": ")]))
def test_an_object_is_read_as_json_reads_it_and_written_as_an_equal_one(
    value: dict[str, Any], ascii_only: bool, indent: int | None, separators: tuple[str, str]
) -> None:
    """Types, order of keys and the last digit of every number survive reading and writing."""
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent, separators=separators)
    read = read_object(text.encode())
    assert exactly(read) == exactly(value)
    assert exactly(json.loads(dumps(read))) == exactly(value)


@given(st.binary(max_size=40) | st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass")))
@example(b'{ "a": 1e400}')
@example(b'{ "a": ' + b"9" * 5000 + b"}")
@example(b"[" * 5000)
def test_a_body_of_any_bytes_is_read_or_refused(data: bytes) -> None:
    """Nothing but `InvalidRequest` leaves the reader, and what it reads the standard library reads, too."""
    try:
        value = read_object(data)
    except InvalidRequest:
        return
    assert exactly(value) == exactly(json.loads(data))


@given(OBJECTS, TEXTS, st.booleans())
def test_rendering_changes_the_model_and_the_wish_for_usage_and_nothing_else(
    extra: dict[str, Any], model: str, streamed: bool
) -> None:
    """Null, empty and unknown fields and the order of keys stay; nothing else is added."""
    body = {"model": "asked", "messages": [{"role": "user", "content": ""}], **extra}
    body["stream_options"] = options = {"other": None} if streamed else None
    sent = json.loads(render_chat(body, model, streamed))
    expected = {**body, "model": model}
    if streamed:
        expected["stream_options"] = {**(options or {}), "include_usage": True}
    assert exactly(sent) == exactly(expected)


# Chunks.

WELL_TYPED_CHUNKS = st.fixed_dictionaries(
    {},
    optional={
        "choices": st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "index": st.integers(0, 3),
                    "delta": st.none()
                    | st.fixed_dictionaries(
                        {"role": st.just("assistant")},
                        optional={
                            "content": st.none() | TEXTS,
                            "reasoning_content": st.none() | TEXTS,
                            "reasoning": TEXTS,
                            "refusal": st.none() | TEXTS,
                            "tool_calls": st.none() | st.lists(OBJECTS, max_size=2),
                            "function_call": st.none() | OBJECTS,
                            "audio": st.none() | OBJECTS,
                        },
                    ),
                    "finish_reason": st.none() | st.sampled_from(["stop", "length", ""]),
                    "logprobs": VALUES,
                },
            ),
            max_size=3,
        ),
        "usage": st.none() | OBJECTS,
        "error": st.none() | OBJECTS | TEXTS,
        "id": VALUES,
    },
)
NAMES = st.sampled_from(
    [
        *(
            "choices",
            "index",
            "delta",
            "message",
            "content",
            "text",
            "finish_reason",
            "tool_calls",
            "reasoning",
        ),
        *("usage", "prompt_tokens", "completion_tokens", "total_tokens", "error", "object", "code", "type"),
    ]
)
ODD_CHUNKS = st.recursive(
    VALUES,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


@given(WELL_TYPED_CHUNKS)
def test_the_lenient_reader_reads_a_well_typed_chunk_as_the_fast_one(body: dict[str, Any]) -> None:
    """Two readers, one meaning."""
    data = dumps(body)
    fast, lenient = _decode_body(data), _read_leniently(data)
    assert _chunk(data, fast, set()) == _chunk(data, lenient, set())
    assert fast.error == lenient.error


@given(st.one_of(ODD_CHUNKS.map(lambda body: json.dumps(body).encode()), st.binary(max_size=30)))
@example(b'{"x": "\xff"}')
@example(b'{"x": 1e400}')
@example(b'{"choices": 5, "x": ' + b"9" * 5000 + b"}")
def test_whatever_an_upstream_says_is_read_or_fails_as_its_protocol(data: bytes) -> None:
    """No shape of JSON and no bytes get another error out of the readers, or lose the data."""
    for read in (read_chunk, read_reply):
        try:
            chunk = read(data)
        except (UpstreamProtocolError, ErrorInStream):
            continue
        assert chunk.data == data
        assert chunk.usage is None or min(chunk.usage.input_tokens, chunk.usage.output_tokens) >= 0
        assert isinstance(with_cost(data, None), bytes)
    read_error(data)


@given(ODD_CHUNKS)
def test_a_usage_of_any_shape_is_sensible_counts_or_nothing(reported: object) -> None:
    """Never negative, and no reported token is lost."""
    usage = read_reply(dumps({"choices": [{"index": 0}], "usage": reported})).usage
    if usage is not None:
        assert isinstance(reported, dict)
        assert all(getattr(usage, bucket) >= 0 for bucket in usage.__struct_fields__)
        assert usage.input_tokens == reported["prompt_tokens"]
        assert usage.output_tokens >= (reported.get("completion_tokens") or 0)
        assert usage.total_tokens >= (reported.get("total_tokens") or 0)


@given(OBJECTS, st.dictionaries(TEXTS, VALUES, max_size=3), st.sampled_from([None, 2]))
def test_the_cost_is_put_into_the_usage_and_nothing_else_changes(
    reply: dict[str, Any], usage: dict[str, Any], indent: int | None
) -> None:
    """Whatever stands around it, in whatever layout; an upstream's own cost is replaced where it stood."""
    data = json.dumps({**reply, "usage": usage}, indent=indent).encode()
    written = with_cost(data, 42_000)
    expected = {**reply, "usage": {**usage, "cost": 0.000042}}
    assert exactly(json.loads(written)) == exactly(expected)


EVENTS = st.sampled_from(
    [
        b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n',
        b'data: {"choices":[{"index":0,"delta":{"content":"word "}}]}\n\n',
        b'data: {"choices":[{"index":1,"delta":{"content":"other"}}]}\r\n\r\n',
        b'data: {"choices":\ndata: [{"index":0,"delta":{"content":"two lines"}}]}\n\n',
        b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n',
        b'data: {"choices":[{"index":1,"delta":{},"finish_reason":"stop"}]}\n\n',
        b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}\n\n',
        b"data: [DONE]\n\n",
        b": heartbeat\n\n",
        b"data:\n\n",
        b"data: <html>\n\n",
        b'data: {"error":{"message":"broken","code":500}}\n\n',
        b'event: error\ndata: {"error":{"message":"limit","type":"rate_limit_error"}}\n\n',
        b'data: {"choices":[{"index":0,"delta":{"content":"' + b"x" * 200 + b'"}}]}\n\n',
        b'data: {"choices":[{"index":0,"delta":{"content":"cut of',
    ]
)


def read_stream(pieces: Sequence[bytes], choices: int) -> list[object]:
    """The chunks, the marker, the failure and the verdict about the end."""
    stream = ChatStream(choices=choices, event_bytes_max=150)
    found: list[object] = [chunk for piece in pieces for chunk in stream.feed(piece)]
    found += [stream.done, type(stream.failure), str(stream.failure)]
    if stream.failure is None:
        try:
            stream.end()
            found.append(stream.warnings)
        except UpstreamError as error:
            found.append(type(error))
    return found


@given(cut_streams(st.lists(EVENTS, max_size=7).map(b"".join)), st.integers(1, 2))
def test_no_cut_changes_what_a_stream_says_or_whether_it_is_complete(
    pieces: list[bytes], choices: int
) -> None:
    """Chunks, marker, failure and verdict are the same as of the whole; `feed` never raises."""
    assert read_stream(pieces, choices) == read_stream([b"".join(pieces)], choices)


@given(st.lists(EVENTS, max_size=7))
def test_a_stream_is_complete_only_by_its_marker_or_by_all_its_finish_reasons(events: list[bytes]) -> None:
    """The same judgement, made by looking at the events one after the other."""
    complete, ended = False, set()
    for event in events:
        if b"[DONE]" in event:
            complete = True
            break
        if not event.endswith(b"\n") or any(bad in event for bad in (b"html", b"error", b"x" * 200)):
            break
        if b"finish_reason" in event:
            ended.add(loads(event.split(b": ", 1)[1])["choices"][0]["index"])
    stream = ChatStream(choices=2, event_bytes_max=150)
    for event in events:
        stream.feed(event)
    assert stream.done == complete
    if stream.failure is None and not complete:
        if ended == {0, 1}:
            stream.end()
            assert stream.warnings == ("no_done_marker",)
        else:
            with pytest.raises(UpstreamError):
                stream.end()
