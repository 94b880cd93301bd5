"""Ceilings: what may be spent, by whom, in which window; and what is spent and held of each.

Everything here is arithmetic in memory and happens in one turn of the event loop, so no two holds can see the
same free money. What was spent before comes from the ledger: a window's balance is loaded when the first hold
asks for it, and whatever settles in the meantime is noted and added.

    spent + held + new <= ceiling + slack

A call belongs to the window in which it was received, as reports have it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from tiergate.core import Target
from tiergate.ledger.records import AttemptEntry, CallOpened, Entry
from tiergate.ledger.windows import Period, Window, window_at


class Scope(StrEnum):
    """Whose money a ceiling limits."""

    ALL = "all"
    KEY = "key"
    TEAM = "team"
    MODEL = "model"
    """A model by the name that callers ask for."""
    TIER = "tier"
    """All targets of a tier."""
    JOB = "job"
    """The lines of a job, by its id."""


Whose = tuple[Scope, str]
"""A scope and the name in it; no name where the scope is all."""


class About(NamedTuple):
    """What decides which ceilings an attempt counts against."""

    key: str
    team: str | None
    model: str
    tier: str
    job: str | None = None

    def whose(self) -> Iterator[Whose]:
        """Give everybody whose ceilings count it."""
        yield Scope.ALL, ""
        yield Scope.KEY, self.key
        if self.team is not None:
            yield Scope.TEAM, self.team
        yield Scope.MODEL, self.model
        yield Scope.TIER, self.tier
        if self.job is not None:
            yield Scope.JOB, self.job


class OfJob(NamedTuple):
    """All attempts of a job together."""

    job: str

    def whose(self) -> Iterator[Whose]:
        """Give whose ceilings count them, of those that are of this job alone."""
        yield Scope.JOB, self.job


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """An amount that may be spent in each window. Amounts are nano-dollars.

    `name`: of the key, team, model or tier, the id of a job; empty for all. `allows_unbounded`: whether a
    call passes whose worst case nobody can tell; it is held with nothing and charged with what it cost.
    """

    scope: Scope
    amount_nanos: int
    name: str = ""
    period: Period = Period.TOTAL
    slack_nanos: int = 0
    zone: str = "UTC"
    allows_unbounded: bool = False
    id: str = field(init=False)
    """Its name for people and for looking it up: `key:web per month`."""

    @property
    def whose(self) -> Whose:
        """Whom it limits."""
        return self.scope, self.name

    def __post_init__(self) -> None:
        whose = self.scope.value if self.scope is Scope.ALL else f"{self.scope.value}:{self.name}"
        per = "in total" if self.period is Period.TOTAL else f"per {self.period.value}"
        object.__setattr__(self, "id", f"{whose} {per}")

    def covers(self, about: About) -> bool:
        """Tell whether an attempt counts against it."""
        return self.whose in about.whose()

    def window(self, at_ns: int) -> Window:
        """Give the window that a moment lies in."""
        return window_at(self.period, self.zone, at_ns)


@dataclass(slots=True, kw_only=True)
class Balance:
    """One ceiling in one window: what is spent, what of it lapsed, what is held. Nano-dollars."""

    ceiling: Ceiling
    window: Window
    spent_nanos: int = 0
    """Settled, and lapsed at the worst case."""
    lapsed_nanos: int = 0
    """The part of it that a dead owner left and nobody has settled."""
    held_nanos: int = 0
    drawn_nanos: int = 0
    """How far spent and held may go before more is written down (`slices`)."""
    reached: float = 0.0
    """The largest share of the ceiling that was told of."""
    tell_at_nanos: int = 0
    """The spending from which on somebody may want to hear of it; 0: that has to be looked up."""

    @property
    def limit_nanos(self) -> int:
        """The most that may be spent and held together."""
        return self.ceiling.amount_nanos + self.ceiling.slack_nanos

    @property
    def share(self) -> float:
        """The spent part of the ceiling."""
        return self.spent_nanos / max(1, self.ceiling.amount_nanos)

    @property
    def left_nanos(self) -> int:
        """What a new hold may take now; 0 where nothing is left."""
        return max(0, self.limit_nanos - self.spent_nanos - self.held_nanos)

    def refuses(self, amount_nanos: int) -> bool:
        """Tell whether an amount does not fit, even when nothing is held."""
        return amount_nanos > 0 and self.spent_nanos + amount_nanos > self.limit_nanos

    def delays(self, amount_nanos: int) -> bool:
        """Tell whether an amount does not fit while what is held is held."""
        return amount_nanos > 0 and self.spent_nanos + self.held_nanos + amount_nanos > self.limit_nanos


class Claim(NamedTuple):
    """A ceiling in one of its windows: what a hold counts against."""

    ceiling: Ceiling
    window: Window


class SpentBy(NamedTuple):
    """What attempts of one kind have cost in a span of time; `lapsed_nanos` is a part of `spent_nanos`."""

    about: About | OfJob
    spent_nanos: int
    lapsed_nanos: int


class Total(NamedTuple):
    """What somebody's attempts have cost."""

    spent_nanos: int = 0
    lapsed_nanos: int = 0


def totals(rows: Iterable[SpentBy]) -> dict[Whose, Total]:
    """Add up what was spent, for everybody whose ceilings may count it; one pass, however many those are."""
    found: dict[Whose, Total] = {}
    for about, spent_nanos, lapsed_nanos in rows:
        for whose in about.whose():
            before = found.get(whose, _NOTHING)
            found[whose] = Total(before.spent_nanos + spent_nanos, before.lapsed_nanos + lapsed_nanos)
    return found


_NOTHING: Final = Total()


class Reservation(NamedTuple):
    """An attempt's worst case, counted as held until it settles; None: it has no bound."""

    call_id: str
    n: int
    about: About
    received_ns: int
    amount_nanos: int | None


class _Held(NamedTuple):
    """A reservation, the balances that count it, and the version of the set that they are from."""

    reservation: Reservation
    balances: list[Balance]
    version: int


class Key(NamedTuple):
    """Names a balance: a ceiling's id and when its window began."""

    ceiling: str
    start_ns: int


@dataclass(slots=True)
class _Load:
    """What settled since a load began: the ledger's answer does not have it."""

    settled: list[tuple[Reservation, int]] = field(default_factory=list)


class Ceilings:
    """All ceilings with their balances."""

    def __init__(self, ceilings: Iterable[Ceiling] = ()) -> None:
        self._ceilings: tuple[Ceiling, ...] = ()
        self._by_whose: dict[Whose, list[Ceiling]] = {}
        self._balances: dict[Key, Balance] = {}
        self._held: dict[tuple[str, int], _Held] = {}
        self._load: _Load | None = None
        self._covering: dict[About, tuple[Ceiling, ...]] = {}
        self._latest: dict[str, Balance] = {}
        """The balance that each ceiling was last asked for: nearly every call lies in the same window."""
        self._lapsed: Mapping[Key, int] = {}
        """What a loss of power took the records of."""
        self._version = 0
        """Grows when balances come or go; what was looked up under an older one is looked up again."""
        self.use(ceilings)

    def use(self, ceilings: Iterable[Ceiling]) -> None:
        """Take new ceilings. Balances of those that stay are kept, others are loaded when asked for."""
        self._ceilings = tuple(ceilings)
        self._by_whose = {}
        for ceiling in self._ceilings:
            self._by_whose.setdefault(ceiling.whose, []).append(ceiling)
        kept = {ceiling.id: ceiling for ceiling in self._ceilings}
        self._balances = {
            key: balance
            for key, balance in self._balances.items()
            if key.ceiling in kept and kept[key.ceiling].zone == balance.ceiling.zone
        }
        for key, balance in self._balances.items():
            balance.ceiling, balance.tell_at_nanos = kept[key.ceiling], 0
            # Of a larger amount a smaller share is spent: the shares above it will be told again.
            balance.reached = min(balance.reached, balance.share)
        self._covering.clear()
        self._changed()

    def take_lapsed(self, lapsed: Mapping[Key, int]) -> None:
        """Take what counts as spent beside the records; of balances that are loaded from now on."""
        self._lapsed = lapsed

    def covering(self, about: About) -> tuple[Ceiling, ...]:
        """Give the ceilings that an attempt counts against."""
        found = self._covering.get(about)
        if found is None:
            if len(self._covering) >= _ABOUTS_MAX:
                self._covering.clear()
            found = tuple(ceiling for whose in about.whose() for ceiling in self._by_whose.get(whose, ()))
            self._covering[about] = found
        return found

    def loaded(self, about: About, at_ns: int) -> list[Balance] | None:
        """Give the balances that an attempt counts against; None: one of them is not loaded."""
        found = []
        for ceiling in self.covering(about):
            balance = self._latest.get(ceiling.id)
            if balance is None or not balance.window.holds(at_ns):
                balance = self.balance(ceiling, ceiling.window(at_ns))
                if balance is None:
                    return None
                self._latest[ceiling.id] = balance
            found.append(balance)
        return found

    def missing(self, about: About, at_ns: int) -> list[Claim]:
        """Give the windows of an attempt's ceilings whose balance is not loaded."""
        return [claim for claim in self.claims(about, at_ns) if _key(*claim) not in self._balances]

    def claims(self, about: About, at_ns: int) -> list[Claim]:
        """Give what an attempt counts against."""
        return [Claim(ceiling, ceiling.window(at_ns)) for ceiling in self.covering(about)]

    def current(self, at_ns: int) -> list[Claim]:
        """Give every ceiling with the window that a moment lies in."""
        return [Claim(ceiling, ceiling.window(at_ns)) for ceiling in self._ceilings]

    def balance(self, ceiling: Ceiling, window: Window) -> Balance | None:
        """Give a balance; None: it is not loaded."""
        return self._balances.get(_key(ceiling, window))

    def balances(self, about: About, at_ns: int) -> list[Balance]:
        """Give the loaded balances that an attempt counts against."""
        found = [self.balance(ceiling, ceiling.window(at_ns)) for ceiling in self.covering(about)]
        return [balance for balance in found if balance is not None]

    # Reservations.

    def reserve(self, reservation: Reservation) -> None:
        """Count an attempt's worst case as held; whoever calls has asked its balances before."""
        balances = self.loaded(reservation.about, reservation.received_ns)
        if balances is None:
            balances = self.balances(reservation.about, reservation.received_ns)
        amount = reservation.amount_nanos or 0
        for balance in balances:
            balance.held_nanos += amount
        self._held[reservation.call_id, reservation.n] = _Held(reservation, balances, self._version)

    def settle(self, call_id: str, n: int, cash_nanos: int | None) -> list[Balance]:
        """Replace a reservation by what it cost; give the balances that changed. Unknown costs count nothing.

        An attempt that is not held changes nothing.
        """
        held = self._held.pop((call_id, n), None)
        if held is None:
            return []
        reservation, changed, version = held
        cost = cash_nanos or 0
        if self._load is not None:
            self._load.settled.append((reservation, cost))
        if version != self._version:
            changed = self.balances(reservation.about, reservation.received_ns)
        amount = reservation.amount_nanos or 0
        for balance in changed:
            balance.held_nanos -= amount
            balance.spent_nanos += cost
        return changed

    # Loading.

    def begin_load(self) -> None:
        """Note from now on what settles. The ledger is asked for what was handed in before this moment."""
        assert self._load is None, "one load at a time"
        self._load = _Load()

    def end_load(self, wanted: Sequence[Claim], spent: Sequence[SpentBy]) -> None:
        """Make balances of what the ledger says, what settled since, and what is held now.

        All that is wanted lies in one window: the one that the ledger was asked for.
        """
        load, self._load = self._load, None
        assert load is not None
        (window,) = {claim.window for claim in wanted}
        before = totals(spent)
        since = totals(_in_window(load.settled, window))
        held = totals(_in_window(((one, one.amount_nanos or 0) for one, *_ in self._held.values()), window))
        in_force = {ceiling.id: ceiling for ceiling in self._ceilings}
        for asked, _ in wanted:
            ceiling = in_force.get(asked.id)
            if ceiling is None or ceiling.zone != asked.zone:
                continue  # the settings were read again in the meantime
            beside = self._lapsed.get(_key(ceiling, window), 0)
            known = before.get(ceiling.whose, _NOTHING)
            balance = Balance(
                ceiling=ceiling,
                window=window,
                spent_nanos=beside + known.spent_nanos + since.get(ceiling.whose, _NOTHING).spent_nanos,
                lapsed_nanos=beside + known.lapsed_nanos,
                held_nanos=held.get(ceiling.whose, _NOTHING).spent_nanos,
            )
            # What was reached before was told of before.
            balance.reached = balance.share
            self._balances[_key(ceiling, window)] = balance
        self._changed()

    def abandon_load(self) -> None:
        """End a load that has failed; nothing is loaded."""
        self._load = None

    def forget_before(self, at_ns: int) -> None:
        """Drop balances of windows that have ended and in which nothing is held."""
        self._balances = {
            key: balance
            for key, balance in self._balances.items()
            if balance.held_nanos or balance.window.end_ns is None or balance.window.end_ns > at_ns
        }
        self._changed()

    def _changed(self) -> None:
        self._latest.clear()
        self._version += 1


_ABOUTS_MAX: Final = 10_000
"""Callers choose names of models, so what is remembered of them is bounded."""


def about(opened: CallOpened, target: Target) -> About:
    """Tell what an attempt counts against."""
    call = opened.call
    caller = call.caller
    job = None if call.line is None else call.line.job
    return About(caller.key, caller.team, call.asked_model, target.tier._value_, job)


def about_entry(entry: Entry, attempt: AttemptEntry) -> About:
    """Tell the same of an attempt that was read back."""
    return About(entry.key, entry.team, entry.asked_model, attempt.tier, entry.job)


def _key(ceiling: Ceiling, window: Window) -> Key:
    return Key(ceiling.id, window.start_ns)


def _in_window(costs: Iterable[tuple[Reservation, int]], window: Window) -> Iterator[SpentBy]:
    return (SpentBy(one.about, cost, 0) for one, cost in costs if window.holds(one.received_ns))
