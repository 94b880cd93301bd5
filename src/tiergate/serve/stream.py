"""A streamed reply on its way to the caller: the one delicate place, where open doors change hands.

    READY ──next──► FLOWING ──end of the answer──► ENDED (doors closed: success)
      │                │ ├────failure of the upstream──► ENDED (doors closed: interrupted)
      └──────leave─────┴─┴────the caller left──────────► ENDED (doors closed: client closed)

Whoever receives it uses it as a context. Closing is synchronous: no cancellation can come between.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import Enum
from types import TracebackType
from typing import Self

import msgspec

from tiergate.core import Chunk, Origin, Usage, UsageSource
from tiergate.metering import Account
from tiergate.serve.begun import Begun
from tiergate.serve.books import CallBooks, CallerLeft, meaning
from tiergate.serve.doors import Doors


class StreamState(Enum):
    """Where a stream stands."""

    READY = "ready"
    FLOWING = "flowing"
    ENDED = "ended"


class StreamEnd(msgspec.Struct, frozen=True, kw_only=True):
    """The account of a complete stream, as its receiver is told it.

    `usage`: None where it is a bound and no count; `cash_nanos`: None while a price is unknown.
    """

    usage: Usage | None
    ttft_ms: float
    latency_ms: float
    cash_nanos: int | None


class LeavableStream(ABC):
    """What all streams have in common for their receiver: a context, which leaves them."""

    def close(self) -> None:
        """Leave, now; does nothing where the stream has ended."""
        self._leave(CallerLeft())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        left = error is None or isinstance(error, GeneratorExit)
        self._leave(CallerLeft() if left else meaning(error))

    def __aiter__(self) -> Self:
        return self

    @abstractmethod
    async def __anext__(self) -> Sequence[Chunk]:
        """Wait for what arrives next."""

    @abstractmethod
    def _leave(self, error: BaseException | None) -> None:
        """Close the books, once; None: the answer is complete."""


class StreamReply(LeavableStream):
    """Iterates over what arrives together; ends normally only when the answer was complete.

    Raises while iterating:
        UpstreamError: the answer broke off; what was given out before is not complete.
    """

    def __init__(self, begun: Begun, books: CallBooks, doors: Doors) -> None:
        self.origin = Origin(call_id=books.call.id, target=begun.target, attempts=begun.n, cache=books.said)
        self._begun = begun
        self._books = books
        self._doors = doors
        self.state = StreamState.READY

    @property
    def cash_nanos(self) -> int | None:
        """The cost of the call as far as it was reported, in nano-dollars; None where it is not known."""
        if self.state is StreamState.ENDED:
            return self._books.cash_nanos()
        return self._books.cash_nanos(self._begun.hold.reported_cash_nanos())

    def end(self) -> StreamEnd:
        """Give the account of a complete answer."""
        books = self._books
        return end_of(books.account, books, cash_nanos=books.cash_nanos())

    async def __anext__(self) -> Sequence[Chunk]:
        if self.state is StreamState.READY:
            self.state = StreamState.FLOWING
            return self._begun.first
        if self.state is StreamState.ENDED:
            raise StopAsyncIteration
        try:
            chunks = await self._begun.exchange.__anext__()
        except StopAsyncIteration:
            self._leave(None)
            raise
        except BaseException as error:
            self._leave(meaning(error))
            raise
        for chunk in chunks:
            self._begun.hold.meter.take(chunk)
        return chunks

    def _leave(self, error: BaseException | None) -> None:
        if self.state is not StreamState.ENDED:
            self.state = StreamState.ENDED
            self._doors.__exit__(None if error is None else type(error), error, None)


def end_of(account: Account | None, books: CallBooks, *, cash_nanos: int | None) -> StreamEnd:
    """Give what whoever has these books is told when its stream is complete."""
    assert account is not None
    assert books.ttft_ms is not None
    return StreamEnd(
        usage=None if account.source is UsageSource.BOUNDED else account.usage,
        ttft_ms=books.ttft_ms,
        latency_ms=books.elapsed_ms,
        cash_nanos=cash_nanos,
    )
