"""Money and identity: hold the worst case, settle the truth, respect every ceiling, receipts."""

from tiergate.ledger.book import Book
from tiergate.ledger.ports import Journal, JournalStatistics
from tiergate.ledger.records import AttemptEntry, CallClosed, CallOpened, Counted, Entry, Held, Owner, Settled
from tiergate.ledger.states import (
    FLIGHT,
    HOLD,
    LINE,
    OWNER,
    RECEIPT,
    SLICE,
    FlightState,
    HoldState,
    LineState,
    Moves,
    OwnerState,
    ReceiptState,
    SliceState,
    may_move,
)

__all__ = [
    "FLIGHT",
    "HOLD",
    "LINE",
    "OWNER",
    "RECEIPT",
    "SLICE",
    "AttemptEntry",
    "Book",
    "CallClosed",
    "CallOpened",
    "Counted",
    "Entry",
    "FlightState",
    "Held",
    "HoldState",
    "Journal",
    "JournalStatistics",
    "LineState",
    "Moves",
    "Owner",
    "OwnerState",
    "ReceiptState",
    "Settled",
    "SliceState",
    "may_move",
]
