"""The client of a running gateway: one that does not answer is told, with what to do."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from contract.raw_server import RawServer, refused_port
from tiergate import Gateway
from tiergate.app.administering import administered
from tiergate.app.client import GatewayClient, GatewayError
from tiergate.config import Loaded, load_text
from tiergate.store import OwnerLock


def told(main: Callable[[], Awaitable[Any]]) -> str:
    """Run it, at most 10 seconds, and give what it said instead of an answer."""

    async def bounded() -> None:
        async with asyncio.timeout(10):
            await main()

    with pytest.raises(GatewayError) as raised:
        asyncio.run(bounded())
    assert raised.value.status == 504
    return str(raised.value)


def settings(folder: Path) -> Loaded:
    return load_text(f"data_dir: {folder}\nproviders: {{a: {{base_url: http://127.0.0.1:9/v1}}}}\n", {})


def test_a_gateway_that_does_not_answer_is_told(tmp_path: Path) -> None:
    """Stopped, it still takes connections: who it is, where, and how to go on."""
    with RawServer(lambda peer: peer.wait_until_gone()) as silent, OwnerLock.acquire(tmp_path) as lock:
        address = f"127.0.0.1:{silent.port}"
        lock.publish(address, "token", admin=address, admin_token="admin-token")

        async def look() -> None:
            async with administered(settings(tmp_path), {}, answer_s=0.1) as ask:
                await ask("/api/budgets", None)

        said = told(look)
    who = f"The gateway at {address} (process {os.getpid()})"
    assert said.startswith(f"{who} did not answer within 0.1 s. If it hangs")
    assert f"`kill -CONT {os.getpid()}`" in said


def test_a_change_that_was_not_answered_may_have_been_made() -> None:
    """It was sent, and nobody knows."""
    with RawServer(lambda peer: peer.wait_until_gone()) as silent:

        async def change() -> None:
            client = GatewayClient(f"127.0.0.1:{silent.port}", answer_s=0.1)
            try:
                await client.post("/api/keys", {"name": "a"})
            finally:
                await client.aclose()

        assert "Whether it has done what was asked is not known." in told(change)


def test_a_program_hears_it_before_its_first_call(tmp_path: Path) -> None:
    """A call may take an hour, so its silence would say nothing."""
    with OwnerLock.acquire(tmp_path) as lock:
        lock.publish(f"127.0.0.1:{refused_port()}", "token")

        async def enter() -> None:
            async with Gateway(settings(tmp_path), environ={}):
                pass

        assert "cannot be reached." in told(enter)
