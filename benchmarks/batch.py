"""Measures batches: lines a second on one core, what the ledger costs of that, and memory at a million lines.

The house runs on the first core, an upstream that answers at once (nginx) on the second, and this script, which only
uploads and looks now and then, wherever there is room.

    make bench-batch

Needs nginx (Debian: apt install nginx-light) and two cores. A million lines take about five minutes.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import httpx2 as httpx
import pgserver

from against import cpu_s
from gateway import (
    GATEWAY_CORE,
    GATEWAY_PORT,
    KEY,
    ROOT,
    SETTINGS,
    UPSTREAM_PORT,
    _resident_mb,
    reply_upstream,
)
from page import write_part

BASE = f"http://127.0.0.1:{GATEWAY_PORT}/v1"
HEADERS = {"authorization": f"Bearer {KEY}"}
PART = 20_000
CONCURRENCY = 64


@dataclass(frozen=True, slots=True)
class Seen:
    """A look at a batch that runs."""

    at_s: float
    done: int
    cpu_s: float
    resident_mb: float


@contextmanager
def database() -> Iterator[str]:
    """Run a PostgreSQL server with its defaults, and give the address of its database."""
    with tempfile.TemporaryDirectory(prefix="tiergate-bench-") as folder:
        server = pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()


@contextmanager
def house(folder: Path, kind: str, store: str | None = None) -> Iterator[int]:
    """Run a house; give its process."""
    folder.mkdir()
    config = folder / "tiergate.yaml"
    settings = SETTINGS.format(port=GATEWAY_PORT, data=folder / "data", upstream=UPSTREAM_PORT)
    if store is not None:
        settings += f"\nstore: {store}\nsecret: of-a-benchmark-0123456789abcdef-0123456789\n"
    config.write_text(settings)
    script = Path(__file__).with_name("batch_house.py")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["taskset", "-c", GATEWAY_CORE, sys.executable, str(script), str(config), kind],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            _until_live()
            yield process.pid
        finally:
            process.terminate()
            process.wait()


def _until_live() -> None:
    ends = time.monotonic() + 30
    while time.monotonic() < ends:
        try:
            httpx.get(f"http://127.0.0.1:{GATEWAY_PORT}/health/live")
        except httpx.HTTPError:
            time.sleep(0.1)
        else:
            return
    raise SystemExit("the house did not start")


def line(n: int) -> bytes:
    """Give a line of half a kilobyte."""
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": f"{n}: how was your day? " + "And the one before? " * 15}],
        "max_tokens": 500,
    }
    row = {"custom_id": f"row-{n}", "method": "POST", "url": "/v1/chat/completions", "body": body}
    return json.dumps(row, separators=(",", ":")).encode() + b"\n"


def run(pid: int, lines: int) -> list[Seen]:
    """Let a batch run from its upload to its end; give what was seen of it, once a second."""
    files = []
    with httpx.Client(headers=HEADERS, timeout=60) as client:
        for first in range(0, lines, PART):
            data = b"".join(line(n) for n in range(first + 1, min(lines, first + PART) + 1))
            sent = client.post(f"{BASE}/files", data={"purpose": "batch"}, files={"file": ("in.jsonl", data)})
            files.append(sent.raise_for_status().json()["id"])
        batch = client.post(
            f"{BASE}/batches",
            json={
                "input_file_id": files[0],
                "endpoint": "/v1/chat/completions",
                "completion_window": "24h",
                "tiergate": {"more_input_file_ids": files[1:], "concurrency": CONCURRENCY},
            },
        )
        place = f"{BASE}/batches/{batch.raise_for_status().json()['id']}"
        seen, begin = [], time.monotonic()
        while True:
            found = client.get(place).json()
            seen.append(
                Seen(
                    time.monotonic() - begin,
                    found["request_counts"]["completed"],
                    cpu_s(pid),
                    _resident_mb(pid),
                )
            )
            if found["status"] not in ("validating", "in_progress"):
                break
            time.sleep(1)
    if found["request_counts"]["completed"] != lines:
        raise SystemExit(f"not all lines were answered: {found}")
    return seen


def speed(seen: list[Seen], lines: int) -> tuple[float, float]:
    """Give lines a second, and CPU microseconds a line, without beginning and end."""
    inside = [one for one in seen if lines * 0.05 <= one.done <= lines * 0.95]
    first, last = inside[0], inside[-1]
    done = last.done - first.done
    return done / (last.at_s - first.at_s), (last.cpu_s - first.cpu_s) * 1e6 / done


def main() -> int:
    """Measure, and write the part of batches."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lines", type=int, default=40_000, help="of a turn (default 40,000)")
    parser.add_argument("--turns", type=int, default=3, help="of each kind (default 3)")
    parser.add_argument("--large", type=int, default=1_000_000, help="lines of the large one; 0: none")
    parser.add_argument("--output", type=Path, default=ROOT / "BENCHMARKS.md")
    given = parser.parse_args()
    found: dict[str, list[tuple[float, float]]] = {"ledger": [], "none": []}
    large: list[Seen] = []
    with tempfile.TemporaryDirectory(prefix="tiergate-bench-") as name:
        folder = Path(name)
        with reply_upstream(folder):
            for number in range(given.turns):
                for kind, speeds in found.items():
                    with house(folder / f"{kind}{number}", kind) as pid:
                        speeds.append(speed(run(pid, given.lines), given.lines))
                        print(kind, *(round(one) for one in speeds[-1]), flush=True)
            with database() as store, house(folder / "postgres", "ledger", store) as pid:
                shared = speed(run(pid, given.lines), given.lines)
                print("postgres", *(round(one) for one in shared), flush=True)
            if given.large:
                with house(folder / "large", "ledger") as pid:
                    large = run(pid, given.large)
                    for one in large[:: max(1, len(large) // 20)]:
                        print(f"{one.done:,} lines: {one.resident_mb:.0f} MB", flush=True)
    write_part(given.output, "batch", page(found, shared, large, given.lines, given.large))
    print(f"\nWritten: {given.output}")
    return 0


def page(
    found: dict[str, list[tuple[float, float]]],
    shared: tuple[float, float],
    large: list[Seen],
    lines: int,
    many: int,
) -> str:
    """Write the part of the page."""
    rows = []
    for kind, words in (("ledger", "everything on"), ("none", "a ledger that writes nothing down")):
        per_s = median(one[0] for one in found[kind])
        best = max(one[0] for one in found[kind])
        cpu_us = median(one[1] for one in found[kind])
        rows.append(f"| {words} | {per_s:,.0f} | {best:,.0f} | {cpu_us:.0f} |")
    words = "ledger and batches on PostgreSQL, one replica, one turn; the server beside it"
    rows.append(f"| {words} | {shared[0]:,.0f} | {shared[0]:,.0f} | {shared[1]:.0f} |")
    ratios = sorted(one[0] / other[0] for one, other in zip(found["ledger"], found["none"], strict=True))
    memory = ""
    if large:
        early = next(one for one in large if one.done >= many * 0.1)
        late = next(one for one in large if one.done >= many * 0.9)
        per_s, _ = speed(large, many)
        memory = (
            f"\n{many:,} lines: {per_s:,.0f} lines/s; resident memory {early.resident_mb:.0f} MB at line "
            f"{early.done:,}, {late.resident_mb:.0f} MB at line {late.done:,}, "
            f"{max(one.resident_mb for one in large):.0f} MB at most.\n"
        )
    table = "\n".join(rows)
    return f"""## Batches

{datetime.now(UTC):%Y-%m-%d}: one core for the house, an upstream that answers at once with 2.3 kB, {CONCURRENCY} lines asked at one time,
{lines:,} lines of half a kilobyte, {len(found["ledger"])} turns of each kind, medians. The ledger leaves **{median(ratios):.2f}** of the lines a second ({ratios[0]:.2f} to {ratios[-1]:.2f} in the turns).
`make bench-batch`.

| | lines/s | best | CPU µs a line |
|---|---|---|---|
{table}
{memory}"""


if __name__ == "__main__":
    sys.exit(main())
