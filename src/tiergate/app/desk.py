"""The desk of the admin plane: its questions answered from a running house."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from math import isfinite
from typing import Any, Final

from tiergate.admin import Desk, KeyWish
from tiergate.admission import VirtualKey
from tiergate.app.house import House
from tiergate.app.ledgers import ledger_place
from tiergate.core import NANOS_PER_USD, StorageUnavailable, SystemClock
from tiergate.ledger import Balance
from tiergate.resilience import HealthReport, StateName
from tiergate.store import LedgerPast
from tiergate.telemetry import gauge

_BREAKERS_MAX: Final = 1_000
"""Callers choose names of models; a page of metrics has room for so many."""


def desk_of(house: House) -> Desk:
    """Give the desk of a house."""
    clock, book, journal, cabinet = SystemClock(), house.rooms.book, house.journal, house.cabinet

    async def balances() -> Sequence[Balance]:
        return await book.balances(clock.wall_ns())

    async def create_key(wish: KeyWish) -> tuple[VirtualKey, str]:
        taken = ["local", *(key.name for key in house.settings.keys)]
        return await cabinet.create(wish, taken=taken)

    async def past() -> LedgerPast:
        await journal.until_written()
        return ledger_place(house.settings).past()

    async def metrics() -> bytes:
        # A ledger in trouble is when somebody looks here: the page then comes without the budgets.
        found: Sequence[Balance] = ()
        with suppress(StorageUnavailable):
            found = await balances()
        return house.metrics.page(_gauges(house, found))

    return Desk(
        balances=balances,
        find=journal.find,
        resolve=book.resolve,
        adjust=book.adjust,
        past=past,
        zone=lambda: house.settings.timezone,
        list_keys=lambda: cabinet.keys,
        create_key=create_key,
        revoke_key=cabinet.revoke,
        rotate_key=lambda name, grace_s: cabinet.rotate(name, grace_s=grace_s),
        targets=lambda: _targets(house),
        isolate=lambda provider, model: _by_hand(house, house.rooms.health.isolate, provider, model),
        restore=lambda provider, model: _by_hand(house, house.rooms.health.restore, provider, model),
        settings=lambda: house.settings.model_dump(mode="json"),
        reload=house.reload,
        metrics=metrics,
        wall_ns=clock.wall_ns,
    )


def _by_hand(house: House, do: Callable[[str, str], None], provider: str, model: str) -> bool:
    if provider not in house.settings.providers:
        return False
    do(provider, model)
    return True


def _targets(house: House) -> list[Mapping[str, Any]]:
    """Tell the state of every provider: places taken, its servers one by one, and what is left alone."""
    places = house.rooms.permits.statistics()
    replicas = house.upstream.statistics().replicas
    health = list(house.rooms.health.reports())
    rows: list[Mapping[str, Any]] = []
    for name, provider in house.settings.providers.items():
        place = places.get(name)
        own = [report for report in health if report.provider == name]
        rows.append(
            {
                "provider": name,
                "tier": provider.tier,
                "in_flight": 0 if place is None else place.in_flight,
                "waiting": 0 if place is None else place.waiting,
                "limit": provider.limits.concurrency,
                "requests_left": None if place is None else place.requests_left,
                "tokens_left": None if place is None else place.tokens_left,
                "learned_concurrency": {} if place is None else place.learned,
                "breakers": {report.part: _breaker_object(report) for report in own if not report.model},
                "models": [
                    {"model": report.model, **_breaker_object(report), "throttled_s": report.throttled_s}
                    for report in own
                    if report.model
                ],
                "replicas": [
                    {"server": one.replica, "in_flight": one.in_flight, "resting": one.resting}
                    for one in replicas
                    if one.provider == name
                ],
            }
        )
    return rows


def _breaker_object(report: HealthReport) -> dict[str, Any]:
    return {
        "state": report.state,
        "wait_s": report.wait_s if isfinite(report.wait_s) else None,
        "because": report.because or None,
    }


def _gauges(house: House, balances: Sequence[Balance]) -> Iterator[Any]:
    labels = ("budget",)
    for name, text, amounts in (
        ("budget_usd", "What may be spent in a window.", [one.ceiling.amount_nanos for one in balances]),
        ("budget_spent_usd", "What is spent of it, lapsed included.", [one.spent_nanos for one in balances]),
        ("budget_held_usd", "What is held of it.", [one.held_nanos for one in balances]),
        ("budget_lapsed_usd", "What of the spent lapsed.", [one.lapsed_nanos for one in balances]),
    ):
        rows = zip(balances, amounts, strict=True)
        yield gauge(name, text, labels, [((one.ceiling.id,), nanos / NANOS_PER_USD) for one, nanos in rows])
    places = house.rooms.permits.statistics()
    yield gauge(
        "attempts_in_flight",
        "Attempts in flight at a provider.",
        ("provider",),
        [((name,), place.in_flight) for name, place in places.items()],
    )
    yield gauge(
        "attempts_waiting",
        "Attempts that wait for a place at a provider.",
        ("provider",),
        [((name,), place.waiting) for name, place in places.items()],
    )
    yield gauge(
        "provider_left",
        "What may be asked of a provider now under its limits.",
        ("provider", "limit"),
        [
            ((name, limit), left)
            for name, place in places.items()
            for limit, left in (("rpm", place.requests_left), ("tpm", place.tokens_left))
            if left is not None
        ],
    )
    yield gauge(
        "target_concurrency",
        "What a target that pushed back is given at one time.",
        ("target",),
        [
            ((f"{name}/{model}",), limit)
            for name, place in places.items()
            for model, limit in list(place.learned.items())[:_BREAKERS_MAX]
        ],
    )
    reports = list(house.rooms.health.reports())[:_BREAKERS_MAX]
    yield gauge(
        "breaker_state",
        "1 for the state that a breaker is in.",
        ("target", "part", "state"),
        [
            ((_name(report), report.part, state), float(report.state == state))
            for report in reports
            for state in StateName
        ],
    )
    yield gauge(
        "target_throttled_seconds",
        "For how long a target has asked to be left alone.",
        ("target",),
        [((_name(report),), report.throttled_s) for report in reports if report.model],
    )
    if house.leasing is not None:
        yield gauge(
            "redis_gone_seconds", "For how long rates could not be shared.", (), [((), house.leasing.gone_s)]
        )
        yield gauge("gateways", "Gateways that share rates.", (), [((), house.leasing.processes)])
    books = house.journal.statistics()
    for name, text, count in (
        ("ledger_waiting_records", "Records that wait to be written.", books.waiting),
        ("ledger_refused_holds", "Holds that the ledger refused.", books.refused),
        ("ledger_lost_records", "Records that a broken ledger did not take.", books.lost),
    ):
        yield gauge(name, text, (), [((), count)])
    yield gauge(
        "settings_generation", "Times that settings were read.", (), [((), house.rooms.rules.generation)]
    )


def _name(report: HealthReport) -> str:
    return f"{report.provider}/{report.model}" if report.model else report.provider
