"""Limits of keys: what gets in, what is given back, what a reload leaves, and when to come again."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from at_once import at_once
from tiergate.admission import Admission, KeyLimits, Keyring, VirtualKey
from tiergate.admission.limits import Bucket
from tiergate.admission.own import OwnLimits
from tiergate.core import Caller, Caps, RateLimited
from tiergate.testing import FakeClock

CI, BOT = Caller(key="ci"), Caller(key="bot")


def ring(**limits: KeyLimits) -> Keyring:
    return Keyring([], limits=limits)


class Door:
    """A door with time in hand."""

    def __init__(self, **limits: KeyLimits) -> None:
        self.clock = FakeClock()
        self.door = Admission(ring(**limits), monotonic=self.clock.monotonic)

    def call(self, caller: Caller = CI, *, asks: int = 0, uses: int = 0) -> None:
        """Make a call that takes no time."""
        with at_once(self.door.visit(caller, lambda: asks)) as visitor:
            visitor.count(uses)

    def made(self, most: int = 10_000, **asked: int) -> int:
        """Make calls until one is refused; give how many got in."""
        for number in range(most):
            try:
                self.call(**asked)
            except RateLimited:
                return number
        return most

    @contextmanager
    def refused(self, caller: Caller = CI, *, asks: int = 0) -> Iterator[RateLimited]:
        with pytest.raises(RateLimited) as refusal:
            self.call(caller, asks=asks)
        yield refusal.value

    def left(self) -> tuple[int | None, int | None, int | None]:
        found = self.door.allowance(CI)
        assert found is not None
        calls, tokens = found.calls, found.tokens
        return calls and calls.left, tokens and tokens.left, found.places


def test_a_minutes_calls_get_in_at_once_and_then_one_by_one() -> None:
    """Each comes back after its share of the minute, whole, and not a nanosecond before."""
    door = Door(ci=KeyLimits(rpm=60))
    assert door.made() == 60
    with door.refused() as refusal:
        assert (refusal.key, refusal.limit, refusal.retry_after_s) == ("ci", "rpm", 1.0)
        assert str(refusal) == (
            "The key 'ci' may make 60 calls a minute (rpm), and none is left. Try again in 1 s."
        )
    door.clock.advance(0.999)
    with door.refused() as refusal:
        assert refusal.retry_after_s == pytest.approx(0.001)
        assert "in less than a second" in str(refusal)
    door.clock.advance(0.001)
    assert door.made() == 1


@pytest.mark.parametrize("pause_s", [60, 61, 10_000_000])
def test_a_pause_of_any_length_saves_up_no_more_than_a_minute(pause_s: float) -> None:
    """F34, F35: also that of a process that was stopped, or of a machine that slept."""
    door = Door(ci=KeyLimits(rpm=7))
    door.made()
    door.clock.advance(pause_s)
    assert door.made() == 7


def test_a_clock_that_stands_or_goes_back_gives_nothing() -> None:
    """Nor does it take anything."""
    bucket = Bucket(per_minute=60, at_ns=5_000_000_000).take(60)
    assert bucket.at(5_000_000_000) == bucket.at(1) == bucket
    assert bucket.at(1).at(6_000_000_000).left == 1


def test_a_refused_call_counts_nothing() -> None:
    """Not as a call, where tokens refuse it; not as tokens, where calls do; and it is not inside."""
    door = Door(ci=KeyLimits(rpm=10, tpm=100, concurrency=2))
    door.call(asks=90, uses=90)
    for _ in range(30):
        with door.refused(asks=11) as refusal:
            assert refusal.limit == "tpm"
    assert door.left() == (9, 10, 2)
    assert door.door.statistics().inside == {}
    assert door.made(asks=0) == 9
    with door.refused(asks=10) as refusal:
        assert refusal.limit == "rpm"
    assert door.left() == (0, 10, 2)


def test_of_two_rates_the_longer_wait_is_told() -> None:
    """Whoever comes then is let in."""
    door = Door(ci=KeyLimits(rpm=60, tpm=60))
    door.made(asks=1, uses=1)
    with door.refused(asks=30) as refusal:
        assert (refusal.limit, refusal.retry_after_s) == ("tpm", 30)
        assert "of which 0 are left, and this call may use 30. Try again in 30 s, or ask" in str(refusal)
    door.clock.advance(30)
    door.call(asks=30)


def test_what_a_call_did_not_use_is_given_back_when_it_ends() -> None:
    """While it runs, all that it may use is taken."""
    door = Door(ci=KeyLimits(tpm=1_000))
    with at_once(door.door.visit(CI, lambda: 900)) as visitor:
        assert door.left() == (None, 100, None)
        visitor.count(20)
        visitor.count(30)
    assert door.left() == (None, 950, None)


def test_time_and_the_end_of_a_call_do_not_give_the_same_tokens_twice() -> None:
    """Half a minute gave half of what it took to others; the end gives back the other half only."""
    door = Door(ci=KeyLimits(tpm=100))
    with at_once(door.door.visit(CI, lambda: 100)):
        door.clock.advance(30)
        door.call(asks=50, uses=50)
        with door.refused(asks=1):
            pass
    assert door.left() == (None, 50, None)


def test_more_than_was_asked_is_owed_and_recovers() -> None:
    """An answer without a limit: nothing gets in until time has taken it away."""
    door = Door(ci=KeyLimits(tpm=100))
    door.call(asks=10, uses=350)
    assert door.left() == (None, 0, None)
    with door.refused(asks=0) as refusal:
        assert refusal.retry_after_s == pytest.approx(150)
    door.clock.advance(150)
    door.call(asks=0)


def test_what_asks_for_more_than_a_minute_holds_gets_in_when_nothing_is_used() -> None:
    """It takes all of it and no more, and gives back what it did not use."""
    door = Door(ci=KeyLimits(tpm=100))
    door.call(asks=1, uses=1)
    with door.refused(asks=1_000_000) as refusal:
        assert refusal.retry_after_s == pytest.approx(0.6)
    door.clock.advance(0.6)
    with at_once(door.door.visit(CI, lambda: 1_000_000)) as visitor:
        assert door.left() == (None, 0, None)
        visitor.count(60)
    assert door.left() == (None, 40, None)


def test_places_are_free_again_whichever_way_a_call_leaves() -> None:
    """Also by an exception; each key has its own."""
    door = Door(ci=KeyLimits(concurrency=2))
    with ExitStack() as inside:
        inside.enter_context(at_once(door.door.visit(CI)))
        with suppress(ZeroDivisionError), at_once(door.door.visit(CI)):
            with door.refused() as refusal:
                assert (refusal.limit, refusal.retry_after_s) == ("concurrency", 1.0)
                assert "2 calls inside at one time" in str(refusal)
            door.call(BOT)
            raise ZeroDivisionError
        door.call()
        assert door.left() == (None, None, 1)
    assert door.left() == (None, None, 2)


def test_only_a_key_with_a_rate_of_tokens_has_them_counted() -> None:
    """Keys without limits pay nothing, and nothing is remembered of them."""
    door = Door(ci=KeyLimits(rpm=5, concurrency=5))

    def never() -> int:
        raise AssertionError("asked")

    with at_once(door.door.visit(CI, never)), at_once(door.door.visit(BOT, never)):
        pass
    assert door.door.allowance(BOT) is None


def test_a_key_that_limits_nothing_has_no_limits() -> None:
    """An empty section says the same as none."""
    assert ring(ci=KeyLimits()).limits == {}


# Reloads.


@pytest.mark.parametrize(
    ("before", "used", "after", "left"),
    [
        (60, 50, 120, 70),
        (120, 50, 60, 10),
        (1_000, 1_000, 1, 0),
        (60, 20, 60, 40),
    ],
)
def test_a_reload_changes_the_limit_and_not_what_was_used(
    before: int, used: int, after: int, left: int
) -> None:
    """However the limit moves."""
    door = Door(ci=KeyLimits(rpm=before))
    door.made(used)
    door.door.use(ring(ci=KeyLimits(rpm=after)))
    assert door.left()[0] == left


def test_a_much_lower_limit_is_no_wait_of_hours() -> None:
    """What was used is at most a minute of the new limit; what was owed is owed for as long."""
    door = Door(ci=KeyLimits(rpm=1_000, tpm=1_000))
    door.made(1_000)
    door.call(BOT)
    door.door.use(ring(ci=KeyLimits(rpm=1)))
    with door.refused() as refusal:
        assert refusal.retry_after_s == pytest.approx(60)
    owing = Bucket(per_minute=100, at_ns=0).take(100).settle(taken_to=0, took=100, used=300)
    assert owing.wait_ns(1) == pytest.approx(121e9, abs=1e9)
    assert owing.changed(10).full_in_ns == owing.full_in_ns == 180_000_000_000


def test_a_limit_that_goes_and_comes_back_has_forgotten_nothing() -> None:
    """A call that began under it is corrected, too."""
    door = Door(ci=KeyLimits(tpm=100))
    with at_once(door.door.visit(CI, lambda: 80)) as visitor:
        door.door.use(ring())
        assert door.door.allowance(CI) is None
        door.call(asks=1_000)
        visitor.count(30)
    door.door.use(ring(ci=KeyLimits(tpm=100)))
    assert door.left() == (None, 70, None)


def test_a_revoked_or_rotated_key_keeps_what_it_has_used_under_its_name() -> None:
    """Also where it comes back with another secret, or as a key of the settings."""

    def virtual(digest: bytes, **more: int) -> Keyring:
        key = VirtualKey(
            name="ci",
            digest=digest,
            hint="tg-…1234",
            created_ns=0,
            limits=KeyLimits(rpm=10),
            revoked_ns=more.get("revoked_ns"),
        )
        return Keyring([], virtual=[key], digest=str.encode)

    door = Door()
    door.door.use(virtual(b"one"))
    door.made(6)
    door.door.use(virtual(b"two"))
    assert door.left() == (4, None, None)
    door.door.use(virtual(b"two", revoked_ns=1))
    assert door.door.allowance(CI) is None
    door.door.use(ring(ci=KeyLimits(rpm=10)))
    assert door.left() == (4, None, None)


def test_of_two_keys_with_one_name_the_lower_of_each_limit_holds() -> None:
    """One of the settings and one that was made: nobody gains by having both."""
    made = VirtualKey(
        name="ci", digest=b"d", hint="", created_ns=0, limits=KeyLimits(rpm=5, tpm=900, concurrency=3)
    )
    both = Keyring([], limits={"ci": KeyLimits(rpm=9, tpm=100)}, virtual=[made], digest=str.encode)
    assert both.limits == {"ci": KeyLimits(rpm=5, tpm=100, concurrency=3)}


def test_names_that_rest_are_forgotten_and_those_that_do_not_are_kept() -> None:
    """Names that came once leave nothing behind; one that owes something does, and one that is inside."""
    names = [f"key-{number}" for number in range(3_000)]
    door = Door(**{name: KeyLimits(tpm=1_000) for name in ("ci", "bot", *names)})
    door.call(uses=1_000_000)
    with at_once(door.door.visit(BOT, lambda: 0)) as visitor:
        for name in names:
            door.clock.advance(2)
            door.call(Caller(key=name), asks=0)
        rates = door.door._use
        assert isinstance(rates, OwnLimits)
        assert len(rates._rates) <= 1_001
        visitor.count(800)
    found = door.door.allowance(BOT)
    assert found is not None and found.tokens is not None and found.tokens.left == 200
    with door.refused() as refusal:
        assert refusal.limit == "tpm"


def test_of_two_caps_under_one_name_the_lower_holds() -> None:
    """Of each; efforts are ordered as words, not as letters."""
    one = KeyLimits(max_output_tokens=100, max_choices=2, max_reasoning_effort="high")
    other = KeyLimits(max_output_tokens=200, max_images=0, max_reasoning_effort="minimal")
    lower = KeyLimits(max_output_tokens=100, max_choices=2, max_images=0, max_reasoning_effort="minimal")
    assert one.lower(other) == other.lower(one) == lower


def test_a_caller_carries_its_keys_caps_and_is_made_once() -> None:
    """Of the settings' keys and of made ones; a call costs no new caller."""
    caps = KeyLimits(max_output_tokens=100, max_images=0)
    made = [
        VirtualKey(name="web", digest=b"tg-web", hint="", created_ns=0, limits=caps),
        VirtualKey(name="ci", digest=b"tg-ci", hint="", created_ns=0, limits=KeyLimits(max_images=3)),
        VirtualKey(name="free", digest=b"tg-free", hint="", created_ns=0, limits=KeyLimits(rpm=3)),
    ]
    keyring = Keyring(
        [("secret-ci", Caller(key="ci", team="shop")), ("secret-bot", Caller(key="bot"))],
        limits={"ci": KeyLimits(max_choices=1, max_images=9)},
        virtual=made,
        digest=str.encode,
    )
    both = Caps(choices=1, images=3)
    found = {
        secret: keyring.caller(secret) for secret in ("secret-ci", "secret-bot", "tg-web", "tg-ci", "tg-free")
    }
    assert [caller.caps for caller in found.values()] == [
        both,
        None,
        Caps(output_tokens=100, images=0),
        both,
        None,
    ]
    assert found["secret-ci"].team == "shop"
    assert all(keyring.caller(secret) is caller for secret, caller in found.items())
