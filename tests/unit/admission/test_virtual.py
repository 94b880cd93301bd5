"""Virtual keys: what is kept opens nothing, keys differ in all of their bits, time takes them away."""

import itertools

import pytest

from tiergate.admission import KeyMaker, Keyring, VirtualKey
from tiergate.core import LOCAL, Caller, InvalidKey, derived

NOW = 1_800_000_000_000_000_000
SECOND = 1_000_000_000


def maker(secret: str = "the house's secret") -> KeyMaker:
    counter = itertools.count(1)
    return KeyMaker(secret, randomness=lambda size: next(counter).to_bytes(size, "big"))


def ring(*keys: VirtualKey, make: KeyMaker, now_ns: int = NOW, is_open: bool = False) -> Keyring:
    return Keyring(
        [("settings-key-0123", Caller(key="settings"))],
        virtual=keys,
        digest=make.digest,
        wall_ns=lambda: now_ns,
        is_open=is_open,
    )


def key(make: KeyMaker, secret: str, **more: object) -> VirtualKey:
    return VirtualKey(
        name="web",
        digest=make.digest(secret),
        hint=make.hint(secret),
        created_ns=0,
        **more,  # type: ignore[arg-type]  # fields of any kind
    )


def test_a_key_is_256_random_bits_and_never_twice_the_same() -> None:
    """With a beginning to know it by; its hint shows the end and nothing more."""
    make = maker()
    one, other = make.make(), make.make()
    assert one != other and one.startswith("tg-") and len(one) == 46
    assert make.hint(one) == f"tg-…{one[-4:]}" and one[3:-4] not in make.hint(one)


def test_hkdf_as_in_rfc_5869() -> None:
    """Test case 3 of its appendix; another purpose gives another key."""
    secret = bytes.fromhex("0b" * 22)
    assert derived(secret, b"").hex() == "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"
    assert derived(secret, b"a") != derived(secret, b"b")


def test_s04_a_digest_is_no_key_and_another_house_has_others() -> None:
    """Who steals the database can open nothing with it."""
    make = maker()
    secret = make.make()
    kept = key(make, secret)
    opened = ring(kept, make=make)
    assert opened.caller(secret).key == "web"
    for stolen in (kept.digest.hex(), kept.digest.decode("latin-1"), kept.hint, secret[:-1], secret + "x"):
        with pytest.raises(InvalidKey):
            opened.caller(stolen)
    with pytest.raises(InvalidKey):
        ring(kept, make=maker("another secret")).caller(secret)
    assert secret not in repr(kept) and repr(kept.digest) not in repr(kept)


def test_s06_keys_that_begin_alike_are_two() -> None:
    """They are told apart by all of their bits."""
    make = maker()
    one = "tg-" + "a" * 40 + "1"
    two = "tg-" + "a" * 40 + "2"
    found = ring(key(make, one), make=make)
    assert found.caller(one).key == "web"
    with pytest.raises(InvalidKey):
        found.caller(two)


def test_time_takes_keys_away() -> None:
    """Expired, revoked, replaced; the sentences say which."""
    make = maker()
    old, new = make.make(), make.make()
    expiring = key(make, new, expires_ns=NOW + SECOND)
    assert ring(expiring, make=make).caller(new).key == "web"
    with pytest.raises(InvalidKey, match="has expired"):
        ring(expiring, make=make, now_ns=NOW + SECOND).caller(new)
    with pytest.raises(InvalidKey, match="was revoked"):
        ring(key(make, new, revoked_ns=NOW - 1), make=make).caller(new)
    rotated = key(make, new, old_digest=make.digest(old), old_until_ns=NOW + SECOND)
    assert ring(rotated, make=make).caller(old) == ring(rotated, make=make).caller(new)
    with pytest.raises(InvalidKey, match="was replaced"):
        ring(rotated, make=make, now_ns=NOW + SECOND).caller(old)
    assert ring(rotated, make=make, now_ns=NOW + SECOND).caller(new).key == "web"


def test_an_expired_key_does_not_fall_back_to_an_open_door() -> None:
    """Who brings a key means it."""
    make = maker()
    secret = make.make()
    with pytest.raises(InvalidKey, match="has expired"):
        ring(key(make, secret, expires_ns=NOW), make=make, is_open=True).caller(secret)
    with pytest.raises(InvalidKey, match="was revoked"):
        ring(key(make, secret, revoked_ns=NOW), make=make, is_open=True).caller(secret)
    # Replaced twice, or made by a house with another secret: nothing is known of it but how it looks.
    with pytest.raises(InvalidKey, match="not known"):
        ring(key(make, secret), make=make, is_open=True).caller(make.make())
    assert ring(key(make, secret), make=make, is_open=True).caller("sk-anything") is LOCAL


@pytest.mark.parametrize(
    ("models", "asked", "may"),
    [
        (None, "anything", True),
        (("chat",), "chat", True),
        (("chat",), "chat2", False),
        (("gpt-*",), "gpt-4.1", True),
        (("gpt-*",), "xgpt-4.1", False),
        (("openai/*", "chat"), "openai/gpt-4.1", True),
        ((), "chat", False),
    ],
)
def test_what_a_key_may_ask_for(models: tuple[str, ...] | None, asked: str, *, may: bool) -> None:
    """By name, or by how names begin."""
    assert Caller(key="k", models=models).may_ask_for(asked) is may
