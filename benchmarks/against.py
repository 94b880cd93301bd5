"""Measures this tree against an earlier commit: what a change costs the calls that meet no trouble.

Both gateways run side by side on the first core, and take turns of a second under load (wrk) from the second,
where the upstream (nginx) runs too. The machine may be shared and noisy, so what counts is the ratio of two
neighbouring turns, and of those the median.

    make bench-against                          the commit before retries, breakers, limits
    make bench-against REVISION=main~20         any other

Needs wrk and nginx (Debian: apt install wrk nginx-light), git and two cores.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from gateway import GATEWAY_CORE, GATEWAY_PORT, KEY, ROOT, SETTINGS, UPSTREAM_PORT, reply_upstream, wrk
from page import write_part

BEFORE_SURVIVAL = "500e0b7"
CONNECTIONS = (1, 32, 256)
HEADERS = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}


class Turn(NamedTuple):
    """What one turn came to; CPU of the gateway in microseconds a call, all of its threads."""

    per_s: float
    p50_ms: float
    cpu_us: float


class Side(NamedTuple):
    """A gateway that runs."""

    pid: int
    port: int


def main() -> int:
    """Measure both and write the part of the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("revision", nargs="?", default=BEFORE_SURVIVAL, help="the commit to measure against")
    parser.add_argument("--turns", type=int, default=24, help="of each side and count (default 24)")
    parser.add_argument("--seconds", type=float, default=1, help="of a turn (default 1)")
    parser.add_argument("--output", type=Path, default=ROOT / "BENCHMARKS.md")
    given = parser.parse_args()
    missing = [program for program in ("nginx", "wrk", "taskset", "git") if shutil.which(program) is None]
    if missing or (os.cpu_count() or 1) < 2:
        print(f"Needs two cores and {', '.join(missing) or 'wrk and nginx'}.")
        return 1
    turns: dict[int, list[tuple[Turn, Turn]]] = {connections: [] for connections in CONNECTIONS}
    with tempfile.TemporaryDirectory(prefix="tiergate-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        earlier = stack.enter_context(tree_of(given.revision, folder / "earlier"))
        stack.enter_context(reply_upstream(folder))
        before = stack.enter_context(running(earlier, folder / "before", GATEWAY_PORT))
        after = stack.enter_context(running(ROOT, folder / "after", GATEWAY_PORT + 1))
        for number in range(given.turns + 1):
            # Who comes first changes, so that what one leaves behind meets both.
            for connections, pairs in turns.items():
                found = {
                    side: turn(side, connections, given.seconds) for side in _order(before, after, number)
                }
                if number:  # The first turn warms up.
                    pairs.append((found[before], found[after]))
            print(f"turn {number} of {given.turns}", flush=True)
    write_part(given.output, "against", page(given.revision, turns, given.seconds))
    print(f"\nWritten: {given.output}")
    return 0


def _order(before: Side, after: Side, number: int) -> tuple[Side, Side]:
    return (before, after) if number % 2 else (after, before)


@contextmanager
def tree_of(revision: str, folder: Path) -> Iterator[Path]:
    """Check a commit out beside this one."""
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(folder), revision], check=True)
    try:
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True)


@contextmanager
def running(tree: Path, folder: Path, port: int) -> Iterator[Side]:
    """Run the gateway of a tree."""
    folder.mkdir()
    config = folder / "tiergate.yaml"
    config.write_text(SETTINGS.format(port=port, data=folder / "data", upstream=UPSTREAM_PORT))
    command = [sys.executable, "-m", "tiergate.app.cli", "serve", "--config", str(config)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["taskset", "-c", GATEWAY_CORE, *command],
            env={**os.environ, "PYTHONPATH": str(tree / "src")},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            until_it_answers(port)
            yield Side(process.pid, port)
        finally:
            process.terminate()
            process.wait()


def until_it_answers(port: int) -> None:
    """Wait until a gateway gives an answer."""
    ends = time.monotonic() + 30
    while time.monotonic() < ends:
        try:
            wrk(HEADERS, connections=1, seconds=1, port=port)
        except subprocess.CalledProcessError:
            time.sleep(0.2)
        else:
            return
    raise SystemExit("a gateway did not start")


def turn(side: Side, connections: int, seconds: float) -> Turn:
    """Put load on a side for a moment."""
    before_s = cpu_s(side.pid)
    load = wrk(HEADERS, connections=connections, seconds=seconds, port=side.port)
    if load.errors:
        raise SystemExit(f"{load.errors} calls failed")
    spent_s = cpu_s(side.pid) - before_s
    return Turn(per_s=load.per_s, p50_ms=load.p50_ms, cpu_us=spent_s * 1e6 / (load.per_s * seconds))


def cpu_s(pid: int) -> float:
    """Give the CPU that a process has taken, all of its threads, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def page(revision: str, turns: dict[int, list[tuple[Turn, Turn]]], seconds: float) -> str:
    """Write the part of the page."""
    count = len(turns[CONNECTIONS[0]])
    rows = []
    for connections, pairs in turns.items():
        for what, figure, unit in FIGURES:
            if what == "CPU a call" or (connections == 1) == (what == "p50"):
                before, after = ([figure(side) for side in sides] for sides in zip(*pairs, strict=True))
                ratios = statistics.quantiles([b / a for a, b in zip(before, after, strict=True)], n=4)
                rows.append(
                    f"| {connections}: {what}, {unit} | {statistics.median(before):,.2f} "
                    f"| {statistics.median(after):,.2f} | **{ratios[1]:.2f}** ({ratios[0]:.2f} to {ratios[2]:.2f}) |"
                )
    table = "\n".join(rows)
    return f"""## Against an earlier commit

{datetime.now(UTC):%Y-%m-%d}: {subject(revision)}, and now; both side by side on one core, {count} turns of {seconds:g} s each,
medians. The ratio is of neighbouring turns, now through then, with its quartiles. `make bench-against`.

| connections | then | now | ratio |
|---|---|---|---|
{table}
"""


FIGURES: tuple[tuple[str, Callable[[Turn], float], str], ...] = (
    ("p50", lambda one: one.p50_ms, "ms"),
    ("calls", lambda one: one.per_s, "a second"),
    ("CPU a call", lambda one: one.cpu_us, "µs"),
)


def subject(revision: str) -> str:
    """Name a commit."""
    form = ["git", "-C", str(ROOT), "log", "-1", "--format=commit %h (%s)", revision]
    return subprocess.run(form, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
