"""The limits of keys in one process that shares them with nobody: exact, and nothing ever waits."""

from collections.abc import Callable, Mapping
from typing import Final

from msgspec.structs import replace

from tiergate.admission.limits import (
    NO_LIMITS,
    NOTHING_USED,
    Allowance,
    Hit,
    KeyLimits,
    Rates,
    Slip,
    allowance,
    hit,
)

_REMEMBERED: Final = 1_000
"""Keys whose rates are remembered before it is looked which of them have nothing to remember."""


class OwnLimits:
    """What keys have used, by name.

    Args:
        now_ns: reads a clock that never goes back.
        inside: calls inside, by key. Keys that have some are never forgotten.
    """

    def __init__(self, now_ns: Callable[[], int], inside: Mapping[str, int]) -> None:
        self._now_ns = now_ns
        self._inside = inside
        self._rates: dict[str, Rates] = {}
        self._look_at = _REMEMBERED

    async def bring(self, key: str, limits: KeyLimits, tokens: int) -> None:
        """Everything is here already."""

    def take(self, key: str, limits: KeyLimits, tokens: int) -> Slip | Hit | None:
        """Take a call and its tokens, or tell which limit keeps it out; then nothing is counted."""
        now_ns = self._now_ns()
        rates = self._rates_of(key, limits, now_ns)
        found = hit(limits, rates, inside=self._inside.get(key, 0), tokens=tokens)
        if found is not None:
            return found
        slip = None
        if limits.rpm is not None and rates.calls is not None:
            rates = replace(rates, calls=rates.calls.take(1))
        if limits.tpm is not None and rates.tokens is not None:
            bucket = rates.tokens.take(tokens)
            slip = Slip(taken_to=bucket.came, took=bucket.share(tokens))
            rates = replace(rates, tokens=bucket)
        self._remember(key, rates, now_ns)
        return slip

    def settle(self, key: str, slip: Slip, used: int) -> None:
        """Correct what a call took to what it used."""
        rates = self._rates[key]
        bucket = rates.tokens
        assert bucket is not None and slip.took is not None
        bucket = bucket.at(self._now_ns()).settle(taken_to=slip.taken_to, took=slip.took, used=used)
        self._rates[key] = replace(rates, tokens=bucket)

    def allowance(self, key: str, limits: KeyLimits) -> Allowance:
        """Tell what is left of a key's limits."""
        rates = self._rates_of(key, limits, self._now_ns())
        return allowance(limits, rates, inside=self._inside.get(key, 0))

    def _rates_of(self, key: str, limits: KeyLimits, now_ns: int) -> Rates:
        return self._rates.get(key, NOTHING_USED).at(limits, now_ns)

    def _remember(self, key: str, rates: Rates, now_ns: int) -> None:
        """Keep what a key has used; of many keys, those that are not at rest or have a call inside.

        Names that no key has any more are among them, so they are not kept for ever.
        """
        self._rates[key] = rates
        if len(self._rates) <= self._look_at:
            return
        for name, known in tuple(self._rates.items()):
            is_inside = name == key or name in self._inside
            if not is_inside and known.at(NO_LIMITS, now_ns).at_rest:
                del self._rates[name]
        self._look_at = max(_REMEMBERED, 2 * len(self._rates))
