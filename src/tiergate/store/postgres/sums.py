"""How far a ledger has been added up that several owners write: fills `Sums`, from the database alone.

`store/rollups.py` tells of the three steps. What one process keeps in its memory there is here a mark beside
the slot: whoever adds it up writes its own epoch, a record that comes late takes the mark away, and only
where it still stands are the sums put in place. How far the sums have come is moved when nobody is in the
middle of a transaction, so that each knows whether its records are late.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

from tiergate.reports.ports import SLOT_NS
from tiergate.store.rollups import floor, forget, one, placed, slot_of
from tiergate.store.rows import Row, first_id
from tiergate.store.session import Session
from tiergate.store.trouble import TooOld


class OpeningSession(Session, Protocol):
    """A session whose transactions begin with a look at how far the sums have come."""

    rolled: tuple[int, int]
    """Slots before the first are added up, calls before the second are forgotten."""


class SharedSums:
    """A `Sums` for a ledger with several owners."""

    def __init__(self, session: OpeningSession) -> None:
        self._session = session

    def take_note(self, calls: Sequence[str], settled: Iterable[str]) -> None:
        """Mark the slots stale that were added up already; see `Sums`."""
        before_ns, calls_from_ns = self._session.rolled
        forgotten_id, before_id = first_id(calls_from_ns), first_id(before_ns)
        if any(call_id < forgotten_id for call_id in calls):
            raise TooOld
        call_ids = (*calls, *(call_id for call_id in settled if call_id >= forgotten_id))
        late = {slot_of(call_id) for call_id in call_ids if call_id < before_id}
        if late:
            # In their order, so that two owners do not wait for each other.
            self._session.many("rollup", "mark_stale", [(slot_ns,) for slot_ns in sorted(late)])

    def has_forgotten(self, call_id: str) -> bool:
        """Tell whether a call is kept only in the sums; see `Sums`."""
        return call_id < first_id(self._session.rolled[1])

    def begin(self, closed_before_ns: int) -> int | None:
        """Choose a slot and put our mark on it; see `Sums`. None also while another owner does."""
        if not self._may_move():
            return None
        limit_ns = floor(closed_before_ns)
        open_id = one(self._session, "first_open")
        if open_id is not None:
            limit_ns = min(limit_ns, slot_of(open_id))
        slot_ns: int | None = one(self._session, "first_stale", limit_ns)
        if slot_ns is None:
            before_ns = self._wait_for_others()
            found = one(self._session, "first_call", first_id(before_ns))
            slot_ns = limit_ns if found is None else min(slot_of(found), limit_ns)
            is_over = slot_ns < limit_ns
            self._session.run("rollup", "roll_to", {"before_ns": slot_ns + SLOT_NS if is_over else slot_ns})
            if not is_over:
                return None
        self._session.run("rollup", "begin_adding", self._mark(slot_ns))
        return slot_ns

    def end(self, slot_ns: int, rows: list[Row]) -> bool:
        """Put a slot's sums in place, if our mark still stands; see `Sums`."""
        if not self._session.run("rollup", "end_adding", self._mark(slot_ns)):
            return False
        self._session.run("rollup", "clear_slot", (slot_ns,))
        self._session.many("rollup", "add_rollup", placed(slot_ns, rows))
        return True

    def forget(self, calls_before_ns: int, rollups_before_ns: int) -> int:
        """Delete some old calls and sums; see `Sums`. 0 also while another owner does."""
        if not self._may_move():
            return 0
        before_ns = floor(calls_before_ns)
        if before_ns > self._session.rolled[1]:
            self._wait_for_others()
            self._session.run("rollup", "forget_before", {"before_ns": before_ns})
        ((_, calls_from_ns),) = self._session.rows("rollup", "rolled")
        return forget(self._session, calls_from_ns, rollups_before_ns)

    def committed(self) -> None:
        """Nothing is remembered here."""

    def rolled_back(self) -> None:
        """Nothing is remembered here."""

    def _mark(self, slot_ns: int) -> dict[str, int]:
        return {"slot_ns": slot_ns, "epoch": self._session.owner.epoch}

    def _may_move(self) -> bool:
        return bool(one(self._session, "try_upkeep"))

    def _wait_for_others(self) -> int:
        self._session.run("rollup", "wait_shortly")
        self._session.rows("rollup", "alone")
        ((before_ns, _),) = self._session.rows("rollup", "rolled")
        return int(before_ns)
