"""Which batch an input belongs to: the one whose lines are these, or the first of these.

The lines themselves say it: the model, the prompts and all parameters stand in them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any, Final

from tiergate.app.jobs.inputs import open_input
from tiergate.app.jobs.wishes import Wish
from tiergate.wire import loads

SAMPLE: Final = 300
_SAMPLE_BYTES: Final = 8 << 20
_TOLD_MAX: Final = 5
PART_BYTES: Final = 8 << 20

Heard = Callable[[int], None]
"""Hears how many rows were read."""


@dataclass(slots=True, kw_only=True)
class Scanned:
    """What is known of an input when all of it was read once."""

    rows: int = 0
    bad: int = 0
    told: list[str] = field(default_factory=list)
    """What is wrong with the first bad rows."""
    sample: list[Mapping[str, Any]] = field(default_factory=list)
    """Bodies of some rows, each as likely as any other."""
    sha256: str = ""
    batch: Mapping[str, Any] | None = None
    """The batch that it belongs to, and
    known: how many of its rows that one has already."""
    known: int = 0


def scan(source: Path, wish: Wish, batches: Sequence[Mapping[str, Any]], heard: Heard) -> Scanned:
    """Read an input once, and look which of some batches it belongs to: the one that has most of it.

    Raises:
        CannotStart: nothing can be made of it.
    """
    by_lines: dict[int, list[Mapping[str, Any]]] = {}
    for batch in batches:
        by_lines.setdefault(batch["tiergate"]["lines"], []).append(batch)
    found, digest, random = Scanned(), sha256(), Random(0)  # noqa: S311 - a sample, nothing to guess
    with open_input(source, wish=wish) as rows:
        for row in rows:
            found.rows += 1
            digest.update(row.line + b"\n")
            if row.problem is not None:
                found.bad += 1
                if len(found.told) < _TOLD_MAX:
                    found.told.append(row.problem)
            elif len(row.line) * SAMPLE <= _SAMPLE_BYTES or len(found.sample) < _TOLD_MAX:
                _sample(found, row.line, random)
            for batch in by_lines.get(found.rows, ()):
                if batch["tiergate"]["sha256"] == digest.hexdigest():
                    found.batch, found.known = batch, found.rows
            heard(found.rows)
    found.sha256 = digest.hexdigest()
    return found


def parts(source: Path, wish: Wish, *, after: int, heard: Heard) -> Iterator[bytes]:
    """Give the lines of an input in parts to be sent, those of rows after a number."""
    waiting = bytearray()
    with open_input(source, wish=wish) as rows:
        for row in rows:
            if row.n > after:
                waiting += row.line + b"\n"
            if len(waiting) >= PART_BYTES:
                yield bytes(waiting)
                waiting.clear()
            heard(row.n)
    if waiting:
        yield bytes(waiting)


def _sample(found: Scanned, line: bytes, random: Random) -> None:
    """Take a row into the sample with the likelihood of all others (reservoir sampling, Vitter's R)."""
    place = len(found.sample) if len(found.sample) < SAMPLE else random.randrange(found.rows)
    if place >= SAMPLE:
        return
    body = loads(line)["body"]
    if place == len(found.sample):
        found.sample.append(body)
    else:
        found.sample[place] = body
