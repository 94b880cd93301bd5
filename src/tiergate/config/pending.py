"""What this version cannot honour yet, in one table, so that no setting is ever silently ignored.

When a capability arrives, its row goes, and nothing else has to change.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from tiergate.config.problems import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A setting that is understood and not honoured yet.

    Attributes:
        path: where it stands; `*` is any name or number.
        stops: whether the start is refused; otherwise it is told once.
        sentence: why, and what to do.
        honoured: values that this version does honour.
        honoured_entries: how many entries of a list, from the first, this version does honour; None: the
            setting is taken as a whole.
    """

    path: tuple[str, ...]
    stops: bool
    sentence: str
    honoured: frozenset[str] = frozenset()
    honoured_entries: int | None = None


_REMOVE: Final = "remove it to start"

PENDING: Final = (
    Pending(
        path=("models", "*", "policy"),
        stops=True,
        sentence="targets are tried in order only yet: remove it, or write in-order",
        honoured=frozenset({"in-order"}),
    ),
    Pending(
        path=("providers", "*", "api"),
        stops=True,
        sentence="only the openai dialect is spoken yet: use the vendor's OpenAI-compatible address with "
        "api: openai, or remove this provider",
        honoured=frozenset({"openai"}),
    ),
    Pending(path=("providers", "*", "proxy"), stops=True, sentence=f"proxies are not used yet: {_REMOVE}"),
    Pending(
        path=("log", "bodies"),
        stops=True,
        sentence="prompts and answers are never written to the log yet: remove it, or write never",
        honoured=frozenset({"never"}),
    ),
    Pending(
        path=("providers", "*", "api_keys"),
        stops=False,
        sentence="only the first key is used yet",
        honoured_entries=1,
    ),
    Pending(path=("providers", "*", "cost"), stops=False, sentence="it is not recorded anywhere yet"),
)


def find(given: Mapping[str, object]) -> tuple[tuple[Path, Pending], ...]:
    """Find the settings that were given and cannot be honoured.

    Args:
        given: the data of a file, or `settings.model_dump(mode="json", exclude_unset=True)`.
    """
    return tuple(
        (_place(path, row), row)
        for row in PENDING
        for path, value in _at(given, row.path)
        if _counts(value, row)
    )


def rows_for(path: tuple[str, ...]) -> tuple[Pending, ...]:
    """Give the rows that speak about a setting, its path written with `*` for names."""
    return tuple(row for row in PENDING if row.path == path)


def _at(given: object, pattern: tuple[str, ...], path: Path = ()) -> Iterator[tuple[Path, object]]:
    if not pattern:
        yield path, given
    elif isinstance(given, Mapping):
        name, *rest = pattern
        for found in given if name == "*" else [name]:
            if found in given:
                yield from _at(given[found], tuple(rest), (*path, found))


def _place(path: Path, row: Pending) -> Path:
    """Give the first place that is not honoured."""
    return path if row.honoured_entries is None else (*path, row.honoured_entries)


def _counts(value: object, row: Pending) -> bool:
    if row.honoured_entries is not None:
        return isinstance(value, list | tuple) and len(value) > row.honoured_entries
    empty = value is None or (isinstance(value, str | list | tuple | Mapping) and not value)
    return not empty and not (isinstance(value, str) and value in row.honoured)
