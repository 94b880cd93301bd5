"""All flights in the air: whoever asks what is being asked already joins, everybody else opens one."""

import asyncio
from collections.abc import Iterable
from functools import partial
from typing import Final

from msgspec import structs

from tiergate.cache import Cache, NotKept
from tiergate.core import (
    CacheSaid,
    Call,
    CallClass,
    Chunk,
    Clock,
    DeadlineExceeded,
    Emit,
    IdempotencyKeyInUse,
    Notice,
    Target,
)
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
from tiergate.metering import Account
from tiergate.serve.asking import Asking
from tiergate.serve.books import STOPPING, CallBooks, Stopping, free_books
from tiergate.serve.cached import keep, recalled
from tiergate.serve.flight import Ask, Flight, Scope
from tiergate.serve.kept import Recalled, read_answered
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
        cache: keeps answers to questions that are asked again.
        book, clock, emit: for the entries of readers.
        receipts_kept_s: how long an answer is given again.
    """

    def __init__(
        self,
        journal: Journal,
        maker: ReceiptMaker,
        *,
        cache: Cache,
        book: Book,
        clock: Clock,
        emit: Emit,
        receipts_kept_s: float = 86_400.0,
    ) -> None:
        self._journal = journal
        self._maker = maker
        self._cache = cache
        self._book = book
        self._clock = clock
        self._emit = emit
        self._by_scope: dict[Scope, Flight] = {}
        self._all: set[Flight] = set()
        self._is_closed = False
        self.receipts_kept_s = receipts_kept_s

    async def board(self, asking: Asking, ask: Ask) -> Reader:
        """Join the flight of the same question, or open one.

        Raises:
            IdempotencyKeyReused: the call's receipt is of another question.
            IdempotencyKeyInUse: the flight has gone too far to be joined.
            Stopping: nobody is answered any more.
        """
        receipt = await self._receipt(asking.call)
        if self._is_closed:
            raise Stopping
        scopes = _scopes(asking) if receipt is None else [receipt.scope]
        flight = next((self._by_scope[scope] for scope in scopes if scope in self._by_scope), None)
        if flight is not None and receipt is None and not flight.is_joinable:
            flight = None
        if flight is None:
            return self._open(asking, ask, receipt, scopes[-1] if scopes else None)
        if receipt is not None:
            self._compare(receipt, flight)
        return Reader(flight, asking, pays=False, books=self.free_books, clock=self._clock)

    def _open(self, asking: Asking, ask: Ask, receipt: Receipt | None, scope: Scope | None) -> Reader:
        flight = Flight(
            asking,
            receipt,
            scope=scope,
            recall=partial(self._recall, asking, receipt),
            keep=self._keep,
            close=self._close,
        )
        self._all.add(flight)
        if scope is not None:
            self._by_scope[scope] = flight
        flight.start(ask)
        return Reader(flight, asking, pays=True, books=self.free_books, clock=self._clock)

    @staticmethod
    def _compare(receipt: Receipt, flight: Flight) -> None:
        assert flight.receipt is not None
        compare(receipt, flight.receipt.fingerprint)
        if not flight.is_joinable:
            raise IdempotencyKeyInUse(
                "This question is being answered now, and the answer is too long to be given to a second "
                "caller. Wait for the first to end, or send another Idempotency-Key."
            )

    def keep_nothing_of(self, tenant: str) -> None:
        """Let nobody join what is being answered to a tenant, and keep none of it for receipts."""
        for flight in self._all:
            if flight.call.caller.partition == tenant:
                flight.keeps = False
                if flight.scope is not None and self._by_scope.get(flight.scope) is flight:
                    del self._by_scope[flight.scope]

    async def aclose(self) -> None:
        """End all flights; returns when their books are closed."""
        self._is_closed = True
        while self._all:
            flights = tuple(self._all)
            for flight in flights:
                flight.task.cancel(STOPPING)
            await asyncio.gather(*(flight.task for flight in flights), return_exceptions=True)

    async def _keep(
        self, asking: Asking, chunks: Iterable[Chunk], *, target: Target, account: Account
    ) -> CacheSaid:
        """Keep an answer, if it can be; whatever fails in that takes nothing from those who read it."""
        try:
            return await keep(self._cache, asking, chunks, target=target, account=account)
        except Exception as error:  # noqa: BLE001 - a border: keeping is beside the call
            message = f"An answer of {target.name} could not be kept: a bug of ours ({type(error).__name__})."
            self._emit(Notice(word="bug", message=message, severe=True))
            return structs.replace(asking.look.said, detail=NotKept.UNKNOWN.value)

    async def _recall(self, asking: Asking, receipt: Receipt | None) -> tuple[Asking, Fresh | Recalled]:
        """Look up what a receipt says, then the cache where that takes a moment.

        Raises as `judge` does, NotCached, and StorageUnavailable. What another process is asking is waited
        for, as long as the call's time allows.
        """
        found: Fresh | Answered = Fresh()
        if receipt is not None:
            deadline = asking.resolved.deadline
            try:
                async with asyncio.timeout(deadline - self._clock.monotonic()):
                    found = await self._looked_up(receipt, deadline)
            except TimeoutError as error:
                raise DeadlineExceeded(
                    "The time for this call was over before its receipt was found."
                ) from error
        if isinstance(found, Answered):
            return asking, read_answered(found)
        look = await self._cache.recall(asking.look, allowed=asking.resolved.targets)
        if look is not asking.look:
            asking = structs.replace(asking, look=look)
        if look.answer is None:
            return asking, found
        return asking, recalled(look.answer, look.said, streamed=asking.call.streamed)

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

    def free_books(self, opened: CallOpened) -> CallBooks:
        """Give the books of a call that is given what somebody else has paid for."""
        return free_books(opened, book=self._book, clock=self._clock, emit=self._emit)

    def _close(self, flight: Flight) -> None:
        if flight.scope is not None and self._by_scope.get(flight.scope) is flight:
            del self._by_scope[flight.scope]
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


def _scopes(asking: Asking) -> list[Scope]:
    """Give what the flights are known by that a call may join, and last the one that it may open.

    Whoever is in a hurry never waits for a call that is not, nor who wants a stream for a whole answer. Who
    may be answered by other targets is given nothing of these.
    """
    call, look = asking.call, asking.look
    if look.key is None or not look.joins:
        return []
    classes = [CallClass.INTERACTIVE]
    if call.call_class is not CallClass.INTERACTIVE:
        classes.append(call.call_class)
    forms = [True] if call.streamed else [True, False]
    wish = (look.wish.max_age_s, look.wish.min_fresh_s, look.wish.max_stale_s)
    return [(look.key, asking.resolved.targets, wish, form, name) for name in classes for form in forms]
