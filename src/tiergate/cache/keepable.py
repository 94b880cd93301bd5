"""Whether an answer is one that may be given again."""

from enum import StrEnum
from typing import Final

from tiergate.cache.eligible import CachePolicy
from tiergate.wire import FoldedAnswer, FoldedChoice


class NotKept(StrEnum):
    """Why an answer is not kept."""

    UNKNOWN = "unknown-form"
    """It has a shape that is not known here."""
    TOO_LONG = "too-long"
    UNFINISHED = "unfinished"
    """A choice is missing, or was cut off by its limit."""
    FILTERED = "filtered"
    REFUSAL = "refusal"
    EMPTY = "empty"
    DRY_RUN = "dry-run"
    """The settings have said so since it was asked for."""
    PURGED = "purged"
    """Somebody has purged since it was asked for."""
    TOOL_CALLS = "tool-calls"
    """Whoever is given it again would do again what it asks for."""


_TERMINAL: Final = ("stop", "tool_calls", "function_call")


def why_not_kept(answer: FoldedAnswer, *, choices: int, policy: CachePolicy) -> NotKept | None:
    """Tell why an answer is not kept; None: it is.

    Args:
        answer: complete, as its provider gave it.
        choices: how many were asked for.
        policy: of its model.
    """
    if len(answer.choices) != choices:
        return NotKept.UNFINISHED
    return next((why for choice in answer.choices if (why := _of_choice(choice, policy)) is not None), None)


def _of_choice(choice: FoldedChoice, policy: CachePolicy) -> NotKept | None:
    message = choice.message
    if choice.finish == "content_filter":
        return NotKept.FILTERED
    if choice.finish not in _TERMINAL:
        return NotKept.UNFINISHED
    if message.get("refusal"):
        return NotKept.REFUSAL
    calls_tools = bool(message.get("tool_calls") or message.get("function_call"))
    if calls_tools and not policy.keep_tool_calls:
        return NotKept.TOOL_CALLS
    return None if calls_tools or message.get("content") else NotKept.EMPTY
