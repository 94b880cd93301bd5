"""What a provider may be told so that its own prompt cache serves a caller well, and nobody else.

Both are hashes keyed with a secret of the tenant: they say that calls belong together, not whose they are. A
provider is told of neither unless its settings say so, and never in place of what the client itself sent.
"""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Final

from tiergate.wire import canonical


class Hint(StrEnum):
    """A field of the request beside the client's own."""

    CACHE_SALT = "cache_salt"
    """Of vLLM: prompts with another one share no blocks, so that no time tells whether a text was there."""
    PROMPT_CACHE_KEY = "prompt_cache_key"
    """Of OpenAI: calls with the same one go where the beginning of their prompt is likely to lie."""


Keyed = Callable[[bytes], bytes | None]
"""Gives the keyed hash of something, with the secret of a tenant; None: it has none yet."""

_DIGITS: Final = 32


def hints(body: Mapping[str, Any], wanted: frozenset[Hint], keyed: Keyed) -> dict[str, str]:
    """Give the fields that are added to a request: those that are wanted and that it does not have."""
    found: dict[str, str] = {}
    for hint in Hint:
        if hint in wanted and body.get(hint.value) is None:
            told = b"" if hint is Hint.CACHE_SALT else beginning(body)
            value = keyed(hint.value.encode() + b"\0" + told)
            if value is not None:
                found[hint.value] = value.hex()[:_DIGITS]
    return found


def beginning(body: Mapping[str, Any]) -> bytes:
    """Give what the turns of one conversation have in common: tools, and messages to the first of a user."""
    messages = body.get("messages")
    first: list[Any] = []
    for message in messages if isinstance(messages, list) else ():
        first.append(message)
        if isinstance(message, dict) and message.get("role") == "user":
            break
    return canonical([body.get("model"), body.get("tools"), first])
