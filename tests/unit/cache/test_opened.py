"""Answers that are read already: of the bytes that memory keeps, and no more of them than may be."""

from msgspec import structs

from tiergate.cache.opened import OpenedAnswers
from unit.cache.test_answer import ANSWER

KEY = b"k" * 32


def test_an_answer_is_that_of_the_very_bytes_that_are_kept() -> None:
    """Others under the same key, and equal ones of another time, are read anew."""
    opened = OpenedAnswers(1 << 20)
    data = bytes(bytearray(b"data" * 9))
    found = opened.put(KEY, data, ANSWER)
    assert opened.get(KEY, data) is found
    assert opened.get(KEY, bytes(bytearray(data))) is None
    assert opened.get(b"x" * 32, data) is None


def test_it_is_bounded() -> None:
    """The oldest go; one that is too large for all of it is not kept at all."""
    opened = OpenedAnswers(50_000)
    datas = [bytes([number]) * 800 for number in range(9)]
    for number, data in enumerate(datas):
        opened.put(bytes([number]) * 32, data, structs.replace(ANSWER, call_id=str(number)))
    kept = [number for number, data in enumerate(datas) if opened.get(bytes([number]) * 32, data)]
    assert kept == [4, 5, 6, 7, 8]
    opened.put(KEY, bytes(100_000), ANSWER)
    assert len(opened) == 0
    opened.put(KEY, bytes(800), ANSWER)
    opened.put(KEY, bytes(801), ANSWER)
    assert len(opened) == 1
    opened.resize(5_000)
    assert len(opened) == 0


def test_one_that_is_kept_no_longer_is_forgotten() -> None:
    """Memory says so, whatever the reason; one that is not there is no matter."""
    opened = OpenedAnswers(1 << 20)
    data = b"data"
    opened.put(KEY, data, ANSWER)
    opened.drop(b"x" * 32)
    opened.drop(KEY)
    assert opened.get(KEY, data) is None and len(opened) == 0
