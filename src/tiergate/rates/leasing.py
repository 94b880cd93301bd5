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
from tiergate.rates.places import LeasedPlaces
from tiergate.rates.wants import PlaceWant, Want

ASKED_S: Final = 0.05
"""Whoever asks by the way waits no longer for an answer."""
GONE_S: Final = 1.0
"""So long nobody notices that the bank does not answer: what is leased lasts, or calls wait a little."""
_KNOWN_EVERY_S: Final = 1.0
"""How often a process that needs nothing says that it is there."""
_APART_S: Final = 0.005
"""However many ask by the way, they ask together."""
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


class Leased(NamedTuple):
    """What it got, or has of places, in order, and how many processes there are."""

    grants: Sequence[float]
    left: Sequence[float | None]
    """What of each is left for whoever asks next; None: nothing was wanted of it, so nobody looked."""
    processes: int


class RateBank(Protocol):
    """Keeps the rates that processes share."""

    async def lease(self, process: str, wants: Sequence[Want | PlaceWant]) -> Leased:
        """Take note that a process is there, and give it of each what it wants and is left.

        Of a rate no more than one process's part goes to one at a time, or one request. Of places one gets
        more than its part only where no other wants them; those of a process that is gone are free again.

        Raises:
            RatesUnavailable: nothing is known, something may have been taken.
        """
        ...


@dataclass(slots=True)
class SharedLimit:
    """A limit: its name for all processes, this one's part of it, and what happens without the bank."""

    name: str
    part: LeasedBucket | LeasedPlaces
    without: WithoutBank


class LimitHolder(Protocol):
    """Where shared limits of this process are."""

    def shared(self, *, urgent: bool) -> Iterable[SharedLimit]:
        """Those that are leased; `urgent`: only those that somebody waits for."""
        ...

    def look_again(self) -> None:
        """Let in who waited for one and has room now."""
        ...


class Sharing(Protocol):
    """What somebody can ask who lacks something now."""

    async def ask(self, wait_s: float) -> bool:
        """Lease at once what is wanted; False: no answer came in this time."""
        ...

    def soon(self) -> None:
        """Lease at once what is wanted; whoever holds the limit is told to look again."""
        ...

    def share(self, without: WithoutBank) -> float:
        """Tell which share of a limit is ours while nobody answers."""
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

    async def run(self, *holders: LimitHolder) -> None:
        """Lease again and again, until cancelled."""
        due = self._clock.monotonic()
        while True:
            is_due = self._clock.monotonic() >= due
            if is_due:
                due = self._clock.monotonic() + SLICE_S
            await self.once(*holders, urgent=not is_due)
            await asyncio.sleep(_APART_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, due - self._clock.monotonic())):
                    await self._is_wanted.wait()

    async def ask(self, wait_s: float) -> bool:
        """Lease at once what is wanted; False: no answer came in this time, or none is expected."""
        if self._failing_since is not None:
            return False
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._asking.append(answer)
        self._is_wanted.set()
        try:
            async with asyncio.timeout(wait_s):
                return await answer
        except TimeoutError:
            return False

    def soon(self) -> None:
        """Lease at once what is wanted, unless no answer is expected."""
        if self._failing_since is None:
            self._is_wanted.set()

    def share(self, without: WithoutBank) -> float:
        """Tell which share of a limit is ours while nobody answers."""
        match without:
            case WithoutBank.SHARE:
                return 1 / self.processes
            case WithoutBank.CLOSED:
                return 0.0
            case WithoutBank.OPEN:
                return _NO_END

    async def once(self, *holders: LimitHolder, urgent: bool = False) -> None:
        """Lease what is wanted now; `urgent`: only what somebody waits for, however many limits there are."""
        asking, self._asking = self._asking, []
        self._is_wanted.clear()
        limits = [limit for holder in holders for limit in holder.shared(urgent=urgent)]
        is_answered = await self._lease(limits)
        for answer in asking:
            if not answer.done():
                answer.set_result(is_answered)
        for holder in holders:
            holder.look_again()

    async def _lease(self, limits: Sequence[SharedLimit]) -> bool:
        now = self._clock.monotonic()
        wants = [limit.part.want(limit.name) for limit in limits]
        wants_nothing = not any(want.is_needed for want in wants)
        if wants_nothing and self._failing_since is None and now - self._asked < _KNOWN_EVERY_S:
            return True
        self._asked = now
        try:
            leased = await self._bank.lease(self._process, wants)
        except RatesUnavailable as error:
            self._go_on_alone(limits, error)
            return False
        self._take(limits, leased)
        return True

    def _take(self, limits: Sequence[SharedLimit], leased: Leased) -> None:
        now = self._clock.monotonic()
        self._failing_since, self.processes = None, max(1, leased.processes)
        for limit, amount, left in zip(limits, leased.grants, leased.left, strict=True):
            limit.part.grant(amount, now, left)
        if self._gone_since is not None:
            gone_s, self._gone_since = now - self._gone_since, None
            self._gone_s += gone_s
            self._emit(Notice(word="redis_back", message=f"Redis answers again, after {gone_s:.0f} s."))

    def _go_on_alone(self, limits: Sequence[SharedLimit], error: RatesUnavailable) -> None:
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
        for limit in limits:
            limit.part.alone(self.share(limit.without), now)
