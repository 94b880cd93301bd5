"""Requests, read from the bytes of a connection."""

from dataclasses import dataclass
from typing import Final

import httptools

BODY_BYTES_MAX: Final = 256 << 20


@dataclass(slots=True, kw_only=True)
class Request:
    """A request that was read whole. Header names are in lower case; of several the last one counts."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    http_1_1: bool
    keep_alive: bool
    connection: int
    raw: bytes | None = None
    """All of its bytes, where they arrived together and with no others."""


class Unreadable(Exception):
    """What came is no request that can be answered; `status` says how to refuse it."""

    def __init__(self, status: int) -> None:
        super().__init__(f"refuse with {status}")
        self.status = status


class RequestReader:
    """Takes bytes as they come and gives requests as they are whole. The `on_` methods are the parser's."""

    def __init__(self, connection: int) -> None:
        self._connection = connection
        self._parser = httptools.HttpRequestParser(self)
        self._whole: list[Request] = []
        self._draft = _Draft()
        self._reading = False

    @property
    def between(self) -> bool:
        """No part of a request has come that is not whole yet."""
        return not self._reading

    def feed(self, data: bytes) -> list[Request]:
        """Take the next bytes, and give the requests that they complete.

        Raises:
            Unreadable: no HTTP, or a body that is too large.
        """
        alone = self.between
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # An offer to speak something else. The request is answered in HTTP/1.1, and is the last one.
            if self._whole:
                self._whole[-1].keep_alive = False
        except httptools.HttpParserError as error:
            raise Unreadable(400) from error
        if self._draft.body_size > BODY_BYTES_MAX:
            raise Unreadable(413)
        whole, self._whole = self._whole, []
        if alone and len(whole) == 1 and self.between:
            whole[0].raw = data
        return whole

    def wants_permission(self) -> bool:
        """Say, once, that the client holds its body back until it is told to go on."""
        draft = self._draft
        wants = draft.holds_back and draft.body_size == 0
        draft.holds_back = False
        return wants

    def on_message_begin(self) -> None:
        """A request begins."""
        self._reading = True

    def on_url(self, url: bytes) -> None:
        """A part of its target."""
        self._draft.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer."""
        self._draft.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Now the body."""
        self._draft.holds_back = self._draft.headers.get("expect", "").lower() == "100-continue"

    def on_body(self, body: bytes) -> None:
        """A part of it."""
        self._draft.body.append(body)
        self._draft.body_size += len(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        draft, self._draft = self._draft, _Draft()
        self._reading = False
        self._whole.append(
            Request(
                method=self._parser.get_method().decode("latin-1"),
                path=draft.url.partition(b"?")[0].decode("latin-1"),
                headers=draft.headers,
                body=draft.body[0] if len(draft.body) == 1 else b"".join(draft.body),
                http_1_1=self._parser.get_http_version() == "1.1",
                keep_alive=self._parser.should_keep_alive(),
                connection=self._connection,
            )
        )


class _Draft:
    """The parts of a request, as far as they have come."""

    __slots__ = ("body", "body_size", "headers", "holds_back", "url")

    def __init__(self) -> None:
        self.url = b""
        self.headers: dict[str, str] = {}
        self.holds_back = False
        self.body: list[bytes] = []
        self.body_size = 0
