"""Adds up what is over, a quarter of an hour at a time, and forgets calls that are old.

A slot is added up in three steps, since the adding takes longer than calls may wait for:

    begin   in the writing thread: choose a slot in which nothing is open and mark it stale
    sum     beside it, on a connection of its own: one statement over the slot's calls
    end     in the writing thread: put the sums in place and take the mark away, unless a record came since

A record that comes late (a settlement after a clock was set back, say) marks its slot stale in its own
transaction. Reports take stale slots from the calls themselves, so at no moment is anything counted twice or
not at all, and a crash leaves nothing to mend.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from tiergate.core import id_time_ns
from tiergate.reports.ports import SLOT_NS
from tiergate.store.rows import Row, first_id
from tiergate.store.session import Look, Session
from tiergate.store.trouble import TooOld

FORGOTTEN_AT_ONCE: Final = 500
"""Calls that one transaction deletes: it takes some milliseconds, and holds wait for it."""


class Rollups:
    """How far a ledger has been added up that nobody else writes: fills `Sums`."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._touched: set[int] = set()
        """Slots that a record came for since they were begun."""
        self._late: set[int] = set()
        """Those that the running transaction marks stale."""
        self._before_ns: int
        ((self._before_ns, calls_from_ns),) = session.rows("rollup", "rolled")
        self._forgotten_id = first_id(calls_from_ns)
        self._before_id = first_id(self._before_ns)
        self._next_ns = self._before_ns
        """How far it will be when the running transaction is committed."""

    def take_note(self, calls: Sequence[str], settled: Iterable[str]) -> None:
        """Mark the slots stale that were added up already; see `Sums`."""
        if min(calls, default=LAST_ID) < self._forgotten_id:
            raise TooOld
        call_ids = (*calls, *(call_id for call_id in settled if call_id >= self._forgotten_id))
        self._late = {slot_of(call_id) for call_id in call_ids if call_id < self._before_id}
        if self._late:
            self._session.many("rollup", "mark_stale", [(slot_ns,) for slot_ns in self._late])

    def has_forgotten(self, call_id: str) -> bool:
        """Tell whether a call is kept only in the sums: a change of its record would count nowhere."""
        return call_id < self._forgotten_id

    def committed(self) -> None:
        """What the transaction did is on the disk."""
        self._touched |= self._late
        self._late = set()
        if self._next_ns != self._before_ns:
            self._before_ns, self._before_id = self._next_ns, first_id(self._next_ns)

    def rolled_back(self) -> None:
        """What the transaction did is not."""
        self._late = set()
        self._next_ns = self._before_ns

    def begin(self, closed_before_ns: int) -> int | None:
        """Choose a slot that ended before a moment and in which no call is open; None: there is none now."""
        limit_ns = floor(closed_before_ns)
        open_id = self._one("first_open")
        if open_id is not None:
            limit_ns = min(limit_ns, slot_of(open_id))
        slot_ns: int | None = self._one("first_stale", limit_ns)
        if slot_ns is None:
            found = self._one("first_call", self._before_id)
            slot_ns = limit_ns if found is None else min(slot_of(found), limit_ns)
            is_over = slot_ns < limit_ns
            self._roll_to(slot_ns + SLOT_NS if is_over else slot_ns)
            if not is_over:
                return None
            self._session.run("rollup", "mark_stale", (slot_ns,))
        self._touched.discard(slot_ns)
        return slot_ns

    def end(self, slot_ns: int, rows: list[Row]) -> bool:
        """Put a slot's sums in place; False: a record came in between, and they are not."""
        if slot_ns in self._touched:
            return False
        self._session.run("rollup", "clear_slot", (slot_ns,))
        self._session.many("rollup", "add_rollup", placed(slot_ns, rows))
        self._session.run("rollup", "mark_fresh", (slot_ns,))
        return True

    def forget(self, calls_before_ns: int, rollups_before_ns: int) -> int:
        """Delete some calls that are old and added up, and old sums; give how many calls are gone."""
        self._session.run("rollup", "forget_before", {"before_ns": floor(calls_before_ns)})
        ((_, calls_from_ns),) = self._session.rows("rollup", "rolled")
        self._forgotten_id = first_id(calls_from_ns)  # one that is too late, should this not be committed
        return forget(self._session, calls_from_ns, rollups_before_ns)

    def _roll_to(self, before_ns: int) -> None:
        if before_ns > self._before_ns:
            self._session.run("rollup", "roll_to", {"before_ns": before_ns})
            self._next_ns = before_ns

    def _one(self, name: str, *values: object) -> Any:
        return one(self._session, name, *values)


def one(session: Session, name: str, *values: object) -> Any:
    """Give the one value that a question of `rollup.sql` asks for; None: there is none."""
    rows = session.rows("rollup", name, values)
    return rows[0][0] if rows else None


def placed(slot_ns: int, rows: Iterable[Row]) -> list[Row]:
    """Give the sums of a slot, each row with the slot that it is of."""
    return [(*row[:7], slot_ns, *row[8:]) for row in rows]


def forget(session: Session, calls_from_ns: int, rollups_before_ns: int) -> int:
    """Delete some of the calls before the first that is kept, and old sums; give how many rows are gone."""
    facts = {"before": first_id(calls_from_ns), "most": FORGOTTEN_AT_ONCE}
    attempts = session.run("rollup", "forget_attempts", facts)
    # A call goes after its attempts.
    calls = session.run("rollup", "forget_calls", facts) if not attempts else 0
    session.run("rollup", "forget_rollups", (floor(rollups_before_ns),))
    return attempts + calls


def sum_slot(look: Look, slot_ns: int) -> list[Row]:
    """Add up a slot's calls, in any thread.

    Raises:
        StorageUnavailable: the ledger cannot be read.
    """
    facts = {
        "first": first_id(slot_ns),
        "last": first_id(slot_ns + SLOT_NS),
        "slots": False,
        "slot_ns": SLOT_NS,
    }
    with look() as reading:
        return reading.rows("past", "spent", facts)


LAST_ID: Final = "~"
"""Sorts after every id."""


def slot_of(call_id: str) -> int:
    """Give the slot in which a call began."""
    return floor(id_time_ns(call_id))


def floor(time_ns: int) -> int:
    """Give when the slot of a moment began."""
    return time_ns - time_ns % SLOT_NS
