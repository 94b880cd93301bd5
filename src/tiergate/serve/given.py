"""A stream of an answer that was there before; the same to its receiver as a `StreamReply`."""

from collections.abc import Sequence
from types import TracebackType

from tiergate.core import Chunk, Origin
from tiergate.metering import Account
from tiergate.serve.books import CallBooks, CallerLeft, meaning
from tiergate.serve.stream import StreamEnd, end_of


class GivenStream:
    """Gives all pieces at once. Its books close when they have been taken, or when whoever asked leaves."""

    cash_nanos = 0

    def __init__(self, books: CallBooks, pieces: Sequence[Chunk], origin: Origin, account: Account) -> None:
        self.origin = origin
        self._books = books
        self._pieces = pieces
        self._account = account
        self._is_open = True

    def end(self) -> StreamEnd:
        """Give the account of a complete answer."""
        return end_of(self._account, self._books, cash_nanos=0)

    def close(self) -> None:
        """Leave, now; does nothing where the stream has ended."""
        self._leave(CallerLeft())

    def __enter__(self) -> "GivenStream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        left = error is None or isinstance(error, GeneratorExit)
        self._leave(CallerLeft() if left else meaning(error))

    def __aiter__(self) -> "GivenStream":
        return self

    async def __anext__(self) -> Sequence[Chunk]:
        pieces, self._pieces = self._pieces, ()
        if pieces:
            return pieces
        self._leave(None)
        raise StopAsyncIteration

    def _leave(self, error: BaseException | None) -> None:
        if self._is_open:
            self._is_open = False
            if error is not None:
                self._books.shared = None
            self._books.__exit__(None if error is None else type(error), error, None)
