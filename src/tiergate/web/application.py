"""The data plane as one application: exact endpoints, closed by default, errors of one shape.

Every request passes the same steps: the request itself and its Host, the public endpoints, the origin, the
key, and then the endpoint's own work. Whatever goes wrong becomes an error object, or, once a stream has
begun, an error event and a connection that ends without its last chunk.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NamedTuple, NoReturn
from urllib.parse import unquote

from tiergate.batch import Batches
from tiergate.core import Caller, InvalidRequest, Notice, Refused, Reply, TiergateError, new_id, place_of
from tiergate.serve import Rooms, Stopping, Stream, handle
from tiergate.web.answers import (
    ChatEvents,
    Headers,
    PlainEvents,
    early_headers,
    reply_body,
    reply_headers,
    stream_headers,
)
from tiergate.web.batchplane import BATCHES, FILES, BatchPlane, Content, FilePolicy, is_batch_path
from tiergate.web.calls import call_of
from tiergate.web.estimates import estimate
from tiergate.web.keys import key_object
from tiergate.web.models import model_object, models_list
from tiergate.web.pulse import Pulse
from tiergate.web.ratelimits import RATE_HEADERS, rate_headers
from tiergate.web.statuses import DoorRefused, Unroutable, answer_to, event_of, refusal_of
from tiergate.web.visit import ClientGone, ConnectionBroken, Visit, check_host
from tiergate.wire import ChatQuestion, dumps, read_chat, read_object, read_plain_chat, write_event

_JSON: Final = (b"content-type", b"application/json")
_MODEL_PREFIX: Final = "/v1/models/"
_BUG_SENTENCE: Final = "The gateway failed on this call. Its log says where, under the word `bug`."


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorPolicy:
    """What the door lets in. `hosts` empty: loopback names only; `cors`: exact origins."""

    hosts: frozenset[str] = frozenset()
    cors: frozenset[str] = frozenset()
    body_bytes_max: int = 32 << 20
    body_wait_s: float = 60
    heartbeat_s: float | None = 15
    """The silence in a stream after which a comment is sent; None: none is."""
    files: FilePolicy = field(default_factory=FilePolicy)


class DataPlane:
    """The application. `is_ready` is what the balancer sees."""

    def __init__(
        self,
        rooms: Rooms,
        *,
        policy: DoorPolicy,
        randomness: Callable[[int], bytes],
        batches: Batches | None = None,
    ) -> None:
        self._batches = (
            None if batches is None else BatchPlane(batches, policy=policy.files, randomness=randomness)
        )
        self.policy = policy
        self.is_ready = True
        self._rooms = rooms
        self._randomness = randomness

    def use(self, policy: DoorPolicy) -> None:
        """Take another policy; requests that are in stay in."""
        self.policy = policy
        if self._batches is not None:
            self._batches.policy = policy.files

    async def __call__(self, visit: Visit) -> None:
        """Answer one request."""
        wall_ns = self._rooms.clock.wall_ns()
        try:
            await self._answer(visit, wall_ns)
        except (ClientGone, ConnectionBroken):
            raise
        except asyncio.CancelledError:
            # The one or the other: the client left, or the listener ends what still runs.
            if visit.gone:
                raise ClientGone from None
            await self._say(visit, Stopping())
        except TiergateError as error:
            await self._say(visit, error)
        except Exception as error:  # noqa: BLE001 - the outermost border: a bug costs one call, not the server
            self._rooms.emit(_bug(error))
            await self._say(visit, TiergateError(_BUG_SENTENCE))

    async def _answer(self, visit: Visit, wall_ns: int) -> None:
        visit.check()
        check_host(visit, self.policy.hosts)
        health = _HEALTH.get(visit.path)
        if health is not None:
            if visit.method not in ("GET", "HEAD"):
                raise Unroutable(f"Ask {visit.path} with GET.", status=405, allow="GET, HEAD")
            await health(self, visit)
            return
        self._check_origin(visit)
        if visit.method == "OPTIONS" and visit.header(b"origin") and visit.header(_PREFLIGHT_ASKS):
            await visit.answer(204, self._head(visit, *_preflight(visit)), b"")
            return
        caller = self._rooms.admission.identify(_credential(visit))
        if self._batches is not None and is_batch_path(visit.path):
            await self._batch(visit, caller, wall_ns)
            return
        method, endpoint = _endpoint(visit.path)
        if visit.method != method:
            raise Unroutable(f"{visit.path} takes {method} only.", status=405, allow=method)
        await endpoint(self, Request(visit, caller, wall_ns))

    def _check_origin(self, visit: Visit) -> None:
        origin = visit.header(b"origin")
        if origin is not None and origin not in self.policy.cors:
            raise DoorRefused(
                "Pages of this origin may not call this gateway; `cors` in its settings lists them.",
                status=403,
            )

    def _head(self, visit: Visit, *headers: tuple[bytes, bytes]) -> Headers:
        """Put the headers of every answer together; a listed origin may read it."""
        if visit.caller is not None:
            headers += rate_headers(self._rooms.admission.allowance(visit.caller))
        try:
            origin = visit.header(b"origin")
        except InvalidRequest:
            return headers
        if origin is None or origin not in self.policy.cors:
            return headers
        allow = (b"access-control-allow-origin", origin.encode())
        return (*headers, allow, _EXPOSE, (b"vary", b"origin"))

    # Endpoints.

    async def live(self, visit: Visit) -> None:
        """Say that the process runs."""
        await visit.answer(200, (_JSON,), b'{"status":"live"}')

    async def ready(self, visit: Visit) -> None:
        """Say whether calls are taken."""
        status, word = (200, b"ready") if self.is_ready else (503, b"stopping")
        await visit.answer(status, (_JSON,), b'{"status":"%b"}' % word)

    async def models(self, request: "Request") -> None:
        """List the models."""
        listed = models_list(self._rooms.rules, wall_ns=request.wall_ns, caller=request.caller)
        await request.visit.answer(200, self._head(request.visit, _JSON), dumps(listed))

    async def model(self, request: "Request") -> None:
        """Show one model; its name may be percent-encoded, slashes included."""
        asked = unquote(request.visit.path.removeprefix(_MODEL_PREFIX))
        found = model_object(asked, self._rooms.rules, wall_ns=request.wall_ns, caller=request.caller)
        await request.visit.answer(200, self._head(request.visit, _JSON), dumps(found))

    async def key(self, request: "Request") -> None:
        """Tell a key's holder what it may do, and what is left of its budgets."""
        rooms = self._rooms
        balances = await rooms.book.balances(request.wall_ns)
        found = key_object(request.caller, rooms.admission.allowance(request.caller), balances)
        await request.visit.answer(200, self._head(request.visit, _JSON), dumps(found))

    async def estimate_cost(self, request: "Request") -> None:
        """Say what a call would cost, at every model that could serve it."""
        asked = read_object(await self._body(request.visit))
        rooms = self._rooms
        found = estimate(asked, rooms.rules, rooms.lines, wall_ns=request.wall_ns, caller=request.caller)
        await request.visit.answer(200, self._head(request.visit, _JSON), dumps(found))

    async def chat(self, request: "Request") -> None:
        """Answer a chat completion, whole or as a stream of events."""
        visit = request.visit
        body = await self._body(visit)
        question = read_chat(body)
        if question.streamed:
            make = partial(ChatEvents, wants_usage=question.wants_usage)
            await self._stream(request, self._ask(request, question, "chat", len(body)), make)
            return
        reply = await self._ask(request, question, "chat", len(body))
        assert isinstance(reply, Reply)
        await visit.answer(200, self._head(visit, *reply_headers(reply)), reply_body(reply))

    async def plain_chat(self, request: "Request") -> None:
        """Answer a chat completion as a plain stream."""
        body = await self._body(request.visit)
        asking = self._ask(request, read_plain_chat(body), "chat/stream", len(body))
        await self._stream(request, asking, PlainEvents)

    async def _batch(self, visit: Visit, caller: Caller, wall_ns: int) -> None:
        """Answer for files and batches."""
        assert self._batches is not None
        found = await self._batches.answer(visit, caller, wall_ns)
        if not isinstance(found, Content):
            await visit.answer(200, self._head(visit, _JSON), found)
            return
        await visit.start(200, self._head(visit, *found.headers))
        async for piece in found.pieces:
            await visit.write(piece)
        await visit.end()

    async def _body(self, visit: Visit) -> bytes:
        kind = visit.header(b"content-type") or ""
        if kind.partition(";")[0].strip().lower() != "application/json":
            # Also what keeps a foreign web page from posting here without asking first.
            raise DoorRefused("Send the body as JSON, with `Content-Type: application/json`.", status=415)
        return await visit.read_body(bytes_max=self.policy.body_bytes_max, timeout_s=self.policy.body_wait_s)

    async def _ask(
        self, request: "Request", question: ChatQuestion, endpoint: str, body_bytes: int
    ) -> Reply | Stream:
        visit = request.visit
        # All of one moment, with the body here: what counts a call by its id and what counts it by its time
        # put it into the same window, however long a client took to send it.
        wall_ns = self._rooms.clock.wall_ns()
        visit.id, visit.caller = self._new_id(wall_ns), request.caller
        call = call_of(
            question,
            call_id=visit.id,
            caller=request.caller,
            endpoint=endpoint,
            header=visit.header,
            cache_control=visit.listed(b"cache-control"),
            body_bytes=body_bytes,
            wall_ns=wall_ns,
            monotonic=self._rooms.clock.monotonic(),
        )
        task = asyncio.current_task()
        assert task is not None
        visit.when_gone(task.cancel)
        return await handle(self._rooms, call)

    async def _stream(
        self,
        request: "Request",
        asking: Awaitable[Reply | Stream],
        make: Callable[..., ChatEvents | PlainEvents],
    ) -> None:
        """Ask, and send what comes as it comes; heartbeats may begin the answer before there is any."""
        visit = request.visit
        with Pulse(visit, every_s=self.policy.heartbeat_s, headers=partial(self._early_head, visit)) as pulse:
            try:
                events = await self._send(visit, await asking, make, pulse)
            except asyncio.CancelledError:
                if pulse.error is not None:
                    raise pulse.error from None
                if visit.gone or not visit.started:
                    raise
                await self._break_off(visit, Stopping(), pulse)
            except TiergateError as error:
                if not visit.started:
                    raise
                await self._break_off(visit, error, pulse)
        await visit.write(events.end())
        await visit.end()

    async def _send(
        self, visit: Visit, reply: Reply | Stream, make: Callable[..., ChatEvents | PlainEvents], pulse: Pulse
    ) -> ChatEvents | PlainEvents:
        """Send the events of a stream to its end; give what writes the terminal one."""
        assert not isinstance(reply, Reply)
        with reply:
            await pulse.rest()
            # Where the answer has begun already, its headers could not say where it comes from.
            events = make(reply, says_origin=visit.started)
            if not visit.started:
                await visit.start(200, self._head(visit, *stream_headers(reply)))
            async for chunks in reply:
                if pulse.is_beating:
                    await pulse.rest()
                await visit.write(events.write(chunks))
                pulse.mark_written()
        await pulse.rest()
        return events

    async def _break_off(self, visit: Visit, error: TiergateError, pulse: Pulse) -> NoReturn:
        """Say in a stream what happened, and end the connection so that every reader notices."""
        await pulse.rest()
        await visit.write(write_event(event_of(error)))
        visit.abort()

    def _early_head(self, visit: Visit) -> Headers:
        return self._head(visit, *early_headers(visit.id))

    def _new_id(self, wall_ns: int) -> str:
        return new_id(wall_ns, self._randomness(10))

    # Errors.

    async def _say(self, visit: Visit, error: TiergateError) -> None:
        if visit.started:
            visit.abort()
        answer = answer_to(error)
        request_id = visit.id or self._new_id(self._rooms.clock.wall_ns())
        if isinstance(error, Refused | Unroutable | DoorRefused):
            # Whatever else fails has become a call before, and its end is told by the call.
            endpoint = visit.path if visit.path in _ENDPOINTS else _root(visit.path)
            self._rooms.emit(refusal_of(error, answer, endpoint))
        headers = self._head(visit, _JSON, (b"x-request-id", request_id.encode()), *answer.headers)
        await visit.answer(answer.status, headers, answer.body)


class Request(NamedTuple):
    """A request that passed the door."""

    visit: Visit
    caller: Caller
    wall_ns: int


Endpoint = Callable[[DataPlane, Request], Awaitable[None]]

_HEALTH: Final[dict[str, Callable[[DataPlane, Visit], Awaitable[None]]]] = {
    "/health/live": DataPlane.live,
    "/health/ready": DataPlane.ready,
}
"""All that answers without a key."""

_ENDPOINTS: Final[dict[str, tuple[str, Endpoint]]] = {
    "/v1/chat/completions": ("POST", DataPlane.chat),
    "/v1/chat/stream": ("POST", DataPlane.plain_chat),
    "/v1/estimate-cost": ("POST", DataPlane.estimate_cost),
    "/v1/models": ("GET", DataPlane.models),
    "/v1/key": ("GET", DataPlane.key),
}

_EXPOSE: Final = (
    b"access-control-expose-headers",
    b", ".join(
        (
            b"x-request-id",
            b"x-tiergate-target",
            b"x-tiergate-tier",
            b"x-tiergate-attempts",
            b"x-tiergate-cost-usd",
            b"x-tiergate-receipt",
            b"cache-status",
            b"age",
            b"retry-after",
            *(name.encode() for name in RATE_HEADERS),
        )
    ),
)
_PREFLIGHT_ASKS: Final = b"access-control-request-method"
_MAY_BE_SENT: Final = re.compile(
    r"authorization|content-type|x-(tiergate|stainless)-[a-z-]{1,40}|idempotency-key|cache-control"
)
"""What a page may send: what means something here, and what the official clients add by themselves."""


def _root(path: str) -> str:
    """Give the endpoint that a path with an id in it belongs to."""
    return next((root for root in (FILES, BATCHES) if path == root or path.startswith(f"{root}/")), "other")


def _preflight(visit: Visit) -> Headers:
    asked = (visit.header(b"access-control-request-headers") or "").lower().split(",")
    allowed = [name for name in map(str.strip, asked) if _MAY_BE_SENT.fullmatch(name)]
    return (
        (b"access-control-allow-methods", b"GET, POST, DELETE"),
        (b"access-control-allow-headers", ", ".join(allowed).encode()),
        (b"access-control-max-age", b"600"),
    )


def _endpoint(path: str) -> tuple[str, Endpoint]:
    found = _ENDPOINTS.get(path)
    if found is not None:
        return found
    if path.startswith(_MODEL_PREFIX) and len(path) > len(_MODEL_PREFIX):
        return "GET", DataPlane.model
    known = ", ".join(f"{method} {name}" for name, (method, _) in _ENDPOINTS.items())
    raise Unroutable(f"There is no such endpoint here. Known: {known}.", status=404)


def _credential(visit: Visit) -> str | None:
    """Give the bearer token, if there is one; whether it is needed is admission's business."""
    scheme, _, credential = (visit.header(b"authorization") or "").partition(" ")
    return credential.strip() or None if scheme.lower() == "bearer" else None


def _bug(error: Exception) -> Notice:
    return Notice(word="bug", message=place_of(error), severe=True)
