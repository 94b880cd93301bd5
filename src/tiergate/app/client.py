"""A small client for a running gateway: what the command line, the demo and `Gateway` use to reach it."""

from collections.abc import AsyncIterator, Mapping
from contextlib import closing
from decimal import Decimal
from math import inf
from secrets import token_hex
from time import monotonic
from typing import Any, Final, Literal

from tiergate.cache import read_status
from tiergate.core import (
    NOTHING,
    Chunk,
    Origin,
    ReceiptUse,
    Reply,
    Target,
    Tier,
    TiergateError,
    UpstreamTimeout,
    UpstreamUnreachable,
    usd_to_nanos,
)
from tiergate.core import UpstreamProtocolError as ProtocolError
from tiergate.upstream import Endpoint, Response, Timing, Transport, open_transport
from tiergate.upstream import Origin as Server
from tiergate.wire import ChatStream, ErrorInStream, choices_asked, dumps, loads, read_error, read_reply

_LABEL: Final = "the gateway"
_LAST: Final = b"\r\n--%b--\r\n"
ANSWER_S: Final = 30.0
"""How long the gateway may take for a document; nothing that it looks up takes so long while it lives."""


class GatewayError(TiergateError):
    """A running gateway answered with an error; `status` and `code` are its own."""

    def __init__(self, message: str, *, status: int, code: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code  # type: ignore[misc]  # here the class serves every code


class GatewayClient:
    """Calls a running gateway.

    Args:
        address: `host:port`.
        scheme: `http` or `https`.
        token: what it accepts from us.
        pid: of its process, to be named where it does not answer.
        answer_s: how long it may take for a document. Answers of models take as long as it lets them.
        transport: carries the requests.
    """

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        pid: int | None = None,
        answer_s: float = ANSWER_S,
        transport: Transport | None = None,
        scheme: Literal["http", "https"] = "http",
    ) -> None:
        self._address, self._pid, self._answer_s = address, pid, answer_s
        host, _, port = address.rpartition(":")
        self._server = Server(scheme=scheme, host=host.strip("[]"), port=int(port))
        self._headers = () if token is None else (("authorization", f"Bearer {token}"),)
        self._transport = transport or open_transport()
        self._boundary = token_hex(16)
        """Between the parts of a form; nothing that is sent can know it."""
        self._endpoints: dict[tuple[str, str, tuple[tuple[str, str], ...]], Endpoint] = {}

    async def get(self, path: str) -> Any:
        """Get a JSON document.

        Raises:
            GatewayError: the gateway said no, or nothing in time.
        """
        return await self._document("GET", path, b"")

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Post a JSON document and get one.

        Raises:
            GatewayError: the gateway said no, or nothing in time.
        """
        return await self._document("POST", path, dumps(body))

    async def delete(self, path: str) -> Any:
        """Delete something and get a JSON document about it.

        Raises:
            GatewayError: the gateway said no, or nothing in time.
        """
        return await self._document("DELETE", path, b"")

    async def upload(self, path: str, name: str, data: bytes, **fields: str) -> Any:
        """Post a file in a form and get a JSON document about it.

        Raises:
            GatewayError: the gateway said no, or nothing in time.
        """
        boundary = self._boundary
        parts = [
            f'--{boundary}\r\ncontent-disposition: form-data; name="{one}"\r\n\r\n{value}\r\n'
            for one, value in fields.items()
        ]
        head = f'--{boundary}\r\ncontent-disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
        body = b"".join([*(part.encode() for part in parts), head.encode(), data, _LAST % boundary.encode()])
        kind = {"content-type": f"multipart/form-data; boundary={boundary}"}
        return await self._document("POST", path, body, kind)

    async def download(self, path: str) -> AsyncIterator[bytes]:
        """Get a file in pieces; ends normally only when all of it is here.

        Raises:
            GatewayError: the gateway said no.
            UpstreamError: the gateway cannot be reached, or broke off.
        """
        response = await self._send("GET", path, b"", {})
        with closing(response):
            while (piece := await response.next_piece()) is not None:
                yield piece

    async def chat(self, body: Mapping[str, Any], *, headers: Mapping[str, str] | None = None) -> Reply:
        """Ask for a whole reply.

        Raises:
            GatewayError: the gateway said no.
            UpstreamError: the gateway cannot be reached.
        """
        response = await self._send("POST", "/v1/chat/completions", dumps(body), headers or {})
        with closing(response):
            chunk = read_reply(await _whole(response))
        cost = response.headers.get(b"x-tiergate-cost-usd")
        return Reply(
            origin=origin_of(response),
            data=chunk.data,
            text=chunk.text,
            finish=chunk.finish,
            usage=chunk.usage or NOTHING,
            cash_nanos=None if cost is None else usd_to_nanos(Decimal(cost.decode())),
        )

    async def stream(
        self, body: Mapping[str, Any], *, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[Chunk]:
        """Ask for a streamed reply; ends normally only when it was complete."""
        response = await self._send("POST", "/v1/chat/completions", dumps(body), headers or {})
        with closing(response):
            reader = ChatStream(choices=choices_asked(body))
            while not reader.done:
                piece = await response.next_piece()
                if piece is None:
                    reader.end()
                    break
                for chunk in reader.feed(piece):
                    yield chunk
                if reader.failure is not None:
                    raise _told(response.status, reader.failure)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()

    async def _document(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str] | None = None
    ) -> Any:
        try:
            response = await self._send(
                method, path, body, headers or {}, deadline=monotonic() + self._answer_s
            )
            with closing(response):
                return loads(await _whole(response))
        except (UpstreamTimeout, UpstreamUnreachable) as error:
            raise self._silent(method, error) from error

    def _silent(self, method: str, error: UpstreamTimeout | UpstreamUnreachable) -> GatewayError:
        late = isinstance(error, UpstreamTimeout)
        what = f"did not answer within {self._answer_s:g} s" if late else "cannot be reached"
        process = "" if self._pid is None else f" (process {self._pid})"
        done = "" if method == "GET" else " Whether it has done what was asked is not known."
        end = "" if self._pid is None else f" (`kill -CONT {self._pid}`, or `kill {self._pid}`)"
        message = (
            f"The gateway at {self._address}{process} {what}.{done if late else ''} If it hangs or was "
            f"stopped, let it go on or end it{end}, and try again."
        )
        return GatewayError(message, status=504, code=error.code)

    async def _send(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str], *, deadline: float = inf
    ) -> Response:
        response = await self._transport.send(
            self._endpoint(method, path, tuple(headers.items())), body, timing=Timing(deadline=deadline)
        )
        if response.status >= 400:
            with closing(response):
                raise _error(response.status, await _whole(response))
        return response

    def _endpoint(self, method: str, path: str, headers: tuple[tuple[str, str], ...]) -> Endpoint:
        key = (method, path, headers)
        endpoint = self._endpoints.get(key)
        if endpoint is None:
            is_json = method == "POST" and not any(name == "content-type" for name, _ in headers)
            content = (("content-type", "application/json"),) if is_json else ()
            endpoint = self._endpoints[key] = Endpoint(
                label=_LABEL,
                origin=self._server,
                path=path,
                method=method,
                headers=(*content, *self._headers, *headers),
            )
        return endpoint


def origin_of(response: Response) -> Origin:
    """Read where a reply came from, as the gateway's headers say it."""
    header = response.headers
    use, age = header.get(b"x-tiergate-receipt"), header.get(b"age")
    status = header.get(b"cache-status")
    # What a receipt came to is said in the words of caches, too.
    is_receipts = status is not None and status.endswith(b"detail=receipt")
    provider, _, model = header.get(b"x-tiergate-target", b"").decode().partition("/")
    return Origin(
        call_id=header.get(b"x-request-id", b"").decode(),
        target=Target(provider=provider, model=model, tier=Tier(header[b"x-tiergate-tier"].decode())),
        attempts=int(header.get(b"x-tiergate-attempts", b"1")),
        receipt=None if use is None else ReceiptUse(use.decode()),
        cache=None if status is None or is_receipts else read_status(status.decode()),
        age_s=None if age is None else int(age),
    )


async def _whole(response: Response) -> bytes:
    pieces = []
    while (piece := await response.next_piece()) is not None:
        pieces.append(piece)
    return b"".join(pieces)


def _error(status: int, data: bytes) -> TiergateError:
    body = read_error(data)
    if body is None or body.message is None:
        return ProtocolError(f"The gateway answered with status {status} and no reason. Is it a Tiergate?")
    return GatewayError(body.message, status=status, code=body.code or "")


def _told(status: int, failure: TiergateError) -> TiergateError:
    """Give the gateway's own words where it said in its stream why that broke off."""
    said = failure.__cause__.error if isinstance(failure.__cause__, ErrorInStream) else None
    if said is None or said.message is None:
        return failure
    return GatewayError(said.message, status=status, code=said.code or "")
