"""The book: places holds before money can be spent, and settles each exactly once.

Ceilings will be checked here, in `hold`, before anything is written.
"""

import asyncio

from tiergate.core import NOTHING, Outcome, UsageSource
from tiergate.ledger.ports import Journal
from tiergate.ledger.records import CallClosed, Held, Settled
from tiergate.ledger.states import HoldState


class Book:
    """Money's only door, in front of the journal."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def hold(self, held: Held) -> None:
        """Place a hold; when this returns it is committed, and the attempt may send its first byte.

        Raises:
            StorageUnavailable: nothing was held, nothing may be sent.
        """
        try:
            await self._journal.hold(held)
        except asyncio.CancelledError:
            # The hold may be on its way to the disk. Whether it arrives or not, nothing was sent for it.
            self._journal.settle(_not_sent(held))
            raise

    def settle(self, settled: Settled) -> None:
        """Replace a hold by the truth. Returns at once, cannot fail."""
        self._journal.settle(settled)

    def close(self, closed: CallClosed) -> None:
        """Write the end of a call. Returns at once, cannot fail."""
        self._journal.close(closed)


def _not_sent(held: Held) -> Settled:
    return Settled(
        call_id=held.call_id,
        n=held.n,
        state=HoldState.RELEASED,
        outcome=Outcome.IGNORE,
        blame=None,
        error_code=None,
        status=None,
        sent_ns=held.permit_ns,
        first_ns=None,
        last_ns=held.permit_ns,
        usage=NOTHING,
        usage_source=UsageSource.NONE,
        cash_nanos=0,
    )
