"""HTTP by hand against a running gateway: every byte that is sent and received is the test's own."""

import contextlib
import json
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

LAST_CHUNK = b"0\r\n\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back for one request."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    """Without the framing of chunks."""
    whole: bool
    """It ended as its framing says: a reader of bytes cannot take a part for the whole."""
    raw: bytes

    def header(self, name: str) -> str | None:
        """Give a header that comes at most once."""
        found = [value for other, value in self.headers if other == name]
        assert len(found) < 2, f"{name} came {len(found)} times"
        return found[0] if found else None

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error object, whose shape is checked."""
        said = self.json
        assert set(said) == {"error"}
        assert set(said["error"]) == {"message", "type", "param", "code"}
        return dict(said["error"])

    @property
    def events(self) -> list[str]:
        """The data of each event."""
        return events_of(self.body)

    @property
    def call_id(self) -> str:
        """The id that the log and the ledger use."""
        found = self.header("x-request-id")
        assert found
        return found


def events_of(body: bytes) -> list[str]:
    """Give the data of each event in a stream; comments are passed over, as clients do."""
    blocks = body.decode().split("\n\n")
    return [block.removeprefix("data: ") for block in blocks if block and not block.startswith(":")]


def request(
    target: str,
    body: bytes | dict[str, Any] | None = None,
    *,
    method: str | None = None,
    headers: Sequence[tuple[str, str]] = (),
    host: str | None = "localhost",
) -> bytes:
    """Write a well-formed request; dictionaries are sent as JSON."""
    data = json.dumps(body).encode() if isinstance(body, dict) else body
    names = {name.lower() for name, _ in headers}
    lines = [f"{method or ('GET' if data is None else 'POST')} {target} HTTP/1.1"]
    lines += [] if host is None else [f"Host: {host}"]
    if data is not None:
        lines.append(f"Content-Length: {len(data)}")
        lines += [] if "content-type" in names else ["Content-Type: application/json"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (data or b"")


def bearer(key: str) -> tuple[str, str]:
    """Write the header of a key."""
    return "Authorization", f"Bearer {key}"


def ask(
    port: int,
    target: str,
    body: bytes | dict[str, Any] | None = None,
    *,
    method: str | None = None,
    headers: Sequence[tuple[str, str]] = (),
    host: str | None = "localhost",
    timeout_s: float = 15.0,
) -> Answer:
    """Send one request on a connection of its own and read its answer to the end."""
    sent = request(target, body, method=method, headers=[*headers, ("Connection", "close")], host=host)
    return read_answer(talk(port, sent, timeout_s=timeout_s), to_head=method == "HEAD")


def talk(port: int, sent: bytes, *, timeout_s: float = 15.0) -> bytes:
    """Send bytes and give everything that comes back until the connection ends."""
    with Connection(port, timeout_s=timeout_s) as connection:
        connection.send(sent)
        return connection.read_to_end()


class Connection:
    """A socket to the gateway."""

    def __init__(self, port: int, *, timeout_s: float = 15.0) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""
        self.was_reset = False

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes; a gateway that has closed already is no error."""
        with contextlib.suppress(ConnectionError):
            self._socket.sendall(data)

    def read_some(self) -> bool:
        """Wait for the next bytes; False when the connection has ended."""
        try:
            data = self._socket.recv(65536)
        except ConnectionError:
            self.was_reset = True
            return False
        self.received += data
        return bool(data)

    def read_until(self, marker: bytes) -> bytes:
        """Read until the marker was received."""
        while marker not in self.received:
            assert self.read_some(), f"ended before {marker!r}: {self.received[-500:]!r}"
        return self.received

    def read_to_end(self) -> bytes:
        """Read until the connection ends."""
        while self.read_some():
            pass
        return self.received

    def read_answer(self) -> Answer:
        """Read one answer with Content-Length, and leave what follows."""
        self.read_until(b"\r\n\r\n")
        head, _, rest = self.received.partition(b"\r\n\r\n")
        _, headers = _head(head)
        length = int(dict(headers)["content-length"])
        while len(rest) < length:
            assert self.read_some(), "ended within an answer"
            rest = self.received.partition(b"\r\n\r\n")[2]
        raw, self.received = head + b"\r\n\r\n" + rest[:length], rest[length:]
        return read_answer(raw)

    def stop_sending(self) -> None:
        """Say that nothing more comes."""
        self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> float:
        """Leave now; give the time of day."""
        self._socket.close()
        return time.time()


@contextlib.contextmanager
def asking(
    port: int, target: str, body: dict[str, Any], *, headers: Sequence[tuple[str, str]] = ()
) -> Iterator[Connection]:
    """Send a request and leave its answer to be read piece by piece."""
    with Connection(port) as connection:
        connection.send(request(target, body, headers=headers))
        yield connection


def read_answer(raw: bytes, *, to_head: bool = False) -> Answer:
    """Read an answer that was received up to the end of its connection."""
    head, separator, rest = raw.partition(b"\r\n\r\n")
    assert separator, f"no whole head: {raw[:500]!r}"
    status, headers = _head(head)
    names = dict(headers)
    if names.get("transfer-encoding") == "chunked":
        body, is_whole = _unchunked(rest)
    else:
        body = rest
        is_whole = to_head or status in (204, 304) or len(rest) == int(names.get("content-length", -1))
    return Answer(status=status, headers=headers, body=body, whole=is_whole, raw=raw)


def _head(head: bytes) -> tuple[int, tuple[tuple[str, str], ...]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return int(first.split()[1]), tuple((name.lower(), value.strip()) for name, _, value in pairs)


def _unchunked(rest: bytes) -> tuple[bytes, bool]:
    body = b""
    while True:
        size_line, separator, rest = rest.partition(b"\r\n")
        if not separator:
            return body, False
        size = int(size_line, 16)
        if size == 0:
            return body, rest == b"\r\n"
        body += rest[:size]
        rest = rest[size + 2 :]
