"""What of an input file is wanted: how it is to be read, and what every question of it gets."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

LINE_BYTES_MAX: Final = 32 * 1024 * 1024


class Form(StrEnum):
    """What an input's rows are written as."""

    BATCH = "batch"
    """Lines of OpenAI's batch format."""
    MESSAGES = "messages"
    """Lines of JSON objects with `messages`; their other fields go into the body."""
    PROMPTS = "prompts"
    """Lines of JSON objects with `prompt`, or with the fields that a template names."""
    ARRAY = "array"
    """One JSON array of texts, or of such objects."""
    CSV = "csv"
    """A header and rows; needs a template."""
    TEXT = "text"
    """Every line is a prompt. Never recognised, only asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """How an input is to be read, and what its questions get."""

    form: Form | None = None
    """None: by the file's ending and by what it begins with; objects by their fields, one by one."""
    prompt: str | None = None
    """A template such as `Translate: {text}`: makes each row's prompt of its fields, which are then no fields
    of the body."""
    model: str | None = None
    """Of every row, also of those that name another one."""
    system: str | None = None
    """System message before a prompt, where the row has no `system` of its own. Not before `messages`."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Set in the body where the row does not set them."""
    url: str = "/v1/chat/completions"
    """Where a batch line names none."""
    line_bytes_max: int = LINE_BYTES_MAX
    """Longest line, element or CSV record."""
