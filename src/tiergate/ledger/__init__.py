"""Money and identity: hold the worst case, settle the truth, respect every ceiling, receipts."""

from tiergate.ledger.book import Book
from tiergate.ledger.ceilings import About, Balance, Ceiling, Ceilings, Reservation, Scope, SpentBy, about
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
from tiergate.ledger.windows import Period, Window, window_at

__all__ = [
    "FLIGHT",
    "HOLD",
    "LINE",
    "OWNER",
    "RECEIPT",
    "SLICE",
    "About",
    "AttemptEntry",
    "Balance",
    "Book",
    "CallClosed",
    "CallOpened",
    "Ceiling",
    "Ceilings",
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
    "Period",
    "ReceiptState",
    "Reservation",
    "Scope",
    "Settled",
    "SliceState",
    "SpentBy",
    "Window",
    "about",
    "may_move",
    "window_at",
]
