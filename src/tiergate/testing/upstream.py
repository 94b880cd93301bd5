"""An upstream in memory: plays the same scripts as the mock server, without a socket.

For unit tests and for users of the Python `Gateway`. It performs the very steps that the server performs,
so text, pace, broken streams and errors are the same. What exists only on a wire has no effect here: chunk
sizes, `one_byte_chunks`, `hang_up`, large headers, `tls`. Waits are those of the event loop, so in virtual
time they take none.
"""

import asyncio
import math
from collections import deque
from collections.abc import Sequence
from typing import Final, TypeVar

from tiergate.core import (
    Allowances,
    Chunk,
    Clock,
    Delivery,
    SystemClock,
    UpstreamAuthFailed,
    UpstreamError,
    UpstreamFault,
    UpstreamInterrupted,
    UpstreamProtocolError,
    UpstreamRejected,
    UpstreamThrottled,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from tiergate.serve import Exchange, Question
from tiergate.testing.ask import ask_of
from tiergate.testing.behaviour import Behaviour
from tiergate.testing.log import Ended, LogEntry, MockStatistics
from tiergate.testing.script import Script
from tiergate.testing.server import CHAT_PATH, script_of
from tiergate.testing.stage import Scene, Stage
from tiergate.testing.steps import End, Headers, How, Pause, Status, Step, Token, Torn
from tiergate.upstream import read_allowances
from tiergate.wire import ChatStream, ErrorInStream, dumps, read_error, read_reply

_E = TypeVar("_E", bound=UpstreamError)
_ASKED_KEPT: Final = 10_000


class ScriptedUpstream:
    """A `serve.Upstream` that answers by a script.

    >>> async def main():
    ...     upstream = ScriptedUpstream(Behaviour(reply="hello there", stall_after=2))
    ...     exchange = await upstream.send(question)
    """

    def __init__(self, script: Script | Behaviour | None = None, *, clock: Clock | None = None) -> None:
        self._script = script_of(script)
        self._clock = clock or SystemClock()
        self._stage: Stage | None = None
        self.asked: deque[Question] = deque(maxlen=_ASKED_KEPT)
        """The questions, oldest first."""

    async def send(self, question: Question) -> Exchange:
        """Begin the answer that the script has for this question.

        Raises:
            UpstreamError: as a real upstream would, with what is known about delivery.
        """
        self.asked.append(question)
        body = {**question.body, "model": question.target.model, "stream": question.streamed}
        if question.streamed:
            body["stream_options"] = {**(question.body.get("stream_options") or {}), "include_usage": True}
        scene = self._on_stage().open(
            lambda: ask_of(body), path=CHAT_PATH, headers={}, body_bytes=len(dumps(body))
        )
        exchange = _ScriptedExchange(scene, question)
        question.mark_sent()
        try:
            await exchange.begin()
        except BaseException:
            # Cancelled or failed: either way the answer ends here, and a slot of the engine is free again.
            exchange.close()
            raise
        return exchange

    @property
    def log(self) -> list[LogEntry]:
        """What was asked and how it ended, oldest first."""
        return [] if self._stage is None else self._stage.log.entries()

    def statistics(self) -> MockStatistics:
        """Count what happened so far. Must be called in the event loop."""
        return self._on_stage().statistics()

    def play(self, script: Script | Behaviour) -> None:
        """Go over to another script, with counters and log from zero."""
        self._script = script_of(script)
        self._stage = None

    def _on_stage(self) -> Stage:
        if self._stage is None:
            self._stage = Stage(self._script, asyncio.get_running_loop(), self._clock)
        return self._stage


class _ScriptedExchange:
    """Performs steps for one caller, who waits with the time-outs of its question."""

    def __init__(self, scene: Scene, question: Question) -> None:
        self._scene = scene
        self._question = question
        self._target = question.target.name
        self._loop = asyncio.get_running_loop()
        self._sent_at = self._loop.time()
        self._steps = scene.steps()
        self._kept: Step | None = None
        """A step to do next time, because what came before it is given out first."""
        self._delivery = Delivery.POSSIBLE
        self._headers: dict[str, str] = {}
        self._stream = ChatStream(choices=1 if scene.answer is None else scene.answer.ask.choices)
        self._heard = False
        """The first event has arrived."""
        self._torn = False
        self._over = False

    @property
    def replica(self) -> str:
        return "scripted"

    @property
    def upstream_request_id(self) -> str | None:
        return self._headers.get("x-request-id")

    @property
    def allowances(self) -> Allowances | None:
        return _allowances(self._headers)

    def __aiter__(self) -> "_ScriptedExchange":
        return self

    async def __anext__(self) -> Sequence[Chunk]:
        if self._over:
            raise StopAsyncIteration
        return await (self._next_chunks() if self._question.streamed else self._whole_reply())

    def close(self) -> None:
        self._over = True
        self._scene.finish(Ended.ABORTED)

    async def begin(self) -> None:
        """Go on until good headers have arrived, or raise."""
        if self._scene.behaviour.refuse:
            self._scene.finish(Ended.BROKEN)
            raise UpstreamUnreachable(
                "The script refuses connections.", target=self._target, delivery=Delivery.NONE
            )
        headers = await self._head()
        self._headers = dict(headers.pairs)
        lengths = {value for name, value in headers.pairs if name == "content-length"}
        if len(lengths) > 1 or (lengths and headers.chunked):
            raise self._failed(UpstreamProtocolError("The upstream gave two lengths for one body."))
        if "content-encoding" in self._headers:
            raise self._failed(UpstreamProtocolError("The upstream compressed what was not to be."))
        status = self._scene.entry.status or 0
        if not 200 <= status < 300:
            refused = _refused(status, self._headers, await self._rest(), self._target)
            refused.allowances = self.allowances
            raise refused
        if self._question.streamed and not self._headers["content-type"].startswith("text/event-stream"):
            await self._rest()
            raise self._failed(UpstreamProtocolError("The upstream answered no event stream."))

    async def _head(self) -> Headers:
        while True:
            match await self._step():
                case Status(code):
                    self._delivery = Delivery.CONFIRMED
                    self._scene.entry.status = code
                case Headers() as headers:
                    return headers
                case End() as end:
                    await self._ended(end)
                    raise self._failed(UpstreamProtocolError("The upstream did not answer in HTTP."))

    async def _next_chunks(self) -> Sequence[Chunk]:
        while self._stream.failure is None and (data := await self._arriving()) is not None:
            if chunks := self._stream.feed(data):
                self._heard = True
                return chunks
        if self._stream.failure is not None:
            raise self._failed(self._stream.failure)
        self._over = True
        try:
            self._stream.end()
        except UpstreamInterrupted as error:
            raise self._failed(error) from None
        raise StopAsyncIteration

    async def _whole_reply(self) -> Sequence[Chunk]:
        data = await self._rest()
        self._over = True
        try:
            return (read_reply(data),)
        except UpstreamProtocolError as error:
            raise self._failed(error) from None
        except ErrorInStream as error:
            raise self._failed(UpstreamFault("The upstream answered an error with status 200.")) from error

    async def _rest(self) -> bytes:
        """Give the body to its end, as a client with a Content-Length reads it."""
        data = b""
        while (piece := await self._arriving()) is not None:
            data += piece
        claimed = int(self._headers.get("content-length", len(data)))
        if claimed > len(data):
            raise self._failed(UpstreamInterrupted("The upstream's reply is shorter than it said."))
        return data[:claimed]

    async def _arriving(self) -> bytes | None:
        """Give what arrives together, as soon as the next step would have to wait; None at the end."""
        data = b""
        while True:
            step = await self._step(stop_before_wait=bool(data))
            match step:
                case bytes() | Torn() if self._torn:
                    raise self._failed(UpstreamProtocolError("The upstream's chunks cannot be told apart."))
                case bytes():
                    data += step
                case Torn():
                    self._torn = True
                    data += step.data
                case None:
                    return data
                case End() if data:
                    self._kept = step
                    return data
                case End():
                    await self._ended(step)
                    return None

    async def _step(self, *, stop_before_wait: bool = False) -> Step | None:
        """Give the next step that is no wait; None if it would have to wait, and that is not wanted."""
        while True:
            step, self._kept = self._kept or next(self._steps), None
            if isinstance(step, Token):
                pace = self._scene.pace
                assert pace is not None
                if pace.reached(step):
                    continue
            elif not isinstance(step, Pause):
                return step
            self._kept = step  # also for a caller who is cancelled while waiting, and comes back
            if stop_before_wait:
                return None
            await self._wait(step)
            self._kept = None

    async def _ended(self, end: End) -> None:
        """Return if the body came to an end, good or not; otherwise raise."""
        if end.how is How.HANG:
            await self._wait(end)
        self._scene.finish(Ended.COMPLETED if end.complete else Ended.BROKEN)
        if end.how is How.RESET:
            raise self._failed(UpstreamInterrupted("The upstream reset the connection."))

    async def _wait(self, what: Token | Pause | End) -> None:
        limit, phase = self._limit()
        try:
            async with asyncio.timeout_at(limit):
                if isinstance(what, Pause):
                    await asyncio.sleep(what.seconds)
                else:
                    await self._token(what if isinstance(what, Token) else None)
        except TimeoutError:
            self._over = True
            self._scene.finish(Ended.ABORTED)
            raise UpstreamTimeout(
                f"The upstream was too slow ({phase}).",
                phase=phase,
                target=self._target,
                delivery=self._delivery,
            ) from None

    async def _token(self, token: Token | None) -> None:
        """Wait for a token; None: for ever."""
        left: asyncio.Future[None] = self._loop.create_future()
        if token is not None:
            assert self._scene.pace is not None
            self._scene.pace.when(token, lambda: None if left.done() else left.set_result(None))
        await left

    def _limit(self) -> tuple[float, str]:
        question = self._question
        if not question.streamed:
            return question.deadline, "total"
        if self._heard:
            limit, phase = self._loop.time() + question.idle_s, "idle"
        else:
            limit, phase = self._sent_at + question.first_event_s, "first_event"
        return (limit, phase) if limit < question.deadline else (question.deadline, "total")

    def _failed(self, error: _E) -> _E:
        """Note where an error came from and that the answer is over."""
        self._over = True
        self._scene.finish(Ended.BROKEN)
        error.target = self._target
        error.delivery = self._delivery
        return error


def _refused(status: int, headers: dict[str, str], body: bytes, target: str) -> UpstreamError:
    """Translate a status that is no success."""
    said = read_error(body)
    message = f"The script answered {status}."
    confirmed = Delivery.CONFIRMED
    if status in (401, 403):
        return UpstreamAuthFailed(message, target=target, delivery=confirmed, status=status)
    if status == 429:
        return UpstreamThrottled(
            message,
            target=target,
            retry_after_s=_retry_after_s(headers),
            quota=said is not None and "insufficient_quota" in (said.code, said.type),
        )
    if status >= 500:
        return UpstreamFault(message, target=target, delivery=confirmed, status=status)
    if status < 400:
        return UpstreamProtocolError(message, target=target, delivery=confirmed, status=status)
    return UpstreamRejected(
        message,
        target=target,
        status=status,
        param=None if said is None else said.param,
        upstream_code=None if said is None else said.code,
    )


def _allowances(headers: dict[str, str]) -> Allowances | None:
    return read_allowances({name.encode(): value.encode("latin-1") for name, value in headers.items()})


def _retry_after_s(headers: dict[str, str]) -> float | None:
    for name, per_second in (("retry-after-ms", 1_000), ("retry-after", 1)):
        try:
            wait = float(headers[name]) / per_second
        except (KeyError, ValueError):
            continue
        if math.isfinite(wait) and wait >= 0:
            return wait
    return None
