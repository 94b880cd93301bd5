"""The servers of one provider, and which of them gets the next request."""

from collections.abc import Sequence
from typing import Final

from tiergate.upstream.provider import Provider
from tiergate.upstream.transport import Endpoint

REST_S: Final = 5.0
"""How long a server that could not be connected to comes last. Without this the server that is down has
always the fewest requests in flight and would be tried first every time."""


class Replica:
    """One server: the two ways to ask it, and how much it has in flight."""

    __slots__ = ("_streamed", "_whole", "in_flight", "name", "rests_until")

    def __init__(self, *, name: str, whole: Endpoint, streamed: Endpoint) -> None:
        self.name = name
        """Host and port."""
        self.in_flight = 0
        self.rests_until = 0.0
        self._whole = whole
        self._streamed = streamed

    def endpoint(self, *, streamed: bool) -> Endpoint:
        """Where a request of this kind goes."""
        return self._streamed if streamed else self._whole


class Replicas:
    """A provider and its servers."""

    def __init__(self, provider: Provider, *, user_agent: str) -> None:
        self.provider = provider
        self.all = tuple(
            _replica(provider, n, base_url, user_agent) for n, base_url in enumerate(provider.base_urls, 1)
        )
        self._turn = 0

    def in_order(self, now: float) -> Sequence[Replica]:
        """Give all servers, the best first: not resting, fewest in flight; equal ones take turns."""
        if len(self.all) == 1:
            return self.all
        self._turn = (self._turn + 1) % len(self.all)
        rotated = self.all[self._turn :] + self.all[: self._turn]
        return sorted(rotated, key=lambda replica: (replica.rests_until > now, replica.in_flight))


def _replica(provider: Provider, n: int, base_url: str, user_agent: str) -> Replica:
    origin, path = provider.place(base_url)
    count = len(provider.base_urls)
    label = provider.name if count == 1 else f"{provider.name} (server {n} of {count})"

    def endpoint(accept: str) -> Endpoint:
        # Nothing of the client's request is among these, and the credential is bound to this origin.
        headers = [
            ("accept", accept),
            ("accept-encoding", "identity"),
            ("content-type", "application/json"),
            ("user-agent", user_agent),
        ]
        if provider.credential is not None:
            headers.append(("authorization", f"Bearer {provider.credential.secret}"))
        return Endpoint(label=label, origin=origin, path=f"{path}/chat/completions", headers=tuple(headers))

    return Replica(
        name=origin.authority, whole=endpoint("application/json"), streamed=endpoint("text/event-stream")
    )
