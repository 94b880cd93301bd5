"""Variables: the `.env` file beside the settings, and `${NAME}` inside a value."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

LONGEST_VALUE: Final = 65_536
"""Characters of one value after filling; keeps a small file from growing without end."""

_REFERENCE: Final = re.compile(
    r"\$\$\{|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^{}]*))?\}|\$\{"
)
_ASSIGNMENT: Final = re.compile(
    r"(?:export\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)\s*=\s*(?P<rest>.*)", re.DOTALL
)
_SINGLE: Final = re.compile(r"'(?P<text>[^']*)'\s*(?:#.*)?", re.DOTALL)
_DOUBLE: Final = re.compile(r'"(?P<text>(?:[^"\\]|\\.)*)"\s*(?:#.*)?', re.DOTALL)
_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$", "'": "'"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """A value with its variables filled in.

    Attributes:
        text: the result; of no use where `faults` is not empty.
        faults: for each reference that could not be filled its place in the written text, and a sentence.
    """

    text: str
    faults: tuple[tuple[int, str], ...] = ()


def variables(written: str) -> tuple[str, ...]:
    """Name the variables that a value refers to."""
    return tuple(dict.fromkeys(match["name"] for match in _REFERENCE.finditer(written) if match["name"]))


def fill(written: str, environ: Mapping[str, str]) -> Filled:
    """Fill `${NAME}` and `${NAME:-default}` in a value; `$${` stands for `${` itself.

    A default counts where the variable is not set or empty, as in the shell. What was filled in is never
    looked at again.
    """
    pieces: list[str] = []
    faults: list[tuple[int, str]] = []
    end, size = 0, len(written)
    for match in _REFERENCE.finditer(written):
        filled = _value(match, environ)
        if isinstance(filled, _Unfilled):
            faults.append((match.start(), filled.why))
            continue
        size += len(filled)
        if size > LONGEST_VALUE:
            faults.append((match.start(), f"the value grows beyond {LONGEST_VALUE} characters"))
            break
        pieces += (written[end : match.start()], filled)
        end = match.end()
    return Filled(text="".join((*pieces, written[end:])), faults=tuple(faults))


@dataclass(frozen=True, slots=True)
class _Unfilled:
    why: str


def _value(match: re.Match[str], environ: Mapping[str, str]) -> str | _Unfilled:
    if match[0] == "$${":
        return "${"
    name, default = match["name"], match["default"]
    if name is None:
        return _Unfilled(
            "holds a ${ that is no variable: write ${NAME} or ${NAME:-default}, and $${ for a plain ${"
        )
    value = environ.get(name)
    if default is not None:
        value = value or default
    if value is None:
        return _Unfilled(
            f"the environment variable {name} is not set: set it, put it into .env beside this file, "
            f"or give a default as ${{{name}:-…}}"
        )
    if not is_unicode(value):
        return _Unfilled(f"the environment variable {name} does not hold UTF-8 text")
    return value


def is_unicode(text: str) -> bool:
    """Tell whether a text holds characters only, no half of a surrogate pair."""
    return not any(0xD800 <= ord(letter) <= 0xDFFF for letter in text)


def parse_env(text: str) -> tuple[dict[str, str], tuple[tuple[int, str], ...]]:
    """Read `.env` lines: `KEY=VALUE`, quotes, `export`, comments.

    Returns:
        The variables, and for each malformed line its number (from 1) and a sentence that shows no value.
    """
    found: dict[str, str] = {}
    lines: dict[str, int] = {}
    faults: list[tuple[int, str]] = []
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        match = _ASSIGNMENT.fullmatch(stripped)
        value = _unquoted(match["rest"]) if match else None
        if match is None:
            faults.append((number, "is not KEY=VALUE, a comment or empty"))
        elif value is None:
            faults.append((number, f"the quotes of {match['name']} do not match"))
        elif match["name"] in lines:
            faults.append(
                (number, f"sets {match['name']} again, as line {lines[match['name']]} did: remove one")
            )
        else:
            found[match["name"]] = value
            lines[match["name"]] = number
    return found, tuple(faults)


def _unquoted(rest: str) -> str | None:
    if rest.startswith("'"):
        match = _SINGLE.fullmatch(rest)
        return match["text"] if match else None
    if rest.startswith('"'):
        match = _DOUBLE.fullmatch(rest)
        return re.sub(r"\\(.)", _escape, match["text"], flags=re.DOTALL) if match else None
    return re.sub(r"(?:^|\s)#.*", "", rest, flags=re.DOTALL).rstrip()


def _escape(match: re.Match[str]) -> str:
    return _ESCAPES.get(match[1], match[0])
