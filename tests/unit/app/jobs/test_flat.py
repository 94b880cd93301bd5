"""Flat rows: the input's fields and the answers side by side, by whatever names are free."""

from decimal import Decimal
from typing import Any

import pytest

from tiergate.app.jobs.flat import ANSWER_COLUMNS, flat_rows
from tiergate.app.jobs.rows import InputRow
from tiergate.core import CannotStart

NOTHING: dict[str, Any] = dict.fromkeys(ANSWER_COLUMNS)


def asked(n: int, **fields: Any) -> InputRow:
    """A row of an input."""
    return InputRow(n=n, place=f"line {n}", line=b"{}", custom_id=f"row-{n}", fields=fields)


def answered(n: int, text: Any = "Hello", **others: Any) -> dict[str, Any]:
    """The output line of a row."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    body = {"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}}
    return {
        "id": f"line_{n}",
        "custom_id": f"row-{n}",
        "response": {"status_code": 200, "request_id": "r", "body": body},
        "error": None,
        "tiergate": {"n": n, "target": "p/m", "tier": "hosted", "attempts": 1, "cost_usd": 1e-7},
        **others,
    }


def failed(n: int, response: Any = None, error: Any = None) -> dict[str, Any]:
    """The output line of a row that was not answered."""
    return answered(n, response=response, error=error, tiergate={"n": n, "cost_usd": None})


def test_a_row_has_its_fields_and_then_its_answer() -> None:
    """Costs are exact."""
    [row] = flat_rows([asked(1, text="Hi")], [answered(1)])
    assert list(row) == ["text", *ANSWER_COLUMNS]
    assert row == {
        "text": "Hi",
        "answer": "Hello",
        "finish_reason": "stop",
        "input_tokens": 3,
        "output_tokens": 2,
        "cost_usd": Decimal("1E-7"),
        "target": "p/m",
        "error": None,
    }


def test_rows_without_output_are_there_without_answer() -> None:
    """Whether they are missing before, between or after others."""
    rows = flat_rows([asked(n, text=n) for n in range(1, 6)], [answered(2), answered(4)])
    assert [row["answer"] for row in rows] == [None, "Hello", None, "Hello", None]
    assert list(flat_rows([asked(1)], [])) == [NOTHING]


@pytest.mark.parametrize(
    ("output", "says"),
    [
        (failed(1, error={"code": "batch_expired", "message": "Too late."}), "batch_expired: Too late."),
        (failed(1, {"status_code": 400, "body": {"error": {"code": "c", "message": "No."}}}), "c: No."),
        (failed(1, {"status_code": 400, "body": {"error": {"type": "t"}}}), "t: no reason given"),
        (failed(1, {"status_code": 502, "body": "odd"}), "http_502: no reason given"),
    ],
)
def test_an_error_is_said_in_one_cell(output: dict[str, Any], says: str) -> None:
    """Of the line, or of the answer's body."""
    assert list(flat_rows([asked(1)], [output])) == [{**NOTHING, "error": says}]


@pytest.mark.parametrize(
    ("content", "answer"),
    [
        (None, None),
        ("", ""),
        ([{"type": "text", "text": "a"}, {"type": "x"}, {"text": "b"}], "ab"),
        (7, None),
    ],
)
def test_the_answer_is_text_or_nothing(content: Any, answer: str | None) -> None:
    """Parts are joined."""
    [row] = flat_rows([asked(1)], [answered(1, content)])
    assert row["answer"] == answer


def test_a_name_that_the_input_has_is_left_to_it() -> None:
    """Ours get underscores, as many as are needed."""
    [row] = flat_rows([asked(1, answer="own", error="own", error_="own")], [answered(1)])
    assert (row["answer"], row["answer_"], row["error"], row["error__"]) == ("own", "Hello", "own", None)


def test_a_column_holds_the_same_in_all_rows() -> None:
    """Names are those of the first hundred rows; a later row's own field makes way."""
    inputs = [asked(1), *(asked(n, a=n) for n in range(2, 101)), asked(101, answer="own", b=1)]
    rows = list(flat_rows(inputs, [answered(101)]))
    assert list(rows[0]) == ["a", *ANSWER_COLUMNS]
    assert rows[100] == {**rows[100], "a": None, "b": 1, "answer": "Hello", "answer_": "own"}


@pytest.mark.parametrize(
    ("outputs", "says"),
    [
        ([answered(2), answered(2)], "row 2 twice, or out of order"),
        ([answered(2), answered(1)], "row 1 twice, or out of order"),
        ([answered(1), answered(3)], "The job has a row 3, and the input ends before it"),
        ([answered(1, custom_id="x")], "Row 1 of the input is 'row-1', and the job's is 'x'"),
        ([answered(1, tiergate=None)], "does not say which row it belongs to"),
    ],
)
def test_outputs_of_another_input_are_refused(outputs: list[dict[str, Any]], says: str) -> None:
    """Answers never stand beside questions that are not theirs."""
    with pytest.raises(CannotStart, match=says):
        list(flat_rows([asked(1), asked(2)], outputs))
