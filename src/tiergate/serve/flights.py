"""All flights in the air: whoever asks what is being asked already joins, everybody else opens one."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final

from tiergate.core import Call, Clock, DeadlineExceeded, Emit, IdempotencyKeyInUse
from tiergate.ledger import (
    Answered,
    Book,
    CallOpened,
    Fresh,
    Journal,
    Receipt,
    ReceiptMaker,
    compare,
    judge,
)
from tiergate.serve.books import STOPPING, CallBooks
from tiergate.serve.flight import Ask, Flight
from tiergate.serve.reader import Reader
from tiergate.wire import canonical

_LOOK_AGAIN_MIN_S: Final = 0.05
_LOOK_AGAIN_MAX_S: Final = 1.0
_HASHED_BESIDE_BYTES: Final = 1024 * 1024
"""A longer question is hashed in another thread: the loop has others to look after."""


class Flights:
    """All that are in the air. `aclose` ends them.

    Args:
        journal: knows the receipts.
        maker: makes them.
        book, clock, emit: for the entries of readers.
        receipts_kept_s: how long an answer is given again.
    """

    def __init__(
        self,
        journal: Journal,
        maker: ReceiptMaker,
        *,
        book: Book,
        clock: Clock,
        emit: Emit,
        receipts_kept_s: float = 86_400.0,
    ) -> None:
        self._journal = journal
        self._maker = maker
        self._book = book
        self._clock = clock
        self._emit = emit
        self._by_scope: dict[tuple[str, str, bytes], Flight] = {}
        self._all: set[Flight] = set()
        self.receipts_kept_s = receipts_kept_s

    async def board(
        self, call: Call, ask: Ask, *, generation: int, deadline: float, drain_s: Callable[[str], float]
    ) -> Reader:
        """Join the flight of the same question, or open one.

        `deadline`: on the monotonic clock. `drain_s`: by a provider's name, for how long the rest of an
        answer is read for its usage when nobody waits for it.

        Raises:
            IdempotencyKeyReused: the call's receipt is of another question.
            IdempotencyKeyInUse: the flight has gone too far to be joined.
        """
        opened = CallOpened(
            call=call,
            generation=generation,
            deadline_ns=call.received_ns + int((deadline - call.received) * 1e9),
            route="[]",
        )
        receipt = await self._receipt(call)
        flight = None if receipt is None else self._by_scope.get(receipt.scope)
        if receipt is None or flight is None:
            recall = partial(self._recall, deadline=deadline)
            flight = Flight(call, receipt, recall=recall, drain_s=drain_s, close=self._close)
            self._all.add(flight)
            if receipt is not None:
                self._by_scope[receipt.scope] = flight
            flight.start(ask)
            return Reader(flight, opened, pays=True, books=self._books, clock=self._clock)
        assert flight.receipt is not None
        compare(receipt, flight.receipt.fingerprint)
        if not flight.is_joinable:
            raise IdempotencyKeyInUse(
                "This question is being answered now, and the answer is too long to be given to a second "
                "caller. Wait for the first to end, or send another Idempotency-Key."
            )
        return Reader(flight, opened, pays=False, books=self._books, clock=self._clock, deadline=deadline)

    async def aclose(self) -> None:
        """End all flights; returns when their books are closed."""
        flights = tuple(self._all)
        for flight in flights:
            flight.task.cancel(STOPPING)
        await asyncio.gather(*(flight.task for flight in flights), return_exceptions=True)

    async def _recall(self, receipt: Receipt, *, deadline: float) -> Fresh | Answered:
        """Look up what a receipt says; raises as `judge` does, and StorageUnavailable.

        What another process is asking is waited for, as long as the call's time allows.
        """
        try:
            async with asyncio.timeout(deadline - self._clock.monotonic()):
                return await self._looked_up(receipt, deadline)
        except TimeoutError as error:
            raise DeadlineExceeded("The time for this call was over before its receipt was found.") from error

    async def _looked_up(self, receipt: Receipt, deadline: float) -> Fresh | Answered:
        wait_s = _LOOK_AGAIN_MIN_S
        while True:
            try:
                return judge(receipt, await self._journal.receipt(receipt))
            except IdempotencyKeyInUse:
                if self._clock.monotonic() + wait_s >= deadline:
                    raise
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, _LOOK_AGAIN_MAX_S)

    def _books(self, opened: CallOpened) -> CallBooks:
        """Give the books of a reader that pays nothing."""
        return CallBooks(opened, book=self._book, clock=self._clock, emit=self._emit, count=_uncounted)

    def _close(self, flight: Flight) -> None:
        if flight.receipt is not None and self._by_scope.get(flight.receipt.scope) is flight:
            del self._by_scope[flight.receipt.scope]
        if flight.is_over:
            self._all.discard(flight)

    async def _receipt(self, call: Call) -> Receipt | None:
        if call.idempotency_key is None:
            return None
        if call.prompt_bytes > _HASHED_BESIDE_BYTES:
            return await asyncio.to_thread(self._make, call)
        return self._make(call)

    def _make(self, call: Call) -> Receipt:
        return self._maker.receipt(call, canonical(call.body), kept_s=self.receipts_kept_s)


def _uncounted(tokens: int) -> None:
    """Whoever pays nothing has no attempts, and uses no tokens."""
