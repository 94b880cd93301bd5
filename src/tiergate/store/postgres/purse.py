"""The balances of ceilings in the database: fills `Purse`. What keeps them in step is in the migrations."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from tiergate.core import TiergateError, Unaffordable
from tiergate.ledger import (
    About,
    Ask,
    Balance,
    BalanceMissing,
    Claim,
    Scope,
    SpentBy,
    Total,
    busy,
    must_wait,
    totals,
)
from tiergate.store.past import spent_by, spent_of_jobs
from tiergate.store.postgres.arrays import array
from tiergate.store.rows import Row
from tiergate.store.session import Facts, Place, Session

_FOR_EVER_NS: Final = (1 << 63) - 1
_GONE: Final = "A budget's balance is not there. Try again shortly."

_Name = tuple[str, str, int, int]


class DatabasePurse:
    """A `Purse` in the tables that a session writes."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def admit(self, asks: Mapping[Place, Ask]) -> dict[Place, TiergateError]:
        """Say which holds do not fit; see `Purse`."""
        claims = {_name(claim): claim for ask in asks.values() for claim in ask.claims}
        balances = self._found(claims)
        refused: dict[Place, TiergateError] = {}
        queued: set[int] = set()
        for place, ask in asks.items():
            own = [balance for claim in ask.claims if (balance := balances.get(_name(claim)))]
            if len(own) < len(ask.claims):
                refused[place] = BalanceMissing(_GONE)
                continue
            try:
                if must_wait(ask.amount_nanos, ask.target, own, queued):
                    queued.update(map(id, own))
                    refused[place] = busy(ask.amount_nanos, ask.target, own)
                    continue
            except Unaffordable as error:
                refused[place] = error
                continue
            for balance in own:
                balance.held_nanos += ask.amount_nanos or 0
        return refused

    def read(self, claims: Sequence[Claim]) -> list[Balance] | None:
        """Read balances; see `Purse`."""
        named = {_name(claim): claim for claim in claims}
        found = self._found(named)
        return list(found.values()) if len(found) == len(named) else None

    def _found(self, claims: Mapping[_Name, Claim]) -> dict[_Name, Balance]:
        columns = [array(column) for column in zip(*claims, strict=True)] if claims else ["{}"] * 4
        rows = {row[:4]: row[4:] for row in self._session.rows("balances", "read", columns)}
        return {name: _balance(claim, rows[name]) for name, claim in claims.items() if name in rows}

    def make(self, claims: Sequence[Claim]) -> None:
        """Make balances that are not there yet; see `Purse`."""
        spans: dict[tuple[int, int], list[Claim]] = {}
        for claim in claims:
            _, _, start_ns, end_ns = _name(claim)
            spans.setdefault((start_ns, end_ns), []).append(claim)
        for (start_ns, end_ns), found in spans.items():
            spent = self._spent(found)
            held = [
                SpentBy(About(*about), int(nanos), 0)
                for *about, nanos in self._session.rows(
                    "balances", "held", {"start_ns": start_ns, "end_ns": end_ns}
                )
            ]
            known, now = totals(spent), totals(held)
            rows = [(*_name(one), *known.get(one.ceiling.whose, Total())) for one in found]
            self._session.many(
                "balances",
                "make",
                [
                    (*row, now.get(one.ceiling.whose, Total()).spent_nanos)
                    for row, one in zip(rows, found, strict=True)
                ],
            )

    def _spent(self, claims: Sequence[Claim]) -> list[SpentBy]:
        """Add up what was spent in the one window of these claims; a job by itself, wherever it is in it."""
        jobs = [claim.ceiling.name for claim in claims if claim.ceiling.scope is Scope.JOB]
        spent = spent_of_jobs(_Inside(self._session), jobs)
        if len(jobs) < len(claims):
            window = claims[0].window
            spent += spent_by(_Inside(self._session), window.start_ns, window.end_ns)
        return spent

    def tell(self, claim: Claim, share: float) -> bool:
        """Note that somebody is told of a spent share; see `Purse`."""
        scope, name, start_ns, end_ns = _name(claim)
        facts = {
            "scope": scope,
            "name": name,
            "start_ns": start_ns,
            "end_ns": end_ns,
            "nanos": int(share * claim.ceiling.amount_nanos),
        }
        return self._session.run("balances", "tell", facts) > 0


def _name(claim: Claim) -> _Name:
    ceiling, window = claim
    end_ns = _FOR_EVER_NS if window.end_ns is None else window.end_ns
    return ceiling.scope.value, ceiling.name, window.start_ns, end_ns


def _balance(claim: Claim, row: Row) -> Balance:
    spent_nanos, lapsed_nanos, held_nanos, told_nanos = row
    return Balance(
        ceiling=claim.ceiling,
        window=claim.window,
        spent_nanos=spent_nanos,
        lapsed_nanos=lapsed_nanos,
        held_nanos=held_nanos,
        reached=told_nanos / max(1, claim.ceiling.amount_nanos),
    )


class _Inside:
    """A session's own transaction as a `Reading`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def rows(self, file: str, name: str, facts: Facts = ()) -> list[Row]:
        return self._session.rows(file, name, facts)

    def each(self, file: str, name: str, facts: Facts = ()) -> Iterator[Any]:
        return iter(self._session.rows(file, name, facts))

    def close(self) -> None:
        """Stay: the transaction goes on."""
