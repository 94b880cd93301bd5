"""What became of a call at the cache."""

from enum import StrEnum

import msgspec


class Forwarded(StrEnum):
    """Why a call went on to a target, in the words of RFC 9211."""

    BYPASS = "bypass"
    """The cache had nothing to do with it."""
    MISS = "miss"
    """Nothing was kept for it."""
    REQUEST = "request"
    """Something was, and the caller did not want it."""
    STALE = "stale"
    """Something was, and was too old."""


class CacheSaid(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a call at the cache."""

    forwarded: Forwarded | None = None
    """None: it was answered from there."""
    stored: bool = False
    """The answer is kept now."""
    collapsed: bool = False
    """It was given the answer to somebody's same question."""
    ttl_s: float | None = None
    """For how long the answer is fresh; less than nothing: it is not any more."""
    detail: str | None = None

    @property
    def outcome(self) -> str:
        """The word that records have for it."""
        if self.forwarded is None:
            return "hit" if self.ttl_s is None or self.ttl_s >= 0 else "stale"
        return "collapsed" if self.collapsed else self.forwarded.value
