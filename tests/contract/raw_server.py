"""A server of raw sockets that does what its script says, byte by byte; no HTTP framework corrects it.

It runs in threads of its own, so it goes on while the loop under test is blocked, and is the same for
every loop. A script is a function of a `Peer`; the nth connection runs the nth script, and further ones
run the last. Whatever a script raises fails the test when the server is left.
"""

import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from typing import NamedTuple, Self

GUARD_S = 8.0
"""No wait in a script is longer."""


class Received(NamedTuple):
    """A request as it was read."""

    line: str
    headers: list[tuple[str, str]]
    """Names in lower case, in the order of arrival."""
    body: bytes

    def header(self, name: str) -> str | None:
        return dict(self.headers).get(name)


class Peer:
    """One accepted connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.requests: list[Received] = []
        self.taken = 0
        """Bytes that the kernel took from `send_all_it_takes`."""
        self.dropped = 0
        """Bytes that `wait_until_gone` read and threw away."""
        self.gone_at: float | None = None
        """When the other side's leaving was seen, on the monotonic clock."""
        self._unread = b""
        sock.settimeout(GUARD_S)

    def request(self) -> Received:
        """Read one whole request."""
        while b"\r\n\r\n" not in self._unread:
            self._read()
        head, _, rest = self._unread.partition(b"\r\n\r\n")
        line, *fields = head.decode("latin-1").split("\r\n")
        headers = [
            (name.lower(), value.strip()) for name, _, value in (field.partition(":") for field in fields)
        ]
        length = int(dict(headers).get("content-length", "0"))
        self._unread = rest
        while len(self._unread) < length:
            self._read()
        body, self._unread = self._unread[:length], self._unread[length:]
        received = Received(line, headers, body)
        self.requests.append(received)
        return received

    def send(self, data: bytes, *, slice_bytes: int | None = None, pause_s: float = 0.0) -> None:
        """Send, in slices and with pauses if asked."""
        step = slice_bytes or len(data) or 1
        for start in range(0, len(data), step):
            self.sock.sendall(data[start : start + step])
            if pause_s:
                time.sleep(pause_s)

    def send_all_it_takes(self, data: bytes, *, patience_s: float) -> None:
        """Send until it is all taken, or until nothing was taken for some time."""
        self.sock.settimeout(patience_s)
        with contextlib.suppress(TimeoutError):
            while self.taken < len(data):
                self.taken += self.sock.send(data[self.taken : self.taken + 65536])
        self.sock.settimeout(GUARD_S)

    def reset(self) -> None:
        """Close with a reset in place of a goodbye."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        """Close in order: the other side reads to the end."""
        self.sock.close()

    def wait_until_gone(self) -> None:
        """Wait until the other side leaves; what it sends before is dropped."""
        try:
            while data := self.sock.recv(1 << 20):
                self.dropped += len(data)
        except (ConnectionError, ssl.SSLError):
            pass
        self.gone_at = time.monotonic()

    def _read(self) -> None:
        data = self.sock.recv(1 << 20)
        if not data:
            raise EOFError("the client left in the middle of a request, or sent none")
        self._unread += data


Script = Callable[[Peer], None]


class RawServer:
    """Listens on a port of the kernel's choice while the context lasts."""

    def __init__(self, *scripts: Script, tls: ssl.SSLContext | None = None, backlog: int = 64) -> None:
        self.peers: list[Peer] = []
        self.errors: list[BaseException] = []
        self._scripts = scripts
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=backlog)
        self.port: int = self._listener.getsockname()[1]
        self._threads: list[threading.Thread] = []
        self._leaving = False

    def __enter__(self) -> Self:
        if self._scripts:
            self._start(self._accept)
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._leaving = True
        if self._scripts:
            # A thread that blocks in accept() is not woken by close(), but by a connection.
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        for thread in self._threads:
            thread.join(GUARD_S)
        self._listener.close()
        for peer in self.peers:
            peer.sock.close()
        if self.errors and error is None:
            raise self.errors[0]

    @property
    def requests(self) -> list[Received]:
        """All requests, by connection."""
        return [request for peer in self.peers for request in peer.requests]

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            sock, _ = self._listener.accept()
            if self._leaving:
                sock.close()
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            script = self._scripts[min(len(self.peers), len(self._scripts) - 1)]
            peer = Peer(sock)
            self.peers.append(peer)
            self._start(self._serve, peer, script)

    def _serve(self, peer: Peer, script: Script) -> None:
        try:
            if self._tls is not None:
                peer.sock = self._tls.wrap_socket(peer.sock, server_side=True)
                peer.sock.settimeout(GUARD_S)
            script(peer)
        except ssl.SSLError:
            pass  # what a refused certificate looks like from here
        except (OSError, EOFError, AssertionError, ValueError) as error:
            self.errors.append(error)
        finally:
            peer.sock.close()


def reply(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """A response with its length."""
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def chunked(*pieces: bytes, headers: tuple[str, ...] = (), end: bool = True) -> bytes:
    """A chunked response; without `end` its last chunk is missing."""
    lines = ["HTTP/1.1 200 OK", *headers, "Transfer-Encoding: chunked", "", ""]
    return (
        "\r\n".join(lines).encode("latin-1") + b"".join(map(chunk, pieces)) + (b"0\r\n\r\n" if end else b"")
    )


def chunk(piece: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(piece), piece)


def answers(*replies: bytes) -> Script:
    """Answer each request with the next of these, then wait until the client leaves."""

    def script(peer: Peer) -> None:
        for data in replies:
            peer.request()
            peer.send(data)
        peer.wait_until_gone()

    return script


def silent(peer: Peer) -> None:
    """Read a request and never answer."""
    peer.request()
    peer.wait_until_gone()


def refused_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])
