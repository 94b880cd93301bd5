"""Named statements out of `.sql` files."""

import pytest

from tiergate.store.statements import parse, statements


def test_a_statement_is_found_by_its_name_without_its_comments() -> None:
    """Names split the file; comment lines, also between statements, are no part of them."""
    text = """-- The head of the file.

-- name: one
SELECT 1
-- inside
FROM two;

-- Says something about the next.
-- name: two
SELECT ';';
"""
    with pytest.raises(AssertionError):
        parse(text)
    assert parse(text.replace("';'", "2")) == {"one": "SELECT 1\n\nFROM two", "two": "SELECT 2"}


@pytest.mark.parametrize(
    "text",
    [
        "-- name: open\nSELECT 1",
        "-- name: two\nSELECT 1; SELECT 2;",
        "-- name: empty\n;",
        "-- name: same\nSELECT 1;\n-- name: same\nSELECT 2;",
    ],
    ids=["no semicolon", "two statements", "nothing", "one name twice"],
)
def test_a_file_that_says_something_unclear_is_refused(text: str) -> None:
    """A slip in a `.sql` file fails when it is read, not when it is first used."""
    with pytest.raises(AssertionError):
        parse(text)


def test_every_update_of_a_state_names_the_state_that_it_leaves() -> None:
    """No UPDATE of the ledger can move a record out of a state that it does not expect."""
    updates = {name: sql for name, sql in statements("ledger").items() if "UPDATE" in sql}

    assert len(updates) >= 6
    for name, sql in updates.items():
        condition = sql.rsplit("WHERE", 1)[1]
        leaves = ("state = 'alive'", "hold_state = 'held'", "hold_state = 'lapsed'", "end_state IS NULL")
        assert any(state in condition for state in leaves), name
