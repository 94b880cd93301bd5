"""A town in virtual time: callers of all kinds, providers with limits, and weather that a seed decides.

Everything that decides is real (`handle` and all its rooms); only the journal and the upstream are played.
The upstream looks at each attempt as it arrives: whatever may never happen there fails the run at once.
"""

import asyncio
import bisect
from collections import Counter, defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from properties.weather import Weather, forecast
from tiergate.admission import Admission, Keyring
from tiergate.cache import Cache, CacheKeys, MemoryShelf
from tiergate.catalog import PriceBook
from tiergate.core import (
    LOCAL,
    Call,
    CallClass,
    CallEnded,
    Chunk,
    Delivery,
    EndState,
    Event,
    Reply,
    Target,
    Tier,
    TiergateError,
    UpstreamAuthFailed,
    UpstreamError,
    UpstreamFault,
    UpstreamInterrupted,
    UpstreamThrottled,
    UpstreamTimeout,
    UpstreamUnreachable,
    Usage,
)
from tiergate.ledger import HoldState, ReceiptMaker, SoleBook
from tiergate.metering import Lines
from tiergate.rates import BURST_S
from tiergate.resilience import (
    BreakerPolicy,
    Health,
    Permit,
    Permits,
    ProviderLimits,
    RetryBudget,
    RetryPolicy,
)
from tiergate.resilience.adaptive import _FORGET_S as FORGET_S
from tiergate.resilience.breaker import Breaker, HalfOpen, Open
from tiergate.serve import Exchange, Flights, ModelEntry, Question, Rooms, Rules, handle
from tiergate.serve.entrance import tokens_asked
from tiergate.testing import FakeClock, MemoryJournal, run_virtual

LIMITS: Mapping[str, ProviderLimits] = {
    "narrow": ProviderLimits(concurrency=12),
    "paced": ProviderLimits(rpm=120, tpm=60_000),
    "both": ProviderLimits(concurrency=20, rpm=240),
    "open": ProviderLimits(),
}
MODELS: Mapping[str, Sequence[str]] = {
    "pair": ("narrow/a", "open/a"),
    "three": ("paced/a", "both/a", "open/b"),
    "sisters": ("both/b", "both/c"),
    "alone": ("open/c",),
    "rated": ("paced/b", "narrow/b"),
}
KEYS = CacheKeys("secret", lambda tenant: b"salt")
POLICY = RetryPolicy(attempts=3, first_event_s=10, idle_s=8, total_s=60, stream_total_s=90)
BREAKERS = BreakerPolicy(open_s=20, open_max_s=100)
TROUBLE_S = 900.0
RECOVERY_S = 180.0
"""The longest that a breaker stays open with its jitter, its probes, and the longest pause asked for."""
AFTERWARDS_S = 100.0
_EVERY_S = {CallClass.INTERACTIVE: 0.5, CallClass.BATCH: 1.5}
_ANSWER = 20
"""Tokens of output that are used, at most."""
_ALLOWED = (_ANSWER, 100, 4_000)
"""Tokens of output that a call allows."""
_USED = Usage(input=3, output=_ANSWER)
_WHOLE = Chunk(b"{}", content=True, text="whole", finish=("stop",), usage=_USED)
_MOMENT_S = 1e-6


@dataclass
class Asked:
    """What one attempt looked like from outside."""

    target: Target
    call_id: str
    sent: float
    is_first: bool
    is_retry: bool


class Played:
    """A `serve.Exchange` of the town."""

    replica = "town:1"
    upstream_request_id = None
    allowances = None

    def __init__(self, town: "Town", question: Question, weather: Weather, visit: "Visit") -> None:
        self._town = town
        self._question = question
        self._weather = weather
        self._visit = visit
        self._left = town.random.randint(1, 6) if question.streamed else 1
        self._breaks_at = town.random.randint(0, self._left)

    def __aiter__(self) -> "Played":
        return self

    async def __anext__(self) -> Sequence[Chunk]:
        town, question = self._town, self._question
        if self._left < 0:
            raise StopAsyncIteration
        if not question.streamed:
            self._left -= 2
            return [_WHOLE]
        breaks = self._left == self._breaks_at
        if breaks and self._weather is Weather.BREAKING:
            raise UpstreamInterrupted("broke", target=question.target.name, delivery=Delivery.CONFIRMED)
        stalls = breaks and self._weather is Weather.STALLING
        await town.pass_time(question, 1e9 if stalls else town.random.random(), question.idle_s, "idle")
        self._left -= 1
        self._visit.has_begun()
        if self._left < 0:
            return [_WHOLE]
        return [Chunk(b"{}", content=True, text="word ")]

    def close(self) -> None:
        self._visit.leave()


class Visit:
    """An attempt that is at a provider, and the probes that it is."""

    def __init__(self, town: "Town", provider: str, probed: Sequence[tuple[int, int]]) -> None:
        self._town, self._provider, self._probed = town, provider, probed
        self._is_here = True

    def has_begun(self) -> None:
        """It is no probe any more: the breaker has heard that there is an answer."""
        for place in self._probed:
            self._town.probes.pop(place, None)
        self._probed = ()

    def leave(self) -> None:
        """It is over."""
        self.has_begun()
        self._town.in_flight[self._provider] -= self._is_here
        self._is_here = False


class Watch(Permits):
    """Permits that see who is let in while others wait."""

    overtaken: int = 0

    async def take(self, target: Target, **how: Any) -> Permit:
        permit = await super().take(target, **how)
        if how.get("call_class") is CallClass.BATCH:
            gate, now = self._gates[target.provider], self._clock.monotonic()
            for waiter in gate.line.in_order(now):
                lane = gate._lanes.get(waiter.model)
                is_older = waiter.since < now and waiter.call_class is CallClass.INTERACTIVE
                fits = lane is None or lane.adaptive.has_room(lane.in_flight, now)
                assert not (is_older and fits), f"batch went before {waiter}"
        return permit


class Spared(RetryBudget):
    """A budget that remembers when it was asked for what."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[str, list[float]] = defaultdict(list)
        self.retries: dict[str, list[float]] = defaultdict(list)

    def came(self, target: Target, now: float) -> None:
        super().came(target, now)
        self.calls[target.provider].append(now)

    def took(self, target: Target, now: float) -> None:
        super().took(target, now)
        self.retries[target.provider].append(now)


def within(times: Sequence[float], after: float, until: float) -> int:
    """Count the times after one moment, up to and with another."""
    return bisect.bisect_right(times, until) - bisect.bisect_right(times, after)


@dataclass
class Town:
    """Rooms, upstream and callers of one run."""

    seed: int
    trouble_s: float = TROUBLE_S
    random: Random = field(init=False)
    clock: FakeClock = field(default_factory=FakeClock)
    journal: MemoryJournal = field(default_factory=MemoryJournal)
    events: list[Event] = field(default_factory=list)
    asked: dict[str, list[Asked]] = field(default_factory=lambda: defaultdict(list))
    """By provider, in order."""
    outcomes: Counter[str] = field(default_factory=Counter)
    afterwards: Counter[bool] = field(default_factory=Counter)
    """Of the calls that came after the recovery: whether they were answered."""
    last_words: deque[tuple[float, str, str]] = field(default_factory=lambda: deque(maxlen=20))
    """What the last calls were told that were not answered: when they came, and for which model."""
    calls: int = 0
    excess: float = -3.0

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        self.targets = {name: _target(name) for names in MODELS.values() for name in names}
        self._forecasts = {
            name: forecast(self.random, until=self.trouble_s) for name in (*LIMITS, *self.targets)
        }
        self.limits = dict(LIMITS)
        self._isolated: set[str] = set()
        self._stood_still = -1.0
        """Until when the process was stopped last."""
        self._by_call: dict[str, list[Target]] = defaultdict(list)
        self.in_flight: Counter[str] = Counter()
        self.probes: dict[tuple[int, int], str] = {}
        self._peace: dict[str, float] = {}
        """Until when a target has asked to be left alone."""
        book = SoleBook(self.journal)
        self.budget = Spared()
        self.permits = Watch(LIMITS, clock=self.clock)
        self.health = Health(BREAKERS, clock=self.clock, chance=self.random.random, emit=self.events.append)
        self.cache = Cache(KEYS, MemoryShelf(1 << 20), wall_ns=self.clock.wall_ns)
        self.rooms = Rooms(
            rules=Rules(
                generation=1,
                models={
                    name: ModelEntry(targets=tuple(self.targets[one] for one in names))
                    for name, names in MODELS.items()
                },
                providers=dict.fromkeys(LIMITS, Tier.HOSTED),
                prices=PriceBook([]),
                retry=POLICY,
            ),
            admission=Admission(Keyring([], is_open=True), monotonic=self.clock.monotonic),
            permits=self.permits,
            retries=self.budget,
            health=self.health,
            book=book,
            flights=Flights(
                self.journal,
                ReceiptMaker("s"),
                cache=self.cache,
                book=book,
                clock=self.clock,
                emit=self.events.append,
            ),
            cache=self.cache,
            lines=Lines(),
            upstream=self,
            clock=self.clock,
            emit=self.events.append,
            chance=self.random.random,
        )

    # The upstream.

    async def send(self, question: Question) -> Exchange:
        """Answer as the weather is; see `serve.Upstream`."""
        target = question.target
        weather = self._weather(target)
        visit = self._arrive(question)
        try:
            if weather is Weather.REFUSED:
                await asyncio.sleep(0.001)
                raise UpstreamUnreachable("refused", target=target.name, delivery=Delivery.NONE)
            question.mark_sent()
            await self._answer_with(weather, question)
        except BaseException:
            visit.leave()
            raise
        return Played(self, question, weather, visit)

    async def _answer_with(self, weather: Weather, question: Question) -> None:
        target, patience_s = question.target, question.first_event_s if question.streamed else 1e9
        takes_s = {Weather.SLOW: 6.0, Weather.SILENT: 1e9}.get(weather, 0.8) * (0.2 + self.random.random())
        if weather in (Weather.FAULTY, Weather.DOWN, Weather.DENIED, Weather.THROTTLED, Weather.BUSY):
            takes_s = 0.02
        await self.pass_time(question, takes_s, patience_s, "first_event")
        error: UpstreamError
        match weather:
            case Weather.FAULTY if self.random.random() < 0.4:
                error = UpstreamFault("500", target=target.name, delivery=Delivery.CONFIRMED, status=500)
            case Weather.DOWN:
                error = UpstreamFault("503", target=target.name, delivery=Delivery.CONFIRMED, status=503)
            case Weather.DENIED:
                error = UpstreamAuthFailed("401", target=target.name, delivery=Delivery.CONFIRMED, status=401)
            case Weather.THROTTLED:
                wait_s = self.random.choice([0.5, 3.0, 30.0])
                error = UpstreamThrottled("429", target=target.name, retry_after_s=wait_s)
                self._peace[target.name] = max(
                    self._peace.get(target.name, 0.0), self.clock.monotonic() + wait_s
                )
            case Weather.BUSY if self.random.random() < 0.7:
                error = UpstreamThrottled("429", target=target.name)
            case _:
                return
        raise error

    async def pass_time(self, question: Question, takes_s: float, patience_s: float, phase: str) -> None:
        """Let an answer take its time, or as long as the question may take."""
        left_s = question.deadline - self.clock.monotonic()
        await asyncio.sleep(max(0.0, min(takes_s, patience_s, left_s)))
        if takes_s > min(patience_s, left_s):
            phase = phase if patience_s <= left_s else "total"
            raise UpstreamTimeout(
                "slow", phase=phase, target=question.target.name, delivery=Delivery.POSSIBLE
            )

    def _weather(self, target: Target) -> Weather:
        now = self.clock.monotonic()
        of_all = self._forecasts[target.provider].at(now)
        if of_all in (Weather.REFUSED, Weather.DENIED, Weather.DOWN):
            return of_all
        own = self._forecasts[target.name].at(now)
        # A key is refused to a whole provider, and so are connections.
        return Weather.FAULTY if own in (Weather.REFUSED, Weather.DENIED) else own

    def _arrive(self, question: Question) -> Visit:
        """Look at an attempt that arrives."""
        target, now = question.target, self.clock.monotonic()
        provider, limits = target.provider, self.limits[target.provider]
        earlier = self._by_call[question.call_id]
        seen = self.asked[provider]
        seen.append(
            Asked(
                target,
                question.call_id,
                now,
                is_first=not earlier,
                is_retry=target in earlier,
            )
        )
        earlier.append(target)
        assert len(earlier) <= POLICY.attempts, f"{question.call_id} made {len(earlier)} attempts"
        assert now < question.deadline, "begun after its time"
        assert now >= self._peace.get(target.name, 0.0), f"{target.name} has asked for peace"
        assert target.name not in self._isolated, f"{target.name} is isolated"
        self.in_flight[provider] += 1
        assert self.in_flight[provider] <= (limits.concurrency or 1e9), f"too many at {provider}"
        if limits.rpm is not None:
            since = now - 60
            recent = len(seen) - bisect.bisect_right(seen, since, key=lambda one: one.sent)
            assert recent <= limits.rpm * (1 + BURST_S / 60) + 1, f"{recent} in a minute at {provider}"
        probed = [
            (id(breaker), breaker._number)
            for breaker in self.health._watched(target).breakers
            if isinstance(breaker.state, HalfOpen)
        ]
        for place in probed:
            assert place not in self.probes, f"two probes at {target.name}"
            self.probes[place] = question.call_id
        return Visit(self, provider, probed)

    # The callers.

    async def run(self) -> None:
        ends = self.trouble_s + RECOVERY_S + AFTERWARDS_S
        async with asyncio.TaskGroup() as group:
            group.create_task(self._inspector(ends))
            group.create_task(self._operator())
            for call_class in CallClass:
                group.create_task(self._callers(call_class, ends, group))
        self._check_silence()
        await asyncio.sleep(700)
        self._check_rest()

    async def _operator(self) -> None:
        """Change limits, isolate targets, and stop the process for a while; at the end all is as it was."""
        random = self.random
        while self.clock.monotonic() < self.trouble_s - 100:
            await asyncio.sleep(random.uniform(20, 100))
            match random.choice(["limit", "isolate", "stop", "read again"]):
                case "limit":
                    changed = replace(LIMITS["narrow"], concurrency=random.choice([2, 5, 40]))
                    self.limits["narrow"] = changed
                    self.permits.use(self.limits)
                case "isolate":
                    name = random.choice(list(self.targets))
                    self._isolated.add(name)
                    self.health.isolate(*name.split("/"))
                    await asyncio.sleep(random.uniform(5, 60))
                    self._isolated.discard(name)
                    self.health.restore(*name.split("/"))
                    # By hand it is asked again whatever it said.
                    self._peace.pop(name, None)
                case "stop":
                    self.clock.advance(random.uniform(0.5, 20))
                    self._stood_still = self.clock.monotonic()
                case _:
                    self.health.use(BREAKERS)
            if random.random() < 0.5:
                self._put_back()
        self._put_back()

    def _put_back(self) -> None:
        self.limits = dict(LIMITS)
        self.permits.use(self.limits)

    async def _inspector(self, ends: float) -> None:
        """See now and then that nobody waits at a gate who might go in."""
        while self.clock.monotonic() < ends:
            await asyncio.sleep(0.2371)
            now = self.clock.monotonic()
            if now == self._stood_still:
                continue
            for gate in self.permits._gates.values():
                waiting = list(gate.line.in_order(now))
                # Where the first one is late the newest goes before it, from the next event on.
                is_late = any(now - one.since > (one.until - one.since) / 2 for one in waiting)
                for waiter in () if is_late else waiting:
                    lane = gate._lanes.get(waiter.model)
                    learned = None if lane is None else lane.adaptive
                    if learned and learned.limit is not None and now - learned._cut_at >= FORGET_S:
                        break  # whoever asks now makes it forget; looking must change nothing
                    found = gate._hindrance(waiter.model, waiter.tokens, now, waiter.call_class)
                    assert found is not None, f"waits though it may enter: {waiter}"
                    if found.for_all:
                        break

    async def _callers(self, call_class: CallClass, ends: float, group: asyncio.TaskGroup) -> None:
        random = self.random
        while self.clock.monotonic() < ends:
            await asyncio.sleep(random.expovariate(1 / _EVERY_S[call_class]))
            is_burst = random.random() < 0.01 and self.clock.monotonic() < self.trouble_s
            for _ in range(random.randint(10, 40) if is_burst else 1):
                group.create_task(self._caller(call_class))

    async def _caller(self, call_class: CallClass) -> None:
        """Be one caller: patient or not, and perhaps not to the end."""
        random, now = self.random, self.clock.monotonic()
        self.calls += 1
        streamed = random.random() < 0.6
        limit_s = random.choice([0.3, 2.0, 15.0]) if random.random() < 0.2 else None
        call = Call(
            id=f"{self.seed}-{self.calls}",
            caller=LOCAL,
            endpoint="chat/completions",
            asked_model=random.choice(list(MODELS)),
            body={"messages": [{"role": "user", "content": "hi"}], "max_tokens": random.choice(_ALLOWED)},
            prompt_bytes=80,
            streamed=streamed,
            call_class=call_class,
            time_limit_s=limit_s,
            first_event_limit_s=random.choice([1.0, 5.0]) if random.random() < 0.1 else None,
            is_sent_again=random.random() < 0.1,
            received_ns=self.clock.wall_ns(),
            received=now,
        )
        leaves = random.random() < 0.15
        most_s = min(limit_s or 1e9, POLICY.stream_total_s if streamed else POLICY.total_s)
        try:
            async with asyncio.timeout(random.expovariate(0.5) if leaves else None):
                outcome = await self._answered(call)
        except TimeoutError:
            outcome = "left"
        except TiergateError as error:
            outcome = error.code
            self.last_words.append((now, call.asked_model, str(error)))
        self.outcomes[outcome] += 1
        ends = max(now + most_s, self._stood_still) + _MOMENT_S
        assert self.clock.monotonic() <= ends, f"{call.id} took too long"
        is_patient = limit_s is None and not leaves and outcome != "left" and call.first_event_limit_s is None
        if is_patient and now > self.trouble_s + RECOVERY_S:
            self.afterwards[outcome == "answered"] += 1

    async def _answered(self, call: Call) -> str:
        reply = await handle(self.rooms, call)
        if isinstance(reply, Reply):
            return "answered"
        pieces = self.random.randint(0, 3) if self.random.random() < 0.1 else 1_000
        with reply:
            async for _ in reply:
                pieces -= 1
                if pieces < 0:
                    return "left"
        return "answered"

    # What must hold when it is over.

    def _check_silence(self) -> None:
        """Nothing runs, waits or is held any more."""
        assert len(asyncio.all_tasks()) == 1
        assert self.journal.open_holds == []
        assert not +self.in_flight and not self.probes
        for provider, gate in self.permits.statistics().items():
            assert (gate.in_flight, gate.waiting) == (0, 0), provider
        assert not self.rooms.admission.statistics().inside
        for breaker in self._breakers():
            assert not (isinstance(breaker.state, HalfOpen) and breaker.state.is_tried), "a probe is missing"

    def _check_rest(self) -> None:
        """After a pause every rate is whole again, and every breaker would let somebody in."""
        now = self.clock.monotonic()
        for provider, gate in self.permits.statistics().items():
            limits = LIMITS[provider]
            for left, per_minute in ((gate.requests_left, limits.rpm), (gate.tokens_left, limits.tpm)):
                assert per_minute is None or left == max(1.0, per_minute / 60 * BURST_S), provider
        for breaker in self._breakers():
            assert not isinstance(breaker.state, Open) or breaker.wait_s(now) is None

    def check_books(self) -> None:
        """One end for each call that came in, one event that says the same, every hold settled once."""
        ended = {event.call_id: event for event in self.events if isinstance(event, CallEnded)}
        closed = {one.opened.call.id: one for one in self.journal.closed}
        assert set(ended) == set(closed)
        assert set(self._by_call) <= set(closed)
        for call_id, event in ended.items():
            assert event.attempts <= POLICY.attempts
            assert len(self._by_call[call_id]) <= event.attempts
            if event.end is EndState.SUCCESS:
                assert self._by_call[call_id]
        assert len(self.journal.settled) == len(self.journal.held)
        assert all(getattr(one, "state", None) is HoldState.RELEASED for one in self.journal.ignored)

    def check_retries(self) -> None:
        """In any 10 s a provider had no more retries than a fifth of the calls that came to it, and three."""
        for provider, times in self.budget.retries.items():
            calls = self.budget.calls[provider]
            for at in times:
                # Both are counted by whole seconds: of the calls those of one second more.
                spared = within(calls, at - 11, at) * 0.2 + 3
                assert within(times, at - 10, at) <= spared, f"{provider} at {at}"
            # As the provider sees it: a retry waits a little between being counted and being sent.
            firsts = [one.sent for one in self.asked[provider] if one.is_first]
            sent = [one.sent for one in self.asked[provider] if one.is_retry]
            for at in sent:
                self.excess = max(
                    self.excess, within(sent, at - 10, at) - within(firsts, at - 11, at) * 0.2 - 3
                )

    def check_tokens(self) -> None:
        """In any minute a provider had no more tokens than its rate, a burst, and what was under way."""
        asked_for = max(tokens_asked(one.opened.call) for one in self.journal.closed)
        for provider, limits in LIMITS.items():
            times = [one.sent for one in self.asked[provider]]
            for at in times if limits.tpm is not None else ():
                used = within(times, at - 60, at) * (_USED.input + _USED.output)
                assert limits.tpm is None or used <= limits.tpm * (1 + BURST_S / 60) + 40 * asked_for

    def _breakers(self) -> list[Breaker]:
        shared = [breaker for pair in self.health._providers.values() for breaker in pair]
        return shared + [watched.breakers[-1] for watched in self.health._models.values()]


def _target(name: str) -> Target:
    provider, _, model = name.partition("/")
    return Target(provider=provider, model=model, tier=Tier.HOSTED)


def simulated(seed: int, **how: Any) -> Town:
    """Run a town to its end and look at its books."""
    town = Town(seed, **how)
    run_virtual(town.run(), clock=town.clock)
    town.check_books()
    town.check_retries()
    town.check_tokens()
    return town
