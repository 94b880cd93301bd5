"""Every family of mistakes is told in one sentence that names the place and what to do."""

from textwrap import dedent

import pytest

from tiergate.config import load_text
from tiergate.core import SettingsError

PRICED = "target: rack/x, usd_per_1m: {input: 1, output: 1}"
PROVIDER = "providers: {rack: {base_url: http://10.0.0.7:8000/v1, tier: private}}\n"


def problems(text: str, environ: dict[str, str] | None = None) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        load_text(dedent(text), environ or {})
    return caught.value.problems


def problem(text: str, environ: dict[str, str] | None = None) -> str:
    (only,) = problems(text, environ)
    return only


def with_provider(text: str) -> str:
    """One wrong line under a provider that is right; it stands in line 2."""
    return problem(PROVIDER + text)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("modles: {}", "tiergate.yaml:2:1: modles: there is no such setting; did you mean 'models'?"),
        ("zzz: 1", "tiergate.yaml:2:1: zzz: there is no such setting; known here: listen, admin, "),
        (
            "limits: {body: 1}",
            "tiergate.yaml:2:10: limits.body: there is no such setting; did you mean 'body_mb'?",
        ),
        ("auth: opne", "tiergate.yaml:2:7: auth: needs one of open, keys, not 'opne'; did you mean 'open'?"),
        ("listen: here", "tiergate.yaml:2:9: listen: needs an address such as 127.0.0.1:4400, "),
        ("resilience: {attempts: 6}", "2:24: resilience.attempts: needs a whole number from 1 to 5, not '6'"),
        (
            "resilience: {idle_s: soon}",
            "2:22: resilience.idle_s: needs a time such as 90d, 24h, 15m, 30s, or ",
        ),
        ("limits: {body_mb: 0}", "2:19: limits.body_mb: needs a number above 0 and up to 1024, not '0'"),
        (
            "timezone: Europe/Berlim",
            "or Europe/Berlin, not 'Europe/Berlim'; did you mean 'Europe/Berlin'?",
        ),
        (
            "hosts: [https://a.example]",
            "2:9: hosts[0]: needs a host name or an address, without scheme and port",
        ),
        ("hosts: a.example", "2:8: hosts: needs a list, such as [one, two], not 'a.example'"),
        ("cors: ['*']", "2:8: cors[0]: needs an exact origin such as https://app.example.com; * and null"),
        ("cors: [https://a.example/x]", "2:8: cors[0]: needs an origin only: scheme, host and port"),
        ("limits: 3", "2:9: limits: needs settings of its own, as `name: value` lines, not '3'"),
        ("limits: [1]", "2:1: limits: needs settings of its own, as `name: value` lines (it is a list)"),
        ("keys: {a: 1}", "2:1: keys: needs a list, such as [one, two] (it is a mapping)"),
        ("limits:", "2:8: limits: is empty: write a value, or remove the line"),
        ("listen: ''", "2:9: listen: is empty: write a value, or remove the line"),
        (
            "models: {a: {targets: []}}",
            "2:14: models.a.targets: needs at least one entry: Targets as provider/",
        ),
        (
            "models: {a: {}}",
            "2:10: models.a.targets: is missing: Targets as provider/upstream-name, best first.",
        ),
        (
            "models: {a: {targets: [rack]}}",
            "2:24: models.a.targets[0]: needs a target: provider/upstream-name, ",
        ),
        (
            "models: {a b: {targets: [rack/x]}}",
            "2:10: models.a b: the name needs a model name without spaces",
        ),
        ("data_dir: ~/data", "2:11: data_dir: cannot begin with ~: write the whole path"),
        ("secret: short", "2:9: secret: needs at least 32 characters: make one with `openssl rand -hex 32`"),
        ("keys: [{name: ci, secret: 'a b'}]", "2:27: keys[0].secret: holds a space, a line break or another"),
        (
            "prices: [{target: rack/x, usd_per_1m: {input: -1, output: 1}}]",
            "needs an amount in USD, such as 0.14",
        ),
        (
            f"prices: [{{{PRICED}, hours: [{{from: 9, to: '12:00', per_1m: {{}}}}]}}]",
            "prices[0].hours[0].from: needs a time of the day such as 09:00, not '9'",
        ),
        (
            f"prices: [{{{PRICED}, hours: [{{days: mo-fr, from: '09:00', to: '12:00', per_1m: {{}}}}]}}]",
            "prices[0].hours[0].days: needs days such as mon-fri, sat or mon,wed, not 'mo-fr'",
        ),
        (
            "prices: [{target: rack/x, per_1m: {input: 1, output: 1}, currency: euro, usd_per_currency: 1}]",
            "prices[0].currency: needs a currency of three letters, such as EUR, not 'euro'",
        ),
        (
            "prices: [{target: rack/x, usd_per_1m: {input: 1}}]",
            "prices[0].usd_per_1m.output: is missing: Answer",
        ),
        (
            "facts: [{target: rack/x, max_output_tokens: 0}]",
            "facts[0].max_output_tokens: needs a whole number from 1 to 100000000, not '0'",
        ),
        (
            "facts: [{target: rcak/x, max_output_tokens: 9}]",
            "there is no provider 'rcak'; did you mean 'rack'?",
        ),
        ("facts: [{target: rack/*, max_output_tokens: 9}]", "facts[0].target: needs one model"),
        (
            "facts: [{target: rack/x, max_output_tokens: 9}, {target: rack/x, max_output_tokens: 8}]",
            "facts[1].target: has its facts in number 1 of this list",
        ),
        (
            "prices: [{target: rack/x, usd_per_1m: {input: 1, output: 1}, from: 1.2.26}]",
            "needs a day such as 2026",
        ),
    ],
)
def test_single_value(line: str, said: str) -> None:
    """A value that cannot be is told with its place and what would be right."""
    assert said in with_provider(line)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://a.example", "needs to begin with https:// or http:// and a host"),
        ("api.example.com/v1", "needs to begin with https:// or http:// and a host"),
        ("https://", "needs to begin with https:// or http:// and a host"),
        (
            "https://user:hunter2@a.example/v1",
            "cannot hold a user name or a password: give the key under api_keys",
        ),
        ("https://a.example/v1?key=hunter2", "cannot hold a query (?) or a fragment (#)"),
        ("'https://a.example/v1#'", "cannot hold a query (?) or a fragment (#)"),
        ("https://a.example:99999/v1", "is no URL: look at the host and the port"),
        ("https://a.example:0/v1", "has a host or a port that cannot be"),
        ("http://2130706433/v1", "has a host or a port that cannot be"),
        ("http://0x7f.1/v1", "has a host or a port that cannot be"),
        ("https://a..example/v1", "has a host or a port that cannot be"),
        ("https://a_b\\.example", "needs plain ASCII without spaces"),
        ('"https://a.example/\\nHost: evil"', "needs plain ASCII without spaces"),
        ("https://ä.example/v1", "needs plain ASCII without spaces"),
    ],
)
def test_base_url(url: str, said: str) -> None:
    """An address that is no plain origin and path is refused, and never repeated in the message."""
    told = problem(f"providers:\n  rack:\n    base_url: {url}\n")
    assert told.startswith("tiergate.yaml:3:15: providers.rack.base_url: ")
    assert said in told
    assert "hunter2" not in told


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("listen: 0.0.0.0:4400", "2:9: listen: 0.0.0.0:4400 can be reached from outside, and auth is open"),
        ("listen: '[::]:4400'", "2:9: listen: [::]:4400 can be reached from outside, and auth is open"),
        (
            "admin: {listen: 0.0.0.0:4401}",
            "2:17: admin.listen: 0.0.0.0:4401 can be reached from outside: set ",
        ),
        (
            "admin: {listen: 127.0.0.1:4400}",
            "admin.listen: 127.0.0.1:4400 collides with listen: give it another",
        ),
        (
            "models: {a: {targets: [rak/x]}}",
            "2:24: models.a.targets[0]: there is no provider 'rak'; did you mean",
        ),
        ("models: {a: {targets: [zz/x]}}", "models.a.targets[0]: there is no provider 'zz'; providers: rack"),
        (
            "models: {a: {targets: [rack/x, rack/x]}}",
            "models.a.targets[1]: is the same as number 1 of this list",
        ),
        ("models: {a: {targets: ['rack/*']}}", "models.a.targets[0]: belongs under the model *"),
        (
            "models: {'*': {targets: [rack/x]}}",
            "models.*.targets[0]: needs provider/*, as the model * stands for",
        ),
        (
            "prices: [{target: rak/x, usd_per_1m: {input: 1, output: 1}}]",
            "prices[0].target: there is no provider",
        ),
        (
            "prices: [{target: rack/*, usd_per_1m: {input: 1, output: 1}}]",
            "prices[0].target: needs one model",
        ),
        (
            "prices: [{target: rack/x}]",
            "prices[0]: needs usd_per_1m with input and output, or per_1m with its currency",
        ),
        (
            "prices: [{target: rack/x, usd_per_1m: {input: 1, output: 1}, per_1m: {input: 1, output: 1}}]",
            "prices[0].per_1m: cannot stand beside usd_per_1m",
        ),
        (
            "prices: [{target: rack/x, per_1m: {input: 1, output: 1}, currency: EUR}]",
            "prices[0]: needs usd_per_currency beside per_1m",
        ),
        (
            "prices: [{target: rack/x, usd_per_1m: {input: 1, output: 1}, currency: EUR}]",
            "prices[0].currency: belongs to per_1m",
        ),
        (
            "keys: [{name: local, secret: 0123456789abcdef}]",
            "keys[0].name: local is the name of callers in open",
        ),
    ],
)
def test_together_wrong(text: str, said: str) -> None:
    """Settings that are each right and together wrong are told at the place to change."""
    assert said in with_provider(text)


def test_names_are_unique() -> None:
    """Two keys of one name would be one caller in every report."""
    told = with_provider(
        "keys:\n- {name: ci, secret: 0123456789abcdef}\n- {name: ci, secret: 1123456789abcdef}\n"
    )
    assert (
        told == "tiergate.yaml:4:10: keys[1].name: is the name of number 1 of this list too: names are unique"
    )


def test_one_price_per_target_and_day() -> None:
    """Two prices of a target from the same day leave open which one counts."""
    row = "{target: rack/x, usd_per_1m: {input: 1, output: 1}, from: 2026-01-01}"
    assert "prices[1].target: has a price from the same day in number 1 of this list" in with_provider(
        f"prices: [{row}, {row}]"
    )


@pytest.mark.parametrize(
    ("provider", "said"),
    [
        ("{tier: private}", "1:13: providers.x: needs base_url, or replicas for several servers"),
        ("{base_url: http://a, replicas: [http://b]}", "providers.x.replicas: cannot stand beside base_url"),
        (
            "{base_url: http://a, engine: vllm}",
            "providers.x.engine: belongs to a private server: set tier: private",
        ),
        ("{base_url: http://a, cost: {gpu_hour_usd: 1}}", "providers.x.cost: belongs to a private server"),
        ("{replicas: [http://a, http://a/]}", "there"),
        (
            "{base_url: http://a, api_keys: [one, one]}",
            "providers.x.api_keys[1]: is the same as number 1 of this",
        ),
        ("http://a", "providers.x: needs settings of its own, as `name: value` lines, not 'http://a'"),
    ],
)
def test_provider(provider: str, said: str) -> None:
    """A provider has an address, and only what fits its tier."""
    text = f"providers: {{x: {provider}}}"
    if said == "there":  # Equal only after reading: both are http://a
        assert "providers.x.replicas[1]: is the same as number 1" in problem(text)
    else:
        assert said in problem(text)


def test_kept_answers_of_replicas_need_redis() -> None:
    """A purge at one gateway would leave what others have in their files."""
    text = "providers: {a: {base_url: http://a}}\nsecret: 0123456789abcdef0123456789abcdef\n"
    text += "store: postgresql://u:p@h/d\ncache: {exact: {keep: store}}\n"
    assert "cache.exact.keep: needs `redis`" in problem(text)
    load_text(text + "redis: redis://h\n", {})


def test_everything_at_once() -> None:
    """All that is wrong is told in one run, in the order of the file: values, names, doors and variables."""
    told = problems(
        """\
        listen: 0.0.0.0:4400
        modles: {}
        providers:
          rack:
            base_url: ${RACK_URL}
            tier: privat
        models:
          chat: {targets: [rak/x]}
          none: {}
        budgets: [{scope: all, usd: 5}, {scope: all, usd: 6}]
        """
    )
    assert [line.split(": ")[:2] for line in told] == [
        ["tiergate.yaml:1:9", "listen"],
        ["tiergate.yaml:2:1", "modles"],
        ["tiergate.yaml:5:15", "providers.rack.base_url"],
        ["tiergate.yaml:6:11", "providers.rack.tier"],
        ["tiergate.yaml:8:20", "models.chat.targets[0]"],
        ["tiergate.yaml:9:3", "models.none.targets"],
        ["tiergate.yaml:10:41", "budgets[1].scope"],
    ]


def test_many_problems_are_cut() -> None:
    """A file that is wrong a thousand times fills a screen, not a disk."""
    told = problems(PROVIDER + "\n".join(f"unknown{number}: 1" for number in range(1000)))
    assert len(told) == 101
    assert told[-1] == "tiergate.yaml: and 900 more"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "tiergate.yaml:1:1: providers: is missing: Who can answer"),
        ("# nothing\n", "tiergate.yaml:1:1: providers: is missing: Who can answer"),
        ("[a]", "tiergate.yaml:1:1: the file needs to hold settings as `name: value` lines"),
        ("a text", "tiergate.yaml:1:1: the file needs to hold settings as `name: value` lines"),
        ("providers: {}", "tiergate.yaml:1:1: providers: needs at least one entry: Who can answer"),
        (
            "a:\n\t- b",
            "tiergate.yaml:2:1: found character '\\t' that cannot start any token; indent with spaces",
        ),
        ("a: [1", "tiergate.yaml:1:6: expected ',' or ']', but got '<stream end>'"),
        (
            "api_keys: [${KEY}]",
            "tiergate.yaml:1:13: expected ',' or ']', but got '{'; inside [ ] and { } a variable",
        ),
        ("a: *hunter2hunter2", "tiergate.yaml:1:4: found undefined alias …; put a value that begins with *"),
        (
            "a: @hunter2",
            "tiergate.yaml:1:4: found character '@' that cannot start any token; put a value that",
        ),
        (
            "a: 1\n---\nb: 2\n",
            "tiergate.yaml:2:1: but found another document; a settings file is one document",
        ),
        ("a: b: c", "tiergate.yaml:1:5: mapping values are not allowed here; look at the indentation"),
        ("a: 1\nb\n", "tiergate.yaml:3:1: could not find expected ':'; a line here is `name: value`"),
        ("a: 1\n  b: 2\n", "tiergate.yaml:2:4: mapping values are not allowed here; look at the indentation"),
        (
            "a:\n  b: 1\n c: 2\n",
            "tiergate.yaml:3:2: expected <block end>, but found '<block mapping start>'; look",
        ),
        ("a: 'b\n", "tiergate.yaml:2:1: found unexpected end of stream; a quote that was opened is"),
        ('a: "\\UFFFFFFFF"', "tiergate.yaml:1:7: is no YAML: look for a wrong escape"),
        ("a: \x07", "tiergate.yaml:1:4: holds a character that YAML does not allow"),
        ("[" * 100, "tiergate.yaml:1:"),
    ],
)
def test_no_yaml(text: str, said: str) -> None:
    """What is no plain YAML is told with its place, without the text around it."""
    told = problem(text)
    assert told.startswith(said)
    assert "hunter2" not in told


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: !!python/object/apply:os.system [ls]", "1:4: a: has a YAML tag (!…): tags are not allowed"),
        ("a: !!binary aGVsbG8=", "1:4: a: has a YAML tag (!…): tags are not allowed"),
        ("a: !secret x", "1:4: a: has a YAML tag (!…): tags are not allowed"),
        ("a: !!int 3", "1:4: a: has a YAML tag (!…): tags are not allowed"),
        ("listen: a\nlisten: b", "2:1: listen: is given twice, first in line 1: remove one"),
        ("limits: {body_mb: 1, 'body_mb': 2}", "1:22: limits.body_mb: is given twice, first in line 1"),
        ("limits: {<<: {body_mb: 1}}", "1:10: limits: merges with <<: write the settings out"),
        ("? [a, b]\n: 1", "1:3: has a name that is not plain text"),
        ('a: "\\ud800"', "1:4: a: holds half of a surrogate pair"),
        ("a: &a [*a, *a, *a]", "is nested too deep, or the file holds too many values"),
    ],
)
def test_yaml_beyond_plain(text: str, said: str) -> None:
    """Tags, duplicates, merges, odd names and endless aliases are refused."""
    assert any(said in told for told in problems(text))


def test_billion_laughs() -> None:
    """Aliases of aliases end at a limit, at once."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 7)]
    assert any("too many values" in told for told in problems("\n".join(lines)))
    lines += [f"b{n}: *a0" for n in range(10)]
    assert "holds more than 64 aliases" in problem("\n".join(lines))


def test_aliases_within_reason() -> None:
    """A value may be named once and used again."""
    loaded = load_text(
        "providers:\n  a: {base_url: http://a, limits: &l {concurrency: 3}}\n"
        "  b: {base_url: http://b, limits: *l}",
        {},
    )
    assert loaded.settings.providers["b"].limits.concurrency == 3


def test_too_large() -> None:
    """A file over 1 MiB is refused before it is parsed."""
    assert (
        problem("#" * 1_048_577) == "tiergate.yaml: is larger than 1 MiB, which no settings file needs to be"
    )
    assert "larger than 1 MiB" in problem("#" + "ä" * 524_288)


def test_escapes_for_a_terminal() -> None:
    """Names from the file cannot draw on the terminal that shows the message."""
    told = problem('providers: {rack: {base_url: http://a, "\\e[31mx\\n": 1}}')
    assert told.isprintable()
    assert "\\x1b[31mx\\n" in told
