"""Says where a bug struck: types and lines, no values, since those may be anybody's text."""

import traceback
from typing import Final

_FRAMES: Final = 3


def place_of(error: BaseException) -> str:
    """Give the type of an error and the last places that it came through.

    >>> try:
    ...     {}["a question"]
    ... except KeyError as error:
    ...     place_of(error).startswith("KeyError in ")
    True
    """
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    places = " < ".join(
        f"{frame.name} ({frame.filename.rpartition('/')[2]}:{frame.lineno})" for frame in reversed(frames)
    )
    return f"{type(error).__name__} in {places}"
