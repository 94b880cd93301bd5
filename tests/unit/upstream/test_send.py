"""What is decided before anything is sent."""

import asyncio
from collections.abc import Callable

import pytest

from tiergate.core import Delivery, Target, Tier, UpstreamUnreachable
from tiergate.serve import Question
from tiergate.upstream import Endpoint, HttpUpstream, Provider, Response, Timing, TransportStatistics


class NoTransport:
    """A transport over which nothing may go."""

    async def send(
        self, endpoint: Endpoint, body: bytes, *, timing: Timing, mark_sent: Callable[[], None] = lambda: None
    ) -> Response:
        raise AssertionError("something was sent")

    def statistics(self) -> TransportStatistics:
        return TransportStatistics(origins=(), opened=0)

    async def aclose(self) -> None:
        pass


@pytest.mark.parametrize("name", ["rack", "gone"])
def test_a_target_that_a_reload_changed_is_not_asked(name: str) -> None:
    """A call was routed to a private server; while it waited, the name became a hosted provider, or went."""
    now = Provider(name="rack", tier=Tier.HOSTED, base_urls=("https://api.example.com/v1",))
    upstream = HttpUpstream({"rack": now}, transport=NoTransport())
    sent: list[bool] = []
    question = Question(
        call_id="c",
        target=Target(provider=name, model="m", tier=Tier.PRIVATE),
        body={"messages": []},
        streamed=False,
        deadline=1e9,
        first_event_s=1,
        idle_s=1,
        mark_sent=lambda: sent.append(True),
    )
    with pytest.raises(UpstreamUnreachable) as raised:
        asyncio.run(upstream.send(question))
    assert (raised.value.delivery, raised.value.target, sent) == (Delivery.NONE, f"{name}/m", [])
