"""A stage for calls: rooms around scripted targets, in virtual time, and a check of what became of them."""

import asyncio
import types
from collections.abc import Coroutine, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, TypeVar

import pytest

from tiergate.admission import Admission, Keyring
from tiergate.cache import Cache, CacheKeys, MemoryShelf
from tiergate.catalog import PriceBook, PriceRecord, Rates, Tariff
from tiergate.core import (
    LOCAL,
    Allowances,
    AttemptFailed,
    Call,
    CallEnded,
    Chunk,
    Delivery,
    EndState,
    Event,
    Reply,
    Target,
    Tier,
    UpstreamError,
    UpstreamInterrupted,
    UpstreamUnreachable,
    Usage,
    UsageSource,
)
from tiergate.ledger import CallClosed, Held, HoldState, ReceiptMaker, Settled, SoleBook
from tiergate.metering import Lines
from tiergate.resilience import BreakerPolicy, Health, Permits, ProviderLimits, RetryBudget, RetryPolicy
from tiergate.resilience.breaker import Breaker, HalfOpen
from tiergate.serve import (
    Exchange,
    Flights,
    ModelEntry,
    Question,
    Rooms,
    Rules,
    Stopping,
    StreamReply,
    handle,
)
from tiergate.testing import FakeClock, MemoryJournal, run_virtual

T = TypeVar("T")

KEYS = CacheKeys("secret", lambda tenant: b"salt")

A, B = (Target(provider=name, model="m", tier=Tier.HOSTED) for name in "ab")
RACK = Target(provider="rack", model="m", tier=Tier.PRIVATE)
SHEET = PriceBook(
    PriceRecord(
        target=target.name,
        standard=Tariff(rates=Rates(input=Decimal(1), output=Decimal(2))),
        valid_from=date(2026, 1, 1),
        source="a test",
    )
    for target in (A, B)
)

# What upstreams say.

SAID = Usage(input=7, output=5)
ROLE = Chunk(b'{"role"}')
ONE, TWO = (Chunk(f'{{"{word}"}}'.encode(), content=True, text=word) for word in ("one ", "two "))
STOP = Chunk(b'{"stop"}', content=True, finish=("stop",))
USAGE = Chunk(b'{"usage"}', usage=SAID, bare_usage=True)
WHOLE = Chunk(b'{"whole"}', content=True, text="whole", finish=("stop",), usage=SAID)

UNFINISHED = (None, "client_closed", Stopping.code)
"""What an attempt that was cut short says; nobody failed."""

Step = Sequence[Chunk] | UpstreamError | float
"""Chunks that arrive together, a failure, or seconds that pass."""


@dataclass(frozen=True)
class Answer:
    """What one target does: refuse, or answer step by step; an end without a failure is a good end."""

    steps: Sequence[Step] = ()
    refusal: UpstreamError | None = None
    allowances: Allowances | None = None
    """What it says of its limits as it begins."""


STREAM = Answer(([ROLE], [ONE], 1.5, [TWO, STOP], [USAGE]))
REPLY = Answer(([WHOLE],))


def broken(at: str = "a/m") -> UpstreamInterrupted:
    return UpstreamInterrupted("broke off", target=at, delivery=Delivery.CONFIRMED)


def unreachable(at: str = "a/m") -> UpstreamUnreachable:
    return UpstreamUnreachable("refused", target=at, delivery=Delivery.NONE)


async def turn() -> None:
    """Wait for something that has happened by the next turn of the loop."""
    loop = asyncio.get_running_loop()
    waiter = loop.create_future()
    loop.call_soon(lambda: waiter.done() or waiter.set_result(None))
    await waiter


class PlayedExchange:
    """A `serve.Exchange` that plays an answer and counts how often it is closed."""

    replica = "127.0.0.1:1"
    upstream_request_id = "req-1"

    def __init__(self, answer: Answer, question: Question) -> None:
        self.allowances = answer.allowances
        self._question = question  # as real ones keep it
        self._steps = iter(answer.steps)
        self.closed = 0
        self.given: list[Chunk] = []
        self.ended_well = False

    def __aiter__(self) -> "PlayedExchange":
        return self

    async def __anext__(self) -> Sequence[Chunk]:
        assert not self.closed, "read after it was closed"
        await turn()
        for step in self._steps:
            if isinstance(step, float):
                await asyncio.sleep(step)
            elif isinstance(step, UpstreamError):
                raise step
            else:
                self.given.extend(step)
                return step
        self.ended_well = True
        raise StopAsyncIteration

    def close(self) -> None:
        self.closed += 1


class PlayedUpstream:
    """A `serve.Upstream` that answers for each provider as told, and never without a hold."""

    def __init__(self, answers: Mapping[str, Answer], journal: MemoryJournal) -> None:
        self._answers = answers
        self._journal = journal
        self.asked: list[Question] = []
        self.sent: list[Target] = []
        """Those to which a byte may have left."""
        self.exchanges: list[PlayedExchange] = []

    async def send(self, question: Question) -> Exchange:
        held = [(hold.call_id, hold.target) for hold in self._journal.open_holds]
        assert (question.call_id, question.target) in held, "sent without a hold"
        self.asked.append(question)
        await turn()
        question.mark_sent()
        self.sent.append(question.target)
        await turn()
        answer = self._answers[question.target.provider]
        if answer.refusal is not None:
            raise answer.refusal
        self.exchanges.append(PlayedExchange(answer, question))
        return self.exchanges[-1]


class SlowJournal(MemoryJournal):
    """A journal that takes its time before and after a hold stands, and remembers the order of everything."""

    def __init__(self, *, fail_holds: bool = False) -> None:
        super().__init__(fail_holds=fail_holds)
        self.order: list[Held | Settled | CallClosed] = []

    async def hold(self, held: Held) -> None:
        await turn()
        await super().hold(held)
        self.order.append(held)
        await turn()

    def settle(self, settled: Settled) -> None:
        self.order.append(settled)
        super().settle(settled)

    def close(self, closed: CallClosed) -> None:
        self.order.append(closed)
        super().close(closed)


class House:
    """The rooms around one call, and what became of them."""

    def __init__(
        self,
        answers: Mapping[str, Answer],
        *,
        targets: Sequence[Target] = (A, B),
        fail_holds: bool = False,
        limits: Mapping[str, ProviderLimits] | None = None,
        attempts: int = 2,
    ) -> None:
        self.clock = FakeClock()
        self.journal = SlowJournal(fail_holds=fail_holds)
        self.upstream = PlayedUpstream(answers, self.journal)
        self.events: list[Event] = []
        self.seen: list[Chunk] = []
        self.complete = False
        """The client was told that the answer ended well."""
        book = SoleBook(self.journal)
        self.cache = Cache(KEYS, MemoryShelf(1 << 20), wall_ns=self.clock.wall_ns)
        self.rooms = Rooms(
            rules=Rules(
                generation=1,
                models={"model": ModelEntry(targets=tuple(targets))},
                providers={target.provider: target.tier for target in targets},
                prices=SHEET,
                retry=RetryPolicy(attempts=attempts, total_s=20, stream_total_s=40, permit_wait_s=1),
            ),
            admission=Admission(Keyring([], is_open=True), monotonic=self.clock.monotonic),
            permits=Permits(limits or {}, clock=self.clock),
            retries=RetryBudget(),
            health=Health(BreakerPolicy(), clock=self.clock, chance=lambda: 0.5, emit=self.events.append),
            book=book,
            flights=Flights(
                self.journal,
                ReceiptMaker("secret"),
                cache=self.cache,
                book=book,
                clock=self.clock,
                emit=self.events.append,
            ),
            cache=self.cache,
            lines=Lines(),
            upstream=self.upstream,
            clock=self.clock,
            emit=self.events.append,
        )

    def call(self, **changes: Any) -> Call:
        fields: dict[str, Any] = {
            "id": "01call",
            "caller": LOCAL,
            "endpoint": "chat/completions",
            "asked_model": "model",
            "body": {"model": "model", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 100},
            "prompt_bytes": 80,
            "streamed": True,
            "received_ns": self.clock.wall_ns(),
            "received": self.clock.monotonic(),
        }
        return Call(**{**fields, **changes})

    async def answer(self, call: Call, *, leave_after: int | None = None) -> Reply | StreamReply:
        """Be the client of one call: take what comes, slowly, and leave after so many pieces."""
        reply = await handle(self.rooms, call)
        if isinstance(reply, Reply):
            self.seen.append(Chunk(reply.data))
            self.complete = True
            return reply
        with reply:
            if leave_after == 0:
                return reply
            pieces = 0
            async for chunks in reply:
                self.seen.extend(chunks)
                await turn()
                pieces += 1
                if pieces == leave_after:
                    return reply
            self.complete = True
        return reply

    @property
    def ended(self) -> CallEnded:
        (event,) = (event for event in self.events if isinstance(event, CallEnded))
        return event

    @property
    def closed(self) -> CallClosed:
        (closed,) = self.journal.closed
        return closed

    @property
    def settled(self) -> list[Settled]:
        return self.journal.settled

    @property
    def breakers(self) -> list[Breaker]:
        """Those of everything that was asked."""
        health = self.rooms.health
        shared = [breaker for pair in health._providers.values() for breaker in pair]
        return shared + [watched.breakers[-1] for watched in health._models.values()]

    def open_breaker(self, error: UpstreamError) -> None:
        """Let the first target fail so until it is left alone, and wait until it lets one try."""
        for _ in range(BreakerPolicy().in_a_row):
            with suppress(type(error)), self.rooms.health.enter(A):
                raise error
        assert self.rooms.health.why_not(A) is not None
        self.clock.advance(BreakerPolicy().open_s)

    def use_rates(self, *, tokens: int, ago_s: float) -> None:
        """Let a call to the first target have used so much, a while ago."""

        async def use() -> None:
            with await self.rooms.permits.take(A, wait_s=0, tokens=lambda: tokens) as permit:
                permit.count(tokens)

        run(self, use())
        self.clock.advance(ago_s)
        self._rates = (self.clock.monotonic(), self.left())

    def left(self) -> tuple[float, float]:
        """Give the requests and tokens that are left of the first target's rates."""
        found = self.rooms.permits.statistics()[A.provider]
        assert found.requests_left is not None and found.tokens_left is not None
        return found.requests_left, found.tokens_left

    def check_rates(self) -> None:
        """What is missing of the rates since `use_rates` was sent; before as much is saved up as ever is."""
        began, (requests, tokens) = self._rates
        passed_s = self.clock.monotonic() - began
        limits = self.rooms.permits.statistics()[A.provider].limits
        assert limits.rpm is not None and limits.tpm is not None
        requests += passed_s * limits.rpm / 60
        tokens += passed_s * limits.tpm / 60
        sent = self.upstream.sent.count(A)
        assert self.left()[0] == pytest.approx(requests - sent)
        # What an attempt used is a matter of its account; one that was not sent has used nothing.
        assert self.left()[1] == pytest.approx(tokens) if not sent else self.left()[1] <= tokens

    def check(self) -> None:
        """Whatever happened: what was opened is closed, once, and the records agree with each other."""
        order = self.journal.order
        # One end of the call, after everything else, and one event that says the same.
        assert order[-1] is self.closed
        assert sum(isinstance(record, CallClosed) for record in order) == 1
        assert (self.ended.end, self.ended.error_code) == (self.closed.end, self.closed.error_code)
        assert self.ended.attempts == self.closed.attempts
        assert self.ended.wall_ns == self.closed.last_event_ns
        assert (self.closed.first_event_ns is None) == (self.ended.ttft_ms is None)
        # Each hold settled or released, once; no settlement without a hold, but for one that was called off.
        assert self.journal.open_holds == []
        settlements = [(record.call_id, record.n) for record in order if isinstance(record, Settled)]
        assert len(settlements) == len(set(settlements))
        assert all(record.state is HoldState.RELEASED for record in self.journal.ignored)
        # Money is given back only where nothing was sent, or provably nothing arrived.
        sent = set(self.upstream.sent)
        for settled in self.settled:
            (held,) = (held for held in self.journal.held if held.n == settled.n)
            if held.target not in sent:
                assert settled.state is HoldState.RELEASED, "money was kept for what was never sent"
            if settled.state is HoldState.RELEASED:
                refusal = self.upstream._answers[held.target.provider].refusal
                assert held.target not in sent or (refusal and refusal.delivery is Delivery.NONE)
                assert (settled.cash_nanos, settled.usage_source) == (0, UsageSource.NONE)
            assert settled.sent_ns <= settled.last_ns
        # One failed attempt, one event.
        failures = [settled.n for settled in self.settled if settled.error_code not in UNFINISHED]
        assert [event.n for event in self.events if isinstance(event, AttemptFailed)] == failures
        # Nothing is left open.
        assert all(exchange.closed for exchange in self.upstream.exchanges)
        assert all(
            not gate.in_flight and not gate.waiting for gate in self.rooms.permits.statistics().values()
        )
        assert not self.rooms.admission.statistics().inside
        # Whoever comes next may try a breaker that lets one try at a time.
        assert not any(
            isinstance(breaker.state, HalfOpen) and breaker.state.is_tried for breaker in self.breakers
        )
        # The client saw one target's answer from its beginning, and a good end only after a good end.
        if self.seen:
            given = self.upstream.exchanges[-1].given
            assert [chunk.data for chunk in self.seen] == [chunk.data for chunk in given[: len(self.seen)]]
        if self.complete:
            assert self.upstream.exchanges[-1].ended_well
            assert self.ended.end is EndState.SUCCESS


@types.coroutine
def interrupted(
    coroutine: Coroutine[Any, Any, T], *, at: int, as_it_wakes: bool, why: str | None = None
) -> Generator[Any, Any, T]:
    """Run a coroutine; cancel its task at its nth suspension, while it waits or as it is about to go on."""
    task = asyncio.current_task()
    assert task is not None
    step, value, suspensions = coroutine.send, None, 0
    while True:
        try:
            waits_for = step(value)
        except StopIteration as end:
            return end.value
        suspensions += 1
        if suspensions == at:
            if as_it_wakes and asyncio.isfuture(waits_for):
                waits_for.add_done_callback(lambda _: task.cancel(why))
            else:
                task.cancel(why)
        try:
            step, value = coroutine.send, (yield waits_for)
        except BaseException as error:  # noqa: BLE001 - whatever was thrown belongs to the coroutine
            step, value = coroutine.throw, error


def run(house: House, client: Coroutine[Any, Any, T]) -> T:
    return run_virtual(client, clock=house.clock)


def played(house: House, *, leave_after: int | None = None, **changes: Any) -> Reply | StreamReply:
    """One call by a client that is not interrupted; its books are in order."""
    try:
        return run(house, house.answer(house.call(**changes), leave_after=leave_after))
    finally:
        house.check()
