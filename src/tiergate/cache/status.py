"""What a caller is told of the cache, as `Cache-Status` writes it (RFC 9211)."""

import re
from functools import lru_cache
from math import floor
from typing import Final

from tiergate.core import CacheSaid, Forwarded

NAME: Final = "tiergate"
_TOKEN: Final = re.compile(r"[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*")


# Of calls that the cache has nothing to do with, nearly all are told the same.
@lru_cache(maxsize=256)
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


def read_status(header: str) -> CacheSaid | None:
    """Read what a gateway of ours has written; None: it is something else.

    >>> read_status("tiergate; fwd=miss; stored; ttl=60")
    CacheSaid(forwarded=<Forwarded.MISS: 'miss'>, stored=True, collapsed=False, ttl_s=60.0, detail=None)
    """
    name, *parts = header.split("; ")
    told = dict(part.partition("=")[::2] for part in parts)
    forwarded, ttl, detail = told.get("fwd"), told.get("ttl"), told.get("detail")
    if name != NAME or (forwarded is None and "hit" not in told):
        return None
    try:
        return CacheSaid(
            forwarded=None if forwarded is None else Forwarded(forwarded),
            stored="stored" in told,
            collapsed="collapsed" in told,
            ttl_s=None if ttl is None else float(ttl),
            detail=detail,
        )
    except ValueError:
        return None


def _item(text: str) -> str:
    """Write a token, or a string where it is none; what a header cannot hold is left out."""
    if _TOKEN.fullmatch(text):
        return text
    kept = "".join(char for char in text if " " <= char <= "~")
    return '"' + kept.replace("\\", "\\\\").replace('"', '\\"') + '"'
