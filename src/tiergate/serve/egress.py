"""The one way out: no other function calls the upstream port."""

from tiergate.core import DataClass, Tier
from tiergate.serve.ports import Exchange, Question, Upstream


async def egress(upstream: Upstream, question: Question, data_class: DataClass) -> Exchange:
    """Send a question to its target.

    A private-only call never leaves for a hosted tier. Routing leaves such targets out; this stands here for
    every cause and every mistake above.

    Raises:
        UpstreamError: as the port says.
    """
    if data_class is DataClass.PRIVATE_ONLY and question.target.tier is not Tier.PRIVATE:
        # Raised and not asserted: `python -O` must not open this door.
        raise AssertionError("a private-only call was about to leave for a hosted tier")
    return await upstream.send(question)
