"""Batches of a house: where they rest, how their lines are asked, and what is forgotten of them."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Final

from tiergate.app.entropy import Entropy
from tiergate.batch import Batches, Estimator, LineAsks, Runner, Said, Shifts
from tiergate.config import Settings
from tiergate.core import Clock, Emit, StorageUnavailable, TiergateError
from tiergate.serve import Rooms
from tiergate.store import LedgerJournal, Place
from tiergate.web import answer_to

_FORGET_EACH_S: Final = 600.0


async def open_batches(
    stack: AsyncExitStack,
    settings: Settings,
    rooms: Rooms,
    place: Place,
    journal: LedgerJournal,
    *,
    on_ceilings: Callable[[], None],
    tell: Emit,
    is_idle: bool,
) -> Batches:
    """Open the batches that are kept beside a ledger. They go on once `Shifts.open` is called.

    Raises:
        CannotStart: they cannot be read.
    """
    store = await stack.enter_async_context(place.jobs(epoch=journal.owner.epoch))
    asks = LineAsks(
        rooms,
        caller_of=rooms.admission.named,
        lapsed_of=journal.lapsed_lines,
        say=_said,
        randomness=Entropy(),
    )
    estimator = Estimator(rooms, journal)

    shifts = Shifts(
        store,
        asks,
        partial(Runner, store=store, lane=asks, clock=rooms.clock),
        estimator=estimator,
        book=rooms.book,
        journal=journal,
        on_ceilings=on_ceilings,
        clock=rooms.clock,
        emit=tell,
        at_once=settings.limits.batches,
        is_idle=is_idle,
    )
    stack.push_async_callback(shifts.aclose)
    return Batches(store, shifts, estimator, clock=rooms.clock, randomness=Entropy())


async def forget_batches(batches: Batches, settings: Callable[[], Settings], clock: Clock) -> None:
    """Delete old batches and files, again and again, until it is cancelled."""
    while True:
        await asyncio.sleep(_FORGET_EACH_S)
        before_ns = clock.wall_ns() - int(settings().retention.jobs * 1e9)
        with suppress(StorageUnavailable):  # nothing depends on it; the next turn tries again
            await batches.store.forget(before_ns)


def _said(error: TiergateError) -> Said:
    answer = answer_to(error)
    return Said(answer.status, answer.code, answer.body)
