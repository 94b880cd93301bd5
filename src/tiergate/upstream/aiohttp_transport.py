"""The same port on aiohttp: the yardstick for our own transport, and its replacement where one is wanted.

It cannot say everything that ours can; each such point is named in the contract suite
(tests/contract/test_transport.py). Importing this module needs the extra `aiohttp`.
"""

import asyncio
import io
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Final

import aiohttp
from yarl import URL

from tiergate.core import Delivery, UpstreamError, UpstreamProtocolError
from tiergate.upstream import failures
from tiergate.upstream.http1 import IDLE_AGE_S
from tiergate.upstream.tls import Trust
from tiergate.upstream.transport import (
    Endpoint,
    Origin,
    OriginStatistics,
    Response,
    Timing,
    TransportStatistics,
    nobody_asks,
)

BUFFERED_BYTES_MAX: Final = 32 * 1024
"""aiohttp stops reading at twice this, checked after each read of up to 256 KiB."""
HEADER_BYTES_MAX: Final = 64 * 1024
LARGE_BYTES: Final = 1024 * 1024


class AiohttpTransport:
    """Carries requests with aiohttp, one session for each origin; belongs to the loop that uses it."""

    def __init__(
        self, *, connect_s: float = 3.0, pool_wait_s: float = 1.0, idle_age_s: float = IDLE_AGE_S
    ) -> None:
        self._connect_s = connect_s
        self._pool_wait_s = pool_wait_s
        self._idle_age_s = idle_age_s
        self._trust = Trust()
        self._lanes: dict[Origin, _Lane] = {}
        self._opened = 0
        self._closed = False

    async def send(
        self, endpoint: Endpoint, body: bytes, *, timing: Timing, mark_sent: Callable[[], None] = nobody_asks
    ) -> Response:
        """Send a request and wait for the head of its response."""
        if self._closed:
            raise failures.closed(endpoint.label)
        lane = self._lanes.get(endpoint.origin) or self._new_lane(endpoint.origin)
        place = await lane.board(self._pool_wait_s, endpoint.label, timing.deadline)
        response: AiohttpResponse | None = None
        try:
            # It does not say when it has connected, so this is the last moment at which nothing has left.
            mark_sent()
            begun = monotonic()
            got = await self._request(lane.session, endpoint, body, timing)
            refusal = _refusal(got)
            if refusal is not None:
                got.close()
                raise UpstreamProtocolError(
                    f"{endpoint.label} did not answer as it should: {refusal}.", delivery=Delivery.CONFIRMED
                )
            response = AiohttpResponse(got, endpoint.label, timing, begun, place)
            place.response = response
            return response
        finally:
            if response is None:
                place.leave()

    def statistics(self) -> TransportStatistics:
        """What is in flight now. aiohttp does not tell how many idle connections it keeps."""
        return TransportStatistics(
            origins=tuple(
                OriginStatistics(
                    origin=origin,
                    open=len(lane.taken),
                    idle=0,
                    in_flight=len(lane.taken),
                    waiting=lane.waiting,
                )
                for origin, lane in self._lanes.items()
            ),
            opened=self._opened,
        )

    async def aclose(self) -> None:
        """Close every connection; exchanges in flight fail."""
        self._closed = True
        for lane in self._lanes.values():
            for place in list(lane.taken):
                # aiohttp closes the connections of a session without a word to their readers.
                if place.response is not None:
                    place.response.close()
            await lane.session.close()
        self._lanes.clear()

    def _new_lane(self, origin: Origin) -> "_Lane":
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=self._idle_age_s, use_dns_cache=False),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            read_bufsize=BUFFERED_BYTES_MAX,
            max_line_size=HEADER_BYTES_MAX,
            max_field_size=HEADER_BYTES_MAX,
            trace_configs=[self._counting()],
        )
        lane = self._lanes[origin] = _Lane(session, origin.max_connections)
        return lane

    def _counting(self) -> aiohttp.TraceConfig:
        async def count(*_: object) -> None:
            self._opened += 1

        tracing = aiohttp.TraceConfig()
        tracing.on_connection_create_end.append(count)
        return tracing

    async def _request(
        self, session: aiohttp.ClientSession, endpoint: Endpoint, body: bytes, timing: Timing
    ) -> aiohttp.ClientResponse:
        label, origin = endpoint.label, endpoint.origin
        left_s = timing.deadline - monotonic()
        if left_s <= 0:
            raise failures.too_slow(label, "total", Delivery.NONE)
        limit_s, phase = left_s, "total"
        if timing.first_event_s is not None and timing.first_event_s + self._connect_s < left_s:
            limit_s, phase = timing.first_event_s + self._connect_s, "first_event"
        try:
            async with asyncio.timeout(limit_s):
                # Given with each request, so that a new ca_file holds for the next one. aiohttp takes True
                # for its own verifying context; ours is used wherever TLS is.
                secure = origin.scheme == "https"
                context = await self._trust.context(origin.ca_file, label) if secure else True
                return await session.request(
                    endpoint.method,
                    URL(f"{origin.scheme}://{origin.authority}{endpoint.path}", encoded=True),
                    headers=endpoint.headers,
                    # Above this aiohttp warns of raw bytes, and sends a file in slices.
                    data=body if len(body) < LARGE_BYTES else io.BytesIO(body),
                    allow_redirects=False,
                    ssl=context,
                    timeout=aiohttp.ClientTimeout(
                        total=None, sock_connect=self._connect_s, connect=self._connect_s, ceil_threshold=60
                    ),
                )
        except aiohttp.ConnectionTimeoutError as error:
            raise failures.too_slow(label, "connect", Delivery.NONE) from error
        except TimeoutError as error:
            raise failures.too_slow(label, phase, Delivery.POSSIBLE) from error
        except (aiohttp.ClientError, OSError) as error:
            raise _translated(label, error) from error


class AiohttpResponse:
    """A response that aiohttp reads; see `transport.Response`."""

    __slots__ = ("_begun", "_first_byte_seen", "_label", "_place", "_response", "_timing", "headers")

    def __init__(
        self, response: aiohttp.ClientResponse, label: str, timing: Timing, begun: float, place: "_Place"
    ) -> None:
        self._response = response
        self._label = label
        self._timing = timing
        self._begun = begun
        self._first_byte_seen = False
        self._place = place
        self.headers: Mapping[bytes, bytes] = _joined(response.raw_headers)

    @property
    def status(self) -> int:
        """The status code."""
        return self._response.status

    async def next_piece(self) -> bytes | None:
        """Give what has arrived, or wait for it."""
        limit_s, phase = self._limit(monotonic())
        try:
            async with asyncio.timeout(limit_s):
                piece = await self._response.content.readany()
        except TimeoutError as error:
            self.close()
            raise failures.too_slow(self._label, phase, Delivery.CONFIRMED) from error
        except asyncio.CancelledError:
            self.close()
            raise
        except (aiohttp.ClientError, OSError) as error:
            self.close()
            raise failures.interrupted(self._label, Delivery.CONFIRMED, error) from error
        if not piece:
            self._place.leave()
            return None
        self._first_byte_seen = True
        return piece

    def leave(self, within_s: float) -> None:
        """Stop reading. aiohttp cannot read on without a reader: only an end that is here already counts."""
        self._response.release()
        self._place.leave()

    def close(self) -> None:
        """Free the connection now."""
        self._response.close()
        self._place.leave()

    def _limit(self, now: float) -> tuple[float, str]:
        deadline, first_event_s, idle_s = self._timing
        left_s = max(0.0, deadline - now)
        if not self._first_byte_seen and first_event_s is not None:
            limit_s, phase = max(0.0, self._begun + first_event_s - now), "first_event"
        elif self._first_byte_seen and idle_s is not None:
            limit_s, phase = idle_s, "idle"
        else:
            return left_s, "total"
        return (limit_s, phase) if limit_s < left_s else (left_s, "total")


class _Lane:
    """One origin's session, and who uses it. aiohttp's own limit cannot tell waiting from connecting."""

    def __init__(self, session: aiohttp.ClientSession, places: int) -> None:
        self.session = session
        self.places = asyncio.Semaphore(places)
        self.taken: set[_Place] = set()
        self.waiting = 0

    async def board(self, wait_s: float, label: str, deadline: float) -> "_Place":
        left_s = max(0.0, deadline - monotonic())
        limit_s, phase = (wait_s, "pool") if wait_s < left_s else (left_s, "total")
        self.waiting += 1
        try:
            async with asyncio.timeout(limit_s):
                await self.places.acquire()
        except TimeoutError as error:
            raise failures.too_slow(label, phase, Delivery.NONE) from error
        finally:
            self.waiting -= 1
        return _Place(self)


class _Place:
    """One exchange's place at an origin, until it is left."""

    __slots__ = ("_lane", "response")

    def __init__(self, lane: _Lane) -> None:
        self.response: AiohttpResponse | None = None
        self._lane: _Lane | None = lane
        lane.taken.add(self)

    def leave(self) -> None:
        lane, self._lane = self._lane, None
        if lane is not None:
            lane.taken.discard(self)
            lane.places.release()


def _refusal(got: aiohttp.ClientResponse) -> str | None:
    """Say what of a response's head is not the HTTP that we speak, where aiohttp accepts it."""
    if got.status < 200:
        return f"it answered with status {got.status}"
    if got.version not in (aiohttp.HttpVersion10, aiohttp.HttpVersion11):
        return "it answered with another version of HTTP"
    coding = got.headers.getall("transfer-encoding", ["chunked"])
    if [word.lower() for word in coding] != ["chunked"]:
        return "its body has a transfer encoding other than chunked"
    return None


def _translated(label: str, error: aiohttp.ClientError | OSError) -> UpstreamError:
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return failures.unreachable(label, _as_os_error(error.certificate_error))
        case aiohttp.ClientConnectorError():
            return failures.unreachable(label, error.os_error)
        case aiohttp.ClientResponseError():
            # aiohttp's message quotes what the server sent.
            return UpstreamProtocolError(
                f"{label} did not answer as it should: it is not HTTP/1.1.", delivery=Delivery.CONFIRMED
            )
        case _:
            return failures.interrupted(label, Delivery.POSSIBLE, error)


def _as_os_error(error: Exception) -> OSError:
    return error if isinstance(error, OSError) else OSError(str(error))


def _joined(raw: tuple[tuple[bytes, bytes], ...]) -> Mapping[bytes, bytes]:
    headers: dict[bytes, bytes] = {}
    for written, value in raw:
        name = written.lower()
        headers[name] = headers[name] + b", " + value if name in headers else value
    return headers
