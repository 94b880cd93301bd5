"""What a caller says of caching."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiergate.cache.control import FOR_EVER_S, SAYS_NOTHING, Control, read_control


@pytest.mark.parametrize(
    ("header", "want"),
    [
        (None, SAYS_NOTHING),
        ("", SAYS_NOTHING),
        (" , ,", SAYS_NOTHING),
        ("no-store", Control(no_store=True)),
        ("No-Cache", Control(no_cache=True)),
        ("only-if-cached", Control(only_if_cached=True)),
        ("max-age=60", Control(max_age_s=60)),
        ('max-age="60"', Control(max_age_s=60)),
        ("max-age=60, max-age=30", Control(max_age_s=30)),
        ("min-fresh=5,min-fresh=9", Control(min_fresh_s=9)),
        ("max-stale", Control(max_stale_s=FOR_EVER_S)),
        ("max-stale=10", Control(max_stale_s=10)),
        ("max-stale=10, max-stale", Control(max_stale_s=10)),
        ("max-age=99999999999", Control(max_age_s=0)),
        ("max-age=9999999999", Control(max_age_s=FOR_EVER_S)),
        ("no-transform, stale-if-error=60, x=y", SAYS_NOTHING),
        ("no-cache , only-if-cached;", Control(no_store=True, no_cache=True, only_if_cached=True)),
        ('max-age="60, Only-If-Cached', Control(no_store=True, no_cache=True, only_if_cached=True)),
        ('x="a, no-store", max-age=1', Control(max_age_s=1)),
        # What cannot be read gives less of the cache, never more.
        ("max-age", Control(max_age_s=0)),
        ("max-age=-1", Control(max_age_s=0)),
        ("max-age=1.5", Control(max_age_s=0)),
        ("min-fresh=soon", Control(min_fresh_s=FOR_EVER_S)),
        ("max-stale=soon", Control(max_stale_s=0)),
        ('max-age="60', Control(no_store=True, no_cache=True)),
        ("=5", Control(no_store=True, no_cache=True)),
    ],
)
def test_a_header_is_read_as_the_standard_says(header: str | None, want: Control) -> None:
    """RFC 9111, with doubt against the cache."""
    assert read_control(header) == want


@given(st.text(max_size=200))
def test_every_header_can_be_read(header: str) -> None:
    """In time, and to something."""
    found = read_control(header)
    assert found.max_age_s is None or 0 <= found.max_age_s <= FOR_EVER_S
