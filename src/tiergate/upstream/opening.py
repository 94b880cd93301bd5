"""Which transport is used: ours, unless another one was selected."""

from typing import Literal

from tiergate.core import CannotStart
from tiergate.upstream.http1 import Http1Transport
from tiergate.upstream.transport import Transport


def open_transport(kind: Literal["http1", "aiohttp"] = "http1") -> Transport:
    """Make a transport.

    Raises:
        CannotStart: aiohttp was selected and is not installed.
    """
    if kind == "http1":
        return Http1Transport()
    try:
        # Only here, so that nobody who does not select it needs it or waits for its import.
        from tiergate.upstream.aiohttp_transport import AiohttpTransport
    except ImportError as error:
        raise CannotStart(
            "The aiohttp transport needs its extra: pip install 'tiergate[aiohttp]'."
        ) from error
    return AiohttpTransport()
