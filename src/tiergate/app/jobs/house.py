"""The house that works a batch: one that is named, the one that owns the data folder, or this process."""

import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from tiergate.app.client import GatewayClient
from tiergate.app.house import open_house
from tiergate.app.serving import opened_doors
from tiergate.config import Address, Loaded
from tiergate.core import CannotStart, Event, Notice
from tiergate.store import find_owner

_ANSWER_S: Final = 600.0
"""For a document: a part of a large input may be sent over a slow line."""
_LOOPBACK: Final = Address("127.0.0.1:0")


class BatchHouse(NamedTuple):
    """How to reach the house, and whether it is this process: it then ends with it."""

    client: GatewayClient
    is_ours: bool
    where: str
    """For people."""


@asynccontextmanager
async def batch_house(
    loaded: Loaded | None, environ: Mapping[str, str], *, gateway: str | None, works: bool = False
) -> AsyncIterator[BatchHouse]:
    """Find the house, or become it.

    Args:
        loaded: the settings; None where a gateway is named.
        environ: has the key for that one, as `TIERGATE_API_KEY`.
        gateway: its URL; None: the one on this machine.
        works: whether batches are worked here, where this process becomes it.

    Raises:
        CannotStart: it cannot be.
    """
    if gateway is not None:
        client = _at(gateway, environ.get("TIERGATE_API_KEY"))
        try:
            yield BatchHouse(client, is_ours=False, where=gateway)
        finally:
            await client.aclose()
        return
    assert loaded is not None
    owner = find_owner(loaded.settings.data_dir)
    if owner is not None:
        if owner.address is None:
            raise CannotStart(
                f"Process {owner.pid} owns the data folder {loaded.settings.data_dir} and takes no batches "
                "yet. Try again when it has started, or has ended."
            )
        client = GatewayClient(owner.address, token=owner.token, pid=owner.pid, answer_s=_ANSWER_S)
        try:
            yield BatchHouse(client, is_ours=False, where=f"the gateway at {owner.address}")
        finally:
            await client.aclose()
        return
    async with (
        open_house(loaded, environ=environ, emit=_say_if_severe, works_batches=works) as house,
        opened_doors(house, listen=_LOOPBACK, admin_listen=_LOOPBACK) as doors,
    ):
        client = GatewayClient(doors.address, token=house.token, answer_s=_ANSWER_S)
        try:
            yield BatchHouse(client, is_ours=True, where="this process")
        finally:
            await client.aclose()
            await house.batches.shifts.aclose()


def _at(url: str, key: str | None) -> GatewayClient:
    try:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        raise _no_address(url) from error
    is_plain = parts.path.rstrip("/") in ("", "/v1") and not parts.query and parts.username is None
    if parts.scheme not in ("http", "https") or not parts.hostname or not is_plain:
        raise _no_address(url)
    key = (key or "").strip()
    if not (key.isascii() and key.isprintable()):
        raise CannotStart("TIERGATE_API_KEY holds something that no key has. Copy the key again.")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return GatewayClient(
        f"{host}:{port}",
        token=key or None,
        answer_s=_ANSWER_S,
        scheme="https" if parts.scheme == "https" else "http",
    )


def _no_address(url: str) -> CannotStart:
    return CannotStart(
        f"{url!r} is no address of a gateway. Give one such as https://gateway.example:4400, and its key in "
        "the environment as TIERGATE_API_KEY."
    )


def _say_if_severe(event: Event) -> None:
    if isinstance(event, Notice) and event.severe:
        os.write(sys.stderr.fileno(), f"note: {event.message}\n".encode())
