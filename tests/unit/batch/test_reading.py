"""The lines of an input: found in any pieces, told where they stand, numbered, and ranked."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiergate.batch.reading import Found, LineFinder, check_lines, hash_of

CHAT = "/v1/chat/completions"
TEXTS = st.lists(
    st.sampled_from([b"a", b"{}", b" ", b"\t", b"\r", b"\n", b"\n", b"\r\n", b"\xff", b"long" * 4, b""]),
    max_size=40,
).map(b"".join)


def lines_of(text: bytes, cuts: list[int] | None = None, *, line_bytes_max: int = 1 << 20) -> list[Found]:
    """The lines of a text that comes in pieces."""
    finder = LineFinder(line_bytes_max=line_bytes_max)
    places = [0, *sorted(cuts or []), len(text)]
    pieces = [text[begins:ends] for begins, ends in pairwise(places)]
    return [line for piece in pieces for line in finder.feed(piece)] + list(finder.end())


def body(*contents: Any, **fields: Any) -> dict[str, Any]:
    """A question of so many messages, the first of which is an instruction."""
    roles = ["system", *["user"] * (len(contents) - 1)] if len(contents) > 1 else ["user"]
    messages = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)]
    return {"model": "m", "messages": messages, **fields}


def line(custom_id: str = "a", **fields: Any) -> bytes:
    row = {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body("hello")}
    return json.dumps({**row, **fields}).encode()


def check(*texts: bytes, by_prefix: bool = False, model: str | None = None, first: int = 1) -> Any:
    found = lines_of(b"".join(text + b"\n" for text in texts))
    return check_lines(found, first=first, source=3, url=CHAT, model=model, by_prefix=by_prefix)


def ranks(*bodies: dict[str, Any]) -> list[int]:
    checked = check(*(line(str(n), body=one) for n, one in enumerate(bodies)), by_prefix=True)
    assert not checked.bad
    return [new.rank for new in checked.lines]


# Finding.


@given(TEXTS, st.data())
def test_any_pieces_hold_the_same_lines(text: bytes, draw: st.DataObject) -> None:
    """Cut anywhere, also between the two bytes of a line's end."""
    cuts = draw.draw(st.lists(st.integers(0, len(text)), max_size=10))
    assert lines_of(text, cuts) == lines_of(text)
    assert lines_of(text, list(range(len(text)))) == lines_of(text)


@given(TEXTS)
def test_a_place_points_at_its_line(text: bytes) -> None:
    """All that is not blank, in its order, without the line feeds."""
    found = lines_of(text)
    assert [text[one.offset : one.offset + one.size] for one in found] == [one.text for one in found]
    assert [one.text for one in found] == [one for one in text.split(b"\n") if one.strip(b" \t\r")]


@given(TEXTS, st.integers(1, 12), st.data())
def test_what_is_too_long_is_told_without_its_text(text: bytes, most: int, draw: st.DataObject) -> None:
    """With its place and its size; lines around it are found as ever."""
    cuts = draw.draw(st.lists(st.integers(0, len(text)), max_size=10))
    short = lines_of(text, cuts, line_bytes_max=most)
    whole = lines_of(text)
    assert [one for one in short if one.text is not None] == [one for one in whole if one.size <= most]
    long = [(one.offset, one.size) for one in short if one.text is None]
    assert all(size > most and b"\n" not in text[at : at + size] for at, size in long)
    # A line of nothing but blanks is told, too, where it is too long: nobody looked into it.
    assert {(one.offset, one.size) for one in whole if one.size > most} <= set(long)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", []),
        (b"\n\n \t\r\n", []),
        (b"a", [(0, b"a")]),
        (b"a\n", [(0, b"a")]),
        (b"a\r\nb\r\n", [(0, b"a\r"), (3, b"b\r")]),
        (b"\n\na\n \nb", [(2, b"a"), (6, b"b")]),
        (b" a ", [(0, b" a ")]),
        (b"a\rb", [(0, b"a\rb")]),
        ("ä\u2028b\n".encode(), [(0, "ä\u2028b".encode())]),
    ],
)
def test_lines_end_with_a_line_feed(text: bytes, expected: list[tuple[int, bytes]]) -> None:
    """And with nothing else; blank ones are none, and the last needs no end."""
    assert [(one.offset, one.text) for one in lines_of(text)] == expected


def test_a_line_that_is_too_long_is_not_held() -> None:
    """However long it goes on."""
    finder = LineFinder(line_bytes_max=1_000)
    for _ in range(1_000):
        assert list(finder.feed(b"x" * 999)) == []
        assert len(finder._rest) <= 1_998
    assert list(finder.feed(b"\nb\n")) == [
        Found(offset=0, size=999_000, text=None),
        Found(offset=999_001, size=1, text=b"b"),
    ]


# Checking.


def test_each_line_has_its_number_and_its_place() -> None:
    """Good or bad; numbers go on from those of the piece before."""
    texts = [line("a"), b"no line", line("b")]
    checked = check(*texts, first=41)
    assert [(new.n, new.source, new.offset, new.bytes) for new in checked.lines] == [
        (41, 3, 0, len(texts[0])),
        (42, 3, len(texts[0]) + 1, 7),
        (43, 3, len(texts[0]) + 9, len(texts[2])),
    ]
    assert list(checked.bad) == [42]
    assert "not valid JSON" in str(checked.bad[42])


def test_a_line_has_the_hash_of_its_custom_id() -> None:
    """Also where something else is wrong with it; where it has none, none."""
    checked = check(line("a"), line("a", body=None), line("b"), line("", body=body("x")), b"{}")
    hashes = [new.custom_hash for new in checked.lines]
    assert hashes == [hash_of("a"), hash_of("a"), hash_of("b"), None, None]
    assert list(checked.bad) == [2, 4, 5]


def test_a_hash_fits_into_a_column_and_differs() -> None:
    """Of any text, also one that is no UTF-8."""
    found = {hash_of(text) for text in ["", "a", "b", "ab", "\ud800", "ä" * 600]}
    assert len(found) == 6
    assert all(0 <= value < 2**63 for value in found)


def test_what_is_too_long_is_bad() -> None:
    """It says how long it is, and how long it may be."""
    found = [Found(offset=0, size=99_999_999, text=None)]
    checked = check_lines(found, first=1, source=0, url=CHAT, model=None, by_prefix=False)
    assert str(checked.bad[1]) == "The line has 99999999 bytes, and at most 33554432 are read."
    assert checked.lines[0].bytes == 99_999_999


def test_lines_have_no_rank_unless_it_is_asked_for() -> None:
    """They are worked in their order."""
    assert [new.rank for new in check(line("a"), line("b", body=body("long", "x"))).lines] == [0, 0]


def test_prompts_that_begin_alike_have_one_rank() -> None:
    """The same instructions, whatever is asked then; the question of one message is its beginning."""
    first, second, third = ranks(body("do", "this"), body("do", "that", temperature=1), body("undo", "this"))
    assert first == second != third
    first, second, third = ranks(body("one"), body("one", max_tokens=5), body("other"))
    assert first == second != third


def test_a_beginning_ends_somewhere() -> None:
    """What differs only behind it is alike; what is said by whom makes a difference."""
    same = ranks(body("x" * 2_000 + "one", "?"), body("x" * 2_000 + "other", "?"))
    assert same[0] == same[1]
    unlike = ranks(body("x" * 1_999 + "a", "?"), body("x" * 1_999 + "b", "?"))
    assert unlike[0] != unlike[1]
    said = body("do", "this")
    by_another = {**said, "messages": [{"role": "developer", "content": "do"}, said["messages"][1]]}
    assert len(set(ranks(said, by_another))) == 2


@given(
    st.recursive(st.none() | st.text(max_size=5) | st.integers(), lambda inner: st.lists(inner, max_size=3))
)
def test_any_content_has_a_rank(content: Any) -> None:
    """Also one that no provider would take."""
    first, second = ranks(body(content, "x"), body(content, "y"))
    assert first == second
