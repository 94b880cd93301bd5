"""A reader of a flight: one caller's way through the answer, and its own entry where somebody else pays."""

import asyncio
from collections.abc import Callable, Sequence
from types import TracebackType

from msgspec import structs

from tiergate.core import (
    CacheSaid,
    Cause,
    Chunk,
    Clock,
    DeadlineExceeded,
    Delivery,
    Forwarded,
    Origin,
    ReceiptUse,
    Reply,
    TiergateError,
    UpstreamProtocolError,
    UpstreamRejected,
)
from tiergate.ledger import CallOpened, Shared
from tiergate.serve.asking import Asking, looked_of
from tiergate.serve.books import CallBooks, CallerLeft, Stopping, meaning
from tiergate.serve.doors import Doors
from tiergate.serve.flight import Flight, size_of
from tiergate.serve.given import GivenStream
from tiergate.serve.stream import LeavableStream, StreamEnd, StreamReply, end_of
from tiergate.wire import fold, read_reply, write_whole


class Reader:
    """One caller's way through the answer; a context, which leaves the flight.

    `pays`: whether it opened the flight: its entry is then the flight's own, unless nothing had to be asked.
    """

    def __init__(
        self,
        flight: Flight,
        asking: Asking,
        *,
        pays: bool,
        books: Callable[[CallOpened], CallBooks],
        clock: Clock,
    ) -> None:
        self._flight = flight
        self._books_of = books
        self._clock = clock
        self._asking = asking
        self.pays = pays
        # Whoever pays has the flight's own deadline.
        self._deadline = None if pays else asking.resolved.deadline
        self._books: CallBooks | None = None
        self._is_on_board = False
        self._reply: Chunk | None = None
        """All of it, where it is not streamed."""
        self.taken_bytes = 0
        self.at = 0
        """The number of the piece that it takes next."""

    def __enter__(self) -> "Reader":
        self._flight.enter(self)
        self._is_on_board = True
        if not self.pays:
            self._open_books()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        error = meaning(error)
        if self._is_on_board:
            self._is_on_board = False
            self._flight.leave(self, error)
        books, self._books = self._books, None
        if books is not None:
            said = self._said()
            books.shared = self._shared() if error is None else None
            if said is not None:
                books.looked = looked_of(said, self._asking.look)
            books.__exit__(None if error is None else type(error), error, None)

    def _open_books(self) -> None:
        opened = self._asking.opened(is_given=True)
        if self._is_replay():
            opened = structs.replace(opened, call=structs.replace(opened.call, cause=Cause.REPLAY))
        self._books = self._books_of(opened).__enter__()

    def _is_replay(self) -> bool:
        answered = self._flight.answered
        return answered is not None and answered.said is None

    def _shared(self) -> Shared:
        account, answered = self._flight.account, self._flight.answered
        assert account is not None
        return Shared(
            use=self._use(),
            of=self._flight.call.id if answered is None else answered.call_id,
            usage=account.usage,
            cash_nanos=account.cash_nanos,
        )

    def _said(self) -> CacheSaid | None:
        """What this reader is told of the cache; None where its receipt answers."""
        flight = self._flight
        if flight.answered is not None:
            return flight.answered.said
        if self.pays:
            return flight.said
        # A receipt's flight is joined whatever the cache says of the question.
        return CacheSaid(forwarded=Forwarded.MISS, collapsed=True) if flight.receipt is None else None

    def step_off(self) -> None:
        """Leave before there was anything, without an end of the call: it boards another flight."""
        self._is_on_board = False
        self._books = None
        self._flight.leave(self, None)

    def may_ask_itself(self, error: TiergateError) -> bool:
        """Tell whether what kept the flight from an answer says nothing of this call."""
        is_told_all = isinstance(error, UpstreamRejected | Stopping)
        return not self.pays and self._flight.receipt is None and not is_told_all

    def _use(self) -> ReceiptUse | None:
        if self._flight.receipt is None:
            return None
        if self._is_replay():
            return ReceiptUse.REPLAYED
        if self._flight.answered is not None:
            return None
        if not self.pays:
            return ReceiptUse.JOINED
        return ReceiptUse.NEW if self._flight.resent_of is None else ReceiptUse.RESENT

    async def begin(self) -> None:
        """Wait for the first content; of an answer that is not streamed, for all of it.

        Raises:
            TiergateError: there will be none.
            DeadlineExceeded: not within this reader's own time.
        """
        if self._asking.call.streamed:
            while self._flight.piece(self.at) is None:
                await self._more()
        else:
            self._reply = self._whole([chunk async for chunks in self for chunk in chunks])
        if self.pays and self._flight.answered is not None and self._flight.books is None:
            self.pays = False
            self._open_books()
        if self._books is not None:
            self._books.mark_first_event()

    async def __anext__(self) -> Sequence[Chunk]:
        while (chunks := self._flight.piece(self.at)) is None:
            if self._flight.is_over and self._flight.error is None:
                raise StopAsyncIteration
            await self._more()
        self.at += 1
        self.taken_bytes += size_of(chunks)
        self._flight.took()
        return chunks

    def whole(self) -> Reply:
        """Give the whole answer, when it has begun."""
        account, whole = self._flight.account, self._reply
        assert account is not None
        assert whole is not None
        return Reply(
            origin=self.origin,
            data=whole.data,
            text=whole.text,
            finish=whole.finish,
            usage=account.usage,
            cash_nanos=self.cash_nanos,
        )

    def _whole(self, chunks: Sequence[Chunk]) -> Chunk:
        """Give the answer as one chunk, also where whoever pays for it wanted a stream."""
        flight = self._flight
        if not flight.call.streamed:
            (whole,) = chunks
            return whole
        folded = fold([chunk.data for chunk in chunks])
        if folded is None:
            assert flight.origin is not None
            raise UpstreamProtocolError(
                "The answer came in pieces that make no whole.",
                target=flight.origin.target.name,
                delivery=Delivery.CONFIRMED,
            )
        return read_reply(write_whole(folded))

    def __aiter__(self) -> "Reader":
        return self

    async def _more(self) -> None:
        flight = self._flight
        if flight.error is not None:
            # Nobody is left on board of a flight that was abandoned.
            if isinstance(flight.error, CallerLeft):
                raise Stopping
            # Each reader begins its own trace, or the frames of all of them would hang on the error.
            raise flight.error.with_traceback(None)
        if flight.is_over:
            return
        if self._deadline is None:
            await flight.news()
            return
        try:
            async with asyncio.timeout(self._deadline - self._clock.monotonic()):
                await flight.news()
        except TimeoutError as error:
            raise DeadlineExceeded(
                "The time for this call was over before the answer that it was waiting for."
            ) from error

    @property
    def origin(self) -> Origin:
        """Where the answer comes from, as this reader is told it."""
        flight = self._flight
        assert flight.origin is not None
        answered = flight.answered
        age_ns = 0 if answered is None else self._asking.call.received_ns - answered.created_ns
        return Origin(
            call_id=self._asking.call.id,
            target=flight.origin.target,
            attempts=flight.origin.attempts if self.pays else 0,
            receipt=self._use(),
            cache=self._said(),
            age_s=None if answered is None else max(0, age_ns // 1_000_000_000),
        )

    @property
    def cash_nanos(self) -> int | None:
        """What the answer costs this reader: nothing, where somebody else pays."""
        return self._flight.cash_nanos() if self.pays else 0

    def end(self) -> StreamEnd:
        """Give the account of a complete answer, as this reader is told it."""
        books = self._books or self._flight.books
        assert books is not None
        return end_of(self._flight.account, books, cash_nanos=self.cash_nanos)


class SharedStream(LeavableStream):
    """A stream read from a flight; the same to its receiver as a `StreamReply`."""

    def __init__(self, reader: Reader, doors: Doors) -> None:
        self._reader = reader
        self._doors = doors
        self._is_open = True
        self._end: StreamEnd | None = None
        self.origin = reader.origin

    @property
    def cash_nanos(self) -> int | None:
        """The cost of the call as far as it was reported, in nano-dollars; None where it is not known."""
        return self._reader.cash_nanos

    def end(self) -> StreamEnd:
        """Give the account of a complete answer."""
        assert self._end is not None, "the stream has not ended"
        return self._end

    async def __anext__(self) -> Sequence[Chunk]:
        if not self._is_open:
            raise StopAsyncIteration
        try:
            return await self._reader.__anext__()
        except StopAsyncIteration:
            self._end = self._reader.end()
            self._leave(None)
            raise
        except BaseException as error:
            self._leave(meaning(error))
            raise

    def _leave(self, error: BaseException | None) -> None:
        if self._is_open:
            self._is_open = False
            self._doors.__exit__(None if error is None else type(error), error, None)


Stream = StreamReply | SharedStream | GivenStream
"""A reply whose first content is there, and whose end is not."""
