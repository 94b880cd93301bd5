"""The ledger's books: every write to them is a method here, each one transaction of a session.

They belong to one thread and know nothing of threads, waiting or retrying; `scribe` does. Only the session
knows which database it is.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final

from tiergate.admission import VirtualKey
from tiergate.core import TiergateError
from tiergate.ledger import Ask, Balance, Claim, LapsedSlice, Owner, Slice
from tiergate.store.keys import key_facts, key_of
from tiergate.store.rows import (
    Row,
    drop_row,
    open_row,
    place_of,
    receipt_call_id,
    settled_call_id,
    settled_place,
    slice_of,
    slice_row,
)
from tiergate.store.session import Checkpoints, Lapsed, Place, Purse, Reading, Sayings, Session, Sums

_FORGOTTEN_AT_ONCE: Final = 100
"""Receipts, each with an answer of up to 1 MiB, that one transaction deletes: holds wait for it."""


@dataclass(slots=True)
class Batch:
    """Rows that one transaction writes.

    Holds come first, then settlements, then ends. That order changes nothing: records of different calls do
    not touch each other's rows, and within a call it is the order in which they are handed in.
    """

    calls: list[Row] = field(default_factory=list)
    holds: list[Row] = field(default_factory=list)
    settlements: list[Row] = field(default_factory=list)
    ends: list[Row] = field(default_factory=list)
    receipts: list[Row] = field(default_factory=list)
    """Those of the holds; `kept` are those of the settlements, `freed` those of the ends."""
    kept: list[Row] = field(default_factory=list)
    freed: list[Row] = field(default_factory=list)
    again: list[Row] = field(default_factory=list)
    """Holds that may be written already, after an error that was doubtful."""

    asks: dict[Place, Ask] = field(default_factory=dict)
    """What holds count against, where the store says whether they fit."""

    def __len__(self) -> int:
        return len(self.holds) + len(self.again) + len(self.settlements) + len(self.ends)


class Books:
    """An open ledger, written under one owner's epoch.

    Its methods raise `Unwritten`, and StoreOwned where a later owner has declared this one dead. Nothing was
    written then, unless the error is doubtful.
    """

    def __init__(self, session: Session, sums: Sums, purse: Purse | None = None) -> None:
        self.session = session
        self._sums = sums
        self._purse = purse

    @property
    def owner(self) -> Owner:
        """Who writes here."""
        return self.session.owner

    @property
    def lapsed(self) -> Lapsed:
        """What owners before left behind."""
        return self.session.lapsed

    @property
    def sayings(self) -> Sayings:
        """What to tell people in trouble."""
        return self.session.sayings

    @property
    def checkpoints(self) -> Checkpoints:
        """What tidies up behind the writing."""
        return self.session.checkpoints

    def write(self, gather: Callable[[], Batch]) -> dict[Place, TiergateError]:
        """Write all of it or nothing, but for holds that do not fit: those are given, with the reason.

        What is written is asked for when the transaction has begun: others may write the same database, and
        more comes while they do.
        """
        with self._transaction():
            refused, batch, settlements = self._admitted(gather())
            self._write(batch, settlements)
            self._sums.take_note(
                [row[0] for row in (*batch.calls, *batch.ends)], map(settled_call_id, batch.settlements)
            )
        return refused

    def _admitted(self, batch: Batch) -> tuple[dict[Place, TiergateError], Batch, list[Row]]:
        """Settle what gives money back, look which holds fit, and give what is left to be written."""
        if self._purse is None or not batch.asks:
            return {}, batch, batch.settlements
        # A hold may stand on money that a settlement gives back; its own settlement comes after it.
        held = set(map(place_of, (*batch.holds, *batch.again)))
        first: list[Row] = []
        later: list[Row] = []
        for row in batch.settlements:
            (later if settled_place(row) in held else first).append(row)
        if first:
            self.session.many("ledger", "settle", _firsts(first))
        batch = self._without_written(batch)
        refused = self._purse.admit(batch.asks)
        return refused, _without(batch, refused), later

    def _without_written(self, batch: Batch) -> Batch:
        """Ask no balance for holds that are written already, as some may be after a doubtful error."""
        if not batch.again:
            return batch
        ids = sorted({row[0] for row in batch.again})
        there = {(call_id, n) for call_id, n in self.session.rows("ledger", "attempts_of", (ids,))}
        return replace(
            batch,
            holds=[*batch.holds, *(row for row in batch.again if place_of(row) not in there)],
            again=[row for row in batch.again if place_of(row) in there],
            asks={place: ask for place, ask in batch.asks.items() if place not in there},
        )

    def _write(self, batch: Batch, settlements: list[Row]) -> None:
        many = self.session.many
        if batch.calls:
            many("ledger", "open_call", batch.calls)
        if batch.holds:
            many("ledger", "hold", batch.holds)
        if batch.again:
            many("ledger", "hold_again", batch.again)
        if settlements:
            many("ledger", "settle", _firsts(settlements))
        if batch.ends:
            many("ledger", "close_call", batch.ends)
        if batch.receipts or batch.kept or batch.freed:
            self._write_receipts(batch)

    def _write_receipts(self, batch: Batch) -> None:
        many = self.session.many
        many("receipts", "drop", map(drop_row, batch.receipts))
        many("receipts", "open", map(open_row, batch.receipts))
        many("receipts", "finish", batch.kept)
        many("receipts", "free", batch.freed)

    def snapshot(self) -> Reading:
        """Give a look at what is written now, and nothing that comes; whoever takes it closes it.

        Raises:
            StorageUnavailable: not now.
        """
        return self.session.snapshot()

    def resolve(self, call_id: str, n: int, cash_nanos: int) -> bool:
        """Settle a lapsed attempt; see `ledger.Journal`."""
        facts = {"call_id": call_id, "n": n, "cash_nanos": cash_nanos}
        with self._transaction():
            if self._sums.has_forgotten(call_id):
                return False
            found = self.session.run("ledger", "resolve", facts) > 0
            self._sums.take_note((), [call_id] if found else [])
            return found

    def adjust(self, call_id: str, n: int, delta_nanos: int, *, reason: str, now_ns: int) -> bool:
        """Put an adjustment beside a settled attempt; see `ledger.Journal`."""
        place = {"call_id": call_id, "n": n}
        facts = {"delta_nanos": delta_nanos, "reason": reason, "now_ns": now_ns}
        with self._transaction():
            if self._sums.has_forgotten(call_id):
                return False
            rows = self.session.rows("ledger", "settled_cash", place)
            if not rows or (rows[0][0] or 0) + delta_nanos + self._adjusted(call_id, n) < 0:
                return False
            self.session.run("ledger", "adjust", {**place, **facts, "owner_epoch": self.owner.epoch})
            self._sums.take_note((), [call_id])
            return True

    def _adjusted(self, call_id: str, n: int) -> int:
        rows = self.session.rows("ledger", "find_adjustments", (call_id,))
        return sum(delta for place, delta, *_ in rows if place == n)

    def balances(self, claims: Sequence[Claim]) -> list[Balance]:
        """Read the balances of claims, made from the records where they are not there."""
        assert self._purse is not None, "a store with one owner keeps no balances"
        with self._transaction():
            found = self._purse.read(claims)
        if found is None:
            with self.session.alone():
                self._purse.make(claims)
                found = self._purse.read(claims)
        assert found is not None, "they were just made"
        return found

    def tell(self, claim: Claim, share: float) -> bool:
        """Note that somebody is told of a spent share; see `ledger.SharedJournal`."""
        assert self._purse is not None, "a store with one owner keeps no balances"
        with self._transaction():
            return self._purse.tell(claim, share)

    def add_key(self, key: VirtualKey) -> list[VirtualKey] | None:
        """Keep a virtual key, and give all; None: its name is taken."""
        with self._transaction():
            return self._keys() if self.session.run("keys", "add", key_facts(key)) > 0 else None

    def change_key(self, how: str, facts: Mapping[str, object]) -> list[VirtualKey] | None:
        """Revoke or rotate a virtual key, and give all; None: there is none."""
        with self._transaction():
            return self._keys() if self.session.run("keys", how, facts) > 0 else None

    def salts(self, wanted: Mapping[str, bytes], now_ns: int) -> dict[str, bytes]:
        """Give salts to tenants that have none, and give all."""
        with self._transaction():
            for name, salt in wanted.items():
                self.session.run("tenants", "salt", {"name": name, "salt": salt, "now_ns": now_ns})
            return {name: bytes(salt) for name, salt in self.session.rows("tenants", "all")}

    def erase(self, tenant: str) -> int:
        """Delete a tenant's salt and the receipts that hold its answers; give how many these were."""
        with self._transaction():
            self.session.run("tenants", "forget", {"name": tenant})
            return self.session.run("receipts", "erase", {"tenant": tenant})

    def _keys(self) -> list[VirtualKey]:
        return [key_of(row) for row in self.session.rows("keys", "all")]

    def begin_slot(self, closed_before_ns: int) -> int | None:
        """Choose a slot to add up (`Sums.begin`)."""
        with self._transaction():
            return self._sums.begin(closed_before_ns)

    def end_slot(self, slot_ns: int, rows: list[Row]) -> bool:
        """Put the sums of a slot in place (`Sums.end`)."""
        with self._transaction():
            return self._sums.end(slot_ns, rows)

    def forget(self, calls_before_ns: int, rollups_before_ns: int) -> int:
        """Delete some old records (`Sums.forget`)."""
        with self._transaction():
            return self._sums.forget(calls_before_ns, rollups_before_ns)

    def draw(self, slices: Sequence[Slice], now_ns: int) -> None:
        """Write slices down, so that a loss of power cannot take them away."""
        epoch, boot = self.owner.epoch, self.session.boot
        rows = [(epoch, *slice_row(one), boot, now_ns) for one in slices]
        with self.session.lasting():
            self.session.many("slices", "draw", rows)

    def dead_slices(self) -> list[Slice]:
        """Give the slices of owners that died with the machine."""
        return [slice_of(row) for row in self.session.rows("slices", "dead", {"epoch": self.owner.epoch})]

    def lapse_slice(self, found: Slice, lapsed_nanos: int) -> None:
        """Let a dead owner's slice lapse; see `ledger.SoleJournal`."""
        facts = {
            "epoch": self.owner.epoch,
            "ceiling": found.ceiling,
            "start_ns": found.window.start_ns,
            "amount_nanos": found.amount_nanos,
            "lapsed_nanos": lapsed_nanos,
        }
        with self.session.lasting():
            self.session.run("slices", "lapse", facts)

    def lapsed_slices(self) -> list[LapsedSlice]:
        """Give what counts as spent beside the records."""
        return [LapsedSlice(*row) for row in self.session.rows("slices", "lapsed")]

    def forget_receipts(self, before_ns: int) -> int:
        """Delete some old receipts; give how many are gone."""
        with self._transaction():
            return self.session.run(
                "receipts", "forget", {"before_ns": before_ns, "most": _FORGOTTEN_AT_ONCE}
            )

    def heartbeat(self, now_ns: int) -> Lapsed:
        """Write that the owner is alive; give what lapsed of others that are dead."""
        return self.session.heartbeat(now_ns, self._sums)

    def leave(self, now_ns: int) -> None:
        """Write that the owner left with its books closed, and tidy up."""
        self.session.leave(now_ns)

    def close(self) -> None:
        """Close them, with nothing more written."""
        self.session.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            with self.session.transaction():
                yield
            self._sums.committed()
        finally:
            self._sums.rolled_back()


def _firsts(settlements: list[Row]) -> list[Row]:
    """Give the first settlement of each attempt: it stands, also of two that come together."""
    by_place = {settled_place(row): row for row in reversed(settlements)}
    return settlements if len(by_place) == len(settlements) else list(reversed(by_place.values()))


def _without(batch: Batch, refused: Mapping[Place, TiergateError]) -> Batch:
    """Leave holds out that do not fit, with the calls and receipts that come with them."""
    if not refused:
        return batch
    calls = {call_id for call_id, _ in refused}
    kept = {row[0] for row in batch.holds if place_of(row) not in refused} | {row[0] for row in batch.again}
    gone = calls - kept
    return replace(
        batch,
        calls=[row for row in batch.calls if row[0] not in gone],
        holds=[row for row in batch.holds if place_of(row) not in refused],
        receipts=[row for row in batch.receipts if receipt_call_id(row) not in gone],
    )
