"""Settings under arbitrary texts, values and variables."""

import json
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tiergate.config import Secret, Settings, load_text
from tiergate.core import SettingsError

NAME = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,12}", fullmatch=True).filter(lambda name: name != "local")
MODEL = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=20)
USD = st.decimals(0, 1_000_000, places=6)
SECONDS = st.integers(1, 10**7) | st.floats(0.001, 10**7).map(lambda number: round(number, 6))
WORDS = [
    "listen",
    "auth",
    "providers",
    "models",
    "targets",
    "prices",
    "keys",
    "name",
    "secret",
    "base_url",
    "tier",
]
WORDS += [
    "private",
    "limits",
    "concurrency",
    "admin",
    "token",
    "attempts",
    "http://a",
    "rack/x",
    "null",
    "0.14",
    "90d",
]
SIGNS = [
    "${A}",
    "${A:-b}",
    "$${",
    "&a ",
    "*a",
    "<<",
    "!!str ",
    "!x ",
    "? ",
    "- ",
    "|",
    ">",
    "{",
    "}",
    "[",
    "]",
    ",",
]
SPACES = ["\n", "\n  ", "\n    ", " ", ": ", "\t", "#", "'", '"', "~", "*"]
LINES = st.lists(st.sampled_from(WORDS + SIGNS + SPACES), max_size=40).map("".join)


@given(text=st.text(max_size=200) | LINES, value=st.text(max_size=20))
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example(text='a: "\\UFFFFFFFF"', value="")
@example(text="%YAML 1." + "9" * 5000 + "\n---\na: b", value="")
@example(text="a: &a [*a]", value="")
@example(text="\ud800", value="")
@example(text='"\\ud800": "\\udfff"', value="")
@example(text="providers: {rack: {base_url: http://[a]/}}", value="")
@example(text="timezone: ../../etc/passwd", value="")
@example(text="timezone: Europe", value="")
@example(text="resilience: {attempts: " + "9" * 5000 + "}", value="")
@example(text='providers: {a: {base_url: "\\ud800", tier: "\\ud800"}}\nauth: "\\ud800"', value="")
def test_no_text_breaks_the_reader(text: str, value: str) -> None:
    """Any text gives settings, or a SettingsError with at least one printable sentence."""
    problems = problems_of(text, {"A": value})
    assert problems is None or problems
    assert all(problem.isprintable() for problem in problems or ())


def problems_of(text: str, environ: dict[str, str]) -> tuple[str, ...] | None:
    try:
        load_text(text, environ)
    except SettingsError as error:
        return error.problems
    return None


@st.composite
def valid(draw: st.DrawFn) -> dict[str, Any]:
    """Data of a valid settings file, its scalars as a program would hand them in."""
    names = draw(st.lists(NAME, min_size=1, max_size=3, unique=True))
    target = st.builds(lambda name, model: f"{name}/{model}", st.sampled_from(names), MODEL).filter(
        lambda name: not name.endswith("/*")
    )
    secrets = iter(
        draw(st.lists(st.text("abcdefgh0123456789${}", min_size=32), min_size=12, max_size=12, unique=True))
    )
    private = draw(st.booleans())
    return {
        "listen": draw(st.sampled_from(["127.0.0.1:0", "localhost:4400", "[::1]:80"])),
        "secret": draw(st.none() | st.just(Secret(next(secrets)))),
        "timezone": draw(st.sampled_from(["UTC", "Europe/Berlin"])),
        "hosts": draw(st.lists(st.sampled_from(["a.example", "10.0.0.1", "::1"]), max_size=2)),
        "cors": draw(st.lists(st.sampled_from(["https://a.example", "http://localhost:3000"]), max_size=2)),
        "limits": {"body_mb": draw(st.integers(1, 1024)), "event_mb": draw(st.sampled_from([0.5, 1, 64]))},
        "classes": {"batch": {"total_s": draw(SECONDS)}, "interactive": {"first_event_s": draw(SECONDS)}},
        "resilience": {"attempts": draw(st.integers(1, 5)), "idle_s": draw(SECONDS)},
        "providers": {
            name: {
                "base_url": f"http://host-{index}:8000/v1",
                "api_keys": [Secret(next(secrets)) for _ in range(index)],
                "tier": "private" if private else "hosted",
                "reseller": draw(st.booleans()),
                "cost": {"gpu_hour_usd": draw(USD), "gpus": draw(st.integers(1, 8))} if private else None,
                "limits": {"concurrency": draw(st.none() | st.integers(1, 100_000))},
            }
            for index, name in enumerate(names)
        },
        "models": {
            name: {"targets": draw(st.lists(target, min_size=1, max_size=3, unique=True))}
            for name in draw(st.lists(MODEL.filter(lambda name: name != "*"), max_size=3, unique=True))
        },
        "prices": [
            {
                "target": one,
                "usd_per_1m": {"input": draw(USD), "output": draw(USD), "reasoning": draw(st.none() | USD)},
                "from": draw(st.dates()),
                "source": draw(st.text(max_size=30).filter(lambda text: text.isprintable())),
            }
            for one in draw(st.lists(target, max_size=2, unique=True))
        ],
        "keys": [
            {"name": name, "secret": Secret(next(secrets)), "team": draw(st.none() | NAME)}
            for name in draw(st.lists(NAME, max_size=2, unique=True))
        ],
    }


def plain(data: Any) -> Any:
    """Write a dump as the file would have it: secrets revealed, `${` escaped, every scalar as JSON."""
    match data:
        case dict():
            return {name: plain(value) for name, value in data.items()}
        case list() | tuple():
            return [plain(value) for value in data]
        case Secret():
            return plain(data.reveal())
        case str():
            return str(data).replace("${", "$${")
        case Decimal() | date() | Path():
            return str(data)
        case _:
            return data


@given(data=valid())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_settings_survive_a_dump_and_a_load(data: dict[str, Any]) -> None:
    """What a program made, dumped and written as a file, loads as the same settings."""
    made = Settings.model_validate(data)
    dumped = made.model_dump()
    assert Settings.model_validate(dumped) == made
    for name in ("admin", "retention", "cache", "alerts"):
        del dumped[name]  # Their defaults are all that `valid` gives, and told when a file gives them.
    assert load_text(json.dumps(plain(dumped)), {}).settings == made


@given(
    value=st.text(min_size=1, max_size=60),
    quotes=st.sampled_from(["{}", '"{}"', "'{}'", "|-\n    {}", ">-\n    {}"]),
)
@settings(max_examples=150, deadline=None)
@example(value="x'\n  tier: hosted\nlisten: 0.0.0.0:1\n", quotes="'{}'")
@example(value='", tier: hosted', quotes='"{}"')
def test_a_variable_is_one_text(value: str, quotes: str) -> None:
    """Whatever a variable holds, it becomes one text in its place, and the rest stays as it is."""
    text = (
        "providers: {rack: {base_url: http://a, tier: private}}\nprices:\n- target: rack/x\n"
        f"  usd_per_1m: {{input: 1, output: 2}}\n  source: {quotes.format('${A}')}\nauth: open\n"
    )
    found = load_text(text, {"A": value}).settings
    same = load_text(text, {"A": "same"}).settings
    assert found.prices[0].source == value
    assert found.model_dump(exclude={"prices"}) == same.model_dump(exclude={"prices"})


@given(amount=st.decimals(0, 10**9, allow_nan=False, allow_infinity=False, places=9))
@settings(max_examples=200, deadline=None)
@example(amount=Decimal("0.14"))
def test_money_is_what_was_written(amount: Decimal) -> None:
    """An amount is exactly the number in the file."""
    price = f"{{target: a/x, usd_per_1m: {{input: {amount:f}, output: 0}}}}"
    found = load_text(f"providers: {{a: {{base_url: http://a}}}}\nprices: [{price}]", {}).settings
    assert found.prices[0].usd_per_1m.input == amount
