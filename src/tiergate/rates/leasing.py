"""Rates that several processes share: each leases a little ahead, so that no call waits for the others.

While the bank cannot be asked, each takes the share that its limit says. Rates are best effort: over a moment
more may be asked for than the rate, by what the processes have leased. Money is exact, and elsewhere.
"""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple, Protocol

from tiergate.core import Clock, Emit, Notice
from tiergate.rates.buckets import SLICE_S, LeasedBucket

ASKED_S: Final = 0.05
"""Whoever asks by the way waits no longer for an answer."""
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
    first: float = 0.0
    """What is saved up of it when nobody has used it."""


class Leased(NamedTuple):
    """What it got, in order, and how many processes there are."""

    grants: Sequence[float]
    left: Sequence[float | None]
    """What of each is left for whoever asks next; None: nothing was wanted of it, so nobody looked."""
    processes: int


class RateBank(Protocol):
    """Keeps the rates that processes share."""

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


class RateHolder(Protocol):
    """Where rates of this process are."""

    def shared(self) -> Iterable[SharedRate]:
        """Those that are leased."""
        ...

    def look_again(self) -> None:
        """Let in who waited for one and has room now."""
        ...


class Sharing(Protocol):
    """What somebody can ask who lacks something now."""

    async def ask(self) -> bool:
        """Lease at once what is wanted; False: no answer came in a moment."""
        ...

    def share(self, without: WithoutBank) -> float:
        """Tell which share of a rate is ours while nobody answers."""
        ...


class Leasing:
    """Leases for one process. It is itself what those who lack something ask (`Sharing`).

    Args:
        bank: whom is asked.
        process: the name of this one.
        clock: monotonic seconds.
        emit: hears when the bank goes and comes back.
    """

    def __init__(self, bank: RateBank, *, process: str, clock: Clock, emit: Emit) -> None:
        self._bank = bank
        self._process = process
        self._clock = clock
        self._emit = emit
        self._failing_since: float | None = None
        self._asked = -_NO_END
        self._gone_since: float | None = None
        self._gone_s = 0.0
        self._is_wanted = asyncio.Event()
        self._asking: list[asyncio.Future[bool]] = []
        self.processes = 1
        """How many there are, as the bank said last."""

    @property
    def gone_s(self) -> float:
        """For how many seconds, all in all, the bank could not be asked."""
        since = self._gone_since
        return self._gone_s + (0.0 if since is None else self._clock.monotonic() - since)

    async def run(self, *holders: RateHolder) -> None:
        """Lease again and again, until cancelled."""
        while True:
            await self.once(*holders)
            with suppress(TimeoutError):
                async with asyncio.timeout(SLICE_S):
                    await self._is_wanted.wait()

    async def ask(self) -> bool:
        """Lease at once what is wanted; False: no answer came in a moment, or none is expected."""
        if self._failing_since is not None:
            return False
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._asking.append(answer)
        self._is_wanted.set()
        try:
            async with asyncio.timeout(ASKED_S):
                return await answer
        except TimeoutError:
            return False

    def share(self, without: WithoutBank) -> float:
        """Tell which share of a rate is ours while nobody answers."""
        match without:
            case WithoutBank.SHARE:
                return 1 / self.processes
            case WithoutBank.CLOSED:
                return 0.0
            case WithoutBank.OPEN:
                return _NO_END

    async def once(self, *holders: RateHolder) -> None:
        """Lease what is wanted now."""
        asking, self._asking = self._asking, []
        self._is_wanted.clear()
        is_answered = await self._lease(holders)
        for answer in asking:
            if not answer.done():
                answer.set_result(is_answered)
        for holder in holders:
            holder.look_again()

    async def _lease(self, holders: Iterable[RateHolder]) -> bool:
        now = self._clock.monotonic()
        rates = [rate for holder in holders for rate in holder.shared()]
        wants = [_want(rate) for rate in rates]
        wants_nothing = not any(want.amount for want in wants)
        if wants_nothing and self._failing_since is None and now - self._asked < _KNOWN_EVERY_S:
            return True
        self._asked = now
        try:
            leased = await self._bank.lease(self._process, wants)
        except RatesUnavailable as error:
            self._go_on_alone(rates, error)
            return False
        self._take(rates, leased)
        return True

    def _take(self, rates: Sequence[SharedRate], leased: Leased) -> None:
        now = self._clock.monotonic()
        self._failing_since, self.processes = None, max(1, leased.processes)
        for rate, amount, left in zip(rates, leased.grants, leased.left, strict=True):
            rate.bucket.grant(amount, now, left)
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
            rate.bucket.alone(self.share(rate.without), now)


def _want(rate: SharedRate) -> Want:
    bucket = rate.bucket
    return Want(rate.name, bucket.wanted(), bucket.per_minute / 60, bucket.most, bucket.first)
