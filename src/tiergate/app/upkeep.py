"""What a house does for its ledger while it serves: adds up what is over, forgets what is old."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

from tiergate.app.cabinet import KeyCabinet
from tiergate.config import Retention, Settings
from tiergate.core import Clock, StorageUnavailable

FIRST_AFTER_S: Final = 5.0
EACH_S: Final = 60.0
KEYS_EACH_S: Final = 5.0
"""So long a key can be good elsewhere after it was revoked at one replica."""
_BETWEEN_STEPS_S: Final = 0.05
"""Deleting is bounded in each step, and calls go on in between."""
_LONGEST_WINDOW_NS: Final = 32 * 86_400 * 1_000_000_000
"""A month of a budget, in any time zone."""
_CLOSED_AFTER_NS: Final = 60 * 1_000_000_000
"""So long after its end a slot is added up: records of refused calls come a little late."""


class Ledger(Protocol):
    """What it works on; `store.LedgerJournal` says more."""

    async def add_up(self, *, closed_before_ns: int) -> bool:
        """Add up one slot; False: there is none."""
        ...

    async def forget(self, *, calls_before_ns: int, rollups_before_ns: int) -> bool:
        """Delete some old records; False: none is left."""
        ...

    async def forget_receipts(self, before_ns: int) -> bool:
        """Delete some old receipts; False: none is left."""
        ...


async def keep_up(
    ledger: Ledger, settings: Callable[[], Settings], clock: Clock, *, counts_all: Callable[[], bool]
) -> None:
    """Look after a ledger until it is cancelled. What cannot be done now waits: no call depends on it.

    What is old is told by the clock as it was at the start and the time since: one that jumps ahead makes
    nothing old.

    Args:
        ledger: to be looked after.
        settings: gives those in force.
        clock: says how late it is.
        counts_all: tells whether a budget counts all that was ever spent; then no sum goes.
    """
    start_ns, start = clock.wall_ns(), clock.monotonic()
    await asyncio.sleep(FIRST_AFTER_S)
    while True:
        now_ns = min(clock.wall_ns(), start_ns + int((clock.monotonic() - start) * 1e9))
        with suppress(StorageUnavailable):  # the ledger has told of its trouble itself
            await _one_round(ledger, settings().retention, now_ns, keeps_sums=counts_all())
        await asyncio.sleep(EACH_S)


async def follow_keys(cabinet: KeyCabinet) -> None:
    """Take over what other replicas do with virtual keys, until it is cancelled."""
    while True:
        await asyncio.sleep(KEYS_EACH_S)
        with suppress(StorageUnavailable):  # whoever needs the ledger for more than keys tells of it
            await cabinet.refresh()


async def _one_round(ledger: Ledger, kept: Retention, now_ns: int, *, keeps_sums: bool) -> None:
    while await ledger.add_up(closed_before_ns=now_ns - _CLOSED_AFTER_NS):
        pass
    calls_before_ns = now_ns - int(kept.calls * 1e9)
    # Sums of kept calls are kept, since reports take them from there, and those that a budget counts.
    rollups_before_ns = min(calls_before_ns, now_ns - int(kept.rollups * 1e9), now_ns - _LONGEST_WINDOW_NS)
    if keeps_sums:
        rollups_before_ns = 0
    is_left = True
    while is_left:
        is_left = await ledger.forget(calls_before_ns=calls_before_ns, rollups_before_ns=rollups_before_ns)
        await asyncio.sleep(_BETWEEN_STEPS_S)
    is_left = True
    while is_left:
        is_left = await ledger.forget_receipts(now_ns - int(kept.receipts * 1e9))
        await asyncio.sleep(_BETWEEN_STEPS_S)
