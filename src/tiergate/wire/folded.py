"""A chat completion without the form in which it came: whole or in pieces, it is one answer afterwards.

Pieces are put together as the official clients do, with two differences. Only text is joined; a name or an id
that a provider repeats in each piece is said once. And nothing is dropped: what nobody has heard of stands in
the answer, so that the next turn of a conversation is the same whether its answer was kept or not.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from tiergate.wire.jsontext import dumps, loads

_JOINED: Final = frozenset(
    {
        *("content", "reasoning_content", "reasoning", "refusal", "arguments", "input", "text"),
        *("thinking", "summary"),
    }
)
"""Fields whose pieces are text that goes on."""
_OF_THE_FORM: Final = frozenset({"object", "choices", "usage", "obfuscation", "nonce"})
_OF_EACH: Final = frozenset({"id", "object", "created", "model", "system_fingerprint", "service_tier"})
_REPEATED: Final = frozenset({"role", "id", "name", "type", "format", "status"})
"""Fields that may be said again in each piece, also empty."""
_PIECE_CHARS: Final = 2_000
"""Longer text is sent in several pieces, so that no event is too long for anybody."""


class FoldedChoice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One of the answers: its message, why it ended, and its log probabilities."""

    index: int
    message: dict[str, Any]
    finish: str | None
    logprobs: Any = None
    more: dict[str, Any] = {}
    """What else stands beside the message."""


class FoldedAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A whole answer. `usage`: as the provider said it; `more`: what else was said, its id among that."""

    choices: tuple[FoldedChoice, ...]
    usage: dict[str, Any] | None = None
    more: dict[str, Any] = {}

    @property
    def text(self) -> str:
        """Visible text of the first choice."""
        content = self.choices[0].message.get("content") if self.choices else None
        return content if isinstance(content, str) else ""

    @property
    def finish(self) -> tuple[str, ...]:
        """Why each choice ended."""
        return tuple(choice.finish for choice in self.choices if choice.finish is not None)


def fold(events: Sequence[bytes]) -> FoldedAnswer | None:
    """Put an answer together: the one body of a whole reply, or all events of a stream.

    Returns None where it has a shape that is not known here; it is then given to its caller and not kept.
    """
    more: dict[str, Any] = {}
    usage: dict[str, Any] | None = None
    found: dict[int, dict[str, Any]] = {}
    for data in events:
        try:
            said = loads(data)
        except ValueError:
            return None
        if not isinstance(said, dict):
            return None
        more |= {
            name: value for name, value in said.items() if name not in _OF_THE_FORM and value is not None
        }
        usage = report if isinstance(report := said.get("usage"), dict) else usage
        told = said.get("choices")
        if not isinstance(told, list | None):
            return None
        for choice in told or ():
            if not isinstance(choice, dict) or type(choice.get("index", 0)) is not int:
                return None
            try:
                _take(found.setdefault(choice.get("index", 0), {}), choice)
            except _OddError:
                return None
    choices = [_choice(index, found[index]) for index in sorted(found)]
    if not choices or None in choices:
        return None
    known = tuple(choice for choice in choices if choice is not None)
    return FoldedAnswer(choices=known, usage=usage, more=more)


def write_whole(answer: FoldedAnswer) -> bytes:
    """Write it as the body of a reply that is not streamed."""
    choices = [
        {
            **choice.more,
            "index": choice.index,
            "message": choice.message,
            "logprobs": choice.logprobs,
            "finish_reason": choice.finish,
        }
        for choice in answer.choices
    ]
    body = {**answer.more, "object": "chat.completion", "choices": choices}
    return dumps(body if answer.usage is None else {**body, "usage": answer.usage})


def write_pieces(answer: FoldedAnswer) -> list[bytes]:
    """Write it as the events of a stream: of each choice its beginning, text and end; then the usage."""
    first = {**answer.more, "object": "chat.completion.chunk"}
    # What is in every piece of a live stream; the rest, which may be large, is said once.
    frame = {name: value for name, value in first.items() if name in _OF_EACH}
    events: list[bytes] = []
    for choice in answer.choices:
        for delta in _deltas(choice.message):
            events.append(dumps({**(frame if events else first), "choices": [_piece(choice, delta)]}))
        last = {**choice.more, **_piece(choice, {})}
        last |= {"logprobs": choice.logprobs, "finish_reason": choice.finish}
        events.append(dumps({**frame, "choices": [last]}))
    if answer.usage is not None:
        events.append(dumps({**frame, "choices": [], "usage": answer.usage}))
    return events


def _take(known: dict[str, Any], choice: Mapping[str, Any]) -> None:
    """Add a choice, or a piece of one, to what is known of it."""
    has_delta = isinstance(choice.get("delta"), dict)
    for name, value in choice.items():
        if name in ("delta", "message"):
            # Beside its pieces a provider may say all that it has said so far.
            if isinstance(value, dict) and (name == "delta" or not has_delta):
                _join(known.setdefault("message", {}), value)
        elif name == "logprobs" and isinstance(value, dict):
            _join(known.setdefault("logprobs", {}), value, extends=True)
        elif value is not None:
            known[name] = value


def _join(known: dict[str, Any], piece: Mapping[str, Any], *, extends: bool = False) -> None:
    """Add a piece to an object. `extends`: its lists go on, as those of log probabilities do."""
    for name, value in piece.items():
        before = known.get(name)
        if value is None:
            known.setdefault(name, None)
        elif isinstance(before, str) and isinstance(value, str) and name in _JOINED:
            known[name] = before + value
        elif isinstance(before, dict) and isinstance(value, dict):
            _join(before, value)
        elif _is_numbered(value) and (before is None or _is_numbered(before)):
            known[name] = _numbered(before or [], value)
        elif extends and isinstance(before, list) and isinstance(value, list):
            known[name] = before + value
        elif before in (None, "", []) or before == value or _is_plain(before, value):
            known[name] = value
        elif not (isinstance(before, str) and isinstance(value, str) and name in _REPEATED):
            raise _OddError
        elif value:
            known[name] = value


class _OddError(Exception):  # a step of folding, not an error that leaves this module
    """A piece that is something else than what was there: joined by guess, some of it would be lost."""


def _is_plain(before: object, value: object) -> bool:
    return isinstance(before, int | float) and isinstance(value, int | float)


def _is_numbered(value: object) -> bool:
    """Tell whether a list's elements say which of them they go on with, as pieces of tool calls do."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(one, dict) and type(one.get("index")) is int for one in value)
    )


def _numbered(before: Sequence[dict[str, Any]], pieces: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Let each piece go on with the element of its number."""
    known = {one["index"]: one for one in before}
    for piece in pieces:
        _join(known.setdefault(piece["index"], {}), piece)
    return [known[index] for index in sorted(known)]


def _choice(index: int, known: Mapping[str, Any]) -> FoldedChoice | None:
    message = known.get("message")
    finish = known.get("finish_reason")
    if not isinstance(message, dict) or not (finish is None or isinstance(finish, str)):
        return None
    named = ("index", "message", "finish_reason", "logprobs")
    return FoldedChoice(
        index=index,
        message={"role": "assistant", "content": None, **_without_numbers(message)},
        finish=finish,
        logprobs=known.get("logprobs"),
        more={name: value for name, value in known.items() if name not in named},
    )


def _without_numbers(message: Mapping[str, Any]) -> dict[str, Any]:
    """Take the numbers of pieces out of a list of tool calls: a whole message has none."""
    calls = message.get("tool_calls")
    if not _is_numbered(calls):
        return dict(message)
    assert isinstance(calls, list)
    return {**message, "tool_calls": [{k: v for k, v in call.items() if k != "index"} for call in calls]}


def _piece(choice: FoldedChoice, delta: Mapping[str, Any]) -> dict[str, Any]:
    return {"index": choice.index, "delta": delta, "logprobs": None, "finish_reason": None}


def _deltas(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Give the pieces of a message: the role, then text of bounded length, then everything else."""
    text = "" if isinstance(message.get("content"), str) else None
    first = {"role": message.get("role", "assistant"), "content": text}
    deltas: list[dict[str, Any]] = [first]
    rest: dict[str, Any] = {}
    for name, value in message.items():
        if name == "role":
            continue
        if name in _JOINED and isinstance(value, str):
            deltas += [{name: value[at : at + _PIECE_CHARS]} for at in range(0, len(value), _PIECE_CHARS)]
        elif name == "tool_calls" and isinstance(value, list):
            rest[name] = [
                {"index": index, **call} for index, call in enumerate(value) if isinstance(call, dict)
            ]
        elif value is not None:
            rest[name] = value
    return [*deltas, rest] if rest else deltas
