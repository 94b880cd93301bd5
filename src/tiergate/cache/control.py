"""What a caller says of caching, in `Cache-Control` of its request (RFC 9111, section 5.2.1)."""

import re
from typing import Final, NamedTuple

_DIRECTIVE: Final = re.compile(
    r"""[\s,]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)          # its name
        (?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*)))?  # and its value, quoted or not
        \s*(?=,|$)""",
    re.VERBOSE,
)
_SECONDS: Final = re.compile(r"[0-9]{1,10}")
FOR_EVER_S: Final = 1 << 31
"""What RFC 9111 calls infinity."""


class Control(NamedTuple):
    """What of a kept answer a caller takes. Seconds; None: it does not say."""

    no_store: bool = False
    """Nothing of this call is kept, and nothing kept is given."""
    no_cache: bool = False
    """Ask, whatever is kept."""
    only_if_cached: bool = False
    """Give what is kept, or nothing."""
    max_age_s: int | None = None
    min_fresh_s: int | None = None
    max_stale_s: int | None = None


SAYS_NOTHING: Final = Control()


def read_control(header: str | None) -> Control:
    """Read the header. What cannot be read is taken in the way that gives less of the cache.

    >>> read_control("max-age=60, only-if-cached").max_age_s
    60
    """
    if not header:
        return SAYS_NOTHING
    found = _directives(header)
    if found is None:
        # Who wants nobody asked must not be the cause of a call, whatever else is meant.
        return Control(no_store=True, no_cache=True, only_if_cached="only-if-cached" in header.lower())
    ages, fresh, stale = (found.get(name, []) for name in ("max-age", "min-fresh", "max-stale"))
    return Control(
        no_store="no-store" in found,
        no_cache="no-cache" in found,
        only_if_cached="only-if-cached" in found,
        max_age_s=min((_seconds(value, wrong=0) for value in ages), default=None),
        min_fresh_s=max((_seconds(value, wrong=FOR_EVER_S) for value in fresh), default=None),
        max_stale_s=min((_stale(value) for value in stale), default=None),
    )


def _directives(header: str) -> dict[str, list[str | None]] | None:
    """Give the values of each directive, in lower case; None: it is no list of directives."""
    found: dict[str, list[str | None]] = {}
    at = 0
    while at < len(header) and header[at:].strip(" \t,"):
        match = _DIRECTIVE.match(header, at)
        if match is None:
            return None
        name, quoted, plain = match.groups()
        found.setdefault(name.lower(), []).append(plain if quoted is None else quoted)
        at = match.end()
    return found


def _seconds(value: str | None, *, wrong: int) -> int:
    if value is None or _SECONDS.fullmatch(value) is None:
        return wrong
    return min(int(value), FOR_EVER_S)


def _stale(value: str | None) -> int:
    # Without a value any age is good; with a wrong one, none beyond the time.
    return FOR_EVER_S if value is None else _seconds(value, wrong=0)
