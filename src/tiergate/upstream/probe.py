"""Asks the servers of a provider for their models: shows whether they are reached, and costs nothing."""

import asyncio
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from time import monotonic
from typing import Any, Final

from tiergate.core import Target, UpstreamError, UpstreamFault
from tiergate.upstream import translation
from tiergate.upstream.provider import Provider
from tiergate.upstream.transport import Endpoint, Response, Timing, Transport
from tiergate.wire import loads, read_error

PROBE_S: Final = 10.0
_BODY_BYTES_MAX: Final = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What one server said, or why it was not reached.

    Attributes:
        server: host and port.
        status: of its answer; None: there was none.
        failure: why there was none, or what a refusal means.
        models: what it lists; None where its answer is no list.
        took_ms: until its answer was there, connecting included.
        ahead_s: how far its clock is ahead of ours, by its Date header; None where it sends none.
    """

    server: str
    status: int | None
    failure: UpstreamError | None
    models: tuple[str, ...] | None
    took_ms: float
    ahead_s: float | None


async def probe(provider: Provider, transport: Transport) -> Sequence[Probe]:
    """Ask every server of a provider, at the same time."""
    return await asyncio.gather(*[_probe(provider, url, transport) for url in provider.base_urls])


async def _probe(provider: Provider, base_url: str, transport: Transport) -> Probe:
    origin, path = provider.place(base_url)
    headers = [("accept", "application/json"), ("accept-encoding", "identity")]
    if provider.credential is not None:
        headers.append(("authorization", f"Bearer {provider.credential.secret}"))
    endpoint = Endpoint(
        label=provider.name, origin=origin, path=f"{path}/models", method="GET", headers=tuple(headers)
    )
    began = monotonic()
    status, failure, models, ahead_s = None, None, None, None
    try:
        response = await transport.send(endpoint, b"", timing=Timing(began + PROBE_S))
        with closing(response):
            status, ahead_s = response.status, _ahead_s(response)
            body = await _body(response)
        if 200 <= status < 300:
            models = _names(body)
        else:
            failure = _refusal(provider, response, body)
    except UpstreamError as error:
        failure = error
    return Probe(
        server=origin.authority,
        status=status,
        failure=failure,
        models=models,
        took_ms=(monotonic() - began) * 1e3,
        ahead_s=ahead_s,
    )


def _refusal(provider: Provider, response: Response, body: bytes) -> UpstreamError:
    target = Target(provider=provider.name, model="", tier=provider.tier)
    if response.status in (404, 405, 501):
        return UpstreamFault(f"{provider.name} does not list its models ({response.status}).")
    return translation.refusal(
        response.status, response.headers, read_error(body), target=target, provider=provider
    )


async def _body(response: Response) -> bytes:
    pieces, size = [], 0
    while size < _BODY_BYTES_MAX and (piece := await response.next_piece()) is not None:
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces)


def _names(body: bytes) -> tuple[str, ...] | None:
    try:
        listed: Any = loads(body)
        return tuple(row["id"] for row in listed["data"] if isinstance(row["id"], str))
    except (ValueError, TypeError, KeyError):
        return None


def _ahead_s(response: Response) -> float | None:
    try:
        date = parsedate_to_datetime(response.headers.get(b"date", b"").decode("latin-1"))
    except (ValueError, IndexError, OverflowError):
        return None
    aware = date if date.tzinfo is not None else date.replace(tzinfo=UTC)
    return (aware - datetime.now(UTC)).total_seconds()
