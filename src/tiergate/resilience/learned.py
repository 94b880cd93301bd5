"""What a model at a provider may be asked per minute, as far as the provider's own answers say.

A wrong answer does little harm: nobody waits longer than by its own word a whole refill takes, and what
nobody has said again for five minutes is forgotten.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tiergate.core import Allowance, Allowances
from tiergate.rates import LearnedRate

FORGET_S: Final = 300.0
_REQUESTS: Final = "requests"
_TOKENS: Final = "tokens"
_INPUT: Final = "input_tokens"
_OUTPUT: Final = "output_tokens"
_FIRST_SHARES: Final = {_TOKENS: 1.0, _INPUT: 0.0, _OUTPUT: 0.0}
"""Before any answer is complete nobody knows how input and output compare: then one token left is enough."""
_WEIGHT: Final = 0.1
"""Of an answer in the mean of what answers use of the tokens that they may use."""
_SHARE_MAX: Final = 10.0
"""A call without `max_tokens` uses more than it asks for; so many times more at most."""


Entered = tuple[float, int, int]
"""When an attempt began: monotonic seconds, and what its model had been asked by then: requests, tokens.

One is made for every attempt, so it is a bare tuple.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLeft:
    """A learned rate now; a limit that was not said is None."""

    limit: float | None
    left: float


class LearnedRates:
    """The rates of one model. Empty until an answer has said something."""

    __slots__ = ("_heard_at", "_least_share", "_rates", "_shares")

    def __init__(self, now: float) -> None:
        self._rates: dict[str, LearnedRate] = {}
        self._heard_at = now
        self._shares = dict(_FIRST_SHARES)
        """What a call counts, of the tokens that it may use."""
        self._least_share = 0.0
        """The same, of a provider that counts more than is used."""

    @property
    def counts_tokens(self) -> bool:
        """Whether anything but requests was spoken of."""
        return len(self._rates) > (_REQUESTS in self._rates)

    def hear(self, said: Allowances, *, since: Entered, requests: int, tokens: float, now: float) -> None:
        """Take what the answer to a question says.

        Args:
            said: what it says.
            since: when its question began.
            requests: what the model has been asked until now.
            tokens: the same of tokens.
            now: monotonic seconds.
        """
        at, requests_then, tokens_then = since
        ago_s, taken = now - at, tokens - tokens_then
        self._hear(_REQUESTS, said.requests, requests - requests_then, ago_s, now)
        if said.input_tokens is None and said.output_tokens is None:
            self._hear(_TOKENS, said.tokens, taken * self._shares[_TOKENS], ago_s, now)
        else:
            # Who speaks of the two apart says of both together only which of them is the tighter one.
            self._hear(_INPUT, said.input_tokens, taken * self._shares[_INPUT], ago_s, now)
            self._hear(_OUTPUT, said.output_tokens, taken * self._shares[_OUTPUT], ago_s, now)

    def is_forgotten(self, now: float) -> bool:
        """Tell whether nothing was said for so long that nothing of it holds."""
        return now - self._heard_at >= FORGET_S

    def wait_s(self, tokens: int, now: float) -> float:
        """Give the time until one more request of so many tokens may be sent; 0: now."""
        wait_s = 0.0
        for name, rate in self._rates.items():
            wait_s = max(wait_s, rate.wait_s(self._amount(name, tokens), now))
        return min(wait_s, max(0.0, self._heard_at + FORGET_S - now))

    def take(self, tokens: int, now: float) -> None:
        """Count a request that may use so many tokens."""
        for name, rate in self._rates.items():
            rate.take(self._amount(name, tokens), now)

    def give_back(self, tokens: int) -> None:
        """Make good a request that was never sent."""
        for name, rate in self._rates.items():
            rate.give_back(self._amount(name, tokens))

    def was_good(self, *, took: int, used: int, output: int) -> None:
        """Take note of what a good answer used of the tokens that it might use; `output` is a part of it."""
        if took <= 0:
            return
        shares = self._shares
        for name, amount in ((_TOKENS, used), (_INPUT, used - output), (_OUTPUT, output)):
            if name in self._rates:
                shares[name] += _WEIGHT * (min(_SHARE_MAX, amount / took) - shares[name])
        shares[_TOKENS] = max(self._least_share, shares[_TOKENS])

    def was_refused(self, said: Allowances, *, took: int) -> None:
        """Take note that there was not enough for a request that might use `took` tokens.

        Where enough was left of all that was said, all that a request may use is counted, used or not.
        """
        requests, tokens = said.requests, said.tokens
        has_requests = requests is None or requests.remaining is None or requests.remaining >= 1
        if has_requests and tokens is not None and (tokens.remaining or 0.0) >= self._amount(_TOKENS, took):
            self._least_share = 1.0
            self._shares[_TOKENS] = max(1.0, self._shares[_TOKENS])

    def left(self, now: float) -> Mapping[str, RateLeft]:
        """Give what is left now, by what is counted; nothing once it is forgotten."""
        if self.is_forgotten(now):
            return {}
        return {
            name: RateLeft(limit=None if rate.limit == float("inf") else rate.limit, left=rate.left(now))
            for name, rate in self._rates.items()
            if rate.left(now) < float("inf")
        }

    def _hear(self, name: str, said: Allowance | None, taken: float, ago_s: float, now: float) -> None:
        if said is None or said.remaining is None:
            return
        rate = self._rates.get(name)
        if rate is None:
            rate = self._rates[name] = LearnedRate(is_exact=name == _REQUESTS)
        rate.hear(said, taken=taken, ago_s=ago_s, now=now)
        self._heard_at = now

    def _amount(self, name: str, tokens: int) -> float:
        return 1.0 if name == _REQUESTS else max(1.0, tokens * self._shares[name])
