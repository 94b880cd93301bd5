"""A provider on a plain socket that keeps every byte it was sent and answers as a test tells it to.

No HTTP library stands between, so a test sees exactly what left the gateway, credentials included.
"""

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

JSON = b"content-type: application/json\r\n"
STREAM = b"content-type: text/event-stream\r\n"


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as it arrived."""

    head: bytes
    body: bytes

    @property
    def request_line(self) -> str:
        """Method, target and version."""
        return self.head.split(b"\r\n", 1)[0].decode("latin-1")

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Names in lower case, in the order in which they came."""
        lines = [line.partition(b":") for line in self.head.split(b"\r\n")[1:] if line]
        return [(name.decode("latin-1").lower(), value.strip().decode("latin-1")) for name, _, value in lines]

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Wire:
    """The way back to the gateway on one connection."""

    def __init__(self, taken: socket.socket) -> None:
        self._socket = taken

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._socket.sendall(data)

    def begin_stream(self, more: bytes = b"") -> None:
        """Send the head of a stream of events."""
        self.send(b"HTTP/1.1 200 OK\r\n" + STREAM + more + b"transfer-encoding: chunked\r\n\r\n")

    def event(self, data: bytes) -> None:
        """Send one event in a chunk of its own."""
        frame = b"data: " + data + b"\n\n"
        self.send(b"%x\r\n%b\r\n" % (len(frame), frame))

    def end_stream(self) -> None:
        """Send the marker and the last chunk."""
        self.event(b"[DONE]")
        self.send(b"0\r\n\r\n")

    def has_left(self, timeout_s: float) -> bool:
        """Wait until the gateway closes the connection."""
        self._socket.settimeout(timeout_s)
        try:
            return self._socket.recv(1) == b""
        except ConnectionError:
            return True
        except TimeoutError:
            return False


Play = Callable[[Seen, Wire], None]


def chunk(text: str, finish: str | None = None) -> bytes:
    """Write one piece of a streamed answer."""
    choice = {"index": 0, "delta": {"content": text} if text else {}, "finish_reason": finish}
    return json.dumps(
        {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": "up", "choices": [choice]}
    ).encode()


def completion(text: str = "hello") -> bytes:
    """Write a whole answer."""
    message = {"role": "assistant", "content": text}
    return json.dumps(
        {
            "id": "c-1",
            "object": "chat.completion",
            "created": 1,
            "model": "up",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
        }
    ).encode()


def whole(body: bytes, *, status: bytes = b"200 OK", more: bytes = b"") -> bytes:
    """Write a response that is not streamed."""
    return b"HTTP/1.1 %b\r\n%b%bcontent-length: %d\r\n\r\n%b" % (status, JSON, more, len(body), body)


def answer_well(seen: Seen, wire: Wire) -> None:
    """Answer `hello`, in the form that was asked for."""
    if b'"stream":true' in seen.body:
        wire.begin_stream()
        wire.event(chunk("hello"))
        wire.event(chunk("", finish="stop"))
        wire.end_stream()
    else:
        wire.send(whole(completion()))


class Recorder:
    """A provider in threads of this process; `play` may be replaced at any time."""

    def __init__(self, play: Play = answer_well, *, tls: ssl.SSLContext | None = None) -> None:
        self.play = play
        self._tls = tls
        self.seen: list[Seen] = []
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._taken: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._accept, daemon=True)

    @property
    def url(self) -> str:
        """`http://host:port`."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._listener.getsockname()[1])

    @property
    def base_url(self) -> str:
        """What the settings of a provider want."""
        return self.url + "/v1"

    @property
    def last(self) -> Seen:
        """The last request."""
        return self.seen[-1]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Closing alone does not wake a thread that waits in `accept`.
        self._listener.shutdown(socket.SHUT_RDWR)
        for taken in tuple(self._taken):
            with contextlib.suppress(OSError):
                taken.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                taken, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._taken.add(taken)
            threading.Thread(target=self._serve, args=(taken,), daemon=True).start()

    def _serve(self, taken: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.closing(taken):
            if self._tls is not None:
                taken = self._tls.wrap_socket(taken, server_side=True)
                self._taken.add(taken)
            self._answer(taken)

    def _answer(self, taken: socket.socket) -> None:
        with contextlib.closing(taken), taken.makefile("rb") as reader:
            while (seen := _read(reader)) is not None:
                self.seen.append(seen)
                self.play(seen, Wire(taken))
                taken.settimeout(None)


def _read(reader: Any) -> Seen | None:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = reader.readline()
        if not line:
            return None
        head += line
    head = head[:-2]
    length = next(
        (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
    )
    return Seen(head, reader.read(length))
