"""Chat completions from every server that speaks OpenAI's dialect: one question out, its chunks back."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Final, Self

from tiergate.core import (
    VERSION,
    Allowances,
    Chunk,
    Delivery,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from tiergate.serve import Exchange, Question
from tiergate.upstream import failures, translation
from tiergate.upstream.allowances import read_allowances
from tiergate.upstream.provider import Provider
from tiergate.upstream.replicas import REST_S, Replica, Replicas
from tiergate.upstream.transport import Response, Timing, Transport, TransportStatistics
from tiergate.wire import (
    ChatStream,
    ErrorBody,
    ErrorInStream,
    choices_asked,
    read_error,
    read_reply,
    render_chat,
)

ERROR_BODY_BYTES_MAX: Final = 64 * 1024
ERROR_BODY_S: Final = 2.0
"""How long the words of a refusal are waited for; without them its status alone decides."""
AFTER_DONE_S: Final = 0.1
"""How long the end of a body may take after the terminal marker for its connection to be kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaStatistics:
    """One server now; a resting one could not be connected to and comes last for a while."""

    provider: str
    replica: str
    in_flight: int
    resting: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamStatistics:
    """All servers of all providers, and the transport under them."""

    replicas: tuple[ReplicaStatistics, ...]
    transport: TransportStatistics


class HttpUpstream:
    """Fills the port `serve.Upstream` for a set of providers, over a transport that it then owns."""

    def __init__(self, providers: Mapping[str, Provider], *, transport: Transport) -> None:
        self._transport = transport
        self._providers: dict[str, Replicas] = {}
        self.use(providers)

    def use(self, providers: Mapping[str, Provider]) -> None:
        """Take these providers, by name, from now on.

        Exchanges that run keep what they have. A provider that did not change keeps its counts.
        """
        known = self._providers
        self._providers = {
            name: known[name]
            if name in known and known[name].provider == provider
            else Replicas(provider, user_agent=f"tiergate/{VERSION}")
            for name, provider in providers.items()
        }

    async def send(self, question: Question) -> Exchange:
        """Send the question and wait for the beginning of a good answer; see `serve.Upstream`.

        A server that could not be connected to is passed over for the provider's next one: the target is
        the same and nothing was delivered, so for money and routing this is still one attempt.
        """
        target = question.target
        replicas = self._providers.get(target.provider)
        if replicas is None or replicas.provider.tier is not target.tier:
            # A reload can take a provider away between routing and sending, or make a hosted one of a private
            # one, to which a private-only call that waited for its permit must not go.
            raise UpstreamUnreachable(
                f"Provider {target.provider} is no longer configured as it was.",
                target=target.name,
                delivery=Delivery.NONE,
            )
        provider = replicas.provider
        body = render_chat(
            {**question.body, **question.beside} if question.beside else question.body,
            target.model,
            question.streamed,
            takes_stream_options=provider.takes_stream_options,
        )
        timing = Timing(question.deadline)
        if question.streamed:
            timing = Timing(question.deadline, question.first_event_s, question.idle_s)
        in_order = replicas.in_order(monotonic())
        for replica in in_order:
            try:
                return await self._ask(question, provider, replica, body, timing)
            except UpstreamError as error:
                error.target = target.name
                if not _was_not_connected(error):
                    raise
                replica.rests_until = monotonic() + REST_S
                if replica is in_order[-1]:
                    raise
        raise AssertionError("a provider has at least one server")

    def statistics(self) -> UpstreamStatistics:
        """What is in flight now, and where."""
        now = monotonic()
        return UpstreamStatistics(
            replicas=tuple(
                ReplicaStatistics(
                    provider=name,
                    replica=replica.name,
                    in_flight=replica.in_flight,
                    resting=replica.rests_until > now,
                )
                for name, replicas in self._providers.items()
                for replica in replicas.all
            ),
            transport=self._transport.statistics(),
        )

    async def aclose(self) -> None:
        """Close every connection; exchanges that run fail."""
        await self._transport.aclose()

    async def _ask(
        self, question: Question, provider: Provider, replica: Replica, body: bytes, timing: Timing
    ) -> Exchange:
        exchange: _Exchange | None = None
        replica.in_flight += 1
        try:
            response = await self._transport.send(
                replica.endpoint(streamed=question.streamed),
                body,
                timing=timing,
                mark_sent=question.mark_sent,
            )
            try:
                if not 200 <= response.status < 300:
                    said = await _error_body(response)
                    raise translation.refusal(
                        response.status, response.headers, said, target=question.target, provider=provider
                    )
                _check_content(response, provider, streamed=question.streamed)
                kind = _StreamedExchange if question.streamed else _WholeExchange
                exchange = kind(question, provider, replica, response)
            finally:
                if exchange is None:
                    response.close()
        finally:
            if exchange is None:
                replica.in_flight -= 1
        return exchange


class _Exchange:
    """What both kinds of exchange share: whose it is, and how it is left.

    Cancelling a step closes the exchange: a step that was cut may have lost bytes.
    """

    __slots__ = ("_over", "_provider", "_question", "_replica", "_response")

    def __init__(self, question: Question, provider: Provider, replica: Replica, response: Response) -> None:
        self._question = question
        self._provider = provider
        self._replica = replica
        self._response = response
        self._over = False

    @property
    def replica(self) -> str:
        """Host and port of the server that answers."""
        return self._replica.name

    @property
    def upstream_request_id(self) -> str | None:
        """The provider's id of this request, where it gave a sound one."""
        said = self._response.headers.get(b"x-request-id", b"")[:128].decode("latin-1").strip()
        return said if said and said.isascii() and said.isprintable() else None

    @property
    def allowances(self) -> Allowances | None:
        """What the provider says of its own limits."""
        return read_allowances(self._response.headers)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Sequence[Chunk]:
        """Wait for what arrives next."""
        if self._over:
            return self._after_the_end()
        try:
            return await self._next()
        except UpstreamError as error:
            self.close()
            self._complete(error)
            raise
        except (asyncio.CancelledError, StopAsyncIteration):
            self.close()
            raise

    def close(self) -> None:
        """Leave, now. After the end this touches nothing: the connection may already serve another call."""
        if not self._over:
            self._response.close()
            self._leave()

    async def _next(self) -> Sequence[Chunk]:
        raise AssertionError("a kind of exchange says how it reads")

    def _after_the_end(self) -> Sequence[Chunk]:
        raise StopAsyncIteration

    def _leave(self) -> None:
        self._over = True
        self._replica.in_flight -= 1

    def _complete(self, error: UpstreamError) -> None:
        """Add what the transport, and the room that reads bytes, cannot know."""
        error.target = self._question.target.name
        error.delivery = Delivery.CONFIRMED
        error.status = error.status or self._response.status


class _WholeExchange(_Exchange):
    """A reply that is not streamed: one step, one chunk."""

    __slots__ = ()

    async def _next(self) -> Sequence[Chunk]:
        response, provider = self._response, self._provider
        data = await _whole_body(response, provider.body_bytes_max)
        if data is None:
            raise UpstreamProtocolError(
                f"{provider.name} sent an answer of more than {provider.body_bytes_max} bytes."
            )
        try:
            chunk = read_reply(data)
        except ErrorInStream as error:
            raise translation.error_in_success(
                response.status,
                response.headers,
                error.error,
                target=self._question.target,
                provider=provider,
            ) from error
        self._leave()
        return (chunk,)


class _StreamedExchange(_Exchange):
    """A streamed reply; complete when the dialect says so, not when the body ends.

    An event is what counts as progress: a server that sends only comments is as silent as one that sends
    nothing. The transport's own clock counts bytes, so such silence is noticed with the first comment
    after the time is over.
    """

    __slots__ = ("_begun", "_failure", "_stream")

    def __init__(self, question: Question, provider: Provider, replica: Replica, response: Response) -> None:
        super().__init__(question, provider, replica, response)
        self._stream = ChatStream(
            choices=choices_asked(question.body), event_bytes_max=provider.event_bytes_max
        )
        self._begun = False
        self._failure: UpstreamError | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was odd about the stream, though it was accepted."""
        return self._stream.warnings

    async def _next(self) -> Sequence[Chunk]:
        stream, response = self._stream, self._response
        since = monotonic()
        while True:
            piece = await response.next_piece()
            if piece is None:
                stream.end()
                raise StopAsyncIteration
            chunks = stream.feed(piece)
            if stream.done:
                # The answer is here; whether the connection ends its body in time is not the reader's wait.
                response.leave(AFTER_DONE_S)
                self._leave()
                return chunks or self._after_the_end()
            if stream.failure is not None:
                self._failure = stream.failure
                self.close()
                return chunks or self._after_the_end()
            if chunks:
                self._begun = True
                return chunks
            self._check_progress(since)

    def _after_the_end(self) -> Sequence[Chunk]:
        failure, self._failure = self._failure, None
        if failure is not None:
            self._complete(failure)
            raise failure
        raise StopAsyncIteration

    def _check_progress(self, since: float) -> None:
        question = self._question
        limit_s, phase = (question.idle_s, "idle") if self._begun else (question.first_event_s, "first_event")
        if monotonic() - since > limit_s:
            raise failures.too_slow(self._provider.name, phase, Delivery.CONFIRMED)


def _was_not_connected(error: UpstreamError) -> bool:
    if isinstance(error, UpstreamTimeout) and error.phase != "connect":
        return False  # the wait for a place, or the deadline: another server would not be quicker
    return error.delivery is Delivery.NONE


def _check_content(response: Response, provider: Provider, *, streamed: bool) -> None:
    """Refuse what cannot be read: an encoding that was not asked for, or a page in place of a stream."""
    headers = response.headers
    encoding = headers.get(b"content-encoding", b"identity").strip().lower()
    content_type = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
    what = None
    if encoding != b"identity":
        what = "a content encoding that was not asked for"
    elif streamed and content_type in (b"application/json", b"text/html"):
        # Not an allow-list: engines label their streams in many ways, and the events judge themselves.
        what = "no stream, though one was asked for"
    if what is not None:
        raise UpstreamProtocolError(
            f"{provider.name} answered with {what}.", delivery=Delivery.CONFIRMED, status=response.status
        )


async def _error_body(response: Response) -> ErrorBody | None:
    """Read what a refusal says, if it says so soon, briefly and in plain JSON."""
    if response.headers.get(b"content-encoding", b"identity").strip().lower() != b"identity":
        return None
    try:
        async with asyncio.timeout(ERROR_BODY_S):
            data = await _whole_body(response, ERROR_BODY_BYTES_MAX)
    except (TimeoutError, UpstreamError):
        return None
    return read_error(data) if data else None


async def _whole_body(response: Response, bytes_max: int) -> bytes | None:
    """Read a body to its end; None where it is larger than allowed, and then it was not read on."""
    pieces: list[bytes] = []
    size = 0
    while (piece := await response.next_piece()) is not None:
        size += len(piece)
        if size > bytes_max:
            response.close()
            return None
        pieces.append(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
