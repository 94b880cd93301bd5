"""What the end of an attempt says: of the attempt itself, of whoever caused it, and of what was asked.

Three things fail, each for itself: a provider's servers (no connection), its credential (refused, or out of
quota), and a model of it (everything else). What the caller did, or its own short time, says nothing.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from tiergate.core import (
    Blame,
    Outcome,
    UpstreamAuthFailed,
    UpstreamError,
    UpstreamFault,
    UpstreamInterrupted,
    UpstreamProtocolError,
    UpstreamRejected,
    UpstreamThrottled,
    UpstreamTimeout,
    UpstreamUnreachable,
)


class Part(StrEnum):
    """What can fail for itself."""

    SERVERS = "servers"
    CREDENTIAL = "credential"
    MODEL = "model"


class Verdict(StrEnum):
    """What an attempt says about what it asked."""

    GOOD = "good"
    BAD = "bad"
    """It failed."""
    UNREACHED = "unreached"
    """It failed without a first sign of life: some in a row are enough, however few there were."""
    NOTHING = "nothing"
    """The caller left, asked for something impossible, or there was no room."""


Verdicts = Mapping[Part, Verdict]
"""Of each part that something is known of; nothing is known of the others."""

_FORBIDDEN: Final = 403
"""Refused for this model or this caller's country; the credential may be good for everything else."""
_OVERLOADED: Final = 529
ALL_GOOD: Final[Verdicts] = dict.fromkeys(Part, Verdict.GOOD)
_UP: Final[Verdicts] = {Part.SERVERS: Verdict.GOOD}
_NOT_REACHED: Final[Verdicts] = {Part.SERVERS: Verdict.UNREACHED}
_SILENT: Final[Verdicts] = {Part.SERVERS: Verdict.GOOD, Part.MODEL: Verdict.UNREACHED}
_BROKEN: Final[Verdicts] = {Part.SERVERS: Verdict.GOOD, Part.MODEL: Verdict.BAD}
_REFUSED: Final[Verdicts] = {Part.SERVERS: Verdict.GOOD, Part.CREDENTIAL: Verdict.UNREACHED}
_NOTHING: Final[Verdicts] = {}


def judge(error: BaseException | None) -> tuple[Outcome, Blame | None]:
    """Say how an attempt ended, and who would have to change something."""
    match error:
        case None:
            return Outcome.SUCCESS, None
        case UpstreamRejected():
            return Outcome.IGNORE, Blame.CALLER
        case UpstreamAuthFailed() | UpstreamThrottled():
            return Outcome.DROPPED, Blame.US
        case UpstreamError():
            return Outcome.DROPPED, Blame.PROVIDER
        case _:
            return Outcome.IGNORE, Blame.US


def verdicts_of(error: BaseException) -> Verdicts:
    """Say what a failure tells of a provider's servers, its credential and its model.

    A status below 500 is no failure of anybody but the asker: only that the server answers follows from it.
    """
    match error:
        case UpstreamUnreachable():
            return _NOT_REACHED
        case UpstreamTimeout():
            return _of_time_out(error.phase)
        case UpstreamAuthFailed():
            return _UP if error.status == _FORBIDDEN else _REFUSED
        case UpstreamThrottled():
            return _REFUSED if error.quota else _UP
        case UpstreamFault() if error.status == _OVERLOADED:
            return _UP
        case UpstreamFault() if error.status is None or error.status >= 500 or error.status < 300:
            return _BROKEN
        case UpstreamInterrupted() | UpstreamProtocolError():
            return _BROKEN
        case UpstreamError() if error.status is not None:
            return _UP
        case _:
            return _NOTHING


def is_pushed_back(error: BaseException | None) -> bool:
    """Tell whether a target shows that it is asked for more than it can do at one time."""
    match error:
        case UpstreamThrottled():
            return not error.quota
        case UpstreamFault():
            return error.status in (503, _OVERLOADED)
        case UpstreamTimeout():
            return error.phase == "first_event"
        case _:
            return False


def _of_time_out(phase: str) -> Verdicts:
    match phase:
        case "connect":
            return _NOT_REACHED
        case "first_event":
            return _SILENT
        case "idle":
            return _BROKEN
        case _:
            # A place among our own connections, or the caller's own time, which may have been short.
            return _NOTHING
