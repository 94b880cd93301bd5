"""The entrance: what a call asks of the limits of its key."""

from functools import partial

from tiergate.admission import Visitor
from tiergate.core import Call
from tiergate.metering import rough_tokens
from tiergate.serve.rooms import Rooms
from tiergate.wire import choices_asked, output_tokens_asked


async def entrance(rooms: Rooms, call: Call) -> Visitor:
    """Give the context that lets a call in; it is told what the call has used as its attempts end.

    It is to be begun at once: until then nothing is taken.

    Raises, where the context begins:
        RateLimited: a limit of its key is reached; nothing was counted.
    """
    return await rooms.admission.visit(call.caller, partial(tokens_asked, call))


def tokens_asked(call: Call) -> int:
    """Tell how many tokens a call may use: its input, and what it allows of output.

    Without a limit of its own the output counts when it is there: the longest answer that a model has is no
    measure of what it gives.
    """
    output = output_tokens_asked(call.body) or 0
    return rough_tokens(call.body, call.prompt_bytes) + output * choices_asked(call.body)
