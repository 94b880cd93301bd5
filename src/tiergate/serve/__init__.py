"""Life of one call: the only place that knows the order of the rooms."""

from tiergate.serve.books import STOPPING, CallBooks, CallerLeft, Stopping
from tiergate.serve.flights import Flights
from tiergate.serve.given import GivenStream
from tiergate.serve.handle import handle
from tiergate.serve.ports import Exchange, Question, Upstream
from tiergate.serve.reader import SharedStream, Stream
from tiergate.serve.resolve import Resolved, find_model, resolve
from tiergate.serve.rooms import Rooms
from tiergate.serve.rules import ModelEntry, Rules
from tiergate.serve.stream import StreamEnd, StreamReply, StreamState

__all__ = [
    "STOPPING",
    "CallBooks",
    "CallerLeft",
    "Exchange",
    "Flights",
    "GivenStream",
    "ModelEntry",
    "Question",
    "Resolved",
    "Rooms",
    "Rules",
    "SharedStream",
    "Stopping",
    "Stream",
    "StreamEnd",
    "StreamReply",
    "StreamState",
    "Upstream",
    "find_model",
    "handle",
    "resolve",
]
