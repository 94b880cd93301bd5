"""A complete answer in OpenAI's words, whole or in events; what breaks it comes later, on the way out."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from zlib import crc32

import msgspec

from tiergate.testing.ask import Ask
from tiergate.testing.behaviour import Behaviour
from tiergate.testing.example import example
from tiergate.testing.words import passage, pieces

_encode: Final = msgspec.json.Encoder().encode
_CHOICE_STEP: Final = 977
"""Words between the passages of two choices of one answer."""


class Part(NamedTuple):
    """One event of a stream, and the token that it must wait for."""

    data: bytes
    choice: int
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What one choice says, token by token."""

    reasoning: tuple[str, ...]
    words: tuple[str, ...]
    tool: str | None
    arguments: tuple[str, ...]
    finish: str

    @property
    def tokens(self) -> int:
        """Output tokens: each piece, and one for the name of a tool."""
        return len(self.reasoning) + len(self.words) + (self.tool is not None) + len(self.arguments)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The whole answer to one request."""

    id: str
    created: int
    ask: Ask
    choices: tuple[Choice, ...]
    usage: Mapping[str, Any] | None
    logprobs: bool
    usage_on_finish: bool

    @property
    def tokens(self) -> int:
        """Output tokens of all choices."""
        return sum(choice.tokens for choice in self.choices)

    @property
    def events_before_finish(self) -> int:
        """Events of a stream up to the first finish reason."""
        return len(self.choices) + self.tokens

    def whole(self) -> bytes:
        """Give the answer as one object."""
        said: dict[str, Any] = {
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.ask.model,
            "choices": [self._whole_choice(place, choice) for place, choice in enumerate(self.choices)],
        }
        if self.usage is not None:
            said["usage"] = self.usage
        return _encode(said)

    def events(self) -> Iterator[Part]:
        """Give the answer as chunks: roles, tokens of all choices in turn, finish reasons, usage if asked."""
        for place in range(len(self.choices)):
            yield Part(self._chunk(place, {"role": "assistant", "content": ""}), place, 1)
        speakers = [(place, self._deltas(choice)) for place, choice in enumerate(self.choices)]
        number = 1
        while speakers:
            going_on = []
            for place, deltas in speakers:
                said = next(deltas, None)
                if said is not None:
                    yield Part(self._chunk(place, *said), place, number)
                    going_on.append((place, deltas))
            speakers = going_on
            number += 1
        for place, choice in enumerate(self.choices):
            yield Part(self._finish(place, choice), place, max(1, choice.tokens))
        if self.ask.wants_usage and self.usage is not None and not self.usage_on_finish:
            yield Part(_encode(self._event([], self.usage)), 0, 1)

    def _whole_choice(self, place: int, choice: Choice) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": "".join(choice.words)}
        if choice.reasoning:
            message["reasoning_content"] = "".join(choice.reasoning)
        if choice.tool is not None:
            message["content"] = None
            function = {"name": choice.tool, "arguments": "".join(choice.arguments)}
            message["tool_calls"] = [{"id": self._tool_id(), "type": "function", "function": function}]
        return {
            "index": place,
            "message": message,
            "logprobs": self._logprobs(choice.words) if self.logprobs else None,
            "finish_reason": choice.finish,
        }

    def _deltas(self, choice: Choice) -> Iterator[tuple[dict[str, Any], dict[str, Any] | None]]:
        for piece in choice.reasoning:
            yield {"reasoning_content": piece}, None
        for piece in choice.words:
            yield {"content": piece}, self._logprobs((piece,)) if self.logprobs else None
        if choice.tool is not None:
            function = {"name": choice.tool, "arguments": ""}
            first = {"index": 0, "id": self._tool_id(), "type": "function", "function": function}
            yield {"tool_calls": [first]}, None
        for piece in choice.arguments:
            yield {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}, None

    def _chunk(self, place: int, delta: dict[str, Any], logprobs: dict[str, Any] | None = None) -> bytes:
        choice = {"index": place, "delta": delta, "logprobs": logprobs, "finish_reason": None}
        return _encode(self._event([choice], None))

    def _finish(self, place: int, choice: Choice) -> bytes:
        ended = {"index": place, "delta": {}, "logprobs": None, "finish_reason": choice.finish}
        last = place == len(self.choices) - 1
        return _encode(self._event([ended], self.usage if self.usage_on_finish and last else None))

    def _event(self, choices: list[dict[str, Any]], usage: Mapping[str, Any] | None) -> dict[str, Any]:
        event: dict[str, Any] = {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.ask.model,
            "choices": choices,
        }
        if usage is not None:
            event["usage"] = usage
        elif self.ask.wants_usage and self.usage is not None:
            event["usage"] = None  # as OpenAI does on every chunk but the last, once usage was asked for
        return event

    def _tool_id(self) -> str:
        return "call_" + self.id.removeprefix("chatcmpl-")

    def _logprobs(self, words: tuple[str, ...]) -> dict[str, Any]:
        return {"content": [_logprob(word, self.ask.top_logprobs) for word in words], "refusal": None}


def compose(ask: Ask, behaviour: Behaviour, *, seed: int, id: str, created: int) -> Answer:  # noqa: A002 - the dialect's word
    """Compose the answer to a request. The same seed, model and question give the same words."""
    place = crc32(ask.text.encode(), crc32(ask.model.encode(), seed & 0xFFFFFFFF))
    choices = tuple(
        _choice(ask, behaviour, seed, place + index * _CHOICE_STEP) for index in range(ask.choices)
    )
    return Answer(
        id=id,
        created=created,
        ask=ask,
        choices=choices,
        usage=None if behaviour.no_usage else _usage(ask, behaviour, choices),
        logprobs=ask.wants_logprobs or behaviour.logprobs,
        usage_on_finish=behaviour.usage_on_finish,
    )


def _choice(ask: Ask, behaviour: Behaviour, seed: int, place: int) -> Choice:
    reasoning = pieces(behaviour.reasoning) if behaviour.reasoning else ()
    tool, arguments = _tool(ask, behaviour, seed, place)
    words = _words(ask, behaviour, seed, place) if tool is None else ()
    wanted = len(reasoning) + len(words) + (tool is not None) + len(arguments)
    left = ask.tokens_max
    own = "length" if wanted > left else "stop" if tool is None else "tool_calls"
    if wanted > left:
        reasoning = reasoning[:left]
        left -= len(reasoning)
        words = words[:left]
        tool, arguments = (tool, arguments[: left - 1]) if left else (None, ())
    finish = behaviour.finish_reason or own
    return Choice(reasoning=reasoning, words=words, tool=tool, arguments=arguments, finish=finish)


def _tool(ask: Ask, behaviour: Behaviour, seed: int, place: int) -> tuple[str | None, tuple[str, ...]]:
    if (scripted := behaviour.tool_call) is not None:
        name, given = scripted.name, scripted.arguments
    elif ask.forced_tool is not None:
        name, schema = ask.forced_tool
        given = example({"type": "object", **schema}, "".join(passage(seed, place, 2)))
    else:
        return None, ()
    return name, pieces(given if isinstance(given, str) else _json_text(given))


def _words(ask: Ask, behaviour: Behaviour, seed: int, place: int) -> tuple[str, ...]:
    if behaviour.reply is not None:
        return pieces(behaviour.reply)
    if behaviour.echo:
        return pieces(ask.text)
    low, high = behaviour.words if isinstance(behaviour.words, tuple) else (behaviour.words,) * 2
    words = passage(seed, place, low + place % (high - low + 1) if high > low else low)
    if not (ask.wants_json or behaviour.json_mode):
        return words
    said = "".join(words)
    return pieces(_json_text({"answer": said} if ask.schema is None else example(ask.schema, said)))


def _json_text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _usage(ask: Ask, behaviour: Behaviour, choices: tuple[Choice, ...]) -> Mapping[str, Any]:
    tokens = sum(choice.tokens for choice in choices)
    usage: dict[str, Any] = {
        "prompt_tokens": ask.prompt_tokens,
        "completion_tokens": tokens,
        "total_tokens": ask.prompt_tokens + tokens,
    }
    if behaviour.reasoning:
        thought = sum(len(choice.reasoning) for choice in choices)
        usage["completion_tokens_details"] = {"reasoning_tokens": thought}
    return usage if behaviour.usage is None else {**usage, **behaviour.usage}


def _logprob(word: str, alternatives: int) -> dict[str, Any]:
    # Plausible and always the same: 0 to -1 for the word itself, one less for each alternative.
    value = -(crc32(word.encode()) % 1_000) / 1_000
    ranked = [
        _ranked(f"{word}{rank}" if rank else word, value - rank) for rank in range(max(1, alternatives))
    ]
    return {**ranked[0], "top_logprobs": ranked[:alternatives]}


def _ranked(token: str, logprob: float) -> dict[str, Any]:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}
