"""Rates that several processes share: each leases a little ahead, so that no call waits for the others.

While the bank cannot be asked, each takes the share that its limit says. Rates are best effort: over a moment
more may be asked for than the rate, by what the processes have leased. Money is exact, and elsewhere.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple, Protocol

from tiergate.core import Clock, Emit, Notice
from tiergate.resilience.buckets import BURST_S, SLICE_S, LeasedBucket

GONE_S: Final = 1.0
"""So long nobody notices that the bank does not answer: what is leased lasts, or calls wait a little."""
_KNOWN_EVERY_S: Final = 1.0
"""How often a process that needs nothing says that it is there."""
_NO_END: Final = float("inf")


class WithoutBank(StrEnum):
    """What a limit lets in while its processes cannot ask each other."""

    SHARE = "share"
    """As much as there are processes, each its part."""
    CLOSED = "closed"
    """Nothing."""
    OPEN = "open"
    """Everything."""


class RatesUnavailable(Exception):
    """The bank cannot be asked now; says why, without its address."""


class Want(NamedTuple):
    """What a process wants of a rate; less than nothing: it gives that back."""

    name: str
    amount: float
    per_s: float
    most: float
    """What is saved up of it at most."""


class Leased(NamedTuple):
    """What it got, in order, and how many processes there are."""

    grants: Sequence[float]
    processes: int


class RateBank(Protocol):
    """Keeps the rates that processes share. A rate that is new there has nothing saved up."""

    async def lease(self, process: str, wants: Sequence[Want]) -> Leased:
        """Take note that a process is there, and give it of each rate what it wants and is left.

        Of what is left no more than one process's part goes to one at a time, or one request.

        Raises:
            RatesUnavailable: nothing is known, something may have been taken.
        """
        ...


@dataclass(slots=True)
class SharedRate:
    """A rate of this process: its bucket, its name for all processes, and what happens without the bank."""

    name: str
    bucket: LeasedBucket
    without: WithoutBank


class Rates(Protocol):
    """Where the rates of this process are."""

    def shared(self) -> Iterable[SharedRate]:
        """Those that are leased."""
        ...

    def look_again(self) -> None:
        """Let in who waited for one and has room now."""
        ...


class Leasing:
    """Leases for one process, until it is cancelled.

    Args:
        rates: what is leased.
        bank: whom is asked.
        process: the name of this one.
        clock: monotonic seconds.
        emit: hears when the bank goes and comes back.
    """

    def __init__(self, rates: Rates, bank: RateBank, *, process: str, clock: Clock, emit: Emit) -> None:
        self._rates = rates
        self._bank = bank
        self._process = process
        self._clock = clock
        self._emit = emit
        self._failing_since: float | None = None
        self._asked = -_NO_END
        self._gone_since: float | None = None
        self._gone_s = 0.0
        self.processes = 1
        """How many there are, as the bank said last."""

    @property
    def gone_s(self) -> float:
        """For how many seconds, all in all, the bank could not be asked."""
        since = self._gone_since
        return self._gone_s + (0.0 if since is None else self._clock.monotonic() - since)

    async def run(self) -> None:
        """Lease again and again."""
        while True:
            await self.once()
            await asyncio.sleep(SLICE_S)

    async def once(self) -> None:
        """Lease what is wanted now."""
        now = self._clock.monotonic()
        rates = list(self._rates.shared())
        wants = [_want(rate) for rate in rates]
        if not any(want.amount for want in wants) and now - self._asked < _KNOWN_EVERY_S:
            return
        self._asked = now
        try:
            leased = await self._bank.lease(self._process, wants)
        except RatesUnavailable as error:
            self._go_on_alone(rates, error)
        else:
            self._take(rates, leased)
        self._rates.look_again()

    def _take(self, rates: Sequence[SharedRate], leased: Leased) -> None:
        now = self._clock.monotonic()
        self._failing_since, self.processes = None, max(1, leased.processes)
        for rate, amount in zip(rates, leased.grants, strict=True):
            rate.bucket.grant(amount, now)
        if self._gone_since is not None:
            gone_s, self._gone_since = now - self._gone_since, None
            self._gone_s += gone_s
            self._emit(Notice(word="redis_back", message=f"Redis answers again, after {gone_s:.0f} s."))

    def _go_on_alone(self, rates: Sequence[SharedRate], error: RatesUnavailable) -> None:
        now = self._clock.monotonic()
        if self._failing_since is None:
            self._failing_since = now
        if now - self._failing_since < GONE_S:
            return
        if self._gone_since is None:
            self._gone_since = now
            message = (
                f"Redis cannot be asked for rates ({error}). Until it answers each limit does what its "
                f"`without_redis` says; a share is one of {self.processes}. Calls go on."
            )
            self._emit(Notice(word="redis_gone", message=message, severe=True))
        for rate in rates:
            rate.bucket.alone(_share(rate.without, self.processes), now)


def _want(rate: SharedRate) -> Want:
    per_s = rate.bucket.per_minute / 60
    return Want(rate.name, rate.bucket.wanted(), per_s, max(1.0, per_s * BURST_S))


def _share(without: WithoutBank, processes: int) -> float:
    match without:
        case WithoutBank.SHARE:
            return 1 / processes
        case WithoutBank.CLOSED:
            return 0.0
        case WithoutBank.OPEN:
            return _NO_END
