"""What the fault tests share: ports that are closed, and a decoy that must never be called."""

import socket
from collections.abc import Iterator

import pytest

from flow.recorder import Recorder


@pytest.fixture(scope="session")
def closed_port() -> Iterator[int]:
    """A port that is taken and does not listen: connecting is refused, and nobody else can get it."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@pytest.fixture(scope="module")
def decoy() -> Iterator[Recorder]:
    """Somebody else's server. Nothing may ever arrive there; looked at again when the module ends."""
    with Recorder() as server:
        yield server
        assert server.connections == 0
