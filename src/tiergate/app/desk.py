"""The desk of the admin plane: its questions answered from a running house."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from tiergate.admin import Desk, KeyWish
from tiergate.admission import VirtualKey
from tiergate.app.house import House
from tiergate.app.ledgers import ledger_place
from tiergate.core import NANOS_PER_USD, StorageUnavailable, SystemClock
from tiergate.ledger import Balance
from tiergate.store import LedgerPast
from tiergate.telemetry import gauge


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
        settings=lambda: house.settings.model_dump(mode="json"),
        reload=house.reload,
        metrics=metrics,
        wall_ns=clock.wall_ns,
    )


def _targets(house: House) -> list[Mapping[str, Any]]:
    """Tell the state of every provider: places taken, and its servers one by one."""
    places = house.rooms.permits.statistics()
    replicas = house.upstream.statistics().replicas
    rows: list[Mapping[str, Any]] = []
    for name, provider in house.settings.providers.items():
        place = places.get(name)
        rows.append(
            {
                "provider": name,
                "tier": provider.tier,
                "in_flight": 0 if place is None else place.in_flight,
                "waiting": 0 if place is None else place.waiting,
                "limit": provider.limits.concurrency,
                "replicas": [
                    {"server": one.replica, "in_flight": one.in_flight, "resting": one.resting}
                    for one in replicas
                    if one.provider == name
                ],
            }
        )
    return rows


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
