"""Virtual keys: made here, shown once, kept as keyed digests.

A key is 256 random bits. What is kept is its HMAC-SHA-256 under a key that is derived from the house's secret
for this purpose alone (HKDF, RFC 5869), so a copy of the database opens nothing, and a digest is no key.
"""

import hmac
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Protocol

from tiergate.admission.limits import KeyLimits
from tiergate.core import Caller, DataClass, derived

KEY_PREFIX: Final = "tg-"
_PURPOSE: Final = b"tiergate virtual keys 1"
_MARK: Final = b"the secret that keys were made under"
_HINT_CHARS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyBudget:
    """A key's own ceiling: nano-dollars in each `per` (`total`, `day`, `week`, `month`)."""

    amount_nanos: int
    per: str = "total"
    slack_nanos: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualKey:
    """A key as it is kept. Times are nanoseconds since 1970; None: never.

    `models`: names that it may ask for, one that ends with `*` for all that begin so; None: every one.
    `tiers`: those that may answer it. `old_digest`: of the key before the last rotation, good until
    `old_until_ns`.
    """

    name: str
    digest: bytes = field(repr=False)
    hint: str
    created_ns: int
    team: str | None = None
    models: tuple[str, ...] | None = None
    tiers: tuple[str, ...] | None = None
    data_class: DataClass = DataClass.ANY
    budget: KeyBudget | None = None
    limits: KeyLimits | None = None
    metadata: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    expires_ns: int | None = None
    revoked_ns: int | None = None
    old_digest: bytes | None = field(default=None, repr=False)
    old_until_ns: int | None = None
    made_under: bytes | None = field(default=None, repr=False)
    """`KeyMaker.mark` of the secret that its digest was made under; None: not known."""

    @property
    def caller(self) -> Caller:
        """Who calls with it."""
        return Caller(
            key=self.name,
            team=self.team,
            models=self.models,
            tiers=self.tiers,
            data_class=self.data_class,
            expires_ns=self.expires_ns,
        )

    def is_good(self, now_ns: int) -> bool:
        """Tell whether it opens the door at a moment."""
        return self.revoked_ns is None and (self.expires_ns is None or now_ns < self.expires_ns)


class KeyStore(Protocol):
    """Keeps virtual keys. A change gives all keys as it left them: what is kept can then be put in force."""

    async def keys(self) -> list[VirtualKey]:
        """Give all, revoked ones too, the oldest first."""
        ...

    async def add(self, key: VirtualKey) -> list[VirtualKey] | None:
        """Keep a new one; None: the name is taken."""
        ...

    async def revoke(self, name: str, now_ns: int) -> list[VirtualKey] | None:
        """Mark one as revoked, for good; None: there is no such key that is not."""
        ...

    async def rotate(
        self, name: str, *, digest: bytes, hint: str, made_under: bytes, old_until_ns: int
    ) -> list[VirtualKey] | None:
        """Give one another digest; the old one is good for a while; None: as for `revoke`."""
        ...


class KeyMaker:
    """Makes keys and digests.

    Args:
        secret: the house's.
        randomness: gives so many random bytes, such as `os.urandom`.
    """

    def __init__(self, secret: str, *, randomness: Callable[[int], bytes]) -> None:
        self._key = derived(secret.encode(), _PURPOSE)
        self._randomness = randomness

    def make(self) -> str:
        """Make a key of 256 random bits."""
        return KEY_PREFIX + urlsafe_b64encode(self._randomness(32)).rstrip(b"=").decode()

    def digest(self, key: str) -> bytes:
        """Give what is kept of a key."""
        return hmac.digest(self._key, key.encode("utf-8", "surrogateescape"), "sha256")

    @property
    def mark(self) -> bytes:
        """What tells the house's secret from another one, and says nothing else of it."""
        return hmac.digest(self._key, _MARK, "sha256")[:8]

    def knows(self, key: VirtualKey) -> bool:
        """Tell whether a key was made under the house's secret, as far as is known."""
        return key.made_under is None or hmac.compare_digest(key.made_under, self.mark)

    def hint(self, key: str) -> str:
        """Give what tells a key from others and opens nothing."""
        return f"{KEY_PREFIX}…{key[-_HINT_CHARS:]}"


def digests(keys: Sequence[VirtualKey]) -> dict[bytes, tuple[VirtualKey, int | None]]:
    """Give every digest that we know, with its key and until when the digest itself is good."""
    found: dict[bytes, tuple[VirtualKey, int | None]] = {}
    for key in keys:
        found[key.digest] = (key, None)
        if key.old_digest is not None:
            found[key.old_digest] = (key, key.old_until_ns)
    return found
