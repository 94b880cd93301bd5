"""An upstream for measuring streams: 100 chunks each, one every 20 ms, for as many streams as are asked for.

Each chunk's text is the moment at which it was sent (monotonic nanoseconds of this machine), so whoever reads
it knows how late it is. Streams take turns in ten phases of 2 ms, so that a thousand of them cost a fraction of a
core and yet do not all speak at once. Prints `ready` and serves until its standard input ends.
"""

import asyncio
import sys
import time
from typing import Final, cast

import uvloop

CHUNKS: Final = 100
PHASES: Final = 10
PHASE_S: Final = 0.002

_HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def _event(data: bytes) -> bytes:
    framed = b"data: " + data + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(framed), framed)


_CHUNK: Final = (
    b'{"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1767225600,"model":"m",'
    b'"choices":[{"index":0,"delta":{"content":"at %d "},"logprobs":null,"finish_reason":null}]}'
)
_LAST: Final = (
    _event(
        b'{"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1767225600,"model":"m",'
        b'"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}'
    )
    + _event(
        b'{"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1767225600,"model":"m",'
        b'"choices":[],"usage":{"prompt_tokens":20,"completion_tokens":100,"total_tokens":120}}'
    )
    + _event(b"[DONE]")
    + b"0\r\n\r\n"
)


class Stream(asyncio.Protocol):
    """One connection; each request on it starts a stream at the next tick."""

    running: Final[tuple[dict["Stream", int], ...]] = tuple({} for _ in range(PHASES))
    count = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the way back."""
        # uvloop's transports are none by inheritance.
        self.transport = cast("asyncio.Transport", transport)
        self.waiting = b""
        self.phase = Stream.running[Stream.count % PHASES]
        Stream.count += 1

    def data_received(self, data: bytes) -> None:
        """Start a stream when a whole request is here; requests are not pipelined."""
        self.waiting += data
        head, end, body = self.waiting.partition(b"\r\n\r\n")
        if not end:
            return
        length = 0
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        if head.startswith(b"GET"):
            # A router asks how its servers are.
            self.waiting = b""
            self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
            return
        if len(body) >= length:
            self.waiting = b""
            self.transport.write(_HEAD)
            self.phase[self] = 0

    def connection_lost(self, error: Exception | None) -> None:
        """Forget the stream."""
        self.phase.pop(self, None)


async def _tick() -> None:
    loop = asyncio.get_running_loop()
    due, turn = loop.time(), 0
    while True:
        due += PHASE_S
        await asyncio.sleep(max(0, due - loop.time()))
        turn = (turn + 1) % PHASES
        running = Stream.running[turn]
        for stream, sent in list(running.items()):
            stream.transport.write(_event(_CHUNK % time.monotonic_ns()))
            if sent + 1 < CHUNKS:
                running[stream] = sent + 1
            else:
                stream.transport.write(_LAST)
                del running[stream]


async def main(port: int) -> None:
    """Serve until standard input ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Stream, "127.0.0.1", port, backlog=4096)
    ticking = asyncio.create_task(_tick())
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    ticking.cancel()
    server.close()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
