"""Strict JSON for requests: one meaning for all who read the same bytes."""

from decimal import Decimal

import pytest

from tiergate.core import InvalidRequest
from tiergate.wire import DEPTH_MAX, dumps, loads, read_object
from tiergate.wire.jsontext import _object_without_duplicates


def nested(depth: int) -> bytes:
    return b'{"a":' * (depth - 1) + b"{}" + b"}" * (depth - 1)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not valid JSON"),
        (b" ", "not valid JSON"),
        (b"null", "must be a JSON object"),
        (b"[]", "must be a JSON object"),
        (b'"text"', "must be a JSON object"),
        (b"5", "must be a JSON object"),
        (b"{", "not valid JSON"),
        (b"{}x", "not valid JSON"),
        (b"{}{}", "not valid JSON"),
        (b"{'a': 1}", "not valid JSON"),
        (b'{"a": 1,}', "not valid JSON"),
        (b'{"a": 01}', "not valid JSON"),
        (b'{"a": NaN}', "not valid JSON"),
        (b'{"a": Infinity}', "not valid JSON"),
        (b'{"a": -Infinity}', "not valid JSON"),
        (b'{"a": 1e400}', "not valid JSON"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b'{"\xff": 1}', "not UTF-8"),
        (b'{"a": "\xed\xa0\x80"}', "not UTF-8"),
        (b'{"a": "\xf0\x9f\x98"}', "not UTF-8"),
        (b'{"a": "\\ud800"}', "not valid JSON"),
        (b'{"a": "\\ud800\\u0041"}', "not valid JSON"),
        (b'{"a": "\\udc00\\ud800"}', "not valid JSON"),
        (b'{"\\ud800": 1}', "not valid JSON"),
        (b'{"a": "\n"}', "not valid JSON"),
        (b'{"a": "\x00"}', "not valid JSON"),
        (b"\xef\xbb\xbf{}", "not valid JSON"),
        ('{"a": 1}'.encode("utf-16"), "not valid JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b'{"a":1,"a":1}', "'a' stands twice"),
        (b'{"a":1,"\\u0061":2}', "'a' stands twice"),
        (b'{"x":[{"y":{"b":1,"c":2,"b":1}}]}', "'b' stands twice"),
        (b'{"":1,"":2}', "'' stands twice"),
        (b'{"b":1e6,"a":1,"a":1}', "'a' stands twice"),
        (b'{"\xc3\xa9":1,"\\u00E9":2}', "stands twice"),
        (b'{"\xf0\x9f\x98\x80":1,"\\ud83d\\ude00":2}', "stands twice"),
        (nested(DEPTH_MAX + 1), "deeper than 64"),
        (b'{"a":' + b"[" * 64 + b"]" * 64 + b"}", "deeper than 64"),
        (b'{"a":' * 100_000, "deeper than 64"),
        (b'{"a":' + b"[" * 1_000_000, "deeper than 64"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(body: bytes, says: str) -> None:
    """With a sentence, and never with a part of the body that is not a key."""
    with pytest.raises(InvalidRequest, match=says):
        read_object(body)


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b' { "a" : [ ] }\r\n\t',
        nested(DEPTH_MAX),
        b'{"a":' + b"[" * 63 + b"]" * 63 + b"}",
        b'{"a":"' + b"[{" * 1000 + b'"}',
        b'{"a":[' + b"{}," * 1000 + b"{}]}",
        b'{"a":{"k":1},"b":{"k":1}}',
        b'{"a":1,"A":2,"a ":3}',
        b'{"a":"\\u0000\\ud83d\\ude00"}',
    ],
)
def test_what_has_one_meaning_is_read(body: bytes) -> None:
    """Depth 64, brackets in text, the same key in different objects, every escape."""
    assert loads(dumps(read_object(body))) == read_object(body)


@pytest.mark.parametrize("number", [2**63, 2**64, 10**30, -(2**63) - 1, 10**400, 0, -1])
def test_integers_of_any_size_are_kept_to_the_last_digit(number: int) -> None:
    """What policy sees is what is forwarded."""
    body = b'{"seed":%d}' % number
    assert read_object(body) == {"seed": number}
    assert dumps(read_object(body)) == body


def test_a_float_stays_a_float_and_an_integer_an_integer() -> None:
    """1.0 is not 1 for every provider."""
    read = read_object(b'{"a": 1.0, "b": 1, "c": 0.1, "d": -0.0, "e": true}')
    assert dumps(read) == b'{"a":1.0,"b":1,"c":0.1,"d":-0.0,"e":true}'


def test_money_is_written_as_a_number() -> None:
    """Decimals go out with all their digits."""
    assert dumps({"cost": Decimal("0.000042"), "none": None}) == b'{"cost":0.000042,"none":null}'


class CountedKey(str):
    """A key that counts how often it is compared."""

    __slots__ = ()
    comparisons = 0

    def __eq__(self, other: object) -> bool:
        CountedKey.comparisons += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def test_finding_a_key_that_stands_twice_takes_linear_work() -> None:
    """A body of many keys with one of them twice at its end must not hold up everybody else."""
    pairs = [(CountedKey(number), None) for number in [*range(20_000), 19_999]]
    with pytest.raises(InvalidRequest, match="stands twice"):
        _object_without_duplicates(pairs)
    assert CountedKey.comparisons < 20_000


def test_a_refusal_quotes_no_more_than_the_beginning_of_a_key() -> None:
    """The sentence reaches the caller and stays short."""
    key = b"k" * 5000
    with pytest.raises(InvalidRequest) as refusal:
        read_object(b'{"%s":1,"%s":2}' % (key, key))
    assert len(str(refusal.value)) < 200


@pytest.mark.parametrize("data", [b"", b"nul", b"\xff", b'"\xff"', b"[" * 100_000, b"1e999"])
def test_foreign_json_that_is_none_is_a_value_error(data: bytes) -> None:
    """One kind of error, whatever is wrong."""
    with pytest.raises(ValueError):
        loads(data)
