"""Error objects of the OpenAI dialect, in bytes and back."""

from typing import NamedTuple

from tiergate.wire.jsontext import dumps, loads


class ErrorBody(NamedTuple):
    """What an error object says; None where it says nothing, or no text."""

    message: str | None
    type: str | None = None
    param: str | None = None
    code: str | None = None


def write_error(message: str, *, type: str, code: str, param: str | None = None) -> bytes:  # noqa: A002 - the dialect's word
    """Write an error object."""
    return dumps({"error": {"message": message, "type": type, "param": param, "code": code}})


def read_error(data: bytes) -> ErrorBody | None:
    """Read an error object, as leniently as servers write it; None where there is none.

    Besides `{"error": {…}}` these are in use: `{"error": "text"}`, and the object without a wrapper
    (`{"object": "error", "message": …}`), and a list with one wrapper in it.
    """
    try:
        body = loads(data)
    except ValueError:
        return None
    if isinstance(body, list) and len(body) == 1:
        body = body[0]
    return error_of(body) if isinstance(body, dict) else None


def error_of(body: dict[str, object]) -> ErrorBody | None:
    """Find the error in an object that was read; None where there is none."""
    error = body.get("error")
    if isinstance(error, str) and error:
        return ErrorBody(error)
    if isinstance(error, dict):
        return ErrorBody(*(_word(error.get(name)) for name in ErrorBody._fields))
    if body.get("object") == "error" or (isinstance(body.get("message"), str) and "choices" not in body):
        return ErrorBody(*(_word(body.get(name)) for name in ErrorBody._fields))
    return None


def _word(value: object) -> str | None:
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None
