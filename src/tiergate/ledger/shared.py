"""A book for a store with several owners: the store itself says what fits, in the transaction that holds it.

What is spent and held stands in the store beside the records. So no two owners can see the same free money,
and one that dies takes none of it along. A hold that has to wait asks again when something settles here, and
every moment, since others settle elsewhere.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

from tiergate.core import BudgetBusy, BudgetReached, Clock, Emit, StorageUnavailable
from tiergate.ledger.ceilings import Balance, Ceiling, Ceilings, Claim, about
from tiergate.ledger.ports import SharedJournal
from tiergate.ledger.records import CallClosed, Held, Settled, not_sent
from tiergate.ledger.verdict import BalanceMissing
from tiergate.ledger.windows import Window

_ASK_AGAIN_S: Final = 0.05
_WATCH_S: Final = 1.0
_MAKE_MAX: Final = 3
"""So often a balance is made that somebody takes away."""
_GONE: Final = (
    "The balance of a budget goes from the ledger again and again. Does somebody delete rows in it?"
)
_WAITING_MAX: Final = 1_000
"""So many may wait for money at one time; all of them ask again together."""


class SharedBook:
    """A `Book` in front of a journal that others write, too.

    Args:
        journal: keeps the records and the balances.
        ceilings: what may be spent.
        alerts_at: shares of a ceiling that somebody is told of when they are spent, by one of the owners.
        emit: hears of them.
    """

    def __init__(
        self,
        journal: SharedJournal,
        *,
        ceilings: Iterable[Ceiling] = (),
        alerts_at: Sequence[float] = (),
        emit: Emit,
    ) -> None:
        self._journal = journal
        self._ceilings = Ceilings(ceilings)
        self._alerts_at = tuple(sorted(alerts_at))
        self._emit = emit
        self._known: set[tuple[str, Window]] = set()
        """Balances that are there already."""
        self._waiting: deque[asyncio.Future[None]] = deque()

    def use(self, ceilings: Iterable[Ceiling], *, alerts_at: Sequence[float]) -> None:
        """Take new ceilings; see `Book`."""
        self._ceilings.use(ceilings)
        self._alerts_at = tuple(sorted(alerts_at))
        self._wake()

    async def hold(self, held: Held, *, wait_s: float = 0) -> None:
        """Place a hold; see `Book`."""
        ends = asyncio.get_running_loop().time() + wait_s
        is_first = True
        while True:
            # Looked up each time: the settings may have been read again.
            claims = self._ceilings.claims(about(held.opened, held.target), held.opened.call.received_ns)
            if not (is_first and self._waiting and claims and wait_s > 0):
                try:
                    await self._ask(held, claims)
                except BudgetBusy:
                    if asyncio.get_running_loop().time() >= ends or len(self._waiting) >= _WAITING_MAX:
                        raise
                else:
                    return
            # Whoever comes while others wait asks behind them.
            is_first = False
            await self._turn()

    async def _ask(self, held: Held, claims: Sequence[Claim]) -> None:
        for _ in range(_MAKE_MAX):
            await self._make(claims)
            try:
                await self._write(held, claims)
            except BalanceMissing:
                # It was there once. What else may be gone is not known any more, either.
                self._known.clear()
            else:
                return
        raise StorageUnavailable(_GONE)

    async def _make(self, claims: Sequence[Claim]) -> None:
        """See that the balances are there."""
        missing = [claim for claim in claims if _name(claim) not in self._known]
        if missing:
            await self._journal.balances(missing)
            self._known.update(map(_name, missing))

    async def _write(self, held: Held, claims: Sequence[Claim]) -> None:
        try:
            await self._journal.hold(held, claims)
        except asyncio.CancelledError:
            # The hold may be on its way to the store. Whether it arrives or not, nothing was sent for it.
            self._journal.settle(not_sent(held))
            raise

    async def _turn(self) -> None:
        """Wait until something has settled here, or a moment has passed; in the order of asking."""
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(mine)
        try:
            async with asyncio.timeout(_ASK_AGAIN_S):
                await mine
        except TimeoutError:
            pass
        finally:
            if mine in self._waiting:
                self._waiting.remove(mine)

    def _wake(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)

    def settle(self, settled: Settled) -> None:
        """Replace a hold by the truth; see `Book`."""
        self._journal.settle(settled)
        self._wake()

    def close(self, closed: CallClosed) -> None:
        """Write the end of a call; see `Book`."""
        self._journal.close(closed)

    async def resolve(self, call_id: str, n: int, cash_nanos: int) -> bool:
        """Settle a lapsed attempt; see `Book`."""
        return await self._journal.resolve(call_id, n, cash_nanos)

    async def adjust(self, call_id: str, n: int, delta_nanos: int, reason: str) -> bool:
        """Correct what a settled attempt cost; see `Book`."""
        return await self._journal.adjust(call_id, n, delta_nanos, reason)

    async def balances(self, at_ns: int) -> list[Balance]:
        """Give the balance of every ceiling; see `Book`."""
        claims = self._ceilings.current(at_ns)
        found = await self._journal.balances(claims)
        self._known.update(map(_name, claims))
        return found

    async def watch(self, clock: Clock) -> None:
        """Tell of the shares of ceilings that are spent, until it is cancelled."""
        while True:
            await asyncio.sleep(_WATCH_S)
            if self._alerts_at and self._ceilings.current(0):
                try:
                    await self._look(clock.wall_ns())
                except StorageUnavailable:
                    continue  # the journal tells of its trouble itself

    async def _look(self, at_ns: int) -> None:
        for balance in await self.balances(at_ns):
            reached = [share for share in self._alerts_at if share <= balance.share]
            if not reached or reached[-1] <= balance.reached:
                continue
            claim = Claim(balance.ceiling, balance.window)
            if await self._journal.tell(claim, reached[-1]):
                self._emit(
                    BudgetReached(
                        budget=balance.ceiling.id,
                        share=reached[-1],
                        spent_nanos=balance.spent_nanos,
                        held_nanos=balance.held_nanos,
                        amount_nanos=balance.ceiling.amount_nanos,
                        window_start_ns=balance.window.start_ns,
                        window_end_ns=balance.window.end_ns,
                    )
                )


def _name(claim: Claim) -> tuple[str, Window]:
    return claim.ceiling.id, claim.window
