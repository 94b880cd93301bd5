"""One row of an input turned into one line of OpenAI's batch format."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from tiergate.app.jobs.template import Template, listed
from tiergate.app.jobs.wishes import Form, Wish
from tiergate.core import CannotStart
from tiergate.wire import dumps

Fields = Mapping[str, Any]


class InputRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row of an input, and the batch line that stands for it."""

    n: int
    """From 1; what is blank is no row."""
    place: str
    """Where it stands in the input: `line 17`, `element 17`."""
    line: bytes
    """Its batch line without line feed: the same bytes for the same row and wish. Where the row cannot be
    sent, an object with `custom_id` and with the problem as `invalid`."""
    problem: str | None = None
    """What is wrong with it and what to do, with its place."""
    custom_id: str
    fields: Fields
    """As they came: columns, fields of the object, or `prompt`. None where it could not be read."""


class RowMaker:
    """Makes rows as a wish wants them.

    What is missing in the first row that can be read is taken to be missing in all: no job of ten million
    errors is made of it.
    """

    def __init__(self, wish: Wish, template: Template | None) -> None:
        self._wish = wish
        self._template = template
        self._first = True

    def row(self, n: int, place: str, fields: Fields) -> InputRow:
        """Make a row of an object, of columns, or of a bare prompt.

        Raises:
            CannotStart: as the first row is, none can be sent.
        """
        first, self._first = self._first, False
        custom_id = _custom_id(n, fields)
        try:
            url, method, body = self._question(fields)
            if not isinstance(body.get("model"), str) or not body["model"]:
                raise _Flaw("names no model. Give it a `model`, or one for all rows with -m.", of_all=True)
        except _Flaw as flaw:
            if flaw.of_all and first:
                raise CannotStart(_sentence(place, str(flaw))) from None
            return self.bad_row(n, place, str(flaw), fields)
        line = dumps({"custom_id": custom_id, "method": method, "url": url, "body": body})
        return InputRow(n=n, place=place, line=line, custom_id=custom_id, fields=fields)

    def bad_row(self, n: int, place: str, flaw: str, fields: Fields | None = None) -> InputRow:
        """Make a row that cannot be sent; `flaw` is the rest of a sentence that begins with the place."""
        fields = fields or {}
        custom_id = _custom_id(n, fields)
        problem = _sentence(place, flaw)
        line = dumps({"custom_id": custom_id, "invalid": problem})
        return InputRow(n=n, place=place, line=line, problem=problem, custom_id=custom_id, fields=fields)

    def _question(self, fields: Fields) -> tuple[Any, Any, dict[str, Any]]:
        """Give URL, method and body."""
        wish = self._wish
        if self._template is not None:
            return wish.url, "POST", self._of_template(self._template, fields)
        form = _form_of(fields) if wish.form in _BY_FIELDS else wish.form
        if form is Form.BATCH:
            body = fields.get("body")
            if not isinstance(body, dict):
                raise _Flaw("is no batch line: its `body` must be an object.")
            return fields.get("url") or wish.url, fields.get("method") or "POST", self._completed(body, {})
        others = {name: value for name, value in fields.items() if name not in _ROW_IDS}
        of = self._of_messages if form is Form.MESSAGES else self._of_prompt
        return wish.url, "POST", of(others)

    def _of_messages(self, others: dict[str, Any]) -> dict[str, Any]:
        messages = others.pop("messages", None)
        if not isinstance(messages, list):
            raise _Flaw("must have `messages`, a list of messages.")
        return self._completed({"messages": messages}, others)

    def _of_prompt(self, others: dict[str, Any]) -> dict[str, Any]:
        messages = self._messages(others.pop("prompt", None), others.pop("system", None))
        return self._completed({"messages": messages}, others)

    def _of_template(self, template: Template, fields: Fields) -> dict[str, Any]:
        if (name := template.missing(fields)) is not None:
            raise _Flaw(
                f"has no field {name[:100]!r}, which the prompt template names. It has {listed(fields)}.",
                of_all=True,
            )
        return self._completed({"messages": self._messages(template.fill(fields), None)}, {})

    def _messages(self, prompt: Any, system: Any) -> list[dict[str, str]]:
        if not isinstance(prompt, str):
            raise _Flaw("must have a `prompt`, and that must be a text.")
        if not prompt.strip():
            raise _Flaw("has nothing to ask: its prompt is empty.")
        if system is None:
            system = self._wish.system
        elif not isinstance(system, str):
            raise _Flaw("has a `system` that is no text.")
        asked = {"role": "user", "content": prompt}
        return [asked] if system is None else [{"role": "system", "content": system}, asked]

    def _completed(self, asked: Fields, others: Fields) -> dict[str, Any]:
        """Give the body: the row's own fields, then what the wish adds."""
        wish = self._wish
        body = {**asked, **others}
        for name, value in wish.fields.items():
            # A limit of tokens has two names, and some providers refuse a body that has both.
            if not (_LIMITS if name in _LIMITS else {name}) & body.keys():
                body[name] = value
        if wish.model is not None:
            body["model"] = wish.model
        return body


class _Flaw(Exception):  # a step of making a row, not an error that leaves this module
    """Why a row cannot be sent, as the rest of a sentence that begins with its place."""

    def __init__(self, message: str, *, of_all: bool = False) -> None:
        super().__init__(message)
        self.of_all = of_all


_BY_FIELDS: Final = (None, Form.ARRAY)
_ROW_IDS: Final = ("custom_id", "id")
_LIMITS: Final = {"max_tokens", "max_completion_tokens"}


def _form_of(fields: Fields) -> Form:
    if isinstance(fields.get("body"), dict):
        return Form.BATCH
    for name, form in (("messages", Form.MESSAGES), ("prompt", Form.PROMPTS), ("body", Form.BATCH)):
        if name in fields:
            return form
    raise _Flaw(
        f"has neither `messages` nor `prompt` nor `body`, but {listed(fields)}. Make prompts of its fields "
        "with a template, such as --prompt 'Translate: {text}'.",
        of_all=True,
    )


def _custom_id(n: int, fields: Fields) -> str:
    for name in _ROW_IDS:
        value = fields.get(name)
        if type(value) is int or (isinstance(value, str) and value):
            return str(value)
    return f"row-{n}"


def _sentence(place: str, flaw: str) -> str:
    return f"{place[0].upper()}{place[1:]} {flaw}"
