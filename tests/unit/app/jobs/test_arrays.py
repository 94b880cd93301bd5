"""The splitter of JSON arrays: it finds what a parser finds, however the array comes in."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiergate.app.jobs.arrays import split_array
from tiergate.app.jobs.pieces import Piece

TEXTS = st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from('"\\[]{},')), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
INDENTS = st.sampled_from([None, 0, 2])


def chunks_of(data: bytes, size: int) -> list[bytes]:
    """The data in chunks of a size."""
    return [data[at : at + size] for at in range(0, len(data), size)]


def split(text: str, size: int = 1, bytes_max: int = 1000) -> list[Piece]:
    """The pieces of an array that comes in chunks of a size."""
    return list(split_array(chunks_of(text.encode(), size), bytes_max))


@given(st.lists(VALUES, max_size=6), INDENTS, st.booleans(), st.integers(1, 40))
def test_it_gives_the_elements_that_a_parser_gives(
    values: list[Any], indent: int | None, ascii_only: bool, size: int
) -> None:
    """Any values, any spelling, cut anywhere."""
    text = f" \n{json.dumps(values, indent=indent, ensure_ascii=ascii_only)}\r\n"
    pieces = split(text, size, bytes_max=100_000)
    assert [piece.flaw for piece in pieces] == [""] * len(values)
    assert [json.loads(piece.data) for piece in pieces] == json.loads(text)
    assert [piece.place for piece in pieces] == [f"element {n}" for n in range(1, len(values) + 1)]


@given(st.lists(VALUES, min_size=1, max_size=6), INDENTS, st.integers(1, 40), st.data())
def test_an_array_that_is_cut_off_gives_what_was_whole_and_says_so(
    values: list[Any], indent: int | None, size: int, data: st.DataObject
) -> None:
    """Wherever it is cut: never less is taken for an element than there was."""
    text = json.dumps(values, indent=indent)
    *whole, last = split(text[: data.draw(st.integers(1, len(text) - 1))], size)
    assert last.flaw.startswith("is cut off")
    assert [json.loads(piece.data) for piece in whole] == values[: len(whole)]


@given(
    st.lists(st.sampled_from(["x", "y" * 30, {"a": "," * 30}, ["]" * 30]]), max_size=6), st.integers(1, 40)
)
def test_an_element_that_is_too_long_is_passed_over(values: list[Any], size: int) -> None:
    """And those after it are found."""
    pieces = split(json.dumps(values), size, bytes_max=20)
    assert [bool(piece.flaw) for piece in pieces] == [value != "x" for value in values]
    assert all(not piece.data for piece in pieces if piece.flaw)


@pytest.mark.parametrize("size", [1, 100])
@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[]", []),
        ("[1,]", ["1"]),
        ("[1,,2]", ["1", "element 2 is empty", "2"]),
        ('["a" "b", 2]', ['"a" "b"', "2"]),
        ('[1] {"a": 1}', ["1", "what stands after the end of the array"]),
        ("[1]\n[2]", ["1", "what stands after the end of the array"]),
    ],
)
def test_what_is_no_array_is_told(text: str, found: list[str], size: int) -> None:
    """A last comma is let pass; a comma that is missing leaves an element that is no JSON."""
    pieces = split(text, size)
    assert len(pieces) == len(found)
    for piece, expected in zip(pieces, found, strict=True):
        said = f"{piece.place} {piece.flaw}" if piece.flaw else piece.data.decode()
        assert said.startswith(expected)
