"""The official client, synchronous and asynchronous, through the real gateway to a scripted provider."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from typing import Any, Protocol

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel

from flow.conftest import KEY
from flow.plain_http import ask as plain_ask
from flow.plain_http import asking, bearer, events_of, read_answer
from flow.recorder import Recorder, Seen, Wire, answer_well, chunk
from house import GatewayProcess, calls_of, until
from tiergate.testing import MockProcess

QUESTION: Any = [{"role": "user", "content": "What is a lease?"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
PIXEL = "data:image/png;base64,iVBORw0KGgo="


class Asker(Protocol):
    """One official client, either kind."""

    def whole(self, **asked: Any) -> ChatCompletion: ...

    def stream(self, **asked: Any) -> list[ChatCompletionChunk]: ...


class SyncAsker:
    def __init__(self, base_url: str) -> None:
        self._options: dict[str, Any] = {"base_url": base_url, "api_key": KEY}

    def whole(self, **asked: Any) -> ChatCompletion:
        with OpenAI(**self._options) as client:
            return client.chat.completions.create(**asked)

    def stream(self, **asked: Any) -> list[ChatCompletionChunk]:
        with OpenAI(**self._options) as client:
            return list(client.chat.completions.create(stream=True, **asked))


class AsyncAsker:
    def __init__(self, base_url: str) -> None:
        self._options: dict[str, Any] = {"base_url": base_url, "api_key": KEY}

    def whole(self, **asked: Any) -> ChatCompletion:
        async def run() -> ChatCompletion:
            async with AsyncOpenAI(**self._options) as client:
                return await client.chat.completions.create(**asked)

        return asyncio.run(run())

    def stream(self, **asked: Any) -> list[ChatCompletionChunk]:
        async def run() -> list[ChatCompletionChunk]:
            async with AsyncOpenAI(**self._options) as client:
                return [piece async for piece in await client.chat.completions.create(stream=True, **asked)]

        return asyncio.run(run())


@pytest.fixture(params=[SyncAsker, AsyncAsker], ids=["sync", "async"])
def asker(request: pytest.FixtureRequest, gateway: GatewayProcess) -> Asker:
    return request.param(gateway.base_url)


@pytest.fixture(scope="module")
def client(gateway: GatewayProcess) -> Iterator[OpenAI]:
    """The client as people make it: it retries twice on its own unless it is told not to."""
    with OpenAI(base_url=gateway.base_url, api_key=KEY) as made:
        yield made


@pytest.fixture
def record(recorder: Recorder) -> Iterator[Recorder]:
    recorder.seen.clear()
    yield recorder
    recorder.play = answer_well


def said(chunks: list[ChatCompletionChunk], index: int = 0) -> str:
    return "".join(
        choice.delta.content or ""
        for piece in chunks
        for choice in piece.choices
        if choice.index == index and choice.delta is not None
    )


def at_provider(mock: MockProcess, **asked: Any) -> ChatCompletion:
    """Ask the provider itself, without a gateway."""
    with OpenAI(base_url=mock.base_url, api_key="direct") as direct:
        return direct.chat.completions.create(**asked)


# Answers.


def test_whole_answer_is_the_providers(asker: Asker, mock: MockProcess) -> None:
    """The caller gets the provider's own answer, and its cost beside the usage."""
    direct = at_provider(mock, model="good", messages=QUESTION)
    reply = asker.whole(model="good", messages=QUESTION)
    assert reply.choices == direct.choices
    assert reply.usage is not None and direct.usage is not None
    told = reply.usage.model_dump()
    cost = told.pop("cost")
    assert told == direct.usage.model_dump()
    assert cost == pytest.approx((direct.usage.prompt_tokens + 2 * direct.usage.completion_tokens) / 1e6)


def test_stream_adds_up_to_the_whole(asker: Asker) -> None:
    """A stream's pieces say what the whole answer says, and end with its finish reason."""
    whole = asker.whole(model="good", messages=QUESTION)
    chunks = asker.stream(model="good", messages=QUESTION)
    assert said(chunks) == whole.choices[0].message.content
    assert [choice.finish_reason for piece in chunks for choice in piece.choices][-1] == "stop"
    assert len(chunks) > 5


def test_tool_call(asker: Asker) -> None:
    """A forced tool is called, whole or in pieces, with the same arguments."""
    asked: Any = {
        "model": "good",
        "messages": QUESTION,
        "tools": [WEATHER],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
    }
    message = asker.whole(**asked).choices[0]
    assert message.finish_reason == "tool_calls"
    assert message.message.tool_calls is not None
    function = message.message.tool_calls[0].function
    assert function.name == "weather"
    assert set(json.loads(function.arguments)) == {"city"}
    deltas = [call for piece in asker.stream(**asked) for call in (piece.choices[0].delta.tool_calls or ())]
    assert deltas[0].id
    assert [call.function.name for call in deltas if call.function and call.function.name] == ["weather"]
    assert "".join(call.function.arguments or "" for call in deltas if call.function) == function.arguments


def test_tool_results_go_back(record: Recorder, asker: Asker) -> None:
    """Messages of a conversation with tools reach the provider as they were sent."""
    messages: Any = [
        {"role": "system", "content": "Be brief."},
        *QUESTION,
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": '{"sky": "blue"}'},
    ]
    asker.whole(model="kept", messages=messages, tools=[WEATHER])
    assert record.last.json["messages"] == messages
    assert record.last.json["tools"] == [WEATHER]


def test_json_mode(asker: Asker) -> None:
    """JSON mode gives JSON, whole or streamed."""
    asked: Any = {"model": "good", "messages": QUESTION, "response_format": {"type": "json_object"}}
    content = asker.whole(**asked).choices[0].message.content
    assert content is not None
    assert isinstance(json.loads(content), dict)
    assert json.loads(said(asker.stream(**asked))) == json.loads(content)


def test_structured_output(client: OpenAI) -> None:
    """The client's own parsing into a model works through the gateway."""

    class Lease(BaseModel):
        tenant: str
        months: int

    parsed = client.chat.completions.parse(model="good", messages=QUESTION, response_format=Lease)
    assert isinstance(parsed.choices[0].message.parsed, Lease)


def test_images_in_messages(record: Recorder, asker: Asker) -> None:
    """Parts of a message, images among them, reach the provider as they were sent."""
    messages: Any = [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?"},
                {
                    "type": "image_url",
                    "image_url": {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"},
                },
            ],
        }
    ]
    assert asker.whole(model="kept", messages=messages).choices[0].message.content == "hello"
    assert record.last.json["messages"] == messages
    assert said(asker.stream(model="good", messages=messages))


def test_logprobs(asker: Asker) -> None:
    """Log probabilities arrive, whole or streamed, with their alternatives."""
    asked: Any = {"model": "good", "messages": QUESTION, "logprobs": True, "top_logprobs": 2}
    choice = asker.whole(**asked).choices[0]
    assert choice.logprobs is not None and choice.logprobs.content is not None
    tokens = [token.token for token in choice.logprobs.content]
    assert "".join(tokens) == choice.message.content
    assert {len(token.top_logprobs) for token in choice.logprobs.content} == {2}
    streamed = [
        token.token
        for piece in asker.stream(**asked)
        if piece.choices and piece.choices[0].logprobs
        for token in piece.choices[0].logprobs.content or ()
    ]
    assert streamed == tokens


def test_several_choices(asker: Asker) -> None:
    """With n=2 both choices arrive complete, whole or streamed."""
    whole = asker.whole(model="good", messages=QUESTION, n=2)
    texts = [choice.message.content for choice in whole.choices]
    assert len(set(texts)) == 2
    chunks = asker.stream(model="good", messages=QUESTION, n=2)
    assert [said(chunks, 0), said(chunks, 1)] == texts
    ends = [choice for piece in chunks for choice in piece.choices if choice.finish_reason]
    assert sorted(choice.index for choice in ends) == [0, 1]


def test_reasoning_comes_through(asker: Asker) -> None:
    """Fields that the dialect's makers do not know, such as reasoning, reach the caller."""
    message = asker.whole(model="thinks", messages=QUESTION).choices[0].message
    assert message.content == "So it is."
    assert message.model_extra is not None
    assert message.model_extra["reasoning_content"] == "First this, then that."


def test_unknown_fields_go_through(record: Recorder, asker: Asker) -> None:
    """A field that nobody knows reaches the provider unchanged, and nothing is added but the model's name."""
    extra = {"top_k": 7, "guided": {"regex": "[a-z]+\\d", "deep": [1, [2.5, None, True]]}, "seed": -1}
    asker.whole(model="kept", messages=QUESTION, temperature=0.25, extra_body=extra)
    assert record.last.json == {
        "messages": QUESTION,
        "model": "upstream-name",
        "temperature": 0.25,
        **extra,
    }


def test_stream_adds_only_the_wish_for_usage(record: Recorder, asker: Asker) -> None:
    """A stream is asked for its usage upstream; what the caller said beside that stays."""
    asker.stream(model="kept", messages=QUESTION, stream_options={"include_obfuscation": False})
    assert record.last.json == {
        "messages": QUESTION,
        "model": "upstream-name",
        "stream": True,
        "stream_options": {"include_obfuscation": False, "include_usage": True},
    }


# Usage in streams.


def test_usage_chunk_is_withheld(asker: Asker) -> None:
    """A caller that did not ask for usage gets no chunk for it: no chunk is without a choice."""
    chunks = asker.stream(model="good", messages=QUESTION)
    assert all(piece.choices for piece in chunks)
    assert all(piece.usage is None for piece in chunks)


def test_usage_chunk_has_its_cost(asker: Asker) -> None:
    """A caller that asked gets the usage as the last chunk, with the cost in USD."""
    chunks = asker.stream(model="good", messages=QUESTION, stream_options={"include_usage": True})
    last = chunks[-1]
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.completion_tokens == 12
    cost = last.usage.model_dump()["cost"]
    assert cost == pytest.approx((last.usage.prompt_tokens + 24) / 1e6)
    assert all(piece.usage is None for piece in chunks[:-1])


# Models.


def test_models(client: OpenAI) -> None:
    """The list names every model of the settings, and one is found by its name, slashes and all."""
    names = [model.id for model in client.models.list()]
    assert {"good", "org/good-7b", "kept"} <= set(names)
    found = client.models.retrieve("org/good-7b")
    assert found.id == "org/good-7b"
    assert found.model_dump()["tiers"] == ["hosted", "private"]
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("org/none")


def test_provider_and_upstream_name_is_a_model(asker: Asker, mock: MockProcess) -> None:
    """`provider/upstream-name` is a model without being listed, slashes in the upstream's name included."""
    asker.whole(model="main/deepseek-ai/Unlisted-V9", messages=QUESTION)
    assert calls_of(mock, "deepseek-ai/Unlisted-V9")


def test_model_with_slashes(asker: Asker, mock: MockProcess) -> None:
    """A model whose own name has slashes goes to its target's name."""
    reply = asker.whole(model="org/good-7b", messages=QUESTION)
    assert reply.model == "org/good-7b"
    assert calls_of(mock, "org/good-7b")


def test_headers_say_where_it_was_answered(client: OpenAI, gateway: GatewayProcess) -> None:
    """Target, tier, attempts, cost and the call's id stand in the headers; the log has the same id."""
    raw = client.chat.completions.with_raw_response.create(model="good", messages=QUESTION)
    reply = raw.parse()
    assert raw.headers["x-tiergate-target"] == "main/good"
    assert raw.headers["x-tiergate-tier"] == "hosted"
    assert raw.headers["x-tiergate-attempts"] == "1"
    assert reply.usage is not None
    assert float(raw.headers["x-tiergate-cost-usd"]) == reply.usage.model_dump()["cost"]
    line = gateway.log_of(raw.headers["x-request-id"])
    assert (line["end"], line["key"], line["team"], line["target"]) == ("success", "flow", "web", "main/good")
    assert line["output_tokens"] == 12


# Errors.


@pytest.mark.parametrize(
    ("model", "kind", "code"),
    [
        ("rejects", openai.BadRequestError, "bad_stop"),
        ("throttles", openai.RateLimitError, "rate_limit_exceeded"),
        ("fails", openai.InternalServerError, "upstream_fault"),
        ("overloaded", openai.InternalServerError, "upstream_fault"),
        ("unauthorized", openai.InternalServerError, "upstream_auth_failed"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_error_class_and_no_retry(
    client: OpenAI,
    mock: MockProcess,
    model: str,
    kind: type[openai.APIStatusError],
    code: str,
    *,
    streamed: bool,
) -> None:
    """The client raises the class that belongs to the failure, and does not try again what we tried."""
    before = len(calls_of(mock, model))
    with pytest.raises(kind) as raised:
        client.chat.completions.create(model=model, messages=QUESTION, stream=streamed)
    assert type(raised.value) is kind
    assert raised.value.code == code
    assert raised.value.response.headers["x-should-retry"] == "false"
    made = len(calls_of(mock, model)) - before
    assert made == 1 if model in ("rejects", "throttles", "unauthorized") else 1 <= made <= 3


def test_rejected_request_says_why(client: OpenAI) -> None:
    """A request that the provider rejects comes back with the provider's reason and field."""
    with pytest.raises(openai.BadRequestError, match="Too many stops") as raised:
        client.chat.completions.create(model="rejects", messages=QUESTION)
    assert raised.value.param == "stop"


def test_throttled_call_says_how_long(client: OpenAI) -> None:
    """A provider's wait is passed on, in both headers."""
    with pytest.raises(openai.RateLimitError) as raised:
        client.chat.completions.create(model="throttles", messages=QUESTION)
    headers = raised.value.response.headers
    assert (headers["retry-after"], headers["retry-after-ms"]) == ("9", "9000")


def test_bad_request_of_our_own(asker: Asker) -> None:
    """What the gateway itself refuses is the same class, with the field."""
    with pytest.raises(openai.BadRequestError, match="max_tokens") as raised:
        asker.whole(model="good", messages=QUESTION, max_tokens=0)
    assert raised.value.param == "max_tokens"


def test_wrong_key(gateway: GatewayProcess) -> None:
    """A key that is not known raises the client's own class for it, at once."""
    with OpenAI(base_url=gateway.base_url, api_key="wrong") as stranger:
        with pytest.raises(openai.AuthenticationError) as raised:
            stranger.chat.completions.create(model="good", messages=QUESTION)
        assert raised.value.code == "invalid_api_key"
        with pytest.raises(openai.AuthenticationError):
            stranger.models.list()


def test_unknown_model_lists_the_known(asker: Asker) -> None:
    """An unknown model is a 404 that names those there are."""
    with pytest.raises(openai.NotFoundError, match=r"org/good-7b") as raised:
        asker.whole(model="gone", messages=QUESTION)
    assert raised.value.code == "model_not_found"


def test_private_only_call_without_private_target(client: OpenAI, mock: MockProcess) -> None:
    """A private-only call never leaves for a hosted tier, though nothing else is left."""
    before = len(calls_of(mock, "good"))
    with pytest.raises(openai.BadRequestError, match="'good' has no private target") as raised:
        client.chat.completions.create(
            model="good", messages=QUESTION, extra_headers={"x-tiergate-data": "private-only"}
        )
    assert (raised.value.code, raised.value.param) == ("invalid_request", "model")
    assert len(calls_of(mock, "good")) == before


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_the_clients_own_patience_is_honoured(
    gateway: GatewayProcess, mock: MockProcess, *, streamed: bool
) -> None:
    """A provider that never answers is a 504 before the client's own time-out, which it announces."""
    before = len(calls_of(mock, "silent"))
    with (
        OpenAI(base_url=gateway.base_url, api_key=KEY, timeout=2.0) as hasty,
        pytest.raises(openai.InternalServerError) as raised,
    ):
        hasty.chat.completions.create(model="silent", messages=QUESTION, stream=streamed)
    assert raised.value.status_code == 504
    assert raised.value.code == "upstream_timeout"
    (call,) = calls_of(mock, "silent")[before:]
    # The provider notices a moment after the client was told.
    until(lambda: calls_of(mock, "silent")[before]["ended"] == "aborted", what=f"the end of {call['number']}")


def test_incomplete_stream_raises(client: OpenAI) -> None:
    """A stream that ends without saying that it is complete raises; nobody takes it for an answer."""
    stream = client.chat.completions.create(model="cut", messages=QUESTION, stream=True)
    assert next(stream).choices
    with pytest.raises(openai.APIError) as raised:
        list(stream)
    assert raised.value.code == "upstream_protocol_error"


# Time.


def test_each_piece_leaves_when_it_arrives(client: OpenAI, record: Recorder) -> None:
    """The provider says the next word only after the caller has read the one before: nothing is held back."""
    read = threading.Semaphore(0)

    def play(seen: Seen, wire: Wire) -> None:
        wire.begin_stream()
        for word in ("one", "two", "three"):
            wire.event(chunk(word))
            if not read.acquire(timeout=5):
                return
        wire.event(chunk("", finish="stop"))
        wire.end_stream()

    record.play = play
    heard = []
    for piece in client.chat.completions.create(model="kept", messages=QUESTION, stream=True):
        if piece.choices[0].delta.content:
            heard.append(piece.choices[0].delta.content)
            read.release()
    assert heard == ["one", "two", "three"]


def test_end_of_a_stream_does_not_wait_for_the_connection(client: OpenAI, record: Recorder) -> None:
    """The answer is over with its marker, though the provider never ends the body."""

    def play(seen: Seen, wire: Wire) -> None:
        wire.begin_stream()
        wire.event(chunk("word"))
        wire.event(chunk("", finish="stop"))
        wire.event(b"[DONE]")
        assert wire.has_left(5)

    record.play = play
    chunks = list(client.chat.completions.create(model="kept", messages=QUESTION, stream=True))
    assert said(chunks) == "word"


# Leaving.


def aborted_at(mock: MockProcess, before: int) -> float:
    """Wait until the provider's call was aborted; give the time of day when it was."""

    def look() -> float | None:
        call = calls_of(mock, "slow")[before]
        assert call["ended"] in ("in_flight", "aborted")
        return call["at_s"] + call["elapsed_ms"] / 1e3 if call["ended"] == "aborted" else None

    return until(look, what="the abort")


def test_leaving_a_stream_frees_the_provider(
    client: OpenAI, gateway: GatewayProcess, mock: MockProcess
) -> None:
    """A caller that stops reading and leaves is noticed within a second, and the books say who left."""
    before = len(calls_of(mock, "slow"))
    stream = client.chat.completions.create(model="slow", messages=QUESTION, stream=True)
    next(stream)
    call_id = stream.response.headers["x-request-id"]
    stream.close()
    left = time.time()
    assert aborted_at(mock, before) - left < 1.0
    line = gateway.log_of(call_id)
    assert (line["end"], line["error"], line["streamed"]) == ("client_closed", None, True)


def leave_early(base_url: str) -> float:
    """Ask, and be cancelled before anything has arrived; give the time of day."""

    async def run() -> float:
        async with AsyncOpenAI(base_url=base_url, api_key=KEY) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.4):
                    await client.chat.completions.create(model="slow", messages=QUESTION)
            return time.time()

    return asyncio.run(run())


def test_leaving_before_the_answer_frees_the_provider(gateway: GatewayProcess, mock: MockProcess) -> None:
    """A call that is not streamed is given up within a second after its caller left."""
    before = len(calls_of(mock, "slow"))
    known = {line["call"] for line in gateway.log() if line["event"] == "call"}
    left = leave_early(gateway.base_url)
    assert aborted_at(mock, before) - left < 1.0

    def look() -> dict[str, Any] | None:
        lines = [line for line in gateway.log() if line["event"] == "call" and line["call"] not in known]
        return lines[0] if lines else None

    line = until(look, what="the call's line")
    assert (line["end"], line["streamed"], line["model"]) == ("client_closed", False, "slow")


def test_the_streams_own_bytes(gateway: GatewayProcess) -> None:
    """On the wire: headers that keep proxies from holding it back, events, the marker, and a proper end."""
    answer = plain_ask(
        gateway.port,
        "/v1/chat/completions",
        {"model": "good", "messages": QUESTION, "stream": True},
        headers=[bearer(KEY)],
    )
    assert answer.status == 200
    assert answer.header("content-type") == "text/event-stream; charset=utf-8"
    assert answer.header("cache-control") == "no-cache"
    assert answer.header("x-accel-buffering") == "no"
    assert answer.events[-1] == "[DONE]"
    assert answer.whole


def test_one_connection_carries_many_calls(gateway: GatewayProcess) -> None:
    """After a whole stream the connection may be used again."""
    body = {"model": "good", "messages": QUESTION, "stream": True}
    with asking(gateway.port, "/v1/chat/completions", body, headers=[bearer(KEY)]) as connection:
        connection.read_until(b"\r\n0\r\n\r\n")
        first = read_answer(connection.received)
        connection.received = b""
        connection.send(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.read_answer().json == {"status": "live"}
    assert events_of(first.body)[-1] == "[DONE]"
