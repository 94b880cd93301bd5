"""What serve needs from outside: one method that sends a question to a target."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from tiergate.core import Allowances, Chunk, Target


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What one attempt sends, and how long it may take.

    `body` is the caller's own object; the upstream renders it with the target's model name and what stands in
    `beside`, asks for usage in streams, and changes nothing else. Times are seconds; `deadline` is on the
    monotonic clock.
    """

    call_id: str
    target: Target
    body: Mapping[str, Any]
    beside: Mapping[str, Any] = {}
    """Fields that the settings let the provider have beside the caller's own."""
    streamed: bool
    deadline: float
    first_event_s: float
    idle_s: float
    mark_sent: Callable[[], None]
    """The upstream calls it right before the first byte may leave, and not where none does."""


class Exchange(Protocol):
    """A question that was answered with a beginning; the rest arrives by iteration.

    Each step gives the chunks that arrived together, at least one. A reply that is not streamed is one
    chunk. Iteration ends normally only when the reply was complete; whatever else happens raises an
    `UpstreamError`. `close` may be called at any time, any number of times: it returns at once, frees the
    connection and, where the reply has not ended, makes the upstream notice.
    """

    @property
    def replica(self) -> str:
        """Which of the provider's servers answers: host and port, never a credential."""
        ...

    @property
    def upstream_request_id(self) -> str | None:
        """The id that the upstream gave it, for its support desk."""
        ...

    @property
    def allowances(self) -> Allowances | None:
        """What the provider said of its own limits as it began to answer."""
        ...

    def __aiter__(self) -> "Exchange":
        """The exchange is its own iterator."""
        ...

    async def __anext__(self) -> Sequence[Chunk]:
        """Wait for what arrives next."""
        ...

    def close(self) -> None:
        """Leave, now."""
        ...


class Upstream(Protocol):
    """The way out. `serve.egress` is the only caller."""

    async def send(self, question: Question) -> Exchange:
        """Send the question and wait for the beginning of a good answer.

        Returns when the upstream has answered with status 2xx. Cancelling frees the connection at once,
        also before the headers.

        Raises:
            UpstreamError: one of its leaves; its `delivery` says whether the upstream can have seen it.
        """
        ...
