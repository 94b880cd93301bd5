"""Measures what the cache gives and what it costs: hits, and questions that nobody has asked before.

The gateway runs on the first core, load (wrk) and upstream (nginx) on the second; turns of a second, one kind of
call after the other, so that the noise of a shared machine meets all of them. Medians, and ratios of neighbours.

    make bench-cache

Needs wrk and nginx (Debian: apt install wrk nginx-light) and two cores.
"""

import argparse
import statistics
import sys
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from against import HEADERS, cpu_s, running
from gateway import GATEWAY_PORT, QUESTION, ROOT, reply_upstream, wrk
from page import write_part


class Kind(NamedTuple):
    """A kind of calls: in words, with which temperature, and whether each is another one."""

    name: str
    temperature: int | None
    numbered: bool


HITS = Kind("hits", 0, False)
MISSES = Kind("questions that may be kept, each for the first time", 0, True)
BESIDE = Kind("questions that the cache has nothing to do with", None, True)
KINDS = (HITS, MISSES, BESIDE)
CONNECTIONS = (1, 32, 256)


class Turn(NamedTuple):
    """What a turn came to; CPU of the gateway in microseconds a call."""

    per_s: float
    p50_ms: float
    cpu_us: float


def turn(pid: int, kind: Kind, connections: int, seconds: float) -> Turn:
    """Put load of one kind on the gateway for a moment."""
    question = QUESTION if kind.temperature is None else {**QUESTION, "temperature": kind.temperature}
    before_s = cpu_s(pid)
    load = wrk(HEADERS, connections=connections, seconds=seconds, question=question, numbered=kind.numbered)
    if load.errors:
        raise SystemExit(f"{load.errors} calls failed")
    return Turn(load.per_s, load.p50_ms, (cpu_s(pid) - before_s) * 1e6 / (load.per_s * seconds))


def main() -> int:
    """Measure, and write the cache's part of the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=15, help="of each kind and count (default 15)")
    parser.add_argument("--seconds", type=float, default=1, help="of a turn (default 1)")
    parser.add_argument("--output", type=Path, default=ROOT / "BENCHMARKS.md")
    given = parser.parse_args()
    found: dict[tuple[Kind, int], list[Turn]] = {}
    with tempfile.TemporaryDirectory(prefix="tiergate-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        stack.enter_context(reply_upstream(folder))
        side = stack.enter_context(running(ROOT, folder / "gateway", GATEWAY_PORT))
        for number in range(given.turns + 1):
            for connections in CONNECTIONS:
                for kind in KINDS:
                    one = turn(side.pid, kind, connections, given.seconds)
                    if number:  # The first turn warms up.
                        found.setdefault((kind, connections), []).append(one)
            print(f"turn {number} of {given.turns}", flush=True)
    write_part(given.output, "cache", page(found, given.turns, given.seconds))
    print(f"\nWritten: {given.output}")
    return 0


def page(found: dict[tuple[Kind, int], list[Turn]], turns: int, seconds: float) -> str:
    """Write the part of the page."""
    rows = []
    for kind in KINDS:
        cells = [kind.name]
        for connections in CONNECTIONS:
            ones, others = found[kind, connections], found[BESIDE, connections]
            if connections == 1:
                cells.append(f"{statistics.median(one.p50_ms for one in ones):.2f}")
                continue
            per_s = statistics.median(one.per_s for one in ones)
            ratio = statistics.median(
                one.per_s / other.per_s for one, other in zip(ones, others, strict=True)
            )
            best, cpu_us = max(one.per_s for one in ones), statistics.median(one.cpu_us for one in ones)
            cells += [f"{per_s:,.0f}", f"{best:,.0f}", f"{cpu_us:.0f}", f"**{ratio:.2f}**"]
        rows.append("| " + " | ".join(cells) + " |")
    table = "\n".join(rows)
    return f"""## The cache

{datetime.now(UTC):%Y-%m-%d}: one core for the gateway, memory as the only level, answers of 2.3 kB, {turns} turns of {seconds:g} s
of each kind, medians; the ratio is to the last row, of neighbouring turns. `make bench-cache`.

| | 1 connection: p50 ms | 32: calls/s | best | CPU µs a call | ratio | 256: calls/s | best | CPU µs a call | ratio |
|---|---|---|---|---|---|---|---|---|---|
{table}
"""


if __name__ == "__main__":
    sys.exit(main())
