"""Measures what callers and a provider see while the provider fails every call.

Calls come at a steady rate, whatever becomes of those before them. The provider is the scripted one of this package,
in a process of its own; it answers 503 at once. Everything runs on this machine.

    make bench-outage
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import urlopen

import aiohttp

from page import write_part
from tiergate.store import find_owner
from tiergate.testing import MockProcess

ROOT = Path(__file__).parent.parent
SETTINGS = """
listen: 127.0.0.1:0
admin: {{listen: 127.0.0.1:0}}
data_dir: {folder}/data
providers:
  main: {{base_url: {base_url}}}
"""
QUESTION = {"model": "main/m", "messages": [{"role": "user", "content": "hi"}]}


@dataclass
class Seen:
    """What callers saw in one part of a run: statuses, and the time that each took in seconds."""

    statuses: Counter[int] = field(default_factory=Counter)
    took_s: dict[int, list[float]] = field(default_factory=dict)

    def add(self, status: int, took_s: float) -> None:
        """Count one answer."""
        self.statuses[status] += 1
        self.took_s.setdefault(status, []).append(took_s)

    def percentile_ms(self, status: int, share: float) -> float:
        """Give a percentile of the times of one status."""
        times = sorted(self.took_s.get(status, [0.0]))
        return times[min(len(times) - 1, int(len(times) * share))] * 1e3


def served(folder: Path, base_url: str) -> tuple[subprocess.Popen[bytes], str]:
    """Start a gateway and give it with its address."""
    config = folder / "tiergate.yaml"
    config.write_text(SETTINGS.format(folder=folder, base_url=base_url))
    command = [sys.executable, "-m", "tiergate.app.cli", "serve", "--config", str(config)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ends = time.monotonic() + 20
    while time.monotonic() < ends:
        owner = find_owner(folder / "data")
        if owner is not None and owner.address is not None:
            return process, f"http://{owner.address}"
        time.sleep(0.05)
    process.kill()
    raise SystemExit("the gateway did not start")


async def load(url: str, *, rate: float, seconds: float, seen: Seen) -> None:
    """Send calls at a steady rate, and wait for all answers."""
    loop = asyncio.get_running_loop()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def call() -> None:
            began = time.perf_counter()
            async with session.post(f"{url}/v1/chat/completions", json=QUESTION) as answer:
                await answer.read()
                seen.add(answer.status, time.perf_counter() - began)

        tasks = []
        start = loop.time()
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, start + number / rate - loop.time()))
            tasks.append(asyncio.create_task(call()))
        await asyncio.gather(*tasks)


def asked(mock: MockProcess) -> int:
    """Tell how many requests have come to the provider."""
    with urlopen(mock.url + "/mock/log") as answer:
        return len(json.load(answer)["data"])


def main() -> int:
    """Measure, and write the outage's part of the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rate", type=float, default=200, help="calls a second (default 200)")
    parser.add_argument("--seconds", type=float, default=60, help="of the outage (default 60)")
    parser.add_argument("--output", type=Path, default=ROOT / "BENCHMARKS.md")
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="tiergate-bench-") as folder,
        MockProcess("default: {status: 503}") as mock,
    ):
        gateway, url = served(Path(folder), mock.base_url)
        try:
            opening, outage = Seen(), Seen()
            asyncio.run(load(url, rate=given.rate, seconds=2, seen=opening))
            before = asked(mock)
            asyncio.run(load(url, rate=given.rate, seconds=given.seconds, seen=outage))
            probes = asked(mock) - before
        finally:
            gateway.terminate()
            gateway.wait()
    total = sum(outage.statuses.values())
    statuses = ", ".join(f"{count:,} times {status}" for status, count in sorted(outage.statuses.items()))
    text = f"""## A provider that fails

{given.rate:.0f} calls a second to a provider that answers every one with 503, for {given.seconds:.0f} s, after two seconds in which its
breaker opens. `make bench-outage`.

| | |
|---|---|
| asked of the provider in the two seconds, of {given.rate * 2:,.0f} calls | {before:,} |
| asked of it in the {given.seconds:.0f} s after them, of {total:,} calls | {probes:,} |
| callers saw | {statuses} |
| the fast 503: p50 | {outage.percentile_ms(503, 0.5):.1f} ms |
| the fast 503: p99 | {outage.percentile_ms(503, 0.99):.1f} ms |
"""
    print(text)
    write_part(given.output, "outage", text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
