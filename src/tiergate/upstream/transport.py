"""The port between what is said to a server and the bytes that say it: one request, one response.

A transport follows no redirect, reads no environment and knows no dialect. It gives every status as it
came, with the body as it came, and says of each failure whether the server can have seen the request.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, Protocol

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
_TARGET_PATH: Final = re.compile(r"/[\x21-\x7e]*")
_HOST: Final = re.compile(r"[0-9A-Za-z._:-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """A server, and how it is connected to. Connections are shared by those who name an equal origin.

    `host` is a name or an address without brackets. `ca_file` holds the issuers to trust in place of the
    system's; TLS is always verified.
    """

    scheme: Literal["http", "https"]
    host: str
    port: int
    ca_file: str | None = None
    max_connections: int = 1024

    def __post_init__(self) -> None:
        if self.scheme not in ("http", "https"):
            raise ValueError(f"The scheme {self.scheme!r} is not http or https.")
        if not _HOST.fullmatch(self.host):
            raise ValueError(f"{self.host!r} is not a host name.")
        if not 0 < self.port < 65536:
            raise ValueError(f"{self.port} is not a port.")
        if self.max_connections < 1:
            raise ValueError("max_connections must be at least 1.")

    @property
    def authority(self) -> str:
        """`host:port`, for people."""
        return f"{self._bracketed}:{self.port}"

    @property
    def host_header(self) -> str:
        """What the Host header says: the port only where it is not the scheme's own."""
        usual = 443 if self.scheme == "https" else 80
        return self._bracketed if self.port == usual else self.authority

    @property
    def _bracketed(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where requests go and what is the same in each of them; made once, used for every call.

    The headers belong to the origin, so a credential among them cannot reach another one. `label` names
    the server in messages, which may reach callers: it holds no address.
    """

    label: str
    origin: Origin
    path: str
    method: str = "POST"
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    head: bytes = field(init=False, repr=False, compare=False)
    """Request line and headers as they go out, without Content-Length and the empty line."""

    def __post_init__(self) -> None:
        if not _TOKEN.fullmatch(self.method) or not _TARGET_PATH.fullmatch(self.path):
            raise ValueError(f"{self.path[:200]!r} is not a path that can be requested.")
        for name, value in self.headers:
            # The value is not shown: it may be a credential.
            if not _TOKEN.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
                raise ValueError(f"The header {name[:100]!r} has a character that no header may have.")
        lines = [f"{self.method} {self.path} HTTP/1.1", f"host: {self.origin.host_header}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        object.__setattr__(self, "head", "\r\n".join([*lines, ""]).encode("ascii"))


class Timing(NamedTuple):
    """How long one exchange may take. A tuple and no dataclass: one is made for every call."""

    deadline: float
    """End of it all, on the monotonic clock."""
    first_event_s: float | None = None
    """From the request to the first byte of the body; None: only the deadline."""
    idle_s: float | None = None
    """Between pieces of the body, counted only while the reader waits; None: only the deadline."""


def nobody_asks() -> None:
    """Take no notice that a request leaves."""


class Response(Protocol):
    """A response whose head has arrived; its body comes by pieces.

    One reader at a time. Cancelling the reader while it waits closes the response.
    """

    @property
    def status(self) -> int:
        """The status code, 200 to 999."""
        ...

    @property
    def headers(self) -> Mapping[bytes, bytes]:
        """Names in lower case; a repeated header's values are joined by commas."""
        ...

    async def next_piece(self) -> bytes | None:
        """Wait for what arrives next; None: the body has ended as its framing says.

        Raises:
            UpstreamTimeout: the time for a first byte, between pieces or in all is over.
            UpstreamInterrupted: the body broke off.
            UpstreamProtocolError: what came is not HTTP.
        """
        ...

    def leave(self, within_s: float) -> None:
        """Stop reading: the connection is kept if the body ends within this time, else dropped."""
        ...

    def close(self) -> None:
        """Free the connection at once; the server sees it. May be called at any time, any number of times."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginStatistics:
    """One origin's connections now: open ones are idle or in flight; and calls that wait for one."""

    origin: Origin
    open: int
    idle: int
    in_flight: int
    waiting: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportStatistics:
    """A transport's connections now, and how many it ever opened."""

    origins: tuple[OriginStatistics, ...]
    opened: int


class Transport(Protocol):
    """Carries requests to servers."""

    async def send(
        self, endpoint: Endpoint, body: bytes, *, timing: Timing, mark_sent: Callable[[], None] = nobody_asks
    ) -> Response:
        """Send a request and wait for the head of its response, whatever its status.

        `mark_sent` is called right before the first byte may leave, and not where none does.

        Cancelling frees the connection at once.

        Raises:
            UpstreamUnreachable: no connection.
            UpstreamTimeout: no free connection, no connection or no response in time.
            UpstreamInterrupted: the connection was closed before the response.
            UpstreamProtocolError: what came is not HTTP, or not the HTTP that we speak.
        """
        ...

    def statistics(self) -> TransportStatistics:
        """What is open now."""
        ...

    async def aclose(self) -> None:
        """Close every connection, used or not."""
        ...
