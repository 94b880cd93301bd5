"""Tables in files: what they hold, and that they are there whole or not at all."""

import csv
import gzip
import json
import tempfile
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiergate.app.jobs.tables import write_table
from tiergate.core import CannotStart

ROWS: list[dict[str, Any]] = [
    {"text": 'a "b",\r\nc', "answer": None, "cost_usd": Decimal("1E-7"), "list": [1, "é"]},
    {"text": "d", "answer": "", "cost_usd": None, "list": True, "more": 1},
]


def test_json_lines_hold_the_rows_as_they_are(tmp_path: Path) -> None:
    """Each row on a line; costs are numbers."""
    path = tmp_path / "out.jsonl"
    assert write_table(path, ROWS) == 2
    first, second = map(json.loads, path.read_text().splitlines())
    assert first == {**ROWS[0], "cost_usd": 1e-7}
    assert second == ROWS[1]


@pytest.mark.parametrize(("name", "delimiter"), [("out.csv", ","), ("out.CSV", ","), ("out.tsv", "\t")])
def test_csv_has_the_columns_of_the_first_row(tmp_path: Path, name: str, delimiter: str) -> None:
    """Nothing for None, money without exponent, JSON for what is no text."""
    path = tmp_path / name
    assert write_table(path, ROWS) == 2
    with path.open(newline="") as file:
        assert list(csv.reader(file, delimiter=delimiter)) == [
            ["text", "answer", "cost_usd", "list"],
            ['a "b",\r\nc', "", "0.0000001", '[1,"é"]'],
            ["d", "", "", "true"],
        ]


CELLS = st.text(st.characters(codec="utf-8"), max_size=8)


@given(st.lists(st.fixed_dictionaries({"a": CELLS, "b": CELLS}), min_size=1, max_size=5))
def test_what_is_written_as_csv_is_read_back(rows: list[dict[str, str]]) -> None:
    """Any text in any cell, line ends and quotes too."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out.csv"
        write_table(path, rows)
        with path.open(newline="", encoding="utf-8") as file:
            assert list(csv.DictReader(file)) == rows


def test_a_name_that_ends_in_gz_is_compressed(tmp_path: Path) -> None:
    """The same bytes for the same rows."""
    one, two = tmp_path / "one.csv.gz", tmp_path / "two.csv.gz"
    for path in (one, two):
        write_table(path, [{"a": 1}])
    assert gzip.decompress(one.read_bytes()) == b"a\r\n1\r\n"
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv", "out.csv.gz"])
def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, name: str) -> None:
    """An error on the way leaves what was there, and nothing beside it."""
    path = tmp_path / name
    path.write_text("before")

    def rows() -> Iterator[dict[str, Any]]:
        yield {"a": 1}
        assert path.read_text() == "before"
        raise CannotStart("The job is gone.")

    with pytest.raises(CannotStart, match="gone"):
        write_table(path, rows())
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
    write_table(path, [])
    assert list(tmp_path.iterdir()) == [path] and path.read_bytes() != b"before"


def test_what_a_link_points_to_is_replaced(tmp_path: Path) -> None:
    """The link stays."""
    path, link = tmp_path / "out.jsonl", tmp_path / "link.jsonl"
    link.symlink_to(path)
    write_table(link, [{"a": 1}])
    assert link.is_symlink() and path.read_text() == '{"a":1}\n'


def test_a_place_where_nothing_can_be_written_is_told(tmp_path: Path) -> None:
    """A folder, a device, a path through a file, a folder that is not there."""
    (tmp_path / "file").touch()
    for path in (tmp_path, Path("/dev/null")):
        with pytest.raises(CannotStart, match="is no file that could be written"):
            write_table(path, ROWS)
    for path in (tmp_path / "file" / "out.csv", tmp_path / "none" / "out.csv"):
        with pytest.raises(CannotStart, match="cannot be written: "):
            write_table(path, ROWS)
