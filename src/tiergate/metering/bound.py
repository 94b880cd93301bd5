"""The worst case of a call, before it is sent: what a hold sets aside.

A token is at least one byte of UTF-8 in every tokenizer in use, so bytes bound tokens from above; 16 tokens
for each message and 64 for the call cover what chat templates add.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any, Final

from tiergate.catalog import Price
from tiergate.core import Usage
from tiergate.metering.cash import dearest_nanos

_TOKENS_PER_MESSAGE: Final = 16
_TOKENS_PER_CALL: Final = 64

TOKENS_PER_S_MAX: Final = 5_000
"""No served stream is faster. The fastest public endpoints publish 2,000 to 3,000 output tokens a second
for one stream (wafer-scale and LPU providers, 2025); this leaves room, and bounds what a cut stream can have
generated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """The most that a call can use and cost. None: cannot be bounded (no limit of output, or no price)."""

    input_tokens: int
    output_tokens: int | None
    nanos: int | None


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
    messages = body.get("messages")
    count = len(messages) if isinstance(messages, list) else 1
    tokens_in = prompt_bytes + _TOKENS_PER_MESSAGE * count + _TOKENS_PER_CALL
    tokens_out = None if output_tokens is None else output_tokens * choices
    nanos = dearest_nanos(tokens_in, tokens_out, price)
    return Bound(input_tokens=tokens_in, output_tokens=tokens_out, nanos=nanos)


def bounded_usage(bound: Bound, *, elapsed_s: float, choices: int) -> Usage:
    """Give the most that an attempt can have used that was cut after `elapsed_s` without a report."""
    possible = ceil((elapsed_s + 1) * TOKENS_PER_S_MAX) * choices
    most = possible if bound.output_tokens is None else min(bound.output_tokens, possible)
    return Usage(input=bound.input_tokens, output=most)
