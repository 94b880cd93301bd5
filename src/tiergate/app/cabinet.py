"""The cabinet of virtual keys: makes, revokes and rotates them, and tells the house."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from tiergate.admin import KeyWish
from tiergate.admission import KeyMaker, KeyStore, VirtualKey
from tiergate.core import Clock, InvalidRequest


class KeyCabinet:
    """The virtual keys of a house.

    Args:
        store: keeps them.
        maker: makes keys and digests.
        clock: says when.
    """

    def __init__(self, store: KeyStore, maker: KeyMaker, clock: Clock) -> None:
        self._store = store
        self._maker = maker
        self._clock = clock
        self._tell: Callable[[], None] | None = None
        self.keys: Sequence[VirtualKey] = ()
        """All of them, as they are kept."""

    @property
    def digest(self) -> Callable[[str], bytes]:
        """Gives what is kept of a key."""
        return self._maker.digest

    def unknown(self) -> list[str]:
        """Give the names of keys that open nothing, since the house's secret is another one than it was."""
        return [key.name for key in self.keys if key.revoked_ns is None and not self._maker.knows(key)]

    def shared(self, names: Iterable[str]) -> list[str]:
        """Give those of these names that keys in use have, too."""
        used = {key.name for key in self.keys if key.revoked_ns is None}
        return [name for name in names if name in used]

    async def open(self) -> None:
        """Read them.

        Raises:
            StorageUnavailable: not now.
        """
        self.keys = await self._store.keys()

    async def refresh(self) -> None:
        """Read them again, and tell where another replica has changed them.

        Raises:
            StorageUnavailable: not now.
        """
        before = self.keys
        keys = await self._store.keys()
        # Where they were changed here in between, what was read is older than that.
        if self.keys is before and list(keys) != list(before):
            self._use(keys)

    def on_change(self, tell: Callable[[], None]) -> None:
        """Say whom to tell when they have changed."""
        self._tell = tell

    async def create(self, wish: KeyWish, *, taken: Sequence[str]) -> tuple[VirtualKey, str]:
        """Make a key; give it as it is kept, and the key itself, which nobody can give again.

        Raises:
            InvalidRequest: the name is taken, by one of these or by a key of ours.
        """
        secret = self._maker.make()
        key = VirtualKey(
            name=wish.name,
            digest=self._maker.digest(secret),
            made_under=self._maker.mark,
            hint=self._maker.hint(secret),
            team=wish.team,
            models=wish.models,
            tiers=wish.tiers,
            data_class=wish.data_class,
            budget=wish.budget,
            limits=wish.limits,
            metadata=wish.metadata,
            created_ns=self._clock.wall_ns(),
            expires_ns=wish.expires_ns,
        )
        keys = None if wish.name in taken else await self._store.add(key)
        if keys is None:
            raise InvalidRequest(
                f"The name {wish.name!r} is taken, and what it has cost stays its own, also when the key is "
                "revoked. Choose another, or rotate that key if it is in use.",
                param="name",
            )
        self._use(keys)
        return key, secret

    async def revoke(self, name: str) -> bool:
        """Take a key out of use, at once and for good; False: there is none in use."""
        keys = await self._store.revoke(name, self._clock.wall_ns())
        if keys is not None:
            self._use(keys)
        return keys is not None

    async def rotate(self, name: str, *, grace_s: float) -> tuple[VirtualKey, str] | None:
        """Give a key another secret; the old one is good for `grace_s`. None: there is no such key in use."""
        secret = self._maker.make()
        until_ns = self._clock.wall_ns() + int(grace_s * 1e9)
        hint = self._maker.hint(secret)
        keys = await self._store.rotate(
            name,
            digest=self._maker.digest(secret),
            hint=hint,
            made_under=self._maker.mark,
            old_until_ns=until_ns,
        )
        if keys is None:
            return None
        self._use(keys)
        key = next(key for key in self.keys if key.name == name)
        return replace(key, hint=hint), secret

    def _use(self, keys: Sequence[VirtualKey]) -> None:
        self.keys = keys
        if self._tell is not None:
            self._tell()
