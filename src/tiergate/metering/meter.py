"""The meter of one attempt: folds its chunks into a usage, and knows the account at every moment."""

import msgspec

from tiergate.catalog import Price, PriceState
from tiergate.core import NOTHING, Chunk, Usage, UsageSource
from tiergate.metering.bound import Bound, bounded_usage, worst_nanos
from tiergate.metering.cash import cash_nanos
from tiergate.metering.rough import BYTES_PER_TOKEN


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """What an attempt used and cost, and how well that is known."""

    usage: Usage
    source: UsageSource
    cash_nanos: int | None


class Meter:
    """Reads the chunks of one attempt as they pass. `sent_ns`: when it was sent, nanoseconds since 1970."""

    def __init__(self, *, bound: Bound, price: Price, choices: int, sent_ns: int = 0) -> None:
        self._bound = bound
        self._sent_ns = sent_ns
        self._price = price
        self._choices = choices
        self._reported: Usage | None = None
        self._is_last_word = False
        """Whether all choices had ended when the report came."""
        self._went_on = False
        """Whether more of the answer came after the report."""
        self.is_odd = False
        """Whether the last report could not be read."""
        self.upstream_cost_nanos: int | None = None
        """What the provider itself says it costs, where it says so."""
        self.service_tier: str | None = None
        """The one that the provider says it has used."""
        self._text_bytes = 0
        self._pieces = 0
        """Chunks with content; each is a token at least."""
        self.finish: tuple[str, ...] = ()
        """Finish reasons so far."""

    def take(self, chunk: Chunk) -> None:
        """Count one chunk. A later report replaces an earlier one: reports are cumulative."""
        if chunk.finish:
            self.finish += chunk.finish
        if chunk.usage is not None or chunk.odd_usage:
            self._reported, self.is_odd = chunk.usage, chunk.odd_usage
            self.upstream_cost_nanos = chunk.cost_nanos
            self._is_last_word, self._went_on = len(self.finish) >= self._choices, False
        elif chunk.text or (chunk.content and not chunk.finish):
            self._went_on = True
        if chunk.service_tier is not None:
            self.service_tier = chunk.service_tier
        self._text_bytes += len(chunk.text.encode())
        self._pieces += chunk.content

    def reported_cash_nanos(self, *, elapsed_s: float) -> int | None:
        """Give the cost of what was reported so far; None where nothing was, or the price is unknown."""
        return None if self._reported is None else self._cash(self._reported, elapsed_s)

    def delivered(self, *, elapsed_s: float) -> Account:
        """Give the account of a complete answer; a report before more of it came does not count."""
        if self._reported is not None and not self._went_on:
            return self._account(self._reported, UsageSource.REPORTED, elapsed_s)
        if self._price.state is PriceState.OWNED:
            return self._account(self._guess(), UsageSource.ESTIMATED, elapsed_s)
        return self._most(elapsed_s)

    def cut(self, *, elapsed_s: float) -> Account:
        """Give the account of an answer that broke off, or of a request that may have been answered.

        A report that came with or after the finish reasons is the provider's last word. An earlier one may
        have grown since, so the bound counts.
        """
        if self._reported is not None and self._is_last_word:
            return self._account(self._reported, UsageSource.REPORTED, elapsed_s)
        return self._most(elapsed_s)

    def rate_tokens(self, account: Account) -> int:
        """Give how many tokens of this attempt count for its caller's rate.

        Where nobody reported, what is charged is the most that can have been used, often many times what was:
        a caller that breaks off a few answers would be held off for minutes. So what was seen counts here.
        """
        if account.source is not UsageSource.BOUNDED:
            return account.usage.total_tokens
        seen = self._guess()
        return min(account.usage.total_tokens, seen.input + max(seen.output, self._pieces))

    def undelivered(self) -> Account:
        """Give the account of a request that never arrived, or was refused: nothing, at any price."""
        return Account(usage=NOTHING, source=UsageSource.NONE, cash_nanos=0)

    def _account(self, usage: Usage, source: UsageSource, elapsed_s: float) -> Account:
        return Account(usage=usage, source=source, cash_nanos=self._cash(usage, elapsed_s))

    def _cash(self, usage: Usage, elapsed_s: float) -> int | None:
        if self._price.cost_is_reported and self.upstream_cost_nanos is not None:
            return self.upstream_cost_nanos
        return self.priced_nanos(usage, elapsed_s=elapsed_s)

    def priced_nanos(self, usage: Usage, *, elapsed_s: float) -> int | None:
        """Give the cost of a usage by the price book, whatever the provider says; None: not known."""
        ended_ns = self._sent_ns + int(elapsed_s * 1e9)
        return cash_nanos(
            usage,
            self._price,
            service_tier=self.service_tier,
            sent_ns=self._sent_ns,
            ended_ns=ended_ns,
        )

    def _most(self, elapsed_s: float) -> Account:
        usage = bounded_usage(self._bound, elapsed_s=elapsed_s, choices=self._choices)
        tokens_in = None if self._bound.input_tokens is None else usage.input
        cash = worst_nanos(tokens_in, usage.output, self._price, service_tier=self._bound.service_tier)
        return Account(usage=usage, source=UsageSource.BOUNDED, cash_nanos=cash)

    def _guess(self) -> Usage:
        """Tell from lengths what was used; good enough where nothing is invoiced by it."""
        prompt = (self._bound.input_tokens or 0) // BYTES_PER_TOKEN
        return Usage(input=prompt, output=-(-self._text_bytes // BYTES_PER_TOKEN))
