"""The door: lets calls in within their keys' limits, and corrects what they took when they leave."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Final

from msgspec.structs import replace

from tiergate.admission.keys import Keyring
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
from tiergate.core import Caller, RateLimited

_REMEMBERED: Final = 1_000
"""Keys whose rates are remembered before it is looked which of them have nothing to remember."""
_PLACE_S: Final = 1.0
"""Nobody knows when a call inside ends; asked once a second, the door has little to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionStatistics:
    """Calls inside, by key."""

    inside: Mapping[str, int]


class Admission:
    """The door. `identify` says who; `enter` lets a call in and counts it until it leaves.

    What a key has used is known by its name, so it outlives a reload, a rotation and a revocation. It is of
    this process, and gone with it.
    """

    def __init__(self, keyring: Keyring, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._keyring = keyring
        self._monotonic = monotonic
        self._inside: dict[str, int] = {}
        self._rates: dict[str, Rates] = {}
        self._look_at = _REMEMBERED

    def use(self, keyring: Keyring) -> None:
        """Take another keyring; calls inside stay inside, and what was used stays used."""
        self._keyring = keyring

    def identify(self, credential: str | None) -> Caller:
        """Tell who presents this credential.

        Raises:
            InvalidKey: none was given, or none that we know.
        """
        return self._keyring.caller(credential)

    def enter(self, caller: Caller, tokens: Callable[[], int] = int) -> "Visitor":
        """Let a call in, until the context ends.

        Args:
            caller: whose it is.
            tokens: gives how many it may use; asked only where that counts.

        Raises, where the context begins:
            RateLimited: a limit of its key is reached; nothing was counted.
        """
        return Visitor(self._let_in, self._let_out, caller.key, tokens)

    def allowance(self, caller: Caller) -> Allowance | None:
        """Tell what a caller's key may do and what is left of it; None: it has no limits."""
        limits = self._keyring.limits.get(caller.key)
        if limits is None:
            return None
        rates = self._rates_of(caller.key, limits, self._now_ns())
        return allowance(limits, rates, inside=self._inside.get(caller.key, 0))

    def statistics(self) -> AdmissionStatistics:
        """Who is inside now."""
        return AdmissionStatistics(inside=dict(self._inside))

    def _let_in(self, key: str, tokens: Callable[[], int]) -> Slip | None:
        """Decide and count. Nothing waits in between, so many calls at once get no more than is left."""
        inside = self._inside.get(key, 0)
        limits = self._keyring.limits.get(key)
        slip = None if limits is None else self._take(key, limits, inside, tokens)
        self._inside[key] = inside + 1
        return slip

    def _take(self, key: str, limits: KeyLimits, inside: int, tokens: Callable[[], int]) -> Slip | None:
        asked = 0 if limits.tpm is None else tokens()
        now_ns = self._now_ns()
        rates = self._rates_of(key, limits, now_ns)
        found = hit(limits, rates, inside=inside, tokens=asked)
        if found is not None:
            raise _refusal(key, found, asked)
        slip = None
        if limits.rpm is not None and rates.calls is not None:
            rates = replace(rates, calls=rates.calls.take(1))
        if limits.tpm is not None and rates.tokens is not None:
            bucket = rates.tokens.take(asked)
            slip = Slip(taken_to=bucket.came, took=bucket.share(asked))
            rates = replace(rates, tokens=bucket)
        self._remember(key, rates, now_ns)
        return slip

    def _let_out(self, key: str, slip: Slip | None, used: int) -> None:
        if slip is not None:
            rates = self._rates[key]
            bucket = rates.tokens
            assert bucket is not None
            bucket = bucket.at(self._now_ns())
            bucket = bucket.settle(taken_to=slip.taken_to, took=slip.took, used=used)
            self._rates[key] = replace(rates, tokens=bucket)
        left = self._inside[key] - 1
        if left:
            self._inside[key] = left
        else:
            del self._inside[key]

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

    def _now_ns(self) -> int:
        return int(self._monotonic() * 1e9)


class Visitor:
    """A call at the door: inside while the context is open."""

    __slots__ = ("_key", "_let_in", "_let_out", "_slip", "_tokens", "_used")

    def __init__(
        self,
        let_in: Callable[[str, Callable[[], int]], Slip | None],
        let_out: Callable[[str, Slip | None, int], None],
        key: str,
        tokens: Callable[[], int],
    ) -> None:
        self._let_in = let_in
        self._let_out = let_out
        self._key = key
        self._tokens = tokens
        self._slip: Slip | None = None
        self._used = 0

    def count(self, tokens: int) -> None:
        """Add tokens that it has used; when it leaves, they stand for what it took."""
        self._used += tokens

    def __enter__(self) -> "Visitor":
        self._slip = self._let_in(self._key, self._tokens)
        return self

    def __exit__(self, *_: object) -> None:
        self._let_out(self._key, self._slip, self._used)


def _refusal(key: str, hit: Hit, asked: int) -> RateLimited:
    wait_s = _PLACE_S if hit.wait_ns is None else hit.wait_ns / 1e9
    again = "Try again in less than a second" if wait_s < 1 else f"Try again in {ceil(wait_s)} s"
    match hit.limit:
        case "concurrency":
            said = f"may have {_counted(hit.allowed, 'call')} inside at one time (concurrency), and has. "
            said += "Try again when one has ended."
        case "rpm":
            said = f"may make {_counted(hit.allowed, 'call')} a minute (rpm), and none is left. {again}."
        case _:
            said = f"may use {_counted(hit.allowed, 'token')} a minute (tpm), of which {hit.left} are left, "
            said += f"and this call may use {asked}. {again}, or ask for fewer (max_tokens)."
    return RateLimited(f"The key {key!r} {said}", key=key, limit=hit.limit, retry_after_s=wait_s)


def _counted(amount: int, what: str) -> str:
    return f"{amount} {what}" if amount == 1 else f"{amount} {what}s"
