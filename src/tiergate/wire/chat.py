"""OpenAI chat completions: the question read and rendered, replies and chunks read.

A field that we do not know goes through unchanged, in both directions. What is read here is only what
policy, money and completeness need.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from tiergate.core import Chunk, InvalidRequest
from tiergate.core import UpstreamProtocolError as ProtocolError
from tiergate.wire.errors import ErrorBody, error_of
from tiergate.wire.jsontext import dumps, loads, read_object
from tiergate.wire.usage import UsageReport, read_cost_nanos, read_usage


class ChatQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """A chat completion that was asked for. `body` is the whole of it, and what will be forwarded."""

    body: Mapping[str, Any]
    model: str
    streamed: bool
    wants_usage: bool
    """The client asked for the usage chunk of a stream."""


MODEL_NAME_MAX: Final = 256
"""It is written into every record of its call."""


def read_chat(data: bytes) -> ChatQuestion:
    """Read and check the body of `POST /v1/chat/completions`.

    Raises:
        InvalidRequest: not JSON, or a field that we must understand is wrong; `param` names it.
    """
    return chat_question(read_object(data))


def read_plain_chat(data: bytes) -> ChatQuestion:
    """Read and check the body of `POST /v1/chat/stream`, which always streams.

    Raises:
        InvalidRequest: as `read_chat`; also where the body's `stream` says anything but true.
    """
    body = read_object(data)
    stream = body.get("stream")
    if stream is not None and stream is not True:
        raise InvalidRequest("/v1/chat/stream always streams; remove `stream`.", param="stream")
    return chat_question({**body, "stream": True})


def chat_question(body: Mapping[str, Any]) -> ChatQuestion:
    """Check the body of a chat completion that was read already.

    Raises:
        InvalidRequest: a field that we must understand is wrong; `param` names it.
    """
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise InvalidRequest("`model` must be the name of a model; GET /v1/models lists them.", param="model")
    if "\0" in model:
        # No text of PostgreSQL has one, and the record would have to be written apart from all others.
        raise InvalidRequest("`model` has a NUL character in it, as no name has.", param="model")
    if len(model) > MODEL_NAME_MAX:
        raise InvalidRequest(f"`model` is longer than {MODEL_NAME_MAX} characters.", param="model")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise InvalidRequest("`messages` must be a list with at least one message.", param="messages")
    if not all(isinstance(message, dict) for message in messages):
        raise InvalidRequest("Each of `messages` must be an object with a role.", param="messages")
    stream = body.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise InvalidRequest("`stream` must be true or false.", param="stream")
    options = body.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise InvalidRequest("`stream_options` must be an object.", param="stream_options")
    if options is not None and not stream:
        raise InvalidRequest("`stream_options` is only allowed with `stream: true`.", param="stream_options")
    for name in ("max_tokens", "max_completion_tokens", "n"):
        _check_count(body, name)
    for name in _ROUTES_ELSEWHERE:
        if body.get(name) is not None:
            raise InvalidRequest(
                f"`{name}` lets a provider answer with another model than the one that was routed and paid "
                "for here. Leave it out; the targets of a model in the settings do that.",
                param=name,
            )
    return ChatQuestion(
        body=body,
        model=model,
        streamed=bool(stream),
        wants_usage=bool(options and options.get("include_usage")),
    )


def render_chat(
    body: Mapping[str, Any], model: str, streamed: bool, *, takes_stream_options: bool = True
) -> bytes:
    """Write the question for a target: its model name, and in streams the wish for usage; nothing else.

    A provider that refuses `stream_options` reports usage by itself, and is not sent a client's either.
    """
    sent = {**body, "model": model}
    if streamed and takes_stream_options:
        sent["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
    elif streamed:
        sent.pop("stream_options", None)
    return dumps(sent)


def output_tokens_asked(body: Mapping[str, Any]) -> int | None:
    """Give the limit of output tokens that the caller set for one choice, if it set one.

    Of two different limits the larger counts: some servers know only one of the fields.
    """
    limits = [body.get(name) for name in ("max_completion_tokens", "max_tokens")]
    return max((limit for limit in limits if type(limit) is int), default=None)


def choices_asked(body: Mapping[str, Any]) -> int:
    """Give the number of choices asked for."""
    n = body.get("n")
    return n if type(n) is int else 1


def _check_count(body: Mapping[str, Any], name: str) -> None:
    # These three decide what a call may cost, so policy must read them as the provider will.
    value = body.get(name)
    if value is not None and (type(value) is not int or not 1 <= value <= _COUNT_MAX):
        raise InvalidRequest(f"`{name}` must be a whole number of at least 1.", param=name)


_COUNT_MAX: Final = 10_000_000
_ROUTES_ELSEWHERE: Final = ("models", "fallbacks", "preset")
"""Providers that are routers themselves (OpenRouter's `models` and `preset`, LiteLLM's `fallbacks`) choose by
these: past a key's models, past a budget's worst case, and past private-only."""


# Replies. msgspec decodes straight into these, which costs half of building dictionaries. Servers that put
# something else into a field (a list of parts as content, say) are read by the lenient way below.


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[Any] | None = None
    function_call: Any = None
    audio: Any = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Delta | None = None
    message: _Delta | None = None
    finish_reason: str | None = None


class _Body(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: UsageReport | None = None
    error: Any = None
    service_tier: Any = None


_decode_body: Final = msgspec.json.Decoder(_Body).decode


class ErrorInStream(Exception):  # a step of reading, not an error that leaves this room
    """An event held an error object instead of a piece of the answer."""

    def __init__(self, error: ErrorBody) -> None:
        super().__init__("the upstream reported an error inside its answer")
        self.error = error


def read_chunk(data: bytes, ended: set[int] | None = None) -> Chunk:
    """Read one event of a streamed reply.

    Args:
        data: its JSON.
        ended: indices of the choices that ended before; those that end here are added. A finish reason that
            is said again is no new one.

    Raises:
        UpstreamProtocolError: it is not JSON, or no chunk of a chat completion.
        ErrorInStream: it holds an error object.
    """
    try:
        body = _decode_body(data)
    except msgspec.ValidationError:
        body = _read_leniently(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError("The upstream sent an event that is not JSON.") from error
    if body.error:
        raise ErrorInStream(error_of({"error": body.error}) or ErrorBody(None))
    if body.choices is None and body.usage is None:
        return _odd_event(data)
    return _chunk(data, body, set() if ended is None else ended)


def read_reply(data: bytes) -> Chunk:
    """Read a whole reply that was not streamed.

    Raises:
        UpstreamProtocolError: it is not JSON, or no chat completion.
        ErrorInStream: it is an error object, though the status said success.
    """
    try:
        body = _decode_body(data)
    except msgspec.ValidationError:
        body = _read_leniently(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError("The upstream answered with something that is not JSON.") from error
    if body.error:
        raise ErrorInStream(error_of({"error": body.error}) or ErrorBody(None))
    if not body.choices:
        raise ProtocolError("The upstream's answer holds no choices.")
    return _chunk(data, body, set())


def _chunk(data: bytes, body: _Body, ended: set[int]) -> Chunk:
    content, text = False, ""
    finish: tuple[str, ...] = ()
    for choice in body.choices or ():
        if choice.finish_reason is not None:
            content = True
            if choice.index not in ended:
                ended.add(choice.index)
                finish += (choice.finish_reason,)
        said = choice.delta or choice.message
        if said is None:
            continue
        if said.content:
            content = True
            if choice.index == 0:
                text += said.content
        elif not content:
            content = _says_something(said)
    report = body.usage
    if report is None and body.service_tier is None:
        return Chunk(data, content, text, finish)
    tier = body.service_tier
    usage = None if report is None else read_usage(report)
    return Chunk(
        data,
        content,
        text,
        finish,
        usage=usage,
        odd_usage=report is not None and usage is None and report != _EMPTY,
        bare_usage=not body.choices and report is not None,
        cost_nanos=None if report is None else read_cost_nanos(report),
        service_tier=tier[:_SERVICE_TIER_MAX] if isinstance(tier, str) else None,
    )


_SERVICE_TIER_MAX: Final = 32
_EMPTY: Final = UsageReport()


def _says_something(said: _Delta) -> bool:
    """Tell whether a delta without text carries anything else of an answer."""
    return bool(
        said.reasoning_content
        or said.reasoning
        or said.refusal
        or said.tool_calls
        or said.function_call
        or said.audio
    )


def _odd_event(data: bytes) -> Chunk:
    """Pass an event on that has neither choices nor usage, unless it is an error object without wrapper."""
    body = _object(data)
    if body.get("object") == "error":
        raise ErrorInStream(error_of(body) or ErrorBody(None))
    return Chunk(data)


def _read_leniently(data: bytes) -> _Body:
    """Read a body whose fields have other types than the dialect's, taking what can be understood."""
    body = _object(data)
    choices = body.get("choices")
    usage = body.get("usage")
    return _Body(
        choices=[_lenient_choice(choice) for choice in choices if isinstance(choice, dict)]
        if isinstance(choices, list)
        else None,
        usage=msgspec.convert(usage, UsageReport) if isinstance(usage, dict) else None,
        error=body.get("error"),
        service_tier=body.get("service_tier"),
    )


def _object(data: bytes) -> dict[str, Any]:
    try:
        body = loads(data)
    except ValueError as error:
        raise ProtocolError("The upstream sent something that is not JSON.") from error
    if not isinstance(body, dict):
        raise ProtocolError("The upstream sent JSON that is no chat completion.")
    return body


def _lenient_choice(choice: dict[str, Any]) -> _Choice:
    index, finish = choice.get("index"), choice.get("finish_reason")
    said = choice.get("delta") or choice.get("message")
    return _Choice(
        index=index if isinstance(index, int) else 0,
        delta=_lenient_delta(said) if isinstance(said, dict) else None,
        finish_reason=None if finish is None else str(finish),
    )


def _lenient_delta(said: dict[str, Any]) -> _Delta:
    content = said.get("content")
    if isinstance(content, list):
        content = "".join(
            part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)
        )
    words = {
        name: value if isinstance(value := said.get(name), str) else None
        for name in ("reasoning_content", "reasoning", "refusal")
    }
    tools = said.get("tool_calls")
    return _Delta(
        content=content if isinstance(content, str) else None,
        tool_calls=tools if isinstance(tools, list) else None,
        function_call=said.get("function_call"),
        audio=said.get("audio"),
        **words,
    )
