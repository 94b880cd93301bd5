"""The list of guards stays true: what it names is there. `make guards` sees that the tests need them."""

import re
from collections import Counter

import pytest

from guards.listed import ROOT, guards, names_of_tests

GUARDS = guards()
ROW = re.compile(r"F[0-4][0-9]|S[0-4][0-9]|I(1[0-2]|[1-9])|[a-z-]+")


@pytest.mark.parametrize("file", sorted({guard.path for guard in GUARDS}))
def test_each_guard_stands_once_in_its_file(file: str) -> None:
    """And would be replaced by something else."""
    text = (ROOT / file).read_text()
    for guard in GUARDS:
        if guard.path == file:
            assert len(guard.places_in(text)) == 1, guard.source
            assert guard.taken_from(text) != text, guard.source


@pytest.mark.parametrize("file", sorted({guard.test.partition("::")[0] for guard in GUARDS}))
def test_each_test_of_the_list_exists(file: str) -> None:
    """File and function; whether the case does is seen when it runs."""
    there = set(names_of_tests((ROOT / file).read_text()))
    listed = {
        guard.test.partition("::")[2].partition("[")[0] for guard in GUARDS if guard.test.startswith(file)
    }
    assert listed <= there


def test_each_guard_says_which_row_it_holds() -> None:
    """Rows by their names, and what it is for in one sentence."""
    for guard in GUARDS:
        assert all(ROW.fullmatch(row) for row in guard.row.split()), guard.row
        assert re.fullmatch(r"[A-Z0-9][^\n]*\.", guard.what), guard.what


def test_no_guard_is_listed_twice() -> None:
    """By what is taken away."""
    times = Counter((guard.file, guard.source, guard.mutant) for guard in GUARDS)
    assert max(times.values()) == 1, times.most_common(1)
