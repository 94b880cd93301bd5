"""Random bytes that are fetched many at a time."""

from tiergate.app.entropy import Entropy


def test_so_many_as_were_asked_for_and_none_twice() -> None:
    """Also more than are fetched at once."""
    entropy = Entropy()
    found = [entropy(10) for _ in range(2_000)]
    assert {len(one) for one in found} == {10} and len(set(found)) == 2_000
    assert len(entropy(10_000)) == 10_000
    assert entropy(0) == b""
