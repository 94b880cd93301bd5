"""Measures whether the time that a wrong key takes tells anything about the right one.

Wrong keys of two kinds are tried in turns, so that whatever disturbs the machine disturbs both: some that share all but
their last characters with a key that is known here, and some that share nothing with any. If the look-up compared
characters, the first kind would take longer. Welch's t says how sure a difference is; beyond 4.5 it is taken for one,
as usual where implementations are tested for leaks by their timing (test vector leakage assessment).

    make bench-keys
"""

import argparse
import os
import random
import statistics
import string
import time
from pathlib import Path

from page import write_part
from tiergate.admission import KeyMaker, Keyring, VirtualKey
from tiergate.core import Caller, InvalidKey

ROOT = Path(__file__).parent.parent
KEYS = 1_000
SHARED_NOT = 4
"""So many characters at the end differ."""
T_MAX = 4.5
KEPT = 0.9
"""The slowest tenth of both is left out: it tells of the machine."""
LETTERS = string.ascii_letters + string.digits


def rings() -> dict[str, tuple[Keyring, str]]:
    """Give a door of each sort with a key that opens it."""
    maker = KeyMaker("s" * 32, randomness=os.urandom)
    made = [maker.make() for _ in range(KEYS)]
    virtual = [
        VirtualKey(name=f"k{number}", digest=maker.digest(key), hint=maker.hint(key), created_ns=0)
        for number, key in enumerate(made)
    ]
    written = [f"sk-{number}-{os.urandom(24).hex()}" for number in range(KEYS)]
    callers = [(key, Caller(key=f"k{number}")) for number, key in enumerate(written)]
    return {
        "in the settings": (Keyring(callers), written[KEYS // 2]),
        "made": (Keyring([], virtual=virtual, digest=maker.digest), made[KEYS // 2]),
    }


def tried(ring: Keyring, known: str, trials: int) -> tuple[list[int], list[int]]:
    """Give the nanoseconds that wrong keys took: those that share a beginning with a known one, and others."""
    chance = random.Random(1)
    shares: list[int] = []
    differs: list[int] = []
    kinds = [(shares, known), (differs, "")]
    for _ in range(trials):
        chance.shuffle(kinds)
        for took, beginning in kinds:
            # Made in the same way for both, or the making would leave its traces in the time.
            drawn = "".join(chance.choices(LETTERS, k=len(known)))
            key = (beginning or drawn)[:-SHARED_NOT] + drawn[-SHARED_NOT:]
            began = time.perf_counter_ns()
            try:
                ring.caller(key)
            except InvalidKey:
                took.append(time.perf_counter_ns() - began)
    return shares, differs


def welch(one: list[int], other: list[int]) -> float:
    """Give Welch's t of two samples."""
    spread = statistics.variance(one) / len(one) + statistics.variance(other) / len(other)
    return float((statistics.fmean(one) - statistics.fmean(other)) / spread**0.5)


def main() -> int:
    """Measure, and write the keys' part of the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=100_000, help="of each kind (default 100,000)")
    parser.add_argument("--output", type=Path, default=ROOT / "BENCHMARKS.md")
    given = parser.parse_args()
    rows = []
    for sort, (ring, known) in rings().items():
        shares, differs = (sorted(took)[: int(len(took) * KEPT)] for took in tried(ring, known, given.trials))
        t = welch(shares, differs)
        rows.append(
            f"| {sort} | {statistics.fmean(shares):,.0f} | {statistics.fmean(differs):,.0f} | {t:+.1f} | "
            f"{'none' if abs(t) <= T_MAX else 'yes'} |"
        )
        print(rows[-1], flush=True)
    write_part(
        given.output,
        "keys",
        f"""## Wrong keys

Whether the time that a wrong key takes tells anything: {given.trials:,} keys that share all but their last {SHARED_NOT} characters
with one of {KEYS:,} known keys, and as many that share nothing, in turns. `make bench-keys`.

| known keys | shares a beginning: ns | shares nothing: ns | Welch's t | difference (beyond ±{T_MAX}) |
|---|---|---|---|---|
{chr(10).join(rows)}
""",
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
