"""What callers are told of the cache."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiergate.cache import read_status, write_status
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


SAID = st.builds(
    CacheSaid,
    forwarded=st.none() | st.sampled_from(Forwarded),
    stored=st.booleans(),
    collapsed=st.booleans(),
    ttl_s=st.none() | st.integers(-9_999, 9_999).map(float),
    detail=st.none() | st.sampled_from(["memory", "max-age", "stale-if-error"]),
)


@given(SAID)
def test_what_is_written_is_read(said: CacheSaid) -> None:
    """By a client of ours."""
    assert read_status(write_status(said).decode()) == said


@pytest.mark.parametrize(
    "header", ["", "other; hit", "tiergate", "tiergate; fwd=else", "tiergate; hit; ttl=soon"]
)
def test_what_others_write_is_not_ours(header: str) -> None:
    """It says nothing."""
    assert read_status(header) is None
