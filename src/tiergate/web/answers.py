"""What leaves for the caller: headers of ours, replies, streams. Nothing of the upstream's headers passes."""

from collections.abc import Sequence
from typing import Any, Final

from tiergate.cache import write_status
from tiergate.core import Chunk, Origin, ReceiptUse, Reply, usd_text
from tiergate.serve import Stream
from tiergate.wire import DONE, with_cost, write_done, write_event, write_piece

Headers = tuple[tuple[bytes, bytes], ...]

_JSON: Final = (b"content-type", b"application/json")
_CACHE_STATUS: Final = b"cache-status"
_STREAM: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    # Proxies of the nginx kind hold a stream back until it is whole unless told not to.
    (b"x-accel-buffering", b"no"),
)


def reply_headers(reply: Reply) -> Headers:
    """Headers of a whole reply."""
    nanos = reply.cash_nanos
    headers = (_JSON, *_origin(reply.origin))
    return headers if nanos is None else (*headers, (b"x-tiergate-cost-usd", usd_text(nanos).encode()))


def reply_body(reply: Reply) -> bytes:
    """The upstream's reply with the cost in its usage object."""
    return with_cost(reply.data, reply.cash_nanos) if reply.with_cost is None else reply.with_cost


def stream_headers(reply: Stream) -> Headers:
    """Headers of a stream."""
    return (*_STREAM, *_origin(reply.origin))


def early_headers(call_id: str) -> Headers:
    """Headers of a stream that a heartbeat begins, before anybody has answered."""
    return (*_STREAM, (b"x-request-id", call_id.encode()))


class ChatEvents:
    """Writes a stream in the OpenAI form: the upstream's events as they came, usage with its cost.

    `says_origin`: usage also tells where the answer comes from, since the headers could not.
    """

    def __init__(self, reply: Stream, *, wants_usage: bool, says_origin: bool = False) -> None:
        self._reply = reply
        self._origin = _origin_object(reply.origin) if says_origin else None
        self._wants_usage = wants_usage

    def write(self, chunks: Sequence[Chunk]) -> bytes:
        """Write what arrived together."""
        return b"".join([self._event(chunk) for chunk in chunks])

    def end(self) -> bytes:
        """Write the terminal marker of a complete answer."""
        return write_event(DONE)

    def _event(self, chunk: Chunk) -> bytes:
        if chunk.usage is None and not chunk.bare_usage:
            return write_event(chunk.data)
        if chunk.bare_usage and not self._wants_usage:
            return b""
        return write_event(with_cost(chunk.data, self._reply.cash_nanos, origin=self._origin))


class PlainEvents:
    """Writes a stream in the plain form of `/v1/chat/stream`."""

    def __init__(self, reply: Stream, *, says_origin: bool = False) -> None:
        self._reply = reply
        self._origin = _origin_object(reply.origin) if says_origin else None

    def write(self, chunks: Sequence[Chunk]) -> bytes:
        """Write the text that arrived together; chunks without text are left out."""
        return b"".join([write_piece(chunk.text) for chunk in chunks if chunk.text])

    def end(self) -> bytes:
        """Write the account of a complete answer."""
        end = self._reply.end()
        return write_done(
            usage=end.usage,
            ttft_ms=end.ttft_ms,
            latency_ms=end.latency_ms,
            cash_nanos=end.cash_nanos,
            origin=self._origin,
        )


def _origin_object(origin: Origin) -> dict[str, Any]:
    said: dict[str, Any] = {"target": origin.target.name, "tier": origin.tier, "attempts": origin.attempts}
    if origin.cache is not None:
        said["cache"] = write_status(origin.cache).decode()
    return said


def _origin(origin: Origin) -> Headers:
    # A model name may hold anything a settings file or a caller can write; a header may not.
    headers: Headers = (
        (b"x-request-id", origin.call_id.encode()),
        (b"x-tiergate-target", header_text(origin.target.name)),
        (b"x-tiergate-tier", origin.tier.encode()),
        (b"x-tiergate-attempts", b"%d" % origin.attempts),
    )
    if origin.receipt is not None:
        headers += _receipt(origin, origin.receipt)
    if origin.cache is not None:
        headers += ((_CACHE_STATUS, write_status(origin.cache)),)
    if origin.age_s is not None:
        headers += ((b"age", b"%d" % origin.age_s),)
    return headers


def _receipt(origin: Origin, use: ReceiptUse) -> Headers:
    """Say what an Idempotency-Key came to, in our word and in those of RFC 9211."""
    said = ((b"x-tiergate-receipt", use.encode()),)
    match use:
        case ReceiptUse.REPLAYED:
            return (*said, (_CACHE_STATUS, b"tiergate; hit; detail=receipt"))
        case ReceiptUse.JOINED:
            return (*said, (_CACHE_STATUS, b"tiergate; fwd=miss; collapsed; detail=receipt"))
        case _:
            return said


def header_text(text: str) -> bytes:
    """Give a text as a header value: printable ASCII, everything else as `?`, at most 200 characters."""
    shown = text[:200]
    if shown.isascii() and shown.isprintable():
        return shown.encode()
    return "".join(c if " " <= c <= "~" else "?" for c in shown).encode()
