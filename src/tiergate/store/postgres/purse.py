"""The balances of ceilings in the database: fills `Purse`. What keeps them in step is in the migrations."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from tiergate.core import StorageUnavailable, Unaffordable
from tiergate.ledger import About, Ask, Balance, Claim, SpentBy, busy, must_wait
from tiergate.store.past import spent_by
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

    def admit(self, asks: Mapping[Place, Ask]) -> dict[Place, Unaffordable]:
        """Say which holds do not fit; see `Purse`."""
        claims = {_name(claim): claim for ask in asks.values() for claim in ask.claims}
        balances = dict(zip(claims, self._found(list(claims.values())), strict=True))
        refused: dict[Place, Unaffordable] = {}
        queued: set[int] = set()
        for place, ask in asks.items():
            own = [balances[_name(claim)] for claim in ask.claims]
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

    def _found(self, claims: Sequence[Claim]) -> list[Balance]:
        found = self.read(claims)
        if found is None:
            raise StorageUnavailable(_GONE)
        return found

    def read(self, claims: Sequence[Claim]) -> list[Balance] | None:
        """Read balances; see `Purse`."""
        names = [_name(claim) for claim in claims]
        columns = [array(column) for column in zip(*names, strict=True)] if names else ["{}"] * 4
        rows = {row[:4]: row[4:] for row in self._session.rows("balances", "read", columns)}
        if any(name not in rows for name in names):
            return None
        return [_balance(claim, rows[name]) for claim, name in zip(claims, names, strict=True)]

    def make(self, claims: Sequence[Claim]) -> None:
        """Make balances that are not there yet; see `Purse`."""
        spans: dict[tuple[int, int], list[Claim]] = {}
        for claim in claims:
            _, _, start_ns, end_ns = _name(claim)
            spans.setdefault((start_ns, end_ns), []).append(claim)
        for (start_ns, end_ns), found in spans.items():
            spent = spent_by(_Inside(self._session), start_ns, found[0].window.end_ns)
            held = [
                SpentBy(About(*about), int(nanos), 0)
                for *about, nanos in self._session.rows(
                    "balances", "held", {"start_ns": start_ns, "end_ns": end_ns}
                )
            ]
            self._session.many("balances", "make", [_sums(claim, spent, held) for claim in found])

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


def _sums(claim: Claim, spent: Sequence[SpentBy], held: Sequence[SpentBy]) -> Row:
    covers = claim.ceiling.covers
    return (
        *_name(claim),
        sum(row.spent_nanos for row in spent if covers(row.about)),
        sum(row.lapsed_nanos for row in spent if covers(row.about)),
        sum(row.spent_nanos for row in held if covers(row.about)),
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
