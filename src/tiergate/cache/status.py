"""What a caller is told of the cache, as `Cache-Status` writes it (RFC 9211)."""

import re
from enum import StrEnum
from math import floor
from typing import Final

import msgspec

NAME: Final = "tiergate"
_TOKEN: Final = re.compile(r"[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*")


class Forwarded(StrEnum):
    """Why a call went on to a target."""

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


def write_status(said: CacheSaid) -> bytes:
    """Write the header's value.

    >>> write_status(CacheSaid(ttl_s=59.5, detail="memory"))
    b'tiergate; hit; ttl=59; detail=memory'
    >>> write_status(CacheSaid(forwarded=Forwarded.BYPASS, detail="temperature"))
    b'tiergate; fwd=bypass; detail=temperature'
    """
    parts = [NAME, "hit" if said.forwarded is None else f"fwd={said.forwarded.value}"]
    if said.stored:
        parts.append("stored")
    if said.collapsed:
        parts.append("collapsed")
    if said.ttl_s is not None:
        parts.append(f"ttl={floor(said.ttl_s)}")
    if said.detail is not None:
        parts.append(f"detail={_item(said.detail)}")
    return "; ".join(parts).encode("ascii")


def _item(text: str) -> str:
    """Write a token, or a string where it is none; what a header cannot hold is left out."""
    if _TOKEN.fullmatch(text):
        return text
    kept = "".join(char for char in text if " " <= char <= "~")
    return '"' + kept.replace("\\", "\\\\").replace('"', '\\"') + '"'
