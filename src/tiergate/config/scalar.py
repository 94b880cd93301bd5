"""One kind of value: what it accepts from text or from a program, how it refuses, how it is described."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final, NoReturn

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

VALUE: Final = "tiergate_value"
"""Code of an error whose value may be shown, if it is short."""
SENTENCE: Final = "tiergate_sentence"
"""Code of an error that says everything itself; its value is never shown."""
TOGETHER: Final = "tiergate_together"
"""Code of an error about settings that are each right; it says everything itself."""


@dataclass(frozen=True, slots=True, eq=False)
class Scalar:
    """One kind of value: its parser, its name for people and its JSON Schema for editors.

    `parse` takes text from the file, or the finished value from a program. `dump` makes the value fit
    for JSON; None means that it already is.
    """

    parse: Callable[[object], object]
    label: str
    schema: Mapping[str, Any]
    dump: Callable[[Any], Any] | None = None

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        dump = self.dump
        if dump is None:
            return core_schema.no_info_plain_validator_function(self.parse)
        serialization = core_schema.plain_serializer_function_ser_schema(dump, when_used="json")
        return core_schema.no_info_plain_validator_function(self.parse, serialization=serialization)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return dict(self.schema)


def needs(what: str, *, near: str = "") -> NoReturn:
    """Refuse a value by what is needed; the message may show the value, and `near` ends it."""
    raise PydanticCustomError(VALUE, "{said}{near}", {"said": f"needs {what}", "near": near})


def refuse(sentence: str) -> NoReturn:
    """Refuse a value by a sentence; the value is never shown."""
    raise PydanticCustomError(SENTENCE, "{said}", {"said": sentence})


def text_of(value: object, what: str) -> str:
    """Give a value that is text; refuse any other."""
    return value if isinstance(value, str) else needs(what)


def nearest(name: str, known: Iterable[str]) -> str:
    """Give `; did you mean 'x'?`, or nothing where no known name is near."""
    found = get_close_matches(name[:100], list(known), n=1)
    return f"; did you mean {found[0]!r}?" if found else ""
