"""Variables are filled into values and never change the shape of the file."""

import pytest

from tiergate.config import load_text
from tiergate.config.environment import LONGEST_VALUE, fill, parse_env, variables
from tiergate.core import SettingsError


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("${A}", "one"),
        ("<${A}|${B}>", "<one|two>"),
        ("${MISSING:-else}", "else"),
        ("${EMPTY:-else}", "else"),
        ("${MISSING:-}", ""),
        ("${EMPTY}", ""),
        ("$${A}", "${A}"),
        ("$A $ {A} $", "$A $ {A} $"),
        ("${NESTED}", "${A}"),
        ("${MISSING:-a:-b}", "a:-b"),
    ],
)
def test_fill(written: str, text: str) -> None:
    """References are filled once, `$${` escapes one, a default counts for unset and empty."""
    filled = fill(written, {"A": "one", "B": "two", "EMPTY": "", "NESTED": "${A}"})
    assert (filled.text, filled.faults) == (text, ())


@pytest.mark.parametrize(
    ("written", "at", "said"),
    [
        ("x${NO}", 1, "the environment variable NO is not set: set it, put it into .env"),
        ("${}", 0, "holds a ${ that is no variable"),
        ("${A-B}", 0, "holds a ${ that is no variable"),
        ("${A:-${B}}", 0, "holds a ${ that is no variable"),
        ("ab${A", 2, "holds a ${ that is no variable"),
        ("${BAD}", 0, "the environment variable BAD does not hold UTF-8 text"),
        ("${LONG}${LONG}", 7, f"the value grows beyond {LONGEST_VALUE} characters"),
    ],
)
def test_fill_faults(written: str, at: int, said: str) -> None:
    """What cannot be filled is told with its place in the value."""
    ((index, sentence),) = fill(
        written, {"B": "b", "BAD": "\udcff", "LONG": "x" * (LONGEST_VALUE - 20)}
    ).faults
    assert index == at
    assert sentence.startswith(said)


def test_variables() -> None:
    """The names of a value's variables are known without filling them."""
    assert variables("${A}${B:-x}${A} $${C}") == ("A", "B")


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ("${GONE}", "tiergate.yaml:3:15"),
        ('"${GONE}"', "tiergate.yaml:3:16"),
        ("'http://${HOST}/${GONE}'", "tiergate.yaml:3:31"),
        (">-\n      http://${HOST}/\n      ${GONE}", "tiergate.yaml:5:7"),
        ('"\\u0024{GONE}"', "tiergate.yaml:3:15"),
    ],
)
def test_missing_variable(value: str, place: str) -> None:
    """A missing variable stops the start and names file, line, column, setting and variable."""
    with pytest.raises(SettingsError) as caught:
        load_text(f"providers:\n  rack:\n    base_url: {value}\n", {"HOST": "a"})
    (told,) = caught.value.problems
    assert told.startswith(f"{place}: providers.rack.base_url: the environment variable GONE is not set")


@pytest.mark.parametrize(
    "value",
    [
        "a: b",
        "x\nlisten: 0.0.0.0:1",
        '"',
        "'",
        "', secret: '",
        "]}",
        "# no",
        "*alias",
        "&anchor",
        "!!python/none",
        "- a",
        "{{7*7}}",
        "%YAML",
        "| >",
        "@",
        "`",
        "~",
        "null",
        "${HOME}",
        "\\",
        "<<",
    ],
)
@pytest.mark.parametrize("written", ["${VALUE}", '"${VALUE}"', "'${VALUE}'"])
def test_substitution_keeps_structure(value: str, written: str) -> None:
    """Whatever a variable holds becomes one text in one place, and nothing else changes."""
    text = "prices:\n- target: rack/x\n  usd_per_1m: {input: 1, output: 1}\n"
    text += f"  source: {written}\nproviders: {{rack: {{base_url: http://a}}}}\n"
    found = load_text(text, {"VALUE": value}).settings
    assert found.prices[0].source == value
    assert found.listen == "127.0.0.1:4400"
    assert list(found.providers) == ["rack"]


def test_names_are_not_filled() -> None:
    """Only values are filled: a variable cannot name a setting."""
    with pytest.raises(SettingsError, match="there is no such setting"):
        load_text("providers: {a: {base_url: http://a}}\n'${A}': 1", {"A": "listen"})


def test_empty_switches_off() -> None:
    """`${NAME:-}` leaves an optional setting out; a null that came from a variable is text."""
    text = "providers: {a: {base_url: http://a, tier: '${T:-private}', engine: '${E:-}'}}\nsecret: ${S:-}\n"
    found = load_text(text, {}).settings
    assert (found.secret, found.providers["a"].engine, found.providers["a"].tier) == (None, None, "private")
    with pytest.raises(SettingsError, match=r"providers\.a\.engine: needs one of"):
        load_text(text, {"E": "null"})


def test_env_file() -> None:
    """`.env` lines: plain, quoted, exported, commented."""
    found, faults = parse_env(
        "\ufeff# a comment\n\nA=1\nexport B = two words # said\nC='single $x # \\n'\n"
        'D="double \\"x\\" \\n \\$ # no" # yes\nE=\nF=a#b\r\nG=\'\'\nH=#gone\nI="\\q"\n'
    )
    assert faults == ()
    assert found == {
        "A": "1",
        "B": "two words",
        "C": "single $x # \\n",
        "D": 'double "x" \n $ # no',
        "E": "",
        "F": "a#b",
        "G": "",
        "H": "",
        "I": "\\q",
    }


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("hunter2", "is not KEY=VALUE, a comment or empty"),
        ("1A=hunter2", "is not KEY=VALUE, a comment or empty"),
        ("A-B=hunter2", "is not KEY=VALUE, a comment or empty"),
        ("=hunter2", "is not KEY=VALUE, a comment or empty"),
        ("A='hunter2", "the quotes of A do not match"),
        ('A="hunter2" x', "the quotes of A do not match"),
        ('A="hunter2\\"', "the quotes of A do not match"),
        ("OK=hunter2", "sets OK again, as line 1 did: remove one"),
    ],
)
def test_env_file_faults(line: str, said: str) -> None:
    """A malformed line is told by its number; what it holds is not shown."""
    _, faults = parse_env(f"OK=1\n{line}\n")
    assert faults == ((2, said),)
