"""A house for `batch.py`: as `tiergate serve`, and on request with a ledger that writes nothing down."""

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from tiergate.app.house import open_house
from tiergate.app.serving import opened_doors
from tiergate.config import load
from tiergate.ledger import CallClosed, Claim, Held, Settled
from tiergate.store import LedgerJournal


async def _no_hold(self: LedgerJournal, held: Held, claims: Sequence[Claim] = ()) -> None:
    """Say that it is committed."""


def _no_record(self: LedgerJournal, record: Settled | CallClosed) -> None:
    """Take no notice."""


async def main(config: Path, *, has_ledger: bool) -> None:
    """Serve until killed."""
    if not has_ledger:
        LedgerJournal.hold = _no_hold  # type: ignore[method-assign]  # what this script is for
        LedgerJournal.settle = _no_record  # type: ignore[assignment, method-assign]  # the same
        LedgerJournal.close = _no_record  # type: ignore[assignment, method-assign]  # the same
    loaded = load(config, os.environ)
    with Path(config).with_name("house.log").open("wb", buffering=0) as log:
        async with (
            open_house(loaded, environ=os.environ, write_log=log.write, works_batches=True) as house,
            opened_doors(house),
        ):
            await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(Path(sys.argv[1]), has_ledger=sys.argv[2] == "ledger"))
