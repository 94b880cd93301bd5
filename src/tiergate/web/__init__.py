"""The data plane's front door: HTTP endpoints, authentication header, streaming body."""

from tiergate.web.application import DataPlane, DoorPolicy
from tiergate.web.batchplane import FilePolicy
from tiergate.web.estimates import estimate
from tiergate.web.listener import Listener, ListenerLimits
from tiergate.web.models import models_list
from tiergate.web.statuses import ErrorAnswer, answer_to, event_of, sentence_of
from tiergate.web.visit import LOOPBACK_NAMES, ClientGone, ClientStalled, ConnectionBroken, Visit, VisitLimits

__all__ = [
    "LOOPBACK_NAMES",
    "ClientGone",
    "ClientStalled",
    "ConnectionBroken",
    "DataPlane",
    "DoorPolicy",
    "ErrorAnswer",
    "FilePolicy",
    "Listener",
    "ListenerLimits",
    "Visit",
    "VisitLimits",
    "answer_to",
    "estimate",
    "event_of",
    "models_list",
    "sentence_of",
]
