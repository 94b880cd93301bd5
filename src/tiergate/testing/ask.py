"""What a client asked, as far as the mock cares."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from tiergate.core import InvalidRequest
from tiergate.testing.words import IMAGE_TOKENS, text_tokens

_MARKER: Final = re.compile(r"\s*\[\[mock:(.*?)\]\]\s*", re.DOTALL)
_CHOICES_MAX: Final = 128
TOKENS_MAX: Final = 1_000_000
"""Where a request sets no limit of its output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A chat completion that was asked for."""

    model: str
    streamed: bool
    choices: int
    tokens_max: int
    """Of output, for each choice."""
    wants_usage: bool
    wants_json: bool
    schema: Mapping[str, Any] | None
    """What the JSON must look like, if the request said so."""
    wants_logprobs: bool
    top_logprobs: int
    forced_tool: tuple[str, Mapping[str, Any]] | None
    """A tool that must be called: its name and the schema of its arguments."""
    text: str
    """The last user message, without a marker."""
    wish: str | None
    """What stood in the marker `[[mock: …]]` at the start of that message."""
    prompt_tokens: int


def read_ask(body: bytes) -> Ask:
    """Read the body of a request.

    Raises:
        InvalidRequest: it is no chat completion; `param` names the field.
    """
    try:
        return _ask(_decode(body))
    except msgspec.ValidationError as error:
        raise _invalid(error) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"The body is not JSON: {error}") from error


def ask_of(body: Mapping[str, Any]) -> Ask:
    """Read a body that is already an object; see `read_ask`."""
    try:
        return _ask(msgspec.convert(body, _Wire))
    except msgspec.ValidationError as error:
        raise _invalid(error) from error


class _Part(msgspec.Struct):
    type: str = "text"
    text: str | None = None


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Part] | None = None


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Wire(msgspec.Struct):
    model: str
    messages: list[_Message]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    n: int | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None


_decode: Final = msgspec.json.Decoder(_Wire).decode


def _ask(wire: _Wire) -> Ask:
    limit = wire.max_completion_tokens if wire.max_completion_tokens is not None else wire.max_tokens
    text, wish = _wish_and_text(wire.messages)
    form = wire.response_format or {}
    return Ask(
        model=wire.model,
        streamed=bool(wire.stream),
        choices=_within(1, 1 if wire.n is None else wire.n, _CHOICES_MAX, "n"),
        tokens_max=TOKENS_MAX if limit is None else _within(1, limit, TOKENS_MAX, "max_tokens"),
        wants_usage=bool(wire.stream_options and wire.stream_options.include_usage),
        wants_json=form.get("type") in ("json_object", "json_schema"),
        schema=_inside(form, "json_schema", "schema"),
        wants_logprobs=bool(wire.logprobs),
        top_logprobs=_within(0, wire.top_logprobs or 0, 20, "top_logprobs"),
        forced_tool=_forced_tool(wire) if wire.tools else None,
        text=text,
        wish=wish,
        prompt_tokens=_prompt_tokens(wire.messages),
    )


def _wish_and_text(messages: list[_Message]) -> tuple[str, str | None]:
    text = next((_text(message) for message in reversed(messages) if message.role == "user"), "")
    if "[[mock:" in text[:100] and (marker := _MARKER.match(text)) is not None:
        return text[marker.end() :], marker[1]
    return text, None


def _text(message: _Message) -> str:
    if isinstance(message.content, str):
        return message.content
    return "".join(part.text or "" for part in message.content or ())


def _prompt_tokens(messages: list[_Message]) -> int:
    size = images = 0
    for message in messages:
        content = message.content
        if isinstance(content, str):
            size += len(content) if content.isascii() else len(content.encode())
        else:
            size += len(_text(message).encode())
            images += sum(part.type == "image_url" for part in content or ())
    return max(1, text_tokens(size) + images * IMAGE_TOKENS)


def _forced_tool(wire: _Wire) -> tuple[str, Mapping[str, Any]] | None:
    functions = [tool["function"] for tool in wire.tools or () if isinstance(tool.get("function"), dict)]
    if wire.tool_choice == "required":
        chosen = functions[:1]
    else:
        wanted = _inside(wire.tool_choice, "function") or {}
        chosen = [function for function in functions if function.get("name") == wanted.get("name")]
    if not chosen:
        return None
    return str(chosen[0].get("name")), _inside(chosen[0], "parameters") or {}


def _inside(value: object, *path: str) -> Mapping[str, Any] | None:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else None


def _within(low: int, value: int, high: int, name: str) -> int:
    if not low <= value <= high:
        raise InvalidRequest(f"`{name}` must be between {low} and {high}.", param=name)
    return value


def _invalid(error: msgspec.ValidationError) -> InvalidRequest:
    # "Expected `str`, got `int` - at `$.messages[0].role`"; no place: the object itself.
    message, _, place = str(error).partition(" - at `$")
    return InvalidRequest(str(error), param=place.strip(".`") or _missing(message))


def _missing(message: str) -> str | None:
    found = re.search(r"missing required field `(\w+)`", message)
    return found[1] if found else None
