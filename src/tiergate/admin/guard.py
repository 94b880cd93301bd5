"""The admin plane's door: every request needs its token and a Host that is ours; other pages are refused."""

import hmac
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.requests import ClientDisconnect

from tiergate.core import ADMIN, Emit, Notice, Refusal
from tiergate.wire import write_error

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Guard:
    """An ASGI application in front of another.

    Args:
        app: what is guarded.
        emit: is told of each request that is refused.
        token: what `Authorization: Bearer` must hold.
        hosts: names, in lower case and without ports, that requests may be addressed to.
        body_bytes_max: a request with a longer body is refused.
    """

    def __init__(
        self, app: App, *, emit: Emit, token: str, hosts: frozenset[str], body_bytes_max: int = 1 << 20
    ) -> None:
        self._app = app
        self._emit = emit
        self._token = token.encode()
        self._hosts = hosts
        self._body_bytes_max = body_bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] != "http":
            return  # no web sockets here, and no lifespan
        headers = _headers(scope)
        refusal = self._refusal(scope, headers)
        if refusal is None:
            try:
                await self._app(scope, receive, send)
            except ClientDisconnect:
                return
            except Exception as error:  # noqa: BLE001 - the outermost border: the client was told already
                self._emit(_bug(error))
            return
        status, kind, code, message = refusal
        self._emit(Refusal(endpoint=ADMIN, code=code, status=status))
        body = write_error(message, type=kind, code=code)
        more = [(b"www-authenticate", b"Bearer")] if status == 401 else []
        start = {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                (b"connection", b"close"),
                *more,
            ],
        }
        await send(start)
        await send({"type": "http.response.body", "body": body})

    def _refusal(self, scope: Scope, headers: dict[bytes, list[bytes]]) -> tuple[int, str, str, str] | None:
        hosts = headers.get(b"host", [])
        if len(hosts) != 1 or _name(hosts[0]) not in self._hosts:
            return 421, "invalid_request_error", "invalid_request", "The admin plane is not called that."
        if b"upgrade" in headers:
            return 400, "invalid_request_error", "invalid_request", "Connections are not upgraded here."
        if b"origin" in headers:
            return 403, "invalid_request_error", "invalid_request", "Pages of other origins are refused."
        given = headers.get(b"authorization", [])
        scheme, _, secret = (given[0] if len(given) == 1 else b"").partition(b" ")
        # Compared in full whatever is given, so that time tells nothing.
        if not hmac.compare_digest(secret.strip(), self._token) or scheme.lower() != b"bearer":
            message = "The admin plane needs its token: Authorization: Bearer TOKEN (`admin.token`)."
            return 401, "authentication_error", "invalid_api_key", message
        if scope["method"] not in ("GET", "HEAD"):
            return self._about_body(headers)
        return None

    def _about_body(self, headers: dict[bytes, list[bytes]]) -> tuple[int, str, str, str] | None:
        length = headers.get(b"content-length", [])
        if b"transfer-encoding" not in headers and length in ([], [b"0"]):
            return None
        kinds = headers.get(b"content-type", [])
        if len(kinds) != 1 or kinds[0].partition(b";")[0].strip().lower() != b"application/json":
            return 415, "invalid_request_error", "invalid_request", "Send application/json."
        if len(length) != 1 or not length[0].isdigit() or int(length[0]) > self._body_bytes_max:
            message = f"Send a body with a Content-Length of at most {self._body_bytes_max} bytes."
            return 413, "invalid_request_error", "request_too_large", message
        return None


def _headers(scope: Scope) -> dict[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {}
    for name, value in scope["headers"]:
        found.setdefault(name.lower(), []).append(value)
    return found


def _name(host: bytes) -> str:
    """Give the name in a Host header: without port, in lower case."""
    text = host.decode("latin-1").lower()
    if text.startswith("["):
        return text.partition("]")[0] + "]"
    return text.partition(":")[0]


def _bug(error: Exception) -> Notice:
    """Say where it failed: type and lines, no values, since those may be anybody's text."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{frame.name} ({frame.filename.rpartition('/')[2]}:{frame.lineno})"
    return Notice(
        word="bug", message=f"The admin plane failed: {type(error).__name__} in {place}", severe=True
    )
