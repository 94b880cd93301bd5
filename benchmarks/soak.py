"""Runs a gateway under mixed faults for half an hour and says what held, and how late its event loop was.

The gateway, three scripted providers, a real Redis and the callers share this machine, so what is late is also late
because of them. What must hold is in tests/faults/soak.py; where something does not, this ends with status 1.

    make soak                       half an hour
    make soak ARGUMENTS="--seconds 60"
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from page import write_part

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from faults.soak import CALLERS, Figures, Soak  # noqa: E402 - it lies beside the tests that use it
from redis_server import serving_redis  # noqa: E402 - the same


def text_of(seen: Figures) -> str:
    """Write the part of the page."""
    ends = ", ".join(f"{count:,} {end}" for end, count in seen.ends.most_common())
    late = " and ".join(
        f"{seen.delay_within(bound):.3%} within {float(bound) * 1e3:.0f} ms" for bound in ("0.005", "0.05")
    )
    return f"""## Mixed faults for a while

{CALLERS} callers, official clients and some that hang up, for {seen.lasted_s / 60:.0f} minutes: a provider that fails one
call of four in 22 ways, a server that stands still for 2 s of 13, a Redis that dies or freezes for 1.5 s of 11, settings
read again every 7 s. Everything on one machine of two cores. `make soak`; what must hold is in `tests/faults/soak.py`.

| | |
|---|---|
| calls | {seen.calls:,}: {ends} |
| longest past its deadline | {seen.latest_s * 1e3:.0f} ms |
| a budget too small for its calls was charged at most | {seen.most_charged:.2%} of it |
| settings read again | {seen.reloads} times |
| good when the faults were gone | {seen.good_after} of {seen.asked_after} |
| memory before and after | {seen.memory_before:.0f} and {seen.memory_after:.0f} MiB |
| delays of the event loop, {seen.delays["+Inf"]:,} looked at | {late}; 99.9 % within {seen.delay_bound(0.999)} s |
"""


def main() -> int:
    """Run it, and write its part of the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=1_800, help="of faults (default 1800)")
    parser.add_argument("--output", type=Path, default=ROOT / "BENCHMARKS.md")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tiergate-soak-") as folder, serving_redis() as redis:
        soak = Soak(Path(folder), redis)
        asyncio.run(soak.run(given.seconds))
    text = text_of(soak.figures)
    print(text)
    for what in soak.wrong:
        print(f"does not hold: {what}")
    if soak.wrong:
        return 1
    write_part(given.output, "soak", text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
