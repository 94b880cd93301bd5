"""The ledger after kill -9: what was acknowledged is there, what was held lapses, every call ends once."""

import asyncio
import os
import random
import subprocess
import sys
import time
from pathlib import Path

from contract.ledger_records import opened
from places import Kept, Places
from tiergate.core import EndState, SystemClock
from tiergate.ledger import Entry, HoldState
from tiergate.store import OwnerLock

_ROUNDS = 15
_CALLS = 10_000
"""Each round has numbers of its own, more than it can use before it is killed."""

_WRITING = """
import asyncio, os, sys
from pathlib import Path
from contract.ledger_records import closed, held, settled
from tiergate.core import SystemClock
from tiergate.store import OwnerLock, place_of

async def calls(journal, numbers):
    for number in numbers:
        await journal.hold(held(number))
        os.write(1, f"held {number}\\n".encode())
        journal.settle(settled(number, cash_nanos=number))
        journal.close(closed(number))
        if number % 3 == 0:
            await journal.flush()
            os.write(1, f"ended {number}\\n".encode())

async def main():
    folder, store, first, count = Path(sys.argv[1]), sys.argv[2] or None, int(sys.argv[3]), int(sys.argv[4])
    with OwnerLock.acquire(folder):
        place = place_of(folder, store)
        journal = place.journal(clock=SystemClock(), randomness=os.urandom, emit=lambda _: None)
        async with journal:
            os.write(1, b"began 0\\n")
            await asyncio.gather(*(calls(journal, range(first + n, first + count, 8)) for n in range(8)))

asyncio.run(main())
"""


def write_until_killed(kept: Kept, number: int, after_s: float) -> tuple[set[int], set[int]]:
    """Let a process write calls, kill it in the middle, and give what it had been promised."""
    tests = Path(__file__).parents[1]
    with subprocess.Popen(
        [sys.executable, "-c", _WRITING, str(kept.folder), kept.store or "", str(number), str(_CALLS)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent / "src")])},
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        time.sleep(after_s)
        process.kill()
        lines += process.stdout.read().splitlines(keepends=True)
    # The last line may have been cut off by the kill; then it was not said.
    words = [line.split() for line in lines if line.endswith(b"\n")]
    assert words[0] == [b"began", b"0"]
    held = {int(found) for word, found in words if word == b"held"}
    ended = {int(found) for word, found in words if word == b"ended"}
    return held, ended


async def reopen(kept: Kept) -> tuple[int, dict[str, Entry]]:
    found: dict[str, Entry] = {}
    with OwnerLock.acquire(kept.folder):
        journal = kept.journal(clock=SystemClock(), randomness=os.urandom)
        async with asyncio.timeout(20), journal:
            after = None
            while page := await journal.entries(after=after, limit=1_000):
                found |= {entry.call_id: entry for entry in page}
                after = page[-1].call_id
            return journal.owner.epoch, found


def test_what_was_acknowledged_survives_a_kill_at_any_instant(places: Places) -> None:
    """Fifteen times: holds and flushed ends are there, open holds lapse, and the epoch grows."""
    kept = places.new()
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    epoch = 0
    lapsed = 0
    for round_number in range(_ROUNDS):
        what = f"round {round_number}, seed {seed}"
        first = 1 + round_number * _CALLS
        held, ended = write_until_killed(kept, first, chance.uniform(0.0, 0.08))
        before, epoch = epoch, 0
        epoch, entries = asyncio.run(reopen(kept))
        assert epoch == before + 2, what

        for number in held:
            entry = entries[opened(number).call.id]
            assert len(entry.attempts) == 1, what
        for number in ended:
            entry = entries[opened(number).call.id]
            assert entry.end is EndState.SUCCESS, what
            assert (entry.attempts[0].state, entry.attempts[0].cash_nanos) == (HoldState.SETTLED, number), (
                what
            )
        for entry in entries.values():
            assert entry.end in (EndState.SUCCESS, EndState.LAPSED), what
            states = {attempt.state for attempt in entry.attempts}
            assert states == {HoldState.SETTLED} or states == {HoldState.LAPSED}, what
            if HoldState.LAPSED in states:
                assert entry.end is EndState.LAPSED, what
        lapsed += sum(entry.end is EndState.LAPSED for entry in entries.values())
    assert lapsed > 0, f"no kill came in the middle of a call, seed {seed}"
    if places.kind == "sqlite":
        assert kept.rows("PRAGMA integrity_check") == [("ok",)]
