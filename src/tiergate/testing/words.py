"""The words that the mock speaks, and how they are counted.

An output token is a word with the space before it. An input token is four bytes of UTF-8, rounded up; an
image is 85 tokens. Both are rules of this mock, made so that a test can predict every count.
"""

import random
import re
from functools import lru_cache
from typing import Final

IMAGE_TOKENS: Final = 85

_PIECE: Final = re.compile(r"\s*\S+|\s+")
_BOOK_WORDS: Final = 8_192

_WORDS: Final = re.findall(
    r"\w+",
    """
a about above after again air all along also always an and answer any are around as at back because before
began below between big both bring but by call came can change city clear close cold come could country day
deep did different do does door down each early earth end enough even every example eye far fast few field
find first follow food for form found four free from full gave get give go good great green ground group grow
had half hand hard has have he hear heavy help here high hill home hot hour house how idea in is it just keep
kind know land large last late learn leave left letter life light line list little live long look made make
many map mark may mean measure men might mile more morning most mountain move much must name near need never
new next night no north not note number of off often old on once one only open or order other our out over
own page paper part path people piece place plain plan plant play point press problem question quick rain
read ready real rest right river road rock room round rule run said same sea second see sentence set several
ship short should show side simple since size slow small snow so some song soon south stand star start state
stay step still stone stood stop story street strong such sun sure table take talk teach tell ten test than
that the their then there these thing think this those thought three through time to today together too top
toward travel tree true try turn two under unit until up us use usual very voice wait walk warm was watch
water way we week well were west what wheel when where which while white who whole why will wind with without
wonder wood word work world would write year you young
""",
)


def pieces(text: str) -> tuple[str, ...]:
    """Cut a text into its tokens; joined they are the text again."""
    return _pieces(text) if len(text) <= _KEPT_CHARACTERS else tuple(_PIECE.findall(text))


def text_tokens(byte_count: int) -> int:
    """Count the input tokens in so many bytes of text."""
    return -(-byte_count // 4)


def passage(seed: int, place: int, count: int) -> tuple[str, ...]:
    """Give `count` tokens of generated text; the same seed and place give the same."""
    if count < 1:
        return ()
    book = _book(seed)
    start = place % _BOOK_WORDS
    taken = book[start : start + count]
    while len(taken) < count:
        taken += book[: count - len(taken)]
    return (taken[0].lstrip().capitalize(), *taken[1:])


_KEPT_CHARACTERS: Final = 20_000


@lru_cache(maxsize=256)
def _pieces(text: str) -> tuple[str, ...]:
    return tuple(_PIECE.findall(text))


@lru_cache(maxsize=8)
def _book(seed: int) -> tuple[str, ...]:
    """One long text in sentences of 5 to 14 words, that all passages are taken from."""
    chance = random.Random(seed)  # noqa: S311 - filler text, nothing to guess
    book: list[str] = []
    while len(book) < _BOOK_WORDS:
        sentence = chance.choices(_WORDS, k=chance.randint(5, 14))
        book.append(" " + sentence[0].capitalize())
        book.extend(" " + word for word in sentence[1:-1])
        book.append(" " + sentence[-1] + ".")
    return tuple(book[:_BOOK_WORDS])
