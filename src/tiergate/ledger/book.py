"""The book: places holds before money can be spent, and settles each exactly once.

A hold is handed to the journal no earlier than it is counted against its ceilings, and a settlement just when
it is given back. So whatever part of its records a crash leaves keeps every ceiling.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from tiergate.core import (
    BudgetReached,
    Emit,
    Event,
    Target,
    Unaffordable,
)
from tiergate.ledger.ceilings import (
    Balance,
    Ceiling,
    Ceilings,
    Claim,
    Key,
    Reservation,
    Scope,
    SpentBy,
    Total,
    Whose,
    about,
    about_entry,
    totals,
)
from tiergate.ledger.ports import SoleJournal
from tiergate.ledger.records import CallClosed, Held, Settled, not_sent
from tiergate.ledger.slices import LapsedSlice, claim_of, lapsed_of, must_draw, slice_of
from tiergate.ledger.verdict import busy, must_wait
from tiergate.ledger.windows import Window

_NEVER_NANOS: Final = 1 << 63
_WAITING_MAX: Final = 1_000
"""So many may wait for money at one time; each of them is looked at when some is given back."""


@dataclass(slots=True)
class _Waiter:
    reservation: Reservation
    target: Target
    balances: list[Balance]
    granted: "asyncio.Future[bool]"
    """True: the money is held; False: look again, at other balances or after drawing a slice."""


def _tell_nobody(event: Event) -> None:
    """Take no notice."""


class SoleBook:
    """A `Book` for a store with one owner: what is spent and held is in this process's memory.

    Args:
        journal: keeps the records.
        ceilings: what may be spent.
        alerts_at: shares of a ceiling that somebody is told of when they are spent.
        emit: hears of them.
    """

    def __init__(
        self,
        journal: SoleJournal,
        *,
        ceilings: Iterable[Ceiling] = (),
        alerts_at: Sequence[float] = (),
        emit: Emit = _tell_nobody,
    ) -> None:
        self._journal = journal
        self._ceilings = Ceilings(ceilings)
        self._alerts_at = tuple(sorted(alerts_at))
        self._emit = emit
        self._waiting: deque[_Waiter] = deque()
        self._loading = asyncio.Lock()
        self._drawing = asyncio.Lock()

    async def open(self) -> list[LapsedSlice]:
        """Find what a loss of power took the records of; before anything is held. Gives what lapsed now.

        Raises:
            StorageUnavailable: not now.
        """
        found = []
        before = {(one.ceiling, one.start_ns): one.nanos for one in await self._journal.lapsed_slices()}
        by_window: dict[Window, dict[Whose, Total]] = {}
        for dead in await self._journal.dead_slices():
            ceiling = claim_of(dead).ceiling
            if ceiling.scope is Scope.JOB:
                spent = totals(await self._journal.spent_of_jobs([ceiling.name]))
            else:
                spent = by_window.get(dead.window) or totals(
                    await self._journal.spent(dead.window.start_ns, dead.window.end_ns)
                )
                by_window[dead.window] = spent
            # What lapsed before is in the mark, and in no record.
            lapsed = max(0, lapsed_of(dead, spent) - before.get((dead.ceiling, dead.window.start_ns), 0))
            await self._journal.lapse_slice(dead, lapsed)
            if lapsed:
                found.append(LapsedSlice(dead.ceiling, dead.window.start_ns, lapsed))
        known = await self._journal.lapsed_slices()
        self._ceilings.take_lapsed({Key(one.ceiling, one.start_ns): one.nanos for one in known})
        return found

    def use(self, ceilings: Iterable[Ceiling], *, alerts_at: Sequence[float]) -> None:
        """Take new ceilings; what is spent and held stays."""
        self._ceilings.use(ceilings)
        self._alerts_at = tuple(sorted(alerts_at))
        self._admit()

    async def hold(self, held: Held, *, wait_s: float = 0) -> None:
        """Place a hold; when this returns it is committed, and the attempt may send its first byte.

        `wait_s`: how long it may wait where it fits only once others have settled.

        Raises:
            Unaffordable: a ceiling does not allow it; nothing was held.
            StorageUnavailable: nothing was held, nothing may be sent.
        """
        call = held.opened.call
        reservation = Reservation(
            call.id, held.n, about(held.opened, held.target), call.received_ns, held.bound_nanos
        )
        if not self._ceilings.covering(reservation.about):
            self._ceilings.reserve(reservation)
        else:
            await self._get_in(reservation, held.target, wait_s)
        try:
            await self._write(held)
        except BaseException:
            # Nothing was sent for it, whatever the journal makes of it.
            self._free(held.call_id, held.n, 0)
            raise

    async def _write(self, held: Held) -> None:
        try:
            await self._journal.hold(held)
        except asyncio.CancelledError:
            # The hold may be on its way to the disk. Whether it arrives or not, nothing was sent for it.
            self._journal.settle(not_sent(held))
            raise

    def settle(self, settled: Settled) -> None:
        """Replace a hold by the truth. Returns at once, cannot fail."""
        self._journal.settle(settled)
        self._free(settled.call_id, settled.n, settled.cash_nanos)

    def close(self, closed: CallClosed) -> None:
        """Write the end of a call. Returns at once, cannot fail."""
        self._journal.close(closed)

    async def resolve(self, call_id: str, n: int, cash_nanos: int) -> bool:
        """Settle a lapsed attempt with what it is now known to have cost; False: there is none.

        Whoever asked may go away: what is written is counted.

        Raises:
            StorageUnavailable: nothing was changed.
        """
        return await asyncio.shield(self._resolve(call_id, n, cash_nanos))

    async def _resolve(self, call_id: str, n: int, cash_nanos: int) -> bool:
        async with self._loading:
            entry = await self._journal.entry(call_id)
            if entry is None or not await self._journal.resolve(call_id, n, cash_nanos):
                return False
            (attempt,) = [one for one in entry.attempts if one.n == n]
            worst = attempt.bound_nanos or 0
            for balance in self._ceilings.balances(about_entry(entry, attempt), entry.received_ns):
                balance.spent_nanos += cash_nanos - worst
                balance.lapsed_nanos -= worst
        self._admit()
        return True

    async def adjust(self, call_id: str, n: int, delta_nanos: int, reason: str) -> bool:
        """Correct what a settled attempt cost, by an adjustment beside it; False: there is none.

        Whoever asked may go away: what is written is counted.

        Raises:
            StorageUnavailable: nothing was changed.
        """
        return await asyncio.shield(self._adjust(call_id, n, delta_nanos, reason))

    async def _adjust(self, call_id: str, n: int, delta_nanos: int, reason: str) -> bool:
        async with self._loading:
            entry = await self._journal.entry(call_id)
            if entry is None or not await self._journal.adjust(call_id, n, delta_nanos, reason):
                return False
            (attempt,) = [one for one in entry.attempts if one.n == n]
            for balance in self._ceilings.balances(about_entry(entry, attempt), entry.received_ns):
                balance.spent_nanos += delta_nanos
        self._admit()
        return True

    async def balances(self, at_ns: int) -> list[Balance]:
        """Give the balance of every ceiling in the window that a moment lies in.

        Raises:
            StorageUnavailable: the ledger cannot be read now.
        """
        current = self._ceilings.current(at_ns)
        await self._load(current)
        return [found for one in current if (found := self._ceilings.balance(*one)) is not None]

    # Reserving.

    async def _get_in(self, reservation: Reservation, target: Target, wait_s: float) -> None:
        """Count a hold against its ceilings, at once or when others have settled."""
        ends = asyncio.get_running_loop().time() + wait_s
        left_s = wait_s
        # A wait can end with a look at other balances: the settings were read again, or a day has ended.
        while not await self._took(reservation, target, await self._load_for(reservation), left_s):
            left_s = ends - asyncio.get_running_loop().time()

    async def _took(
        self, reservation: Reservation, target: Target, balances: list[Balance], wait_s: float
    ) -> bool:
        """Count a hold against these balances; False: they are no longer its balances."""
        queued = {id(balance) for waiter in self._waiting for balance in waiter.balances}
        if not must_wait(reservation.amount_nanos, target, balances, queued):
            amount = reservation.amount_nanos or 0
            if any(must_draw(balance, amount) for balance in balances):
                await self._draw(balances, amount)
                return False  # others may have come in between
            self._ceilings.reserve(reservation)
            return True
        if wait_s <= 0 or len(self._waiting) >= _WAITING_MAX:
            raise busy(reservation.amount_nanos, target, balances)
        waiter = _Waiter(reservation, target, balances, asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        try:
            async with asyncio.timeout(wait_s):
                return await waiter.granted
        except TimeoutError as error:
            self._give_up(waiter)
            raise busy(reservation.amount_nanos, target, waiter.balances) from error
        except asyncio.CancelledError:
            self._give_up(waiter)
            raise

    async def _draw(self, balances: Sequence[Balance], amount: int) -> None:
        """Write down how far the spending of ceilings may go, if nobody else just has."""
        async with self._drawing:
            short = [balance for balance in balances if must_draw(balance, amount)]
            if not short:
                return
            slices = [slice_of(balance, amount) for balance in short]
            await self._journal.draw(slices)
            for balance, drawn in zip(short, slices, strict=True):
                balance.drawn_nanos = max(balance.drawn_nanos, drawn.amount_nanos)

    def _give_up(self, waiter: _Waiter) -> None:
        # The money may have been given in the same turn of the loop in which the wait was called off.
        if waiter in self._waiting:
            self._waiting.remove(waiter)
        elif _is_granted(waiter.granted):
            self._free(waiter.reservation.call_id, waiter.reservation.n, 0)
        self._admit()

    def _free(self, call_id: str, n: int, cash_nanos: int | None) -> None:
        for balance in self._ceilings.settle(call_id, n, cash_nanos):
            if balance.spent_nanos >= balance.tell_at_nanos:
                self._tell_if_reached(balance)
        if self._waiting:
            self._admit()

    def _admit(self) -> None:
        """Give money to those who wait, in their order; nobody overtakes whom the same balance holds up."""
        held_up: set[int] = set()
        for waiter in tuple(self._waiting):
            asked = waiter.reservation
            balances = self._ceilings.loaded(asked.about, asked.received_ns)
            if balances is None:
                self._waiting.remove(waiter)
                if not waiter.granted.done():
                    waiter.granted.set_result(False)
                continue
            waiter.balances = balances
            if any(id(balance) in held_up for balance in waiter.balances):
                held_up.update(map(id, waiter.balances))
                continue
            try:
                if must_wait(asked.amount_nanos, waiter.target, waiter.balances, held_up):
                    held_up.update(map(id, waiter.balances))
                    continue
            except Unaffordable as error:
                self._waiting.remove(waiter)
                if not waiter.granted.done():
                    waiter.granted.set_exception(error)
                continue
            self._waiting.remove(waiter)
            if not waiter.granted.done():
                is_drawn = not any(must_draw(balance, asked.amount_nanos or 0) for balance in balances)
                if is_drawn:
                    self._ceilings.reserve(asked)
                waiter.granted.set_result(is_drawn)

    def _tell_if_reached(self, balance: Balance) -> None:
        amount = balance.ceiling.amount_nanos
        spent = balance.spent_nanos / amount if amount else 1.0
        passed = [share for share in self._alerts_at if balance.reached < share <= spent]
        coming = [share for share in self._alerts_at if share > max(spent, balance.reached)]
        balance.tell_at_nanos = int(min(coming) * amount) if coming else _NEVER_NANOS
        if passed:
            balance.reached = passed[-1]
            self._emit(
                BudgetReached(
                    budget=balance.ceiling.id,
                    share=passed[-1],
                    spent_nanos=balance.spent_nanos,
                    held_nanos=balance.held_nanos,
                    amount_nanos=amount,
                    window_start_ns=balance.window.start_ns,
                    window_end_ns=balance.window.end_ns,
                )
            )

    # Loading.

    async def _load_for(self, reservation: Reservation) -> list[Balance]:
        about, received_ns = reservation.about, reservation.received_ns
        while (found := self._ceilings.loaded(about, received_ns)) is None:
            await self._load(self._ceilings.missing(about, received_ns))
        return found

    async def _load(self, wanted: Sequence[Claim]) -> None:
        """Ask the ledger what was spent in windows that are not known yet, one span after the other."""
        async with self._loading:
            missing = [Claim(*one) for one in wanted if self._ceilings.balance(*one) is None]
            jobs = [claim for claim in missing if claim.ceiling.scope is Scope.JOB]
            spans: dict[Window, list[Claim]] = {}
            for claim in missing:
                if claim.ceiling.scope is not Scope.JOB:
                    spans.setdefault(claim.window, []).append(claim)
            if jobs:
                # All of a job is of one window, and asking for it costs no look at everything else.
                names = [claim.ceiling.name for claim in jobs]
                await self._load_span(jobs, partial(self._journal.spent_of_jobs, names))
            for window, claims in spans.items():
                self._ceilings.forget_before(window.start_ns)
                await self._load_span(claims, partial(self._journal.spent, window.start_ns, window.end_ns))

    async def _load_span(self, claims: Sequence[Claim], ask: Callable[[], Awaitable[list[SpentBy]]]) -> None:
        self._ceilings.begin_load()
        try:
            spent = await ask()
        except BaseException:
            self._ceilings.abandon_load()
            raise
        self._ceilings.end_load(claims, spent)
        self._admit()


def _is_granted(granted: "asyncio.Future[bool]") -> bool:
    return granted.done() and not granted.cancelled() and not granted.exception() and granted.result()
