"""The watch on the tails: nothing among the longest grows unseen."""

import pytest

from architecture.tails import LENGTH, LISTED, ROOT, grown, listed, measured

MEND = "\nMake it shorter; or run `python tests/architecture/tails.py`, and say in the commit why it must be."


def test_the_longest_functions_have_not_grown() -> None:
    """Ten are listed; none grew by more than a quarter, and no other became as long."""
    longer = grown(measured()[0], listed()[0])
    assert not longer, "\n".join(longer) + MEND


def test_the_longest_files_have_not_grown() -> None:
    """The same for files."""
    longer = grown(measured()[1], listed()[1])
    assert not longer, "\n".join(longer) + MEND


def test_the_list_is_complete_and_names_what_exists() -> None:
    """Ten of each, longest first; a renamed entry is to be listed anew."""
    for tail in listed():
        assert len(tail) == LENGTH
        assert list(tail.values()) == sorted(tail.values(), reverse=True)
        for name in tail:
            assert (ROOT / "src" / "tiergate" / name.partition(":")[0]).exists(), f"{name} in {LISTED.name}"


@pytest.mark.parametrize(
    ("now", "seen"),
    [
        ({"a.py": 100}, False),
        ({"a.py": 125}, False),
        ({"a.py": 126}, True),
        ({"b.py": 51}, True),
        ({"new.py": 50}, False),
        ({"new.py": 51}, True),
        ({}, False),
    ],
)
def test_the_watch_sees_growth(now: dict[str, int], seen: bool) -> None:
    """Of a listed entry against itself, of a new one against the shortest."""
    assert bool(grown(now, {"a.py": 100, "b.py": 40})) is seen


def test_the_path_of_a_call_stays_on_two_pages() -> None:
    """`serve/handle.py` is what every oversized gateway grew into: it stays under 120 lines."""
    assert len((ROOT / "src/tiergate/serve/handle.py").read_text().splitlines()) < 120
