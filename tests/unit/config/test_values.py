"""What the file says is what the settings hold: exact money, true text, times in seconds."""

import json
from decimal import Decimal
from pathlib import Path

import pytest

from tiergate.config import Address, Settings, load_text
from tiergate.core import SettingsError

BASE = "providers: {rack: {base_url: http://10.0.0.7/v1, tier: private, engine: vllm}}\n"


def settings(text: str) -> Settings:
    return load_text(BASE + text, {}).settings


def test_defaults() -> None:
    """The smallest file gives the defaults of the reference."""
    found = settings("")
    assert found.listen == "127.0.0.1:4400"
    assert (found.listen.host, found.listen.port) == ("127.0.0.1", 4400)
    assert found.admin.listen == "127.0.0.1:4401"
    assert found.admin.token is None
    assert found.data_dir == Path("./tiergate-data")
    assert (found.store, found.redis, found.secret, found.auth) == (None, None, None, "open")
    assert (found.hosts, found.cors, found.timezone) == ((), (), "UTC")
    assert found.retention.calls == 90 * 86_400
    assert found.retention.rollups == 3 * 365 * 86_400
    assert (found.limits.body_mb, found.limits.event_mb) == (32, 1)
    assert (found.classes.interactive.first_event_s, found.classes.interactive.total_s) == (2, 120)
    assert (found.classes.batch.first_event_s, found.classes.batch.total_s) == (None, 86_400)
    assert found.resilience.attempts == 3
    assert (found.resilience.first_event_s, found.resilience.idle_s) == (60, 60)
    assert (found.resilience.total_s, found.resilience.stream_total_s) == (600, 3600)
    assert found.resilience.heartbeat_s == 15
    assert found.cache.exact.when == "temperature-zero"
    assert (found.cache.exact.ttl, found.cache.exact.keep, found.cache.exact.max_mb) == (3600, "memory", 256)
    assert found.log.bodies == "never"
    assert found.alerts.at == (0.5, 0.8, 1.0)
    assert not found.models
    assert (found.prices, found.budgets, found.keys) == ((), (), ())


def test_part_of_a_class_keeps_the_rest() -> None:
    """A class that is given in part keeps its own defaults for the rest."""
    found = settings("classes: {interactive: {total_s: 60}}").classes.interactive
    assert (found.first_event_s, found.total_s) == (2, 60)


@pytest.mark.parametrize("text", ["0.14", "'0.14'", ".14", "1.4e-1", "0.140"])
def test_money_is_exact(text: str) -> None:
    """An amount is the decimal number that was written, never a binary fraction."""
    found = settings(f"prices: [{{target: rack/x, usd_per_1m: {{input: {text}, output: 0.3}}}}]").prices[0]
    assert found.usd_per_1m.input == Decimal("0.14")
    assert found.usd_per_1m.output == Decimal("0.3")
    assert found.usd_per_1m.cache_read is None


@pytest.mark.parametrize(
    "text", ["nan", ".nan", ".inf", "1e999", "-0.1", "1,5", "0x10", "1_0.5.", "2000000000"]
)
def test_no_money(text: str) -> None:
    """What is no finite amount of USD is refused."""
    with pytest.raises(SettingsError, match="needs an amount in USD"):
        settings(f"prices: [{{target: rack/x, usd_per_1m: {{input: '{text}', output: 1}}}}]")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("15m", 900),
        ("24h", 86_400),
        ("90d", 7_776_000),
        ("2w", 1_209_600),
        ("1y", 31_536_000),
        ("45", 45),
        ("0.5", 0.5),
        ("1.5h", 5400),
        ("'7 d'", 604_800),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    """A time is a number with a unit, or of seconds."""
    assert settings(f"resilience: {{idle_s: {text}}}").resilience.idle_s == seconds


@pytest.mark.parametrize("text", ["0", "0s", "-1s", "1:30", "101y", "1h30m", "5 minutes", "inf", "1e3", "٣s"])
def test_no_durations(text: str) -> None:
    """Nothing, less than nothing, and notations of others are refused."""
    with pytest.raises(SettingsError, match="needs a time such as 90d"):
        settings(f"resilience: {{idle_s: '{text}'}}")


@pytest.mark.parametrize("text", ["true", "True", "yes", "on", "'true'", "ON"])
def test_truth(text: str) -> None:
    """A truth may be written in every usual way."""
    found = load_text(f"providers: {{a: {{base_url: http://a, reseller: {text}}}}}", {}).settings
    assert found.providers["a"].reseller is True


@pytest.mark.parametrize(
    "name", ["on", "off", "yes", "no", "null", "~", "1:30", "3.10", "1e3", "0o17", "2026-01-01"]
)
def test_yaml_traps_stay_text(name: str) -> None:
    """Names and texts that YAML 1.1 would turn into something else stay what was written."""
    found = settings(
        f"models: {{{name}: {{targets: [rack/{name}]}}}}\nkeys: [{{name: ci, secret: aa{name}}}]"
    )
    assert found.models[name].targets == (f"rack/{name}",)
    assert found.keys[0].secret.reveal() == f"aa{name}"


def test_a_word_for_nothing_is_text_where_text_is_wanted() -> None:
    """A team called `no` or `3.10` is a team, and a quoted null is a name."""
    keys = "keys: [{name: 3.10, secret: aaaa, team: no}, {name: 'null', secret: bbbb, team: null}]"
    found = settings(keys).keys
    assert [(key.name, key.team) for key in found] == [("3.10", "no"), ("null", None)]


@pytest.mark.parametrize(
    ("text", "host", "port", "loopback"),
    [
        ("127.0.0.1:4400", "127.0.0.1", 4400, True),
        ("127.9.9.9:0", "127.9.9.9", 0, True),
        ("localhost:80", "localhost", 80, True),
        ("'[::1]:4400'", "::1", 4400, True),
        ("'[::ffff:127.0.0.1]:1'", "::ffff:127.0.0.1", 1, True),
        ("'[0:0::1]:04400'", "::1", 4400, True),
    ],
)
def test_listen(text: str, host: str, port: int, loopback: bool) -> None:
    """An address is a literal or localhost, with a port."""
    found = settings(f"listen: {text}").listen
    assert (found.host.replace("7f00:1", "127.0.0.1"), found.port, found.loopback) == (host, port, loopback)


@pytest.mark.parametrize(
    "text",
    [
        "4400",
        ":4400",
        "127.0.0.1",
        "127.0.0.1:65536",
        "127.0.0.1:",
        "::1:4400",
        "[127.0.0.1]:1",
        "example.com:80",
        "[fe80::1%eth0]:80",
        "127.1:80",
        "0x7f.0.0.1:80",
        "127.0.0.1:٣",
        "http://127.0.0.1:80",
        "127.0.0.1:-1",
    ],
)
def test_no_listen(text: str) -> None:
    """Names that need a lookup, and half addresses, are refused."""
    with pytest.raises(SettingsError, match="needs an address such as"):
        settings(f"listen: '{text}'")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("https://API.example.com/v1/", "https://api.example.com/v1"),
        ("https://api.example.com", "https://api.example.com"),
        ("https://api.example.com///", "https://api.example.com"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1"),
        ("HTTP://vllm:8000/V1", "http://vllm:8000/V1"),
    ],
)
def test_base_url(text: str, kept: str) -> None:
    """A base URL is kept in one form, without a slash at its end."""
    assert load_text(f"providers: {{a: {{base_url: '{text}'}}}}", {}).settings.providers["a"].base_url == kept


def test_replicas() -> None:
    """Several servers stand for one provider; `urls` gives them either way."""
    found = load_text(
        "providers: {a: {replicas: [http://a/, http://b]}, c: {base_url: http://c}}", {}
    ).settings
    assert found.providers["a"].urls == ("http://a", "http://b")
    assert found.providers["c"].urls == ("http://c",)


@pytest.mark.parametrize(
    ("url", "notices"),
    [
        ("http://api.example.com/v1", 2),
        ("http://8.8.8.8/v1", 2),
        ("https://api.example.com/v1", 1),
        ("http://10.0.0.7/v1", 0),
        ("http://192.168.1.9/v1", 0),
        ("http://100.64.0.9/v1", 0),
        ("http://[fd00::1]/v1", 0),
        ("http://127.0.0.1:8000/v1", 0),
        ("http://vllm:8000/v1", 0),
        ("http://vllm.models.svc.cluster.local/v1", 0),
    ],
)
def test_notices_for_addresses(url: str, notices: int) -> None:
    """Plain http to the public, and a public provider without a key, are told and not refused."""
    told = load_text(f"providers:\n  a:\n    base_url: {url}\n", {}).notices
    assert len(told) == notices
    assert any("tiergate.yaml:3:15: providers.a.base_url: is plain http" in line for line in told) == (
        notices == 2
    )
    assert any("no api_keys" in line for line in told) == (notices >= 1)


def test_notices_for_keys() -> None:
    """Keys that nobody has to bring, and keys that can be guessed, are told."""
    told = load_text(BASE + "keys: [{name: ci, secret: short}]", {}).notices
    assert any("keys: are given and auth is open" in line for line in told)
    assert any("keys[0].secret: is shorter than 16 characters" in line for line in told)


def test_address_collisions() -> None:
    """Two listeners collide on one port of one host, or where one takes every host; port 0 never does."""
    assert Address("127.0.0.1:1").collides(Address("127.0.0.1:1"))
    assert Address("0.0.0.0:1").collides(Address("127.0.0.1:1"))
    assert not Address("127.0.0.1:1").collides(Address("127.0.0.2:1"))
    assert not Address("127.0.0.1:0").collides(Address("127.0.0.1:0"))


def test_everything_is_frozen() -> None:
    """Neither a field nor a table of the settings can be changed."""
    found = settings("models: {a: {targets: [rack/x]}}")
    with pytest.raises(ValueError, match="frozen"):
        found.auth = "keys"
    with pytest.raises(TypeError):
        found.models["b"] = found.models["a"]  # type: ignore[index]  # the point of the test


def test_a_program_may_hand_in_finished_values() -> None:
    """Numbers, dates and mappings of Python are as good as text, and are checked the same."""
    made = Settings.model_validate(
        {
            "providers": {"a": {"base_url": "http://a", "limits": {"concurrency": 3}}},
            "prices": [{"target": "a/x", "usd_per_1m": {"input": 0.14, "output": 1}}],
            "limits": {"body_mb": 1.5},
        }
    )
    assert made.prices[0].usd_per_1m.input == Decimal("0.14")
    with pytest.raises(ValueError, match="there is no provider 'b'; providers: a"):
        Settings.model_validate(
            {"providers": {"a": {"base_url": "http://a"}}, "models": {"m": {"targets": ["b/x"]}}}
        )


def test_what_a_key_may_ask_for_is_read_and_checked() -> None:
    """Each within its bounds; `none` is an effort and no missing value."""
    text = (
        "auth: keys\nkeys: [{name: ci, secret: a-secret-of-some-length, limits: {max_output_tokens: 100, "
        "max_choices: '', max_images: 0, max_reasoning_effort: %s}}]"
    )
    limits = settings(text % "none").keys[0].limits
    assert (limits.max_output_tokens, limits.max_choices, limits.max_images) == (100, None, 0)
    assert limits.max_reasoning_effort == "none"
    with pytest.raises(SettingsError, match="max_reasoning_effort"):
        settings(text % "max")


@pytest.mark.parametrize(("given", "found"), [("20", "20"), ("0.5", "0.5"), ("1e-9", "1e-9"), ("''", None)])
def test_an_amount_per_hour_is_above_zero(given: str, found: str | None) -> None:
    """An alarm at nothing would be one for every call; empty means none."""
    expected = None if found is None else Decimal(found)
    assert settings(f"alerts: {{usd_per_hour: {given}}}").alerts.usd_per_hour == expected
    for wrong in ("0", "-1", "1e-10", "much"):
        with pytest.raises(SettingsError, match=r"alerts\.usd_per_hour"):
            settings(f"alerts: {{usd_per_hour: {wrong}}}")


def test_json_is_a_settings_file() -> None:
    """A file written as JSON loads, also with a character that JSON escapes as two halves."""
    price = {"target": "a/x", "usd_per_1m": {"input": 1, "output": 1}, "source": "\U0001f4b6"}
    text = json.dumps({"providers": {"a": {"base_url": "http://a"}}, "prices": [price]})
    assert "\\ud83d\\udcb6" in text
    assert load_text(text, {}).settings.prices[0].source == "\U0001f4b6"


@pytest.mark.parametrize("value", [True, 1.5, None, [], "1.5", "1e1", "", " 3", "3\n", "٣"])
def test_whole_numbers_are_whole(value: object) -> None:
    """A truth, a fraction, a text with spaces or foreign digits is no whole number."""
    with pytest.raises(ValueError, match="whole number from 1 to 5"):
        Settings.model_validate(
            {"providers": {"a": {"base_url": "http://a"}}, "resilience": {"attempts": value}}
        )


@pytest.mark.parametrize("given", ["0", "0s", "'0'"])
def test_a_time_that_may_be_none(given: str) -> None:
    """Old answers are never given then; a time to live of nothing is a mistake."""
    text = "providers: {a: {base_url: http://a}}\ncache: {exact: {%s: %s}}"
    assert load_text(text % ("stale_if_error", given), {}).settings.cache.exact.stale_if_error == 0
    with pytest.raises(SettingsError):
        load_text(text % ("ttl", given), {})
