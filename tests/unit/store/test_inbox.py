"""The inbox wakes the thread at once for what is awaited, and once for the rest."""

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from contract.ledger_records import settled
from tiergate.store.inbox import FlushMessage, Inbox, SettleMessage
from tiergate.store.rows import settle_row

LONG_S = 30.0


@pytest.fixture
def awaited() -> Iterator[FlushMessage]:
    """A message that somebody awaits."""
    loop = asyncio.new_event_loop()
    yield FlushMessage(loop.create_future())
    loop.close()


def settlement(number: int) -> SettleMessage:
    return SettleMessage(settle_row(settled(number), 1))


def test_what_is_awaited_is_taken_at_once(awaited: FlushMessage) -> None:
    """No lingering, and what came before it is taken with it, in order."""
    inbox = Inbox()
    inbox.put(settlement(1))
    inbox.put_awaited(awaited)

    began = time.monotonic()
    assert inbox.take(wait_s=LONG_S, linger_s=LONG_S) == [settlement(1), awaited]
    assert time.monotonic() - began < LONG_S / 2


def test_the_rest_lingers_until_something_awaited_comes(awaited: FlushMessage) -> None:
    """Settlements wait for a hold, which ends the lingering."""
    inbox = Inbox()
    inbox.put(settlement(1))
    inbox.put(settlement(2))
    other = threading.Timer(0.05, inbox.put_awaited, [awaited])
    other.start()

    began = time.monotonic()
    taken = inbox.take(wait_s=LONG_S, linger_s=LONG_S)
    assert time.monotonic() - began < LONG_S / 2
    assert taken == [settlement(1), settlement(2), awaited]
    other.join()


def test_the_rest_is_taken_when_nothing_else_comes() -> None:
    """Lingering ends by itself, and nothing is left behind for the next turn."""
    inbox = Inbox()
    inbox.put(settlement(1))

    assert inbox.take(wait_s=LONG_S, linger_s=0.01) == [settlement(1)]
    assert inbox.take(wait_s=0.01, linger_s=LONG_S) == []


def test_nothing_is_lost_or_late_between_two_threads() -> None:
    """Ten thousand messages while the other side takes: all arrive, in order, and none waits for the next."""
    inbox = Inbox()
    count = 10_000

    def put() -> None:
        for number in range(count):
            inbox.put(SettleMessage((number,)))

    other = threading.Thread(target=put)
    other.start()
    taken: list[object] = []
    deadline = time.monotonic() + LONG_S
    while len(taken) < count and time.monotonic() < deadline:
        messages = inbox.take(wait_s=1.0, linger_s=0.0)
        taken += [message.row[0] for message in messages if isinstance(message, SettleMessage)]
    other.join()
    assert taken == list(range(count))
    assert time.monotonic() < deadline
