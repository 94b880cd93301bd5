"""Programs that write a ledger, or jobs, and say what they were promised, one line each.

It has imported what they need, and forks for each line of its input:
`{"program": "ledger", "folder": …, "said": …, "environ": …}`; it answers with the exit status.
"""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, Final

from contract.job_records import MUCH, answer, begun, found
from contract.ledger_records import closed, held, settled
from tiergate.batch import Spooled
from tiergate.core import CannotStart, StorageUnavailable
from tiergate.store import open_journal
from tiergate.store.jobs import SqliteJobs
from tiergate.testing import FakeClock

CALLS: Final = 4
LINES: Final = 4
_TRIES: Final = 3

Say = Callable[..., None]


async def ledger(folder: Path, say: Say) -> None:
    """Hold, settle and end calls, each after the other."""
    async with open_journal(folder, clock=FakeClock(), randomness=os.urandom, emit=lambda _: None) as journal:
        say("open")
        for number in range(1, CALLS + 1):
            if not await tried(say, "held", number, partial(journal.hold, held(number))):
                continue
            journal.settle(settled(number))
            journal.close(closed(number))
            await tried(say, "settled", number, journal.flush)
    say("closed", "broken" if journal.statistics().lost else "")


async def jobs(folder: Path, say: Say) -> None:
    """Work a job of four lines, two at a time, trying again what does not go."""
    async with SqliteJobs(folder, epoch=1) as store:
        say("open")
        no = await begun(store, [b"line %d\n" % n for n in range(1, LINES + 1)])
        say("begun")
        for first in range(1, LINES, 2):
            lines = await store.claim(no, 2, bytes_max=MUCH)
            assert [line.n for line in lines] == [first, first + 1]
            spooled: list[Spooled] = []

            async def spool(n: int, ends: list[Spooled] = spooled) -> None:
                ends.append(await store.spool(no, answer(n)))

            for line in lines:
                await store.begin(no, line.n)
                await again(say, "spooled", line.n, partial(spool, line.n))
            await again(say, "marked", first, partial(store.finish, no, spooled))
        await store.close_job(no)
    say("closed", "")


async def taken_over(folder: Path, say: Say) -> None:
    """Take the job over that an owner before has left."""
    async with SqliteJobs(folder, epoch=2) as store:
        job = await found(store)
        say("recovered", [one.n for one in await store.recover(job.no)])
    say("closed", "")


async def tried(say: Say, what: str, number: int, work: Callable[[], Awaitable[object]]) -> bool:
    """Do something once, and say whether it was done or what was in the way."""
    try:
        await work()
    except StorageUnavailable as error:
        say(f"not {what}", number, str(error))
        return False
    say(what, number)
    return True


async def again(say: Say, what: str, number: int, work: Callable[[], Awaitable[object]]) -> None:
    """Do something, a few times until it is done."""
    for _ in range(_TRIES):
        if await tried(say, what, number, work):
            return
    raise StorageUnavailable("not at all")


PROGRAMS: Final[dict[str, Callable[[Path, Say], Coroutine[Any, Any, None]]]] = {
    "ledger": ledger,
    "jobs": jobs,
    "taken over": taken_over,
}


def run(wish: dict[str, Any]) -> None:
    """Run one program, in this process."""
    os.environ.update(wish["environ"])
    with Path(wish["said"]).open("a", buffering=1) as file:

        def say(*what: object) -> None:
            file.write(json.dumps(what) + "\n")

        try:
            asyncio.run(PROGRAMS[wish["program"]](Path(wish["folder"]), say))
        except (CannotStart, StorageUnavailable) as error:
            say(type(error).__name__, str(error))


def main() -> None:
    """Fork for each line of the input."""
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            try:
                run(json.loads(line))
            except BaseException:  # noqa: BLE001 - a child that was forked must not go on as its parent
                sys.excepthook(*sys.exc_info())
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
