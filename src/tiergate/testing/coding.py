"""What is done to the bytes of a body on their way out: compressed, cut into single bytes, slowed down."""

import zlib
from collections.abc import Iterator, Sequence
from gzip import compress
from typing import Any, Final

from tiergate.testing.bulk import PIECE_BYTES
from tiergate.testing.steps import End, Headers, How, Pause, Step, Torn

_WINDOW: Final = {"gzip": 31, "deflate": 15}
"""What zlib calls the two formats."""
_EMPTY_MEMBER: Final = compress(b"", mtime=0)


def encoded(steps: Iterator[Step], encodings: Sequence[str], *, empty_members: int) -> Iterator[Step]:
    """Compress the body by these encodings, one after the other, behind so many empty members of gzip.

    What belongs to one step can be read when that step has left, as a compressed stream must be.
    """
    coders = [zlib.compressobj(9, wbits=_WINDOW[name]) for name in encodings]
    in_body = False
    for step in steps:
        match step:
            case Headers():
                in_body = True
                yield step
                yield from _empty_members(empty_members)
            case bytes() if in_body:
                # Bulk is not flushed: blocks that end early would compress it less well.
                flush = None if len(step) >= PIECE_BYTES else zlib.Z_SYNC_FLUSH
                if data := _through(coders, step, flush):
                    yield data
            case Torn():
                data = _through(coders, step.data, zlib.Z_SYNC_FLUSH)
                yield Torn(data, max(1, len(data) + step.claimed - len(step.data)), step.closed)
            case End(how=How.KEEP | How.CLOSE) if in_body:
                yield _through(coders, b"", zlib.Z_FINISH)
                yield step
            case _:
                yield step


def sliced(steps: Iterator[Step], *, pause_s: float) -> Iterator[Step]:
    """Give each byte of the body as a step of its own, with a pause after it."""
    in_body = False
    for step in steps:
        in_body = in_body or isinstance(step, Headers)
        if not (in_body and isinstance(step, bytes)):
            yield step
            continue
        for place in range(len(step)):
            yield step[place : place + 1]
            if pause_s:
                yield Pause(pause_s)


def _through(coders: Sequence[Any], data: bytes, flush: int | None) -> bytes:
    for coder in coders:
        data = coder.compress(data)
        if flush is not None:
            data += coder.flush(flush)
    return data


def _empty_members(count: int) -> Iterator[bytes]:
    together = PIECE_BYTES // len(_EMPTY_MEMBER)
    for done in range(0, count, together):
        yield _EMPTY_MEMBER * min(together, count - done)
