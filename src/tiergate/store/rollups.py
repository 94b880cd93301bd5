"""Adds up what is over, a quarter of an hour at a time, and forgets calls that are old.

A slot is added up in three steps, since the adding takes longer than calls may wait for:

    begin   in the writing thread: choose a slot in which nothing is open and mark it stale
    sum     beside it, on a connection of its own: one statement over the slot's calls
    end     in the writing thread: put the sums in place and take the mark away, unless a record came since

A record that comes late (a settlement after a clock was set back, say) marks its slot stale in its own
transaction. Reports take stale slots from the calls themselves, so at no moment is anything counted twice or
not at all, and a crash leaves nothing to mend.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from tiergate.core import id_time_ns
from tiergate.reports.ports import SLOT_NS
from tiergate.store.reader import snapshot
from tiergate.store.rows import Row, first_id
from tiergate.store.statements import statements
from tiergate.store.trouble import TooOld

FORGOTTEN_AT_ONCE: Final = 500
"""Calls that one transaction deletes: it takes some milliseconds, and holds wait for it."""


class Rollups:
    """How far one ledger has been added up. Belongs to the thread that writes it.

    Its methods run inside of a transaction of the caller, who says how that ended.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._sql = statements("rollup")
        self._touched: set[int] = set()
        """Slots that a record came for since they were begun."""
        self._late: set[int] = set()
        """Those that the running transaction marks stale."""
        self._before_ns: int
        self._before_ns, calls_from_ns = connection.execute(self._sql["rolled"]).fetchone()
        self._forgotten_id = first_id(calls_from_ns)
        self._before_id = first_id(self._before_ns)
        self._next_ns = self._before_ns
        """How far it will be when the running transaction is committed."""

    def take_note(self, calls: Sequence[str], settled: Iterable[str]) -> None:
        """Mark the slots stale that were added up already.

        Args:
            calls: ids of calls that are written.
            settled: ids of calls an attempt of which is settled.

        Raises:
            TooOld: a call is of a time whose calls are forgotten. A clock that is set back so far is wrong.
        """
        if min(calls, default=_LAST_ID) < self._forgotten_id:
            raise TooOld
        call_ids = (*calls, *(call_id for call_id in settled if call_id >= self._forgotten_id))
        self._late = {_slot_of(call_id) for call_id in call_ids if call_id < self._before_id}
        if self._late:
            self._connection.executemany(self._sql["mark_stale"], [(slot_ns,) for slot_ns in self._late])

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
        limit_ns = _floor(closed_before_ns)
        open_id = self._one("first_open")
        if open_id is not None:
            limit_ns = min(limit_ns, _slot_of(open_id))
        slot_ns: int | None = self._one("first_stale", limit_ns)
        if slot_ns is None:
            found = self._one("first_call", self._before_id)
            slot_ns = limit_ns if found is None else min(_slot_of(found), limit_ns)
            is_over = slot_ns < limit_ns
            self._roll_to(slot_ns + SLOT_NS if is_over else slot_ns)
            if not is_over:
                return None
            self._connection.execute(self._sql["mark_stale"], (slot_ns,))
        self._touched.discard(slot_ns)
        return slot_ns

    def end(self, slot_ns: int, rows: list[Row]) -> bool:
        """Put a slot's sums in place; False: a record came in between, and they are not."""
        if slot_ns in self._touched:
            return False
        self._connection.execute(self._sql["clear_slot"], (slot_ns,))
        self._connection.executemany(self._sql["add_rollup"], [(*row[:7], slot_ns, *row[8:]) for row in rows])
        self._connection.execute(self._sql["mark_fresh"], (slot_ns,))
        return True

    def forget(self, calls_before_ns: int, rollups_before_ns: int) -> int:
        """Delete some calls that are old and added up, and old sums; give how many calls are gone."""
        self._connection.execute(self._sql["forget_before"], {"before_ns": _floor(calls_before_ns)})
        _, calls_from_ns = self._connection.execute(self._sql["rolled"]).fetchone()
        self._forgotten_id = first_id(calls_from_ns)  # one that is too late, should this not be committed
        facts = {"before": first_id(calls_from_ns), "most": FORGOTTEN_AT_ONCE}
        attempts = self._connection.execute(self._sql["forget_attempts"], facts).rowcount
        # A call goes after its attempts.
        calls = self._connection.execute(self._sql["forget_calls"], facts).rowcount if not attempts else 0
        self._connection.execute(self._sql["forget_rollups"], (_floor(rollups_before_ns),))
        return attempts + calls

    def _roll_to(self, before_ns: int) -> None:
        if before_ns > self._before_ns:
            self._connection.execute(self._sql["roll_to"], {"before_ns": before_ns})
            self._next_ns = before_ns

    def _one(self, name: str, *values: object) -> Any:
        row = self._connection.execute(self._sql[name], values).fetchone()
        return None if row is None else row[0]


def sum_slot(ledger: Path, slot_ns: int) -> list[Row]:
    """Add up a slot's calls, in any thread.

    Raises:
        StorageUnavailable: the ledger cannot be read.
    """
    with snapshot(ledger) as connection:
        facts = {
            "first": first_id(slot_ns),
            "last": first_id(slot_ns + SLOT_NS),
            "slots": False,
            "slot_ns": SLOT_NS,
        }
        return connection.execute(statements("past")["spent"], facts).fetchall()


_LAST_ID: Final = "~"
"""Sorts after every id."""


def _slot_of(call_id: str) -> int:
    return _floor(id_time_ns(call_id))


def _floor(time_ns: int) -> int:
    return time_ns - time_ns % SLOT_NS
