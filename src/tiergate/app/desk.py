"""The desk of the admin plane: its questions answered from a running house."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from math import isfinite
from typing import Any

from tiergate.admin import Desk, KeyWish
from tiergate.admission import VirtualKey
from tiergate.app.gauges import gauges
from tiergate.app.house import House
from tiergate.app.ledgers import ledger_place
from tiergate.cache import ShelfUnavailable
from tiergate.core import StorageUnavailable, SystemClock
from tiergate.ledger import Balance
from tiergate.resilience import HealthReport, PermitStatistics
from tiergate.store import LedgerPast


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
        return house.metrics.page(gauges(house, found))

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
        cache=lambda: _cache(house),
        purge=partial(_purge, house),
        erase=partial(_erase, house),
        settings=lambda: house.settings.model_dump(mode="json"),
        reload=house.reload,
        metrics=metrics,
        wall_ns=clock.wall_ns,
    )


async def _purge(house: House, team: str | None, key: str | None, model: str | None) -> int:
    # A key with a team has nothing of its own.
    tenant = _tenant(team, key)
    try:
        return await house.rooms.cache.purge(tenant, model)
    except ShelfUnavailable as error:
        raise StorageUnavailable(
            f"Nothing of it is in memory any more; elsewhere it may still be found ({error}). Try again."
        ) from error


async def _erase(house: House, team: str | None, key: str | None) -> Mapping[str, int]:
    tenant = _tenant(team, key)
    assert tenant is not None
    house.rooms.flights.keep_nothing_of(tenant)
    receipts = await house.tenants.erase(tenant)
    erased = await house.batches.erase(tenant)
    # What has come meanwhile was looked up before.
    house.rooms.flights.keep_nothing_of(tenant)
    await _purge(house, team, key, None)
    return {"receipts": receipts, "batches": erased.jobs, "files": erased.files}


def _tenant(team: str | None, key: str | None) -> str | None:
    return f"team:{team}" if team is not None else None if key is None else f"key:{key}"


def _cache(house: House) -> Mapping[str, Any]:
    held = house.rooms.cache.held()
    calls: dict[str, Any] = {}
    for (outcome, reason), count in house.metrics.counted("cache_calls").items():
        reasons = calls.setdefault(outcome, {"calls": 0, "reasons": {}})
        reasons["calls"] += count
        if reason:
            reasons["reasons"][reason] = count
    return {
        "answers": held.answers,
        "bytes": held.bytes,
        "bytes_max": held.bytes_max,
        "evicted": held.evicted,
        "dry_run": house.rooms.cache.is_dry,
        "calls": calls,
        "kept": dict(house.rooms.cache.kept),
    }


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
                "learned_rates": {} if place is None else _rates_object(place),
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


def _rates_object(place: PermitStatistics) -> dict[str, Any]:
    return {
        model: {what: {"limit": rate.limit, "left": round(rate.left, 1)} for what, rate in rates.items()}
        for model, rates in place.learned_rates.items()
    }


def _breaker_object(report: HealthReport) -> dict[str, Any]:
    return {
        "state": report.state,
        "wait_s": report.wait_s if isfinite(report.wait_s) else None,
        "because": report.because or None,
    }
