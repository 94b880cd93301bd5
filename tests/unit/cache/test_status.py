"""What callers are told of the cache."""

import pytest

from tiergate.cache import write_status
from tiergate.core import CacheSaid, Forwarded


@pytest.mark.parametrize(
    ("said", "want"),
    [
        (CacheSaid(), b"tiergate; hit"),
        (CacheSaid(ttl_s=3599.9, detail="memory"), b"tiergate; hit; ttl=3599; detail=memory"),
        (CacheSaid(ttl_s=-0.5), b"tiergate; hit; ttl=-1"),
        (CacheSaid(forwarded=Forwarded.MISS, stored=True, ttl_s=60), b"tiergate; fwd=miss; stored; ttl=60"),
        (CacheSaid(forwarded=Forwarded.MISS, collapsed=True), b"tiergate; fwd=miss; collapsed"),
        (
            CacheSaid(forwarded=Forwarded.REQUEST, detail="no-cache"),
            b"tiergate; fwd=request; detail=no-cache",
        ),
        (CacheSaid(forwarded=Forwarded.STALE), b"tiergate; fwd=stale"),
        (CacheSaid(detail='a "b" \\ c'), b'tiergate; hit; detail="a \\"b\\" \\\\ c"'),
        (CacheSaid(detail="5é\r\nx: y"), b'tiergate; hit; detail="5x: y"'),
    ],
)
def test_it_is_written_as_the_standard_says(said: CacheSaid, want: bytes) -> None:
    """RFC 9211, on one line whatever stands in it."""
    assert write_status(said) == want
