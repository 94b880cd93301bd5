"""The alarm of fast spending: what it counts, what it says, and what a reload changes."""

from msgspec.structs import replace

from tiergate.app.alarm import SpendAlarm
from tiergate.core import CallClass, CallEnded, EndState, Event, Notice, SpendingFast
from tiergate.testing import FakeClock

USD = 1_000_000_000
CALL = CallEnded(
    call_id="01call",
    wall_ns=0,
    endpoint="chat",
    key="ci",
    team=None,
    tag=None,
    asked_model="m",
    call_class=CallClass.INTERACTIVE,
    streamed=True,
    end=EndState.CLIENT_CLOSED,
    error_code=None,
    target=None,
    attempts=1,
    ttft_ms=None,
    total_ms=1.0,
    usage=None,
    usage_source=None,
    cash_nanos=3 * USD,
    generation=1,
)


class Listener:
    """An alarm at 5 USD an hour, time in hand, and what it says."""

    def __init__(self, limit_nanos: int | None = 5 * USD) -> None:
        self.clock = FakeClock()
        self.told: list[Event] = []
        self.alarm = SpendAlarm(limit_nanos, monotonic=self.clock.monotonic, emit=self.told.append)


def test_it_says_which_key_how_much_and_against_what() -> None:
    """Whatever way the calls ended; of two keys each by itself."""
    listener = Listener()
    for key in ("ci", "web", "ci"):
        listener.alarm(replace(CALL, key=key))
    assert listener.told == [SpendingFast(key="ci", spent_nanos=6 * USD, limit_nanos=5 * USD)]
    listener.alarm(CALL)
    listener.clock.advance(3_599)
    listener.alarm(CALL)
    assert len(listener.told) == 1
    listener.clock.advance(1)
    listener.alarm(CALL)
    assert len(listener.told) == 2


def test_calls_that_cost_nothing_that_is_known_are_not_counted() -> None:
    """No price, a private target, somebody else's answer; and other events."""
    listener = Listener(limit_nanos=1)
    for nanos in (None, 0):
        listener.alarm(replace(CALL, cash_nanos=nanos))
    listener.alarm(Notice(word="other", message="is no call"))
    assert not listener.told


def test_a_reload_brings_another_limit() -> None:
    """Also one where there was none; without one nothing is said."""
    listener = Listener(limit_nanos=None)
    listener.alarm(replace(CALL, cash_nanos=100 * USD))
    assert not listener.told
    listener.alarm.use(5 * USD)
    listener.alarm(CALL)
    assert not listener.told
    listener.alarm.use(2 * USD)
    listener.alarm(replace(CALL, cash_nanos=1))
    assert [event.limit_nanos for event in listener.told if isinstance(event, SpendingFast)] == [2 * USD]
