"""What the mock was asked, and how each answer ended. Credentials are shown by their last four characters."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

_KEPT: Final = 10_000
_SECRET_HEADERS: Final = frozenset(
    {"authorization", "proxy-authorization", "x-api-key", "api-key", "cookie", "x-goog-api-key"}
)


class Ended(StrEnum):
    """How an answer ended, or that it did not yet."""

    IN_FLIGHT = "in_flight"
    COMPLETED = "completed"
    """All of it was sent."""
    BROKEN = "broken"
    """The script broke it."""
    ABORTED = "aborted"
    """The client left before its end."""


@dataclass(slots=True, kw_only=True)
class LogEntry:
    """One request. It is filled in when its answer ends, so it is no frozen value."""

    number: int
    at_s: float
    """When it was read: seconds since 1970."""
    started: float
    """The same on the event loop's clock."""
    path: str
    raw_headers: Mapping[str, str]
    body_bytes: int
    connection: int
    model: str | None = None
    streamed: bool = False
    prompt_tokens: int = 0
    status: int | None = None
    """None while no status line was sent."""
    ended: Ended = Ended.IN_FLIGHT
    tokens: int = 0
    """Output tokens that were generated until the end, sent or not."""
    elapsed_ms: float | None = None

    @property
    def headers(self) -> dict[str, str]:
        """What the client sent, names in lower case, credentials masked."""
        return {name: masked(name, value) for name, value in self.raw_headers.items()}

    def as_json(self) -> dict[str, Any]:
        """Give the entry as `GET /mock/log` shows it."""
        return {
            "number": self.number,
            "at_s": round(self.at_s, 6),
            "path": self.path,
            "model": self.model,
            "streamed": self.streamed,
            "headers": self.headers,
            "body_bytes": self.body_bytes,
            "connection": self.connection,
            "prompt_tokens": self.prompt_tokens,
            "status": self.status,
            "ended": self.ended.value,
            "tokens": self.tokens,
            "elapsed_ms": None if self.elapsed_ms is None else round(self.elapsed_ms, 3),
        }


def masked(name: str, value: str) -> str:
    """Hide all of a credential but its last four characters, and all of one that is short."""
    if name not in _SECRET_HEADERS:
        return value
    scheme, space, secret = value.rpartition(" ")
    return scheme + space + "***" + (secret[-4:] if len(secret) >= 8 else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class MockStatistics:
    """Counts since the start. A request is counted when it has been read."""

    requests: int
    in_flight: int
    completed: int
    broken: int
    aborted: int
    errors: int
    """Answered with a status of 300 or more; counted among the completed, too."""
    prompt_tokens: int
    output_tokens: int
    """Generated, also for answers that broke off."""


class RequestLog:
    """Keeps the last 10,000 entries, and counts all."""

    def __init__(self) -> None:
        self._entries: deque[LogEntry] = deque(maxlen=_KEPT)
        self._ended = dict.fromkeys(Ended, 0)
        self._errors = 0
        self._prompt_tokens = 0
        self._output_tokens = 0

    def open(self, entry: LogEntry) -> None:
        """Take in a request."""
        self._entries.append(entry)
        self._ended[Ended.IN_FLIGHT] += 1
        self._prompt_tokens += entry.prompt_tokens

    def close(self, entry: LogEntry, how: Ended, *, tokens: int, now: float) -> None:
        """Note how its answer ended; `now` on the event loop's clock."""
        assert entry.ended is Ended.IN_FLIGHT and how is not Ended.IN_FLIGHT
        entry.ended = how
        entry.tokens = tokens
        entry.elapsed_ms = (now - entry.started) * 1_000
        self._ended[Ended.IN_FLIGHT] -= 1
        self._ended[how] += 1
        self._output_tokens += tokens
        if entry.status is not None and entry.status >= 300:
            self._errors += 1

    def entries(self) -> list[LogEntry]:
        """Give the entries, oldest first."""
        return list(self._entries)

    def statistics(self) -> MockStatistics:
        """Count."""
        return MockStatistics(
            requests=sum(self._ended.values()),
            in_flight=self._ended[Ended.IN_FLIGHT],
            completed=self._ended[Ended.COMPLETED],
            broken=self._ended[Ended.BROKEN],
            aborted=self._ended[Ended.ABORTED],
            errors=self._errors,
            prompt_tokens=self._prompt_tokens,
            output_tokens=self._output_tokens,
        )
