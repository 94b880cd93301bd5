"""No pattern of calls gets more than a limit allows, over any span of time."""

from hypothesis import example, given
from hypothesis import strategies as st

from at_once import at_once
from tiergate.admission import Admission, KeyLimits, Keyring, Visitor
from tiergate.core import Caller, RateLimited
from tiergate.testing import FakeClock

CI = Caller(key="ci")
MINUTE_MS = 60_000
WAIT_MS = st.one_of(st.just(0), st.integers(0, 2_000), st.integers(0, 2 * MINUTE_MS))


def fits(rate: int, amounts: list[tuple[int, int]]) -> bool:
    """Tell whether every span of time holds at most a minute's amount and what time adds to it."""
    for first, (start_ms, _) in enumerate(amounts):
        total = 0
        for end_ms, amount in amounts[first:]:
            total += amount
            if total * MINUTE_MS > rate * (MINUTE_MS + end_ms - start_ms):
                return False
    return True


class Door:
    """A door with one limit, and time in hand."""

    def __init__(self, limits: KeyLimits) -> None:
        self.clock = FakeClock()
        self.now_ms = 0
        self.door = Admission(Keyring([], limits={"ci": limits}), monotonic=self.clock.monotonic)

    def wait(self, wait_ms: int) -> None:
        self.now_ms += wait_ms
        self.clock.advance(wait_ms / 1e3)

    def enter(self, asks: int = 0) -> Visitor | None:
        try:
            return at_once(self.door.visit(CI, lambda: asks)).__enter__()
        except RateLimited:
            return None


@given(rpm=st.integers(1, 50), waits_ms=st.lists(WAIT_MS, max_size=80))
def test_no_span_holds_more_calls_than_a_minutes_and_what_time_adds(rpm: int, waits_ms: list[int]) -> None:
    """Exact, to the last call; and one that could have come in was let in."""
    door, admitted = Door(KeyLimits(rpm=rpm)), list[tuple[int, int]]()
    for wait_ms in waits_ms:
        door.wait(wait_ms)
        one_more = [*admitted, (door.now_ms, 1)]
        if door.enter() is not None:
            admitted = one_more
        else:
            assert not fits(rpm, one_more)
    assert fits(rpm, admitted)


STEP = st.tuples(WAIT_MS, st.integers(0, 3), st.integers(0, 1_000), st.integers(0, 1_000))


@given(tpm=st.integers(1, 1_000), steps=st.lists(STEP, max_size=40))
@example(tpm=100, steps=[(0, 0, 100, 0), (30_000, 0, 50, 50), (0, 1, 0, 0), (0, 0, 100, 100)])
def test_no_span_holds_more_used_tokens_either(tpm: int, steps: list[tuple[int, int, int, int]]) -> None:
    """Counted when a call came in, whenever and in whatever order they end, if each kept to what it asked."""
    door, used = Door(KeyLimits(tpm=tpm)), list[tuple[int, int]]()
    inside: list[tuple[Visitor, int]] = []
    for wait_ms, leaves, asks, uses in steps:
        door.wait(wait_ms)
        if leaves and inside:
            visitor, uses = inside.pop((leaves - 1) % len(inside))
            visitor.count(uses)
            visitor.__exit__(None, None, None)
        elif (entered := door.enter(asks)) is not None:
            kept = min(asks, uses, tpm)
            inside.append((entered, kept))
            used.append((door.now_ms, kept))
    assert fits(tpm, used)


@given(tpm=st.integers(1, 1_000), steps=st.lists(STEP, max_size=40))
def test_no_more_leaves_than_a_minutes_and_what_time_adds_or_was_owed(
    tpm: int, steps: list[tuple[int, int, int, int]]
) -> None:
    """Also where calls use more than they asked: what they owe keeps the next ones out."""
    door = Door(KeyLimits(tpm=tpm))
    owed = 0.0
    for wait_ms, _, asks, uses in steps:
        door.wait(wait_ms)
        owed = max(0.0, owed - tpm * wait_ms / MINUTE_MS)
        entered = door.enter(asks)
        assert (entered is not None) == (owed + min(asks, tpm) <= tpm + 1e-6) or abs(
            owed + min(asks, tpm) - tpm
        ) < 1e-3
        if entered is not None:
            entered.count(uses)
            entered.__exit__(None, None, None)
            owed += uses
