"""Turns what pydantic found into sentences, each with the place of the file that it is about."""

from dataclasses import replace
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from tiergate.config import walk
from tiergate.config.document import Document
from tiergate.config.environment import variables
from tiergate.config.problems import Path, Problem, path_text
from tiergate.config.scalar import SENTENCE, TOGETHER, VALUE, nearest

LONGEST_SHOWN: Final = 24
"""A longer value is not repeated in a message: it could be a key that slipped into the wrong line."""

_LEFT_EMPTY: Final = "is empty: write a value, or remove the line"


def explain(error: ValidationError, document: Document) -> list[tuple[Path, Problem]]:
    """Give one problem for each thing that is wrong, with its place in the settings."""
    found = [details for details in error.errors(include_url=False) if not _is_echo(details)]
    return [(details["loc"], _explain(details, document)) for details in found]


def _is_echo(details: ErrorDetails) -> bool:
    """Tell whether pydantic only counts a wrong entry once more, as one that is not there."""
    return details["type"] == "too_short" and bool(details["input"])


def _explain(details: ErrorDetails, document: Document) -> Problem:
    path: Path = details["loc"]
    match details["type"]:
        case "extra_forbidden":
            return _mask_name(path, document.problem(path, _unknown(path), at_key=True))
        case "missing":
            return document.problem(path, f"is missing{_meaning(path)}", at_key=True)
        case _ if path and path[-1] == "[key]":
            return _mask_name(path[:-1], document.problem(path[:-1], _named(details, path), at_key=True))
        case _:
            return document.problem(path, _wrong(details, path, document))


def _mask_name(path: Path, problem: Problem) -> Problem:
    """Leave a long name out that no setting has: it could be a key that slipped into the wrong place."""
    if len(str(path[-1])) <= LONGEST_SHOWN:
        return problem
    return replace(problem, path=path_text((*path[:-1], "(long name)")))


def _unknown(path: Path) -> str:
    model = walk.model_of(walk.at(path[:-1]))
    known = list(walk.names(model)) if model else []
    near = nearest(str(path[-1]), known)
    return f"there is no such setting{near or '; known here: ' + ', '.join(known)}"


def _meaning(path: Path) -> str:
    model = walk.model_of(walk.at(path[:-1]))
    field = walk.names(model).get(str(path[-1])) if model else None
    return f": {field.description}" if field and field.description else ""


def _named(details: ErrorDetails, path: Path) -> str:
    said = str(details.get("ctx", {}).get("said", "needs another name"))
    shown = str(path[-2]) if len(path) > 1 else ""
    return f"the name {said}{_but(shown)}"


def _wrong(details: ErrorDetails, path: Path, document: Document) -> str:
    given = details["input"]
    written = document.written(path)
    context = details.get("ctx", {})
    said = str(context.get("said"))
    if details["type"] == TOGETHER:
        return said
    if given is None:
        return _LEFT_EMPTY
    if given == "" and written is not None:
        return _empty(written)
    if details["type"] == SENTENCE:
        return said
    words = walk.choices(walk.at(path))
    near = nearest(given, words) if isinstance(given, str) and words else str(context.get("near", ""))
    return _needs(details, words, path) + _instead(given, written) + near


def _empty(written: str) -> str:
    """Say why a value is empty: mostly since a variable is."""
    names = variables(written)
    if not names:
        return _LEFT_EMPTY
    return (
        f"is empty, since the environment does not set {' or '.join(names)}, or sets it to nothing: "
        f"give it a value there or in .env beside this file, or remove this entry"
    )


def _needs(details: ErrorDetails, words: tuple[str, ...], path: Path) -> str:
    if details["type"] == VALUE:
        return str(details.get("ctx", {}).get("said"))
    if words:
        return f"needs one of {', '.join(words)}"
    if details["type"] == "too_short":
        return f"needs at least one entry{_meaning(path)}"
    if details["type"] == "tuple_type":
        return "needs a list, such as [one, two]"
    return "needs settings of its own, as `name: value` lines"


def _instead(given: Any, written: str | None) -> str:
    if isinstance(given, dict):
        return " (it is a mapping)" if given else ""
    if isinstance(given, list):
        return " (it is a list)" if given else ""
    return _but(written or "")


def _but(shown: str) -> str:
    """Show a value if it is too short to be a secret and does nothing to a terminal."""
    if not shown or len(shown) > LONGEST_SHOWN:
        return ""
    return f", not {shown!r}" if shown.isprintable() else f", not {shown!a}"
