"""The door: lets calls in within their keys' limits, and corrects what they took when they leave."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Final, Protocol

from tiergate.admission.keys import Keyring
from tiergate.admission.limits import Allowance, Hit, KeyLimits, Slip
from tiergate.admission.own import OwnLimits
from tiergate.admission.shared import SharedLimits
from tiergate.core import Caller, RateLimited
from tiergate.rates import Sharing

_PLACE_S: Final = 1.0
"""Nobody knows when a call inside ends; asked once a second, the door has little to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionStatistics:
    """Calls inside, by key."""

    inside: Mapping[str, int]


class KeyUse(Protocol):
    """What keys use of their limits."""

    async def bring(self, key: str, limits: KeyLimits, tokens: int) -> None:
        """Fetch what a call needs, if it is not here and can be had soon."""
        ...

    def take(self, key: str, limits: KeyLimits, tokens: int) -> Slip | Hit | None:
        """Take a call and its tokens, or tell which limit keeps it out; then nothing is counted."""
        ...

    def settle(self, key: str, slip: Slip, used: int) -> None:
        """Correct what a call took to what it used, now that it leaves."""
        ...

    def allowance(self, key: str, limits: KeyLimits) -> Allowance:
        """Tell what is left of a key's limits."""
        ...


class Admission:
    """The door. `identify` says who; `enter` lets a call in and counts it until it leaves.

    What a key has used is known by its name, so it outlives a reload, a rotation and a revocation.

    Args:
        keyring: who may come, and what each may do.
        monotonic: seconds of a clock that never goes back.
        sharing: who is asked where limits are shared with other processes; None: they are of this one alone,
            and what was used is gone with it.
    """

    def __init__(
        self,
        keyring: Keyring,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sharing: Sharing | None = None,
    ) -> None:
        self._keyring = keyring
        self._inside: dict[str, int] = {}

        def now_ns() -> int:
            return int(monotonic() * 1e9)

        self.shared_limits = None if sharing is None else SharedLimits(now_ns, sharing)
        """Those that are to be leased, if they are shared."""
        self._use: KeyUse = self.shared_limits or OwnLimits(now_ns, self._inside)

    def use(self, keyring: Keyring) -> None:
        """Take another keyring; calls inside stay inside, and what was used stays used."""
        self._keyring = keyring

    def identify(self, credential: str | None) -> Caller:
        """Tell who presents this credential.

        Raises:
            InvalidKey: none was given, or none that we know.
        """
        return self._keyring.caller(credential)

    def named(self, key: str) -> Caller | None:
        """Give the caller of a key by its name; None: there is none that opens anything now."""
        return self._keyring.named(key)

    async def visit(self, caller: Caller, tokens: Callable[[], int] = int) -> "Visitor":
        """Give the context that lets a call in, and keeps it inside until it ends.

        It waits a moment where more of a shared limit has to be asked for. Between its return and the
        beginning of the context nobody may wait for anything.

        Args:
            caller: whose it is.
            tokens: gives how many it may use; asked only where that counts.

        Raises, where the context begins:
            RateLimited: a limit of its key is reached; nothing was counted.
        """
        limits = self._keyring.limits.get(caller.key)
        asked = 0 if limits is None or limits.tpm is None else tokens()
        if limits is not None:
            await self._use.bring(caller.key, limits, asked)
        return Visitor(self._let_in, self._let_out, caller.key, asked)

    def allowance(self, caller: Caller) -> Allowance | None:
        """Tell what a caller's key may do and what is left of it; None: it has no limits."""
        limits = self._keyring.limits.get(caller.key)
        if limits is None:
            return None
        return self._use.allowance(caller.key, limits)

    def statistics(self) -> AdmissionStatistics:
        """Who is inside now."""
        return AdmissionStatistics(inside=dict(self._inside))

    def _let_in(self, key: str, tokens: int) -> Slip | None:
        """Decide and count. Nothing waits in between, so many calls at once get no more than is left."""
        limits = self._keyring.limits.get(key)
        taken = None if limits is None else self._use.take(key, limits, tokens)
        if isinstance(taken, Hit):
            raise _refusal(key, taken, tokens)
        self._inside[key] = self._inside.get(key, 0) + 1
        return taken

    def _let_out(self, key: str, slip: Slip | None, used: int) -> None:
        if slip is not None:
            self._use.settle(key, slip, used)
        left = self._inside[key] - 1
        if left:
            self._inside[key] = left
        else:
            del self._inside[key]


class Visitor:
    """A call at the door: inside while the context is open."""

    __slots__ = ("_key", "_let_in", "_let_out", "_slip", "_tokens", "_used")

    def __init__(
        self,
        let_in: Callable[[str, int], Slip | None],
        let_out: Callable[[str, Slip | None, int], None],
        key: str,
        tokens: int,
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
