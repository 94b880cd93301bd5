"""Measures what the ledger carries: calls that are held, settled and ended, on SQLite and on PostgreSQL.

Each call is written whole, as the gateway writes it: a hold that is committed before it goes on, then its settlement
and its end. Callers wait for their own holds and for nothing else. On PostgreSQL two replicas, each a process of its
own, count all their calls against one and the same ceiling. The server runs on this machine, on the same cores.

    make bench-ledger

The machine may be shared and noisy: all figures are of one run, so read them beside each other.
"""

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from page import write_part
from tiergate.core import (
    Call,
    Caller,
    EndState,
    Outcome,
    SystemClock,
    Target,
    Tier,
    Usage,
    UsageSource,
    new_id,
)
from tiergate.ledger import (
    Book,
    CallClosed,
    CallOpened,
    Ceiling,
    Held,
    HoldState,
    Period,
    Scope,
    Settled,
    SharedBook,
    Slice,
    SoleBook,
    SpentBy,
)
from tiergate.store import place_of
from tiergate.testing import MemoryJournal

ROOT = Path(__file__).parents[1]
HOT = (Ceiling(scope=Scope.ALL, amount_nanos=10**15, period=Period.MONTH),)
NESTED = (
    *HOT,
    Ceiling(scope=Scope.KEY, name="k1", amount_nanos=10**15, period=Period.DAY),
    Ceiling(scope=Scope.TIER, name="hosted", amount_nanos=10**15),
)
TARGET = Target(provider="p", model="m", tier=Tier.HOSTED)
USAGE = Usage(input=100, output=50)
CEILINGS = {"none": (), "hot": HOT, "nested": NESTED}
SAID = {"none": "none", "hot": "one for all calls", "nested": "three, nested"}
ROUNDS = 5
CALLS_ALONE = 10_000


class Records(NamedTuple):
    """All that is written of one call."""

    held: Held
    settled: Settled
    closed: CallClosed


def records(key: str) -> Records:
    """Make what is written of one call that begins now."""
    wall_ns = time.time_ns()
    call = Call(
        id=new_id(wall_ns, os.urandom(10)),
        caller=Caller(key=key),
        endpoint="chat",
        asked_model="m",
        body={},
        prompt_bytes=400,
        streamed=False,
        received_ns=wall_ns,
        received=0.0,
    )
    opened = CallOpened(call=call, generation=1, deadline_ns=wall_ns, route="[]")
    return Records(
        Held(
            opened=opened,
            n=1,
            target=TARGET,
            bound_nanos=1_000_000,
            price_id="p/m@2026-01-01",
            queued_ns=wall_ns,
            permit_ns=wall_ns,
            in_flight=1,
        ),
        Settled(
            call_id=call.id,
            n=1,
            state=HoldState.SETTLED,
            outcome=Outcome.SUCCESS,
            blame=None,
            error_code=None,
            status=200,
            sent_ns=wall_ns,
            first_ns=wall_ns,
            last_ns=wall_ns,
            usage=USAGE,
            usage_source=UsageSource.REPORTED,
            cash_nanos=400_000,
        ),
        CallClosed(
            opened=opened,
            end=EndState.SUCCESS,
            error_code=None,
            first_event_ns=wall_ns,
            last_event_ns=wall_ns,
            finish_reasons=("stop",),
            attempts=1,
        ),
    )


async def one_call(book: Book, key: str) -> float:
    """Write one call; give how long its hold took."""
    held, settled, closed = records(key)
    began = time.perf_counter()
    await book.hold(held, wait_s=2)
    took = time.perf_counter() - began
    book.settle(settled)
    book.close(closed)
    return took


class NothingWritten(MemoryJournal):
    """A journal that keeps nothing: what is left is what the book itself costs."""

    async def hold(self, held: Held) -> None:
        """Answer at once."""

    def settle(self, settled: Settled) -> None:
        """Answer at once."""

    async def draw(self, slices: Sequence[Slice]) -> None:
        """Answer at once."""

    async def spent(self, start_ns: int, end_ns: int | None) -> list[SpentBy]:
        """Nothing was spent before."""
        return []


async def alone(ceilings: Sequence[Ceiling]) -> float:
    """Give the microseconds of CPU that the book takes to hold and to settle a call; the best of some rounds."""
    book = SoleBook(NothingWritten(), ceilings=ceilings)
    rounds = []
    for _ in range(ROUNDS):
        calls = [records("k1") for _ in range(CALLS_ALONE)]
        began = time.process_time()
        for held, settled, _ in calls:
            await book.hold(held)
            book.settle(settled)
        rounds.append((time.process_time() - began) / CALLS_ALONE * 1e6)
    return min(rounds)


async def replica(given: argparse.Namespace) -> dict[str, Any]:
    """Be one owner of a ledger, with so many callers, for so long."""
    ceilings = CEILINGS[given.ceilings]
    async with AsyncExitStack() as stack:
        place = place_of(Path(given.folder), given.store)
        journal = await stack.enter_async_context(
            place.journal(clock=SystemClock(), randomness=os.urandom, emit=lambda _: None)
        )
        book: Book
        if place.is_shared:
            book = SharedBook(journal, ceilings=ceilings, emit=lambda _: None)
        else:
            book = SoleBook(journal, ceilings=ceilings)
        await book.balances(time.time_ns())
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        ends = time.perf_counter() + given.seconds
        waits: list[float] = []

        async def caller(number: int) -> None:
            while time.perf_counter() < ends:
                waits.append(await one_call(book, f"k{number % 8}"))

        began, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(caller(number) for number in range(given.callers)))
        await journal.flush()
        took = time.perf_counter() - began
        cpu = time.process_time() - cpu
        waits.sort()
        return {
            "calls": len(waits),
            "seconds": took,
            "cpu_us": cpu / len(waits) * 1e6,
            "p50_ms": waits[len(waits) // 2] * 1e3,
            "p99_ms": waits[int(len(waits) * 0.99)] * 1e3,
        }


def measured(
    folder: Path, *, store: str | None, owners: int, callers: int, ceilings: str, seconds: float
) -> dict[str, Any]:
    """Run owners side by side, and add up what they did."""
    processes = []
    for number in range(owners):
        command = [sys.executable, __file__, "--as-replica", "--folder", str(folder / f"owner-{number}")]
        command += ["--callers", str(callers // owners), "--seconds", str(seconds), "--ceilings", ceilings]
        command += [] if store is None else ["--store", store]
        processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    told = [json.loads(process.communicate()[0]) for process in processes]
    return {
        "rate": sum(one["calls"] / one["seconds"] for one in told),
        "cpu_us": sum(one["cpu_us"] for one in told) / len(told),
        "p50_ms": max(one["p50_ms"] for one in told),
        "p99_ms": max(one["p99_ms"] for one in told),
    }


def in_turns(rounds: int) -> Iterator[tuple[str, int, str, int]]:
    """Give what is measured: of one store everything by turns, so that a slow minute meets all of it."""
    for where, owners in (("SQLite", 1), ("PostgreSQL", 1), ("PostgreSQL", 2)):
        for _ in range(rounds):
            for ceilings in SAID:
                for callers in (20, 256):
                    yield where, owners, ceilings, callers


def middle(seen: Sequence[Mapping[str, float]], what: str) -> float:
    """Give the median of a figure."""
    return median(one[what] for one in seen)


def main() -> int:
    """Measure, and write the ledger's part of the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=4, help="of load for each figure (default 4)")
    parser.add_argument("--rounds", type=int, default=5, help="of everything, in turns (default 5)")
    parser.add_argument("--output", type=Path, default=ROOT / "BENCHMARKS.md")
    for name, kind, default in (
        ("--folder", str, ""),
        ("--store", str, None),
        ("--callers", int, 1),
        ("--ceilings", str, "none"),
    ):
        parser.add_argument(name, type=kind, default=default, help=argparse.SUPPRESS)
    parser.add_argument("--as-replica", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.as_replica:
        print(json.dumps(asyncio.run(replica(given))))
        return 0
    book = ", ".join(
        f"{asyncio.run(alone(ceilings)):.1f} µs with {SAID[name]}" for name, ceilings in CEILINGS.items()
    )
    print(f"The book alone: {book}.", flush=True)
    found: dict[tuple[str, int, str, int], list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory(prefix="tiergate-") as home:
        import pgserver  # of the tests' requirements

        server = pgserver.get_server(Path(home) / "server", cleanup_mode="stop")
        for number, (where, owners, ceilings, callers) in enumerate(in_turns(given.rounds)):
            store = None
            if where == "PostgreSQL":
                server.psql(f"CREATE DATABASE b{number}")
                store = server.get_uri(f"b{number}")
            folder, seconds = Path(home) / f"f{number}", given.seconds
            seen = measured(
                folder, store=store, owners=owners, callers=callers, ceilings=ceilings, seconds=seconds
            )
            found.setdefault((where, owners, ceilings, callers), []).append(seen)
            print(where, owners, ceilings, callers, seen, flush=True)
        server.cleanup()
    rows = [
        f"| {where}{'' if owners == 1 else f', {owners} replicas'} | {SAID[ceilings]} | {callers} | "
        f"{middle(seen, 'rate'):,.0f} | {middle(seen, 'p50_ms'):.1f} | {middle(seen, 'p99_ms'):.1f} | "
        f"{middle(seen, 'cpu_us'):.0f} |"
        for (where, owners, ceilings, callers), seen in found.items()
    ]
    write_part(
        given.output,
        "ledger",
        f"""## The ledger

Written by `make bench-ledger`; [the script](benchmarks/ledger.py) says how it measures.

{datetime.now(UTC).date()}, Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} shared cores for callers, writers and the database server together, fsync on. Each figure is the median of {given.rounds} runs of {given.seconds:g} s, in turns with the others of its store. Calls are held, settled and ended; CPU is that of the replica's whole process, the caller's own work included.

| store | budgets | callers | calls/s | hold p50 ms | p99 ms | CPU µs a call |
|---|---|---|---|---|---|---|
{chr(10).join(rows)}

The budgets' own part, in one process with a journal that writes nothing, best of {ROUNDS} rounds of {CALLS_ALONE:,} calls: a hold and its
settlement take {book}.
""",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
