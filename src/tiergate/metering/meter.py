"""The meter of one attempt: folds its chunks into a usage, and knows the account at every moment."""

from typing import Final

import msgspec

from tiergate.catalog import Price, PriceState
from tiergate.core import NOTHING, Chunk, Usage, UsageSource
from tiergate.metering.bound import Bound, bounded_usage
from tiergate.metering.cash import cash_nanos, dearest_nanos

_BYTES_PER_TOKEN: Final = 4
"""A rule of thumb for English text; used only where nothing is invoiced."""


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """What an attempt used and cost, and how well that is known."""

    usage: Usage
    source: UsageSource
    cash_nanos: int | None


class Meter:
    """Reads the chunks of one attempt as they pass."""

    def __init__(self, *, bound: Bound, price: Price, choices: int) -> None:
        self._bound = bound
        self._price = price
        self._choices = choices
        self._reported: Usage | None = None
        self._text_bytes = 0
        self.finish: tuple[str, ...] = ()
        """Finish reasons so far."""

    def take(self, chunk: Chunk) -> None:
        """Count one chunk. A later report replaces an earlier one: reports are cumulative."""
        if chunk.usage is not None:
            self._reported = chunk.usage
        if chunk.finish:
            self.finish += chunk.finish
        self._text_bytes += len(chunk.text.encode())

    @property
    def reported_cash_nanos(self) -> int | None:
        """The cost of what was reported so far; None where nothing was, or the price is unknown."""
        return None if self._reported is None else cash_nanos(self._reported, self._price)

    def delivered(self, *, elapsed_s: float) -> Account:
        """Give the account of a complete answer."""
        if self._reported is not None:
            return self._account(self._reported, UsageSource.REPORTED)
        if self._price.state is PriceState.OWNED:
            return self._account(self._guess(), UsageSource.ESTIMATED)
        return self._most(elapsed_s)

    def cut(self, *, elapsed_s: float) -> Account:
        """Give the account of an answer that broke off, or of a request that may have been answered.

        A report that came with or after the finish reasons is the provider's last word. An earlier one may
        have grown since, so the bound counts.
        """
        if self._reported is not None and len(self.finish) >= self._choices:
            return self._account(self._reported, UsageSource.REPORTED)
        return self._most(elapsed_s)

    def undelivered(self) -> Account:
        """Give the account of a request that never arrived, or was refused: nothing, at any price."""
        return Account(usage=NOTHING, source=UsageSource.NONE, cash_nanos=0)

    def _account(self, usage: Usage, source: UsageSource) -> Account:
        return Account(usage=usage, source=source, cash_nanos=cash_nanos(usage, self._price))

    def _most(self, elapsed_s: float) -> Account:
        usage = bounded_usage(self._bound, elapsed_s=elapsed_s, choices=self._choices)
        tokens_in = None if self._bound.input_tokens is None else usage.input
        cash = dearest_nanos(tokens_in, usage.output, self._price)
        return Account(usage=usage, source=UsageSource.BOUNDED, cash_nanos=cash)

    def _guess(self) -> Usage:
        prompt = (self._bound.input_tokens or 0) // _BYTES_PER_TOKEN
        return Usage(input=prompt, output=-(-self._text_bytes // _BYTES_PER_TOKEN))
