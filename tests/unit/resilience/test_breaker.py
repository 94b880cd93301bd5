"""The breaker: when it opens, whom it lets try, and whose word counts."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tiergate.resilience import Breaker, BreakerPolicy, Verdict
from tiergate.resilience.breaker import Closed, HalfOpen, Isolated, Open

GOOD, BAD, UNREACHED, NOTHING = Verdict.GOOD, Verdict.BAD, Verdict.UNREACHED, Verdict.NOTHING
POLICY = BreakerPolicy()


def half() -> float:
    return 0.5


def told(breaker: Breaker, *verdicts: Verdict, at: float = 0.0, chance: float = 0.5) -> None:
    """Let calls enter and leave, one after the other."""
    for verdict in verdicts:
        breaker.tell(breaker.enter(at), verdict, now=at, chance=lambda: chance)


def opened(at: float = 0.0) -> Breaker:
    breaker = Breaker(POLICY)
    told(breaker, *[UNREACHED] * 5, at=at)
    assert isinstance(breaker.state, Open)
    return breaker


def test_half_of_twenty_calls_must_fail() -> None:
    """Fewer calls say nothing, however many of them failed."""
    breaker = Breaker(POLICY)
    told(breaker, *[BAD] * 10, *[GOOD] * 9)
    assert isinstance(breaker.state, Closed)
    told(breaker, BAD)
    assert isinstance(breaker.state, Open)
    assert breaker.wait_s(0.0) == 30


def test_a_smaller_share_opens_nothing() -> None:
    """Nine of twenty, again and again."""
    breaker = Breaker(POLICY)
    told(breaker, *([GOOD] * 11 + [BAD] * 9) * 20)
    assert isinstance(breaker.state, Closed)


def test_five_without_a_sign_of_life_are_enough() -> None:
    """In a row: a good one in between begins it anew; a failure with a sign of life does not."""
    breaker = Breaker(POLICY)
    told(breaker, *[UNREACHED] * 4, GOOD, *[UNREACHED] * 4)
    assert isinstance(breaker.state, Closed)
    told(breaker, BAD, NOTHING, UNREACHED)
    assert isinstance(breaker.state, Open)


def test_what_is_old_does_not_count() -> None:
    """The window moves on."""
    breaker = Breaker(POLICY)
    for second in range(0, 200, 10):
        told(breaker, *[BAD] * 5, at=float(second))
        assert isinstance(breaker.state, Closed), second


def test_what_says_nothing_counts_nothing() -> None:
    """Callers that left, and requests that were at fault."""
    breaker = Breaker(POLICY)
    told(breaker, *[NOTHING] * 100)
    assert isinstance(breaker.state, Closed)
    told(breaker, *[BAD] * 19)
    assert isinstance(breaker.state, Closed)


def test_one_at_a_time_tries_and_two_of_three_close_it() -> None:
    """Whoever comes while one tries is refused; the second bad one opens it for longer."""
    breaker = opened()
    assert breaker.wait_s(29.9) == 30 - 29.9
    number = breaker.enter(30.0)
    assert breaker.wait_s(30.0) == 1.0
    breaker.tell(number, GOOD, now=31, chance=half)
    assert breaker.wait_s(31) is None
    told(breaker, BAD, at=31)
    assert isinstance(breaker.state, HalfOpen)
    told(breaker, GOOD, at=32)
    assert isinstance(breaker.state, Closed)

    breaker = opened()
    told(breaker, BAD, GOOD, at=30)
    assert isinstance(breaker.state, HalfOpen)
    told(breaker, BAD, at=30)
    assert breaker.wait_s(30) == 60
    told(breaker, BAD, BAD, at=90)
    assert breaker.wait_s(90) == 90


def test_a_trial_that_says_nothing_is_tried_again() -> None:
    """The caller left in the middle of it."""
    breaker = opened()
    told(breaker, NOTHING, NOTHING, NOTHING, at=30)
    assert breaker.wait_s(30) is None
    assert isinstance(breaker.state, HalfOpen)


def test_it_is_never_open_for_longer_than_five_minutes() -> None:
    """And a fifth."""
    breaker, now = opened(), 30.0
    for _ in range(50):
        told(breaker, BAD, BAD, at=now, chance=1.0)
        wait_s = breaker.wait_s(now)
        assert wait_s is not None and wait_s <= 360
        now += wait_s
    assert wait_s == 360


def test_a_late_answer_of_an_earlier_state_is_ignored() -> None:
    """Those that began before it opened say nothing of what is now."""
    breaker = Breaker(POLICY)
    early = [breaker.enter(0.0) for _ in range(30)]
    told(breaker, *[UNREACHED] * 5)
    for number in early:
        assert not breaker.tell(number, GOOD, now=1, chance=half)
    assert breaker.wait_s(1) == 29
    breaker.enter(30)
    assert not breaker.tell(early[0], GOOD, now=31, chance=half)
    assert breaker.wait_s(31) == 1.0


def test_a_stream_that_began_well_and_broke_off_is_one_failure() -> None:
    """Its beginning was told, so that nobody waits an hour for it; its end stands for that."""
    breaker = Breaker(POLICY)
    numbers = [breaker.enter(0.0) for _ in range(40)]
    for number in numbers:
        breaker.tell(number, GOOD, now=0, chance=half)
    for number in numbers[:19]:
        assert not breaker.tell(number, BAD, now=1, chance=half, was_good=True)
    assert breaker.tell(numbers[19], BAD, now=1, chance=half, was_good=True)
    assert breaker.name == "open"


def test_streams_that_began_long_ago_count_when_they_break_off() -> None:
    """Their beginning has left the window."""
    breaker = Breaker(POLICY)
    numbers = [breaker.enter(0.0) for _ in range(20)]
    told(breaker, *[GOOD] * 20)
    changed = [breaker.tell(number, BAD, now=600, chance=half, was_good=True) for number in numbers]
    assert changed == [False] * 19 + [True]


def test_a_trial_that_has_begun_leaves_the_next_one_alone() -> None:
    """It ends while another one tries: still nobody else may; and its failure stands for its beginning."""
    for verdict in (NOTHING, BAD):
        breaker = opened()
        first = breaker.enter(30.0)
        breaker.tell(first, GOOD, now=31, chance=half)
        second = breaker.enter(31.0)
        breaker.tell(first, verdict, now=32, chance=half, was_good=True)
        assert breaker.wait_s(32) == 1.0
        breaker.tell(second, GOOD, now=33, chance=half)
        assert breaker.name == ("closed" if verdict is NOTHING else "half_open")


def test_the_same_policy_again_forgets_nothing() -> None:
    """Somebody reads the settings again each second."""
    breaker = Breaker(POLICY)
    for _ in range(5):
        number = breaker.enter(0.0)
        breaker.use(BreakerPolicy())
        breaker.tell(number, UNREACHED, now=0, chance=half)
    assert breaker.name == "open"
    breaker = Breaker(POLICY)
    told(breaker, *[UNREACHED] * 4)
    breaker.use(BreakerPolicy(open_s=1))
    told(breaker, UNREACHED)
    assert breaker.name == "closed"


def test_one_that_is_off_opens_for_nothing_but_the_hand() -> None:
    """`enabled: false`."""
    breaker = Breaker(BreakerPolicy(enabled=False))
    told(breaker, *[UNREACHED] * 100)
    assert isinstance(breaker.state, Closed)
    breaker.isolate()
    assert breaker.wait_s(0) == float("inf")


def test_by_hand_it_is_opened_and_closed() -> None:
    """Without an end, and at once."""
    breaker = Breaker(POLICY)
    breaker.isolate()
    assert breaker.wait_s(1e9) == float("inf")
    breaker.restore()
    assert breaker.wait_s(0) is None
    breaker = opened()
    breaker.restore()
    assert breaker.wait_s(0) is None


def test_the_time_is_drawn() -> None:
    """Breakers of many gateways do not try together."""
    waits = set()
    for chance in (0.0, 0.5, 1.0):
        breaker = Breaker(POLICY)
        told(breaker, *[UNREACHED] * 5, chance=chance)
        waits.add(breaker.wait_s(0.0))
    assert waits == {24, 30, 36}


class Machine(RuleBasedStateMachine):
    """Calls that come, run and end in any order, beside what must hold of any breaker."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(BreakerPolicy(calls_min=4, in_a_row=2, open_s=10))
        self.now = 0.0
        self.running: list[int] = []
        self.begun: list[int] = []
        """Those that have told that they began well."""

    @rule(seconds=st.floats(0, 15))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.breaker.wait_s(self.now) is None)
    @rule()
    def one_enters(self) -> None:
        self.running.append(self.breaker.enter(self.now))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def one_begins(self, data: st.DataObject) -> None:
        number = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        self.breaker.tell(number, GOOD, now=self.now, chance=half)
        self.begun.append(number)

    @precondition(lambda self: self.running or self.begun)
    @rule(data=st.data(), verdict=st.sampled_from(Verdict), chance=st.floats(0, 1))
    def one_ends(self, data: st.DataObject, verdict: Verdict, chance: float) -> None:
        place = data.draw(st.integers(0, len(self.running) + len(self.begun) - 1))
        was_good = place >= len(self.running)
        number = self.begun.pop(place - len(self.running)) if was_good else self.running.pop(place)
        if was_good and verdict is GOOD:
            return
        before = self.breaker.state
        changed = self.breaker.tell(number, verdict, now=self.now, chance=lambda: chance, was_good=was_good)
        assert changed == (self.breaker.state is not before)
        if verdict in (GOOD, NOTHING):
            assert not isinstance(self.breaker.state, Open) or isinstance(before, Open)

    @rule()
    def by_hand(self) -> None:
        self.breaker.isolate()
        assert isinstance(self.breaker.state, Isolated)
        self.breaker.restore()

    @invariant()
    def it_says_for_how_long(self) -> None:
        wait_s = self.breaker.wait_s(self.now)
        assert wait_s is None or 0 < wait_s <= 360

    @invariant()
    def one_at_a_time_tries(self) -> None:
        if isinstance(self.breaker.state, HalfOpen):
            own = self.running.count(self.breaker._number)
            assert own == self.breaker.state.is_tried
            assert self.breaker.state.good >= 0


TestMachine = Machine.TestCase
