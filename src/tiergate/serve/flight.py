"""A flight: one question on its way upstream, in a task of its own, and what has come back of it so far.

    LOOKING ──answered before──────────────────────► LANDED     nothing is asked: a receipt, or the cache
       │
       └─asks──► OPEN ──first content──► BEGUN ──end──► LANDED     the books say success, the answer is kept
                  ├──every target fails, an old answer──► LANDED     it is given; the receipt is free again
                  │                       │
                  └──────failure──────────┴──────────► FAILED     the receipt is free again
                  └──last reader left─────┴──────────► ABANDONED  at once, or when it has been drained

The flight owns attempts and holds; whoever opened it pays. Its readers come and go and never disturb the
books: the upstream is stopped when the last of them has left.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, Protocol

from tiergate.core import CacheSaid, CallClass, Chunk, Origin, Target
from tiergate.ledger import Fresh, Receipt
from tiergate.metering import Account
from tiergate.serve.asking import Asking
from tiergate.serve.begun import Begun
from tiergate.serve.books import STOPPING, CallBooks, Stopping, meaning
from tiergate.serve.cached import OldGiven, recalled
from tiergate.serve.doors import Doors
from tiergate.serve.kept import KEPT_BYTES_MAX, KeptAnswer, Recalled, write_kept
from tiergate.serve.stream import StreamReply

Wish = tuple[int | None, int | None, int | None]
"""How old an answer may be that is there already."""
Scope = tuple[str, str, bytes] | tuple[bytes, tuple[Target, ...], Wish, bool, CallClass]
"""What a flight is known by: the scope of its receipt, or the key of its answer and who may join."""
_AHEAD_BYTES_MAX: Final = 256 * 1024
"""So far may the upstream be ahead of the slowest reader, where the answer is too long to be kept."""


class Place(Protocol):
    """How far a reader has come: the number of the piece that it takes next, and the bytes before it."""

    at: int
    taken_bytes: int


class Ask(Protocol):
    """Asks the upstream, with every door that it opens left open in `doors`.

    `asking`: with what the cache says after it was asked everywhere.
    """

    async def __call__(
        self,
        asking: Asking,
        doors: Doors,
        *,
        receipt: Receipt | None,
        resent_of: str | None,
        on_books: Callable[[CallBooks], None],
    ) -> Begun:
        """Return when the first content is here; without a stream, when the whole reply is.

        `on_books` is given the call's books as soon as they are open.
        """
        ...


class Keep(Protocol):
    """Keeps a complete answer for whoever asks the same; gives what its caller is told of that."""

    async def __call__(
        self, asking: Asking, chunks: Iterable[Chunk], *, target: Target, account: Account
    ) -> CacheSaid:
        """Keep it, or say why not."""
        ...


class Flight:
    """One question; everything that is read of it waits here until its readers have taken it."""

    def __init__(
        self,
        asking: Asking,
        receipt: Receipt | None,
        *,
        scope: Scope | None,
        recall: Callable[[], Awaitable[tuple[Asking, Fresh | Recalled]]],
        keep: Keep,
        close: Callable[["Flight"], None],
    ) -> None:
        self._asking = asking
        self._recall = recall
        self._drain_s = asking.resolved.drain_s
        self._keep = keep
        self._is_cached = asking.look.key is not None
        self._close = close
        """Lets nobody board any more; may be called twice."""
        self.call = asking.call
        self.receipt = receipt
        self.scope = scope
        """What it is known by; None: nobody can join it."""
        self.task: asyncio.Task[None]
        self.readers: list[Place] = []
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._log: dict[int, Sequence[Chunk]] = {}
        """Pieces by their number; those that all readers have taken and nobody can ask for again are gone."""
        self._pieces = 0
        self._dropped = 0
        self._bytes = 0
        self._kept_bytes_max = 0 if receipt is None and not self._is_cached else KEPT_BYTES_MAX
        self._draining: asyncio.TimerHandle | None = None
        self.keeps = True
        """Whether it may be kept for its receipt; what was purged meanwhile the cache knows by itself."""
        self.answered: Recalled | None = None
        """The answer was there before; nothing was asked, or in vain."""
        self.said: CacheSaid | None = asking.look.said
        """What whoever pays is told of the cache."""
        self.resent_of: str | None = None
        self.origin: Origin | None = None
        """Where the answer comes from; None: there is none yet."""
        self.books: CallBooks | None = None
        """Of the call that pays, once it asks."""
        self.account: Account | None = None
        """Of the answer, when it is complete."""
        self._stream: StreamReply | None = None
        self.error: BaseException | None = None
        self.is_over = False

    @property
    def is_joinable(self) -> bool:
        """Whether the whole answer can still be read from its beginning."""
        return self._bytes <= self._kept_bytes_max

    def start(self, ask: Ask) -> None:
        """Begin."""
        self.task = asyncio.create_task(self._run(ask))

    async def _run(self, ask: Ask) -> None:
        try:
            self._asking, found = await self._recall()
            self.said = self._asking.look.said
            if isinstance(found, Recalled):
                self._replay(found)
            else:
                self.resent_of = found.resent_of
                await self._fly(ask)
        except OldGiven as given:
            self._replay(recalled(given.answer, given.said, streamed=self.call.streamed))
        except BaseException as error:  # noqa: BLE001 - the task's border: whoever reads the answer is told
            self.error = meaning(error)
        finally:
            self.is_over = True
            self._let_go()
            if self._draining is not None:
                self._draining.cancel()
            self._close(self)
            self._tell()

    def _let_go(self) -> None:
        """Hold on to nothing that holds on to this flight: it is large, and the collector comes seldom."""
        self._stream = None
        if self.books is not None:
            self.books.keep = None
        if self.error is not None:
            self.error.__traceback__ = None

    def _replay(self, found: Recalled) -> None:
        self.answered = found
        self.account = found.account
        attempts = 0 if self.books is None else self.books.attempts
        self.origin = Origin(call_id=found.call_id, target=found.target, attempts=attempts)
        self._log, self._pieces = {0: found.chunks}, 1
        if found.said is not None:
            self.said = found.said

    async def _fly(self, ask: Ask) -> None:
        with Doors() as doors:
            begun = await ask(
                self._asking,
                doors,
                receipt=self.receipt,
                resent_of=self.resent_of,
                on_books=self._use_books,
            )
            books = self.books
            assert books is not None
            self.origin = Origin(call_id=self.call.id, target=begun.target, attempts=begun.n)
            if self.call.streamed:
                with StreamReply(begun, books, doors.hand_over()) as self._stream:
                    self._tell()
                    async for chunks in self._stream:
                        self._add(chunks)
                        await self._pace()
            else:
                self._add(begun.first)
        self.account = books.account
        await self._keep_for_all()

    async def _keep_for_all(self) -> None:
        """Keep the answer for whoever asks the same; what is too long for that is gone in part."""
        if self._is_cached and self.is_joinable:
            assert self.origin is not None and self.account is not None
            chunks = [chunk for piece in self._log.values() for chunk in piece]
            self.said = await self._keep(
                self._asking, chunks, target=self.origin.target, account=self.account
            )

    def _use_books(self, books: CallBooks) -> None:
        self.books = books
        books.keep = self._kept

    def _kept(self) -> bytes | None:
        """Give the answer as it is kept; asked for when it is complete and its account is known."""
        if not (self.keeps and self.is_joinable):
            return None
        assert self.books is not None
        assert self.books.account is not None
        assert self.origin is not None
        return write_kept(
            KeptAnswer(
                target=self.origin.target,
                usage=self.books.account.usage,
                source=self.books.account.source,
                cash_nanos=self.books.cash_nanos(),
                chunks=tuple(chunk for chunks in self._log.values() for chunk in chunks),
            )
        )

    # The log.

    def _add(self, chunks: Sequence[Chunk]) -> None:
        self._log[self._pieces] = chunks
        self._pieces += 1
        self._bytes += size_of(chunks)
        self._drop()
        self._tell()

    async def _pace(self) -> None:
        """Wait while the slowest reader is too far behind, where the log does not take everything anyway."""
        while not self.is_joinable and self.readers and self._behind() > _AHEAD_BYTES_MAX:
            self._room.clear()
            await self._room.wait()

    def _behind(self) -> int:
        return self._bytes - min(reader.taken_bytes for reader in self.readers)

    def _drop(self) -> None:
        if self.is_joinable:
            return
        taken = min((reader.at for reader in self.readers), default=self._pieces)
        for number in range(self._dropped, taken):
            del self._log[number]
        self._dropped = taken

    def piece(self, at: int) -> Sequence[Chunk] | None:
        """Give a piece of the answer by its number; None: it has not come yet, or there is none."""
        return self._log.get(at)

    def took(self) -> None:
        """Take note that a reader has gone on."""
        self._drop()
        self._room.set()

    async def news(self) -> None:
        """Wait until there is more of the answer, or its end."""
        await self._news.wait()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def cash_nanos(self) -> int | None:
        """What the call costs, as far as is known."""
        if self._stream is not None and not self.is_over:
            return self._stream.cash_nanos
        return None if self.books is None else self.books.cash_nanos()

    # Readers.

    def enter(self, reader: Place) -> None:
        """Let a reader on board."""
        self.readers.append(reader)
        if self._draining is not None:
            self._draining.cancel()
            self._draining = None
            if self.books is not None:
                self.books.is_deserted = False

    def leave(self, reader: Place, error: BaseException | None) -> None:
        """Let a reader go; with the last one the flight ends, at once or when it has been drained."""
        self.readers.remove(reader)
        self.took()
        if self.readers or self.is_over:
            return
        books, is_stopping = self.books, isinstance(error, Stopping)
        target = None if books is None else books.target
        # What nobody has been asked yet is asked for nobody.
        is_asked = books is not None and books.is_asking and not is_stopping
        drain_s = self._drain_s(target.provider) if is_asked and target is not None else 0.0
        if drain_s > 0 and books is not None:
            books.is_deserted = True
            self._draining = asyncio.get_running_loop().call_later(drain_s, self._abandon)
        else:
            self._abandon(*((STOPPING,) if is_stopping else ()))

    def _abandon(self, *message: str) -> None:
        self._close(self)
        self.task.cancel(*message)


def size_of(chunks: Sequence[Chunk]) -> int:
    """Give the bytes of a piece."""
    return sum(len(chunk.data) for chunk in chunks)
