"""Reads entries of the ledger through looks of its own, which can write nothing; called in worker threads."""

from dataclasses import replace

from tiergate.admission import VirtualKey
from tiergate.ledger import Counted, Entry, EntryQuery, Receipt, ReceiptEntry
from tiergate.store.keys import key_of
from tiergate.store.rows import adjustment_of, counted_of, entries_of, entry_of, first_id, receipt_of
from tiergate.store.session import Look


def read_entry(look: Look, call_id: str) -> Entry | None:
    """Read one call with its attempts.

    Raises:
        StorageUnavailable: it cannot be read.
    """
    with look() as reading:
        calls = reading.rows("ledger", "read_call", (call_id,))
        attempts = reading.rows("ledger", "read_attempts", {"first": call_id, "last": call_id})
    found = entries_of(calls, attempts)
    return found[0] if found else None


def read_entries(look: Look, *, after: str | None, limit: int) -> list[Entry]:
    """Read calls in the order of their ids, those after `after`, at most `limit`.

    Raises:
        StorageUnavailable: it cannot be read.
    """
    with look() as reading:
        calls = reading.rows("ledger", "read_calls", {"after": after or "", "limit": limit})
        if not calls:
            return []
        span = {"first": calls[0][0], "last": calls[-1][0]}
        attempts = reading.rows("ledger", "read_attempts", span)
    return entries_of(calls, attempts)


def find_entries(look: Look, query: EntryQuery) -> list[Entry]:
    """Read calls that answer a question, newest first, with their adjustments.

    Raises:
        StorageUnavailable: it cannot be read.
    """
    facts = {
        "before": query.before or "~",
        "first": first_id(query.since_ns),
        "key": query.key,
        "team": query.team,
        "tag": query.tag,
        "model": query.model,
        "lapsed": query.is_lapsed,
        "job": query.job,
        "limit": query.limit,
    }
    with look() as reading:
        found = []
        for call in reading.rows("ledger", "find_calls", facts):
            attempts = reading.rows("ledger", "find_attempts", (call[0],))
            adjustments = reading.rows("ledger", "find_adjustments", (call[0],))
            entry = entry_of(call, attempts)
            found.append(replace(entry, adjustments=tuple(map(adjustment_of, adjustments))))
    return found


def read_receipt(look: Look, receipt: Receipt) -> ReceiptEntry | None:
    """Read a receipt; None: there is none so young.

    Raises:
        StorageUnavailable: it cannot be read.
    """
    with look() as reading:
        rows = reading.rows("receipts", "read", (*receipt.scope, receipt.since_ns))
    return receipt_of(rows[0]) if rows else None


def read_counted(look: Look, *, limit: int) -> list[Counted]:
    """Read the last attempts whose shape was taken and whose input was reported, oldest first.

    Raises:
        StorageUnavailable: it cannot be read.
    """
    with look() as reading:
        rows = reading.rows("ledger", "read_counted", (limit,))
    return [counted_of(row) for row in reversed(rows)]


def read_salts(look: Look) -> dict[str, bytes]:
    """Read the salts of all tenants.

    Raises:
        StorageUnavailable: they cannot be read.
    """
    with look() as reading:
        return {name: bytes(salt) for name, salt in reading.rows("tenants", "all")}


def read_keys(look: Look) -> list[VirtualKey]:
    """Read all virtual keys, the oldest first.

    Raises:
        StorageUnavailable: they cannot be read.
    """
    with look() as reading:
        return [key_of(row) for row in reading.rows("keys", "all")]
