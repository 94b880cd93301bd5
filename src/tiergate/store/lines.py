"""Lines of jobs on their way out of a store: which are claimed, and their texts."""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from tiergate.batch import Claimed

READ_AT_ONCE: Final = 1 << 20
NOWHERE: Final = (-(1 << 62), 0)
"""Before all lines: a rank and a number."""


class Due(NamedTuple):
    """A line that waits: a row of the question `due`."""

    n: int
    source: int
    offset: int
    bytes: int
    tries: int
    interrupted: int
    rank: int


def within(rows: Iterable[Sequence[int]], bytes_max: int) -> list[Due]:
    """Give the first lines, of no more text than `bytes_max`, but one at least."""
    found: list[Due] = []
    taken = 0
    for row in rows:
        line = Due(*row)
        taken += line.bytes
        if found and taken > bytes_max:
            break
        found.append(line)
    return found


def claimed(lines: Sequence[Due], read: Callable[[int, int, int], bytes]) -> list[Claimed]:
    """Give lines with their texts. `read` gives so many bytes from an offset of a source on."""
    texts = _texts(lines, read)
    return [
        Claimed(line.n, text, line.tries, line.interrupted) for line, text in zip(lines, texts, strict=True)
    ]


def passed(lines: Sequence[Due]) -> tuple[int, int]:
    """Give where a pass is after these lines: after none it is over, and the next begins at the beginning."""
    return (lines[-1].rank, lines[-1].n) if lines else NOWHERE


def _texts(lines: Sequence[Due], read: Callable[[int, int, int], bytes]) -> list[bytes]:
    """Read lines; those that stand one behind the other, as most do, in one piece."""
    if not lines:
        return []
    source, begins = lines[0].source, lines[0].offset
    span = max(line.offset + line.bytes for line in lines) - begins
    is_run = all(line.source == source and line.offset >= begins for line in lines)
    if is_run and span <= READ_AT_ONCE + sum(line.bytes for line in lines):
        piece = read(source, begins, span)
        return [piece[line.offset - begins : line.offset - begins + line.bytes] for line in lines]
    return [read(line.source, line.offset, line.bytes) for line in lines]
