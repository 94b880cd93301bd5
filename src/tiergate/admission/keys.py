"""Who is calling: keys as keyed digests, and what each may do.

A key itself is never kept. What is kept is its BLAKE2b digest under a random key of this process, so the
look-up takes the same time for every wrong key and a copy of this object's memory opens nothing else.
"""

import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from types import MappingProxyType
from typing import Final

from msgspec.structs import replace

from tiergate.admission.limits import NO_LIMITS, KeyLimits
from tiergate.admission.virtual import KEY_PREFIX, VirtualKey, digests
from tiergate.core import LOCAL, Caller, InvalidKey

_PROCESS_KEY: Final = secrets.token_bytes(32)


class Keyring:
    """The keys that open the door; in open mode every caller is `local`.

    Args:
        keys: those of the settings, as they are sent, with their callers, and
        limits: what they may do, by name; keys that are not named have no limits.
        is_open: whether who brings none, or none that we know, may call too.
        virtual: those that were made here, and
        digest: what is kept of such a key.
        wall_ns: tells whether one has expired.
    """

    def __init__(
        self,
        keys: Iterable[tuple[str, Caller]],
        *,
        limits: Mapping[str, KeyLimits] = MappingProxyType({}),
        is_open: bool = False,
        virtual: Sequence[VirtualKey] = (),
        digest: Callable[[str], bytes] | None = None,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        assert digest is not None or not virtual
        self.limits: Mapping[str, KeyLimits] = _limits(limits, virtual)
        """What each key may do, by name; where two have one name, the lower of each limit."""
        # Made once for each key: a call must not cost a new caller.
        self._callers = {_digest(secret): self._capped(caller) for secret, caller in keys}
        self._named = {caller.key: caller for caller in self._callers.values()}
        self._good = {key.name: key for key in virtual if key.revoked_ns is None}
        self._made = {key.name: self._capped(key.caller) for key in virtual}
        self._is_open = is_open
        self._virtual = digests(virtual)
        self._virtual_digest = digest
        self._wall_ns = wall_ns

    def caller(self, credential: str | None) -> Caller:
        """Tell who presents this credential.

        Raises:
            InvalidKey: none was given, or none that we know.
        """
        if credential is not None:
            caller = self._callers.get(_digest(credential)) or self._virtual_caller(credential)
            if caller is not None:
                return caller
        # What looks like a key of ours was one, or is one of another house: its holder may have been held to
        # something, and must not be let in as anybody.
        if self._is_open and not (credential or "").startswith(KEY_PREFIX):
            return LOCAL
        raise InvalidKey(
            "This gateway needs a key. Send it as `Authorization: Bearer KEY`."
            if credential is None
            else "This key is not known here. Check it for missing characters, or ask for a new one."
        )

    def named(self, name: str) -> Caller | None:
        """Give the caller of a key by its name; None: there is none that opens anything now."""
        if name == LOCAL.key:
            return LOCAL
        found = self._named.get(name)
        if found is not None:
            return found
        made = self._good.get(name)
        return self._made[name] if made is not None and made.is_good(self._wall_ns()) else None

    def _virtual_caller(self, credential: str) -> Caller | None:
        if self._virtual_digest is None:
            return None
        # A look-up by a keyed digest: what it takes longer or shorter for says nothing about any key.
        key, until_ns = self._virtual.get(self._virtual_digest(credential), (None, None))
        if key is None:
            return None
        if key.revoked_ns is not None:
            raise InvalidKey(f"The key {key.name!r} was revoked. Ask for a new one.")
        now_ns = self._wall_ns()
        if until_ns is not None and now_ns >= until_ns:
            raise InvalidKey(f"This key of {key.name!r} was replaced and is good no longer. Use the new one.")
        if not key.is_good(now_ns):
            raise InvalidKey(f"The key {key.name!r} has expired. Ask for a new one.")
        return self._made[key.name]

    def _capped(self, caller: Caller) -> Caller:
        """Give a caller with what its key may ask for."""
        limits = self.limits.get(caller.key)
        return caller if limits is None else replace(caller, caps=limits.caps)


def _limits(given: Mapping[str, KeyLimits], virtual: Sequence[VirtualKey]) -> dict[str, KeyLimits]:
    """Put the limits of all keys together; one that limits nothing is left out."""
    found = dict(given)
    for key in virtual:
        if key.limits is not None and key.revoked_ns is None:
            found[key.name] = key.limits.lower(found.get(key.name, NO_LIMITS))
    return {name: limits for name, limits in found.items() if limits != NO_LIMITS}


def _digest(secret: str) -> bytes:
    return blake2b(secret.encode("utf-8", "surrogateescape"), key=_PROCESS_KEY, digest_size=32).digest()
