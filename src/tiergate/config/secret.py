"""A text that never shows itself: not in `repr`, not in a dump, not in JSON, not in an error."""

from typing import Final, NoReturn, final

SHOWN_FROM: Final = 12
"""Only a secret of this many characters shows its last four; a shorter one would lose too much by it."""


@final
class Secret:
    """A secret text; `reveal` is the only way to read it, `hint` what people may see of it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Give the text itself. Never put the result where it could be shown."""
        return self._text

    def hint(self) -> str:
        """Give `…last4` of a long secret and `…` of a short one."""
        return f"…{self._text[-4:]}" if len(self._text) >= SHOWN_FROM else "…"

    def __repr__(self) -> str:
        return "Secret(…)"

    def __str__(self) -> str:
        return "…"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __reduce__(self) -> NoReturn:
        raise TypeError("A secret is not pickled.")
