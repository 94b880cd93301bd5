"""The whole house, built from settings: rooms, store and log, and a reload that swaps one snapshot."""

import asyncio
import os
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import random

from tiergate.admission import KeyMaker, Keyring
from tiergate.app.alarm import SpendAlarm
from tiergate.app.background import in_background
from tiergate.app.batching import forget_batches, open_batches
from tiergate.app.cabinet import KeyCabinet
from tiergate.app.ledgers import ledger_place
from tiergate.app.sharing import open_doors
from tiergate.app.shelves import open_cache, sweep
from tiergate.app.tenants import Tenants
from tiergate.app.upkeep import follow_keys, keep_up
from tiergate.app.webhook import Webhook
from tiergate.batch import Batches
from tiergate.cache import CacheKeys
from tiergate.catalog import data_problems
from tiergate.config import Loaded, Settings, fill, first_snapshot
from tiergate.config import reload as next_snapshot
from tiergate.core import LOCAL, Caller, Clock, Emit, Event, Notice, SettingsError, SystemClock, usd_text
from tiergate.ledger import (
    Book,
    Ceiling,
    Entry,
    LapsedSlice,
    Period,
    ReceiptMaker,
    SharedBook,
    SoleBook,
)
from tiergate.metering import Lines
from tiergate.rates import Leasing
from tiergate.resilience import Health, RetryBudget
from tiergate.serve import Flights, Rooms
from tiergate.store import LedgerJournal, OwnerLock, kept_secret, open_journal
from tiergate.telemetry import LineLog, LoopDelay, Metrics
from tiergate.upstream import HttpUpstream, open_transport

_OF_THE_HOUSE = "secret"
"""The file that keeps its secret."""
_LEARNT_AT_START = 2_000
_LEARNT_IN_A_ROW = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Sinks:
    """Those who hear of events; `tell` tells all of them."""

    tell: Emit
    hearers: list[Emit]
    """Whoever is added hears, too."""
    metrics: Metrics
    webhook: Webhook
    alarm: SpendAlarm


class House:
    """Everything that serves calls, for as long as `open_house` holds it open."""

    def __init__(
        self,
        *,
        loaded: Loaded,
        rooms: Rooms,
        journal: LedgerJournal,
        lock: OwnerLock,
        upstream: HttpUpstream,
        token: str,
        sinks: "Sinks",
        cabinet: KeyCabinet,
        tenants: Tenants,
        batches: Batches,
        leasing: Leasing | None,
        delay: LoopDelay,
        environ: Mapping[str, str],
    ) -> None:
        self.rooms = rooms
        self.leasing = leasing
        """Of limits that are shared; None: they are not."""
        self.delay = delay
        self.metrics = sinks.metrics
        self._webhook = sinks.webhook
        self._alarm = sinks.alarm
        self.cabinet = cabinet
        self.tenants = tenants
        self.batches = batches
        cabinet.on_change(self._use_keys)
        self.journal = journal
        self.lock = lock
        self.token = token
        """Lets this machine's own command line in, whatever `auth` says."""
        self.emit = sinks.tell
        self.upstream = upstream
        self._reloaded: Callable[[Settings], None] = lambda settings: None
        self._environ = environ
        self._snapshot = first_snapshot(loaded)

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._snapshot.settings

    def counts_all(self) -> bool:
        """Tell whether a budget counts all that was ever spent; that of a job counts its own calls."""
        ceilings = fill.ceilings(self.settings, self.cabinet.keys)
        return any(ceiling.period is Period.TOTAL for ceiling in ceilings)

    def use_ceilings(self) -> None:
        """Put all ceilings in force, as they are now: those of the settings, of keys and of jobs."""
        ceilings = [*fill.ceilings(self.settings, self.cabinet.keys), *self.batches.shifts.ceilings()]
        self.rooms.book.use(ceilings, alerts_at=self.settings.alerts.at)

    def on_reload(self, tell: Callable[[Settings], None]) -> None:
        """Say whom to tell when other settings are in force."""
        self._reloaded = tell

    async def reload(self) -> bool:
        """Read the settings again. A bad file is refused whole and everything stays as it is.

        Calls that run finish under the rules that they started with. Everything that is made from the
        settings is made before any of it is put in place, and put in place in one turn of the loop.
        """
        try:
            new = await asyncio.to_thread(next_snapshot, self._snapshot, self._environ)
        except SettingsError as error:
            message = f"The settings were not reloaded; the old ones stay.\n{error}"
            self.emit(Notice(word="reload_refused", message=message, severe=True))
            return False
        providers = fill.providers(new.settings)
        keyring = _keyring(new.settings, self.token, self.cabinet)
        rules = fill.rules(new.settings, generation=new.generation)
        self._snapshot = new
        self.upstream.use(providers)
        self.rooms.permits.use(
            fill.limits(new.settings), is_adaptive=new.settings.resilience.adaptive_concurrency
        )
        self.rooms.health.use(fill.breakers(new.settings))
        self.rooms.admission.use(keyring)
        self.rooms.rules = rules
        self.use_ceilings()
        self.rooms.cache.use(
            bytes_max=fill.cache_bytes(new.settings),
            is_dry=new.settings.cache.dry_run,
            records_prefixes=new.settings.cache.prefixes,
        )
        self.rooms.flights.receipts_kept_s = new.settings.retention.receipts
        self._webhook.use(fill.webhook(new.settings))
        self._alarm.use(fill.spend_limit_nanos(new.settings))
        self.metrics.goals = fill.goals(new.settings)
        self.batches.shifts.use(at_once=new.settings.limits.batches)
        self._reloaded(new.settings)
        _tell_of_shared(self.cabinet, new.settings, self.emit)
        for notice in new.notices:
            self.emit(Notice(word="settings", message=notice))
        message = f"The settings were reloaded: generation {new.generation}."
        self.emit(Notice(word="reloaded", message=message))
        return True

    def _use_keys(self) -> None:
        """Take the virtual keys as they are now."""
        self.rooms.admission.use(_keyring(self.settings, self.token, self.cabinet))
        self.use_ceilings()


def _tell_of_unknown(cabinet: KeyCabinet, tell: Emit) -> None:
    names = cabinet.unknown()
    if names:
        listed = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
        message = (
            f"The secret of this house is not the one that these keys were made under, so they open nothing: "
            f"{listed}. Bring the old secret back (the data folder's file `secret`, or `secret` in the "
            f"settings), or rotate them."
        )
        tell(Notice(word="keys_unknown", message=message, severe=True))


def _tell_of_shared(cabinet: KeyCabinet, settings: Settings, tell: Emit) -> None:
    names = cabinet.shared(key.name for key in settings.keys)
    if names:
        message = (
            f"A key of the settings and one that was made have the same name: {', '.join(names)}. Records, "
            "budgets and limits take the two for one. Rename that of the settings, or revoke the other one."
        )
        tell(Notice(word="keys_shared", message=message, severe=True))


def _tenants_of(settings: Settings, cabinet: KeyCabinet) -> set[str]:
    """Give the tenants that may call."""
    callers = [LOCAL, *(Caller(key=key.name, team=key.team) for key in settings.keys)]
    callers += [Caller(key=key.name, team=key.team) for key in cabinet.keys if key.revoked_ns is None]
    return {caller.partition for caller in callers}


def _tell_of_lapsed(slices: Sequence[LapsedSlice], tell: Emit) -> None:
    if slices:
        told = ", ".join(f"${usd_text(one.nanos)} of {one.ceiling}" for one in slices[:5])
        message = (
            "The machine went down while calls ran, and records of the last of them may be lost with it. So "
            f"this counts as spent, the most that it can have been: {told}{', …' if len(slices) > 5 else ''}."
        )
        tell(Notice(word="slices_lapsed", message=message, severe=True))


def _keyring(settings: Settings, token: str, cabinet: KeyCabinet) -> Keyring:
    return fill.keyring(settings, house_token=token, virtual=cabinet.keys, digest=cabinet.digest)


@asynccontextmanager
async def open_house(
    loaded: Loaded,
    *,
    environ: Mapping[str, str],
    emit: Emit | None = None,
    write_log: Callable[[bytes], object] | None = None,
    works_batches: bool = False,
) -> AsyncIterator[House]:
    """Become the owner of the data folder and open every room.

    Args:
        loaded: the settings, as `config.load` gave them.
        environ: what a reload fills `${NAME}` from.
        emit: receives every event beside the log.
        write_log: receives lines of the log; None: no log is written.
        works_batches: whether it stays long enough for that; others leave them for the next one.

    Raises:
        StoreOwned: another process serves this data folder.
        CannotStart: the folder or its database cannot be used; says why.
    """
    settings, clock = loaded.settings, SystemClock()
    async with AsyncExitStack() as stack:
        sinks = _sinks(stack, settings, emit, write_log)
        tell = sinks.tell
        for problem in data_problems():
            tell(Notice(word="package_damaged", message=problem, severe=True))
        lock = stack.enter_context(OwnerLock.acquire(settings.data_dir))
        place = ledger_place(settings)
        journal = await stack.enter_async_context(
            place.journal(clock=clock, randomness=os.urandom, emit=tell)
        )
        upstream = HttpUpstream(fill.providers(settings), transport=open_transport())
        stack.push_async_callback(upstream.aclose)
        token = secrets.token_urlsafe(32)
        secret = _secret(settings)
        cabinet = KeyCabinet(journal, KeyMaker(secret, randomness=os.urandom), clock)
        await cabinet.open()
        _tell_of_unknown(cabinet, tell)
        _tell_of_shared(cabinet, settings, tell)
        ceilings = fill.ceilings(settings, cabinet.keys)
        book = await _book(stack, journal, ceilings, settings, clock, tell, is_shared=place.is_shared)
        await book.balances(clock.wall_ns())  # so that no call waits for them
        tenants = Tenants(journal)
        cache = open_cache(stack, settings, CacheKeys(secret, tenants.salt), secret, clock=clock, tell=tell)
        await tenants.open(_tenants_of(settings, cabinet))
        in_background(stack, sweep(cache), "Deleting old answers", tell)
        in_background(stack, tenants.run(), "Following what is erased", tell)
        flights = Flights(
            journal,
            ReceiptMaker(secret),
            cache=cache,
            book=book,
            clock=clock,
            emit=tell,
            receipts_kept_s=settings.retention.receipts,
        )
        stack.push_async_callback(flights.aclose)
        tenants.on_gone(flights.keep_nothing_of, cache.forget)
        delay = LoopDelay()
        in_background(stack, delay.run(), "Watching the event loop", tell)
        lines = Lines()
        in_background(stack, _learn(lines, journal), "Learning from the ledger what texts count", tell)
        keyring = _keyring(settings, token, cabinet)
        doors = open_doors(stack, settings, keyring, clock=clock, tell=tell)
        rooms = Rooms(
            rules=fill.rules(settings, generation=1),
            admission=doors.admission,
            permits=doors.permits,
            retries=RetryBudget(),
            health=Health(fill.breakers(settings), clock=clock, chance=random, emit=tell),
            book=book,
            flights=flights,
            cache=cache,
            lines=lines,
            upstream=upstream,
            clock=clock,
            emit=tell,
        )
        batches = await open_batches(
            stack,
            settings,
            rooms,
            place,
            journal,
            on_ceilings=lambda: house.use_ceilings(),  # noqa: PLW0108 - the house comes after them
            tell=tell,
            is_idle=not works_batches,
        )
        sinks.hearers.append(batches.shifts.hear)
        house = House(
            loaded=loaded,
            rooms=rooms,
            journal=journal,
            lock=lock,
            upstream=upstream,
            token=token,
            sinks=sinks,
            cabinet=cabinet,
            tenants=tenants,
            batches=batches,
            leasing=doors.leasing,
            delay=delay,
            environ=environ,
        )
        upkeep = keep_up(journal, lambda: house.settings, clock, counts_all=house.counts_all)
        in_background(stack, upkeep, "Looking after the ledger", tell)
        if settings.store is not None:
            in_background(stack, follow_keys(cabinet), "Following the keys of other replicas", tell)
        await batches.shifts.open()
        if place.is_shared and works_batches:
            in_background(stack, batches.shifts.follow(), "Following the batches of other replicas", tell)
        forgetting = forget_batches(batches, lambda: house.settings, clock)
        in_background(stack, forgetting, "Deleting old batches", tell)
        yield house


async def _book(
    stack: AsyncExitStack,
    journal: LedgerJournal,
    ceilings: Sequence[Ceiling],
    settings: Settings,
    clock: Clock,
    tell: Emit,
    *,
    is_shared: bool,
) -> Book:
    """Open the book that fits the store."""
    at = settings.alerts.at
    if not is_shared:
        sole = SoleBook(journal, ceilings=ceilings, alerts_at=at, emit=tell)
        _tell_of_lapsed(await sole.open(), tell)
        return sole
    shared = SharedBook(journal, ceilings=ceilings, alerts_at=at, emit=tell)
    in_background(stack, shared.watch(clock), "Watching the budgets", tell)
    return shared


def _sinks(
    stack: AsyncExitStack,
    settings: Settings,
    emit: Emit | None,
    write_log: Callable[[bytes], object] | None,
) -> Sinks:
    """Open everything that hears of events: counters, whoever asked, the log, the webhook, the alarm."""
    metrics = Metrics(fill.goals(settings))
    sinks: list[Emit] = [metrics] if emit is None else [metrics, emit]
    if write_log is not None:
        log = LineLog(write_log, wall_ns=SystemClock().wall_ns)
        stack.callback(log.close)
        sinks.append(log)
    tell = _to_all(sinks)
    transport = open_transport()
    stack.push_async_callback(transport.aclose)
    webhook = Webhook(fill.webhook(settings), transport=transport, emit=tell)
    alarm = SpendAlarm(fill.spend_limit_nanos(settings), monotonic=SystemClock().monotonic, emit=tell)
    sinks += [webhook, alarm]
    in_background(stack, webhook.run(), "Delivering alerts", tell)
    return Sinks(tell=tell, hearers=sinks, metrics=metrics, webhook=webhook, alarm=alarm)


def _secret(settings: Settings) -> str:
    """Give the house's secret: that of the settings, else one that is made once and kept there."""
    if settings.secret is not None:
        return settings.secret.reveal()
    return kept_secret(settings.data_dir / _OF_THE_HOUSE, lambda: secrets.token_hex(32))


async def _learn(lines: Lines, journal: LedgerJournal) -> None:
    """Teach the estimates what the ledger knows, a little in each turn of the loop: calls come first."""
    for number, counted in enumerate(await journal.counted(limit=_LEARNT_AT_START), start=1):
        lines.learn(counted.target, counted.shape, counted.input_tokens)
        if number % _LEARNT_IN_A_ROW == 0:
            await asyncio.sleep(0)


async def read_ledger(data_dir: Path) -> AsyncIterator[Entry]:
    """Give every call of a ledger whose owner has left, in order."""
    with OwnerLock.acquire(data_dir):
        async with open_journal(
            data_dir, clock=SystemClock(), randomness=os.urandom, emit=_to_nobody
        ) as journal:
            after = None
            while page := await journal.entries(after=after, limit=1000):
                for entry in page:
                    yield entry
                after = page[-1].call_id


def write_to_stderr(lines: bytes) -> None:
    """Write lines of the log where Twelve-Factor programs write them."""
    os.write(sys.stderr.fileno(), lines)


def _to_nobody(event: Event) -> None:
    """Take no notice."""


def _to_all(sinks: list[Emit]) -> Emit:
    def emit(event: Event) -> None:
        for sink in sinks:
            sink(event)

    return emit
