"""The gate of one provider: what it takes from us at one time and per minute.

A place needs all of it: room under the provider's concurrency, under what its model has shown and said that
it can do, and enough of its requests and tokens per minute. All are looked at before any is counted.
"""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from tiergate.core import Allowances, CallClass, Clock, Target, TargetFull, TargetThrottled
from tiergate.rates import (
    A_LEASE_S,
    Bucket,
    LeasedBucket,
    LeasedPlaces,
    RateBucket,
    SharedLimit,
    Sharing,
    WithoutBank,
)
from tiergate.resilience.lane import Hindrance, Lane
from tiergate.resilience.learned import Entered, RateLeft
from tiergate.resilience.outcomes import is_pushed_back
from tiergate.resilience.reserve import Reserve
from tiergate.resilience.waiting import Waiter, WaitingLine

WAITING_MAX: Final = 1_000
"""Most that wait at a provider without a limit of concurrency; with one, as many as it lets in."""
_LANES_MAX: Final = 4_096


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderLimits:
    """What a provider takes from us: attempts in flight, requests and tokens per minute. None: no limit."""

    concurrency: int | None = None
    rpm: int | None = None
    tpm: int | None = None
    without_bank: WithoutBank = WithoutBank.SHARE
    """What limits that processes share let in while they cannot ask each other."""


NO_LIMITS: Final = ProviderLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class PermitStatistics:
    """A provider's places now. What is left of a rate is None where it has none.

    `learned`: how many attempts at one time a model takes, of those that pushed back; `learned_rates`: what
    is left of the rates of those whose answers speak of them, by what is counted.
    """

    in_flight: int
    waiting: int
    limits: ProviderLimits
    places_left: int | None = None
    requests_left: float | None = None
    tokens_left: float | None = None
    learned: Mapping[str, int] = field(default_factory=dict)
    learned_rates: Mapping[str, Mapping[str, RateLeft]] = field(default_factory=dict)


class Gate:
    """What is in flight at a provider, and who waits for a place there."""

    def __init__(
        self,
        provider: str,
        limits: ProviderLimits,
        *,
        clock: Clock,
        is_adaptive: bool,
        sharing: Sharing | None,
    ) -> None:
        self._provider = provider
        self._sharing = sharing
        self._clock = clock
        self._is_adaptive = is_adaptive
        self._limits = limits
        now = clock.monotonic()
        self._requests = None if limits.rpm is None else self._bucket(limits.rpm, now)
        self.tokens = None if limits.tpm is None else self._bucket(limits.tpm, now)
        self.counts_tokens = self.tokens is not None
        """Whether anybody asks how many tokens an attempt may use."""
        self.in_flight = 0
        self._places = self._shared_places()
        self._lanes: dict[str, Lane] = {}
        self._reserve = Reserve()
        self.line = WaitingLine()
        self._timer: asyncio.TimerHandle | None = None

    def statistics(self) -> PermitStatistics:
        """Give the state of now."""
        now = self._clock.monotonic()
        return PermitStatistics(
            in_flight=self.in_flight,
            waiting=len(self.line),
            limits=self._limits,
            places_left=self._places_left(),
            requests_left=None if self._requests is None else self._requests.left(now),
            tokens_left=None if self.tokens is None else self.tokens.left(now),
            learned={
                model: int(lane.adaptive.limit)
                for model, lane in self._lanes.items()
                if lane.adaptive.limit is not None
            },
            learned_rates={
                model: left
                for model, lane in self._lanes.items()
                if lane.learned is not None and (left := lane.learned.left(now))
            },
        )

    def change(self, limits: ProviderLimits, *, is_adaptive: bool) -> None:
        """Take new limits; whoever waits and now has room goes in."""
        now = self._clock.monotonic()
        self._limits = limits
        self._is_adaptive = is_adaptive
        self._requests = self._changed(self._requests, limits.rpm, now)
        self.tokens = self._changed(self.tokens, limits.tpm, now)
        self._places = self._shared_places(self._places)
        self.counts_tokens = self.counts_tokens or self.tokens is not None
        if not is_adaptive:
            for lane in self._lanes.values():
                lane.learned = None
        self.admit()

    def shared(self) -> Iterator[SharedLimit]:
        """Give the limits that are shared with other processes."""
        parts = {"rpm": self._requests, "tpm": self.tokens, "concurrency": self._places}
        for name, part in parts.items():
            if isinstance(part, LeasedBucket | LeasedPlaces):
                yield SharedLimit(f"provider:{self._provider}:{name}", part, self._limits.without_bank)

    def try_enter(self, model: str, tokens: int, call_class: CallClass) -> Entered | None:
        """Take a place if there is one."""
        if self._hindrance(model, tokens, self._clock.monotonic(), call_class) is not None:
            return None
        return self._enter(model, tokens, call_class)

    def learn(self, model: str, said: Allowances, since: Entered, *, refused: int | None = None) -> None:
        """Take what an answer to an attempt in flight says of its model's rates.

        `since`: when that began; `refused`: where it was refused, the tokens that it might use.
        """
        if not self._is_adaptive:
            return
        lane = self._lanes[model]
        lane.hear(said, since, self._clock.monotonic(), refused=refused)
        self.counts_tokens = self.counts_tokens or (lane.learned is not None and lane.learned.counts_tokens)
        if not self.line:
            return
        self.admit()

    def leave(
        self,
        model: str,
        error: BaseException | None,
        *,
        took: int,
        used: int,
        sent: bool,
        output: int = 0,
        call_class: CallClass = CallClass.INTERACTIVE,
    ) -> None:
        """Give a place back; `error` is how the attempt ended, `used` what of the tokens `took` counts.

        `output`: what of `used` came out.
        """
        if call_class is CallClass.INTERACTIVE:
            self._reserve.leave()
        lane = self._lanes[model]
        if error is None:
            lane.adaptive.was_good(lane.in_flight)
        elif self._is_adaptive and is_pushed_back(error):
            lane.adaptive.pushed_back(lane.in_flight, self._clock.monotonic())
        self.in_flight -= 1
        lane.leave(took=took, used=used, output=output, sent=sent, is_good=error is None)
        if self._places is not None:
            self._places.give_back()
        if lane.is_empty or (not lane.in_flight and len(self._lanes) > _LANES_MAX):
            del self._lanes[model]
        if self._requests is not None and not sent:
            self._requests.correct(took=1, used=0)
        if self.tokens is not None:
            self.tokens.correct(took=took, used=used)
        if self.line:
            self.admit()

    async def wait(self, target: Target, tokens: int, call_class: CallClass, wait_s: float) -> Entered:
        """Wait for a place, and enter.

        Raises:
            TargetFull: there was none in time, or no use in waiting.
        """
        now = self._clock.monotonic()
        waiter = Waiter(
            model=target.model,
            tokens=tokens,
            call_class=call_class,
            since=now,
            until=now + wait_s,
            place=asyncio.get_running_loop().create_future(),
        )
        self._make_room(target, call_class)
        self.line.join(waiter)
        self.admit()
        found = None if waiter.place.done() else self._hindrance(target.model, tokens, now, call_class)
        # Who is in a hurry is not told of the mean time of a lease, which may come at once.
        if found is not None and (found.wait_s or 0.0) > max(wait_s, A_LEASE_S):
            self._step_out(waiter)
            raise self._full(target, found, "")
        if self._sharing is not None and found is not None and 0 < (found.wait_s or 0.0) <= A_LEASE_S:
            self._sharing.soon()
        try:
            async with asyncio.timeout(wait_s):
                return await waiter.place
        except TimeoutError as error:
            self._give_up(waiter)
            found = self._hindrance(target.model, tokens, self._clock.monotonic(), call_class)
            waited = f" None became free within {wait_s:g} s."
            raise self._full(target, found or Hindrance(self._taken()), waited) from error
        except asyncio.CancelledError:
            self._give_up(waiter)
            raise

    def _make_room(self, target: Target, call_class: CallClass) -> None:
        """Keep the line short: who waits in a long one only comes too late."""
        limit = self._limits.concurrency
        most = WAITING_MAX if limit is None else limit
        if self._places is not None and limit is not None:
            # What is still to be leased keeps nobody out.
            most += self._places.left
        if len(self.line) < most:
            return
        last = self.line.youngest_batch() if call_class is CallClass.INTERACTIVE else None
        if last is None:
            found = self._hindrance(target.model, 0, self._clock.monotonic())
            raise self._full(target, found or Hindrance(self._taken()), " As many wait already.")
        self.line.leave(last)
        why = f"An interactive call took its place in the line at {target.name}."
        last.place.set_exception(TargetFull(why, target=target.name))

    def _give_up(self, waiter: Waiter) -> None:
        # The place may have been given in the same turn of the loop in which the wait was called off.
        if self._step_out(waiter) or waiter.place.exception() is not None:
            return
        self.leave(
            waiter.model,
            asyncio.CancelledError(),
            took=waiter.tokens,
            used=0,
            sent=False,
            call_class=waiter.call_class,
        )

    def _step_out(self, waiter: Waiter) -> bool:
        """Go out of the line; who stood behind may be content with less. False: it was not in it any more."""
        was_in = self.line.leave(waiter)
        if was_in:
            self.admit()
        return was_in

    def admit(self) -> None:
        """Let in who waits, in order, as far as there is room."""
        now = self._clock.monotonic()
        again_s: float | None = None
        kept_back: set[str] = set()
        """Models; who stands behind and wants less of one does not go before."""
        for waiter in list(self.line.in_order(now)):
            if waiter.model in kept_back:
                continue
            found = self._hindrance(waiter.model, waiter.tokens, now, waiter.call_class)
            if found is None:
                self.line.leave(waiter)
                waiter.place.set_result(self._enter(waiter.model, waiter.tokens, waiter.call_class))
            elif found.for_all:
                self._expect()
                self._look_again_in(found.at_most_s if found.wait_s is None else found.wait_s)
                return
            else:
                kept_back.add(waiter.model)
                if found.at_most_s is not None:
                    again_s = min(again_s or found.at_most_s, found.at_most_s)
        self._look_again_in(again_s)

    def _expect(self) -> None:
        """Tell the limits what is waited for."""
        if self._requests is not None:
            self._requests.expect(len(self.line))
        if self.tokens is not None:
            self.tokens.expect(self.line.tokens())
        if self._places is not None:
            self._places.expect(len(self.line))

    def _look_again_in(self, wait_s: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if wait_s is not None:
            self._timer = asyncio.get_running_loop().call_later(wait_s, self.admit)

    def _hindrance(
        self, model: str, tokens: int, now: float, call_class: CallClass = CallClass.INTERACTIVE
    ) -> Hindrance | None:
        """Tell what keeps an attempt out; nothing is counted."""
        limits = self._limits
        if limits.concurrency is not None:
            if self.in_flight >= limits.concurrency:
                return Hindrance(self._taken())
            free = limits.concurrency - self.in_flight
            is_batch = call_class is not CallClass.INTERACTIVE
            if is_batch and free <= self._reserve.places(limits.concurrency, now):
                why = f"Places at {self._provider} are kept free for interactive calls."
                return Hindrance(why, at_most_s=self._reserve.turns_in_s(now))
        if self._places is not None and not self._places.has_room(now):
            return Hindrance(self._taken(), A_LEASE_S if self._places.may_be_leased() else None)
        for bucket, amount, name in ((self._requests, 1, "rpm"), (self.tokens, tokens, "tpm")):
            wait_s = 0.0 if bucket is None else bucket.wait_s(amount, now)
            if bucket is not None and wait_s > 0:
                what = f"The rate of {self._provider} is used up (limits.{name} {bucket.per_minute})."
                return Hindrance(what, wait_s)
        lane = self._lanes.get(model)
        if lane is None or not self._is_adaptive:
            return None
        return lane.hindrance(tokens, now)

    def _enter(self, model: str, tokens: int, call_class: CallClass) -> Entered:
        now = self._clock.monotonic()
        if call_class is CallClass.INTERACTIVE:
            self._reserve.enter(now)
        lane = self._lanes.get(model)
        if lane is None:
            lane = self._lanes[model] = Lane(f"{self._provider}/{model}")
        self.in_flight += 1
        if self._places is not None:
            self._places.take()
        if self._requests is not None:
            self._requests.take(1, now)
        if self.tokens is not None:
            self.tokens.take(tokens, now)
        return lane.enter(tokens, now)

    def _taken(self) -> str:
        return f"All places at {self._provider} are taken (limits.concurrency)."

    def _full(self, target: Target, found: Hindrance, more: str) -> TargetFull:
        if found.wait_s is None:
            return TargetFull(found.why + more, target=target.name)
        again = f" There is room in {found.wait_s:.1f} s."
        return TargetThrottled(found.why + again, target=target.name, retry_after_s=found.wait_s)

    def _changed(self, bucket: RateBucket | None, per_minute: int | None, now: float) -> RateBucket | None:
        if per_minute is None:
            return None
        if bucket is None:
            return self._bucket(per_minute, now)
        bucket.change(per_minute, now)
        return bucket

    def _bucket(self, per_minute: int, now: float) -> RateBucket:
        return Bucket(per_minute, now=now) if self._sharing is None else LeasedBucket(per_minute, now=now)

    def _places_left(self) -> int | None:
        limit = self._limits.concurrency
        if limit is None:
            return None
        return max(0, limit - self.in_flight) if self._places is None else self._places.left

    def _shared_places(self, known: LeasedPlaces | None = None) -> LeasedPlaces | None:
        """Give the places that are shared under the limits of now."""
        limit = self._limits.concurrency
        if known is not None:
            known.change(limit)
            return known
        if self._sharing is None or limit is None:
            return None
        return LeasedPlaces(limit, taken=self.in_flight)
