"""Answers of a job beside the rows that asked for them: one flat row for each row of the input."""

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from itertools import chain
from typing import Any, Final

from tiergate.app.jobs.rows import InputRow
from tiergate.core import CannotStart

ANSWER_COLUMNS: Final = (
    "answer",
    "finish_reason",
    "input_tokens",
    "output_tokens",
    "cost_usd",
    "target",
    "error",
)
_BEGINNING_ROWS: Final = 100
_BEGINNING_BYTES: Final = 8 * 1024 * 1024


def flat_rows(inputs: Iterable[InputRow], outputs: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Give each row's own fields, then `ANSWER_COLUMNS`; all of these are None where there is no output yet.

    Every row has the fields that the first hundred have between them, None where it has none of that name. A
    column of ours whose name one of them has gets a trailing underscore; a later row's own field of that name
    gets one instead, so that a column holds the same in all rows. Costs are Decimals, in USD.

    Args:
        inputs: from the beginning.
        outputs: lines of OpenAI's batch output with `tiergate.n`, in the order of the rows; not of all.

    Raises:
        CannotStart: the outputs are not those of these inputs.
    """
    inputs = iter(inputs)
    beginning = _beginning(inputs)
    fields = dict.fromkeys(name for row in beginning for name in row.fields)
    columns = [_free(name, fields) for name in ANSWER_COLUMNS]
    ours = set(columns)
    results = _Results(outputs)
    for row in chain(beginning, inputs):
        own = {name if name in fields else _free(name, ours): value for name, value in row.fields.items()}
        answers = _answers(results.of(row))
        yield {**fields, **own, **dict(zip(columns, answers, strict=True))}
    results.end()


class _Results:
    """Outputs, taken in step with the inputs."""

    def __init__(self, outputs: Iterable[Mapping[str, Any]]) -> None:
        self._outputs = iter(outputs)
        self._next: Mapping[str, Any] | None = None
        self._n = 0
        self._advance()

    def of(self, row: InputRow) -> Mapping[str, Any] | None:
        """Give the output of a row, if there is one."""
        output = self._next
        if output is None or self._n != row.n:
            return None
        named = output.get("custom_id")
        if isinstance(named, str) and named != row.custom_id:
            raise CannotStart(
                f"Row {row.n} of the input is {row.custom_id[:100]!r}, and the job's is {named[:100]!r}: the "
                "input was changed since. Take the input that the job was made of."
            )
        self._advance()
        return output

    def _advance(self) -> None:
        self._next = next(self._outputs, None)
        if self._next is None:
            return
        n = _number(self._next)
        if n <= self._n:
            raise CannotStart(f"The job's output has row {n} twice, or out of order; fetch it again.")
        self._n = n

    def end(self) -> None:
        """Let no output be left that belongs to no row."""
        if self._next is not None:
            raise CannotStart(
                f"The job has a row {self._n}, and the input ends before it: the input was "
                "changed since. Take the input that the job was made of."
            )


def _beginning(inputs: Iterator[InputRow]) -> list[InputRow]:
    beginning: list[InputRow] = []
    size = 0
    for row in inputs:
        beginning.append(row)
        size += len(row.line)
        if len(beginning) == _BEGINNING_ROWS or size > _BEGINNING_BYTES:
            break
    return beginning


def _free(name: str, taken: Iterable[str]) -> str:
    while name in taken:
        name += "_"
    return name


def _number(output: Mapping[str, Any]) -> int:
    n = _object(output, "tiergate").get("n")
    if type(n) is not int:
        raise CannotStart(
            "The job's output has a line that does not say which row it belongs to (`tiergate.n`)."
        )
    return n


def _answers(output: Mapping[str, Any] | None) -> tuple[Any, ...]:
    """Give the values of `ANSWER_COLUMNS`."""
    if output is None:
        return (None,) * len(ANSWER_COLUMNS)
    response, ours = _object(output, "response"), _object(output, "tiergate")
    body = _object(response, "body")
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    usage = _object(body, "usage")
    cost = ours.get("cost_usd")
    return (
        _text(_object(choice, "message").get("content")),
        choice.get("finish_reason"),
        usage.get("prompt_tokens"),
        usage.get("completion_tokens"),
        None if cost is None else Decimal(str(cost)),
        ours.get("target"),
        _error(_object(output, "error") or _object(body, "error"), response.get("status_code")),
    )


def _text(content: Any) -> str | None:
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict)]
        return "".join(text for text in texts if isinstance(text, str))
    return content if isinstance(content, str) else None


def _error(error: Mapping[str, Any], status: Any) -> str | None:
    """Write an error of the line, or of the answer's body; a status alone where it says nothing."""
    if error:
        code = error.get("code") or error.get("type") or "error"
        return f"{code}: {error.get('message') or 'no reason given'}"
    return f"http_{status}: no reason given" if isinstance(status, int) and status >= 400 else None


def _object(outer: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = outer.get(name)
    return value if isinstance(value, Mapping) else {}
