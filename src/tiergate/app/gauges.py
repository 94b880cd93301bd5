"""What a running house shows on its page of metrics beside what it has counted: the state of now."""

from collections.abc import Iterator, Sequence
from typing import Final

from tiergate.app.house import House
from tiergate.core import NANOS_PER_USD
from tiergate.ledger import Balance
from tiergate.resilience import HealthReport, StateName
from tiergate.telemetry import BOUNDS_S, Family, gauge, histogram

_BREAKERS_MAX: Final = 1_000
"""Callers choose names of models; a page of metrics has room for so many."""


def gauges(house: House, balances: Sequence[Balance]) -> Iterator[Family]:
    """Give all of them; `balances` are those of now."""
    yield from _of_budgets(balances)
    yield from _of_providers(house)
    yield from _of_targets(house)
    yield from _of_breakers(house)
    yield from _of_the_cache(house)
    yield from _of_batches(house)
    yield from _of_the_house(house)


def _of_budgets(balances: Sequence[Balance]) -> Iterator[Family]:
    for name, text, amounts in (
        ("budget_usd", "What may be spent in a window.", [one.ceiling.amount_nanos for one in balances]),
        ("budget_spent_usd", "What is spent of it, lapsed included.", [one.spent_nanos for one in balances]),
        ("budget_held_usd", "What is held of it.", [one.held_nanos for one in balances]),
        ("budget_lapsed_usd", "What of the spent lapsed.", [one.lapsed_nanos for one in balances]),
    ):
        rows = zip(balances, amounts, strict=True)
        values = [((one.ceiling.id,), nanos / NANOS_PER_USD) for one, nanos in rows]
        yield gauge(name, text, ("budget",), values)


def _of_providers(house: House) -> Iterator[Family]:
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
            for limit, left in (
                ("rpm", place.requests_left),
                ("tpm", place.tokens_left),
                ("concurrency", place.places_left),
            )
            if left is not None
        ],
    )


def _of_targets(house: House) -> Iterator[Family]:
    places = house.rooms.permits.statistics()
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
    yield gauge(
        "target_left",
        "What a target's own answers say is left of its rates.",
        ("target", "limit"),
        [
            ((f"{name}/{model}", what), rate.left)
            for name, place in places.items()
            for model, rates in list(place.learned_rates.items())[:_BREAKERS_MAX]
            for what, rate in rates.items()
        ],
    )


def _of_breakers(house: House) -> Iterator[Family]:
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


def _of_the_cache(house: House) -> Iterator[Family]:
    held = house.rooms.cache.held()
    for name, text, count in (
        ("cache_answers", "Answers that are kept.", held.answers),
        ("cache_bytes", "Bytes that they take.", held.bytes),
        ("cache_bytes_max", "Bytes that they may take.", held.bytes_max),
        ("cache_evicted", "Answers that had to make room for others.", held.evicted),
    ):
        yield gauge(name, text, (), [((), count)])
    yield gauge(
        "cache_kept",
        "Complete answers to questions that may be kept, by whether they were, or why not.",
        ("result",),
        [((result,), count) for result, count in house.rooms.cache.kept.items()],
    )


def _of_batches(house: House) -> Iterator[Family]:
    shifts = house.batches.shifts
    yield gauge(
        "batches",
        "Batches that have something left to do, by what they are doing.",
        ("state",),
        [((state,), count) for state, count in shifts.at_work().items()],
    )
    yield gauge("batch_lines_asked", "Lines that are asked now.", (), [((), shifts.asking())])
    yield gauge(
        "batch_lines_ended",
        "Lines that came to their end since the start, by how they ended.",
        ("state",),
        [((state,), count) for state, count in shifts.ended.items()],
    )


def _of_the_house(house: House) -> Iterator[Family]:
    leasing, books, delay = house.leasing, house.journal.statistics(), house.delay
    if leasing is not None:
        gone = "For how long limits could not be shared."
        yield gauge("redis_gone_seconds", gone, (), [((), leasing.gone_s)])
        yield gauge("gateways", "Gateways that share limits.", (), [((), leasing.processes)])
    for name, text, count in (
        ("ledger_waiting_records", "Records that wait to be written.", books.waiting),
        ("ledger_refused_holds", "Holds that the ledger refused.", books.refused),
        ("ledger_lost_records", "Records that a broken ledger did not take.", books.lost),
        ("settings_generation", "Times that settings were read.", house.rooms.rules.generation),
    ):
        yield gauge(name, text, (), [((), count)])
    late = "How late the event loop was, looked at fifty times a second."
    yield histogram("loop_delay_seconds", late, bounds=BOUNDS_S, counts=delay.counts, total=delay.total_s)


def _name(report: HealthReport) -> str:
    return f"{report.provider}/{report.model}" if report.model else report.provider
