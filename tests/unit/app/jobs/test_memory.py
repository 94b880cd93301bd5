"""Inputs that are larger than memory: what is held of them."""

import io
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, BinaryIO

import pytest

from tiergate.app.jobs.inputs import open_input
from tiergate.app.jobs.rows import InputRow
from tiergate.app.jobs.wishes import Wish
from tiergate.core import CannotStart


class Endless(io.RawIOBase):
    """A stream that gives one block again and again, up to a size."""

    def __init__(self, first: bytes, block: bytes, size: int) -> None:
        self._first = first
        self._block = block
        self._left = size

    def read(self, size: int = -1) -> bytes:
        """The first bytes, then whole blocks, each in memory of its own."""
        data, self._first = self._first or bytes(bytearray(self._block)), b""
        self._left -= len(data)
        return data if self._left > 0 else b""


def peak_of(stream: Iterator[InputRow]) -> tuple[int, int]:
    """How many rows there are up to the end or an error, and the most bytes that reading them took."""
    count = 0
    tracemalloc.start()
    try:
        with suppress(CannotStart):
            for _ in stream:
                count += 1
        return count, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


LINE = b'{"prompt":"%s"}' % (b"x" * 500)


@pytest.mark.parametrize(
    ("first", "block", "wish"),
    [
        (b"", (LINE + b"\n") * 100, {}),
        (b"[", (LINE + b",\n") * 100, {}),
        (b"a,b\n", (b'"' + b"x" * 500 + b'\n",y\n') * 100, {"prompt": "{a}"}),
    ],
)
def test_memory_does_not_grow_with_the_number_of_rows(
    first: bytes, block: bytes, wish: dict[str, Any]
) -> None:
    """Eight megabytes of rows take less than one."""
    stream: BinaryIO = Endless(first, block, 8_000_000)  # type: ignore[assignment]  # as much of it as is read
    with open_input(stream, wish=Wish(model="m", **wish)) as rows:
        count, peak = peak_of(rows)
    assert count > 12_500
    assert peak < 1_000_000


@pytest.mark.parametrize(
    ("first", "wish"),
    [
        (b'["a","', {}),
        (b'{"prompt":"a"}\n{"prompt":"', {}),
        (b"a\nb\n", {"prompt": "{a}"}),
        (b'a\nb\n"', {"prompt": "{a}"}),
    ],
)
def test_what_is_too_long_is_never_held(first: bytes, wish: dict[str, Any]) -> None:
    """Sixteen megabytes without an end take no more than the limit and what is read at once."""
    block = b"x" * 60_000 + (b"\n" if first.endswith(b'\n"') else b"")
    stream: BinaryIO = Endless(first, block, 16_000_000)  # type: ignore[assignment]  # as much of it as is read
    with open_input(stream, wish=Wish(model="m", line_bytes_max=100_000, **wish)) as rows:
        assert next(rows).problem is None
        _, peak = peak_of(rows)
    assert peak < 1_000_000
