"""Permits: how many attempts may be in flight at a provider, and a short, bounded wait for a place."""

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from tiergate.core import Target, TargetFull


@dataclass(frozen=True, slots=True, kw_only=True)
class PermitStatistics:
    """A provider's places: taken, waited for, and in all (None: no limit)."""

    in_flight: int
    waiting: int
    limit: int | None


class Permit:
    """A place at a provider; a context that gives it back."""

    __slots__ = ("_gate", "in_flight")

    def __init__(self, gate: "_Gate") -> None:
        self._gate: _Gate | None = gate
        self.in_flight = gate.in_flight
        """Attempts in flight when it was given, itself included."""

    def __enter__(self) -> "Permit":
        return self

    def __exit__(self, *_: object) -> None:
        if self._gate is not None:
            self._gate.leave()
            self._gate = None


class Permits:
    """The gates of all providers. Counters survive a change of limits."""

    def __init__(self, limits: Mapping[str, int | None]) -> None:
        self._gates: dict[str, _Gate] = {}
        self.use(limits)

    def use(self, limits: Mapping[str, int | None]) -> None:
        """Take new limits of concurrency, by provider; a provider that is not named has none."""
        self._limits = dict(limits)
        for provider, gate in self._gates.items():
            gate.change(self._limits.get(provider))

    async def take(self, target: Target, *, wait_s: float) -> Permit:
        """Take a place, waiting at most `wait_s`.

        Raises:
            TargetFull: there was none in time, or too many wait already.
        """
        gate = self._gates.get(target.provider)
        if gate is None:
            gate = self._gates[target.provider] = _Gate(self._limits.get(target.provider))
        if not gate.try_enter():
            await _wait(gate, target, wait_s)
        return Permit(gate)

    def statistics(self) -> Mapping[str, PermitStatistics]:
        """The state of every gate that was used, by provider."""
        return {
            provider: PermitStatistics(in_flight=gate.in_flight, waiting=len(gate.waiting), limit=gate.limit)
            for provider, gate in self._gates.items()
        }


class _Gate:
    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.in_flight = 0
        self.waiting: deque[asyncio.Future[None]] = deque()

    def try_enter(self) -> bool:
        if self.waiting or not self._has_room():
            return False
        self.in_flight += 1
        return True

    def leave(self) -> None:
        self.in_flight -= 1
        self._admit()

    def change(self, limit: int | None) -> None:
        self.limit = limit
        self._admit()

    def _has_room(self) -> bool:
        return self.limit is None or self.in_flight < self.limit

    def _admit(self) -> None:
        while self.waiting and self._has_room():
            waiter = self.waiting.popleft()
            if not waiter.done():
                self.in_flight += 1
                waiter.set_result(None)


async def _wait(gate: _Gate, target: Target, wait_s: float) -> None:
    limit = gate.limit
    if limit is not None and len(gate.waiting) >= limit:
        raise _full(target, "and as many wait already")
    waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    gate.waiting.append(waiter)
    try:
        async with asyncio.timeout(wait_s):
            await waiter
    except TimeoutError as error:
        _give_up(gate, waiter)
        raise _full(target, f"and none became free within {wait_s:g} s") from error
    except asyncio.CancelledError:
        _give_up(gate, waiter)
        raise


def _give_up(gate: _Gate, waiter: asyncio.Future[None]) -> None:
    # The place may have been given in the same turn of the loop in which the wait was called off.
    if waiter.done() and not waiter.cancelled():
        gate.leave()
    elif waiter in gate.waiting:
        gate.waiting.remove(waiter)


def _full(target: Target, why: str) -> TargetFull:
    return TargetFull(
        f"All places at {target.provider} are taken (limits.concurrency) {why}.", target=target.name
    )
