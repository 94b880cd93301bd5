"""Allowances: what one answer of a provider said of its own limits, in the provider's own count."""

import msgspec


class Allowance(msgspec.Struct, frozen=True, gc=False):
    """What was said of one rate; None: not said, or nonsense."""

    limit: float | None = None
    """Requests or tokens in its window, above 0."""
    remaining: float | None = None
    """What is left of it, everybody's use of the account counted."""
    reset_s: float | None = None
    """Seconds until all of it is there again."""
    comes_at_once: bool = False
    """All of it comes back at the reset and nothing before; otherwise it comes bit by bit."""


class Allowances(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What one answer said, by what is counted; None: nothing."""

    requests: Allowance | None = None
    tokens: Allowance | None = None
    """Input and output together."""
    input_tokens: Allowance | None = None
    output_tokens: Allowance | None = None
