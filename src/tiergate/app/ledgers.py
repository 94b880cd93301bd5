"""Where the ledger of some settings is."""

from tiergate.config import Settings
from tiergate.store import Place, place_of


def ledger_place(settings: Settings) -> Place:
    """Give the place where the settings keep the ledger.

    Raises:
        CannotStart: it is a database whose address or driver is not right.
    """
    return place_of(settings.data_dir, None if settings.store is None else settings.store.reveal())
