"""Who is calling: keys as keyed digests, and the door through which every call enters.

A key itself is never kept. What is kept is its BLAKE2b digest under a random key of this process, so the
look-up takes the same time for every wrong key and a copy of this object's memory opens nothing else.
"""

import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from tiergate.admission.virtual import KEY_PREFIX, VirtualKey, digests
from tiergate.core import LOCAL, Caller, InvalidKey

_PROCESS_KEY: Final = secrets.token_bytes(32)


class Keyring:
    """The keys that open the door; in open mode every caller is `local`.

    Args:
        keys: those of the settings, as they are sent, with their callers.
        is_open: whether who brings none, or none that we know, may call too.
        virtual: those that were made here, and
        digest: what is kept of such a key.
        wall_ns: tells whether one has expired.
    """

    def __init__(
        self,
        keys: Iterable[tuple[str, Caller]],
        *,
        is_open: bool = False,
        virtual: Sequence[VirtualKey] = (),
        digest: Callable[[str], bytes] | None = None,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        assert digest is not None or not virtual
        self._callers: Mapping[bytes, Caller] = {_digest(secret): caller for secret, caller in keys}
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
        return key.caller


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionStatistics:
    """Calls inside, by key."""

    inside: Mapping[str, int]


class Admission:
    """The door. `identify` says who; `enter` lets a call in and counts it until it leaves."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        self._inside: dict[str, int] = {}

    def use(self, keyring: Keyring) -> None:
        """Take another keyring; calls inside stay inside."""
        self._keyring = keyring

    def identify(self, credential: str | None) -> Caller:
        """Tell who presents this credential.

        Raises:
            InvalidKey: none was given, or none that we know.
        """
        return self._keyring.caller(credential)

    def enter(self, caller: Caller) -> AbstractContextManager[object]:
        """Let a call in, until the context ends."""
        return _Inside(self._inside, caller.key)

    def statistics(self) -> AdmissionStatistics:
        """Who is inside now."""
        return AdmissionStatistics(inside=dict(self._inside))


class _Inside:
    __slots__ = ("_inside", "_key")

    def __init__(self, inside: dict[str, int], key: str) -> None:
        self._inside = inside
        self._key = key

    def __enter__(self) -> "_Inside":
        self._inside[self._key] = self._inside.get(self._key, 0) + 1
        return self

    def __exit__(self, *_: object) -> None:
        left = self._inside[self._key] - 1
        if left:
            self._inside[self._key] = left
        else:
            del self._inside[self._key]


def _digest(secret: str) -> bytes:
    return blake2b(secret.encode("utf-8", "surrogateescape"), key=_PROCESS_KEY, digest_size=32).digest()
