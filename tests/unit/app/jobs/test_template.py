"""Prompt templates: what they put in, and all that they do not do."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiergate.app.jobs.template import Template, read_template
from tiergate.core import CannotStart

TEXTS = st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from("{}")), max_size=8)
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="{}"), min_size=1, max_size=8)


@given(st.lists(st.tuples(TEXTS, NAMES, TEXTS), min_size=1, max_size=4), TEXTS)
def test_it_puts_values_between_texts(parts: list[tuple[str, str, str]], end: str) -> None:
    """Any text with its braces doubled, any name, any value: braces in a value stay what they are."""
    fields = {name: value for _, name, value in parts}

    def doubled(text: str) -> str:
        return text.replace("{", "{{").replace("}", "}}")

    template = read_template("".join(f"{doubled(text)}{{{name}}}" for text, name, _ in parts) + doubled(end))
    assert template.names == tuple(name for _, name, _ in parts)
    assert template.missing(fields) is None
    assert template.fill(fields) == "".join(text + fields[name] for text, name, _ in parts) + end


@given(st.text(st.sampled_from("{}ab"), max_size=10))
def test_it_takes_and_refuses_the_braces_that_python_takes_and_refuses(text: str) -> None:
    """Of a template whose names are plain words, and that has a name."""
    try:
        expected = text.format(**dict.fromkeys(("a", "b", "aa", "ab", "ba", "bb"), "-"))
    except (ValueError, KeyError, IndexError):
        return
    try:
        template = read_template(text)
    except CannotStart:
        assert expected == text.replace("{{", "{").replace("}}", "}")
    else:
        assert template.fill(dict.fromkeys(template.names, "-")) == expected


@pytest.mark.parametrize("name", ["a.__class__", "a[0]", "a!r", "a:>10", "0", " a "])
def test_a_name_is_a_name_and_nothing_else(name: str) -> None:
    """No attribute, no index, no conversion, no format."""
    template = read_template(f"-{{{name}}}")
    assert template.missing({"a": "x"}) == name
    assert template.fill({name: "x"}) == "-x"


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("a", "a"),
        (None, ""),
        (1.5, "1.5"),
        (True, "true"),
        ({"a": ["é"]}, json.dumps({"a": ["é"]}, ensure_ascii=False)),
    ],
)
def test_values_that_are_no_texts_are_json(value: Any, written: str) -> None:
    """Compact; null is nothing."""
    assert read_template("{a}").fill({"a": value}) == written.replace(": ", ":")


@pytest.mark.parametrize("text", ["{", "}", "{}", "a}b{c}", "{a", "{a}}", "{a{b}}", "a", "", "{{a}}"])
def test_braces_that_belong_to_no_name_and_templates_without_one_are_refused(text: str) -> None:
    """With what to write instead."""
    with pytest.raises(CannotStart, match=r"Write \{name\}"):
        read_template(text)


def test_a_template_is_a_value() -> None:
    """Texts and names in turns."""
    assert read_template("a{b}{c}") == Template(("a", "", ""), ("b", "c"))
