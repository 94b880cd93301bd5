"""No secret shows itself: not in a view, not in a dump, not in an error or its traceback."""

import copy
import json
import pickle
import traceback
from collections.abc import Callable

import pytest
from pydantic import ValidationError

from tiergate.config import Secret, Settings, hidden, load_text
from tiergate.core import SettingsError

CANARY = "canary-{}-0123456789abcdefghijkl-{}"
ENVIRON = {
    name: CANARY.format(name.lower(), name.lower()[:4])
    for name in ("HOUSE", "ADMIN", "API_ONE", "API_TWO", "CALLER")
}
TEXT = """\
admin: {token: "${ADMIN}"}
secret: ${HOUSE}
auth: keys
providers:
  rack:
    base_url: http://10.0.0.7/v1
    api_keys: ["${API_ONE}", "${API_TWO}"]
models: {chat: {targets: [rack/llama]}}
keys: [{name: ci, secret: "${CALLER}"}]
"""


def without_canaries(shown: str) -> None:
    for canary in ENVIRON.values():
        assert canary not in shown
        assert canary[:12] not in shown


@pytest.fixture
def settings() -> Settings:
    return load_text(TEXT, ENVIRON).settings


VIEWS: list[Callable[[Settings], str]] = [
    repr,
    str,
    lambda found: repr(found.model_dump()),
    lambda found: found.model_dump_json(),
    lambda found: json.dumps(hidden(found)),
    lambda found: repr(found.keys) + str(found.keys[0].secret) + f"{found.keys[0].secret!r:>9}",
    lambda found: repr(copy.copy(found)),
]


@pytest.mark.parametrize("view", VIEWS)
def test_no_view_shows_a_secret(view: Callable[[Settings], str], settings: Settings) -> None:
    """repr, str, dumps and JSON hold no secret."""
    without_canaries(view(settings))


def test_reveal_is_the_way(settings: Settings) -> None:
    """The secret is there for the one who asks for it by name."""
    assert settings.providers["rack"].api_keys[1].reveal() == ENVIRON["API_TWO"]
    assert settings.secret is not None
    assert settings.secret.reveal() == ENVIRON["HOUSE"]


def test_hidden_shows_the_last_four_of_long_secrets(settings: Settings) -> None:
    """A view names a long secret by its last four characters and a short one not at all."""
    shown = hidden(settings)
    assert shown["admin"]["token"] == "…" + ENVIRON["ADMIN"][-4:]
    assert shown["providers"]["rack"]["api_keys"] == [
        "…" + ENVIRON[name][-4:] for name in ("API_ONE", "API_TWO")
    ]
    assert (Secret("x" * 11).hint(), Secret("x" * 8 + "last").hint()) == ("…", "…last")


def test_secrets_compare_and_do_not_travel() -> None:
    """Equal secrets are equal, also as members of a set; pickling one is refused."""
    assert Secret("a") == Secret("a") != Secret("b")
    assert len({Secret("a"), Secret("a")}) == 1
    assert Secret("a") != "a"
    with pytest.raises(TypeError):
        pickle.dumps(Secret("a"))


BREAKERS = [
    "zzz: 1\n",
    "timezone: Nowhere\n",
    "listen: 127.0.0.1:4401\n",
    'hosts: ["${API_ONE}", "x y"]\n',
    'cors: ["${HOUSE}"]\n',
    'data_dir: "~${HOUSE}"\n',
    'store: "${HOUSE}"\n',
    'redis: "https://user:${HOUSE}@host"\n',
    "${API_ONE}: 1\n",
    'budgets: [{scope: "${CALLER}", usd: "${CALLER}", per: "${CALLER}"}]\n',
    'prices: [{target: "${ADMIN}", usd_per_1m: "${ADMIN}", from: "${ADMIN}"}]\n',
    'resilience: {attempts: "${HOUSE}", idle_s: "${HOUSE}"}\n',
    'alerts: {at: ["${HOUSE}"], webhook: "${HOUSE}"}\n',
    'limits: "${HOUSE}"\n',
    'retention: ["${HOUSE}"]\n',
    'log: {bodies: "${HOUSE}"}\n',
    'classes: {"${HOUSE}": "${HOUSE}"}\n',
    f"{ENVIRON['API_ONE']}: 1\n",
    f"log: {{bodies: {ENVIRON['API_ONE']}}}\n",
    f"listen: {ENVIRON['API_ONE']}\n",
    f"cache: {{{ENVIRON['API_ONE']}: 1}}\n",
    f"hosts: [{ENVIRON['API_ONE']}, *{ENVIRON['API_ONE']}]\n",
    f"hosts: !{ENVIRON['API_ONE']} x\n",
    f"hosts: &{ENVIRON['API_ONE']} [&{ENVIRON['API_ONE']} x]\nzzz: 1\n",
    f"hosts: [{ENVIRON['API_ONE']}\n",
    f'hosts: ["{ENVIRON["API_ONE"]}\n',
    f"hosts: %{ENVIRON['API_ONE']}\n",
    f"hosts: ['${{{ENVIRON['API_ONE']}}}']\n",
]


@pytest.mark.parametrize("line", BREAKERS)
def test_no_error_shows_a_secret(line: str) -> None:
    """A secret in the right place, in a wrong place or written out: no message and no traceback holds it."""
    with pytest.raises(SettingsError) as caught:
        load_text(TEXT + line, ENVIRON)
    without_canaries(str(caught.value))
    without_canaries(repr(caught.value))
    without_canaries("".join(traceback.format_exception(caught.value)))
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("break_it", ["auth: [x]", "zzz: 1", "keys: {a: b}", "secret: short"])
def test_no_error_of_a_program_shows_a_secret(break_it: str) -> None:
    """Settings made by a program without a file hide the values in pydantic's own error too."""
    name, _, value = break_it.partition(": ")
    data = {
        "admin": {"token": ENVIRON["ADMIN"]},
        "providers": {"rack": {"base_url": "http://a", "api_keys": [ENVIRON["API_ONE"]], "unknown": 1}},
        name: value,
    }
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate(data)
    without_canaries("".join(traceback.format_exception(caught.value)))


@pytest.mark.parametrize(
    ("other", "place"),
    [
        ("secret: ${ADMIN}", "secret"),
        ("keys: [{name: ci, secret: '${ADMIN}'}]", "keys[0].secret"),
        ("keys: [{name: ci, secret: '${API}'}]", "keys[0].secret"),
        ("keys: [{name: ci, secret: '${A}'}, {name: cd, secret: '${A}'}]", "keys[1].secret"),
    ],
)
def test_each_secret_has_one_use(other: str, place: str) -> None:
    """Equal values in two places are refused: who learns one secret must not gain a second."""
    text = "admin: {token: '${ADMIN}'}\nproviders: {a: {base_url: http://a, api_keys: ['${API}']}}\n" + other
    with pytest.raises(SettingsError) as caught:
        load_text(text, {"ADMIN": "a" * 40, "API": "b" * 40, "A": "c" * 40})
    told = "\n".join(caught.value.problems)
    assert "every secret needs a value of its own" in told
    assert place in told or "admin.token" in told


def test_one_api_key_may_serve_two_providers() -> None:
    """The same vendor may stand under two names with one key."""
    text = "providers: {a: {base_url: http://a, api_keys: [k]}, b: {base_url: http://b, api_keys: [k]}}"
    assert len(load_text(text, {}).settings.providers) == 2


@pytest.mark.parametrize("environ", [{"KEY": ""}, {}])
def test_an_empty_key_stops_the_start(environ: dict[str, str]) -> None:
    """A key that is empty after filling is told with provider, line, variable and what to do."""
    text = "providers:\n  holysheep:\n    base_url: https://a.example/v1\n    api_keys: ['${KEY:-}']\n"
    with pytest.raises(SettingsError) as caught:
        load_text(text, environ)
    (told,) = caught.value.problems
    assert told == (
        "tiergate.yaml:4:16: providers.holysheep.api_keys[0]: is empty, since the environment does not set "
        "KEY, or sets it to nothing: give it a value there or in .env beside this file, or remove this entry"
    )


@pytest.mark.parametrize("entry", ["", "''", "null", "~"])
def test_an_empty_key_in_the_file(entry: str) -> None:
    """An entry without a value is no key."""
    with pytest.raises(
        SettingsError, match=r"providers\.a\.api_keys\[0\]: is empty: write a value, or remove"
    ):
        load_text(f"providers:\n  a:\n    base_url: http://a\n    api_keys:\n    - {entry}\n", {})
