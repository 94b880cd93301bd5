"""Reads the input of a job: finds its lines, checks each, and says where it stands. Pure, piece by piece."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final

from tiergate.batch.records import NewLine
from tiergate.wire import BadLine, read_batch_line

LINE_BYTES_MAX: Final = 32 << 20
_PREFIX_CHARS: Final = 2_000
"""Of a prompt's beginning: prompts that share so much are asked one after the other."""
_BLANK: Final = b" \t\r"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A line and where it stands; `text` is None where it is too long to be one."""

    offset: int
    size: int
    text: bytes | None


class LineFinder:
    """Finds lines in the pieces of a file, and remembers no more than one that has not ended.

    Lines of nothing but blanks are none.

    Args:
        line_bytes_max: a longer one is told without its text.
    """

    def __init__(self, *, line_bytes_max: int = LINE_BYTES_MAX) -> None:
        self._line_bytes_max = line_bytes_max
        self._rest = bytearray()
        self._begins = 0
        self._skipped = 0
        """Bytes of a line that is too long."""

    def feed(self, piece: bytes) -> Iterator[Found]:
        """Give the lines that end in the next piece."""
        *ended, rest = piece.split(b"\n")
        for part in ended:
            yield from self._end(part, 1)
        self._keep(rest)

    def end(self) -> Iterator[Found]:
        """Give the last line, where it has no line feed."""
        yield from self._end(b"", 0)

    def _end(self, part: bytes, feed: int) -> Iterator[Found]:
        self._keep(part)
        size = self._skipped + len(self._rest)
        text = None if self._skipped else bytes(self._rest)
        begins, self._begins = self._begins, self._begins + size + feed
        self._rest.clear()
        self._skipped = 0
        if text is None:
            yield Found(offset=begins, size=size, text=None)
        elif text.strip(_BLANK):
            yield Found(offset=begins, size=size, text=text)

    def _keep(self, part: bytes) -> None:
        if self._skipped:
            self._skipped += len(part)
            return
        self._rest += part
        if len(self._rest) > self._line_bytes_max:
            self._skipped, self._rest = len(self._rest), bytearray()


@dataclass(slots=True)
class Checked:
    """What was found in a piece: its lines, and what is wrong with some of them, by their numbers."""

    lines: list[NewLine] = field(default_factory=list)
    bad: dict[int, BadLine] = field(default_factory=dict)
    models: set[str] = field(default_factory=set)
    """Those that are asked for."""


def check_lines(
    found: list[Found], *, first: int, source: int, url: str, model: str | None, by_prefix: bool
) -> Checked:
    """Check lines, which are numbered from `first` on.

    Args:
        found: the lines.
        first: the number of the first one.
        source: of the file that they stand in.
        url: the endpoint of the job.
        model: asked for by those that name none.
        by_prefix: whether those are to be worked together whose prompts begin alike.
    """
    checked = Checked()
    for n, line in enumerate(found, start=first):
        custom_hash, rank = None, 0
        try:
            if line.text is None:
                raise BadLine(f"The line has {line.size} bytes, and at most {LINE_BYTES_MAX} are read.")
            asked = read_batch_line(line.text, url=url, model=model)
        except BadLine as error:
            checked.bad[n] = error
            custom_id = error.custom_id
        else:
            checked.models.add(asked.question.model)
            custom_id = asked.custom_id
            rank = _rank(asked.question.body) if by_prefix else 0
        if custom_id is not None:
            custom_hash = hash_of(custom_id)
        checked.lines.append(NewLine(n, source, line.offset, line.size, custom_hash, rank))
    return checked


def hash_of(text: str) -> int:
    """Give a number of 63 bits for a text; two texts have the same one once in a very long while."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big") >> 1


def _rank(body: Any) -> int:
    """Give a number that prompts have in common which begin alike: instructions first, then a question."""
    beginning: list[str] = []
    left = _PREFIX_CHARS
    for message in body["messages"][:-1] or body["messages"]:
        content = message.get("content")
        text = content if isinstance(content, str) else repr(content)
        beginning.append(f"{message.get('role')}\0{text[:left]}")
        left -= len(text)
        if left <= 0:
            break
    return hash_of("\0".join(beginning))
