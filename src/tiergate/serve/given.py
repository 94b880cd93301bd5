"""A stream of an answer that was there before; the same to its receiver as a `StreamReply`."""

from collections.abc import Sequence

from tiergate.core import Chunk, Origin
from tiergate.metering import Account
from tiergate.serve.books import CallBooks
from tiergate.serve.stream import LeavableStream, StreamEnd, end_of


class GivenStream(LeavableStream):
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
