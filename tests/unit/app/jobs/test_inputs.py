"""Inputs of every form: the batch lines that they become, and what is said of what cannot be read."""

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiergate.app.jobs.inputs import open_input
from tiergate.app.jobs.rows import InputRow
from tiergate.app.jobs.wishes import Form, Wish
from tiergate.core import CannotStart

ASKED = {"role": "user", "content": "Hi"}


def rows_of(source: bytes | str | Path, **wish: Any) -> list[InputRow]:
    """All rows of an input, which is a stream unless it is a path."""
    if isinstance(source, str):
        source = source.encode()
    opened = io.BytesIO(source) if isinstance(source, bytes) else source
    with open_input(opened, wish=Wish(**{"model": "m", **wish})) as rows:
        return list(rows)


def bodies_of(source: bytes | str | Path, **wish: Any) -> list[dict[str, Any]]:
    """The bodies of its lines; all of its rows are good."""
    rows = rows_of(source, **wish)
    assert [row.problem for row in rows] == [None] * len(rows)
    return [json.loads(row.line)["body"] for row in rows]


def prompts_of(source: bytes | str | Path, **wish: Any) -> list[str]:
    """What its rows ask."""
    return [body["messages"][-1]["content"] for body in bodies_of(source, **wish)]


def refusal_of(source: bytes | str | Path, **wish: Any) -> str:
    """Why nothing can be made of it."""
    with pytest.raises(CannotStart) as caught:
        rows_of(source, **wish)
    return str(caught.value)


# Forms.


def test_a_row_becomes_a_compact_line_of_the_batch_format() -> None:
    """And the same bytes each time."""
    source = '{"custom_id": "a", "prompt": "Hi", "temperature": 0}'
    [row] = rows_of(source)
    assert row.line == (
        b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":'
        b'{"messages":[{"role":"user","content":"Hi"}],"temperature":0,"model":"m"}}'
    )
    assert (row.n, row.place, row.problem, row.custom_id) == (1, "line 1", None, "a")
    assert row.fields == json.loads(source)
    assert rows_of(source) == [row]


@pytest.mark.parametrize(
    ("source", "form"),
    [
        ('{"custom_id": "1", "method": "POST", "url": "/v1/x", "body": {"messages": [%s]}}', Form.BATCH),
        ('{"messages": [%s]}', Form.MESSAGES),
        ('[{"messages": [%s]}]', Form.MESSAGES),
        ('[{"messages": [%s]}]', Form.ARRAY),
        ('{"prompt": "Hi"}', Form.PROMPTS),
        ('["Hi"]', Form.ARRAY),
        ('\n  [ {"prompt": "Hi"} ]', Form.ARRAY),
        ('\ufeff{"prompt": "Hi"}', Form.PROMPTS),
    ],
)
def test_json_is_recognised_and_can_be_named(source: str, form: Form) -> None:
    """By its first character and by the fields of its objects."""
    text = source.replace("%s", json.dumps(ASKED))
    assert bodies_of(text) == bodies_of(text, form=form) == [{"messages": [ASKED], "model": "m"}]


def test_a_batch_line_keeps_what_it_says() -> None:
    """URL, method and body, whatever they are; the server judges them."""
    line = {
        "custom_id": "1",
        "method": "GET",
        "url": "/v1/x",
        "body": {"model": "own", "messages": [], "a": 1},
    }
    [row] = rows_of(json.dumps(line), model=None)
    assert json.loads(row.line) == line


def test_each_object_is_read_by_its_own_fields() -> None:
    """A file may mix them, unless a form is named."""
    source = '{"prompt": "Hi"}\n' + json.dumps({"messages": [ASKED]})
    assert prompts_of(source) == ["Hi", "Hi"]
    assert [row.problem for row in rows_of(source, form=Form.PROMPTS)] == [
        None,
        "Line 2 must have a `prompt`, and that must be a text.",
    ]


def test_text_is_one_prompt_a_line_where_it_is_asked_for() -> None:
    """Also where it looks like something else."""
    assert prompts_of('{"a"\r\n\n[b]\n', form=Form.TEXT) == ['{"a"', "[b]"]
    assert prompts_of("a\nb", form=Form.TEXT, prompt="<{prompt}>") == ["<a>", "<b>"]
    assert "--form text" in refusal_of("Just a line\n")


def test_a_system_message_goes_before_prompts_only() -> None:
    """The row's own is preferred; whoever writes messages has written the system message."""
    source = '["Hi", {"prompt": "Hi", "system": "own"}, {"messages": []}]'
    assert [body["messages"] for body in bodies_of(source, system="Be brief.")] == [
        [{"role": "system", "content": "Be brief."}, ASKED],
        [{"role": "system", "content": "own"}, ASKED],
        [],
    ]


def test_the_model_is_set_in_every_row_and_fields_where_there_are_none() -> None:
    """Of the two names of the limit of tokens, one is enough."""
    source = [
        {"prompt": "Hi", "model": "own", "max_completion_tokens": 7},
        {"prompt": "Hi", "temperature": 1},
    ]
    wish = {"fields": {"max_tokens": 5, "temperature": 0}}
    first, second = bodies_of(json.dumps(source), **wish)
    assert (first["model"], first["temperature"]) == ("m", 0)
    assert first["max_completion_tokens"] == 7 and "max_tokens" not in first
    assert (second["model"], second["temperature"], second["max_tokens"]) == ("m", 1, 5)
    assert bodies_of(json.dumps(source[:1]), model=None, **wish)[0]["model"] == "own"
    assert bodies_of('["Hi"]', model=None, fields={"model": "default"})[0]["model"] == "default"


@pytest.mark.parametrize(
    ("fields", "custom_id"),
    [
        ({"custom_id": "a", "id": "b"}, "a"),
        ({"id": "b"}, "b"),
        ({"id": 17}, "17"),
        ({"custom_id": None, "id": ""}, "row-1"),
        ({"id": True}, "row-1"),
        ({"id": 1.5}, "row-1"),
        ({}, "row-1"),
    ],
)
def test_a_row_is_called_by_its_own_id_or_by_its_number(fields: dict[str, Any], custom_id: str) -> None:
    """Which is not sent on as a field of the body."""
    [row] = rows_of(json.dumps({**fields, "prompt": "Hi"}))
    assert row.custom_id == json.loads(row.line)["custom_id"] == custom_id
    assert json.loads(row.line)["body"] == {"messages": [ASKED], "model": "m"}


def test_blank_lines_are_no_rows_but_lines() -> None:
    """Rows are counted without them, places with them."""
    rows = rows_of('\n{"prompt": "Hi"}\r\n \t\r\n{"prompt": "Hi"}')
    assert [(row.n, row.place, row.custom_id) for row in rows] == [
        (1, "line 2", "row-1"),
        (2, "line 4", "row-2"),
    ]


def test_a_gzip_file_is_read_as_what_is_in_it(tmp_path: Path) -> None:
    """Told by the ending `.gz`; what is under it tells the form."""
    path = tmp_path / "in.csv.gz"
    path.write_bytes(gzip.compress(b"text\nHi\n"))
    assert prompts_of(path, prompt="{text}") == ["Hi"]
    path.write_bytes(path.read_bytes()[:-10])
    assert "no whole gzip file" in refusal_of(path, prompt="{text}")
    path.write_bytes(b"no gzip")
    assert "no whole gzip file" in refusal_of(path, prompt="{text}")


# Rows that cannot be sent.


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b'{"prompt": "Hi"', "Line 2 is not valid JSON: Input data was truncated."),
        (b'{"prompt": "\xff"}', "Line 2 is not valid JSON: it holds bytes that are not UTF-8."),
        (b"17", "Line 2 must be a JSON object."),
        (b'"a" "b"', "Line 2 is no JSON text;"),
        (b'{"prompt": "a", "prompt": "b"}', "Line 2 cannot be taken: The key 'prompt' stands twice"),
        (b'{"prompt": 17}', "Line 2 must have a `prompt`, and that must be a text."),
        (b'{"prompt": " "}', "Line 2 has nothing to ask: its prompt is empty."),
        (b'{"prompt": "Hi", "system": 1}', "Line 2 has a `system` that is no text."),
        (b'{"messages": "Hi"}', "Line 2 must have `messages`, a list of messages."),
        (b'{"body": "Hi"}', "Line 2 is no batch line: its `body` must be an object."),
        (b'{"text": "Hi"}', "Line 2 has neither `messages` nor `prompt` nor `body`, but 'text'."),
        (b'{"prompt": ' + b"[" * 100 + b"]" * 100 + b"}", "Line 2 is nested deeper than 64 levels."),
        (b'{"prompt": "' + b"x" * 200 + b'"}', "Line 2 is longer than 150 bytes;"),
    ],
)
def test_a_bad_line_says_what_is_wrong_and_those_around_it_go_on(line: bytes, says: str) -> None:
    """What is sent in its stead says the same."""
    limit = 1000 if b"[" in line else 150
    first, bad, last = rows_of(b'{"prompt": "Hi"}\n%s\n{"prompt": "Hi"}' % line, line_bytes_max=limit)
    assert bad.problem is not None and bad.problem.startswith(says)
    assert json.loads(bad.line) == {"custom_id": "row-2", "invalid": bad.problem}
    assert first.problem is last.problem is None and last.custom_id == "row-3"


def test_a_bad_row_keeps_its_name_where_it_can_be_read() -> None:
    """So that whoever sent it knows it again."""
    [row] = rows_of('{"id": "a", "prompt": ""}')
    assert json.loads(row.line) == {"custom_id": "a", "invalid": row.problem}
    assert row.fields == {"id": "a", "prompt": ""}


def test_a_row_without_a_model_is_bad_where_others_have_one() -> None:
    """Where the first has none, none is expected of the others."""
    source = '{"prompt": "Hi", "model": "own"}\n{"prompt": "Hi"}'
    assert rows_of(source, model=None)[1].problem == (
        "Line 2 names no model. Give it a `model`, or one for all rows with -m."
    )
    assert refusal_of('{"prompt": "Hi"}\n' + source, model=None).startswith("Line 1 names no model.")


def test_names_of_fields_are_not_quoted_without_end() -> None:
    """Whatever a row calls them."""
    source = json.dumps([{"prompt": "Hi"}, {f"{name}" * 500: 1 for name in "abcdefghijklmnop"}])
    problem = rows_of(source)[1].problem
    assert problem is not None and "more" in problem and "a" * 41 not in problem and len(problem) < 700


# Inputs of which nothing can be made.


def test_files_that_cannot_be_read_say_what_to_do(tmp_path: Path) -> None:
    """Before the first row."""
    assert refusal_of(tmp_path / "none").startswith("There is no file ")
    assert "is a folder" in refusal_of(tmp_path)
    assert "cannot be read: " in refusal_of(Path("/proc/self/mem"))


@pytest.mark.parametrize(
    ("source", "wish", "says"),
    [
        (b"", {}, "Standard input has no rows"),
        (b" \n\n", {}, "has no rows"),
        (b"[]", {}, "has no rows"),
        (b"text\n", {"prompt": "{text}"}, "has no rows"),
        (b"a,b\n1,2\n", {"form": Form.CSV}, "Give a template"),
        (b"a,b\n1,2\n", {}, "neither `{` nor `[`"),
        (b"a,b\n1,2\n", {"form": Form.PROMPTS}, "as lines of the form `prompts` do"),
        (b'{"prompt": "Hi"}', {"form": Form.ARRAY}, "no JSON array"),
        (b"\x1f\x8b\x08", {}, "is compressed"),
        (b"\xff\xfe{\x00", {}, "is UTF-16"),
        (b"\xfe\xff\x00a", {"prompt": "{a}"}, "is UTF-16"),
        (b'{\n"prompt": "Hi"}', {}, "several lines"),
        (b'{"text": "Hi"}', {}, "but 'text'. Make prompts of its fields with a template"),
        (
            b'{"text": "Hi"}',
            {"prompt": "{txt}"},
            "no field 'txt', which the prompt template names. It has 'text'",
        ),
        (b"a,b\n1,2\n", {"prompt": "{c}"}, "no field 'c', which the prompt template names. It has 'a', 'b'."),
        (b"{}", {"prompt": "{a}", "form": Form.BATCH}, "makes no sense with the form `batch`"),
        (b"{}", {"prompt": "a"}, "names no field"),
        (b"a,a\n", {"prompt": "{a}"}, "columns of the same name: 'a'"),
        (b'"a"b\n', {"prompt": "{a}"}, "The CSV header is no CSV"),
        (b"a\n\xe9\n", {"prompt": "{a}"}, "not UTF-8 at line 2. Convert it: iconv"),
        (b'a\n1\n"2\n3\n', {"prompt": "{a}"}, "the record at line 3 opens a quote that nothing closes"),
    ],
)
def test_an_input_that_is_wrong_as_a_whole_says_what_to_do(
    source: bytes, wish: dict[str, Any], says: str
) -> None:
    """No job is made of it."""
    assert says in refusal_of(source, **wish)


def test_what_the_reader_of_rows_raises_is_not_taken_for_an_error_of_the_input(tmp_path: Path) -> None:
    """Only reading is translated."""
    path = tmp_path / "in.jsonl"
    path.write_text('{"prompt": "Hi"}')
    with pytest.raises(FileNotFoundError), open_input(path, wish=Wish(model="m")):
        raise FileNotFoundError("of somebody else")


# CSV.


def test_a_template_makes_prompts_of_columns() -> None:
    """Cells may have quotes, delimiters and line feeds; the place is where the record begins."""
    source = 'id,text,to\r\n7,"a ""b"",\nc",French\r\n\r\n8,"d",de\r\n'
    rows = rows_of(source, prompt="To {to}: {text}")
    assert [(row.place, row.custom_id) for row in rows] == [("line 2", "7"), ("line 5", "8")]
    assert rows[0].fields == {"id": "7", "text": 'a "b",\nc', "to": "French"}
    assert prompts_of(source, prompt="To {to}: {text}") == ['To French: a "b",\nc', "To de: d"]


def test_a_template_makes_prompts_of_json_too() -> None:
    """Of objects' fields, which are no fields of the body then, and of bare texts."""
    assert bodies_of('{"a": "x", "b": [1], "c": null, "model": "own"}', prompt="{a}{b}{c}|") == [
        {"messages": [{"role": "user", "content": "x[1]|"}], "model": "m"}
    ]
    assert prompts_of('["Hi"]', prompt="<{prompt}>") == ["<Hi>"]


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("in.csv", '"a,b",c\n1,2\n'),
        ("in.csv", '"a,b";c\n1;2\n'),
        ("in.csv", '"a,b"\tc\n1\t2\n'),
        ("in.tsv", "a,b\tc\n1\t2\n"),
        ("in.CSV", '\ufeff"a,b", c\n1,2\n'),
    ],
)
def test_the_delimiter_is_the_headers(tmp_path: Path, name: str, source: str) -> None:
    """A tab in `.tsv`; else comma, tab or semicolon. A byte order mark is none of the first name."""
    path = tmp_path / name
    path.write_text(source)
    assert prompts_of(path, prompt="{a,b}/{c}") == ["1/2"]


def test_a_bad_record_says_what_is_wrong_and_those_around_it_go_on() -> None:
    """Too few cells, too many, quotes amiss, too long in one line or over several."""
    bad = [
        "x",
        "x,y,z",
        '"x"y,z',
        "x," + "y" * 40,
        '"x\n' + "y\n" * 20 + '",z',
        '"x\n' + "y" * 40 + '\n"",",z',
    ]
    source = "a,b\n" + "".join(f"{record}\n1,2\n" for record in bad)
    rows = rows_of(source, prompt="{a}{b}", line_bytes_max=40)
    assert [row.problem is None for row in rows] == [False, True] * len(bad)
    problems = [row.problem or "" for row in rows[::2]]
    assert problems[0].startswith("Line 2 has another number of cells (1) than the header (2).")
    assert problems[1].startswith("Line 4 has another number of cells (3) than the header (2).")
    assert problems[2].startswith("Line 6 is no CSV (")
    assert problems[3:] == [
        f"Line {line} is longer than 40 bytes; split it, or leave some of it out." for line in (8, 10, 33)
    ]


def test_a_record_that_is_too_long_and_never_ends_is_told_as_such() -> None:
    """Nobody can know where the next one would begin."""
    assert "opens a quote that nothing closes" in refusal_of(
        'a\n"' + "x\n" * 100, prompt="{a}", line_bytes_max=40
    )


def test_a_cell_may_be_longer_than_the_csv_module_allows() -> None:
    """Its limit is 128 KiB unless somebody raises it."""
    long = "x" * 200_000
    assert prompts_of(f"a\n{long}\n", prompt="{a}") == [long]


def test_columns_without_a_name_get_one_and_empty_cells_are_rows() -> None:
    """As pandas writes its index, and as a single column has them."""
    assert rows_of(",a\n0,x\n", prompt="{a}")[0].fields == {"column_1": "0", "a": "x"}
    assert [row.fields for row in rows_of('a\n""\nx\n', prompt="-{a}")] == [{"a": ""}, {"a": "x"}]
    assert [row.fields["a"] for row in rows_of("a,b\n \n,\n", prompt="-{a}")] == [""]


CELLS = st.text(st.characters(codec="utf-8"), max_size=8)


@given(st.lists(st.lists(CELLS, min_size=2, max_size=2), min_size=1, max_size=5))
def test_what_the_csv_module_writes_is_read_back(records: list[list[str]]) -> None:
    """Any text in any cell, line ends and quotes too."""
    file = io.StringIO()
    csv.writer(file).writerows([["a", "b"], *records])
    rows = rows_of(file.getvalue(), prompt="-{a}")
    assert [list(row.fields.values()) for row in rows] == records
