"""One connection to the admin plane: uvicorn's, with a time for each exchange.

uvicorn looks at the time between exchanges only: silence, headers or a body that drip, and an answer that
nobody reads would each hold a connection for as long as its client likes.
"""

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class BoundedConnection(HttpToolsProtocol):
    """Ends when an exchange takes too long, counted from the connection or from the answer before it.

    How long that is stands in the server's configuration, as `exchange_s`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._exchange_s: float = cast("Any", self.config).exchange_s
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Begin to count."""
        super().connection_made(transport)
        self._count()

    def on_response_complete(self) -> None:
        """Count anew. What the client has not read of the answer counts as the next exchange."""
        super().on_response_complete()
        self._count()

    def connection_lost(self, exc: Exception | None) -> None:
        """Count no more."""
        super().connection_lost(exc)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _count(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        # Not closed in order: that would wait until what was written is read.
        self._timer = self.loop.call_later(self._exchange_s, self.transport.abort)
