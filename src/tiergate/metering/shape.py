"""The shape of a question: counts from which its number of tokens can be told, without any tokenizer.

Tokenizers of the kind in use cut a text into words, numbers and runs of punctuation first and then split
what is rare. So those pieces are counted, and beside them what makes pieces split: long words, changes of
case inside of a word, and characters outside of ASCII by the kind of their script.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from tiergate.wire import dumps

Shape = tuple[int, ...]
"""The counts named in `COUNTED`, in that order."""

COUNTED: Final = (
    "words",
    "letters of long words beyond the seventh",
    "changes of case or to digits inside of words",
    "numbers of up to three digits",
    "runs of punctuation",
    "further characters of those runs",
    "line ends and wide spaces",
    "letters of Western Europe",
    "letters of Eastern Europe and Greece",
    "letters of Cyrillic, Hebrew and Arabic",
    "letters of India",
    "letters of Vietnam and typographic signs",
    "characters of China and Japan",
    "syllables of Korea and wide forms",
    "emoji and rare scripts",
    "messages",
)

SAMPLE_BYTES: Final = 16 * 1024
"""Of a longer text as much is looked at, in slices from all over it: it takes 0.2 ms a kilobyte."""
_SLICES: Final = 16

_WORD: Final = re.compile(rb"[A-Za-z]+")
_HUMP: Final = re.compile(rb"[a-z][A-Z]|[A-Za-z][0-9]|[0-9][A-Za-z]")
_NUMBER: Final = re.compile(rb"[0-9]{1,3}")
_PUNCTUATION: Final = re.compile(rb"[!-/:-@\[-`{-~]+")
_SPACE: Final = re.compile(rb"\n\s*| {2,}|\t+")
_COMMON_LETTERS: Final = 7
"""Up to this many letters a word is usually one token."""


def _bytes(first: int, last: int) -> bytes:
    return bytes(range(first, last + 1))


_SCRIPTS: Final = (
    _bytes(0xC2, 0xC6),
    _bytes(0xC7, 0xCF),
    _bytes(0xD0, 0xDF),
    _bytes(0xE0, 0xE0),
    _bytes(0xE1, 0xE2),
    _bytes(0xE3, 0xE9),
    _bytes(0xEA, 0xEF),
    _bytes(0xF0, 0xF4),
)
"""First bytes of a character in UTF-8, as the scripts of `COUNTED` have them."""


def shape_of(body: Mapping[str, Any]) -> Shape:
    """Give the shape of a question: its messages, and what it says of tools and of the answer's form.

    Pictures, sounds and files have none; whoever estimates says so.
    """
    messages = body.get("messages")
    texts = list(texts_of(messages))
    texts += [
        dumps(body[name]).decode() for name in ("tools", "functions", "response_format") if body.get(name)
    ]
    counts = _counts("\n".join(texts).encode("utf-8", "replace"))
    return (*counts, len(messages) if isinstance(messages, list) else 1)


def texts_of(messages: object) -> Iterator[str]:
    """Give the texts of messages, and what they say of tools that were called."""
    for message in messages if isinstance(messages, list) else ():
        if not isinstance(message, dict):
            continue
        content = message.get("content")
        if isinstance(content, str):
            yield content
        elif isinstance(content, list):
            yield from (part["text"] for part in content if _is_text(part))
        if message.get("tool_calls"):
            yield dumps(message["tool_calls"]).decode()


def _is_text(part: object) -> bool:
    return isinstance(part, dict) and isinstance(part.get("text"), str)


def _counts(text: bytes) -> list[int]:
    whole = len(text)
    if whole > SAMPLE_BYTES:
        text = _sample(text)
    words = _WORD.findall(text)
    runs = _PUNCTUATION.findall(text)
    counts = [
        len(words),
        sum([len(word) - _COMMON_LETTERS for word in words if len(word) > _COMMON_LETTERS]),
        len(_HUMP.findall(text)),
        len(_NUMBER.findall(text)),
        len(runs),
        sum(map(len, runs)) - len(runs),
        len(_SPACE.findall(text)),
        *[len(text) - len(text.translate(None, script)) for script in _SCRIPTS],
    ]
    return counts if len(text) == whole else [count * whole // len(text) for count in counts]


def _sample(text: bytes) -> bytes:
    size, step = SAMPLE_BYTES // _SLICES, len(text) // _SLICES
    return b"".join([text[at : at + size] for at in range(0, _SLICES * step, step)])
