"""A streamed chat completion read to its end, and the judgement whether that was the end.

A body that ends cleanly is not yet a complete answer: every official client takes it for one, so the
gateway itself must know. Complete means: the terminal marker was seen, or every choice that was asked for
has its finish reason. The marker alone is missing on real servers, which is accepted with a warning.
"""

from typing import Final

from tiergate.core import (
    Chunk,
    UpstreamError,
    UpstreamFault,
    UpstreamInterrupted,
    UpstreamProtocolError,
    UpstreamThrottled,
)
from tiergate.wire.chat import ErrorInStream, read_chunk
from tiergate.wire.errors import ErrorBody
from tiergate.wire.jsontext import dumps, loads
from tiergate.wire.sse import EVENT_BYTES_MAX, ServerSentEvent, SseParser

DONE: Final = b"[DONE]"


class ChatStream:
    """Folds the bytes of one streamed reply into chunks; after `done` or a `failure` it takes no more.

    `choices` is the number that was asked for (`n`).
    """

    def __init__(self, *, choices: int = 1, event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        self._parser = SseParser(event_bytes_max=event_bytes_max)
        self._choices = choices
        self._ended: set[int] = set()
        self.done = False
        """The terminal marker was seen."""
        self.failure: UpstreamError | None = None
        """What broke the stream; the chunks before it were given out."""
        self.warnings: tuple[str, ...] = ()

    def feed(self, data: bytes) -> list[Chunk]:
        """Take the next bytes and give the chunks that they complete. Never raises: see `failure`."""
        chunks: list[Chunk] = []
        if self.done or self.failure is not None:
            return chunks
        try:
            for event in self._parser.feed(data):
                if event.data == DONE:
                    self.done = True
                    break
                if not event.data:
                    continue
                chunks.append(self._read(event))
        except ErrorInStream as error:
            self.failure = _reported(error.error)
            self.failure.__cause__ = error
        except UpstreamProtocolError as error:
            self.failure = error
        return chunks

    def end(self) -> None:
        """Judge the end of the body.

        Raises:
            UpstreamInterrupted: the answer is not complete.
        """
        if self.done:
            return
        if len(self._ended) < self._choices:
            raise UpstreamInterrupted("The upstream's stream ended before its answer was complete.")
        self.warnings = (*self.warnings, "no_done_marker")

    def _read(self, event: ServerSentEvent) -> Chunk:
        data = event.data
        if b"\n" in data:
            data = _on_one_line(data)
        if event.name == b"error":
            raise ErrorInStream(_error_event(data))
        return read_chunk(data, self._ended)


def _on_one_line(data: bytes) -> bytes:
    try:
        return dumps(loads(data))
    except ValueError as error:
        raise UpstreamProtocolError("The upstream sent an event that is not JSON.") from error


def _error_event(data: bytes) -> ErrorBody:
    try:
        read_chunk(data)
    except ErrorInStream as found:
        return found.error
    except UpstreamProtocolError:
        pass
    return ErrorBody(None)


def _reported(error: ErrorBody) -> UpstreamError:
    # The provider's own sentence is not passed on here: only a rejected request needs it to be mended.
    words = {error.code, error.type}
    if words & {"429", "rate_limit_exceeded", "rate_limit_error", "insufficient_quota"}:
        return UpstreamThrottled(
            "The upstream throttled the call inside its stream.", quota="insufficient_quota" in words
        )
    return UpstreamFault("The upstream reported an error inside its stream.")
