"""Reads many streams at once and tells how late their chunks were; see stream_upstream.py for what they hold.

    python benchmarks/stream_client.py PORT STREAMS SECONDS < request.json

The request is `{"path", "headers", "body"}`. Connections open over two seconds, each asks again when its stream
has ended; what arrives in the first four seconds warms up and is not counted. Prints one JSON object.
"""

import asyncio
import json
import re
import sys
import time
from math import ceil
from typing import Any, Final, cast

import uvloop

RAMP_S: Final = 2.0
WARM_S: Final = 4.0

_STAMP: Final = re.compile(rb'"content":"at (\d+) ')


class Reader(asyncio.Protocol):
    """One connection that asks for one stream after another."""

    delays_ns: Final[list[int]] = []
    counted_from = 0.0
    ended = 0
    broken = 0
    over = False

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        # uvloop's transports are none by inheritance.
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        """Take the stamps of what arrived; a stamp may be cut by the end of a read."""
        now_ns = time.monotonic_ns()
        if now_ns > Reader.counted_from:
            Reader.delays_ns.extend([now_ns - int(at) for at in _STAMP.findall(self.tail + data)])
        self.tail = data[-32:] if not data.endswith(b"\n\r\n") else b""
        if data.endswith(b"0\r\n\r\n"):
            Reader.ended += 1
            self.tail = b""
            if not Reader.over:
                self.transport.write(self.request)

    def connection_lost(self, error: Exception | None) -> None:
        """A stream of ours never ends by closing."""
        if not Reader.over:
            Reader.broken += 1


async def main(port: int, streams: int, seconds: float) -> None:
    """Run and report."""
    asked: dict[str, Any] = json.load(sys.stdin)
    body = json.dumps(asked["body"], separators=(",", ":")).encode()
    head = [f"POST {asked['path']} HTTP/1.1", f"host: 127.0.0.1:{port}", f"content-length: {len(body)}"]
    head += [f"{name}: {value}" for name, value in asked["headers"].items()]
    request = "\r\n".join(head).encode() + b"\r\n\r\n" + body
    loop = asyncio.get_running_loop()
    start = loop.time()
    Reader.counted_from = time.monotonic_ns() + WARM_S * 1e9
    transports = []
    for number in range(streams):
        await asyncio.sleep(max(0, start + RAMP_S * number / streams - loop.time()))
        transport, _ = await loop.create_connection(lambda: Reader(request), "127.0.0.1", port)
        transports.append(transport)
    await asyncio.sleep(start + WARM_S + seconds - loop.time())
    Reader.over = True
    for transport in transports:
        transport.abort()
    delays = sorted(Reader.delays_ns)
    count = len(delays)
    print(
        json.dumps(
            {
                "chunks_per_s": count / seconds,
                "p50_ms": delays[ceil(0.5 * count) - 1] / 1e6 if delays else None,
                "p99_ms": delays[ceil(0.99 * count) - 1] / 1e6 if delays else None,
                "ended": Reader.ended,
                "broken": Reader.broken,
            }
        )
    )


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
