"""The records of batches as values: files, jobs, and what becomes of a job's lines.

Times are nanoseconds since 1970 (`_ns`), amounts nano-dollars (`_nanos`). No record holds text.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NamedTuple

import msgspec

from tiergate.core import DataClass
from tiergate.ledger import LineState


class StoredFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that a tenant uploaded, or will have uploaded: `bytes` is None until all of it is there."""

    id: str
    tenant: str
    name: str
    purpose: str
    created_ns: int
    bytes: int | None = None


class Halt(StrEnum):
    """How a job stands still."""

    PARKED = "parked"
    """It goes on by itself."""
    STOPPED = "stopped"
    """Somebody has to do something first."""


class Pause(msgspec.Struct, frozen=True, kw_only=True):
    """Why a job stands still: a word for programs, a sentence for people, and until when, if it is known."""

    halt: Halt
    word: str
    message: str
    until_ns: int | None = None


class JobState(StrEnum):
    """What a job is doing, as its times say it."""

    READING = "reading"
    RUNNING = "running"
    PARKED = "parked"
    STOPPED = "stopped"
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong with an input, and in which of its lines; None: in all of it."""

    code: str
    message: str
    line: int | None = None


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A batch. What is counted is of all its runs together."""

    no: int = 0
    """Names it inside of the store."""
    id: str
    tenant: str
    key: str
    tag: str | None = None
    endpoint: str
    """The path that its lines ask for, such as `/v1/chat/completions`."""
    model: str | None = None
    data_class: DataClass = DataClass.ANY
    input_file: str
    sha256: bytes | None = None
    """Of its lines, each with a line feed at its end."""
    lines: int = 0
    budget_nanos: int | None = None
    concurrency: int
    is_strict: bool = False
    by_prefix: bool = False
    window_s: int
    metadata: Mapping[str, str] = {}
    created_ns: int
    deadline_ns: int
    read_ns: int | None = None
    cancel_ns: int | None = None
    expired_ns: int | None = None
    failed_ns: int | None = None
    ended_ns: int | None = None
    problems: tuple[Problem, ...] = ()
    pause: Pause | None = None
    worked_ms: int = 0
    done: int = 0
    failed: int = 0
    cancelled: int = 0
    """Lines that the job's own end came before."""
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    cash_nanos: int = 0
    cash_squares: float = 0.0
    """Of what each line that is done has cost, in USD: how far they lie apart."""
    hits: int = 0
    interrupted: int = 0
    """Times that a line was with an owner that died: its answer, if there was one, is paid and lost."""

    @property
    def decided(self) -> tuple[Any, ...]:
        """What somebody has decided, not counted."""
        return (
            *(self.lines, self.budget_nanos, self.concurrency, self.deadline_ns, self.pause),
            *(self.read_ns, self.cancel_ns, self.expired_ns, self.failed_ns, self.ended_ns),
        )

    @property
    def is_open(self) -> bool:
        """Whether there is anything left to do."""
        return self.ended_ns is None and self.failed_ns is None

    @property
    def left(self) -> int:
        """How many lines have not come to an end."""
        return self.lines - self.done - self.failed - self.cancelled

    @property
    def state(self) -> JobState:
        """What it is doing."""
        if self.failed_ns is not None:
            return JobState.FAILED
        if self.ended_ns is not None:
            return self._ended()
        if self.cancel_ns is not None or self.expired_ns is not None:
            return JobState.CANCELLING
        if self.read_ns is None:
            return JobState.READING
        if self.pause is None:
            return JobState.RUNNING
        return JobState.PARKED if self.pause.halt is Halt.PARKED else JobState.STOPPED

    def _ended(self) -> JobState:
        if self.cancel_ns is not None:
            return JobState.CANCELLED
        return JobState.COMPLETED if self.expired_ns is None else JobState.EXPIRED


class NewLine(NamedTuple):
    """A line of an input: its number, and where it stands in the file with the number `source`."""

    n: int
    source: int
    offset: int
    bytes: int
    custom_hash: int | None = None
    """Of its `custom_id`; None: it has none."""
    rank: int = 0
    """Lines are worked in the order of this, then of their numbers."""


class Claimed(NamedTuple):
    """A line that somebody has begun to work on, with its text."""

    n: int
    text: bytes
    tries: int = 0
    """Those that failed and may be made again."""
    interrupted: int = 0
    """Times that an owner died while it had it."""


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a line: its state, the output line in bytes, and what it took."""

    n: int
    state: LineState
    output: bytes
    error_code: str | None = None
    call_id: str | None = None
    """The call that answered it, and
    attempt: the number of the attempt that did."""
    attempt: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    cash_nanos: int = 0
    is_hit: bool = False


class Spooled(msgspec.Struct, frozen=True, kw_only=True):
    """An end that is in the spool, and its place there; `output` is left out: it rests there."""

    finished: Finished
    epoch: int
    offset: int
    bytes: int
    end: int
    """Of the whole record."""


@dataclass(slots=True)
class Progress:
    """What a runner is doing now; numbers of its own run."""

    in_flight: int = 0
    limit: int = 0
    why: str = ""
    again: dict[str, int] = field(default_factory=dict)
    """Failures after which a line was to be asked again, by their word."""


class Crew(NamedTuple):
    """The owners that work a job now: how many, which of them this one is, and what they ask."""

    size: int
    place: int | None
    """From 0 on; None: this owner is not among them."""
    asking: int
    """Lines that are asked now, by all of them."""

    def share(self, most: int) -> int:
        """Give this owner's share of something that there is so much of."""
        if self.place is None:
            return 0
        return most // self.size + (self.place < most % self.size)


class Erased(NamedTuple):
    """How much was deleted of a tenant."""

    jobs: int
    files: int


class Output(NamedTuple):
    """A line's output."""

    n: int
    state: LineState
    line: bytes


ENDED: Final = frozenset({LineState.DONE, LineState.FAILED, LineState.CANCELLED})
"""States that a line does not leave by itself."""


def counts_of(ends: Iterable[Finished]) -> dict[str, Any]:
    """Give what ends add to their job."""
    states = dict.fromkeys(ENDED, 0)
    tokens_in = cached = tokens_out = cash = hits = 0
    squares = 0.0
    for end in ends:
        states[end.state] += 1
        tokens_in += end.input_tokens
        cached += end.cached_tokens
        tokens_out += end.output_tokens
        cash += end.cash_nanos
        squares += (end.cash_nanos / 1e9) ** 2
        hits += end.is_hit
    return {
        "done": states[LineState.DONE],
        "failed": states[LineState.FAILED],
        "cancelled": states[LineState.CANCELLED],
        "input_tokens": tokens_in,
        "cached_tokens": cached,
        "output_tokens": tokens_out,
        "cash_nanos": cash,
        "cash_squares": squares,
        "hits": hits,
    }
