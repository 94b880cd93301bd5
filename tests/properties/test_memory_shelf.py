"""The answers in memory, beside a model of them: bounded, fresh, and purged for good."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tiergate.cache.memory import MemoryShelf

BYTES_MAX = 8_000
KEYS = st.sampled_from([bytes([number]) for number in range(12)])
TENANTS = st.sampled_from(["a", "b"])
ENTRIES = st.sampled_from(["x", "y"])


class Shelf(RuleBasedStateMachine):
    """What is given was put, is fresh, and is not purged."""

    def __init__(self) -> None:
        super().__init__()
        self.shelf = MemoryShelf(BYTES_MAX)
        self.now_ns = 0
        self.known: dict[bytes, tuple[bytes, int, str, str]] = {}

    @rule(key=KEYS, size=st.integers(0, 1_200), ttl=st.integers(0, 9), tenant=TENANTS, entry=ENTRIES)
    def put(self, key: bytes, size: int, ttl: int, tenant: str, entry: str) -> None:
        value = bytes(size)
        expires_ns = self.now_ns + ttl
        if self.shelf.put(key, value, tenant=tenant, entry=entry, expires_ns=expires_ns):
            self.known[key] = value, expires_ns, tenant, entry
        else:
            assert size + 400 > BYTES_MAX // 8

    @rule(key=KEYS)
    def get(self, key: bytes) -> None:
        found = self.shelf.get(key, self.now_ns)
        if found is not None:
            value, expires_ns, *_ = self.known[key]
            assert found == value and expires_ns > self.now_ns

    @rule(tenant=st.none() | TENANTS, entry=st.none() | ENTRIES)
    def purge(self, tenant: str | None, entry: str | None) -> None:
        self.shelf.purge(tenant, entry)
        gone = [
            key
            for key, (_, _, its_tenant, its_entry) in self.known.items()
            if tenant in (None, its_tenant) and entry in (None, its_entry)
        ]
        for key in gone:
            del self.known[key]
            assert self.shelf.get(key, self.now_ns) is None

    @rule(ns=st.integers(0, 5))
    def wait(self, ns: int) -> None:
        self.now_ns += ns

    @rule()
    def sweep(self) -> None:
        self.shelf.sweep(self.now_ns)
        fresh = [key for key, (_, expires_ns, *_) in self.known.items() if expires_ns > self.now_ns]
        assert len(self.shelf) <= len(fresh)

    @invariant()
    def it_is_bounded(self) -> None:
        assert 0 <= self.shelf.bytes <= BYTES_MAX
        assert (len(self.shelf) == 0) == (self.shelf.bytes == 0)
        assert self.shelf.evicted or len(self.shelf) <= len(self.known)


TestShelf = Shelf.TestCase
TestShelf.settings = settings(stateful_step_count=40)


def test_who_was_asked_for_longest_ago_makes_room() -> None:
    """And not who was kept longest ago."""
    shelf = MemoryShelf(BYTES_MAX)
    for number in range(10):
        assert shelf.put(bytes([number]), bytes(390), tenant="a", entry="x", expires_ns=9)
    assert shelf.get(b"\x00", 1) is not None
    assert shelf.put(b"new", bytes(390), tenant="a", entry="x", expires_ns=9)
    assert shelf.get(b"\x00", 1) is not None and shelf.get(b"\x01", 1) is None
    assert shelf.evicted == 1
