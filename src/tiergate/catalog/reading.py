"""Reads the data that comes with the package.

A file that is missing or damaged takes no gateway down: nothing of it is known then, so that no call under a
budget is made at a price that nobody knows, and people are told.
"""

import re
from collections.abc import Callable
from importlib import resources
from typing import Final, TypeVar

import msgspec

Kind = TypeVar("Kind")

_PROBLEM: Final = (
    "The file {} that comes with Tiergate is missing or damaged ({}), so nothing of it is known. Install "
    "Tiergate again."
)
_problems: Final[dict[str, str]] = {}
"""By file: what was found when it was read."""


def read_data(name: str, kind: type[Kind], *, otherwise: Kind, check: Callable[[Kind], None]) -> Kind:
    """Read a file of `data`; `otherwise`: what is known without it.

    Args:
        name: of the file.
        kind: what it holds.
        otherwise: what is known without it.
        check: raises ValueError or TypeError for values that cannot be.
    """
    try:
        found = msgspec.json.decode(
            resources.files("tiergate.catalog").joinpath("data", name).read_bytes(), type=kind
        )
        check(found)
    except (OSError, msgspec.MsgspecError, ValueError, TypeError, LookupError, re.error) as error:
        _problems[name] = _PROBLEM.format(name, type(error).__name__)
        return otherwise
    return found


def found_problems() -> list[str]:
    """Give what was wrong with files that were read until now, a sentence each."""
    return list(_problems.values())
