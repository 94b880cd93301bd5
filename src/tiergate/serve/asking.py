"""A call with all that was decided about it before anybody is asked."""

import msgspec

from tiergate.cache import Look
from tiergate.core import CacheSaid, Call
from tiergate.ledger import CallOpened, Looked, Receipt
from tiergate.routing import Route
from tiergate.serve.resolve import Resolved, route_text

NOBODY: Route = Route(steps=())
"""The way of a call that is given an answer that is there already."""


class Asking(msgspec.Struct, frozen=True, kw_only=True):
    """One call on its way: what it may do, what the cache says of it, where it could go."""

    call: Call
    resolved: Resolved
    look: Look
    way: Route

    def opened(
        self, receipt: Receipt | None = None, resent_of: str | None = None, *, is_given: bool = False
    ) -> CallOpened:
        """Give the part of its record that is known now. `is_given`: somebody else asks for it."""
        call, resolved, look = self.call, self.resolved, self.look
        if call.line is not None:
            resent_of = call.line.resent_of
        return CallOpened(
            call=call,
            generation=resolved.generation,
            deadline_ns=call.received_ns + int((resolved.deadline - call.received) * 1e9),
            route=route_text((NOBODY if is_given else self.way).reasons),
            receipt=receipt,
            resent_of=resent_of,
            looked=looked_of(look.said, look),
        )


def looked_of(said: CacheSaid, look: Look) -> Looked:
    """Give what the ledger keeps of what became of a call at the cache."""
    return Looked(
        outcome=said.outcome, reason=said.detail, request_hash=look.request_hash, prefixes=look.prefixes
    )
