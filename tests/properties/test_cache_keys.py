"""Two questions share a key only if they are the same question."""

import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tiergate.cache.key import WITHOUT_A_SAY, Asked, CacheKeys, words

KEYS = CacheKeys("a secret of the house", lambda tenant: b"salt")
ASKED = Asked(tenant="team:web", data_class="any", family="chat", entry="good", revision="1")

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-2, 2) | st.text("abé ", max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=2), inner, max_size=3)
    ),
    max_leaves=8,
)
TOOL = st.fixed_dictionaries(
    {"type": st.just("function")},
    optional={"function": st.dictionaries(st.sampled_from(["name", "parameters", "strict"]), JSON)},
)
FORMAT = st.fixed_dictionaries(
    {"type": st.just("json_schema")},
    optional={"json_schema": st.dictionaries(st.sampled_from(["name", "schema"]), JSON)},
)
BODY = st.fixed_dictionaries(
    {"messages": st.lists(st.dictionaries(st.sampled_from(["role", "content", "name"]), JSON), max_size=3)},
    optional={
        "model": st.text("ab", max_size=2),
        "temperature": st.sampled_from([0, 0.0, 1]),
        "stream": st.booleans(),
        "stream_options": JSON,
        "user": st.text("ab", max_size=2),
        "metadata": JSON,
        "store": st.booleans(),
        "tools": st.lists(TOOL, max_size=2) | JSON,
        "response_format": FORMAT | JSON,
        "seed": st.integers(0, 3),
        "x": JSON,
    },
)


def shuffled(value: Any, data: st.DataObject, *, path: tuple[str, ...] = ()) -> Any:
    """Give the same JSON with the keys of its objects in another order, but where their order is read."""
    if isinstance(value, list):
        return [shuffled(one, data, path=(*path, "*")) for one in value]
    if not isinstance(value, dict):
        return value
    names = data.draw(st.permutations(list(value)))
    read = {("tools", "*", "function"): "parameters", ("response_format", "json_schema"): "schema"}.get(path)
    return {
        name: value[name] if name == read else shuffled(value[name], data, path=(*path, name))
        for name in names
    }


def told(body: dict[str, Any]) -> object:
    """Give what a body says, as something whose equality tells 0, 0.0 and false apart, and reads no order."""

    def fixed(value: Any, path: tuple[str, ...]) -> Any:
        if isinstance(value, list):
            return [fixed(one, (*path, "*")) for one in value]
        if isinstance(value, dict):
            in_order = path in {
                ("tools", "*", "function", "parameters"),
                ("response_format", "json_schema", "schema"),
            }
            pairs = [(name, fixed(one, (*path, name))) for name, one in value.items()]
            return ("read", repr(value)) if in_order else ("object", sorted(pairs, key=lambda pair: pair[0]))
        return (type(value).__name__, repr(value))

    return fixed({name: value for name, value in body.items() if name not in WITHOUT_A_SAY}, ())


@given(body=BODY, data=st.data())
def test_the_order_of_keys_changes_nothing(body: dict[str, Any], data: st.DataObject) -> None:
    """But inside the parameters of tools and the schema of answers."""
    assert KEYS.key(ASKED, shuffled(body, data)) == KEYS.key(ASKED, body)


@given(body=BODY, more=st.dictionaries(st.sampled_from(sorted(WITHOUT_A_SAY)), JSON))
def test_fields_without_a_say_change_nothing(body: dict[str, Any], more: dict[str, Any]) -> None:
    """Whether they are there, or what they say."""
    assert KEYS.key(ASKED, body | more) == KEYS.key(ASKED, body)


@given(one=BODY, other=BODY)
def test_two_questions_have_two_keys(one: dict[str, Any], other: dict[str, Any]) -> None:
    """And one question has one."""
    assert (KEYS.key(ASKED, one) == KEYS.key(ASKED, other)) is (told(one) == told(other))


@given(body=BODY, name=st.text("abcx", min_size=1, max_size=3), value=JSON)
def test_every_other_field_is_a_part_of_the_question(body: dict[str, Any], name: str, value: object) -> None:
    """Also one that nobody has heard of, null included."""
    assume(name not in body)
    assert KEYS.key(ASKED, body | {name: value}) != KEYS.key(ASKED, body)


PARTS = st.lists(st.text("ab:", max_size=3), min_size=5, max_size=5)


@given(one=PARTS, other=PARTS)
def test_two_tenants_never_share_a_key(one: list[str], other: list[str]) -> None:
    """Nor two entries, revisions, families or classes of data; parts do not run into each other."""
    assert (KEYS.key(Asked(*one), {}) == KEYS.key(Asked(*other), {})) is (one == other)


def test_two_houses_never_share_a_key() -> None:
    """Their secrets differ."""
    one, other = (CacheKeys(secret, lambda tenant: b"salt") for secret in ("one", "other"))
    assert one.key(ASKED, {}) != other.key(ASKED, {})


def test_words_are_written_in_one_way() -> None:
    """The order of a schema stays, that of all else does not."""
    schema = {"b": 1, "a": 2}
    body = {
        "z": 1,
        "response_format": {"json_schema": {"schema": schema}},
        "stream": True,
        "a": {"c": 1, "b": 2},
    }
    want = b'{"a":{"b":2,"c":1},"response_format":{"json_schema":{"schema":{"b":1,"a":2}}},"z":1}'
    assert words(body) == want


def test_a_tenant_with_another_salt_has_other_keys() -> None:
    """So what was kept before an erasure cannot be told any more; without a salt there is no key."""
    salts = {ASKED.tenant: b"salt1"}
    keys = CacheKeys("secret", salts.get)
    before = keys.key(ASKED, {})
    salts[ASKED.tenant] = b"salt2"
    assert keys.key(ASKED, {}) not in (before, None)
    salts.clear()
    assert keys.key(ASKED, {}) is None


@pytest.mark.parametrize(
    "body",
    [
        {"functions": [{"name": "f", "parameters": {"b": 1, "a": 2}}]},
        {"guided_json": {"b": 1, "a": 2}},
        {"structured_outputs": {"json": {"b": 1, "a": 2}}},
    ],
)
def test_schemas_of_other_kinds_are_read_in_order_too(body: dict[str, Any]) -> None:
    """Of the calls before tools, and of engines."""
    other = json.loads(json.dumps(body).replace('"b": 1, "a": 2', '"a": 2, "b": 1'))
    assert words(body) != words(other)
