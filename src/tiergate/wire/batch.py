"""Lines of OpenAI's batch format: a line of the input read and checked, a line of the output written."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from tiergate.core import InvalidRequest
from tiergate.wire.chat import ChatQuestion, chat_question
from tiergate.wire.jsontext import dumps, loads, read_object

CHAT_URL: Final = "/v1/chat/completions"
BATCH_URLS: Final = (CHAT_URL,)
"""The endpoints that lines may ask for."""
CUSTOM_ID_CHARS: Final = 512
_PROBLEM_CHARS: Final = 500


class BatchLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the input."""

    custom_id: str
    url: str
    question: ChatQuestion


class BadLine(InvalidRequest):
    """A line that asks nothing; `custom_id`: as far as it has one."""

    def __init__(self, message: str, *, custom_id: str | None = None) -> None:
        super().__init__(message)
        self.custom_id = custom_id


def read_batch_line(data: bytes, *, url: str, model: str | None = None) -> BatchLine:
    """Read and check a line.

    Args:
        data: the line, with or without its end.
        url: the endpoint that all lines of the batch ask for.
        model: asked for where the line names none.

    Raises:
        BadLine: it is no such line; says what is wrong with it.
    """
    try:
        line = read_object(data)
    except InvalidRequest as error:
        raise BadLine(str(error).replace("The body", "The line")) from error
    custom_id = line.get("custom_id")
    if not isinstance(custom_id, str) or not 1 <= len(custom_id) <= CUSTOM_ID_CHARS:
        raise BadLine(f"`custom_id` must be a text of 1 to {CUSTOM_ID_CHARS} characters.")
    if isinstance(problem := line.get("invalid"), str):
        # Whoever made the line of another form could make none of it, and says why.
        raise BadLine(problem[:_PROBLEM_CHARS], custom_id=custom_id)
    try:
        return BatchLine(custom_id=custom_id, url=url, question=_question(line, url, model))
    except InvalidRequest as error:
        raise BadLine(str(error), custom_id=custom_id) from error


def custom_id_of(data: bytes) -> str | None:
    """Give the `custom_id` of a line, whatever else is wrong with it; None: it has none."""
    try:
        found = loads(data)
    except ValueError:
        return None
    custom_id = found.get("custom_id") if isinstance(found, dict) else None
    return custom_id if isinstance(custom_id, str) and 1 <= len(custom_id) <= CUSTOM_ID_CHARS else None


def write_answered(
    custom_id: str, *, call_id: str, status: int, body: bytes, told: Mapping[str, Any] | None = None
) -> bytes:
    """Write the output line of a question that was answered, be it with an error object.

    `body`: one JSON document. `told`: what we say beside it, under `tiergate`.
    """
    if b"\n" in body:
        body = dumps(loads(body))
    row = {
        "id": f"batch_req_{call_id}",
        "custom_id": custom_id,
        "response": {"status_code": status, "request_id": call_id, "body": msgspec.Raw(body)},
        "error": None,
    }
    return dumps(row if told is None else {**row, "tiergate": told}) + b"\n"


def write_unanswered(
    custom_id: str | None, *, request_id: str, code: str, message: str, told: Mapping[str, Any] | None = None
) -> bytes:
    """Write the output line of a question that was never answered: bad, cancelled, or too late."""
    row = {
        "id": f"batch_req_{request_id}",
        "custom_id": custom_id,
        "response": None,
        "error": {"code": code, "message": message},
    }
    return dumps(row if told is None else {**row, "tiergate": told}) + b"\n"


def _question(line: Mapping[str, Any], url: str, model: str | None) -> ChatQuestion:
    if line.get("method", "POST") != "POST":
        raise InvalidRequest("`method` must be POST.")
    asked = line.get("url")
    if asked != url:
        raise InvalidRequest(f"`url` must be {url}, the endpoint of the batch; it is {str(asked)[:100]!r}.")
    body = line.get("body")
    if not isinstance(body, dict):
        raise InvalidRequest("`body` must be an object: what would be posted to the endpoint.")
    if body.get("stream"):
        raise InvalidRequest("`stream` means nothing in a batch; leave it out.")
    if model is not None and "model" not in body:
        body = {**body, "model": model}
    return chat_question(body)
