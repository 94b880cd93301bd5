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
    assert data_class is not DataClass.PRIVATE_ONLY or question.target.tier is Tier.PRIVATE, (
        "a private-only call was about to leave for a hosted tier"
    )
    return await upstream.send(question)
