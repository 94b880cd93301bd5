"""The worst case of a call, before it is sent: what a hold sets aside.

A token is at least one byte of UTF-8, so bytes bound tokens of text from above; 16 tokens for each message
and 64 for the call cover what chat templates add. (A tokenizer that rewrites text first may make more of
it: by NFKC the three bytes of U+FDFA become 33. Usage above a bound is charged and told.) Bytes say nothing
about what an image, a sound or a file costs, so a call with one of them has no bound until the model's row
gives a maximum.
"""

from collections.abc import Mapping
from math import ceil
from typing import Any, Final

import msgspec

from tiergate.catalog import Price
from tiergate.core import Usage
from tiergate.metering.cash import dearest_nanos

_TOKENS_PER_MESSAGE: Final = 16
_TOKENS_PER_CALL: Final = 64
_TOKENS_FOR_TOOLS: Final = 1_024
"""Providers put instructions of their own before tools: some hundred tokens, by Anthropic's documentation of
tool use. This leaves room."""

TOKENS_PER_S_MAX: Final = 5_000
"""No served stream is faster. The fastest public endpoints publish 2,000 to 3,000 output tokens a second
for one stream (wafer-scale and LPU providers, 2025); this leaves room, and bounds what a cut stream can have
generated."""


NANOS_MAX: Final = 10**15
"""A million dollars: no answer costs more, whatever `max_tokens` and `n` multiply to. No ledger can hold a
number of more than 64 bits, and thousands of these can still be added up."""


class Bound(msgspec.Struct, frozen=True, kw_only=True):
    """The most that a call can use and cost. None: cannot be bounded.

    Input that is not text has no bound, output without a limit has none, and without both or a price there is
    none in money.
    """

    input_tokens: int | None
    output_tokens: int | None
    nanos: int | None
    service_tier: str | None = None
    """The one that was asked for: it decides which tariffs can hold."""


def bound(
    body: Mapping[str, Any], *, prompt_bytes: int, output_tokens: int | None, choices: int, price: Price
) -> Bound:
    """Give the worst case of a call at a price.

    Args:
        body: the question; only its messages are counted.
        prompt_bytes: bytes of the question as it was sent, which is never less than the text in it.
        output_tokens: the limit for one choice, as asked or as the model has it; None: no limit is known.
        choices: how many choices were asked for.
        price: of the target.
    """
    tokens_in = _input_bound(body, prompt_bytes)
    tokens_out = None if output_tokens is None or _may_speak(body) else output_tokens * choices
    asked = body.get("service_tier")
    tier = asked if isinstance(asked, str) else None
    nanos = worst_nanos(tokens_in, tokens_out, price, service_tier=tier)
    return Bound(input_tokens=tokens_in, output_tokens=tokens_out, nanos=nanos, service_tier=tier)


def worst_nanos(
    tokens_in: int | None, tokens_out: int | None, price: Price, *, service_tier: str | None
) -> int | None:
    """Give what tokens can cost at most; None: nobody can tell."""
    nanos = dearest_nanos(tokens_in, tokens_out, price, service_tier=service_tier)
    return None if nanos is None else min(nanos, NANOS_MAX)


def bounded_usage(bound: Bound, *, elapsed_s: float, choices: int) -> Usage:
    """Give the most that an attempt can have used that was cut after `elapsed_s` without a report."""
    possible = ceil((elapsed_s + 1) * TOKENS_PER_S_MAX) * choices
    most = possible if bound.output_tokens is None else min(bound.output_tokens, possible)
    return Usage(input=bound.input_tokens or 0, output=most)


def holds_only_text(body: Mapping[str, Any]) -> bool:
    """Tell whether a question's bytes tell its size: no picture, sound, file or search."""
    return _input_bound(body, 0) is not None


def _input_bound(body: Mapping[str, Any], prompt_bytes: int) -> int | None:
    if body.get("web_search_options") is not None or body.get("plugins"):
        return None  # what is found goes in, too, and the search has a fee
    tools = body.get("tools")
    if isinstance(tools, list) and not all(map(_runs_here, tools)):
        return None
    messages = body.get("messages")
    if not isinstance(messages, list):
        messages = [messages]
    for message in messages:
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list) and not all(map(_is_text, content)):
            return None
        if isinstance(message, dict) and message.get("audio") is not None:
            return None  # an earlier spoken answer, named by its id
    for_tools = _TOKENS_FOR_TOOLS if tools or body.get("functions") else 0
    return prompt_bytes + _TOKENS_PER_MESSAGE * len(messages) + _TOKENS_PER_CALL + for_tools


def _is_text(part: object) -> bool:
    return isinstance(part, dict) and part.get("type") in ("text", "refusal")


def _runs_here(tool: object) -> bool:
    # Whatever is neither of these (a search, a code runner) runs at the provider, and its results are input.
    return isinstance(tool, dict) and tool.get("type", "function") in ("function", "custom")


def _may_speak(body: Mapping[str, Any]) -> bool:
    # Audio is charged by seconds that become tokens; `max_tokens` counts them at some providers only.
    modalities = body.get("modalities")
    return body.get("audio") is not None or (isinstance(modalities, list) and "audio" in modalities)
